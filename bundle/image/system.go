package image

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// Library is a file of this machine that an image was made from.
type Library struct {
	// Path is the file's in the image.
	Path string `json:"path"`
	// Digest is "sha256:" and 64 hexadecimal digits.
	Digest string `json:"digest"`
}

// machines are the architectures by their names in platforms.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// architecture is the name of a machine, as platforms call it.
func architecture(m elf.Machine) string {
	for name, machine := range machines {
		if machine == m {
			return name
		}
	}
	return strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))
}

// system finds shared libraries as the system's loader does.
type system struct {
	root    string // of the libraries' paths: empty, or a sysroot
	machine elf.Machine
	arch    string
	dirs    []string // searched behind what a file says itself, as paths in the image
}

// newSystem reads where a system keeps its libraries.
func newSystem(root, arch string) (*system, error) {
	s := &system{machine: machines[arch], arch: arch}
	if root != "" {
		abs, err := filepath.Abs(root)
		if err != nil {
			return nil, zarpa.Errorf(zarpa.Invalid, "sysroot %q: %w", root, err)
		}
		if info, err := os.Stat(abs); err != nil || !info.IsDir() {
			return nil, zarpa.Errorf(zarpa.NotFound, "sysroot %s: there is no such folder", root).
				WithHint("name the folder with that platform's libraries, such as /usr/aarch64-linux-gnu")
		}
		s.root = strings.TrimSuffix(abs, "/")
	}
	s.dirs = s.configured("/etc/ld.so.conf", 0)
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[arch]
	for _, dir := range []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		if !slices.Contains(s.dirs, dir) {
			s.dirs = append(s.dirs, dir)
		}
	}
	return s, nil
}

// maxIncludes bounds files of ld.so.conf that include each other.
const maxIncludes = 8

// configured are the folders that a file of ld.so.conf's kind names.
func (s *system) configured(file string, depth int) []string {
	text, err := os.ReadFile(s.root + file)
	if err != nil || depth > maxIncludes {
		return nil
	}
	dirs, includes := parseConf(text)
	for _, pattern := range includes {
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(file), pattern)
		}
		names, err := filepath.Glob(s.root + pattern)
		if err != nil {
			continue // the loader ignores it, too
		}
		for _, name := range names {
			dirs = append(dirs, s.configured(strings.TrimPrefix(name, s.root), depth+1)...)
		}
	}
	return dirs
}

// parseConf reads the lines of ld.so.conf: folders, and patterns of further files.
func parseConf(text []byte) (dirs, includes []string) {
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n:,", r) })
		switch {
		case len(words) == 0 || words[0] == "hwcap":
		case words[0] == "include":
			includes = append(includes, words[1:]...)
		default:
			for _, w := range words {
				if path.IsAbs(w) {
					dirs = append(dirs, path.Clean(w))
				}
			}
		}
	}
	return dirs, includes
}

// binary is what an ELF file asks for.
type binary struct {
	interpreter string
	needed      []string
	search      []string // RPATH or RUNPATH, with $ORIGIN as it is
}

// errNoELF says that a file is no ELF file.
var errNoELF = errors.New("not an ELF file")

// read reads the header of an ELF file and checks what machine it is for.
func (s *system) read(disk string) (binary, error) {
	f, err := os.Open(disk)
	if err != nil {
		return binary{}, unreadable(disk, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) != elf.ELFMAG {
		return binary{}, errNoELF
	}
	file, err := elf.NewFile(f)
	if err != nil {
		return binary{}, zarpa.Errorf(zarpa.Invalid, "%s: a broken ELF file: %w", disk, err).WithHint("install it again")
	}
	if file.Machine != s.machine {
		return binary{}, zarpa.Errorf(zarpa.Invalid, "%s: is built for %s, and the image is for %s", disk, architecture(file.Machine), s.arch).
			WithHint("name files of the image's platform, or another platform: --platform linux/%s", architecture(file.Machine))
	}
	var b binary
	for _, p := range file.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
		if err != nil {
			return binary{}, unreadable(disk, err)
		}
		b.interpreter = string(bytes.TrimRight(text, "\x00"))
	}
	if b.needed, err = file.ImportedLibraries(); err != nil {
		return binary{}, zarpa.Errorf(zarpa.Invalid, "%s: a broken ELF file: %w", disk, err).WithHint("install it again")
	}
	paths, err := file.DynString(elf.DT_RUNPATH)
	if err == nil && len(paths) == 0 {
		paths, err = file.DynString(elf.DT_RPATH)
	}
	if err != nil {
		return binary{}, zarpa.Errorf(zarpa.Invalid, "%s: a broken ELF file: %w", disk, err).WithHint("install it again")
	}
	for _, p := range paths {
		b.search = append(b.search, strings.Split(p, ":")...)
	}
	return b, nil
}

