package fake_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/enginetest"
	"github.com/zarpa-dev/zarpa/engine/fake"
)

func folder(t *testing.T, m fake.Model) string {
	t.Helper()
	dir := t.TempDir()
	if err := fake.Write(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir
}

func x() []zarpa.Tensor {
	return []zarpa.Tensor{{Name: "x", Type: zarpa.Float32, Shape: []int64{2}, Data: []byte{0, 0, 128, 63, 0, 0, 0, 64}}}
}

func named(t zarpa.Tensor, name string) zarpa.Tensor {
	t.Name = name
	return t
}

func TestContract(t *testing.T) {
	t.Parallel()
	info := func(name string) zarpa.ValueInfo {
		return zarpa.ValueInfo{Name: name, Type: zarpa.Float32, Shape: []zarpa.Dim{{Size: -1, Name: "n"}}}
	}
	answer := zarpa.Tensor{Name: "label", Type: zarpa.String, Shape: []int64{1}, Strings: []string{"setosa"}}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, fake.File), []byte(`{"dealy": "1s"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	enginetest.Run(t, enginetest.Config{
		Engine: fake.New(fake.Options{}),
		Cases: []enginetest.Case{
			{Name: "identity", Dir: folder(t, fake.Model{}), In: x(), Want: []zarpa.Tensor{named(x()[0], "y")}},
			{
				Name: "two", Dir: folder(t, fake.Model{Inputs: []zarpa.ValueInfo{info("a"), info("b")}, Outputs: []zarpa.ValueInfo{info("c"), info("d")}}),
				In:   []zarpa.Tensor{named(x()[0], "a"), named(x()[0], "b")},
				Want: []zarpa.Tensor{named(x()[0], "c"), named(x()[0], "d")},
			},
			{
				Name: "answer", Dir: folder(t, fake.Model{Outputs: []zarpa.ValueInfo{{Name: "label", Type: zarpa.String}}, Answer: []zarpa.Tensor{answer}}),
				In: x(), Want: []zarpa.Tensor{answer},
			},
		},
		Fails: enginetest.Case{Name: "fails", Dir: folder(t, fake.Model{Fail: "no"}), In: x()},
		Slow:  enginetest.Case{Name: "slow", Dir: folder(t, fake.Model{Delay: zarpa.Duration(time.Hour)}), In: x()},
		Broken: []enginetest.Case{
			{Name: "unknown field", Dir: broken},
			{Name: "told to fail", Dir: folder(t, fake.Model{FailLoad: "no"})},
			{Name: "too many outputs", Dir: folder(t, fake.Model{Outputs: []zarpa.ValueInfo{info("a"), info("b")}})},
			{Name: "part of no output", Dir: folder(t, fake.Model{Parts: [][]zarpa.Tensor{{answer}}})},
			{Name: "short answer", Dir: folder(t, fake.Model{Answer: []zarpa.Tensor{answer, answer}})},
		},
		Streams: []enginetest.StreamCase{
			{
				Name: "parts", In: x(), Want: [][]zarpa.Tensor{{answer, named(x()[0], "y")}, {named(x()[0], "y")}, {answer}},
				Dir: folder(t, fake.Model{
					Outputs: []zarpa.ValueInfo{{Name: "label", Type: zarpa.String, Shape: []zarpa.Dim{{Size: 1}}}, info("y")},
					Parts:   [][]zarpa.Tensor{{named(x()[0], "y"), answer}, {named(x()[0], "y")}, {answer}}, PartDelay: zarpa.Duration(time.Microsecond),
				}),
			},
		},
	})
}

func TestAStreamFailsAfterItsParts(t *testing.T) {
	t.Parallel()
	s, err := fake.New(fake.Options{}).Load(t.Context(), folder(t, fake.Model{Parts: [][]zarpa.Tensor{{named(x()[0], "y")}}, Fail: "no"}), zarpa.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	parts := 0
	err = s.(zarpa.Streamer).Stream(t.Context(), x(), nil, func([]zarpa.Tensor) error { parts++; return nil })
	if parts != 1 || zarpa.AsError(err).Code != zarpa.ModelError {
		t.Errorf("%d parts, %v", parts, err)
	}
	if plain, err := fake.New(fake.Options{}).Load(t.Context(), folder(t, fake.Model{}), zarpa.LoadOptions{}); err != nil {
		t.Error(err)
	} else if _, streams := plain.(zarpa.Streamer); streams {
		t.Error("a model without parts streams")
	}
}

func TestACrashingModelCrashesAsTold(t *testing.T) {
	t.Parallel()
	crashes := 0
	engine := fake.New(fake.Options{Crash: func() { crashes++ }})
	s, err := engine.Load(t.Context(), folder(t, fake.Model{Crash: true, CrashLoad: true}), zarpa.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(t.Context(), x(), nil); err != nil || crashes != 2 {
		t.Errorf("%d crashes, %v", crashes, err)
	}
}

func TestASlowLoadIsLeftWithItsContext(t *testing.T) {
	t.Parallel()
	synthetic := fake.New(fake.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := synthetic.Load(ctx, folder(t, fake.Model{LoadDelay: zarpa.Duration(time.Hour)}), zarpa.LoadOptions{})
	var e *zarpa.Error
	if !errors.As(err, &e) || e.Code != zarpa.Timeout {
		t.Errorf("got %v", err)
	}
}
