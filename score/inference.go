package score

import (
	"mime"
	"net/http"
	"slices"
	"strconv"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// inferenceForm is the Open Inference Protocol's body of …/infer, as JSON. Data come nested in
// the stated shape, or flat. Answers are flat. A Sequence or Map is answered as BYTES, one JSON
// text for each item, marked by parameters.content_type.
type inferenceForm struct{}

var _ codec = inferenceForm{}

func (inferenceForm) decode(c *call, r *http.Request) error {
	if err := jsonOnly(r); err != nil {
		return err
	}
	d := &c.dec
	found := false
	err := object(d, func(key []byte) (err error) {
		switch string(key) {
		case "id":
			c.hasID = true
			if c.id, err = d.String(); err != nil {
				return zarpa.Errorf(zarpa.Invalid, "id: not a string")
			}
			return nil
		case "parameters":
			return c.parameters()
		case "inputs":
			if found {
				return twice("field", key)
			}
			found = true
			return array(d, func(i int64) error { return c.input(i) })
		case "outputs":
			return array(d, func(i int64) error { return c.output(i) })
		}
		return unknown("field", key, []string{"id", "inputs", "outputs", "parameters"})
	})
	if err != nil {
		return err
	}
	if !found {
		return zarpa.Errorf(zarpa.Invalid, "field inputs: missing").WithHint("the model takes %s", describeInputs(c.model.sig.Inputs))
	}
	return d.End()
}

// jsonOnly refuses the binary extension by what its requests say of themselves.
func jsonOnly(r *http.Request) error {
	if len(r.Header["Inference-Header-Content-Length"]) > 0 {
		return httpx.WithStatus(binaryRefused("header Inference-Header-Content-Length"), http.StatusUnsupportedMediaType)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && media == "application/octet-stream" {
		return httpx.WithStatus(binaryRefused("Content-Type application/octet-stream"), http.StatusUnsupportedMediaType)
	}
	return nil
}

// tensor is one input of a request as far as it is read: its fields come in any order.
type tensor struct {
	index    int // of the model's input, -1 unknown
	typ      zarpa.ElementType
	hasShape bool
	rank     int
	shape    [tensorjson.MaxRank]int64
	data     int // where its data begin, -1 unknown
	read     bool
}

func (c *call) input(position int64) error {
	d := &c.dec
	t := tensor{index: -1, data: -1}
	err := object(d, func(key []byte) error {
		switch string(key) {
		case "name":
			return c.inputName(&t)
		case "datatype":
			return c.inputType(&t)
		case "shape":
			return c.inputShape(&t)
		case "parameters":
			return c.parameters()
		case "data":
			return c.inputData(&t)
		}
		return unknown("inputs["+strconv.FormatInt(position, 10)+"]: field", key, []string{"name", "shape", "datatype", "parameters", "data"})
	})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		missing bool
	}{{"name", t.index < 0}, {"datatype", t.typ == zarpa.Undefined}, {"shape", !t.hasShape}, {"data", t.data < 0}} {
		if f.missing {
			return zarpa.Errorf(zarpa.Invalid, "inputs[%d]: field %s: missing", position, f.name)
		}
	}
	return c.take(&t)
}

func (c *call) inputName(t *tensor) error {
	if c.dec.Peek() != '"' {
		return c.dec.Unexpected("an input's name")
	}
	name, err := c.dec.Text()
	if err != nil {
		return err
	}
	i, ok := c.model.inputs[string(name)]
	switch {
	case !ok:
		return unknown("input", name, names(c.model.sig.Inputs))
	case c.values[i].given:
		return twice("input", name)
	}
	if t.index >= 0 {
		return twice("field", []byte("name"))
	}
	t.index = i
	c.values[i].given = true
	return nil
}

func (c *call) inputType(t *tensor) error {
	if c.dec.Peek() != '"' {
		return c.dec.Unexpected("a datatype")
	}
	text, err := c.dec.Text()
	if err != nil {
		return err
	}
	return t.typ.UnmarshalText(text)
}

func (c *call) inputShape(t *tensor) error {
	t.hasShape, t.rank = true, 0
	return array(&c.dec, func(int64) error {
		n, err := c.dec.Int64()
		switch {
		case err != nil:
			return err
		case n < 0:
			return zarpa.Errorf(zarpa.Invalid, "shape: dimension %d is negative", t.rank)
		case t.rank == len(t.shape):
			return zarpa.Errorf(zarpa.Invalid, "shape: more than %d dimensions", len(t.shape))
		}
		t.shape[t.rank] = n
		t.rank++
		return nil
	})
}

// inputData reads the data where name and datatype came before them, and leaves them for later
// where not.
func (c *call) inputData(t *tensor) error {
	c.dec.Peek()
	t.data = c.dec.Offset()
	if t.index < 0 || t.typ == zarpa.Undefined {
		return c.dec.SkipData()
	}
	if err := c.checkType(t); err != nil {
		return err
	}
	if t.read {
		return twice("field", []byte("data"))
	}
	t.read = true
	return c.read(t.index, 0)
}

func (c *call) checkType(t *tensor) error {
	info := &c.model.sig.Inputs[t.index]
	if t.typ != info.Type {
		return zarpa.Errorf(zarpa.Invalid, "input %q: datatype %v, the model takes %v", info.Name, t.typ, info.Type)
	}
	if t.typ == zarpa.Float16 || t.typ == zarpa.BFloat16 {
		return noJSONForm("input", info.Name, t.typ)
	}
	return nil
}

// take completes an input whose every field is known.
func (c *call) take(t *tensor) error {
	v, info := &c.values[t.index], &c.model.sig.Inputs[t.index]
	if err := c.checkType(t); err != nil {
		return err
	}
	shape := t.shape[:t.rank]
	want, err := zarpa.Elements(shape)
	if err != nil {
		return inside(info.Name, err)
	}
	if !t.read {
		behind := c.dec.Offset()
		c.dec.Seek(t.data)
		if err := c.read(t.index, 0); err != nil {
			return err
		}
		c.dec.Seek(behind)
	}
	nested := v.Shape()
	if len(nested) > 1 && !slices.Equal(nested, shape) {
		return zarpa.Errorf(zarpa.Invalid, "input %q: data nested as %v, its shape is %v", info.Name, nested, shape).
			WithHint("nest the data in the shape, or send them flat")
	}
	if v.Elements() != want {
		return zarpa.Errorf(zarpa.Invalid, "input %q: %d elements, shape %v has %d", info.Name, v.Elements(), shape, want)
	}
	v.Reshape(shape)
	return nil
}

func noJSONForm(what, name string, t zarpa.ElementType) error {
	return zarpa.Errorf(zarpa.Invalid, "%s %q: %v has no JSON form in the inference protocol", what, name, t).
		WithHint("use POST /score, which converts from and to plain numbers")
}

func (c *call) output(position int64) error {
	d := &c.dec
	named := false
	err := object(d, func(key []byte) error {
		switch string(key) {
		case "name":
			if d.Peek() != '"' {
				return d.Unexpected("an output's name")
			}
			name, err := d.Text()
			if err != nil {
				return err
			}
			if named {
				return twice("field", key)
			}
			named = true
			return c.want(name)
		case "parameters":
			return c.parameters()
		}
		return unknown("outputs["+strconv.FormatInt(position, 10)+"]: field", key, []string{"name", "parameters"})
	})
	if err == nil && !named {
		return zarpa.Errorf(zarpa.Invalid, "outputs[%d]: field name: missing", position)
	}
	return err
}

func (inferenceForm) encode(c *call) error {
	out := append(c.out[:0], `{"model_name":`...)
	out, _ = tensorjson.AppendString(out, c.name)
	if v := c.model.version; v != "" {
		out, _ = tensorjson.AppendString(append(out, `,"model_version":`...), v)
	}
	if c.hasID {
		out, _ = tensorjson.AppendString(append(out, `,"id":`...), c.id)
	}
	out = append(out, `,"outputs":[`...)
	first := true
	for i := range c.outputs {
		t := &c.outputs[i]
		if t.Type == zarpa.Undefined { // an optional output that is absent
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		var err error
		if out, err = c.appendOutput(out, t); err != nil {
			return err
		}
	}
	c.out = append(out, "]}\n"...)
	return nil
}

func (c *call) appendOutput(out []byte, t *zarpa.Tensor) ([]byte, error) {
	format := tensorjson.Format{NonFinite: c.allow}
	out, _ = tensorjson.AppendString(append(out, `{"name":`...), t.Name)
	switch t.Type {
	case zarpa.Float16, zarpa.BFloat16:
		return out, noJSONForm("output", t.Name, t.Type)
	case zarpa.Sequence:
		return c.appendItems(out, t.Items)
	case zarpa.Map:
		return c.appendItems(out, []zarpa.Tensor{*t})
	default: // what is left follows
	}
	out = append(out, `,"datatype":"`...)
	out = append(out, t.Type.String()...)
	out = append(out, `","shape":[`...)
	for i, n := range t.Shape {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, n, 10)
	}
	out, err := format.AppendFlat(append(out, `],"data":`...), t)
	return append(out, '}'), err
}

// appendItems writes values that are no tensors as a vector of JSON texts.
func (c *call) appendItems(out []byte, items []zarpa.Tensor) ([]byte, error) {
	format := tensorjson.Format{NonFinite: c.allow}
	out = append(out, `,"datatype":"BYTES","shape":[`...)
	out = strconv.AppendInt(out, int64(len(items)), 10)
	out = append(out, `],"parameters":{"content_type":"application/json"},"data":[`...)
	for i := range items {
		if i > 0 {
			out = append(out, ',')
		}
		var err error
		if c.item, err = format.AppendNested(c.item[:0], &items[i]); err != nil {
			return out, err
		}
		out, _ = tensorjson.AppendString(out, string(c.item))
	}
	return append(out, "]}"...), nil
}
