package score

import (
	"net/http"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// dataForm is the body of /score:
//
//	{"data": T}                        the model's one input, as nested arrays
//	{"data": [T1, T2]}                 each input of a model with several, in the signature's order
//	{"data": {"x": T1, "y": T2}}       inputs by name
//	{"data": [{"x": 1, "y": "a"}, …]}  rows of named columns, a column for each input
//	{"data": {"columns": ["x", "y"], "index": [0], "data": [[1, "a"]]}}  a pandas table, orient "split"
//	{"input_data": …}                  the same under the original's second name
//
// and beside it "outputs", names to limit the answer to; "parameters", of which allow_nan counts;
// and "method", the name of what the model is to do: of a model that is an object with methods, such as
// scikit-learn's, predict_proba where it has that, or predict; of others predict. The answer is an
// object of all outputs, or those of the method, by name, each in its shape.
type dataForm struct{}

var _ codec = dataForm{}

func (dataForm) decode(c *call, _ *http.Request) error {
	d := &c.dec
	found, method := false, ""
	err := object(d, func(key []byte) error {
		switch string(key) {
		case "data", "input_data":
			if found {
				return zarpa.Errorf(zarpa.Invalid, "field %.60q: the data stand there already", key).WithHint("data and input_data are two names of one field")
			}
			found = true
			return c.data()
		case "outputs":
			return array(d, func(int64) error {
				if d.Peek() != '"' {
					return d.Unexpected("an output's name")
				}
				name, err := d.Text()
				if err != nil {
					return err
				}
				return c.want(name, requested{})
			})
		case "parameters":
			return c.requestParameters()
		case "method":
			if d.Peek() != '"' {
				return d.Unexpected("a method's name")
			}
			name, err := d.Text()
			if err == nil && len(name) == 0 {
				return zarpa.Errorf(zarpa.Invalid, "method: empty").WithHint("leave it out, or name one")
			}
			method = string(name)
			return err
		}
		return unknown("field", key, []string{"data", "input_data", "method", "outputs", "parameters"})
	})
	if err != nil {
		return err
	}
	if !found {
		return zarpa.Errorf(zarpa.Invalid, "field data: missing").WithHint(`send {"data": …}`)
	}
	if err := c.chooseMethod(method, scoreMethods()); err != nil {
		return err
	}
	return d.End()
}

func (c *call) data() error {
	d := &c.dec
	switch d.Peek() {
	case '{':
		if c.isTable() {
			return c.splitTable()
		}
		return c.byName()
	case '[':
		here := d.Offset()
		d.Seek(here + 1)
		first := d.Peek()
		d.Seek(here)
		if first == '{' {
			if c.knownColumns() != nil {
				return c.records()
			}
			return c.byRow()
		}
	}
	if len(c.values) == 1 {
		return c.read(0, 0)
	}
	return c.byPosition()
}

// read reads one input's value, or one row of it at level 1.
func (c *call) read(i, level int) error {
	v, info := &c.values[i], &c.model.sig.Inputs[i]
	if info.Type == zarpa.Sequence || info.Type == zarpa.Map {
		return noTensor(info)
	}
	v.given = true
	if err := c.dec.Append(&v.Builder, level); err != nil {
		return inside(c.model.sig.Inputs[i].Name, err)
	}
	return nil
}

// noTensor is the answer to a request for a model that takes more than tensors.
func noTensor(info *zarpa.ValueInfo) error {
	return zarpa.Errorf(zarpa.Invalid, "input %q: the model takes a %v there, which requests cannot carry", info.Name, info.Type).
		WithHint("export the model so that it takes tensors")
}

func (c *call) byPosition() error {
	return array(&c.dec, func(i int64) error {
		if i >= int64(len(c.values)) {
			return zarpa.Errorf(zarpa.Invalid, "data: more than %d values", len(c.values)).
				WithHint("by position there is one value for each input: %s", describeInputs(c.model.sig.Inputs))
		}
		return c.read(int(i), 0)
	})
}

func (c *call) byName() error {
	return object(&c.dec, func(key []byte) error {
		i, ok := c.model.inputs[string(key)]
		if !ok {
			return unknown("input", key, names(c.model.sig.Inputs))
		}
		if c.values[i].given {
			return twice("input", key)
		}
		return c.read(i, 0)
	})
}

func (c *call) byRow() error {
	rows := int64(0)
	err := array(&c.dec, func(row int64) error {
		rows = row + 1
		if c.dec.Peek() != '{' {
			return zarpa.Errorf(zarpa.Invalid, "data: row %d is no object as those before it are", row)
		}
		if err := c.row(row); err != nil {
			return err
		}
		for i := range c.values {
			v := &c.values[i]
			if v.rows != row+1 && (v.given || !c.model.sig.Inputs[i].Optional) {
				return zarpa.Errorf(zarpa.Invalid, "data: row %d: column %q: missing", row, c.model.sig.Inputs[i].Name).
					WithHint("every row needs the same columns")
			}
		}
		return nil
	})
	for i := range c.values {
		if v := &c.values[i]; v.given {
			v.Rows(rows)
		}
	}
	return err
}

func (c *call) row(row int64) error {
	return object(&c.dec, func(key []byte) error {
		i, ok := c.model.inputs[string(key)]
		switch {
		case !ok && len(c.values) == 1:
			return zarpa.Errorf(zarpa.Invalid, "data: column %.60q: the model has no such input, its one input is %q", key, c.model.sig.Inputs[0].Name).
				WithHint("send rows as lists: its columns have an order and no names")
		case !ok:
			return unknown("column", key, names(c.model.sig.Inputs))
		case c.values[i].rows == row+1:
			return twice("column", key)
		case row > 0 && c.values[i].rows != row:
			return zarpa.Errorf(zarpa.Invalid, "data: row %d: column %q: not in the rows before", row, key).WithHint("every row needs the same columns")
		}
		c.values[i].rows = row + 1
		return c.read(i, 1)
	})
}

func (dataForm) encode(c *call) error {
	out, err := c.appendNamed(c.out[:0])
	c.out = append(out, '\n')
	return err
}

// appendNamed writes all outputs by name, each in its shape.
func (c *call) appendNamed(out []byte) ([]byte, error) {
	format := tensorjson.Format{NonFinite: c.allow}
	out = append(out, '{')
	var err error
	for i := range c.outputs {
		t := &c.outputs[i]
		if i > 0 {
			out = append(out, ',')
		}
		out, _ = tensorjson.AppendString(out, t.Name)
		if out, err = format.AppendNested(append(out, ':'), t); err != nil {
			return out, err
		}
	}
	return append(out, '}'), nil
}
