package environment

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/zarpa-dev/zarpa"
)

func content(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

func TestRequirementsAreRead(t *testing.T) {
	t.Parallel()
	const text = `# what we need
numpy==1.26.4 ; python_version < "3.13"   # pinned
Scikit_Learn[extra,more] >=1.3, <2
--extra-index-url https://download.example.org/whl/cpu --pre
-i https://${USER}:${TOKEN}@index.example.org/simple
torch @ https://download.example.org/torch-2.3.0-cp311-none-linux_x86_64.whl#sha256=ab
git+https://example.org/project.git@v1#egg=Project_X&subdirectory=a
wheels/local.pkg-1.0-py3-none-any.whl
joblib (>=1.2)
hashed==1 \
    --hash=sha256:aa \
    --hash=sha256:bb
-c bounds.txt
requests
`
	r, err := readRequirements(content("requirements.txt", text, "bounds.txt", "urllib3<3\n", "wheels/local.pkg-1.0-py3-none-any.whl", ""), "requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range r.list {
		got = append(got, q.name)
	}
	want := []string{"numpy", "scikit-learn", "torch", "project-x", "local-pkg", "joblib", "hashed", "urllib3", "requests"}
	if !slices.Equal(got, want) || !r.index {
		t.Errorf("names %q, index %v; want %q", got, r.index, want)
	}
	if h := r.list[6]; h.line != 10 || !strings.HasPrefix(h.text, "hashed==1") || !strings.Contains(h.text, "bb") {
		t.Errorf("the continued line is %+v", h)
	}
	if u := r.list[7]; u.file != "bounds.txt" || u.line != 1 || !u.constraint {
		t.Errorf("the bound is %+v", u)
	}
}

func TestRequirementsThatAreRefusedAreNamed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\n-e .":                           "line 2: option -e reads sources from outside",
		"--editable=git+https://x/y":        "line 1: option -e",
		"--target /usr":                     `option "--target" is not allowed`,
		"--no-index=1":                      `option "--no-index" is not allowed`,
		"-x":                                `option "-x" is not allowed`,
		"--install-option=--prefix=/":       `option "--install-option" is not allowed`,
		"a==1 --global-option=x":            `option "--global-option=x" is not allowed behind`,
		"-r ../other.txt":                   `"../other.txt" is outside`,
		"-r /etc/passwd":                    `"/etc/passwd" is outside`,
		"-chttps://x/y":                     `"https://x/y" is outside`,
		"-r":                                "option --requirement has no value",
		"-r gone.txt":                       "gone.txt: not in the description",
		"-f /srv/wheels":                    `"/srv/wheels" is outside`,
		"-f file:///srv":                    `"file:///srv" reads from outside`,
		"--find-links=../x":                 `"../x" is outside`,
		"./folder":                          `"./folder": no such file`,
		"../a-1.0.whl":                      `"../a-1.0.whl" reads from outside`,
		"/a-1.0.tar.gz":                     `"/a-1.0.tar.gz" reads from outside`,
		"file:///a.whl":                     `"file:///a.whl" reads from outside`,
		"a @ file:///a.whl":                 `"file:///a.whl" reads from outside`,
		"a @ ../a.whl":                      `"../a.whl" reads from outside`,
		"git+file:///a":                     "reads from outside",
		"a=1.0":                             `"=1.0" is not understood`,
		"a==":                               `"==" is not understood`,
		"a b":                               `"b" is not understood`,
		"?":                                 `"?" is not a requirement`,
		"-i https://me:secret@example.org/": `"https://***@example.org/" has a password`,
		"a @ https://me:secret@example.org/a.whl":       "has a password or token",
		"git+https://secret@example.org/a.git":          "has a password or token",
		"a @ git+https://secret@example.org/a.git@v1":   "has a password or token",
		"--extra-index-url https://secret@example.org/": "has a password or token",
		"--find-links=http://secret@example.org?x":      "has a password or token",
		"-i https://secret:@example.org/":               "has a password or token",
		"-i https://me@x:secret@example.org/":           "has a password or token",
		"-i https://$secret@example.org/${NAME}":        "has a password or token",
		"a @ git+ssh://git:secret@example.org/a.git":    "has a password or token",
		"a\x00b": "not text",
		"\xff":   "not text",
	} {
		_, err := readRequirements(content("requirements.txt", text), "requirements.txt")
		e := zarpa.AsError(err)
		if e == nil || e.Code != zarpa.Invalid || !strings.Contains(e.Message, want) || e.Hint == "" && !strings.Contains(text, "-r") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if e != nil && strings.Contains(e.Error(), "secret") {
			t.Errorf("%q: the password is shown: %v", text, err)
		}
	}
	for _, text := range []string{
		"a @ git+ssh://git@example.org/a.git@v1", "git+https://${TOKEN}@example.org/a.git", "-i https://me:${INDEX_PASSWORD}@example.org/",
		"git+https://example.org/a.git@v1#egg=a", "--extra-index-url https://example.org/@team/simple",
	} {
		if _, err := readRequirements(content("requirements.txt", text), "requirements.txt"); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	hints := map[string]string{"a=1.0": "write =="}
	for text, want := range hints {
		_, err := readRequirements(content("requirements.txt", text), "requirements.txt")
		if e := zarpa.AsError(err); e == nil || !strings.Contains(e.Hint, want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRequirementsAreBounded(t *testing.T) {
	t.Parallel()
	chain := fstest.MapFS{}
	for i := range maxFiles + 1 {
		next := string(rune('0'+(i+1)/10)) + string(rune('0'+(i+1)%10))
		name := string(rune('0'+i/10)) + string(rune('0'+i%10))
		chain["r"+name+".txt"] = &fstest.MapFile{Data: []byte("-r r" + next + ".txt\n")}
	}
	for what, r := range map[string]struct {
		files fs.FS
		name  string
	}{
		"files": {chain, "r00.txt"},
		"bytes": {content("requirements.txt", strings.Repeat("#", maxDescription+1)), "requirements.txt"},
		"lines": {content("requirements.txt", strings.Repeat("a\n", maxLines+1)), "requirements.txt"},
	} {
		if _, err := readRequirements(r.files, r.name); zarpa.AsError(err) == nil || zarpa.AsError(err).Code != zarpa.TooLarge {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := readRequirements(content("a.txt", "-r b.txt\nx", "b.txt", "-r a.txt\ny"), "a.txt"); err != nil {
		t.Errorf("a circle: %v", err)
	}
}

func TestDescriptionsThatAreWrongAreNamed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ file, text, want string }{
		{"conda.yml", "dependencies: [", "conda.yml: "},
		{"conda.yml", "dependencies:\n- python=abc", `conda.yml line 2: "python=abc": its version`},
		{"conda.yml", "dependencies:\n- npm: [x]", "conda.yml line 2: only a list named pip"},
		{"conda.yml", "dependencies:\n- [x]", "conda.yml line 2: not a package"},
		{"conda.yml", "dependencies:\n- pip:\n  - a\n  - -e .", "conda.yml line 4: option -e"},
		{"conda.yml", "dependencies:\n- pip:\n  - \"a\\n--target=/x\"", "conda.yml line 3: not a requirement"},
		{"conda.yaml", "dependencies:\n- '=3'", `"=3" is not a package`},
		{"pyproject.toml", "[project", "pyproject.toml line 1:"},
		{"pyproject.toml", "[tool.black]", "it has no [project]"},
		{"pyproject.toml", "[project]\ndynamic = ['dependencies']", "are dynamic"},
		{"pyproject.toml", "[project]\nrequires-python = '3.11'", `requires-python: "3.11" is not understood`},
		{"pyproject.toml", "[project]\ndependencies = ['-r x']", `"-r x" is not a requirement`},
		{"pyproject.toml", "[project]\ndependencies = ['ok', 'a=1']", `"=1" is not understood`},
		{"readme.txt", "", "none that says what to install"},
	} {
		_, err := describe(content(tc.file, tc.text))
		if e := zarpa.AsError(err); e == nil || e.Code != zarpa.Invalid || !strings.Contains(e.Message, tc.want) {
			t.Errorf("%s %q: %v, want %q", tc.file, tc.text, err, tc.want)
		}
	}
}

func TestWheelsAreEnoughWhenTheyHaveEveryRequirement(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"alpha":                               true,
		"Al.pha\nalpha":                       false,
		"alpha\nbeta_x>=1":                    true,
		"alpha\n-c bounds.txt":                true,
		"alpha\ngamma":                        false,
		"alpha @ https://example.org/x.whl":   false,
		"--extra-index-url https://x/\nalpha": false,
		"":                                    true,
	} {
		d, err := describe(content("requirements.txt", text, "bounds.txt", "gamma<1", "wheels/alpha-1-py3-none-any.whl", "", "wheels/Beta.x-1.0.tar.gz", ""))
		if err != nil || d.offline() != want {
			t.Errorf("%q: %v, %v; want %v", text, d.offline(), err, want)
		}
	}
	if d, err := describe(content("requirements.txt", "alpha")); err != nil || d.offline() {
		t.Errorf("without wheels: %v, %v", d.offline(), err)
	}
}

func TestVersionsAreCompared(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		parse   func(string) (constraint, bool)
		text    string
		allowed string
	}{
		{exactly, "3.11", "3.11.0 3.11.7"},
		{exactly, "3.11.7", "3.11.7"},
		{exactly, "", "3.8.18 3.11.0 3.11.7 3.12.1"},
		{parseSpecifiers, ">=3.9,<3.12", "3.11.0 3.11.7"},
		{parseSpecifiers, ">= 3.11.1 , != 3.12.*,", "3.11.7"},
		{parseSpecifiers, "~=3.11", "3.11.0 3.11.7 3.12.1"},
		{parseSpecifiers, "~=3.11.1", "3.11.7"},
		{parseSpecifiers, "==3.8.*", "3.8.18"},
		{parseSpecifiers, ">3.11.0,<=3.12.1", "3.11.7 3.12.1"},
		{parseCondaVersion, "=3.11", "3.11.0 3.11.7"},
		{parseCondaVersion, "==3.11.2", "3.11.0 3.11.7"},
		{parseCondaVersion, "3.11.2=h7579374_0", "3.11.0 3.11.7"},
		{parseCondaVersion, "3.8.*|3.12.*", "3.8.18 3.12.1"},
		{parseCondaVersion, ">=3.8,<3.11", "3.8.18"},
		{parseCondaVersion, "3.11 h1_0", "3.11.0 3.11.7"},
		{parseCondaVersion, "=3", "3.8.18 3.11.0 3.11.7 3.12.1"},
		{parseCondaVersion, "", "3.8.18 3.11.0 3.11.7 3.12.1"},
	} {
		c, ok := tc.parse(tc.text)
		if !ok {
			t.Errorf("%q is not understood", tc.text)
		}
		var allowed []string
		for _, s := range []string{"3.8.18", "3.11.0", "3.11.7", "3.12.1"} {
			if v, _, _ := parseVersion(s); c.allows(v) {
				allowed = append(allowed, s)
			}
		}
		if got := strings.Join(allowed, " "); got != tc.allowed {
			t.Errorf("%q allows %s, want %s", tc.text, got, tc.allowed)
		}
	}
	for _, text := range []string{"3.11", ">=", "~=3", ">=3.*", "=>3", "=3.9", ">=x"} {
		if _, ok := parseSpecifiers(text); ok {
			t.Errorf("%q is understood", text)
		}
	}
	if c, _ := parseCondaVersion("=3.8.5"); c.loose != "3.8.5" {
		t.Errorf("loose %q", c.loose)
	}
}

// FuzzDescriptions looks for files that stop the readers, and for those whose generated requirements
// say something else than what was checked.
func FuzzDescriptions(f *testing.F) {
	for _, text := range []string{
		"a==1\n-r x\n", "a \\\n --hash=sha256:x", "dependencies:\n- python=3.8\n- pip:\n  - a==1 # b\n", "[project]\nrequires-python='>=3'\ndependencies=['a>1 ; x']\n",
		"\xff\xfea\x00", "dependencies:\n- pip:\n  - 'a #b\\\\'\n  - b\n", "- &a [*a]", "a;x \\\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range sources {
			files := content(s.name, text, "x", "b")
			d, err := s.read(files, s.name)
			if err != nil {
				continue
			}
			if d.main == "" {
				if len(d.packages.list) > 0 {
					t.Errorf("%s: nothing is installed of %+v", s.name, d.packages.list)
				}
				continue
			}
			for name, text := range d.packages.texts {
				files[name] = &fstest.MapFile{Data: text}
			}
			again, err := readRequirements(files, d.main)
			if err != nil {
				t.Fatalf("%s: what is installed is refused: %v", s.name, err)
			}
			same := slices.EqualFunc(d.packages.list, again.list, func(a, b requirement) bool { return a.name == b.name && a.constraint == b.constraint })
			if !same {
				t.Errorf("%s: checked %+v, installed %+v", s.name, d.packages.list, again.list)
			}
		}
	})
}

// FuzzPipSettings reads what users have in their pip.conf.
func FuzzPipSettings(f *testing.F) {
	f.Add("[global]\nindex-url = https://u:p@h/\n  more\n[install]\nno_index: true\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := pipSettings{}
		s.read(text)
		for name := range s {
			if name != settingName(name) {
				t.Errorf("name %q", name)
			}
		}
	})
}

func TestIncludedFilesAreFoundInEveryWriting(t *testing.T) {
	t.Parallel()
	const text = `-r one.txt
-rtwo.txt
--requirement=three.txt   # why
--requirement four.txt
-c bounds/five.txt
-csix.txt --constraint="seven.txt"
--pre -r \
  eight.txt
-i https://index.example.org/?a=-r -r nine.txt
# -r comment.txt
numpy==1.26.4 --hash=sha256:aa
--find-links -r
-r
`
	want := []string{"one.txt", "two.txt", "three.txt", "four.txt", "bounds/five.txt", "six.txt", "seven.txt", "eight.txt", "nine.txt"}
	if got := Included([]byte(text)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Included([]byte("\xff\xfe-\x00r\x00 \x00a\x00\r\x00\n\x00")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("in UTF-16: %q", got)
	}
}
