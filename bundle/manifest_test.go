package bundle

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzParseManifest(f *testing.F) {
	hex := strings.Repeat("0a", 32)
	for _, seed := range []string{hex + " 1 a\n", hex + " 0 a b/c\n" + hex + " 7 b\n", hex + " 01 ../x\n", "\n", hex + " 9223372036854775807 a\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		files, err := parseManifest(text)
		if err == nil && !bytes.Equal(manifest(files), text) {
			t.Fatalf("%q was read as %v", text, files)
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(`{"format":1,"engine":"onnx","models":[]}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := parse(text)
		if err != nil {
			return
		}
		canonical, err := encode(b)
		if err != nil {
			t.Fatalf("%q is read but not written: %v", text, err)
		}
		again, err := parse(canonical)
		if err != nil {
			t.Fatalf("its canonical form is not read: %v", err)
		}
		if twice, err := encode(again); err != nil || !bytes.Equal(twice, canonical) {
			t.Fatalf("%q has two canonical forms: %v", text, err)
		}
	})
}
