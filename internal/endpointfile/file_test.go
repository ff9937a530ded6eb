package endpointfile_test

import (
	"slices"
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
status_codes: v1
cors_origins: ["*", https://app.example.com]
deployments:
  - name: blue
    model: iris:3
    replicas: 2
    cpu: 0.5
    memory: 512Mi
    env: {LEVEL: debug, N: "1"}
    models:
      - rank
      - null:2
      - true
      - ./other.onnx
    model_control: explicit
    max_batch_rows: 16
    max_batch_delay: 2ms
  - name: green
    file: ./iris.onnx
    cpu: 500m
    memory: 1073741824
    max_batch_delay: 0
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
	if want := []string{"rank", "null:2", "true", "./other.onnx"}; !slices.Equal(blue.Models, want) {
		t.Errorf("models %q, want %q", blue.Models, want)
	}
	if blue.ModelControl != zarpa.ModelControlExplicit || blue.MaxBatchRows != 16 || time.Duration(blue.MaxBatchDelay) != 2*time.Millisecond {
		t.Errorf("blue: %+v", blue)
	}
	spec := f.Spec()
	if spec.StatusCodes != zarpa.StatusV1 || !slices.Equal(spec.CORSOrigins, []string{"*", "https://app.example.com"}) {
		t.Errorf("the endpoint's: %+v", spec)
	}
	if spec.Deployments[0].MaxBatchRows != 16 || len(spec.Deployments[0].Models) != 4 {
		t.Errorf("the deployment's: %+v", spec.Deployments[0])
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
		{"models that are no list", "name: a\ndeployments: [{model: m, models: x}]", "deployments.models"},
		{"a model that is no name", "name: a\ndeployments: [{model: m, models: [[x]]}]", "deployments.models"},
		{"batch delay without a unit", "name: a\ndeployments: [{model: m, max_batch_delay: 5}]", "unit"},
		{"bare star", "name: a\ncors_origins: [*]\ndeployments: []", "not YAML"},
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

func TestReadsScaling(t *testing.T) {
	t.Parallel()
	files, err := endpointfile.Read([]byte(`
name: iris
deployments:
  - model: iris:1
    scale:
      preset: knative
      min: 0
      max: 5
      target_utilization: 60
      window: 30s
      idle: 90s
      hold: 10s
      schedules:
        - {cron: 0 8 * * 1-5, time_zone: Europe/Madrid, min: 2}
        - cron: "0 18 * * *"
          max: 3
`))
	if err != nil {
		t.Fatal(err)
	}
	s := files[0].Spec().Deployments[0].Scale
	if s.Preset != zarpa.ScaleKnative || *s.Min != 0 || s.Max != 5 || s.TargetUtilization != 60 || time.Duration(s.Window) != 30*time.Second ||
		time.Duration(s.Idle) != 90*time.Second || time.Duration(s.Hold) != 10*time.Second {
		t.Errorf("%+v", s)
	}
	if len(s.Schedules) != 2 || s.Schedules[0].Cron != "0 8 * * 1-5" || *s.Schedules[0].Min != 2 || s.Schedules[1].Min != nil || *s.Schedules[1].Max != 3 {
		t.Errorf("%+v", s.Schedules)
	}
	_, err = endpointfile.Read([]byte("name: iris\ndeployments:\n  - {model: iris, scale: {minimum: 1}}\n"))
	if err == nil || !strings.Contains(err.Error(), "minimum") || !strings.Contains(zarpa.AsError(err).Hint+err.Error(), "min") {
		t.Errorf("%v", err)
	}
}
