package modelfile

import "github.com/zarpa-dev/zarpa"

// Converter is the text of a requirements.txt with which a model can be brought into ONNX: what
// [Requirements] says, the converter, and ONNX Runtime to compare both. It is empty for formats that
// no converter reads.
func Converter(info Info) string {
	more := ""
	switch info.Format {
	case zarpa.FormatSklearn:
		more = "skl2onnx>=1.19,<2\n"
	case zarpa.FormatXGBoost, zarpa.FormatLightGBM:
		more = "onnxmltools>=1.14,<2\nskl2onnx>=1.19,<2\n"
	default:
		return ""
	}
	return Requirements(info) + more + "onnxruntime>=1.23,<2\n"
}
