package score

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// decode reads the body and makes it c.inputs. The body is what the codec says, whatever its
// Content-Type: clients send none, or that of a form.
func (s *Server) decode(w http.ResponseWriter, r *http.Request, c *call, form codec) error {
	length, binary, err := binaryHeader(r.Header)
	if err != nil {
		return err
	}
	limit := int64(s.opts.MaxBody)
	c.body = lead(httpx.Grow(c.body, r.ContentLength+alignment), length)
	free := len(c.body)
	if c.body, err = httpx.ReadBodyAt(w, r, limit, c.body); err != nil {
		return err
	}
	c.text = c.body[free:]
	if encoding := r.Header["Content-Encoding"]; len(encoding) > 0 {
		if c.text, err = decompress(strings.Join(encoding, ","), c.text, limit, length); err != nil {
			return err
		}
	}
	if !binary && len(bytes.TrimSpace(c.text)) == 0 {
		return zarpa.Errorf(zarpa.Invalid, "request body: empty").WithHint("send a JSON object")
	}
	c.dec.Reset(c.text)
	if err := form.decode(c, r); err != nil {
		return err
	}
	return c.finish()
}

// decompress undoes one Content-Encoding. "deflate" is zlib by the standard and bare in practice:
// both are taken. header is the length of what stands before the tensors.
func decompress(encoding string, body []byte, limit int64, header int) ([]byte, error) {
	var src io.Reader
	var err error
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
		src, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		if src, err = zlib.NewReader(bytes.NewReader(body)); err != nil {
			src, err = flate.NewReader(bytes.NewReader(body)), nil
		}
	default:
		return nil, httpx.WithStatus(zarpa.Errorf(zarpa.Invalid, "Content-Encoding %.40q: not known", encoding).
			WithHint("use gzip, deflate or none"), http.StatusUnsupportedMediaType)
	}
	plain := lead(httpx.Grow(nil, int64(len(body)+alignment)), header)
	free := len(plain)
	if err == nil {
		plain, err = httpx.ReadAll(src, limit, plain)
	}
	switch {
	case err == nil:
		return plain[free:], nil
	case errors.As(err, new(*zarpa.Error)):
		return nil, err
	}
	return nil, zarpa.Errorf(zarpa.Invalid, "request body: not valid %s", encoding).Because(err)
}

// finish checks what was read against the signature and fills c.inputs.
func (c *call) finish() error {
	for i := range c.values {
		v, info := &c.values[i], &c.model.sig.Inputs[i]
		if !v.given {
			if info.Optional {
				continue
			}
			return zarpa.Errorf(zarpa.Invalid, "input %q: missing", info.Name).WithHint("the model takes %s", describeInputs(c.model.sig.Inputs))
		}
		if !c.allow {
			if err := v.NonFinite(); err != nil {
				return inside(info.Name, err)
			}
		}
		shape, ok := fit(v.Shape(), v.rows > 0, info)
		if !ok && v.shaped {
			return inside(info.Name, wrongShape(shape, info).WithHint("-1 may be any size"))
		}
		if !ok {
			return inside(info.Name, misfit(shape, info))
		}
		if err := checkEmpty(shape); err != nil {
			return inside(info.Name, err)
		}
		data, strings := v.Data(), v.Strings()
		if v.binary {
			data, strings = v.raw, v.text
		}
		c.inputs = append(c.inputs, zarpa.Tensor{Name: info.Name, Type: info.Type, Shape: shape, Data: data, Strings: strings})
	}
	return nil
}

// fit makes a shape as written that of the input: [1] does for a scalar, and columns of rows get
// the last dimension of one that tabular models have.
func fit(shape []int64, column bool, info *zarpa.ValueInfo) ([]int64, bool) {
	if info.NoShape {
		return shape, true
	}
	want := info.Shape
	switch {
	case len(want) == 0 && len(shape) == 1 && shape[0] == 1:
		return shape[:0], true
	case column && len(want) == len(shape)+1 && (want[len(shape)].Size == 1 || want[len(shape)].Size < 0):
		shape = append(shape, 1)
	}
	if len(shape) != len(want) {
		return shape, false
	}
	for i, d := range want {
		if d.Size >= 0 && d.Size != shape[i] {
			return shape, false
		}
	}
	return shape, true
}

