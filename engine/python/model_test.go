package python_test

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/enginetest"
	"github.com/zarpa-dev/zarpa/engine/python"
)

// formatted is an engine whose models have one format.
type formatted struct{ *python.Engine }

func (e formatted) Load(ctx context.Context, dir string, o zarpa.LoadOptions) (zarpa.Session, error) {
	o.Format = "test"
	return e.Engine.Load(ctx, dir, o)
}

// modelEngine is an engine of the models in testdata, which need numpy.
func modelEngine(t *testing.T, o python.Options) formatted {
	t.Helper()
	o.Python = os.Getenv("ZARPA_PYTHON_NUMPY")
	if o.Python == "" {
		o.Python = interpreter(t)
	}
	if out, err := exec.Command(o.Python, "-c", "import numpy").CombinedOutput(); err != nil {
		t.Skipf("ZARPA_PYTHON_NUMPY, or else python3, has no numpy: %s", out)
	}
	path, err := filepath.Abs("testdata/path")
	if err != nil {
		t.Fatal(err)
	}
	o.Env = []string{"PATH=" + os.Getenv("PATH"), "PYTHONPATH=" + path, "PYTHONDONTWRITEBYTECODE=1"}
	e, err := python.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return formatted{e}
}

func int64s(name string, values ...int64) zarpa.Tensor {
	t := zarpa.Tensor{Name: name, Type: zarpa.Int64, Shape: []int64{int64(len(values))}}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(v))
	}
	return t
}

func TestEngineContract(t *testing.T) {
	t.Parallel()
	x := zarpa.Tensor{Name: "x", Type: zarpa.Float32, Shape: []int64{1, 2}, Data: []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}} // 1, 2
	text := zarpa.Tensor{Name: "text", Type: zarpa.String, Shape: []int64{3}, Strings: []string{"a", "", "\xff\x00é"}}
	doubled := x
	doubled.Name, doubled.Data = "doubled", []byte{0, 0, 0, 0x40, 0, 0, 0x80, 0x40} // 2, 4
	model := func(file string, in ...zarpa.Tensor) enginetest.Case {
		return enginetest.Case{Name: file, Dir: "testdata/models", File: file, In: in}
	}
	two := model("two.py", x, text)
	two.Want = []zarpa.Tensor{doubled, text}
	enginetest.Run(t, enginetest.Config{
		Engine: modelEngine(t, python.Options{Workers: 2}),
		Cases:  []enginetest.Case{two},
		Fails:  model("fails.py", int64s("x", 0)),
		Slow:   model("slow.py", int64s("x", 0)),
		Broken: []enginetest.Case{model("broken.py")},
	})
}

func TestEveryTypeCrossesUnchanged(t *testing.T) {
	t.Parallel()
	s, err := modelEngine(t, python.Options{Workers: 1}).Load(t.Context(), "testdata/models", zarpa.LoadOptions{File: "same.py"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var in []zarpa.Tensor
	for _, shape := range [][]int64{{}, {3}, {2, 3}, {0}, {4, 0, 2}, {200, 300}} {
		in = in[:0]
		n, _ := zarpa.Elements(shape)
		for _, v := range s.Signature().Inputs {
			v := zarpa.Tensor{Name: v.Name, Type: v.Type, Shape: shape}
			size, _ := zarpa.ByteSize(v.Type, shape)
			v.Data = make([]byte, size)
			for i := range v.Data {
				v.Data[i] = byte(i*7) & 1
			}
			if v.Type == zarpa.String {
				v.Data = nil
				v.Strings = make([]string, n)
				for i := range v.Strings {
					v.Strings[i] = strings.Repeat("é", i%5)
				}
			}
			in = append(in, v)
		}
		out, err := s.Run(t.Context(), in, nil)
		if err != nil {
			t.Fatalf("%v: %v", shape, err)
		}
		enginetest.Equal(t, out, in)
	}
	if out, err := s.Run(t.Context(), in[:1], []string{in[0].Name}); err != nil || len(out) != 1 {
		t.Errorf("%v, %v", out, err)
	}
}

func TestAModelSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	e := modelEngine(t, python.Options{Workers: 1, Log: rec.log()})
	s, err := e.Load(t.Context(), "testdata/models", zarpa.LoadOptions{File: "fails.py"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rec.waitFor(t, "it is a test") // the note
	for x, want := range map[int64]struct {
		code zarpa.Code
		text string
	}{
		0: {zarpa.ModelError, "ValueError: the model cannot"}, 1: {zarpa.Invalid, "input 'x': 1 is what it cannot be (send 0)"},
		2: {zarpa.ModelError, `no output "y"`}, 3: {zarpa.ModelError, "TypeError: output 'y': set is no element"},
		4: {zarpa.ModelError, "datatype is BYTES, its signature says INT64"},
	} {
		_, err := s.Run(t.Context(), []zarpa.Tensor{int64s("x", x)}, nil)
		if e := zarpa.AsError(err); err == nil || e.Code != want.code || !strings.Contains(e.Error(), want.text) {
			t.Errorf("%d: %v", x, err)
		}
	}
	_, err = e.Engine.Load(t.Context(), "testdata/models", zarpa.LoadOptions{File: "fails.py"})
	if zarpa.AsError(err).Code != zarpa.Invalid {
		t.Errorf("without a format: %v", err)
	}
}
