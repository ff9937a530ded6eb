package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// interpreter is what a Python says of itself.
type interpreter struct {
	Version    string   `json:"version"`
	Executable string   `json:"executable"` // without links
	Prefix     string   `json:"prefix"`
	BasePrefix string   `json:"base_prefix"`
	Stdlib     string   `json:"stdlib"`
	Path       []string `json:"path"` // folders that modules are imported from
}

// probeProgram prints an [interpreter].
const probeProgram = `import json, os, platform, sys
print(json.dumps({"version": platform.python_version(), "executable": os.path.realpath(sys.executable), "prefix": sys.prefix,
"base_prefix": sys.base_prefix, "stdlib": os.path.dirname(os.__file__), "path": [p for p in sys.path if os.path.isdir(p)]}))`

// probeTimeout bounds the start of an interpreter that only tells what it is.
const probeTimeout = 30 * time.Second

// askPython runs the interpreter of an environment.
func askPython(ctx context.Context, program string) (interpreter, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "-I", "-c", probeProgram)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	var p interpreter
	err := cmd.Run()
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &p)
	}
	if err != nil {
		return p, zarpa.Errorf(zarpa.Unavailable, "environment: its interpreter %s does not run: %w: %.300s", program, err, complaint.String()).
			WithHint("deploy again, which builds the environment again")
	}
	return p, nil
}

// environmentLayers hold this machine's Python and the bundle's environment.
func (a *assembly) environmentLayers(ctx context.Context) error {
	e := a.b.Environment
	if e == nil || a.based() {
		return nil
	}
	switch {
	case a.o.Environment == "":
		return zarpa.Errorf(zarpa.Invalid, "environment: the bundle needs Python %s, and no built environment is named", e.Python)
	case a.arch != runtime.GOARCH || a.o.Sysroot != "":
		return zarpa.Errorf(zarpa.Invalid, "platform: %s: the Python environment is built for this machine, linux/%s", a.o.Platform, runtime.GOARCH).
			WithHint("package it on a machine of that platform, or build it with an engine on a base of that platform")
	}
	venv, err := venvFolder(a.o.Environment)
	if err != nil {
		return err
	}
	p, err := askPython(ctx, filepath.Join(venv, "bin", "python"))
	if err != nil {
		return err
	}
	if trusted() != "" { // a file that is named and not there is an error of some clients
		a.env["SSL_CERT_FILE"] = "/" + certificates
	}
	a.env["LANG"] = "C.UTF-8"
	if p.Prefix == p.BasePrefix { // conda's: an interpreter of its own
		return a.wholeEnvironment(ctx, venv)
	}
	python, err := a.interpreterRecipe(ctx, p)
	if err != nil {
		return err
	}
	base, err := a.add(ctx, python)
	if err != nil {
		return err
	}
	key := strings.Join([]string{e.ID, p.Version, base.note.Digest}, "\x00")
	_, err = a.add(ctx, recipe{kind: "environment", key: key, make: func(ctx context.Context) ([]entry, []Library, error) {
		return a.packages(ctx, venv, p)
	}})
	return err
}

// venvFolder is the virtual environment in the folder of a built environment, without links.
func venvFolder(dir string) (string, error) {
	for _, at := range []string{filepath.Join(dir, "venv"), dir} {
		if info, err := os.Stat(filepath.Join(at, "bin", "python")); err == nil && info.Mode().IsRegular() {
			real, err := filepath.EvalSymlinks(at)
			if err != nil {
				return "", unreadable(at, err)
			}
			return filepath.Abs(real)
		}
	}
	return "", zarpa.Errorf(zarpa.NotFound, "environment %s: there is no Python in it", dir).WithHint("deploy again, which builds the environment again")
}

// certificates is where an image has the certificates that the machine trusts.
const certificates = "etc/ssl/certs/ca-certificates.crt"

// trusted is the machine's file of trusted certificates, "" when it has none where others have it.
func trusted() string {
	for _, at := range []string{"/" + certificates, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"} {
		if info, err := os.Stat(at); err == nil && info.Mode().IsRegular() {
			return at
		}
	}
	return ""
}

// zoneinfo is where Python's module of that name looks for time zones.
const zoneinfo = "/usr/share/zoneinfo"

// timeZones are those that the machine knows, none where it keeps none: without its own choice of one, and without the
// same again with and without leap seconds.
func timeZones(ctx context.Context) ([]entry, error) {
	if _, err := os.Stat(zoneinfo); err != nil {
		return nil, nil //nolint:nilerr // a script that needs them has the package tzdata
	}
	return tree{zoneinfo, strings.TrimPrefix(zoneinfo, "/"), func(rel string, _ bool) bool {
		return slices.Contains([]string{"localtime", "posixrules", "posix", "right"}, rel)
	}}.walk(ctx)
}

