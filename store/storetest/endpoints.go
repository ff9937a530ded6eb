package storetest

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func endpointScenarios() []scenario {
	return []scenario{
		{"ReadBackAsPut", endpointsReadBack},
		{"GenerationGuardsAgainstLostUpdates", endpointsGeneration},
		{"OneOfManyWritersWins", endpointsRace},
		{"CreatedIsKeptFromTheFirstPut", endpointsCreated},
		{"TimesAreKeptInUTC", endpointsTimes},
		{"ListOrdersByName", endpointsList},
		{"DeleteForgetsTheGeneration", endpointsDelete},
		{"EmptySpec", endpointsEmpty},
	}
}

func endpointsReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	_, err := s.Endpoints.Get(ctx, "iris")
	fails(t, err, zarpa.NotFound)
	e := endpoint("iris", 1)
	ok(t, s.Endpoints.Put(ctx, e))
	for range 2 {
		got, err := s.Endpoints.Get(ctx, "iris")
		ok(t, err)
		same(t, got, e)
		s.restart(t)
	}
	e.Generation, e.Deleting, e.Spec.Deployments = 2, true, nil
	ok(t, s.Endpoints.Put(ctx, e))
	got, err := s.Endpoints.Get(ctx, "iris")
	ok(t, err)
	same(t, got, e)
	_, err = s.Endpoints.Get(ctx, "Iris")
	fails(t, err, zarpa.NotFound)
}

func endpointsGeneration(t *testing.T, s *subject) {
	ctx := t.Context()
	for _, wrong := range []int64{-1, 0, 2, 100} {
		fails(t, s.Endpoints.Put(ctx, endpoint("iris", wrong)), zarpa.Conflict)
	}
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 1)))
	for _, wrong := range []int64{0, 1, 3} {
		e := endpoint("iris", wrong)
		e.Spec.MaxQueue = 4711
		fails(t, s.Endpoints.Put(ctx, e), zarpa.Conflict)
	}
	got, err := s.Endpoints.Get(ctx, "iris")
	ok(t, err)
	same(t, got, endpoint("iris", 1)) // a conflict changed nothing
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 2)))
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 3)))
}

func endpointsRace(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 1)))
	won := 0
	for _, err := range together(16, func(i int) error {
		e := endpoint("iris", 2)
		e.Spec.MaxQueue = i + 1
		return s.Endpoints.Put(ctx, e)
	}) {
		if err == nil {
			won++
		} else {
			fails(t, err, zarpa.Conflict)
		}
	}
	if won != 1 {
		t.Fatalf("%d writers won, want 1", won)
	}
}

func endpointsCreated(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 1)))
	e := endpoint("iris", 2)
	e.Created, e.Updated = instant().Add(24*time.Hour), instant().Add(24*time.Hour)
	ok(t, s.Endpoints.Put(ctx, e))
	e.Created = instant()
	got, err := s.Endpoints.Get(ctx, "iris")
	ok(t, err)
	same(t, got, e)
}

func endpointsTimes(t *testing.T, s *subject) {
	ctx := t.Context()
	e := endpoint("iris", 1)
	zone := time.FixedZone("UTC+5:45", 5*3600+45*60)
	e.Created, e.Updated = instant().In(zone), time.Time{}
	ok(t, s.Endpoints.Put(ctx, e))
	got, err := s.Endpoints.Get(ctx, "iris")
	ok(t, err)
	if !got.Created.Equal(instant()) || got.Created.Location() != time.UTC {
		t.Fatalf("created %v, want %v", got.Created, instant())
	}
	if !got.Updated.IsZero() {
		t.Fatalf("updated %v, want the zero time", got.Updated)
	}
}

func endpointsList(t *testing.T, s *subject) {
	ctx := t.Context()
	all, err := s.Endpoints.List(ctx)
	ok(t, err)
	if len(all) != 0 {
		t.Fatalf("a new store has %d endpoints", len(all))
	}
	for _, name := range []string{"b", "a", "B", "a-1", "a1"} {
		ok(t, s.Endpoints.Put(ctx, endpoint(name, 1)))
	}
	all, err = s.Endpoints.List(ctx)
	ok(t, err)
	var names []string
	for _, e := range all {
		names = append(names, e.Name)
		same(t, e, endpoint(e.Name, 1))
	}
	if want := []string{"B", "a", "a-1", "a1", "b"}; !slices.Equal(names, want) {
		t.Fatalf("List = %v, want %v", names, want)
	}
}

func endpointsDelete(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Endpoints.Delete(ctx, "iris")) // never there
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 1)))
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 2)))
	ok(t, s.Endpoints.Delete(ctx, "iris"))
	ok(t, s.Endpoints.Delete(ctx, "iris"))
	_, err := s.Endpoints.Get(ctx, "iris")
	fails(t, err, zarpa.NotFound)
	fails(t, s.Endpoints.Put(ctx, endpoint("iris", 3)), zarpa.Conflict)
	ok(t, s.Endpoints.Put(ctx, endpoint("iris", 1)))
}

func endpointsEmpty(t *testing.T, s *subject) {
	ctx := t.Context()
	for _, e := range []zarpa.Endpoint{
		{Name: "nil", Generation: 1},
		{Name: "empty", Generation: 1, Spec: zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{}}},
	} {
		ok(t, s.Endpoints.Put(ctx, e))
		got, err := s.Endpoints.Get(ctx, e.Name)
		ok(t, err)
		same(t, got, e)
	}
}

func keyScenarios() []scenario {
	return []scenario{
		{"ReadBackAsPut", keysReadBack},
		{"DeleteIsForGood", keysDelete},
	}
}

func keysReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, sealed := range [][]byte{all, []byte("short"), {}} {
		k := zarpa.SealedKeys{Endpoint: "iris", Sealed: sealed, Updated: instant().Add(time.Duration(i) * time.Second)}
		ok(t, s.Keys.Put(ctx, k))
		s.restart(t)
		got, err := s.Keys.Get(ctx, "iris")
		ok(t, err)
		if got.Endpoint != "iris" || !bytes.Equal(got.Sealed, sealed) || !got.Updated.Equal(k.Updated) || got.Updated.Location() != time.UTC {
			t.Fatalf("got %+v, want %+v", got, k)
		}
	}
}

func keysDelete(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Keys.Delete(ctx, "iris"))
	for _, name := range []string{"iris", "rose"} {
		ok(t, s.Keys.Put(ctx, zarpa.SealedKeys{Endpoint: name, Sealed: []byte(name), Updated: instant()}))
	}
	ok(t, s.Keys.Delete(ctx, "iris"))
	_, err := s.Keys.Get(ctx, "iris")
	fails(t, err, zarpa.NotFound)
	_, err = s.Keys.Get(ctx, "rose")
	ok(t, err)
}
