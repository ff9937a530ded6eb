package oip

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/zarpa-dev/zarpa"
)

// run is one run of the suite against one server.
type run struct {
	target   Target
	wire     *wire
	rpc      *rpc // nil without an address
	server   Server
	probes   []*probe
	noModels string // why there are none
}

// probe is what the run knows of one model. A probe without a name stands for no model.
type probe struct {
	run      *run
	name     string
	versions []string
	inputs   []declared
	outputs  []declared
	noMeta   string // why the metadata could not be read

	sample  []zarpa.Tensor // inputs that the model takes
	form    form           // the way that they were sent
	answer  []zarpa.Tensor // the outputs of sample
	same    bool           // asked twice, the model answered the same
	refused string         // what the first of all made-up inputs was refused with, "" when it was not
}

// declared is an input or output of the metadata.
type declared struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

func (d declared) element() zarpa.ElementType {
	var t zarpa.ElementType
	_ = t.UnmarshalText([]byte(d.Datatype)) // unknown stays Undefined
	return t
}

// newRun meets the server: its metadata, its models, and an input for each.
func newRun(ctx context.Context, t Target) (*run, error) {
	w, err := newWire(t)
	if err != nil {
		return nil, err
	}
	r := &run{target: t, wire: w}
	if t.GRPC != "" {
		if r.rpc, err = newRPC(t); err != nil {
			return nil, err
		}
	}
	a, err := w.do(ctx, request{method: http.MethodGet, path: "/v2"})
	if err != nil {
		r.close()
		return nil, zarpa.Errorf(zarpa.Unavailable, "%s/v2: %w", t.URL, err).WithHint("is the server running, and is its REST port the one named?")
	}
	if a.status == http.StatusUnauthorized || a.status == http.StatusForbidden {
		r.close()
		return nil, zarpa.Errorf(zarpa.CodeFromHTTP(a.status), "%s/v2 answered %d", t.URL, a.status).WithHint("name a key, as the header Authorization")
	}
	_ = json.Unmarshal(a.body, &r.server) // a check tells what is wrong with it
	names := t.Models
	if len(names) == 0 {
		names, r.noModels = r.listed(ctx)
	}
	for _, name := range names {
		r.probes = append(r.probes, r.meet(ctx, name))
	}
	return r, ctx.Err()
}

func (r *run) close() {
	if r.rpc != nil {
		r.rpc.close()
	}
}

// names are the names of the models.
func (r *run) names() []string {
	list := []string{}
	for _, p := range r.probes {
		list = append(list, p.name)
	}
	return list
}

// first is the first model with a sample, else the first one, else the probe of no model.
func (r *run) first() *probe {
	for _, p := range r.probes {
		if p.sample != nil {
			return p
		}
	}
	if len(r.probes) > 0 {
		return r.probes[0]
	}
	return &probe{run: r}
}

// offers says whether the server's metadata names an extension.
func (r *run) offers(extension string) bool { return slices.Contains(r.server.Extensions, extension) }

// listed are the models of the repository index that are ready, or why there are none.
func (r *run) listed(ctx context.Context) (names []string, why string) {
	q := request{method: http.MethodPost, path: "/v2/repository/index", framing: bare}
	a, err := r.wire.do(ctx, q)
	if err == nil && isStatus(a) { // some want a body
		q.body, q.header, q.framing = []byte("{}"), jsonType(), sized
		a, err = r.wire.do(ctx, q)
	}
	if err != nil {
		return nil, err.Error()
	}
	var index []struct{ Name, State string }
	if err := json.Unmarshal(a.body, &index); a.status != http.StatusOK || err != nil {
		return nil, "name one; the repository index answered " + a.said()
	}
	for _, m := range index {
		if (m.State == "" || m.State == "READY") && !slices.Contains(names, m.Name) && len(names) < maxModels {
			names = append(names, m.Name)
		}
	}
	return names, "name one; the repository index lists none that is ready"
}

// meet reads a model's metadata and finds an input that it takes.
func (r *run) meet(ctx context.Context, name string) *probe {
	p := &probe{run: r, name: name}
	a, err := r.wire.do(ctx, request{method: http.MethodGet, path: modelPath(name)})
	if err != nil {
		p.noMeta = err.Error()
		return p
	}
	var meta struct {
		Versions        []string
		Inputs, Outputs []declared
	}
	if err := json.Unmarshal(a.body, &meta); a.status != http.StatusOK || err != nil || len(meta.Inputs) == 0 {
		p.noMeta = a.said()
		return p
	}
	p.versions, p.inputs, p.outputs = meta.Versions, meta.Inputs, meta.Outputs
	p.findSample(ctx)
	return p
}

