// Package seal encrypts small secrets at rest with a key that lives in a file of its own.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Box seals with AES-256-GCM. It may be used from many goroutines.
type Box struct{ aead cipher.AEAD }

// keySize is the length of an AES-256 key in bytes.
const keySize = 32

// Open reads the key from a file, or makes a new one there, readable by its owner alone.
func Open(file string) (*Box, error) {
	key, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, keySize)
		_, _ = rand.Read(key) // crypto/rand never fails: it ends the program
		err = create(file, key)
	}
	if err != nil {
		return nil, fmt.Errorf("open the sealing key: %w", err)
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("open the sealing key %q: %d bytes, not %d", file, len(key), keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Box{aead: aead}, nil
}

// create writes the file so that it is whole or absent after a crash.
func create(file string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".key-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone after the rename
	if err := errors.Join(writeSync(f, content), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

func writeSync(f *os.File, content []byte) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// Seal encrypts plain and binds it to name: only Open with the same name reads it.
func (b *Box) Seal(name string, plain []byte) []byte {
	nonce := make([]byte, b.aead.NonceSize())
	_, _ = rand.Read(nonce)
	return b.aead.Seal(nonce, nonce, plain, []byte(name))
}

// Unseal decrypts what Seal made.
func (b *Box) Unseal(name string, sealed []byte) ([]byte, error) {
	n := b.aead.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("unseal: too short")
	}
	plain, err := b.aead.Open(nil, sealed[:n], sealed[n:], []byte(name))
	if err != nil {
		return nil, fmt.Errorf("unseal %q: it was sealed with another key, or changed", name)
	}
	return plain, nil
}
