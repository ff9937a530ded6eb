package modelfile

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

const scriptHint = "register a model with a predict method, or use a scoring script that loads the file"

// isPickle tells a pickle by its first bytes: the protocol, or of the protocols 0 and 1, which have no
// such mark, the first instructions of an object.
func isPickle(head []byte) bool {
	if len(head) > 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5 {
		return true
	}
	return bytes.HasPrefix(head, []byte("ccopy_reg\n")) || bytes.HasPrefix(head, []byte("ccopyreg\n"))
}

// pickleName tells the names that people give to pickles, without the ending of the compression.
func pickleName(name string) bool {
	name = strings.ToLower(path.Base(name))
	for _, packed := range []string{".gz", ".z", ".zlib", ".bz2", ".xz", ".lzma", ".lz4"} {
		name = strings.TrimSuffix(name, packed)
	}
	return slices.Contains([]string{".pkl", ".pickle", ".joblib", ".jl", ".sav", ".dill", ".cloudpickle"}, path.Ext(name))
}

// unpack is the content of a compressed file, as joblib writes such; known is false for a compression that
// cannot be undone here, and plain is nil for what is none.
func unpack(head []byte, r io.Reader) (plain io.Reader, known bool, err error) {
	buf := bufio.NewReader(r)
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		plain, err = gzip.NewReader(buf)
	case len(head) > 1 && head[0] == 0x78 && strings.IndexByte("\x01\x5e\x9c\xda", head[1]) >= 0:
		plain, err = zlib.NewReader(buf)
	case bytes.HasPrefix(head, []byte("BZh")):
		plain = bzip2.NewReader(buf)
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")), bytes.HasPrefix(head, []byte("\x5d\x00\x00")), bytes.HasPrefix(head, []byte("\x04\x22\x4d\x18")):
		return nil, false, nil
	default:
		return nil, true, nil
	}
	return plain, true, err
}

// inspectPickle judges a pickle by the object in it.
func inspectPickle(r io.Reader) (Info, error) {
	found, err := scanPickle(newStream(r))
	if err != nil {
		return Info{}, err
	}
	info := Info{Format: zarpa.FormatPickle}
	module, _, _ := strings.Cut(found.class, " ")
	top, _, _ := strings.Cut(module, ".")
	switch {
	case found.class == "" && slices.ContainsFunc(found.globals, isTorch):
		return Info{}, stateDict()
	case found.class == "":
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a pickle of %s, not of a model", found.kind).WithHint(scriptHint)
	case top == "torch":
		return Info{}, stateDict()
	case top == "__main__":
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a pickle of an object whose class %s was defined in the program that saved it: it is not in the file",
			strings.Replace(found.class, " ", ".", 1)).WithHint("deploy a scoring script with the class beside it")
	case top == "numpy" || top == "pandas" || top == "collections" || top == "builtins":
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a pickle of a %s, not of a model", strings.Replace(found.class, " ", ".", 1)).WithHint(scriptHint)
	case top == "sklearn":
		info.Format = zarpa.FormatSklearn
	}
	info.Framework = distribution(top)
	if info.Framework == sklearn {
		info.FrameworkVersion = found.sklearn
	}
	info.Packages = found.packages(info.Framework)
	return info, nil
}

// packages are those that the file imports, but for the framework.
func (s scan) packages(framework string) []string {
	var packages []string
	if s.table {
		packages = append(packages, "pandas")
	}
	for _, g := range s.globals {
		module, _, _ := strings.Cut(g, " ")
		top, _, _ := strings.Cut(module, ".")
		d := distribution(top)
		if d == "" || d == framework {
			continue
		}
		if d == sklearn && s.sklearn != "" {
			d += "==" + s.sklearn
		}
		packages = append(packages, d)
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

func isTorch(global string) bool { return strings.HasPrefix(global, "torch") }

// stateDict refuses what torch.save makes.
func stateDict() error {
	return zarpa.Errorf(zarpa.Invalid, "weights or an object saved by torch.save: without the model's own Python code nothing runs them").
		WithHint("save the model by torch.jit.save(torch.jit.script(model), 'model.pt') or torch.export.save, export it to ONNX, or deploy a scoring script")
}

// distribution is the package that a module is installed with; "" for what comes with Python.
func distribution(module string) string {
	switch module {
	case "sklearn":
		return sklearn
	case "imblearn":
		return "imbalanced-learn"
	case "__main__", "", "builtins", "__builtin__", "copyreg", "copy_reg", "collections", "functools", "operator", "datetime", "decimal",
		"re", "math", "types", "_codecs", "random", "string", "itertools", "pathlib", "uuid", "fractions", "enum", "abc", "typing", "os", "posix", "io":
		return ""
	case "cuml", "numpy", "scipy", "pandas", "joblib", "xgboost", "lightgbm", "catboost", "statsmodels", "torch", "skops", "cloudpickle", "dill",
		"mlxtend", "pmdarima", "prophet", "nltk", "spacy", "gensim", "interpret", "shap", "tensorflow", "keras", "polars", "lifelines", "sktime", "umap":
		if module == "umap" {
			return "umap-learn"
		}
		return module
	case "category_encoders":
		return "category-encoders"
	case "feature_engine":
		return "feature-engine"
	}
	return "" // not known to be the name of anything that can be installed
}

// sklearn is scikit-learn's package.
const sklearn = "scikit-learn"

// inspectPacked judges a compressed file.
func inspectPacked(name string, head []byte, r io.Reader) (Info, error) {
	plain, known, err := unpack(head, r)
	switch {
	case !known && pickleName(name):
		return Info{Format: zarpa.FormatPickle, Packages: []string{"pandas", sklearn}}, nil
	case !known:
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a file compressed by xz, lzma or lz4").WithHint("unpack it; a model of joblib must be named .joblib.xz or the like")
	case err != nil:
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a compressed file that is damaged").WithHint("copy or save the model again").Because(err)
	}
	buf := bufio.NewReaderSize(plain, windowSize)
	inner, _ := buf.Peek(headLength) // an error comes again below, or there is no pickle
	if !isPickle(inner) {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a compressed file without a pickle in it").WithHint("unpack it")
	}
	return inspectPickle(buf)
}
