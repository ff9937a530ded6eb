// Package modelfile recognises model files and reads their signatures, without running them and
// without the runtime that could. It reads ONNX, as onnx.proto of the ONNX project defines it, in
// one pass that steps over the weights: a file of gigabytes takes milliseconds and little memory.
// All that it reads may be hostile: depth, counts and lengths are bounded.
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
	// Format is "onnx".
	Format string
	// File is the main file's path in the folder.
	File string
	// Signature is what the model takes and gives: inputs that have a default in the file are
	// Optional and come after the others, as ONNX Runtime orders them.
	Signature zarpa.Signature
	// ExternalData are the other files of the folder that hold weights, sorted.
	ExternalData []string
}

// maxEntries bounds the files of a model's folder.
const maxEntries = 10_000

// mainName is the name that makes a file the main one.
const mainName = "model.onnx"

// Inspect reads the model in a folder; a model of one file is a folder with that file. The main
// file is model.onnx, or the only .onnx file, or the only file. What cannot be a model is an
// invalid error that says what it is instead.
func Inspect(fsys fs.FS) (Info, error) {
	main, err := mainFile(fsys)
	if err != nil {
		return Info{}, err
	}
	info, err := inspectFile(fsys, main)
	if err != nil {
		e := *zarpa.AsError(err)
		e.Message = path.Base(main) + ": " + e.Message
		return Info{}, &e
	}
	return info, nil
}

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
	if err := checkLength(stat.Size()); err != nil {
		return Info{}, err
	}
	src := newSource(f, stat.Size())
	head, err := src.peek(0, headLength)
	if err != nil {
		return Info{}, err
	}
	if what, hint := recognise(head); what != "" {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "not an ONNX file, but %s", what).WithHint("%s", hint)
	}
	m := newModel(fsys, path.Dir(name))
	if err := m.read(src); err != nil {
		return Info{}, err
	}
	sig, err := m.signature()
	if err != nil {
		return Info{}, err
	}
	return Info{Format: "onnx", File: name, Signature: sig, ExternalData: m.external.names()}, nil
}

// checkLength refuses what protobuf cannot hold.
func checkLength(size int64) error {
	const limit = 2 << 30
	switch {
	case size == 0:
		return zarpa.Errorf(zarpa.Invalid, "the file is empty").WithHint("export the model again")
	case size >= limit:
		return zarpa.Errorf(zarpa.Invalid, "%d bytes: a protobuf file must be smaller than 2 GiB", size).
			WithHint("export the model with external data, and register the folder: onnx.save(model, path, save_as_external_data=True)")
	}
	return nil
}

// mainFile chooses the model's main file.
func mainFile(fsys fs.FS) (string, error) {
	var all, models []string
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
		if strings.EqualFold(path.Ext(p), ".onnx") {
			models = append(models, p)
		}
		return nil
	})
	if err != nil {
		if _, ok := errors.AsType[*zarpa.Error](err); ok {
			return "", err
		}
		return "", zarpa.Errorf(zarpa.Invalid, "the model's folder cannot be read").Because(err)
	}
	return choose(all, models)
}

func choose(all, models []string) (string, error) {
	var top []string
	for _, p := range models {
		if p == mainName {
			return p, nil
		}
		if !strings.Contains(p, "/") {
			top = append(top, p)
		}
	}
	switch {
	case len(all) == 0:
		return "", zarpa.Errorf(zarpa.Invalid, "the model's folder is empty")
	case len(top) == 1:
		return top[0], nil
	case len(models) == 1:
		return models[0], nil
	case len(models) > 1:
		return "", zarpa.Errorf(zarpa.Invalid, "several .onnx files: %s", some(models)).WithHint("name the main one %s", mainName)
	case len(all) == 1:
		return all[0], nil
	}
	return "", zarpa.Errorf(zarpa.Invalid, "no .onnx file among %s", some(all)).WithHint("register an ONNX file, or a folder with one")
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
