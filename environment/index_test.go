package environment_test

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/environment"
)

// index is a package index that wants a name and a password.
func index(t *testing.T, files fstest.MapFS, user, password string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="index"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.HasSuffix(r.URL.Path, ".whl") {
			f, ok := files["wheels/"+path.Base(r.URL.Path)]
			if !ok {
				http.NotFound(w, r)
				return
			}
			w.Write(f.Data)
			return
		}
		name := path.Base(r.URL.Path)
		var links strings.Builder
		for file := range files {
			if base := path.Base(file); strings.HasPrefix(base, name+"-") {
				fmt.Fprintf(&links, "<a href=\"/files/%s\">%s</a>\n", base, base)
			}
		}
		if links.Len() == 0 {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!DOCTYPE html><html><body>"+links.String()+"</body></html>")
	}))
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "http://", "http://"+user+":"+password+"@", 1) + "/simple/"
}

// network lets pip use an index.
func network(o *environment.Options, more ...string) {
	o.Env = slices.DeleteFunc(o.Env, func(e string) bool {
		return e == "PIP_NO_INDEX=1" || strings.HasPrefix(e, "PIP_CONFIG_FILE=")
	})
	o.Env = append(o.Env, "PIP_RETRIES=1", "UV_HTTP_RETRIES=0", "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	o.Env = append(o.Env, more...)
}

// everything is all text that is kept below a folder.
func everything(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestAPrivateIndexIsThatOfTheUsersPipConfiguration(t *testing.T) {
	t.Parallel()
	tools(t, func(t *testing.T, o environment.Options) {
		const password = "Xs3cr3tX"
		url := index(t, plain(t, ""), "reader", password)
		conf := filepath.Join(t.TempDir(), "pip.conf")
		if err := os.WriteFile(conf, []byte("[global]\nindex-url = "+url+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		network(&o, "PIP_CONFIG_FILE="+conf)
		c := open(t, o)
		var heard strings.Builder
		e, err := c.Ensure(t.Context(), environment.Request{Files: files("requirements.txt", "alpha\n")}, func(l string) { heard.WriteString(l + "\n") })
		if err != nil {
			t.Fatal(err)
		}
		if got := without(e.Packages, "setuptools"); !slices.Equal(got, []string{"alpha==1.0", "beta==2.1"}) {
			t.Errorf("packages %q", got)
		}
		record, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"progress": heard.String(), "files": everything(t, o.Dir), "record": string(record)} {
			if strings.Contains(text, password) {
				t.Errorf("the password is in the %s", name)
			}
		}
	})
}

func TestRefusedCredentialsAreNamedAndNotShown(t *testing.T) {
	t.Parallel()
	tools(t, func(t *testing.T, o environment.Options) {
		url := index(t, plain(t, ""), "reader", "right")
		network(&o, "PIP_CONFIG_FILE=/dev/null", "PIP_INDEX_URL="+strings.Replace(url, ":right@", ":Xwr0ngX@", 1))
		_, err := open(t, o).Ensure(t.Context(), environment.Request{Files: files("requirements.txt", "alpha\n")}, nil)
		e := zarpa.AsError(err)
		// uv does not tell it from an index without the package
		if !strings.Contains(e.Message, "refused the credentials") && (o.Uv == environment.None || !strings.Contains(e.Hint, "with its credentials")) {
			t.Errorf("error %v", err)
		}
		if all := everything(t, o.Dir); strings.Contains(all, "Xwr0ngX") || strings.Contains(e.Error(), "Xwr0ngX") {
			t.Errorf("the password is in %s", all)
		}
	})
}

func TestAnIndexThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	tools(t, func(t *testing.T, o environment.Options) {
		network(&o, "PIP_CONFIG_FILE=/dev/null", "PIP_INDEX_URL=http://127.0.0.1:1/simple")
		_, err := open(t, o).Ensure(t.Context(), environment.Request{Files: files("requirements.txt", "alpha\n")}, nil)
		if e := zarpa.AsError(err); e == nil || e.Code != zarpa.Unavailable || !strings.Contains(e.Message, "index cannot be reached") {
			t.Errorf("error %v", err)
		}
	})
}

// shelf is a package index of source packages for everybody; it tells what it was asked for.
func shelf(t *testing.T, sources map[string]string) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var paths []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.URL.Path)
		mu.Unlock()
		name := path.Base(r.URL.Path)
		if base, file := strings.CutSuffix(name, "-1.0.tar.gz"); file {
			io.WriteString(w, sources[base])
			return
		}
		if _, ok := sources[name]; !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!DOCTYPE html><html><body><a href=\"/files/%[1]s-1.0.tar.gz\">%[1]s-1.0.tar.gz</a></body></html>", name)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/simple/", func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(paths) }
}

func TestTheSearchForACauseAsksNoOtherIndex(t *testing.T) {
	t.Parallel()
	o := settings(t)
	private, askedPrivate := shelf(t, nil)
	public, askedPublic := shelf(t, nil)
	network(&o, "PIP_CONFIG_FILE=/dev/null", "PIP_INDEX_URL="+public)
	_, err := open(t, o).Ensure(t.Context(), environment.Request{Files: files("requirements.txt", "--index-url "+private+"\nalpha\n")}, nil)
	if e := zarpa.AsError(err); e == nil || !strings.Contains(e.Message, `line 2: "alpha": there is no such package`) {
		t.Errorf("error %v", err)
	}
	if len(askedPrivate()) == 0 || len(askedPublic()) > 0 {
		t.Errorf("its own index was asked for %q, the other one for %q", askedPrivate(), askedPublic())
	}
}

func TestTheSearchForACauseBuildsNothing(t *testing.T) {
	t.Parallel()
	o := settings(t)
	ran := filepath.Join(t.TempDir(), "ran")
	url, asked := shelf(t, map[string]string{"alpha": sourcePackage(t, "alpha", fmt.Sprintf("    open(%q, 'w').close()\n", ran))})
	network(&o, "PIP_CONFIG_FILE=/dev/null", "PIP_INDEX_URL="+url)
	_, err := open(t, o).Ensure(t.Context(), environment.Request{Files: files("requirements.txt", "--only-binary alpha\nalpha\n")}, nil)
	if e := zarpa.AsError(err); e == nil || !strings.Contains(e.Message, `line 2: "alpha": there is no such package`) {
		t.Errorf("error %v", err)
	}
	if got := asked(); len(got) != 2 { // for the installation, and for its cause
		t.Errorf("the index was asked for %q", got)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the package, which was to be taken as a wheel only, was built")
	}
}
