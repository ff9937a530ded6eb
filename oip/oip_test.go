package oip

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
)

// failures are the ids of the checks that failed, each once, in order.
func failures(r Report) []string {
	var ids []string
	for _, x := range r.Results {
		if x.Outcome == Fail && !slices.Contains(ids, x.ID) {
			ids = append(ids, x.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// ask makes checks of the reference server with a fault.
func ask(t *testing.T, fault string, list []check) Report {
	t.Helper()
	target := newReference(fault).serve(t)
	report, err := runChecks(t.Context(), target, list)
	if err != nil {
		t.Fatalf("%s: %v", fault, err)
	}
	return report
}

func TestReferenceKeepsTheProtocol(t *testing.T) {
	t.Parallel()
	report := ask(t, "harsh", checks())
	skipped := map[string]string{}
	for _, x := range report.Results {
		switch x.Outcome {
		case Fail:
			t.Errorf("%s [%s]: expected %s, observed %s", x.ID, x.Model, x.Expected, x.Observed)
		case Skip:
			if _, made := skipped[x.ID]; !made {
				skipped[x.ID] = x.Observed
			}
		case Pass:
			skipped[x.ID] = ""
		}
	}
	for id, why := range skipped {
		if why != "" {
			t.Errorf("%s is made for no model: %s", id, why)
		}
	}
}

// also lists the checks that cannot but see another check's fault.
func also() map[string][]string {
	compared := []string{"binary.*", "grpc.infer.*", "grpc.gzip", "grpc.deflate", "grpc.cancel", "grpc.deadline", "stream.same"} // with answers over REST
	return map[string][]string{
		"rest.server.metadata":     {"grpc.server.metadata"},
		"rest.health.live":         {"errors.lasting"},
		"rest.model.ready":         {"repository.load"},
		"rest.model.metadata":      {"rest.model.metadata-version"},
		"rest.model.datatypes":     {"rest.infer.*", "binary.output*", "classification.output", "config.*", "generate.*", "grpc.infer.requested-output"},
		"rest.infer.answers":       {"rest.*", "binary.*", "classification.output"},
		"rest.infer.model-version": {"rest.infer.version"},
		"rest.infer.output-names":  append([]string{"rest.infer.requested-output", "rest.value.extremes"}, compared...),
		"rest.infer.datatype":      append([]string{"rest.value.extremes"}, compared...),
		"rest.infer.shape":         append([]string{"rest.value.extremes"}, compared...),
		"rest.infer.all-outputs":   append([]string{"rest.infer.parameters", "rest.infer.requested-all"}, compared...),
		"rest.infer.elements":      {"classification.output"},
		"rest.infer.requested-all": {"binary.output", "rest.infer.parameters"},
		"binary.input":             {"binary.*"},
		"binary.sizes":             {"binary.*"},
		"binary.length-header":     {"binary.*", "rest.infer.answers"}, // the model of FP16 has no other way
		"grpc.infer.raw":           {"grpc.infer.*", "grpc.gzip", "grpc.deflate", "grpc.cancel", "grpc.deadline", "stream.*"},
		"grpc.infer.outputs":       {"grpc.infer.*", "grpc.gzip", "grpc.deflate", "grpc.cancel", "grpc.deadline", "stream.same"},
		"grpc.infer.elements":      {"grpc.infer.*", "grpc.gzip", "grpc.deflate", "grpc.cancel", "grpc.deadline", "stream.same"},
		"grpc.infer.id":            {"stream.id"},
		"grpc.cancel":              {"grpc.deadline"},
		"repository.index":         {"repository.grpc-index"},
	}
}

// TestEachCheckCanFail runs the suite against a server with one fault after another: for each check that is no refusal
// there is one, and the checks that fail are that check and those that cannot but see it.
func TestEachCheckCanFail(t *testing.T) {
	t.Parallel()
	plain := slices.DeleteFunc(checks(), func(c check) bool { return isRefusal(c.ID) || strings.HasPrefix(c.ID, "errors.harsh") })
	for _, c := range plain {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			want := append([]string{c.ID}, also()[c.ID]...)
			got := failures(ask(t, c.ID, plain))
			for _, pattern := range want {
				if !slices.ContainsFunc(got, func(id string) bool { return matches(pattern, id) }) {
					t.Errorf("%s did not fail", pattern)
				}
			}
			for _, id := range got {
				if !slices.ContainsFunc(want, func(pattern string) bool { return matches(pattern, id) }) {
					t.Errorf("%s failed", id)
				}
			}
		})
	}
}

func matches(pattern, id string) bool {
	ok, _ := path.Match(pattern, id) // the patterns are good
	return ok
}

func isRefusal(id string) bool {
	return (strings.HasPrefix(id, "errors.") || strings.HasPrefix(id, "grpc.errors.")) && id != "errors.content-type" && id != "errors.lasting" && !strings.HasPrefix(id, "errors.harsh")
}

// TestEachRefusalCanFail runs the suite against servers that take what is wrong, or refuse it in a wrong way.
func TestEachRefusalCanFail(t *testing.T) {
	t.Parallel()
	of := func(prefix, suffix string) []string {
		var ids []string
		for _, c := range Catalogue() {
			if isRefusal(c.ID) && strings.HasPrefix(c.ID, prefix) && strings.HasSuffix(c.ID, ".status") == (suffix == ".status") && strings.HasSuffix(c.ID, ".code") == (suffix == ".code") {
				ids = append(ids, c.ID)
			}
		}
		slices.Sort(ids)
		return ids
	}
	for _, test := range []struct {
		fault string
		want  []string
	}{
		{"takes what is wrong", append(of("errors.", ""), "rest.names.slash", "shared-memory.unknown", "generate.error")},
		{"errors without an object", append(of("errors.", ""), "generate.error")},
		{"every error is the server's", append(of("errors.", ".status"), "rest.names.slash")},
		{"calls take what is wrong", append(of("grpc.errors.", ""), "stream.error")},
		{"calls fail without a code", of("grpc.errors.", ".code")},
	} {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			slices.Sort(test.want)
			got := failures(ask(t, test.fault, checks()))
			if !slices.Equal(got, test.want) {
				t.Errorf("failed but should not: %q", without(got, test.want))
				t.Errorf("did not fail: %q", without(test.want, got))
			}
		})
	}
}

func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}

func TestIDsAreUniqueAndPlain(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Catalogue() {
		if seen[c.ID] || strings.Trim(c.ID, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
			t.Errorf("id %q", c.ID)
		}
		seen[c.ID] = true
		if c.Says == "" || c.Section == "" || !slices.Contains(Groups(), c.Group) {
			t.Error(fmt.Sprint(c))
		}
	}
}

func TestPackedSpacesUnpack(t *testing.T) {
	t.Parallel()
	in, err := gzip.NewReader(bytes.NewReader(packedSpaces(5)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(in)
	if err != nil || len(got) != 5<<20 || len(bytes.Trim(got, " ")) != 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
