// Package oip asks a server how it keeps the Open Inference Protocol v2, and reports where it differs.
//
// The suite needs no particular model. It reads what the server says of its models, makes up inputs that fit, and
// checks what the protocol says about any model: over REST with JSON, over REST with binary tensors, over gRPC, and for
// the extensions that the server offers. It sends wrong requests too, and looks at how they are refused.
//
//	report, err := oip.Run(ctx, oip.Target{URL: "http://127.0.0.1:8000", GRPC: "127.0.0.1:8001"})
//	if err != nil { … } // the server could not be asked
//	report.WriteText(os.Stdout)
//	if report.Failed(oip.Must) > 0 { … }
//
// The package imports nothing of Zarpa's parts but the nouns: it may be used against any server, in any test.
package oip

import (
	"context"
	"crypto/tls"
	"net/http"
	"path"
	"slices"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// The limits of what is read and sent.
const (
	// DefaultTimeout bounds one request, from the connection to the end of the answer.
	DefaultTimeout = 10 * time.Second
	maxAnswer      = 64 << 20 // bytes of an answer, as sent and unpacked
	maxModels      = 64       // models asked of one server
	maxElements    = 1 << 20  // elements of a made-up input
)

// Target is the server to ask, and what may be asked of it.
type Target struct {
	// URL is where /v2 is: "http://127.0.0.1:8000", or with a path before it. It is needed.
	URL string
	// GRPC is HOST:PORT of the gRPC service, "https://HOST:PORT" with TLS. Without it the checks of gRPC are skipped.
	GRPC string
	// Header is sent with every request, and as metadata with every call: keys.
	Header http.Header
	// Models are the names to ask about; none is every model that the repository index lists as ready, up to 64.
	Models []string
	// Only is a glob of check ids, as "rest.*"; empty is all.
	Only string
	// Timeout bounds one request; 0 is [DefaultTimeout].
	Timeout time.Duration
	// TLS is used with https; nil trusts what this machine trusts.
	TLS *tls.Config
	// Extensions name what is asked for only on demand, because it changes the server: "load" unloads and loads models.
	Extensions []string
	// Harsh asks what some servers die of: JSON nested a hundred thousand deep, a body that unpacks to a gigabyte.
	Harsh bool
}

// Level says how binding a check is.
type Level string

// The levels.
const (
	// Must is what the protocol, or HTTP or gRPC under it, demands.
	Must Level = "must"
	// Should is what the protocol recommends, leaves open, or what its widely used clients rely on.
	Should Level = "should"
	// Extension binds a server only because it offers the extension.
	Extension Level = "extension"
)

// Group is the part of the protocol that a check belongs to.
type Group string

// The groups, in the order of the report.
const (
	REST       Group = "REST"
	Binary     Group = "binary"
	GRPC       Group = "gRPC"
	Errors     Group = "errors"
	Streaming  Group = "streaming"
	Extensions Group = "extensions"
)

// Groups lists the groups in the order of the report.
func Groups() []Group { return []Group{REST, Binary, GRPC, Errors, Streaming, Extensions} }

// Outcome is how a check ended.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	// Skip is a check that does not apply: the result says why.
	Skip Outcome = "skip"
)

// Check describes one check. Its ID is stable: what it asks does not change under the same ID.
type Check struct {
	ID    string `json:"id"`
	Group Group  `json:"group"`
	Level Level  `json:"level"`
	// Says is the sentence that is checked, in our words, and Section is where the specification has it.
	Says    string `json:"says"`
	Section string `json:"section"`
	// Choices are the ways of keeping it, where servers are known to differ; the result says which was seen.
	Choices string `json:"choices,omitempty"`
	// PerModel is set when the check is made once for every model.
	PerModel bool `json:"per_model,omitempty"`
}

// Result is one check made once.
type Result struct {
	Check
	// Model is the model that was asked, for a check of models.
	Model   string  `json:"model,omitempty"`
	Outcome Outcome `json:"outcome"`
	// Expected is set when the check failed. Observed is what was seen, or why the check was skipped.
	Expected string         `json:"expected,omitempty"`
	Observed string         `json:"observed,omitempty"`
	Took     zarpa.Duration `json:"took"`
}

// Report is what a run found.
type Report struct {
	URL    string         `json:"url"`
	GRPC   string         `json:"grpc,omitempty"`
	Server Server         `json:"server"`
	Models []string       `json:"models"`
	Time   time.Time      `json:"time"`
	Took   zarpa.Duration `json:"took"`
	// Results are in the order of the catalogue, and of the models within a check.
	Results []Result `json:"results"`
}

// Server is what the server says of itself.
type Server struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extensions"`
}

// Catalogue lists every check, in the order in which they are made.
func Catalogue() []Check {
	var list []Check
	for _, c := range checks() {
		list = append(list, c.Check)
	}
	return list
}

// Run makes the checks one after another and reports. A server that cannot be reached, and a target that cannot be
// understood, are errors; whatever the server answers is in the report. When ctx ends, so does the run, with an error.
func Run(ctx context.Context, t Target) (Report, error) { return runChecks(ctx, t, checks()) }

func runChecks(ctx context.Context, t Target, list []check) (Report, error) {
	if t.Timeout <= 0 {
		t.Timeout = DefaultTimeout
	}
	matches := func(c Check) bool { ok, err := path.Match(t.Only, c.ID); return ok && err == nil }
	if t.Only != "" && !slices.ContainsFunc(Catalogue(), matches) {
		return Report{}, zarpa.Errorf(zarpa.Invalid, "only: %q matches no check", t.Only).WithHint("write a check's id, with * for any part of it; zarpa conformance --list has them")
	}
	for _, e := range t.Extensions {
		if e != extensionLoad {
			return Report{}, zarpa.Errorf(zarpa.Invalid, "extensions: %q is not known", e).WithHint("only %s is asked for on demand", extensionLoad)
		}
	}
	began := time.Now()
	r, err := newRun(ctx, t)
	if err != nil {
		return Report{}, err
	}
	defer r.close()
	report := Report{URL: t.URL, GRPC: t.GRPC, Server: r.server, Models: r.names(), Time: began.UTC().Truncate(time.Second)}
	for _, c := range list {
		if wanted, _ := path.Match(t.Only, c.ID); t.Only != "" && !wanted {
			continue
		}
		report.Results = append(report.Results, r.make(ctx, c)...)
		if err := ctx.Err(); err != nil {
			return report, zarpa.AsError(err)
		}
	}
	report.Took = zarpa.Duration(time.Since(began))
	return report, nil
}

// Failed counts the failures of a level.
func (r Report) Failed(l Level) int {
	n := 0
	for _, x := range r.Results {
		if x.Outcome == Fail && x.Level == l {
			n++
		}
	}
	return n
}

// Count counts the results of an outcome in a group.
func (r Report) Count(g Group, o Outcome) int {
	n := 0
	for _, x := range r.Results {
		if x.Group == g && x.Outcome == o {
			n++
		}
	}
	return n
}
