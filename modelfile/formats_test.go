package modelfile_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/modelfile"
)

// zipOf makes an archive of empty members but for those with a content, NAME=CONTENT.
func zipOf(t testing.TB, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range members {
		name, content, _ := strings.Cut(m, "=")
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// object is a pickle of an object of a class, by protocol 2.
func object(module, class string) []byte {
	return []byte("\x80\x02c" + module + "\n" + class + "\n)\x81}b.")
}

func model(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(trained, path))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func compressed(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data) // to memory
	_ = w.Close()
	return b.Bytes()
}

// oldXGBoost is the head of XGBoost's old binary form.
func oldXGBoost(major uint32) []byte {
	var b bytes.Buffer
	words := make([]uint32, 136/4)
	words[1], words[2], words[5] = 4, 3, major
	for _, part := range []any{words, uint64(14), []byte("multi:softprob"), uint64(6), []byte("gbtree"), make([]byte, 100)} {
		_ = binary.Write(&b, binary.LittleEndian, part) // to memory
	}
	return b.Bytes()
}

func TestFilesOfOtherFormatsAreAccepted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files                      map[string][]byte
		format, framework, version string
	}{
		"any object":              {map[string][]byte{"m.pkl": object("catboost.core", "CatBoostClassifier")}, "pickle", "catboost", ""},
		"an object of one's own":  {map[string][]byte{"m.pkl": object("mymodel", "Scorer")}, "pickle", "", ""},
		"gzip by hand":            {map[string][]byte{"m.pkl.gz": compressed(object("sklearn.svm", "SVC"))}, "sklearn", "scikit-learn", ""},
		"lz4 by name":             {map[string][]byte{"m.joblib.lz4": []byte("\x04\x22\x4d\x18rest")}, "pickle", "", ""},
		"old XGBoost":             {map[string][]byte{"m.model": oldXGBoost(1)}, "xgboost", "xgboost", "1.0.0"},
		"older XGBoost":           {map[string][]byte{"m.bin": append([]byte("binf"), oldXGBoost(0)...)}, "xgboost", "xgboost", ""},
		"exported program":        {map[string][]byte{"m.pt2": zipOf(t, `serialized_exported_program.json={"torch_version": "2.5.1+cpu"}`, "version")}, "torchexport", "torch", "2.5.1"},
		"exported program, newer": {map[string][]byte{"m.pt2": zipOf(t, "m/archive_format=pt2", `m/models/model.json={"graph_module": {"a": [1, {"b": "}"}]}, "torch_version": "2.9.0"}`)}, "torchexport", "torch", "2.9.0"},
		"beside other files": {map[string][]byte{
			"README.md": []byte("# text"), "config.json": []byte("{}"), "model.pkl": object("sklearn.svm", "SVC"), "scaler.pkl": object("sklearn.svm", "SVC"),
		}, "sklearn", "scikit-learn", ""},
		"at the top alone": {map[string][]byte{"a.pkl": object("sklearn.svm", "SVC"), "old/a.pkl": object("catboost", "C")}, "sklearn", "scikit-learn", ""},
		"MLflow below":     {map[string][]byte{"m/MLmodel": []byte("flavors: {python_function: {loader_module: x}}\nmlflow_version: 1.2.3"), "m/model.pkl": nil}, "mlflow", "mlflow", "1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, err := modelfile.Inspect(folder(test.files))
			if err != nil || info.Format != test.format || info.Framework != test.framework || info.FrameworkVersion != test.version {
				t.Errorf("got %+v, %v", info, err)
			}
		})
	}
}

