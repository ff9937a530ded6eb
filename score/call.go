package score

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// call is the state of one prediction. It is used again, with its memory, for another one.
type call struct {
	model   *model
	body    []byte // as received; text begins in it
	text    []byte // the body itself, decompressed
	dec     tensorjson.Decoder
	values  []value // one for each input of the model
	inputs  []zarpa.Tensor
	outputs []zarpa.Tensor
	wanted  []string
	allow   bool // NaN and infinities
	out     []byte
	item    []byte // one item of a sequence, as JSON
	// what the inference protocol gives back
	name  string
	id    string
	hasID bool
	// the binary tensor extension
	binary    bool        // tensors stand behind the JSON
	tensors   []byte      // those that are not read yet
	binaryOut bool        // outputs are binary unless they say otherwise
	asked     []requested // how the wanted outputs are written, in their order
	pieces    [][]byte    // what is written behind out
	// for the statistics
	began time.Time
	spent phases
}

// value is one input as it is read.
type value struct {
	tensorjson.Builder
	given bool
	rows  int64 // how many rows of columns had it
	// shaped tells that the request said the shape in words, not by nesting
	shaped bool
	// an input that came in binary has its elements in raw or, if they are BYTES, in text
	binary bool
	raw    []byte
	text   []string
}

// requested is how one wanted output is to be written.
type requested struct {
	chosen, binary bool // binary counts where it was chosen
	base64         bool
	classes        int // of the classification extension; 0 is the output itself
}

// kept bounds the memory that a call keeps for the next one.
const kept = 4 << 20

func (s *Server) begin(m *model) *call {
	c, _ := s.calls.Get().(*call)
	c.model, c.name, c.began = m, m.entry.Name, time.Now()
	if n := len(m.sig.Inputs); len(c.values) != n {
		c.values = make([]value, n)
	}
	for i := range c.values {
		v := &c.values[i]
		v.given, v.shaped, v.rows, v.binary, v.raw, v.text = false, false, 0, false, nil, nil
		v.Reset(m.sig.Inputs[i].Type)
	}
	return c
}

// end gives c back, when nothing reads its memory any more.
func (s *Server) end(c *call) {
	size := cap(c.body) + cap(c.out) + cap(c.item)
	for i := range c.values {
		size += c.values[i].Size()
	}
	if size > kept {
		return
	}
	clear(c.inputs)
	clear(c.wanted)
	clear(c.pieces)
	c.inputs, c.wanted, c.outputs = c.inputs[:0], c.wanted[:0], nil
	c.dec.Reset(nil)
	*c = call{
		body: c.body[:0], values: c.values, inputs: c.inputs, wanted: c.wanted, out: c.out[:0], item: c.item[:0],
		asked: c.asked[:0], pieces: c.pieces[:0],
	}
	s.calls.Put(c)
}

// codec is one form of bodies: what a request says becomes c.inputs and c.wanted, and c.outputs
// become the answer in c.out.
type codec interface {
	decode(c *call, r *http.Request) error
	encode(c *call) error
}

// predict is the chain: decode, limit, batch, run, encode.
func (s *Server) predict(w http.ResponseWriter, r *http.Request, c *call, form codec) (err error) {
	ctx, cancel := context.WithTimeout(r.Context(), s.timeLeft(r.Header))
	defer cancel()
	defer func() { c.count(err) }()
	if err := s.decode(w, r, c, form); err != nil {
		return s.ended(ctx, err)
	}
	if err := s.execute(ctx, c); err != nil {
		return s.ended(ctx, err)
	}
	return c.written(encode(w, r, c, form))
}

// execute makes c.outputs of c.inputs, whatever form they came in: limit, batch, run. The errors
// are those of the steps; [Server.ended] says more of those whose context has ended.
func (s *Server) execute(ctx context.Context, c *call) error {
	decoded := time.Now()
	c.spent.input = decoded.Sub(c.began)
	if err := s.limit.limit(ctx); err != nil {
		return err
	}
	defer s.limit.leave()
	c.spent.queue = time.Since(decoded)
	if b := c.model.batcher; b != nil && !b.off.Load() {
		return b.run(ctx, c)
	}
	return s.unshared(ctx, c, run)
}

// unshared runs what shares its run with nobody, where as many may run at a time as without batching.
func (s *Server) unshared(ctx context.Context, c *call, run func(context.Context, *call) error) error {
	if s.unbatched != nil {
		came := time.Now()
		if err := s.unbatched.limit(ctx); err != nil {
			return err
		}
		defer s.unbatched.leave()
		c.spent.queue += time.Since(came)
	}
	return run(ctx, c)
}

// written notes how long the answer took to write, and passes its error on.
func (c *call) written(err error) error {
	s := &c.spent
	s.total = time.Since(c.began)
	s.output = s.total - s.input - s.queue - s.infer
	return err
}

// count brings the ended call into its model's statistics.
func (c *call) count(err error) {
	if err != nil {
		c.model.entry.stats.failed(time.Since(c.began))
		return
	}
	c.model.entry.stats.succeeded(c.spent)
}

// rows is the number of rows of the call: the first dimension of its first input, 1 for a scalar.
func (c *call) rows() int64 {
	if len(c.inputs) == 0 || len(c.inputs[0].Shape) == 0 {
		return 1
	}
	return c.inputs[0].Shape[0]
}

// timeLeft is the time limit of a request: the setting, or what the gateway says is left of it.
func (s *Server) timeLeft(h http.Header) time.Duration {
	if told := h["Zarpa-Timeout-Ms"]; len(told) == 1 {
		if ms, err := strconv.ParseInt(told[0], 10, 32); err == nil && ms >= 0 {
			return min(s.opts.RequestTimeout, time.Duration(ms)*time.Millisecond)
		}
	}
	return s.opts.RequestTimeout
}
