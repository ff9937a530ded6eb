package storetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func modelScenarios() []scenario {
	return []scenario{
		{"ReadBackAsCreated", modelsReadBack},
		{"VersionsCountByThemselves", modelsCount},
		{"DeletedVersionsAreNotReused", modelsNotReused},
		{"ConcurrentCreateGivesDistinctVersions", modelsConcurrentCreate},
		{"GetWithoutVersionIsTheNewest", modelsNewest},
		{"NotFoundNamesTheModel", modelsNotFound},
		{"ListOrdersByNameThenNewestFirst", modelsList},
		{"UpdateReplacesTagsAndDescriptionOnly", modelsUpdate},
		{"EmptyAndMissingMapsReadAlike", modelsEmpty},
		{"BigSignature", modelsBig},
	}
}

func modelsReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	before := time.Now().Add(-time.Second)
	in := model("iris")
	in.Version, in.Created = 99, instant()
	made, err := s.Models.Create(ctx, in)
	ok(t, err)
	if made.Version != 1 {
		t.Fatalf("version %d, want 1: the argument's version is ignored", made.Version)
	}
	if made.Created.Before(before) || made.Created.After(time.Now().Add(time.Second)) {
		t.Fatalf("created %v, want now: the argument's time is ignored", made.Created)
	}
	if made.Created.Location() != time.UTC {
		t.Fatalf("created is in %v, want UTC", made.Created.Location())
	}
	in.Version, in.Created = made.Version, made.Created
	same(t, made, in)
	for range 2 {
		got, err := s.Models.Get(ctx, made.Ref())
		ok(t, err)
		same(t, got, made)
		if got.Created.Location() != time.UTC || !got.Created.Equal(made.Created) {
			t.Fatalf("read back %v, created %v", got.Created, made.Created)
		}
		s.restart(t)
	}
}

func modelsCount(t *testing.T, s *subject) {
	ctx := t.Context()
	for want := 1; want <= 3; want++ {
		m, err := s.Models.Create(ctx, model("iris"))
		ok(t, err)
		if m.Version != want {
			t.Fatalf("version %d, want %d", m.Version, want)
		}
	}
	for _, name := range []string{"Iris", "iris.v2", "iri"} {
		m, err := s.Models.Create(ctx, model(name))
		ok(t, err)
		if m.Version != 1 {
			t.Fatalf("%s: version %d, want 1: names count by themselves", name, m.Version)
		}
	}
}

func modelsNotReused(t *testing.T, s *subject) {
	ctx := t.Context()
	create := func(want int) zarpa.Model {
		t.Helper()
		m, err := s.Models.Create(ctx, model("iris"))
		ok(t, err)
		if m.Version != want {
			t.Fatalf("version %d, want %d", m.Version, want)
		}
		return m
	}
	one, two := create(1), create(2)
	ok(t, s.Models.Delete(ctx, one.Ref()))
	three := create(3)
	ok(t, s.Models.Delete(ctx, three.Ref())) // the newest
	four := create(4)
	ok(t, s.Models.Delete(ctx, four.Ref()))
	s.restart(t)
	five := create(5)
	for _, m := range []zarpa.Model{two, five} {
		ok(t, s.Models.Delete(ctx, m.Ref()))
	}
	create(6) // none was left
}

func modelsConcurrentCreate(t *testing.T, s *subject) {
	const n = 24
	versions := make([]int, n)
	for _, err := range together(n, func(i int) error {
		m, err := s.Models.Create(t.Context(), model("iris"))
		versions[i] = m.Version
		return err
	}) {
		ok(t, err)
	}
	slices.Sort(versions)
	for i, v := range versions {
		if v != i+1 {
			t.Fatalf("versions %v, want 1 to %d, each once", versions, n)
		}
	}
}

func modelsNewest(t *testing.T, s *subject) {
	ctx := t.Context()
	for range 11 {
		_, err := s.Models.Create(ctx, model("iris"))
		ok(t, err)
	}
	newest := func(want int) {
		t.Helper()
		m, err := s.Models.Get(ctx, zarpa.ModelRef{Name: "iris"})
		ok(t, err)
		if m.Version != want {
			t.Fatalf("newest is %d, want %d", m.Version, want)
		}
	}
	newest(11)
	ok(t, s.Models.Delete(ctx, zarpa.ModelRef{Name: "iris", Version: 11}))
	newest(10)
}

