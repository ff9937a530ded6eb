package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// filesOf are the files below a folder, by slash-separated path.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, p))
		out[p] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func stageRequirements(t *testing.T, files map[string]string, name string) (map[string]string, error) {
	t.Helper()
	from, to := t.TempDir(), t.TempDir()
	for p, text := range files {
		if err := writeNew(filepath.Join(from, p), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	err := copyRequirements(filepath.Join(from, name), to)
	return filesOf(t, to), err
}

func TestRequirementsKeepEveryFile(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		main        string
		files, want map[string]string
	}{
		"usual name": {
			main:  "requirements.txt",
			files: map[string]string{"requirements.txt": "-rmore/a.txt\n", "more/a.txt": "-c ../b.txt\n", "b.txt": "x<2\n", "other.txt": "y\n"},
			want:  map[string]string{"requirements.txt": "-rmore/a.txt\n", "more/a.txt": "-c ../b.txt\n", "b.txt": "x<2\n"},
		},
		"another name": {
			main:  "prod.txt",
			files: map[string]string{"prod.txt": "--requirement=base.txt\n", "base.txt": "x\n"},
			want:  map[string]string{"requirements.txt": "-r prod.txt\n", "prod.txt": "--requirement=base.txt\n", "base.txt": "x\n"},
		},
		"one that names requirements.txt": {
			main:  "requirements-prod.txt",
			files: map[string]string{"requirements-prod.txt": "-r requirements.txt\ny\n", "requirements.txt": "x\n"},
			want: map[string]string{
				"requirements.txt":                   "-r requirements/requirements-prod.txt\n",
				"requirements/requirements-prod.txt": "-r requirements.txt\ny\n", "requirements/requirements.txt": "x\n",
			},
		},
		"files that name each other": {
			main:  "requirements.txt",
			files: map[string]string{"requirements.txt": "-r a.txt\n", "a.txt": "-r requirements.txt\n"},
			want:  map[string]string{"requirements.txt": "-r a.txt\n", "a.txt": "-r requirements.txt\n"},
		},
	} {
		got, err := stageRequirements(t, c.files, c.main)
		if err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", what, got, err, c.want)
		}
	}
}

func TestRequirementsThatCannotBeStagedAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, want string
		code       zarpa.Code
	}{
		"up.txt":       {"-r ../up.txt", "outside its folder", zarpa.Invalid},
		"absolute.txt": {"-r/etc/list.txt", "outside its folder", zarpa.Invalid},
		"url.txt":      {"-c https://example.org/bounds.txt", "outside its folder", zarpa.Invalid},
		"gone.txt":     {"-c none.txt", `"none.txt", which is not there`, zarpa.NotFound},
		"my list.txt":  {"x", "cannot name", zarpa.Invalid},
		"-r.txt":       {"x", "cannot name", zarpa.Invalid},
	} {
		got, err := stageRequirements(t, map[string]string{name: c.text}, name)
		if err == nil || !strings.Contains(err.Error(), c.want) || zarpa.AsError(err).Code != c.code || len(got) != 0 {
			t.Errorf("%s: staged %q, %v; want %s and %q", name, got, err, c.code, c.want)
		}
	}
}
