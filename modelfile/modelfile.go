// Package modelfile recognises model files and reads their signatures, without running them and
// without the runtime that could. It reads ONNX, as onnx.proto of the ONNX project defines it, in
// one pass that steps over the weights: a file of gigabytes takes milliseconds and little memory.
// Of the formats that Python runs it reads what decides how: format, framework, version, and the
// signature where the files have one. All that it reads may be hostile: depth, counts and lengths are
// bounded, and a pickle is followed, never obeyed.
package modelfile

import (
	"errors"
	"io/fs"
	"path"
	"sort"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// Info is what a model's files say.
type Info struct {
	// Format is one of zarpa's Format constants.
	Format string
	// Framework is the Python package that made the files, with the version that they tell; both may be
	// empty.
	Framework        string
	FrameworkVersion string
	// File is the main file's path in the folder; of a format that is a folder the file that makes it
	// one, empty where that is at the top.
	File string
	// Signature is what the model takes and gives: inputs that have a default in the file are
	// Optional and come after the others, as ONNX Runtime orders them. It is empty where only
	// running the model tells.
	Signature zarpa.Signature
	// ExternalData are the other files of the folder that hold weights, sorted.
	ExternalData []string
	// Packages are further Python packages that loading the model needs, sorted, some with ==VERSION.
	Packages []string
	// Python is the version of Python that saved the model, where the files tell it.
	Python string
	// Requirements is the folder's own requirements text, of an MLflow folder.
	Requirements string
	// Old says that the file is of a form that the framework has given up since.
	Old bool
}

// maxEntries bounds the files of a model's folder.
const maxEntries = 10_000

// mainName is the name that makes an ONNX file the main one, and mainStem a file of another format.
const (
	mainName = "model.onnx"
	mainStem = "model"
)

// Inspect reads the model in a folder; a model of one file is a folder with that file. A folder of
// MLflow or TensorFlow is known by MLmodel or saved_model.pb. Else the main file is model.onnx, or the
// only .onnx file, or the only file of a known format, or of several such the one that is named model
// or is at the top alone, or the only file. What cannot be a model is an invalid error that says what
// it is instead.
func Inspect(fsys fs.FS) (Info, error) {
	all, err := files(fsys)
	if err != nil {
		return Info{}, err
	}
	marker, err := folderMarker(all)
	if err != nil {
		return Info{}, err
	}
	if marker != "" {
		info, err := inspectFolder(fsys, marker)
		return info, named(marker, err)
	}
	main, err := mainFile(fsys, all)
	if err != nil {
		return Info{}, err
	}
	info, err := inspectFile(fsys, main)
	if err != nil {
		return Info{}, named(main, err)
	}
	info.File = main
	return info, nil
}

// InspectFiles accepts any files, for models that only a scoring script can read: it checks that there
// are some, and not too many.
func InspectFiles(fsys fs.FS) (Info, error) {
	all, err := files(fsys)
	switch {
	case err != nil:
		return Info{}, err
	case len(all) == 0:
		return Info{}, emptyFolder()
	}
	info := Info{Format: zarpa.FormatFiles}
	if len(all) == 1 {
		info.File = all[0]
	}
	return info, nil
}

// named puts the file's name before an error in it.
func named(file string, err error) error {
	if err == nil {
		return nil
	}
	e := *zarpa.AsError(err)
	e.Message = path.Base(file) + ": " + e.Message
	return &e
}

func emptyFolder() error { return zarpa.Errorf(zarpa.Invalid, "the model's folder is empty") }

func inspectFile(fsys fs.FS, name string) (Info, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "cannot be opened").Because(err)
	}
	defer f.Close() //nolint:errcheck // was only read
	stat, err := f.Stat()
	if err != nil {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "cannot be read").Because(err)
	}
	if stat.Size() == 0 {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "the file is empty").WithHint("export the model again")
	}
	src := newSource(f, stat.Size())
	head, err := src.peek(0, headLength)
	if err != nil {
		return Info{}, err
	}
	onnx := strings.EqualFold(path.Ext(name), ".onnx")
	if !onnx {
		if read := reader(name, head); read != nil {
			return inspectOther(fsys, name, read)
		}
	}
	if what, hint := recognise(head); what != "" {
		kind := "a model"
		if onnx {
			kind = "an ONNX file"
		}
		return Info{}, zarpa.Errorf(zarpa.Invalid, "not %s, but %s", kind, what).WithHint("%s", hint)
	}
	if err := checkLength(stat.Size()); err != nil {
		return Info{}, err
	}
	m := newModel(fsys, path.Dir(name))
	if err := m.read(src); err != nil {
		return Info{}, err
	}
	sig, err := m.signature()
	if err != nil {
		return Info{}, err
	}
	return Info{Format: zarpa.FormatONNX, Signature: sig, ExternalData: m.external.names()}, nil
}

