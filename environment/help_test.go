package environment_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/zarpa-dev/zarpa/environment"
)

// wheel is the smallest package that pip installs: one module, with a version in it.
func wheel(t testing.TB, name, version string, requires ...string) []byte {
	t.Helper()
	info := name + "-" + version + ".dist-info/"
	metadata := "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n"
	if len(requires) > 0 {
		metadata += "Requires-Dist: " + strings.Join(requires, "\nRequires-Dist: ") + "\n"
	}
	files := [][2]string{
		{name + ".py", "VERSION = '" + version + "'\n"},
		{info + "METADATA", metadata},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
	}
	var record strings.Builder
	for _, f := range files {
		sum := sha256.Sum256([]byte(f[1]))
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", f[0], base64.RawURLEncoding.EncodeToString(sum[:]), len(f[1]))
	}
	files = append(files, [2]string{info + "RECORD", record.String() + info + "RECORD,,\n"})
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.Create(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func wheelFile(name, version string) string {
	return "wheels/" + name + "-" + version + "-py3-none-any.whl"
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// files is a content: paths and texts by turns.
func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

// plain is a content of a requirements.txt and the package "alpha" 1.0, which needs "beta".
func plain(t testing.TB, requirements string) fstest.MapFS {
	return files(
		"requirements.txt", requirements,
		wheelFile("alpha", "1.0"), string(wheel(t, "alpha", "1.0", "beta>=2")),
		wheelFile("beta", "2.1"), string(wheel(t, "beta", "2.1")),
	)
}

// settings are those of a cache with pip, without network. The home folder is empty: nobody's own
// configuration is read.
func settings(t testing.TB) environment.Options {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 in PATH: install Python 3.8 or later to run these tests")
	}
	return environment.Options{
		Dir:    filepath.Join(t.TempDir(), "environments"),
		Python: python,
		Path:   filepath.SplitList(os.Getenv("PATH")),
		Env:    []string{"HOME=" + t.TempDir(), "PIP_CONFIG_FILE=/dev/null", "PIP_NO_INDEX=1", "LANG=C.UTF-8"},
		Uv:     environment.None,
		Conda:  environment.None,
	}
}

func open(t testing.TB, o environment.Options) *environment.Cache {
	t.Helper()
	c, err := environment.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs Python code in an environment.
func run(t testing.TB, c *environment.Cache, id, code string) string {
	t.Helper()
	python, err := c.Python(id)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "-I", "-c", code).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", code, err, out)
	}
	return strings.TrimSpace(string(out))
}

func without(list []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, name+"==") })
}

// gate is the far end of a package whose build waits until it is let on.
type gate struct {
	path  string
	conns chan net.Conn
}

// newGate listens for builds.
func newGate(t testing.TB) *gate {
	t.Helper()
	//nolint:usetesting // the name of a test's folder is long, and a socket's path has 107 bytes at most
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{path: l.Addr().String(), conns: make(chan net.Conn)}
	done := make(chan struct{})
	t.Cleanup(func() { close(done); _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case g.conns <- conn:
			case <-done:
				_ = conn.Close()
			}
		}
	}()
	return g
}

// reached waits for a build to come to the gate; its connection lives as long as the build.
func (g *gate) reached(t testing.TB) net.Conn {
	t.Helper()
	select {
	case conn := <-g.conns:
		return conn
	case <-t.Context().Done():
		t.Fatal("no build came to the gate")
		return nil
	}
}

// open lets every build on from now.
func (g *gate) open(first net.Conn) {
	_ = first.Close()
	go func() {
		for conn := range g.conns {
			_ = conn.Close()
		}
	}()
}

const gateBackend = `"""Builds the wheel beside it, after the gate let it on."""
import os, shutil, socket

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(%q)
        s.recv(1)
    shutil.copy("gated-1.0-py3-none-any.whl", wheel_directory)
    return "gated-1.0-py3-none-any.whl"
`

// gated is a content of a source package whose build waits at a gate.
func (g *gate) gated(t testing.TB) fstest.MapFS {
	t.Helper()
	source := archive(t, "gated", [][2]string{
		{"PKG-INFO", "Metadata-Version: 2.1\nName: gated\nVersion: 1.0\n"},
		{"pyproject.toml", "[build-system]\nrequires = []\nbuild-backend = 'gatekeeper'\nbackend-path = ['.']\n[project]\nname = 'gated'\nversion = '1.0'\n"},
		{"gatekeeper.py", fmt.Sprintf(gateBackend, g.path)},
		{"gated-1.0-py3-none-any.whl", string(wheel(t, "gated", "1.0"))},
	})
	return files("requirements.txt", "gated\n", "wheels/gated-1.0.tar.gz", source)
}

// sourcePackage is a source package NAME 1.0 whose build runs the lines of code.
func sourcePackage(t testing.TB, name, code string) string {
	t.Helper()
	return archive(t, name, [][2]string{
		{"PKG-INFO", "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n"},
		{"pyproject.toml", "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n[project]\nname = '" + name + "'\nversion = '1.0'\n"},
		{"backend.py", "def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):\n" + code},
	})
}

func archive(t testing.TB, name string, content [][2]string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, f := range content {
		if err := w.WriteHeader(&tar.Header{Name: name + "-1.0/" + f[0], Mode: 0o644, Size: int64(len(f[1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// utf16 is ASCII text as Windows writes it.
func utf16(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.Write([]byte{c, 0})
	}
	return b.String()
}
