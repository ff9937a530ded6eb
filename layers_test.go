package zarpa_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/zarpa-dev/zarpa"

// allowed lists, by name, every arrow between folders besides those to the root and to internal.
// A folder's tests may use the suites and the implementations they need: only the arrows of the
// code itself are guarded.
var allowed = map[string][]string{
	"api":          {"modelfile", "bundle", "target", "autoscale"}, // handlers read model files, wake the reconciler and check schedules
	"cmd":          {"*"},                                          // the only place that knows all
	"cmd/zarpa":    {"*"},
	"bundle/image": {"bundle"},
	"bench":        {"*"}, // measures everything
	"e2e":          {"*"},
}

// home lists heavy dependencies and the only folders that may import them.
var home = map[string][]string{
	"github.com/yalue/onnxruntime_go":   {"engine/onnx"},
	"modernc.org/sqlite":                {"store/sqlite"},
	"github.com/spf13/cobra":            {"cmd"},
	"charm.land/bubbletea/v2":           {"cmd/zarpa"},
	"github.com/adhocore/gronx":         {"autoscale"},
	"github.com/golang-jwt/jwt/v5":      {"internal/scoringtoken"},
	"github.com/coreos/go-oidc/v3/oidc": {"internal/oidc"},
	"golang.org/x/crypto/acme/autocert": {"internal/certs"},
	"github.com/moby/moby/client":       {"target/container"},

	"github.com/google/go-containerregistry/pkg/v1":        {"bundle/image", "registry", "cmd/zarpa"},
	"github.com/google/go-containerregistry/pkg/v1/remote": {"registry"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func folder(importPath string) (string, bool) {
	rest, ok := strings.CutPrefix(importPath, module)
	return strings.TrimPrefix(rest, "/"), ok
}

func TestArrowsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		from, _ := folder(p.ImportPath)
		for _, imp := range p.Imports {
			to, ours := folder(imp)
			switch {
			case from == "" && (ours || strings.Contains(strings.Split(imp, "/")[0], ".")):
				t.Errorf("the root imports %s: it may import the standard library only", imp)
			case ours && !arrowAllowed(from, to):
				t.Errorf("%s imports %s: not an arrow of layers_test.go", from, to)
			}
			if homes, heavy := home[imp]; heavy && !within(from, homes) {
				t.Errorf("%s imports %s: its home is %v", from, imp, homes)
			}
		}
	}
}

func arrowAllowed(from, to string) bool {
	if to == "" || strings.HasPrefix(to, "internal/") || strings.HasPrefix(to, from+"/") && from != "target" {
		return true
	}
	// a suite (storetest, targettest, …) and an example may use what it proves
	for _, ok := range allowed[from] {
		if ok == "*" || ok == to {
			return true
		}
	}
	for parent, list := range allowed {
		if strings.HasPrefix(from, parent+"/") && len(list) == 1 && list[0] == "*" {
			return true
		}
	}
	return false
}

func within(from string, homes []string) bool {
	for _, h := range homes {
		if from == h || strings.HasPrefix(from, h+"/") {
			return true
		}
	}
	return false
}