func modelsNotFound(t *testing.T, s *subject) {
	ctx := t.Context()
	_, err := s.Models.Create(ctx, model("iris"))
	ok(t, err)
	for _, ref := range []zarpa.ModelRef{{Name: "rose"}, {Name: "rose", Version: 1}, {Name: "iris", Version: 2}, {Name: "IRIS", Version: 1}} {
		_, err := s.Models.Get(ctx, ref)
		fails(t, err, zarpa.NotFound)
		fails(t, s.Models.Update(ctx, zarpa.Model{Name: ref.Name, Version: ref.Version}), zarpa.NotFound)
		fails(t, s.Models.Delete(ctx, ref), zarpa.NotFound)
	}
	fails(t, s.Models.Delete(ctx, zarpa.ModelRef{Name: "iris"}), zarpa.NotFound) // no version is named
	ok(t, s.Models.Delete(ctx, zarpa.ModelRef{Name: "iris", Version: 1}))
	fails(t, s.Models.Delete(ctx, zarpa.ModelRef{Name: "iris", Version: 1}), zarpa.NotFound)
	_, err = s.Models.Get(ctx, zarpa.ModelRef{Name: "iris"})
	fails(t, err, zarpa.NotFound)
}

func modelsList(t *testing.T, s *subject) {
	ctx := t.Context()
	list := func(name string, want ...string) {
		t.Helper()
		all, err := s.Models.List(ctx, name)
		ok(t, err)
		refs := make([]string, 0, len(all))
		for _, m := range all {
			refs = append(refs, m.Ref().String())
		}
		if !slices.Equal(refs, want) {
			t.Fatalf("List(%q) = %v, want %v", name, refs, want)
		}
	}
	list("")
	list("iris")
	for _, name := range []string{"b", "a", "b", "Z", "a-b", "a"} {
		_, err := s.Models.Create(ctx, model(name))
		ok(t, err)
	}
	for range 9 {
		_, err := s.Models.Create(ctx, model("a"))
		ok(t, err)
	}
	list("a", "a:11", "a:10", "a:9", "a:8", "a:7", "a:6", "a:5", "a:4", "a:3", "a:2", "a:1")
	list("", "Z:1", "a:11", "a:10", "a:9", "a:8", "a:7", "a:6", "a:5", "a:4", "a:3", "a:2", "a:1", "a-b:1", "b:2", "b:1")
	list("none")
	all, err := s.Models.List(ctx, "Z")
	ok(t, err)
	want := model("Z")
	want.Version, want.Created = 1, all[0].Created
	same(t, all[0], want)
}

func modelsUpdate(t *testing.T, s *subject) {
	ctx := t.Context()
	made, err := s.Models.Create(ctx, model("iris"))
	ok(t, err)
	other, err := s.Models.Create(ctx, model("iris"))
	ok(t, err)
	ok(t, s.Models.Update(ctx, zarpa.Model{
		Name: "iris", Version: made.Version, Tags: map[string]string{"new": "1"}, Description: "other",
		Format: "changed", Properties: map[string]string{"no": "no"}, Created: instant(),
	}))
	made.Tags, made.Description = map[string]string{"new": "1"}, "other"
	got, err := s.Models.Get(ctx, made.Ref())
	ok(t, err)
	same(t, got, made)
	got, err = s.Models.Get(ctx, other.Ref())
	ok(t, err)
	same(t, got, other)
	fails(t, s.Models.Update(ctx, zarpa.Model{Name: "iris"}), zarpa.NotFound) // no version is named
}

func modelsEmpty(t *testing.T, s *subject) {
	ctx := t.Context()
	for _, m := range []zarpa.Model{
		{Name: "nil"},
		{
			Name: "empty", Tags: map[string]string{}, Properties: map[string]string{},
			Content:   zarpa.Content{Files: []zarpa.File{}},
			Signature: zarpa.Signature{Inputs: []zarpa.ValueInfo{}, Outputs: []zarpa.ValueInfo{}, Opsets: map[string]int64{}},
		},
	} {
		made, err := s.Models.Create(ctx, m)
		ok(t, err)
		got, err := s.Models.Get(ctx, made.Ref())
		ok(t, err)
		same(t, got, made)
		if len(got.Tags) != 0 || len(got.Properties) != 0 || len(got.Signature.Opsets) != 0 || len(got.Content.Files) != 0 {
			t.Fatalf("%s: something came out of nothing: %+v", m.Name, got)
		}
	}
}

func modelsBig(t *testing.T, s *subject) {
	ctx := t.Context()
	m := model("big")
	m.Signature = bigSignature()
	made, err := s.Models.Create(ctx, m)
	ok(t, err)
	got, err := s.Models.Get(context.WithoutCancel(ctx), made.Ref())
	ok(t, err)
	if string(text(t, got)) != string(text(t, made)) {
		t.Fatal("a signature of 2 MB came back changed")
	}
}
