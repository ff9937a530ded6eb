package modelfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/modelfile"
)

const zoo = "../engine/enginetest/testdata"

func inspectZoo(t *testing.T, path string) (modelfile.Info, error) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(zoo, path))
	if err != nil {
		t.Fatal(err)
	}
	return modelfile.Inspect(fstest.MapFS{"model.onnx": {Data: data, Mode: 0o644}})
}

func TestTheZoosBrokenFilesAreRefused(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"truncated.onnx":              "truncated",
		"not_onnx.onnx":               "but text",
		"empty.onnx":                  "empty",
		"external_escape.onnx":        "outside the model's folder",
		"external_absolute.onnx":      "outside the model's folder",
		"external_missing.onnx":       "not in the model's folder",
		"external_outside/model.onnx": "outside the model's folder",
	} {
		if _, err := inspectZoo(t, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

func TestAFolderWithExternalData(t *testing.T) {
	t.Parallel()
	info, err := modelfile.Inspect(os.DirFS(filepath.Join(zoo, "external")))
	if err != nil || len(info.ExternalData) != 1 || info.ExternalData[0] != "weights.bin" {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestTheExamples(t *testing.T) {
	t.Parallel()
	iris, err := modelfile.Inspect(os.DirFS("../examples/iris"))
	if err != nil {
		t.Fatal(err)
	}
	sig := iris.Signature
	if iris.File != "iris.onnx" || sig.Producer != "skl2onnx" || sig.Opsets["ai.onnx.ml"] == 0 || len(sig.Inputs) != 1 || len(sig.Outputs) != 2 || sig.Outputs[1].Type != zarpa.Sequence {
		t.Errorf("got %+v", iris)
	}
	digits, err := modelfile.Inspect(os.DirFS("../examples/digits"))
	if err != nil || digits.Signature.Inputs[0].Type != zarpa.Float32 {
		t.Errorf("got %+v, %v", digits, err)
	}
}