// maxEmpty bounds what the dimensions of a tensor without elements claim: a model that reduces the
// empty dimension answers as many elements, however short the request is.
const maxEmpty = 1 << 20

// checkEmpty refuses shapes such as [4000000000 0].
func checkEmpty(shape []int64) error {
	if !slices.Contains(shape, 0) {
		return nil
	}
	claimed := int64(1)
	for _, d := range shape {
		if d > 0 {
			if d > maxEmpty/claimed {
				return zarpa.Errorf(zarpa.Invalid, "shape %v: more than %d rows without elements", shape, maxEmpty)
			}
			claimed *= d
		}
	}
	return nil
}

func wrongShape(shape []int64, info *zarpa.ValueInfo) *zarpa.Error {
	return zarpa.Errorf(zarpa.Invalid, "shape %v, the model takes %v", shape, info.Sizes())
}

// misfit is wrongShape for data whose nesting is their shape.
func misfit(shape []int64, info *zarpa.ValueInfo) error {
	err := wrongShape(shape, info)
	switch {
	case len(shape) > 0 && shape[0] == 0:
		return err.WithHint("send at least one row")
	case len(shape) == len(info.Shape)-1:
		return err.WithHint("put one more pair of brackets around the data: the first dimension counts the rows")
	case len(shape) == len(info.Shape):
		return err.WithHint("-1 may be any size")
	}
	return err.WithHint("the data must nest %d deep", len(info.Shape))
}

// inside puts the input's name before an error in its value.
func inside(input string, err error) error {
	if err == nil {
		return nil
	}
	e := *zarpa.AsError(err)
	e.Message = "input " + quote(input) + ": " + e.Message
	return &e
}

func quote(s string) string {
	b, _ := tensorjson.AppendString(nil, s)
	return string(b)
}

func describeInputs(inputs []zarpa.ValueInfo) string {
	var b strings.Builder
	for i, v := range inputs {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(v.Name) + " (" + v.Type.String() + ")")
	}
	return b.String()
}

// unknown is the error for a word that is none of the known ones.
func unknown(what string, word []byte, known []string) error {
	err := zarpa.Errorf(zarpa.Invalid, "%s %.60q: unknown", what, word)
	if near := zarpa.Nearest(string(word), known); near != "" {
		return err.WithHint("did you mean %s?", near)
	}
	return err.WithHint("known are %s", strings.Join(known, ", "))
}

func twice(what string, word []byte) error {
	return zarpa.Errorf(zarpa.Invalid, "%s %.60q: stands there twice", what, word)
}

// object reads an object, giving each key, whose value stands next, to member.
func object(d *tensorjson.Decoder, member func(key []byte) error) error {
	if err := d.BeginObject(); err != nil {
		return err
	}
	for {
		key, ok, err := d.Key()
		if !ok || err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
	}
}

// array reads an array, calling element where each value stands next.
func array(d *tensorjson.Decoder, element func(i int64) error) error {
	if err := d.BeginArray(); err != nil {
		return err
	}
	for i := int64(0); ; i++ {
		more, err := d.More()
		if !more || err != nil {
			return err
		}
		if err := element(i); err != nil {
			return err
		}
	}
}

// want adds an output to those that the answer is limited to.
func (c *call) want(name []byte, how requested) error {
	i, ok := c.model.outputs[string(name)]
	if !ok {
		return unknown("output", name, names(c.model.sig.Outputs))
	}
	known := c.model.sig.Outputs[i].Name
	if slices.Contains(c.wanted, known) {
		return twice("output", name)
	}
	c.wanted = append(c.wanted, known)
	c.asked = append(c.asked, how)
	return nil
}

// how is in which way an output is to be written.
func (c *call) how(name string) requested {
	how := requested{}
	if i := slices.Index(c.wanted, name); i >= 0 {
		how = c.asked[i]
	}
	if !how.chosen {
		how.binary = c.binaryOut
	}
	return how
}
