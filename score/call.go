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
	body    []byte
	dec     tensorjson.Decoder
	values  []value // one for each input of the model
	inputs  []zarpa.Tensor
	outputs []zarpa.Tensor
	wanted  []string
	allow   bool // NaN and infinities
	took    time.Duration
	out     []byte
	item    []byte // one item of a sequence, as JSON
	// what the inference protocol gives back
	name  string
	id    string
	hasID bool
}

// value is one input as it is read.
type value struct {
	tensorjson.Builder
	given bool
	rows  int64 // how many rows of columns had it
}

// kept bounds the memory that a call keeps for the next one.
const kept = 4 << 20

func (s *Server) begin(m *model) *call {
	c, _ := s.calls.Get().(*call)
	c.model = m
	if n := len(m.sig.Inputs); len(c.values) != n {
		c.values = make([]value, n)
	}
	for i := range c.values {
		v := &c.values[i]
		v.given, v.rows = false, 0
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
	c.inputs, c.wanted, c.outputs = c.inputs[:0], c.wanted[:0], nil
	c.dec.Reset(nil)
	*c = call{body: c.body[:0], values: c.values, inputs: c.inputs, wanted: c.wanted, out: c.out[:0], item: c.item[:0]}
	s.calls.Put(c)
}

// codec is one form of bodies: what a request says becomes c.inputs and c.wanted, and c.outputs
// become the answer in c.out.
type codec interface {
	decode(c *call, r *http.Request) error
	encode(c *call) error
}

// predict is the chain: decode, limit, run, encode.
func (s *Server) predict(w http.ResponseWriter, r *http.Request, c *call, form codec) error {
	ctx, cancel := context.WithTimeout(r.Context(), s.timeLeft(r.Header))
	defer cancel()
	if err := s.decode(w, r, c, form); err != nil {
		return s.ended(ctx, err)
	}
	if err := s.limit.limit(ctx); err != nil {
		return s.ended(ctx, err)
	}
	err := run(ctx, c)
	s.limit.leave()
	if err != nil {
		return s.ended(ctx, err)
	}
	return encode(w, c, form)
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