// object is an ELF file to start from, or one that was found.
type object struct {
	disk string
	// search are folders that whoever needs this file searches: a loader searches the RPATH of all above.
	search []string
	// given tells that it goes into the image elsewhere, with the folder it is in.
	given bool
}

// closing is a question for what ELF files need.
type closing struct {
	start []string
	// inside are folders that go into the image as they are, with the libraries in them.
	inside []string
	// have are the files of the layers below, by their paths.
	have map[string]string
	// lenient passes over files whose libraries are not there or that are for another machine: packages
	// bring parts that are for others.
	lenient bool
}

// closure are the files that ELF files need, without themselves and what is there already, by their paths
// in the image.
func (s *system) closure(c closing) (map[string]string, error) {
	found, seen := maps.Clone(c.have), map[string]bool{}
	if found == nil {
		found = map[string]string{}
	}
	var open []object
	for _, disk := range c.start {
		open = append(open, object{disk: disk, given: true})
	}
	for len(open) > 0 {
		o := open[0]
		open = open[1:]
		if seen[o.disk] {
			continue
		}
		seen[o.disk] = true
		b, err := s.read(o.disk)
		if err != nil && o.given && (c.lenient || errors.Is(err, errNoELF)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		search := slices.Clone(o.search)
		for _, dir := range b.search {
			if dir = expand(dir, o.disk); filepath.IsAbs(dir) { // else it is below wherever the program is started
				search = append(search, dir)
			}
		}
		if b.interpreter != "" && found[b.interpreter] == "" {
			disk := s.root + b.interpreter
			if _, err := os.Stat(disk); err != nil {
				return nil, s.missing(b.interpreter, o.disk)
			}
			found[b.interpreter] = disk
			open = append(open, object{disk: disk})
		}
		for _, name := range b.needed {
			place, disk := s.find(name, search)
			if disk == "" && c.lenient {
				continue
			}
			if disk == "" {
				return nil, s.missing(name, o.disk)
			}
			next := object{disk: disk, search: search}
			if below(disk, c.inside) {
				next.given = true
			} else if !s.isLoader(name, found) {
				found[place] = disk
			}
			open = append(open, next)
		}
	}
	maps.DeleteFunc(found, func(place, _ string) bool { return c.have[place] != "" })
	return found, nil
}

// isLoader tells a library that is the loader itself, which is there by the path that programs name.
func (s *system) isLoader(name string, found map[string]string) bool {
	for place := range found {
		if path.Base(place) == name && strings.HasPrefix(name, "ld-linux") {
			return true
		}
	}
	return false
}

func below(disk string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(disk, dir+"/") })
}

func (s *system) missing(name, by string) error {
	err := zarpa.Errorf(zarpa.NotFound, "library %s, which %s needs: not found", name, by)
	switch {
	case s.root != "":
		return err.WithHint("install it below %s", s.root)
	case s.arch != runtime.GOARCH:
		return err.WithHint("this machine is %s: name a folder with the libraries of %s with --sysroot, such as /usr/aarch64-linux-gnu", runtime.GOARCH, s.arch)
	}
	return err.WithHint("install it on this machine; ldd %s shows all that is missing", by)
}

// expand puts the folder of a file in the place of $ORIGIN.
func expand(dir, disk string) string {
	origin := filepath.Dir(disk)
	if abs, err := filepath.Abs(origin); err == nil {
		origin = abs
	}
	return filepath.Clean(strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin).Replace(dir))
}