func TestFilesOfOtherFormatsAreRefused(t *testing.T) {
	t.Parallel()
	logistic := model(t, "sklearn-logistic/model/model.pkl")
	joblib := model(t, "sklearn-forest/model/model.joblib")
	booster := model(t, "xgboost-json/model/model.json")
	for name, test := range map[string]struct {
		file string
		data []byte
		want string
	}{
		"a dict":               {"m.pkl", []byte("\x80\x02}."), "a pickle of a dict"},
		"a list":               {"m.pkl", []byte("\x80\x02]."), "a pickle of a list"},
		"an array":             {"m.pkl", []byte("\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R."), "numpy.core.multiarray"},
		"of __main__":          {"m.pkl", object("__main__", "Scorer"), "__main__.Scorer was defined in the program"},
		"torch, eager":         {"m.pt", zipOf(t, "m/data.pkl", "m/data/0", "m/version"), "torch.jit.save"},
		"torch, by pickle":     {"m.pt", object("torch.nn.modules.linear", "Linear"), "torch.jit.save"},
		"torch, old":           {"m.pt", []byte("\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."), "a pickle of"},
		"truncated pickle":     {"m.pkl", logistic[:len(logistic)-9], "truncated pickle"},
		"truncated joblib":     {"m.joblib", joblib[:len(joblib)-700], "truncated pickle"},
		"damaged pickle":       {"m.pkl", append([]byte("\x80\x02"), 0xff, 0xff), "no valid instruction at byte 2"},
		"empty stack":          {"m.pkl", []byte("\x80\x02."), "no valid instruction"},
		"a tar":                {"m.tgz", compressed(make([]byte, 600)), "without a pickle"},
		"cut gzip":             {"m.gz", []byte("\x1f\x8b\x08"), "damaged"},
		"xz of anything":       {"m.xz", []byte("\xfd7zXZ\x00rest"), "xz"},
		"weights of Keras":     {"m.h5", []byte("\x89HDF\r\n\x1a\nkeras_version\x00"), "without the model"},
		"another HDF5":         {"m.h5", []byte("\x89HDF\r\n\x1a\nanything"), "Keras did not save"},
		"skops":                {"m.skops", zipOf(t, "schema.json"), "skops"},
		"zipped folder":        {"m.zip", zipOf(t, "m/MLmodel", "m/model.pkl"), "unpack it and register the folder"},
		"arrays":               {"m.npz", zipOf(t, "a.npy", "b.npy"), "arrays of NumPy"},
		"another zip":          {"m.zip", zipOf(t, "a.txt"), "unpack it"},
		"no zip at all":        {"m.zip", []byte("PK\x03\x04rest"), "damaged, or truncated"},
		"compiled package":     {"m.pt2", zipOf(t, "m/archive_format=pt2", "m/data/aotinductor/model.so"), "compiled for one machine"},
		"LightGBM, cut":        {"m.txt", []byte("tree\nversion=v4\nnum_class=1\n"), "without trees"},
		"LightGBM, no feature": {"m.txt", []byte("tree\nversion=v4\nTree=0\n"), "max_feature_idx="},
		"JSON of others":       {"m.json", []byte(`{"a": [1, 2.5e-3, null, "\"\\u00e9"]}`), "not a model that XGBoost saved"},
		"truncated JSON":       {"m.json", booster[:len(booster)-5], "truncated: the file ends"},
		"broken JSON":          {"m.json", []byte(`{"learner" 5}`), "nothing valid at byte"},
		"deep JSON":            {"m.json", []byte(`{"learner":` + strings.Repeat("[", 1000)), "nested more than"},
		"broken UBJSON":        {"m.ubj", []byte("{L\xff\xff\xff\xff\xff\xff\xff\xff"), "nothing valid"},
		"endless UBJSON":       {"m.ubj", []byte("{i\x01a[$T#L\x3f\xff\xff\xff\xff\xff\xff\xff}"), "not a model that XGBoost saved"},
		"safetensors":          {"m.safetensors", []byte("\x10\x00\x00\x00\x00\x00\x00\x00{\"a\""), "safetensors"},
		"GGUF":                 {"m.gguf", []byte("GGUF\x03\x00"), "GGUF"},
		"TensorFlow Lite":      {"m.tflite", []byte("\x1c\x00\x00\x00TFL3"), "TensorFlow Lite"},
		"MLmodel, no YAML":     {"MLmodel", []byte("\t- ["), "not the YAML"},
		"MLmodel, no pyfunc":   {"MLmodel", []byte("flavors: {onnx: {}}"), "no python_function among onnx"},
		"MLmodel, no loader":   {"MLmodel", []byte("flavors: {python_function: {}}"), "loader_module: missing"},
		"MLmodel, long":        {"MLmodel", bytes.Repeat([]byte("# comment\n"), 200_000), "longer than"},
		"MLmodel, signature":   {"MLmodel", []byte("flavors: {python_function: {loader_module: x}}\nsignature: {inputs: '{'}"), "signature.inputs"},
		"SavedModel, empty":    {"saved_model.pb", nil, "empty"},
		"SavedModel, damaged":  {"saved_model.pb", []byte{0x12, 0x50}, "truncated"},
		"SavedModel, noise":    {"saved_model.pb", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "not a SavedModel"},
		"SavedModel, unsigned": {"saved_model.pb", bytesField(2, bytesField(1, textField(5, "2.9.0"))), "without a signature"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := modelfile.Inspect(folder(map[string][]byte{test.file: test.data}))
			var e *zarpa.Error
			if !errors.As(err, &e) || e.Code != zarpa.Invalid || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want invalid with %q", err, test.want)
			}
		})
	}
}

