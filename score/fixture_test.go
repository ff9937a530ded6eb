package score

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// session is a model whose run is a function.
type session struct {
	sig zarpa.Signature
	run func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error)
}

var _ zarpa.Session = (*session)(nil)

func (s *session) Signature() zarpa.Signature { return s.sig }
func (s *session) Close() error               { return nil }
func (s *session) Run(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
	return s.run(ctx, in, wanted)
}

func dims(sizes ...int64) []zarpa.Dim {
	out := make([]zarpa.Dim, len(sizes))
	for i, n := range sizes {
		out[i].Size = n
	}
	return out
}

func info(name string, t zarpa.ElementType, sizes ...int64) zarpa.ValueInfo {
	return zarpa.ValueInfo{Name: name, Type: t, Shape: dims(sizes...)}
}

// echo answers input NAME as output out_NAME.
func echo(inputs ...zarpa.ValueInfo) *session {
	s := &session{sig: zarpa.Signature{Inputs: inputs}}
	for _, v := range inputs {
		v.Name = "out_" + v.Name
		s.sig.Outputs = append(s.sig.Outputs, v)
	}
	s.run = func(_ context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		var out []zarpa.Tensor
		for _, t := range in {
			t.Name = "out_" + t.Name
			if wanted == nil || strings.Contains(strings.Join(wanted, " "), t.Name) {
				out = append(out, t)
			}
		}
		return out, nil
	}
	return s
}

func le(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	return b.Bytes()
}

// iris is a classifier with a sequence of maps; it says 1 for each row.
func iris() *session {
	float := zarpa.ValueInfo{Type: zarpa.Float32}
	s := &session{sig: zarpa.Signature{
		Inputs: []zarpa.ValueInfo{info("input", zarpa.Float32, -1, 4)},
		Outputs: []zarpa.ValueInfo{
			info("label", zarpa.Int64, -1),
			{Name: "probabilities", Type: zarpa.Sequence, Items: []zarpa.ValueInfo{{Type: zarpa.Map, Items: []zarpa.ValueInfo{{Type: zarpa.Int64}, float}}}},
		},
	}}
	s.run = func(_ context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		n := in[0].Shape[0]
		label := zarpa.Tensor{Name: "label", Type: zarpa.Int64, Shape: []int64{n}}
		probabilities := zarpa.Tensor{Name: "probabilities", Type: zarpa.Sequence}
		for range n {
			label.Data = binary.LittleEndian.AppendUint64(label.Data, 1)
			probabilities.Items = append(probabilities.Items, zarpa.Tensor{Type: zarpa.Map, Items: []zarpa.Tensor{
				{Type: zarpa.Int64, Shape: []int64{2}, Data: le(int64(0), int64(1))},
				{Type: zarpa.Float32, Shape: []int64{2}, Data: le(float32(0.1), float32(0.9))},
			}})
		}
		out := []zarpa.Tensor{label, probabilities}
		if len(wanted) == 1 && wanted[0] == "label" {
			return out[:1], nil
		}
		return out, nil
	}
	return s
}

func constant(out ...zarpa.Tensor) *session {
	s := echo(info("x", zarpa.Float32, -1))
	s.sig.Outputs = nil
	for _, t := range out {
		s.sig.Outputs = append(s.sig.Outputs, info(t.Name, t.Type, t.Shape...))
	}
	s.run = func(context.Context, []zarpa.Tensor, []string) ([]zarpa.Tensor, error) { return out, nil }
	return s
}

func newServer(t testing.TB, s zarpa.Session, o Options) *Server {
	t.Helper()
	if o.Models == nil {
		o.Models = []ModelOptions{{Name: "iris", Version: "3", Aliases: []string{"flowers", "a/b", "é x"}}}
		o.Models[0].Load = func(context.Context) (zarpa.Session, error) { return s, nil }
	}
	srv, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if s != nil {
		if err := srv.LoadAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return srv
}

func ask(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, path, nil)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func text(r io.Reader) string {
	b, _ := io.ReadAll(r)
	return string(b)
}

var nan = float32(math.NaN())
