package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

// Runtime is what runs in an image: files of this machine's disk, for the image's platform.
type Runtime struct {
	// Program is zarpa-score, or zarpa itself with Verb.
	Program string
	Verb    []string
	// Library is ONNX Runtime's; empty where there is none, which does for Python.
	Library string
}

const runtimeHint = "name the folder of a release for that platform, with zarpa-score and libonnxruntime: --runtime DIR"

// FindRuntime looks for the runtime in a folder: zarpa-score, or zarpa where that is missing, and the
// library of ONNX Runtime. not_found when there is no program.
func FindRuntime(dir string) (Runtime, error) {
	var r Runtime
	is := func(name string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && info.Mode().IsRegular()
	}
	switch {
	case is("zarpa-score"):
		r.Program = filepath.Join(dir, "zarpa-score")
	case is("zarpa"):
		r.Program, r.Verb = filepath.Join(dir, "zarpa"), []string{"score"}
	default:
		return r, zarpa.Errorf(zarpa.NotFound, "runtime %s: there is neither zarpa-score nor zarpa", dir).WithHint(runtimeHint)
	}
	found, err := filepath.Glob(filepath.Join(dir, "libonnxruntime.so*"))
	if err != nil {
		return r, zarpa.Errorf(zarpa.Invalid, "runtime %s: %w", dir, err)
	}
	if len(found) > 0 {
		r.Library = slices.Min(found)
	}
	return r, nil
}

// notFor explains a file of the runtime that is none.
func notFor(err error, file string) error {
	if errors.Is(err, errNoELF) {
		return zarpa.Errorf(zarpa.Invalid, "%s: is no program or library of Linux", file).WithHint(runtimeHint)
	}
	return err
}

// checked reads a blob and fails at its end when it is not what its digest says.
type checked struct {
	io.ReadCloser

	file zarpa.File
	sum  hash.Hash
}

func newChecked(r io.ReadCloser, f zarpa.File) *checked { return &checked{r, f, sha256.New()} }

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && "sha256:"+hex.EncodeToString(c.sum.Sum(nil)) != c.file.Digest {
		return n, zarpa.Errorf(zarpa.Internal, "blob %s: its bytes do not match its digest", c.file.Digest).
			WithHint("the disk damaged it; register the model again")
	}
	return n, err
}

func joinClose(err error, c io.Closer) error { return errors.Join(err, c.Close()) }