func TestXGBoostsOldBinaryForm(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/xgboost-2.1-old.model") // saved by XGBoost 2.1.4
	if err != nil {
		t.Fatal(err)
	}
	info, err := modelfile.Inspect(folder(map[string][]byte{"m.model": data}))
	if err != nil || info.FrameworkVersion != "2.1.0" || !info.Old || modelfile.Requirements(info) != "xgboost-cpu<3.1\nnumpy\n" {
		t.Errorf("got %+v, %v", info, err)
	}
	if out := info.Signature.Outputs; len(out) != 1 || out[0].Sizes()[1] != 3 || info.Signature.Inputs[0].Sizes()[1] != 4 {
		t.Errorf("got %+v", info.Signature)
	}
}

func TestSeveralModelsNeedAChoice(t *testing.T) {
	t.Parallel()
	svc := object("sklearn.svm", "SVC")
	_, err := modelfile.Inspect(folder(map[string][]byte{"a.pkl": svc, "b.pkl": svc}))
	if err == nil || !strings.Contains(err.Error(), "several models: a.pkl, b.pkl") {
		t.Errorf("got %v", err)
	}
	_, err = modelfile.Inspect(folder(map[string][]byte{"a/MLmodel": nil, "b/MLmodel": nil}))
	if err == nil || !strings.Contains(err.Error(), "several models") {
		t.Errorf("got %v", err)
	}
}

func TestAnyFilesDoForScripts(t *testing.T) {
	t.Parallel()
	one, err := modelfile.InspectFiles(folder(map[string][]byte{"weights.bin": {1}}))
	if err != nil || one.Format != zarpa.FormatFiles || one.File != "weights.bin" {
		t.Errorf("got %+v, %v", one, err)
	}
	two, err := modelfile.InspectFiles(folder(map[string][]byte{"a": {1}, "b": {2}}))
	if err != nil || two.File != "" {
		t.Errorf("got %+v, %v", two, err)
	}
	if _, err := modelfile.InspectFiles(folder(nil)); err == nil {
		t.Error("an empty folder was accepted")
	}
}

