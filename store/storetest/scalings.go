package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func scalingScenarios() []scenario {
	return []scenario{
		{"ReadBackAsPut", scalingsReadBack},
		{"ListOrdersAndSelects", scalingsList},
		{"DeleteLooksAtTheKeyAlone", scalingsDelete},
	}
}

func scaling(endpoint, deployment string) zarpa.Scaling {
	return zarpa.Scaling{
		Endpoint: endpoint, Deployment: deployment, Wanted: 3, Updated: instant(),
		Decisions: []zarpa.ScaleDecision{{
			At: instant(), From: 1, To: 3, Reason: unicode,
			Inputs: zarpa.ScaleInputs{
				Stable: 0.125, Recent: 2.5, Seconds: 60, Target: 0.7, Ready: 1, Starting: 2, Capacity: -1, Max: 10, Panicking: true,
				StartTime: zarpa.Duration(1500 * time.Millisecond),
			},
		}},
		ColdStarts: []zarpa.ColdStart{{At: instant(), Decide: 1000, Start: 2000, Load: 3000, FirstByte: 4000}},
	}
}

func scalingsReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	full := scaling("iris", "blue")
	ok(t, s.Scalings.Put(ctx, full))
	empty := zarpa.Scaling{Endpoint: "rose", Deployment: "blue", Decisions: []zarpa.ScaleDecision{}}
	ok(t, s.Scalings.Put(ctx, empty))
	s.restart(t)
	list, err := s.Scalings.List(ctx, "")
	ok(t, err)
	same(t, list, []zarpa.Scaling{full, empty})
	full.Wanted, full.ColdStarts = 0, nil
	ok(t, s.Scalings.Put(ctx, full)) // replaces
	list, err = s.Scalings.List(ctx, "iris")
	ok(t, err)
	same(t, list, []zarpa.Scaling{full})
}

func scalingsList(t *testing.T, s *subject) {
	ctx := t.Context()
	expect := func(endpoint string, want ...string) {
		t.Helper()
		list, err := s.Scalings.List(ctx, endpoint)
		ok(t, err)
		var got []string
		for _, r := range list {
			got = append(got, r.Endpoint+"/"+r.Deployment)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("List(%q) = %v, want %v", endpoint, got, want)
		}
	}
	expect("")
	for _, k := range [][2]string{{"b", "blue"}, {"a", "green"}, {"a-b", "blue"}, {"a", "blue"}} {
		ok(t, s.Scalings.Put(ctx, scaling(k[0], k[1])))
	}
	expect("", "a/blue", "a/green", "a-b/blue", "b/blue")
	expect("a", "a/blue", "a/green")
	expect("none")
}

func scalingsDelete(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Scalings.Delete(ctx, "iris", "blue"))
	for _, name := range []string{"blue", "green"} {
		ok(t, s.Scalings.Put(ctx, scaling("iris", name)))
	}
	ok(t, s.Scalings.Delete(ctx, "iris", "blue"))
	ok(t, s.Scalings.Delete(ctx, "iris", "blue"))
	list, err := s.Scalings.List(ctx, "")
	ok(t, err)
	same(t, list, []zarpa.Scaling{scaling("iris", "green")})
}
