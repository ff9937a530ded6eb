package zarpa_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestEveryCodeHasAStatusAndAnExitCodeOfItsOwn(t *testing.T) {
	t.Parallel()
	seen := map[int]zarpa.Code{}
	for _, code := range zarpa.Codes() {
		if code.HTTPStatus() < 400 {
			t.Errorf("%s: status %d", code, code.HTTPStatus())
		}
		if other, twice := seen[code.ExitCode()]; twice || code.ExitCode() == 0 {
			t.Errorf("%s: exit code %d, as %s", code, code.ExitCode(), other)
		}
		seen[code.ExitCode()] = code
		// 503 stands for two codes; the first of the table is taken.
		if back := zarpa.CodeFromHTTP(code.HTTPStatus()); back != code && code != zarpa.Unavailable {
			t.Errorf("%s: comes back from HTTP as %s", code, back)
		}
	}
	for retry, want := range map[string]zarpa.Code{"1": zarpa.Overloaded, "": zarpa.Unavailable} {
		header := http.Header{}
		header.Set("Retry-After", retry)
		if got := zarpa.CodeFromAnswer(http.StatusServiceUnavailable, header); got != want {
			t.Errorf("503 with Retry-After %q is %s, want %s", retry, got, want)
		}
	}
	if got := zarpa.CodeFromAnswer(http.StatusTooManyRequests, http.Header{}); got != zarpa.Overloaded {
		t.Errorf("429 is %s", got)
	}
	if zarpa.CodeFromHTTP(http.StatusTeapot) != zarpa.Invalid || zarpa.CodeFromHTTP(599) != zarpa.Internal {
		t.Error("unknown statuses must be invalid below 500, internal above")
	}
}

