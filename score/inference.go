package score

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// inferenceForm is the Open Inference Protocol's body of …/infer: JSON, with tensors behind it
// where the binary extension is used. Data come nested in the stated shape, or flat. Answers are
// flat. A Sequence or Map is answered as BYTES, one JSON text for each item, marked by
// parameters.content_type.
type inferenceForm struct{}

var _ codec = inferenceForm{}

func (inferenceForm) decode(c *call, r *http.Request) error {
	length, binary, err := binaryHeader(r.Header)
	switch {
	case err != nil:
		return err
	case binary && length == 0:
		return c.decodeRaw()
	case binary:
		if err := c.split(length); err != nil {
			return err
		}
	}
	d := &c.dec
	found := false
	err = object(d, func(key []byte) (err error) {
		switch string(key) {
		case "id":
			c.hasID = true
			if c.id, err = d.String(); err != nil {
				return zarpa.Errorf(zarpa.Invalid, "id: not a string")
			}
			return nil
		case "parameters":
			return c.requestParameters()
		case "inputs":
			if found {
				return twice("field", key)
			}
			found = true
			return array(d, func(i int64) error { return c.input(i) })
		case "outputs":
			return array(d, func(i int64) error { return c.output(i) })
		case "model_name", "model_version": // the path says it; KServe's client says it here, too
			return d.Skip()
		}
		return unknown("field", key, []string{"id", "inputs", "outputs", "parameters"})
	})
	if err != nil {
		return err
	}
	if !found {
		return zarpa.Errorf(zarpa.Invalid, "field inputs: missing").WithHint("the model takes %s", describeInputs(c.model.sig.Inputs))
	}
	if err := d.End(); err != nil {
		return err
	}
	if len(c.tensors) > 0 {
		return zarpa.Errorf(zarpa.Invalid, "%d bytes are left behind the tensors", len(c.tensors)).
			WithHint("the sum of the inputs' binary_data_size is the length of the body without its JSON")
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
	binary   bool  // its bytes stand behind the JSON,
	size     int64 // so many
	base64   bool  // its strings are encoded
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
			return c.inputParameters(&t)
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
	}{{"name", t.index < 0}, {"datatype", t.typ == zarpa.Undefined}, {"shape", !t.hasShape}, {"data", t.data < 0 && !t.binary}} {
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
	if err := c.checkJSON(t); err != nil {
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
	if info.Type == zarpa.Sequence || info.Type == zarpa.Map {
		return noTensor(info)
	}
	if t.typ != info.Type {
		return zarpa.Errorf(zarpa.Invalid, "input %q: datatype %v, the model takes %v", info.Name, t.typ, info.Type)
	}
	return nil
}

func (c *call) checkJSON(t *tensor) error {
	if t.typ == zarpa.Float16 || t.typ == zarpa.BFloat16 {
		return noJSONForm("input", c.model.sig.Inputs[t.index].Name, t.typ)
	}
	return nil
}

// take completes an input whose every field is known.
func (c *call) take(t *tensor) error {
	v, info := &c.values[t.index], &c.model.sig.Inputs[t.index]
	v.shaped = true
	if err := c.checkType(t); err != nil {
		return err
	}
	shape := t.shape[:t.rank]
	want, err := zarpa.Elements(shape)
	if err != nil {
		return inside(info.Name, err)
	}
	if t.binary {
		if err := c.takeBinary(t); err != nil {
			return err
		}
		v.Reshape(shape)
		return nil
	}
	if err := c.takeJSON(t); err != nil {
		return err
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

// takeJSON reads data that stood before what they are.
func (c *call) takeJSON(t *tensor) error {
	if !t.read {
		if err := c.checkJSON(t); err != nil {
			return err
		}
		behind := c.dec.Offset()
		c.dec.Seek(t.data)
		if err := c.read(t.index, 0); err != nil {
			return err
		}
		c.dec.Seek(behind)
	}
	if t.base64 {
		return inside(c.model.sig.Inputs[t.index].Name, decodeBase64(c.values[t.index].Strings()))
	}
	return nil
}

// decodeBase64 decodes BYTES in place.
func decodeBase64(elements []string) error {
	for i, text := range elements {
		plain, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return zarpa.Errorf(zarpa.Invalid, "element [%d]: not base64, as content_type says", i)
		}
		elements[i] = string(plain)
	}
	return nil
}

func noJSONForm(what, name string, t zarpa.ElementType) error {
	return zarpa.Errorf(zarpa.Invalid, "%s %q: %v has no JSON form in the inference protocol", what, name, t).
		WithHint("use the binary tensor extension or gRPC, or POST /score, which converts from and to plain numbers")
}

func (c *call) output(position int64) error {
	d := &c.dec
	named := false
	var name []byte
	var how requested
	err := object(d, func(key []byte) (err error) {
		switch string(key) {
		case "name":
			if d.Peek() != '"' {
				return d.Unexpected("an output's name")
			}
			if named {
				return twice("field", key)
			}
			named = true
			name, err = d.Text()
			return err
		case "parameters":
			return c.outputParameters(&how)
		}
		return unknown("outputs["+strconv.FormatInt(position, 10)+"]: field", key, []string{"name", "parameters"})
	})
	switch {
	case err != nil:
		return err
	case !named:
		return zarpa.Errorf(zarpa.Invalid, "outputs[%d]: field name: missing", position)
	}
	return c.want(name, how)
}

func (inferenceForm) encode(c *call) error {
	out := append(c.out[:0], `{"model_name":`...)
	out, _ = tensorjson.AppendString(out, c.name)
	if v := c.model.entry.Version; v != "" {
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
	c.out = append(out, "]}"...)
	if len(c.pieces) == 0 {
		c.out = append(c.out, '\n')
	}
	return nil
}