func TestFormatsThatNeedNoRandomAccessDoWithout(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sklearn-forest", "sklearn-gzip", "xgboost-json", "xgboost-ubj", "lightgbm-classes", "savedmodel-keras"} {
		info, err := modelfile.Inspect(inOrder{os.DirFS(filepath.Join(trained, name, "model"))})
		if err != nil || info.Format == "" {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

// seekOnly is a file system whose files can seek but not be read at a place.
type seekOnly struct{ fs.FS }

type seekOnlyFile struct {
	fs.File
	seek func(int64, int) (int64, error)
}

func (f seekOnlyFile) Seek(offset int64, whence int) (int64, error) { return f.seek(offset, whence) }

func (f seekOnly) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if _, dir := file.(fs.ReadDirFile); err != nil || (dir && strings.HasSuffix(name, ".")) {
		return file, err
	}
	if s, ok := file.(interface {
		Seek(int64, int) (int64, error)
	}); ok {
		return seekOnlyFile{file, s.Seek}, nil
	}
	return file, nil
}

func TestArchivesAreReadBySeeking(t *testing.T) {
	t.Parallel()
	files := folder(map[string][]byte{"m.keras": model(t, "keras-file/model/model.keras")})
	info, err := modelfile.Inspect(seekOnly{files})
	if err != nil || info.FrameworkVersion != "3.15.1" {
		t.Errorf("got %+v, %v", info, err)
	}
}

// TestPicklesTakeLittleMemory scans a pickle that would hold millions of texts.
func TestPicklesTakeLittleMemory(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("\x80\x04csklearn.svm\nSVC\n)\x81}(")
	for range 300_000 { // each a text of 300 bytes that is kept for later
		b.WriteString("X\x2c\x01\x00\x00" + strings.Repeat("x", 300) + "\x94K\x01u(")
	}
	b.WriteString("ub.")
	files := folder(map[string][]byte{"m.pkl": b.Bytes()})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	info, err := modelfile.Inspect(files)
	runtime.ReadMemStats(&after)
	if err != nil || info.Format != zarpa.FormatSklearn {
		t.Errorf("got %+v, %v", info, err)
	}
	if grown := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && grown > 160<<20 {
		t.Errorf("%d MiB for a pickle of %d MiB", grown>>20, b.Len()>>20)
	}
}

// fuzzFormats runs Inspect on one file; whatever it is, the error is invalid.
func fuzzFormats(f *testing.F, file string, seeds ...string) {
	for _, s := range seeds {
		if data := model(f, s); len(data) < 6<<10 || len(seeds) == 1 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := modelfile.Inspect(folder(map[string][]byte{file: data}))
		var e *zarpa.Error
		if err != nil && (!errors.As(err, &e) || e.Code != zarpa.Invalid) {
			t.Errorf("not an invalid error: %v", err)
		}
		if err != nil || info.Format == zarpa.FormatONNX || info.Format == zarpa.FormatMLflow {
			return
		}
		for line := range strings.Lines(modelfile.Requirements(info)) { // nothing of the file's own may become an option of pip
			if strings.HasPrefix(line, "-") || strings.ContainsAny(line, " \\/;@\r") || len(line) > 60 {
				t.Errorf("requirements have %q", line)
			}
		}
	})
}

func FuzzPickle(f *testing.F) {
	f.Add(object("sklearn.svm", "SVC"))
	fuzzFormats(f, "m.pkl", "sklearn-logistic/model/model.pkl", "sklearn-protocol0/model/model.pkl", "sklearn-forest/model/model.joblib",
		"sklearn-zlib/model/model.joblib", "sklearn-encoder/model/model.joblib")
}

func FuzzXGBoostJSON(f *testing.F) { fuzzFormats(f, "m.json", "xgboost-json/model/model.json") }

func FuzzXGBoostUBJSON(f *testing.F) { fuzzFormats(f, "m.ubj", "xgboost-ubj/model/model.ubj") }

func FuzzXGBoostOld(f *testing.F) {
	f.Add(oldXGBoost(1))
	fuzzFormats(f, "m.model")
}

func FuzzLightGBM(f *testing.F) { fuzzFormats(f, "m.txt", "lightgbm-classes/model/model.txt") }

func FuzzArchive(f *testing.F) {
	f.Add(zipOf(f, "m/archive_format=pt2", `m/models/model.json={"torch_version": "2.9.0"}`))
	fuzzFormats(f, "m.pt", "torchscript-network/model/model.pt", "keras-file/model/model.keras")
}

func FuzzHDF5(f *testing.F) { fuzzFormats(f, "m.h5", "keras-hdf5/model/model.h5") }

func FuzzSavedModel(f *testing.F) {
	fuzzFormats(f, "saved_model.pb", "savedmodel-keras/model/saved_model.pb", "savedmodel-texts/model/saved_model.pb")
}

func FuzzMLflow(f *testing.F) {
	fuzzFormats(f, "MLmodel", "mlflow-columns/model/MLmodel", "mlflow-custom/model/MLmodel", "mlflow-tensors/model/MLmodel")
}
