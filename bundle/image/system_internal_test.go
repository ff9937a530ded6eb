package image

import (
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// dynamic is a program of this machine with shared libraries.
func dynamic(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("no loader of Linux")
	}
	for _, name := range []string{"ls", "bash", "python3"} {
		at, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if at, err = filepath.EvalSymlinks(at); err != nil {
			continue
		}
		if s, err := newSystem("", runtime.GOARCH); err == nil {
			if b, err := s.read(at); err == nil && b.interpreter != "" && len(b.needed) > 0 {
				return at
			}
		}
	}
	t.Skip("this machine has no program with shared libraries")
	return ""
}

// TestClosureIsWhatTheLoaderLoads compares with the loader itself.
func TestClosureIsWhatTheLoaderLoads(t *testing.T) {
	t.Parallel()
	program := dynamic(t)
	s, err := newSystem("", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.closure(closing{start: []string{program}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{"LD_TRACE_LOADED_OBJECTS=1"} // how ldd asks
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "=>") {
		t.Skipf("the loader does not tell what it loads: %v", err)
	}
	got := map[string]bool{}
	for place := range found {
		got[path.Base(place)] = true
	}
	want := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "linux-vdso") {
			continue
		}
		want++
		if !got[path.Base(words[0])] {
			t.Errorf("%s is missing: %v", words[0], found)
		}
	}
	if len(found) != want {
		t.Errorf("%d files found, %d loaded: %v\n%s", len(found), want, found, out)
	}
}

// TestSysrootIsSearchedAlone copies the libraries of a program to another place.
func TestSysrootIsSearchedAlone(t *testing.T) {
	t.Parallel()
	program, root := dynamic(t), t.TempDir()
	s, err := newSystem("", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.closure(closing{start: []string{program}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for place, disk := range found {
		to := filepath.Join(root, "lib", path.Base(place))
		if strings.HasPrefix(path.Base(place), "ld-") {
			to = filepath.Join(root, place)
		} else {
			names = append(names, path.Base(place))
		}
		text, err := os.ReadFile(disk)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = newSystem(root, runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	again, err := s.closure(closing{start: []string{program}})
	if err != nil {
		t.Fatal(err)
	}
	if len(again) != len(found) {
		t.Errorf("%v in the sysroot, %v without", again, found)
	}
	for _, name := range names {
		if again["/lib/"+name] != filepath.Join(root, "lib", name) {
			t.Errorf("%s: %v", name, again)
		}
	}
	if err := os.Remove(filepath.Join(root, "lib", names[0])); err != nil {
		t.Fatal(err)
	}
	_, err = s.closure(closing{start: []string{program}})
	if e := zarpa.AsError(err); !errors.Is(err, zarpa.ErrNotFound) || !strings.Contains(e.Message, names[0]) || e.Hint == "" {
		t.Errorf("without %s: %v", names[0], err)
	}
	if _, err := s.closure(closing{start: []string{program}, lenient: true}); err != nil {
		t.Errorf("leniently: %v", err)
	}
}

func TestConfigurationOfTheLoader(t *testing.T) {
	t.Parallel()
	dirs, includes := parseConf([]byte("# one\ninclude /etc/ld.so.conf.d/*.conf\n/opt/lib:/opt/lib64 # two\nhwcap 1 x\nrelative\n\t/a//b/\n"))
	if !slices.Equal(dirs, []string{"/opt/lib", "/opt/lib64", "/a/b"}) || !slices.Equal(includes, []string{"/etc/ld.so.conf.d/*.conf"}) {
		t.Errorf("dirs %q, includes %q", dirs, includes)
	}
	root := t.TempDir()
	conf := filepath.Join(root, "etc", "ld.so.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("/own\ninclude ld.so.conf\n"), 0o600); err != nil { // without an end
		t.Fatal(err)
	}
	s, err := newSystem(root, "amd64")
	if err != nil || s.dirs[0] != "/own" {
		t.Errorf("%v, %v", s.dirs, err)
	}
}

func FuzzConfigurationOfTheLoader(f *testing.F) {
	f.Add([]byte("include *.conf\n/lib : /usr/lib\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dirs, _ := parseConf(text)
		for _, dir := range dirs {
			if !path.IsAbs(dir) || path.Clean(dir) != dir {
				t.Errorf("%q", dir)
			}
		}
	})
}

// FuzzELF reads broken files: they are refused with an error of ours.
func FuzzELF(f *testing.F) {
	if own, err := os.ReadFile("/bin/true"); err == nil && len(own) < 1<<20 {
		f.Add(own)
	}
	f.Add([]byte("\x7fELF\x02\x01\x01\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		disk := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(disk, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s := &system{machine: machines["amd64"], arch: "amd64"}
		_, err := s.read(disk)
		if e, ok := errors.AsType[*zarpa.Error](err); err != nil && !errors.Is(err, errNoELF) && (!ok || e.Code == zarpa.Internal) {
			t.Errorf("%v", err)
		}
	})
}

func TestUnsearchedFoldersAreNamed(t *testing.T) {
	t.Parallel()
	loader := filepath.Join(t.TempDir(), "ld-linux-x86-64.so.2")
	if err := os.WriteFile(loader, []byte("\x00/lib/x/\x00/usr/lib/\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	links := []entry{{name: "lib", link: "usr/lib"}}
	dirs, err := unsearched(map[string]string{
		"/lib64/ld-linux-x86-64.so.2": loader, "/usr/lib/x/libc.so.6": "", "/usr/lib/libm.so.6": "", "/opt/own/libown.so": "",
	}, links)
	if err != nil || !slices.Equal(dirs, []string{"/opt/own"}) {
		t.Errorf("%q, %v", dirs, err)
	}
}

func TestEqualPathsAreRefused(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]entry{
		"twice":           {{name: "a/b"}, {name: "a/b"}},
		"file and folder": {{name: "a/b"}, {name: "a"}},
	} {
		if got, err := ordered(entries); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	got, err := ordered([]entry{{name: "b/c"}, {name: "a"}, {name: "b", mode: 0o1777, dir: true}})
	if err != nil || len(got) != 3 || got[1].mode != 0o1777 || got[2].name != "b/c" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestASearchIsNotOfTheFolderThatOneIsIn(t *testing.T) {
	t.Parallel()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		"$ORIGIN/../lib": "/opt/lib", "${ORIGIN}": "/opt/bin", "/usr/lib": "/usr/lib", "": ".", "lib": "lib",
	} {
		if got := expand(dir, "/opt/bin/program"); got != want {
			t.Errorf("%q: %q, want %q", dir, got, want)
		}
	}
	if got := expand("$ORIGIN/lib", "program"); got != filepath.Join(here, "lib") {
		t.Errorf("of a program named from here: %q", got)
	}
}