// find is a library's path in the image and on the disk, by the order in which the loader searches; both
// are empty where there is none of this machine's kind.
func (s *system) find(name string, search []string) (place, disk string) {
	try := func(disk string) bool {
		info, err := os.Stat(disk)
		if err != nil || !info.Mode().IsRegular() {
			return false
		}
		_, err = s.read(disk)
		return err == nil // the loader, too, goes on behind one of another machine
	}
	if strings.Contains(name, "/") {
		if disk := s.root + name; try(disk) {
			return name, disk
		}
		return "", ""
	}
	for _, dir := range search {
		disk := filepath.Join(dir, name)
		if try(disk) {
			return s.place(disk), disk
		}
	}
	for _, dir := range s.dirs {
		if disk := s.root + path.Join(dir, name); try(disk) {
			return s.place(disk), disk
		}
	}
	return "", ""
}

// place is the path in the image of a file of the disk: where /lib is a link to /usr/lib, a library has
// one place all the same.
func (s *system) place(disk string) string {
	dir := filepath.Dir(disk)
	if real, err := filepath.EvalSymlinks(dir); err == nil && (s.root == "" || strings.HasPrefix(real, s.root+"/")) {
		dir = real
	}
	return path.Join("/", strings.TrimPrefix(dir, s.root), filepath.Base(disk))
}

// links are the folders at the top that are links, as /lib is to usr/lib on most systems: the paths of
// the loader and its search go through them.
func (s *system) links() []entry {
	var out []entry
	for _, name := range []string{"bin", "lib", "lib32", "lib64", "libx32", "sbin"} {
		target, err := os.Readlink(s.root + "/" + name)
		if err == nil && !path.IsAbs(target) && !strings.Contains(target, "..") {
			out = append(out, entry{name: name, link: target})
		}
	}
	return out
}

// throughLinks is a path in the image with a link at the top followed.
func throughLinks(place string, links []entry) string {
	place = strings.TrimPrefix(place, "/")
	for _, l := range links {
		if rest, ok := strings.CutPrefix(place, l.name+"/"); ok {
			return path.Join(l.link, rest)
		}
	}
	return place
}

// unsearched are the folders of libraries in which a loader does not look by itself: it has its folders
// written in it.
func unsearched(places map[string]string, links []entry) ([]string, error) {
	var loader []byte
	for place, disk := range places {
		if strings.HasPrefix(path.Base(place), "ld-linux") || strings.HasPrefix(path.Base(place), "ld64.") {
			var err error
			if loader, err = os.ReadFile(disk); err != nil {
				return nil, unreadable(disk, err)
			}
		}
	}
	known := func(dir string) bool { return bytes.Contains(loader, []byte(dir+"/\x00")) }
	var dirs []string
	for place := range places {
		dir := path.Dir(place)
		names := []string{dir}
		for _, l := range links { // by the link's name, too
			if rest, ok := strings.CutPrefix(dir, "/"+l.link); ok && (rest == "" || rest[0] == '/') {
				names = append(names, "/"+l.name+rest)
			}
		}
		if !slices.ContainsFunc(names, known) && !slices.Contains(dirs, dir) && !strings.HasPrefix(path.Base(place), "ld-linux") {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return dirs, nil
}

// libraries are the entries of found files, with their digests.
func libraries(found map[string]string, links []entry) (entries []entry, list []Library, err error) {
	for place, disk := range found {
		name := throughLinks(place, links)
		e, err := fromDisk(name, disk)
		if err != nil {
			return nil, nil, err
		}
		e.mode = 0o755
		digest, err := digestFile(disk)
		if err != nil {
			return nil, nil, err
		}
		entries, list = append(entries, e), append(list, Library{Path: "/" + name, Digest: digest})
	}
	slices.SortFunc(list, func(x, y Library) int { return strings.Compare(x.Path, y.Path) })
	return entries, list, nil
}

func digestFile(disk string) (string, error) {
	f, err := os.Open(disk)
	if err != nil {
		return "", unreadable(disk, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("read %s: %w", disk, err)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}
