//go:build cgo

package onnx_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/modelfile"
)

// one is a folder that shows one of its models.
type one struct {
	fs.FS
	name string
}

func (o one) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.FS, name)
	var kept []fs.DirEntry
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".onnx" || e.Name() == o.name {
			kept = append(kept, e)
		}
	}
	return kept, err
}

// What the file's reader says of a model, the runtime must say too: the registry shows the one,
// requests are held against the other.
func TestTheFilesSignatureIsTheRuntimes(t *testing.T) {
	t.Parallel()
	e := engine(t)
	models, err := filepath.Glob(zoo + "/*.onnx")
	if err != nil || len(models) < 50 {
		t.Fatalf("%d models in the zoo, %v", len(models), err)
	}
	examples, _ := filepath.Glob("../../examples/*/*.onnx")
	for _, path := range append(models, examples...) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			dir, file := filepath.Split(path)
			info, fileErr := modelfile.Inspect(one{os.DirFS(dir), file})
			s, err := e.Load(t.Context(), dir, zarpa.LoadOptions{File: file, Threads: 1})
			if err != nil {
				return // the file may be sound, and this runtime not able
			}
			defer s.Close()
			if fileErr != nil {
				t.Fatalf("the runtime loads what the reader refuses: %v", fileErr)
			}
			sig := s.Signature()
			if got, want := plain(info.Signature.Inputs), plain(sig.Inputs); !reflect.DeepEqual(got, want) {
				t.Errorf("inputs:\n file    %+v\n runtime %+v", got, want)
			}
			if got, want := plain(info.Signature.Outputs), plain(sig.Outputs); !reflect.DeepEqual(got, want) {
				t.Errorf("outputs:\n file    %+v\n runtime %+v", got, want)
			}
		})
	}
}

// plain leaves out what the runtime does not keep: documentation, and the shapes of values
// inside others.
func plain(values []zarpa.ValueInfo) []zarpa.ValueInfo {
	var out []zarpa.ValueInfo
	for _, v := range values {
		v.Doc = ""
		items := plain(v.Items)
		for i := range items {
			items[i].Shape, items[i].NoShape = nil, false
		}
		v.Items = items
		out = append(out, v)
	}
	return out
}
