package enginetest

import (
	"context"
	"errors"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// StreamCase is a model that answers in parts, a request for it, and its parts.
type StreamCase struct {
	Name string
	// Dir and File are the model, as in [zarpa.Engine.Load].
	Dir, File string
	In        []zarpa.Tensor
	// Want are the parts, in their order. There are two at least.
	Want [][]zarpa.Tensor
}

// runStream proves the contract of [zarpa.Streamer] for one model.
func runStream(t *testing.T, e zarpa.Engine, k StreamCase) {
	if len(k.Want) < 2 {
		t.Fatal("enginetest: a model that streams needs two parts")
	}
	session := load(t, e, Case{Name: k.Name, Dir: k.Dir, File: k.File})
	s, ok := session.(zarpa.Streamer)
	if !ok {
		t.Fatalf("the session %T is no zarpa.Streamer", session)
	}
	partsInOrder(t, s, k)
	streamStops(t, s, k)
	many := make(chan struct{})
	for range 8 {
		go func() {
			partsInOrder(t, s, k)
			many <- struct{}{}
		}()
	}
	for range 8 {
		<-many
	}
	if out, err := session.Run(t.Context(), k.In, nil); err != nil || len(out) == 0 {
		t.Errorf("Run of a model that streams: %v, %v", out, err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Stream(t.Context(), k.In, nil, noPart(t)), zarpa.Unavailable)
}

func partsInOrder(t *testing.T, s zarpa.Streamer, k StreamCase) {
	t.Helper()
	n := 0
	err := s.Stream(t.Context(), k.In, nil, func(part []zarpa.Tensor) error {
		if n < len(k.Want) {
			Equal(t, part, k.Want[n])
		}
		for i := range part { // it belongs to emit
			for j := range part[i].Data {
				part[i].Data[j] ^= 0xff
			}
		}
		n++
		return nil
	})
	if err != nil || n != len(k.Want) {
		t.Errorf("%d parts, want %d: %v", n, len(k.Want), err)
	}
	var name string
	if len(k.Want[0]) > 0 {
		name = k.Want[0][0].Name
	}
	n = 0
	err = s.Stream(t.Context(), k.In, []string{name}, func(part []zarpa.Tensor) error {
		n++
		for _, v := range part {
			if v.Name != name {
				t.Errorf("wanted %q alone, got %q", name, v.Name)
			}
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("wanted %q alone: %d parts, %v", name, n, err)
	}
}

// streamStops proves the ways in which a stream ends early, and that nothing comes after.
func streamStops(t *testing.T, s zarpa.Streamer, k StreamCase) {
	t.Helper()
	wantCode(t, s.Stream(t.Context(), k.In, []string{"nobody knows this"}, noPart(t)), zarpa.Invalid)
	wantCode(t, s.Stream(t.Context(), nil, nil, noPart(t)), zarpa.Invalid)

	enough := errors.New("enough")
	n := 0
	err := s.Stream(t.Context(), k.In, nil, func([]zarpa.Tensor) error { n++; return enough })
	if !errors.Is(err, enough) || n != 1 {
		t.Errorf("an error of emit: %d parts, %v", n, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	n = 0
	err = s.Stream(ctx, k.In, nil, func([]zarpa.Tensor) error { n++; cancel(); return nil })
	if n != 1 {
		t.Errorf("canceled after the first part, %d came", n)
	}
	wantCode(t, err, zarpa.Canceled)
	wantCode(t, s.Stream(ctx, k.In, nil, noPart(t)), zarpa.Canceled)
}

// noPart is an emit that nothing may be given to.
func noPart(t *testing.T) func([]zarpa.Tensor) error {
	t.Helper()
	return func([]zarpa.Tensor) error {
		t.Error("a part of a request that cannot be run")
		return nil
	}
}
