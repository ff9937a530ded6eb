package endpointfile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/endpointfile"
)

const good = `
name: iris
auth: key
request_timeout: 90s
deployments:
  - name: blue
    model: iris:3
    replicas: 2
    cpu: 0.5
    memory: 512Mi
    env: {LEVEL: debug, N: "1"}
  - name: green
    file: ./iris.onnx
    cpu: 500m
    memory: 1073741824
`

func TestReadsEveryField(t *testing.T) {
	t.Parallel()
	files, err := endpointfile.Read([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	f := files[0]
	if f.Name != "iris" || time.Duration(f.RequestTimeout) != 90*time.Second || len(f.Deployments) != 2 {
		t.Fatalf("%+v", f)
	}
	blue, green := f.Deployments[0], f.Deployments[1]
	if blue.Model != "iris:3" || blue.CPU != 0.5 || blue.Memory != 512<<20 || blue.Env["N"] != "1" {
		t.Errorf("blue: %+v", blue)
	}
	if green.File != "./iris.onnx" || green.CPU != 0.5 || green.Memory != 1<<30 {
		t.Errorf("green: %+v", green)
	}
}

func TestBadFilesAreNamedErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "empty"},
		{"not a mapping", "- 1", "mapping"},
		{"not YAML", "name: [", "not YAML"},
		{"unknown field", "name: a\nreplica: 1\ndeployments: []", "replica"},
		{"nearest field", "name: a\ndeployments: [{model: m, replcas: 1}]", "replicas"},
		{"wrong type", "name: a\ndeployments: [{model: m, replicas: many}]", "replicas"},
		{"no deployments", "name: a", "deployments: missing"},
		{"wrong type in a deployment", "name: a\ndeployments: [{model: m, env: {N: 1}}]", "deployments.env"},
		{"no model", "name: a\ndeployments: [{name: blue}]", "neither model nor file"},
		{"both", "name: a\ndeployments: [{model: m, file: f}]", "both model and file"},
		{"bad name", "name: 1a\ndeployments: []", "does not start with a letter"},
		{"twice", "name: a\nname: b\ndeployments: []", "twice"},
		{"alias", "name: &x a\nauth: *x\ndeployments: []", "aliases"},
		{"bad size", "name: a\ndeployments: [{model: m, memory: lots}]", "lots"},
		{"bad duration", "name: a\nrequest_timeout: 60\ndeployments: []", "unit"},
		{"second document", "name: a\ndeployments: []\n---\nnam: b\n", "document 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := endpointfile.Read([]byte(c.text))
			if err == nil || zarpa.AsError(err).Code != zarpa.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want invalid with %q", err, c.want)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		files, err := endpointfile.Read(text)
		if err == nil && len(files) == 0 {
			t.Error("no error and no file")
		}
		for _, file := range files {
			if zarpa.ValidateName("endpoint", file.Name) != nil {
				t.Errorf("accepted the name %q", file.Name)
			}
		}
	})
}