// tree is a folder of the disk that goes into a layer.
type tree struct {
	disk, name string
	skip       func(rel string, dir bool) bool
}

// walk finds the files below a tree. Links within it stay links, others become what they lead to; what
// leads nowhere is left out, as it would be found by nobody.
func (t tree) walk(ctx context.Context) ([]entry, error) {
	var out []entry
	err := filepath.WalkDir(t.disk, func(disk string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(disk, t.disk), "/")
		name := path.Join(t.name, rel)
		if rel != "" && t.skip(rel, d.IsDir()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir():
			if rel != "" {
				out = append(out, entry{name: name, mode: 0o755, dir: true})
			}
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			e, err := t.link(disk, name)
			if err == nil && e.name != "" {
				out = append(out, e)
			}
			return err
		case !d.Type().IsRegular():
			return nil
		}
		e, err := fromDisk(name, disk)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".pyc") {
			e.open = func() (io.ReadCloser, error) { return compiled(disk) }
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.disk, err)
	}
	return out, nil
}

func (t tree) link(disk, name string) (entry, error) {
	target, err := os.Readlink(disk)
	if err != nil {
		return entry{}, err
	}
	real, err := filepath.EvalSymlinks(disk)
	if err != nil {
		return entry{}, nil //nolint:nilerr // it leads nowhere
	}
	if inside := filepath.Join(filepath.Dir(disk), target); !path.IsAbs(target) && strings.HasPrefix(inside, t.disk+"/") {
		return entry{name: name, link: target}, nil
	}
	if info, err := os.Stat(real); err != nil || !info.Mode().IsRegular() {
		return entry{name: name, link: real}, nil //nolint:nilerr // a folder elsewhere, which may be in another layer
	}
	return fromDisk(name, real)
}

// compiled opens a file of Python's bytecode with a header that asks for no look at the source: the times
// of the sources are others in the image.
func compiled(disk string) (io.ReadCloser, error) {
	text, err := os.ReadFile(disk)
	if err != nil {
		return nil, err
	}
	const header = 16 // magic, flags, time and size, or a hash; since Python 3.7
	if len(text) >= header {
		clear(text[4:header])
		text[4] = 1 // by hash, unchecked
	}
	return io.NopCloser(bytes.NewReader(text)), nil
}

// unused are parts of Python's library that no service needs.
var unused = []string{"test", "idlelib", "ensurepip", "pip", "turtledemo", "tkinter", "lib2to3", "site-packages", "dist-packages", "pydoc_data", "EXTERNALLY-MANAGED"}

func skipStdlib(rel string, _ bool) bool {
	name := path.Base(rel)
	return slices.Contains(unused, rel) || strings.HasPrefix(rel, "config-") || strings.HasPrefix(name, "_tkinter.") || name == "tests" || strings.HasSuffix(name, ".a") || strings.HasSuffix(name, ".opt-1.pyc") || strings.HasSuffix(name, ".opt-2.pyc")
}

// skipPackage leaves the installer out, which installs nothing in an image, and the bytecode of what is
// installed without: it is there once somebody has used it, and the layer would differ.
func skipPackage(rel string, _ bool) bool {
	top, _, _ := strings.Cut(rel, "/")
	if slices.Contains([]string{"setuptools", "pkg_resources", "_distutils_hack"}, top) && path.Base(rel) == "__pycache__" {
		return true
	}
	return rel == "pip" || strings.HasPrefix(rel, "pip-") && strings.HasSuffix(rel, ".dist-info")
}

// interpreterRecipe is of the layer that holds Python itself: its program, its library, what they need, and certificates.
func (a *assembly) interpreterRecipe(ctx context.Context, p interpreter) (recipe, error) {
	stdlib := tree{p.Stdlib, throughLinks(p.Stdlib, a.links), skipStdlib}
	entries, err := stdlib.walk(ctx)
	if err != nil {
		return recipe{}, err
	}
	dynload := filepath.Join(p.Stdlib, "lib-dynload")
	for _, dir := range p.Path {
		if path.Base(dir) == "lib-dynload" && dir != dynload {
			more, err := tree{dir, throughLinks(dir, a.links), skipStdlib}.walk(ctx)
			if err != nil {
				return recipe{}, err
			}
			entries = append(entries, more...)
		}
	}
	zones, err := timeZones(ctx)
	if err != nil {
		return recipe{}, err
	}
	entries = append(entries, zones...)
	program, err := fromDisk(throughLinks(p.Executable, a.links), p.Executable)
	if err != nil {
		return recipe{}, err
	}
	entries = append(entries, program)
	if home := throughLinks(path.Join(p.BasePrefix, "bin", path.Base(p.Executable)), a.links); home != program.name {
		entries = append(entries, entry{name: home, link: p.Executable})
	}
	key, err := a.interpreterKey(p, entries)
	if err != nil {
		return recipe{}, err
	}
	return recipe{kind: "interpreter", key: key, make: func(context.Context) ([]entry, []Library, error) {
		found, err := a.system.closure(closing{start: append(shared(p.Stdlib, entries, a.links), p.Executable), inside: []string{p.Stdlib}, have: a.have})
		if err != nil {
			return nil, nil, err
		}
		more, list, err := libraries(found, a.links)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, more...)
		if disk := trusted(); disk != "" {
			e, err := fromDisk(certificates, disk)
			if err != nil {
				return nil, nil, err
			}
			entries = append(entries, e)
		}
		return entries, list, nil
	}}, nil
}

