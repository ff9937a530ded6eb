package modelfile_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/modelfile"
)

// trained are models that the frameworks themselves wrote: engine/python/testdata/train.py.
const trained = "../engine/python/testdata/models"

// expectation is what train.py wrote beside a model.
type expectation struct {
	Format  string `json:"format"`
	File    string `json:"file"`
	Inputs  map[string]expectedValue
	Outputs map[string]expectedValue
}

type expectedValue struct {
	Type  string  `json:"dtype"`
	Shape []int64 `json:"shape"`
}

func expected(t *testing.T, dir string) expectation {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var e expectation
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), "NaN", "null")), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func trainedModels(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(trained, "*", "expected.json"))
	if err != nil || len(dirs) < 30 {
		t.Fatalf("%d models in %s, %v", len(dirs), trained, err)
	}
	for i, d := range dirs {
		dirs[i] = filepath.Dir(d)
	}
	return dirs
}

func TestTrainedModelsAreRecognised(t *testing.T) {
	t.Parallel()
	for _, dir := range trainedModels(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			want := expected(t, dir)
			info, err := modelfile.Inspect(os.DirFS(filepath.Join(dir, "model")))
			if err != nil {
				t.Fatal(err)
			}
			if compressed := strings.HasSuffix(want.File, ".xz"); compressed {
				want.Format = zarpa.FormatPickle // its content is not looked at
			}
			if info.Format != want.Format || info.File != want.File {
				t.Errorf("got %s in %q, want %s in %q", info.Format, info.File, want.Format, want.File)
			}
			compareValues(t, info.Signature.Inputs, want.Inputs)
			compareValues(t, info.Signature.Outputs, want.Outputs)
		})
	}
}

// compareValues holds a half of a signature, which may be empty, against values that the framework took or gave.
func compareValues(t *testing.T, said []zarpa.ValueInfo, real map[string]expectedValue) {
	t.Helper()
	if len(said) == 0 {
		return
	}
	if len(said) != len(real) {
		t.Errorf("got %d values, want %d", len(said), len(real))
	}
	types := map[string]string{"FP32": "float32", "FP64": "float64", "INT32": "int32", "INT64": "int64", "BYTES": "object"}
	for _, v := range said {
		want, ok := real[v.Name]
		if !ok || types[v.Type.String()] != want.Type || !v.NoShape && !matches(v.Sizes(), want.Shape) {
			t.Errorf("%q is %v %v, but the framework had %+v", v.Name, v.Type, v.Sizes(), want)
		}
	}
}

func matches(said, real []int64) bool {
	return slices.EqualFunc(said, real, func(s, r int64) bool { return s < 0 || s == r })
}

func TestTrainedModelsTellTheirFrameworks(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ framework, version, requirements string }{
		"sklearn-logistic":    {"scikit-learn", "1.9.1", "scikit-learn==1.9.1\njoblib\nnumpy\n"},
		"sklearn-protocol0":   {"scikit-learn", "1.9.1", "scikit-learn==1.9.1\njoblib\nnumpy\n"},
		"sklearn-forest":      {"scikit-learn", "1.9.1", "scikit-learn==1.9.1\njoblib\nnumpy\n"},
		"sklearn-zlib":        {"scikit-learn", "1.9.1", "scikit-learn==1.9.1\njoblib\nnumpy\n"},
		"sklearn-gzip":        {"scikit-learn", "1.9.1", "scikit-learn==1.9.1\njoblib\nnumpy\n"},
		"sklearn-bz2":         {"scikit-learn", "1.9.1", "scikit-learn==1.9.1\njoblib\nnumpy\n"},
		"sklearn-xz":          {"", "", "pandas\nscikit-learn\njoblib\nnumpy\n"},
		"sklearn-table":       {"scikit-learn", "1.9.1", "scikit-learn==1.9.1\npandas\njoblib\nnumpy\n"},
		"sklearn-texts":       {"scikit-learn", "1.9.1", "scikit-learn==1.9.1\njoblib\nnumpy\n"},
		"pickle-xgboost":      {"xgboost", "", "xgboost-cpu\nscikit-learn\njoblib\nnumpy\n"},
		"pickle-lightgbm":     {"lightgbm", "", "lightgbm\nscikit-learn==1.9.1\njoblib\nnumpy\n"},
		"xgboost-json":        {"xgboost", "3.2.0", "xgboost-cpu==3.2.0\nnumpy\n"},
		"xgboost-ubj":         {"xgboost", "3.2.0", "xgboost-cpu==3.2.0\nnumpy\n"},
		"lightgbm-classes":    {"lightgbm", "", "lightgbm>=4,<5\nnumpy\n"},
		"torchscript-network": {"torch", "", "torch\nnumpy\n"},
		"torchexport-network": {"torch", "2.6.0", "torch==2.6.0\nnumpy\n"},
		"savedmodel-keras":    {"tensorflow", "2.21.0", "tensorflow-cpu==2.21.0\n"},
		"keras-file":          {"keras", "3.15.1", "keras==3.15.1\ntensorflow-cpu\n"},
		"keras-hdf5":          {"keras", "3.15.1", "keras==3.15.1\ntensorflow-cpu\n"},
		"mlflow-columns":      {"mlflow", "3.17.2", "mlflow-skinny==3.17.2\ncloudpickle==3.1.3\npandas==3.1.1\nscikit-learn==1.9.1\nnumpy\n"},
		"mlflow-custom":       {"mlflow", "3.17.2", "mlflow-skinny==3.17.2\npandas==3.1.1\nnumpy\n"},
	} {
		info, err := modelfile.Inspect(os.DirFS(filepath.Join(trained, name, "model")))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if info.Framework != want.framework || info.FrameworkVersion != want.version {
			t.Errorf("%s: got %s %s, want %s %s", name, info.Framework, info.FrameworkVersion, want.framework, want.version)
		}
		if got := modelfile.Requirements(info); got != want.requirements {
			t.Errorf("%s: got requirements %q, want %q", name, got, want.requirements)
		}
	}
}

func TestAnOldModelGetsTheNumPyOfItsTime(t *testing.T) {
	t.Parallel()
	info, err := modelfile.Inspect(os.DirFS("../engine/python/testdata/refused/sklearn-1.2.2"))
	if want := "scikit-learn==1.2.2\njoblib\nnumpy<2\n"; err != nil || modelfile.Requirements(info) != want {
		t.Errorf("got %q, %v", modelfile.Requirements(info), err)
	}
}