// jsonable says whether every declared datatype has a JSON form.
func (p *probe) jsonable() bool {
	for _, d := range slices.Concat(p.inputs, p.outputs) {
		if !hasJSON(d.element()) {
			return false
		}
	}
	return true
}

// forms are the ways to send the model's inputs, the plainest first.
func (p *probe) forms() []form {
	var list []form
	if p.jsonable() {
		list = append(list, flatJSON, nestedJSON)
	}
	if p.run.offers("binary_tensor_data") || !p.jsonable() {
		list = append(list, binaryREST)
	}
	if p.run.rpc != nil {
		list = append(list, rawGRPC)
	}
	return list
}

// findSample looks for inputs that the model takes: dimensions that a request may choose are tried with several sizes.
func (p *probe) findSample(ctx context.Context) {
	for _, d := range p.inputs {
		if !inProtocol(d.element()) {
			p.refused = fmt.Sprintf("input %q has datatype %q", d.Name, d.Datatype)
			return
		}
	}
	for _, f := range p.forms() {
		for _, size := range []int64{2, 1, 3, 4, 8} {
			tensors, err := p.madeUp(size)
			if err != nil {
				p.refused = err.Error()
				return
			}
			err = p.takes(ctx, f, tensors)
			if err == nil {
				return
			}
			if p.refused == "" {
				p.refused = err.Error()
			}
			if ctx.Err() != nil || !p.chooses() {
				break
			}
		}
	}
}

// chooses says whether a dimension of an input may be chosen.
func (p *probe) chooses() bool {
	return slices.ContainsFunc(p.inputs, func(d declared) bool { return slices.Contains(d.Shape, -1) })
}

// takes sends tensors and, when they are taken, keeps them as the sample.
func (p *probe) takes(ctx context.Context, f form, tensors []zarpa.Tensor) error {
	if f == rawGRPC {
		if _, err := p.run.rpc.infer(ctx, p.rawRequest(tensors)); err != nil {
			return err
		}
	} else if _, err := p.send(ctx, newRequest(f, tensors)); err != nil {
		return err
	}
	p.sample, p.form = tensors, f
	first, err := p.infer(ctx, f, tensors)
	if err != nil {
		return nil //nolint:nilerr // it was taken; checks tell what is wrong with the answer
	}
	second, err := p.infer(ctx, f, tensors)
	p.answer, p.same = first, err == nil && sameTensors(first, second) == ""
	return nil
}

// madeUp are inputs of the signature, with a size for each dimension that may be chosen.
func (p *probe) madeUp(size int64) ([]zarpa.Tensor, error) {
	var list []zarpa.Tensor
	for _, d := range p.inputs {
		t := zarpa.Tensor{Name: d.Name, Type: d.element(), Shape: make([]int64, len(d.Shape))}
		for i, n := range d.Shape {
			t.Shape[i] = n
			if n < 0 {
				t.Shape[i] = size
			}
		}
		n, err := zarpa.Elements(t.Shape)
		if err != nil || n > maxElements {
			return nil, fmt.Errorf("input %q of shape %v is too large to make up", d.Name, t.Shape)
		}
		list = append(list, fill(t, int(n)))
	}
	return list, nil
}

// fill gives a tensor n small elements that every datatype can say exactly, neighbours differing.
func fill(t zarpa.Tensor, n int) zarpa.Tensor {
	if t.Type == zarpa.String {
		t.Strings = make([]string, n)
		for i := range t.Strings {
			t.Strings[i] = strconv.Itoa(i%7 + 1)
		}
		return t
	}
	t.Data = []byte{}
	for i := range n {
		t.Data = append(t.Data, small(t.Type, i)...)
	}
	return t
}

// small is a small number as the bytes of a datatype.
func small(t zarpa.ElementType, i int) []byte {
	var word uint64
	f := float64(i%7) + 0.5
	switch t {
	case zarpa.Bool:
		word = uint64(i+1) % 2 //nolint:gosec // no negative
	case zarpa.Float16:
		word = []uint64{0x3800, 0x3e00, 0x4100, 0x4300, 0x4480, 0x4580, 0x4680}[i%7] // 0.5, 1.5, …
	case zarpa.BFloat16:
		word = uint64(math.Float32bits(float32(f)) >> 16)
	case zarpa.Float32:
		word = uint64(math.Float32bits(float32(f)))
	case zarpa.Float64:
		word = math.Float64bits(f)
	default:
		word = uint64(i%7) + 1 //nolint:gosec // no negative
	}
	return binary.LittleEndian.AppendUint64(nil, word)[:t.Bits()/8]
}