// interpreterKey is of all that decides the layer, without reading all of its files: two with the same
// program and files of the same sizes are the same version's.
func (a *assembly) interpreterKey(p interpreter, entries []entry) (string, error) {
	sum := sha256.New()
	for _, e := range entries {
		fmt.Fprintf(sum, "%s %d %s\n", e.name, e.size, e.link)
	}
	for _, disk := range []string{p.Executable, trusted(), path.Join(zoneinfo, "tzdata.zi")} {
		if _, err := os.Stat(disk); err != nil {
			continue
		}
		digest, err := digestFile(disk)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, digest)
	}
	for _, l := range a.libraries {
		fmt.Fprintln(sum, l.Digest, l.Path)
	}
	return p.Version + " " + hex.EncodeToString(sum.Sum(nil)), nil
}

// shared are the shared libraries among the entries of a tree, as files of the disk.
func shared(disk string, entries []entry, links []entry) []string {
	var out []string
	name := throughLinks(disk, links)
	for _, e := range entries {
		if rel, ok := strings.CutPrefix(e.name, name+"/"); ok && !e.dir && strings.Contains(path.Base(e.name), ".so") {
			out = append(out, filepath.Join(disk, rel))
		}
	}
	return out
}

// packages are the entries of the environment's layer: the packages, and the libraries of the system that
// they need.
func (a *assembly) packages(ctx context.Context, venv string, p interpreter) ([]entry, []Library, error) {
	cfg := fmt.Sprintf("home = %s\ninclude-system-site-packages = %t\nversion = %s\n",
		path.Join(p.BasePrefix, "bin"), a.b.Environment.SystemPackages, p.Version)
	entries := []entry{
		fileOf(environmentFolder+"/pyvenv.cfg", []byte(cfg)),
		{name: environmentFolder + "/bin/python", link: p.Executable},
		{name: environmentFolder + "/bin/python3", link: "python"},
	}
	var start, inside []string
	for _, dir := range p.Path {
		if dir == p.Stdlib || path.Base(dir) == "lib-dynload" {
			continue
		}
		name := throughLinks(dir, a.links)
		if rel, ok := strings.CutPrefix(dir, p.Prefix+"/"); ok {
			name = path.Join(environmentFolder, rel)
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return nil, nil, unreadable(dir, err)
		}
		files, err := tree{real, name, skipPackage}.walk(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range files {
			if rel, ok := strings.CutPrefix(e.name, name+"/"); ok && e.open != nil && strings.Contains(path.Base(e.name), ".so") {
				start = append(start, filepath.Join(real, rel))
			}
		}
		entries, inside = append(entries, files...), append(inside, real)
	}
	found, err := a.system.closure(closing{start: start, inside: append(inside, venv), have: a.have, lenient: true})
	if err != nil {
		return nil, nil, err
	}
	more, list, err := libraries(found, a.links)
	return append(entries, more...), list, err
}

// wholeEnvironment is the layer of an environment with an interpreter of its own, as conda makes them. It
// stays at its path, which is written in its files.
func (a *assembly) wholeEnvironment(ctx context.Context, dir string) error {
	skip := func(rel string, _ bool) bool {
		return slices.Contains([]string{"conda-meta", "pkgs", "include", "share/man", "share/doc"}, rel) || strings.HasSuffix(rel, ".a")
	}
	_, err := a.add(ctx, recipe{kind: "environment", key: a.b.Environment.ID + "\x00" + dir, make: func(ctx context.Context) ([]entry, []Library, error) {
		name := strings.TrimPrefix(dir, "/")
		entries, err := tree{dir, name, skip}.walk(ctx)
		if err != nil {
			return nil, nil, err
		}
		start := append(shared(dir, entries, nil), filepath.Join(dir, "bin", "python"))
		found, err := a.system.closure(closing{start: start, inside: []string{dir}, have: a.have, lenient: true})
		if err != nil {
			return nil, nil, err
		}
		more, list, err := libraries(found, a.links)
		if err != nil {
			return nil, nil, err
		}
		entries = append(append(entries, more...), entry{name: environmentFolder, link: dir})
		if disk := trusted(); disk != "" {
			e, err := fromDisk(certificates, disk)
			return append(entries, e), list, errors.Join(err)
		}
		return entries, list, nil
	}})
	return err
}