// checkLength refuses what protobuf cannot hold.
func checkLength(size int64) error {
	const limit = 2 << 30
	if size >= limit {
		return zarpa.Errorf(zarpa.Invalid, "%d bytes: a protobuf file must be smaller than 2 GiB", size).
			WithHint("export the model with external data, and register the folder: onnx.save(model, path, save_as_external_data=True)")
	}
	return nil
}

// files are the paths of all files of a folder, in lexical order.
func files(fsys fs.FS) ([]string, error) {
	var all []string
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return nil
		case len(all) == maxEntries:
			return zarpa.Errorf(zarpa.Invalid, "the model's folder has more than %d files", maxEntries).WithHint("register the folder of the model alone")
		}
		all = append(all, p)
		return nil
	})
	if err == nil || errors.As(err, new(*zarpa.Error)) {
		return all, err
	}
	return nil, zarpa.Errorf(zarpa.Invalid, "the model's folder cannot be read").Because(err)
}

// folderMarker is the file that makes a folder a model: at the top, or the only one below it.
func folderMarker(all []string) (string, error) {
	for _, marker := range []string{markerMLflow, markerSavedModel} {
		var found []string
		for _, p := range all {
			switch {
			case p == marker:
				return p, nil
			case path.Base(p) == marker:
				found = append(found, p)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return "", zarpa.Errorf(zarpa.Invalid, "several models: %s", some(found)).WithHint("register the folder of one of them")
		}
	}
	return "", nil
}

// mainFile chooses the model's main file.
func mainFile(fsys fs.FS, all []string) (string, error) {
	var models, top []string
	for _, p := range all {
		if !strings.EqualFold(path.Ext(p), ".onnx") {
			continue
		}
		models = append(models, p)
		if p == mainName {
			return p, nil
		}
		if !strings.Contains(p, "/") {
			top = append(top, p)
		}
	}
	switch {
	case len(all) == 0:
		return "", emptyFolder()
	case len(top) == 1:
		return top[0], nil
	case len(models) == 1:
		return models[0], nil
	case len(models) > 1:
		return "", zarpa.Errorf(zarpa.Invalid, "several .onnx files: %s", some(models)).WithHint("name the main one %s", mainName)
	case len(all) == 1:
		return all[0], nil
	}
	return chooseOther(fsys, all)
}

// chooseOther chooses among files that are no ONNX, by their beginnings.
func chooseOther(fsys fs.FS, all []string) (string, error) {
	var models, top, main []string
	for _, p := range all {
		if !maybeModel(fsys, p) {
			continue
		}
		models = append(models, p)
		if !strings.Contains(p, "/") {
			top = append(top, p)
			if stem, _, _ := strings.Cut(p, "."); stem == mainStem {
				main = append(main, p)
			}
		}
	}
	for _, list := range [][]string{models, main, top} {
		if len(list) == 1 {
			return list[0], nil
		}
	}
	if len(models) > 1 {
		return "", zarpa.Errorf(zarpa.Invalid, "several models: %s", some(models)).
			WithHint("register the file of one of them, or name the main one %s, such as %s", mainStem, mainStem+path.Ext(models[0]))
	}
	return "", zarpa.Errorf(zarpa.Invalid, "no model among %s", some(all)).
		WithHint("register a file of ONNX, scikit-learn, XGBoost, LightGBM, TorchScript, torch.export or Keras, or a folder of MLflow or a SavedModel")
}

// some names the first few.
func some(names []string) string {
	const most = 5
	sort.Strings(names)
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
