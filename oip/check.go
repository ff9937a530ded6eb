package oip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// check is a check with what makes it. ask returns what was seen; a *differenceError fails it, a *skipError skips it, any other
// error fails it as it reads.
type check struct {
	Check
	needs need
	ask   func(ctx context.Context, p *probe) (string, error)
}

// need is a set of what a check cannot do without.
type need uint

const (
	needModel  need = 1 << iota // a model with readable metadata
	needSample                  // an input that the model takes, in whatever form
	needJSON                    // the same, in JSON: no datatype of the model lacks a JSON form
	needSame                    // the model answers the same when asked twice
	needBinary                  // the extension binary_tensor_data
	needGRPC                    // an address for gRPC
	needHarsh                   // leave to send what servers die of
)

// checks is the catalogue, in the order in which the checks are made.
func checks() []check {
	var list []check
	list = append(list, healthChecks()...)
	list = append(list, metadataChecks()...)
	list = append(list, inferChecks()...)
	list = append(list, valueChecks()...)
	list = append(list, transportChecks()...)
	list = append(list, binaryChecks()...)
	list = append(list, grpcChecks()...)
	list = append(list, grpcInferChecks()...)
	list = append(list, refusalChecks()...)
	list = append(list, grpcRefusalChecks()...)
	list = append(list, streamChecks()...)
	list = append(list, generateChecks()...)
	list = append(list, repositoryChecks()...)
	list = append(list, statisticsChecks()...)
	list = append(list, otherExtensionChecks()...)
	list = append(list, lastingChecks()...)
	return list
}

// differenceError is how an answer differs from the specification.
type differenceError struct{ expected, observed string }

func (e *differenceError) Error() string {
	return "expected " + e.expected + ", observed " + e.observed
}

// differs makes a difference; the observation is a format.
func differs(expected, observed string, args ...any) error {
	return &differenceError{expected, clip(fmt.Sprintf(observed, args...))}
}

// skipError is why a check is skipped.
type skipError struct{ why string }

func (e *skipError) Error() string { return e.why }

func skip(why string, args ...any) error { return &skipError{clip(fmt.Sprintf(why, args...))} }

// clip keeps a text on one line of at most 200 bytes.
func clip(s string) string {
	const limit = 200
	out := make([]rune, 0, len(s))
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			r = ' '
		}
		if len(out) == limit {
			return string(out) + "…"
		}
		out = append(out, r)
	}
	return string(out)
}

// make makes a check: once, or once for each model.
func (r *run) make(ctx context.Context, c check) []Result {
	if !c.PerModel {
		return []Result{r.makeOnce(ctx, c, r.first())}
	}
	var list []Result
	for _, p := range r.probes {
		x := r.makeOnce(ctx, c, p)
		x.Model = p.name
		list = append(list, x)
	}
	if list == nil {
		list = []Result{{Check: c.Check, Outcome: Skip, Observed: "no model is known: " + r.noModels}}
	}
	return list
}

func (r *run) makeOnce(ctx context.Context, c check, p *probe) Result {
	x := Result{Check: c.Check, Outcome: Pass}
	began := time.Now()
	observed, err := "", p.lacks(c.needs)
	if err == nil {
		observed, err = c.ask(ctx, p)
	}
	x.Took = zarpa.Duration(time.Since(began).Round(time.Microsecond))
	x.Observed = clip(observed)
	if err == nil {
		return x
	}
	x.Outcome, x.Observed = Fail, clip(err.Error())
	if d, ok := errors.AsType[*differenceError](err); ok {
		x.Expected, x.Observed = d.expected, d.observed
	}
	if _, ok := errors.AsType[*skipError](err); ok {
		x.Outcome = Skip
	}
	if x.Outcome == Fail && x.Expected == "" {
		x.Expected = "an answer"
	}
	return x
}

// lacks says what of needs the probe has not, as the reason of a skip.
func (p *probe) lacks(n need) error {
	has := func(bit need) bool { return n&bit != 0 }
	switch {
	case has(needGRPC) && p.run.rpc == nil:
		return skip("no address for gRPC was given")
	case has(needHarsh) && !p.run.target.Harsh:
		return skip("only when harsh requests are allowed")
	case has(needBinary) && !p.run.offers("binary_tensor_data"):
		return skip("the server does not offer binary_tensor_data")
	case has(needModel|needSample|needJSON) && p.name == "":
		return skip("no model is known: %s", p.run.noModels)
	case has(needModel|needSample|needJSON) && p.noMeta != "":
		return skip("the model's metadata cannot be read: %s", p.noMeta)
	case has(needSample|needJSON) && p.sample == nil:
		return skip("no input was found that the model takes: %s", p.refused)
	case has(needJSON) && !p.jsonable():
		return skip("a datatype of the model has no JSON form")
	case has(needSame) && !p.same:
		return skip("the model does not answer the same twice")
	}
	return nil
}
