//go:build cgo

package onnx

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheLibraryIsFoundInTheNearestPlace(t *testing.T) {
	t.Parallel()
	near, far := t.TempDir(), t.TempDir()
	for _, dir := range []string{near, far} {
		for _, name := range libraryNames() {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name, wanted, want string
		places             []string
	}{
		{"nearest", "", filepath.Join(near, libraryNames()[0]), []string{near, far}},
		{"the next when the first is empty", "", filepath.Join(far, libraryNames()[0]), []string{t.TempDir(), far}},
		{"the loader's search when nothing is there", "", libraryNames()[0], []string{t.TempDir()}},
		{"what was wanted", filepath.Join(far, libraryNames()[1]), filepath.Join(far, libraryNames()[1]), []string{near}},
	} {
		if got, err := find(test.wanted, test.places); err != nil || got != test.want {
			t.Errorf("%s: got %q, %v", test.name, got, err)
		}
	}
	if _, err := find(near, nil); err == nil {
		t.Error("a folder was taken for a library")
	}
}