func TestErrorsCarryCodeHintAndCause(t *testing.T) {
	t.Parallel()
	err := error(zarpa.Errorf(zarpa.Invalid, "field %q: %w", "x", io.ErrUnexpectedEOF).WithHint("send %d", 4))
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), `field "x"`) || !strings.Contains(err.Error(), "send 4") {
		t.Errorf("%v", err)
	}
	if !errors.Is(fmt.Errorf("wrapped: %w", zarpa.Errorf(zarpa.NotFound, "no such")), zarpa.ErrNotFound) {
		t.Error("a not_found must be ErrNotFound")
	}
	if errors.Is(err, zarpa.ErrNotFound) {
		t.Error("an invalid must not be ErrNotFound")
	}
	for in, want := range map[error]zarpa.Code{
		context.DeadlineExceeded: zarpa.Timeout, context.Canceled: zarpa.Canceled, io.EOF: zarpa.Internal, err: zarpa.Invalid,
	} {
		if got := zarpa.AsError(in).Code; got != want {
			t.Errorf("AsError(%v) is %s, want %s", in, got, want)
		}
	}
	if zarpa.AsError(nil) != nil {
		t.Error("no error must stay none")
	}
	if strings.Contains(zarpa.AsError(errors.New("password 123")).Error(), "123") {
		t.Error("the text of an internal error must not reach a user")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"iris": true, "A": true, "a-b_c.d9": true, strings.Repeat("a", 63): true,
		"": false, "9a": false, "-a": false, ".a": false, "a b": false, "a/b": false, "é": false, "aé": false, strings.Repeat("a", 64): false, "a\x00": false,
	} {
		if err := zarpa.ValidateName("model", name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	fields := []string{"replicas", "memory", "cpu"}
	for word, want := range map[string]string{"replcas": "replicas", "Memory": "memory", "cpus": "cpu", "something": ""} {
		if got := zarpa.Nearest(word, fields); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
	// What a client made long is not compared: it would take minutes.
	long := strings.Repeat("x", 1<<20)
	for word, candidate := range map[string]string{long: long + "y", "memory": long} {
		if got := zarpa.Nearest(word, []string{candidate}); got != "" {
			t.Errorf("%d bytes: %d bytes", len(word), len(got))
		}
	}
}

func TestQuantitiesReadBackAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for _, b := range []zarpa.Bytes{0, 1, 1023, 1024, 1500, 512 << 20, 3 << 40, 1<<62 + 1} {
		text, _ := b.MarshalText()
		var back zarpa.Bytes
		if err := back.UnmarshalText(text); err != nil || (back != b && b < 1<<53) {
			t.Errorf("%d → %s → %d, %v", b, text, back, err)
		}
	}
	for _, d := range []time.Duration{0, time.Millisecond, 60 * time.Second, 90 * time.Second, 5 * time.Minute, 20*time.Minute + 10*time.Second, 24 * time.Hour} {
		text, _ := zarpa.Duration(d).MarshalText()
		var back zarpa.Duration
		if err := back.UnmarshalText(text); err != nil || time.Duration(back) != d {
			t.Errorf("%v → %s → %v, %v", d, text, back, err)
		}
	}
	for text, want := range map[string]zarpa.Bytes{"512Mi": 512 << 20, "1.5G": 1.5e9, "10": 10, "1Ki": 1024, "2k": 2000, "64MiB": 64 << 20} {
		var b zarpa.Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%s: %d, %v; want %d", text, b, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1Xi", "NaN", "1e30", "Mi"} {
		if new(zarpa.Bytes).UnmarshalText([]byte(text)) == nil {
			t.Errorf("size %q was accepted", text)
		}
	}
	for text, want := range map[string]zarpa.CPU{"0.5": 0.5, "500m": 0.5, "2": 2} {
		var c zarpa.CPU
		if err := c.UnmarshalText([]byte(text)); err != nil || c != want {
			t.Errorf("%s: %v, %v; want %v", text, c, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "NaN", "1e9"} {
		if new(zarpa.CPU).UnmarshalText([]byte(text)) == nil {
			t.Errorf("cpu %q was accepted", text)
		}
	}
}

func TestModelRefs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]zarpa.ModelRef{"iris": {Name: "iris"}, "iris:3": {Name: "iris", Version: 3}} {
		if got, err := zarpa.ParseModelRef(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":1", "iris:", "iris:0", "iris:-1", "iris:x", "iris:1:2"} {
		if _, err := zarpa.ParseModelRef(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestPathsStayInside(t *testing.T) {
	t.Parallel()
	for p, ok := range map[string]bool{
		"model.onnx": true, "a/b/c": true, "..a": true,
		"": false, ".": false, "..": false, "../a": false, "a/../b": false, "/a": false, "a//b": false, "a/": false, `a\b`: false, "a\nb": false, "a\x01b": false,
	} {
		if err := zarpa.ValidatePath(p); (err == nil) != ok {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestShapesAreCounted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		shape []int64
		want  int64
		ok    bool
	}{
		{nil, 1, true},
		{[]int64{2, 3}, 6, true},
		{[]int64{0, 1 << 61}, 0, true},
		{[]int64{1 << 62, 1 << 62, 0}, 0, false},
		{[]int64{-1}, 0, false},
		{[]int64{1 << 40, 1 << 40}, 0, false},
	} {
		got, err := zarpa.Elements(c.shape)
		if (err == nil) != c.ok || got != c.want && c.ok {
			t.Errorf("%v: %d, %v", c.shape, got, err)
		}
	}
	if n, err := zarpa.ByteSize(zarpa.Int4, []int64{3}); n != 2 || err != nil {
		t.Errorf("three 4-bit elements take %d bytes, %v", n, err)
	}
	if _, err := zarpa.ByteSize(zarpa.Float64, []int64{1 << 60}); err == nil {
		t.Error("2^63 bytes were accepted")
	}
}

func TestElementTypesReadBack(t *testing.T) {
	t.Parallel()
	for et := zarpa.Undefined; et <= zarpa.Map; et++ {
		text, _ := et.MarshalText()
		var back zarpa.ElementType
		if err := back.UnmarshalText(text); err != nil || back != et {
			t.Errorf("%s: %v, %v", text, back, err)
		}
	}
	if new(zarpa.ElementType).UnmarshalText([]byte("FP31")) == nil {
		t.Error("FP31 was accepted")
	}
}

func TestSpecsNameTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	good := zarpa.DeploymentSpec{Name: "blue", Model: "iris:1"}
	for field, change := range map[string]func(*zarpa.EndpointSpec){
		"auth":            func(s *zarpa.EndpointSpec) { s.Auth = "magic" },
		"request_timeout": func(s *zarpa.EndpointSpec) { s.RequestTimeout = -1 },
		"max_queue":       func(s *zarpa.EndpointSpec) { s.MaxQueue = -1 },
		"queue_wait":      func(s *zarpa.EndpointSpec) { s.QueueWait = -1 },
		"max_body":        func(s *zarpa.EndpointSpec) { s.MaxBody = -1 },
		"twice":           func(s *zarpa.EndpointSpec) { s.Deployments = append(s.Deployments, good) },
		"deployment name": func(s *zarpa.EndpointSpec) { s.Deployments[0].Name = "-" },
		"model":           func(s *zarpa.EndpointSpec) { s.Deployments[0].Model = "" },
		"target":          func(s *zarpa.EndpointSpec) { s.Deployments[0].Target = "/" },
		"replicas":        func(s *zarpa.EndpointSpec) { s.Deployments[0].Replicas = 1001 },
		"cpu":             func(s *zarpa.EndpointSpec) { s.Deployments[0].CPU = 0.001 },
		"memory":          func(s *zarpa.EndpointSpec) { s.Deployments[0].Memory = 1 },
		"env":             func(s *zarpa.EndpointSpec) { s.Deployments[0].Env = map[string]string{"a=b": ""} },
		"max_concurrency": func(s *zarpa.EndpointSpec) { s.Deployments[0].MaxConcurrency = -1 },
		"start_timeout":   func(s *zarpa.EndpointSpec) { s.Deployments[0].StartTimeout = -1 },
		"drain_timeout":   func(s *zarpa.EndpointSpec) { s.Deployments[0].DrainTimeout = -1 },
		"models":          func(s *zarpa.EndpointSpec) { s.Deployments[0].Models = []string{"rank:1", "iris:2"} },
		"at most 99":      func(s *zarpa.EndpointSpec) { s.Deployments[0].Models = make([]string, zarpa.MaxModels) },
		"not a positive":  func(s *zarpa.EndpointSpec) { s.Deployments[0].Models = []string{"rank:x"} },
		"model_control":   func(s *zarpa.EndpointSpec) { s.Deployments[0].ModelControl = "poll" },
		"max_batch_rows":  func(s *zarpa.EndpointSpec) { s.Deployments[0].MaxBatchRows = 10_001 },
		"max_batch_delay": func(s *zarpa.EndpointSpec) { s.Deployments[0].MaxBatchDelay = zarpa.Duration(time.Minute) },
		"status_codes":    func(s *zarpa.EndpointSpec) { s.StatusCodes = "v3" },
		"cors_origins[1]": func(s *zarpa.EndpointSpec) { s.CORSOrigins = []string{"*", "example.com"} },
		"weight":          func(s *zarpa.EndpointSpec) { w := 101; s.Deployments[0].Weight = &w },
	} {
		spec := zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{good}}
		change(&spec)
		if err := spec.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := (zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{good}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestOriginsAreCheckedAndExpressionsMatchWholeOnes(t *testing.T) {
	t.Parallel()
	for origin, ok := range map[string]bool{
		"*": true, "https://app.example.com": true, "http://localhost:3000": true, "/https:\\/\\/.*\\.example\\.com/": true,
		"": false, "example.com": false, "https://app.example.com/": false, "ftp://example.com": false, "/(/": false,
	} {
		spec := zarpa.EndpointSpec{CORSOrigins: []string{origin}}
		if err := spec.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", origin, err)
		}
	}
}

func TestConcurrencyLeavesRoomForTwoBatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rows, set, want int }{{0, 0, 8}, {2, 0, 8}, {16, 0, 32}, {16, 4, 4}, {10_000, 0, 10_000}} {
		spec := zarpa.DeploymentSpec{Model: "m", MaxBatchRows: c.rows, MaxConcurrency: c.set}.WithDefaults()
		if spec.MaxConcurrency != c.want {
			t.Errorf("%d rows, %d set: %d, want %d", c.rows, c.set, spec.MaxConcurrency, c.want)
		}
		if err := spec.Validate(); err != nil {
			t.Errorf("settings in effect must be valid settings: %v", err)
		}
	}
}

func TestAnotherMainModelIsAnotherRevision(t *testing.T) {
	t.Parallel()
	one := zarpa.Deployment{Bundle: "sha256:a", Spec: zarpa.DeploymentSpec{Model: "a:1", Models: []string{"b:1"}}.WithDefaults()}
	other := one
	other.Spec.Model, other.Spec.Models = "b:1", []string{"a:1"}
	if one.Revision() == other.Revision() {
		t.Error("the bundle is the same, but /score is answered by another model")
	}
	// What every deployment has by default leaves the revision of running replicas as it was.
	plain, control := zarpa.Deployment{Spec: zarpa.DeploymentSpec{Model: "a:1"}}, zarpa.Deployment{}
	control.Spec = zarpa.DeploymentSpec{Model: "a:1", ModelControl: zarpa.ModelControlNone}
	if plain.Revision() != control.Revision() {
		t.Error("the default model control must not change the revision")
	}
}

func TestRevisionFollowsWhatAReplicaDependsOn(t *testing.T) {
	t.Parallel()
	base := zarpa.Deployment{Bundle: "sha256:a", Spec: zarpa.DeploymentSpec{Name: "blue", Model: "iris:1"}.WithDefaults()}
	same := base
	same.Spec.Replicas, same.Spec.StartTimeout = 9, 1
	if base.Revision() != same.Revision() {
		t.Error("the number of replicas must not change the revision")
	}
	for name, change := range map[string]func(*zarpa.Deployment){
		"bundle": func(d *zarpa.Deployment) { d.Bundle = "sha256:b" },
		"cpu":    func(d *zarpa.Deployment) { d.Spec.CPU = 1 },
		"env":    func(d *zarpa.Deployment) { d.Spec.Env = map[string]string{"a": "b"} },
		"limits": func(d *zarpa.Deployment) { d.Request.Timeout = 1 },
		"rows":   func(d *zarpa.Deployment) { d.Spec.MaxBatchRows = 16 },
		"delay":  func(d *zarpa.Deployment) { d.Spec.MaxBatchDelay = 1 },
		"models": func(d *zarpa.Deployment) { d.Spec.Models = []string{"rank:1"} },
		"control": func(d *zarpa.Deployment) {
			d.Spec.ModelControl = zarpa.ModelControlExplicit
		},
	} {
		other := base
		change(&other)
		if base.Revision() == other.Revision() {
			t.Errorf("%s must change the revision", name)
		}
	}
}
