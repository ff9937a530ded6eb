package seal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/zarpa-dev/zarpa/internal/seal"
)

func TestSealedTextComesBackUnderItsNameAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	box, err := seal.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("a key")
	sealed := box.Seal("iris", secret)
	if bytes.Contains(sealed, secret) || bytes.Equal(sealed, box.Seal("iris", secret)) {
		t.Error("sealed text shows the secret, or is the same twice")
	}
	again, err := seal.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := again.Unseal("iris", sealed); err != nil || !bytes.Equal(plain, secret) {
		t.Errorf("%q, %v", plain, err)
	}
	if _, err := again.Unseal("digits", sealed); err == nil {
		t.Error("read under another name")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := again.Unseal("iris", sealed); err == nil {
		t.Error("read after a change")
	}
	if _, err := again.Unseal("iris", nil); err == nil {
		t.Error("read from nothing")
	}
	other, err := seal.Open(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Unseal("iris", box.Seal("iris", secret)); err == nil {
		t.Error("read with another key")
	}
}

func TestKeyFileIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	if _, err := seal.Open(file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 32 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Open(file); err == nil {
		t.Error("a short key was taken")
	}
	if _, err := seal.Open(filepath.Join(t.TempDir(), "no", "such", "dir")); err == nil {
		t.Error("no error where the file cannot be made")
	}
}
