package score

import (
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// invocationForm is the body of MLflow's /invocations:
//
//	{"dataframe_split": {"columns": […], "data": [[…], …]}}   a table
//	{"dataframe_records": [{"x": 1, "y": "a"}, …]}            rows of named columns
//	{"instances": [[…], …]} or {"instances": [{"x": …}, …]}   rows, as in TensorFlow Serving
//	{"inputs": T} or {"inputs": {"x": T1, "y": T2}}           the one input, or inputs by name
//
// and beside it "params", which no model here has, and "parameters", of which allow_nan
// counts. A model that is an object with methods predicts. The answer is {"predictions": …}: the
// one output, nested in its shape, or an object of all by name.
type invocationForm struct{}

var _ codec = invocationForm{}

func invocationFields() []string {
	return []string{"dataframe_split", "dataframe_records", "instances", "inputs", "params"}
}

func (invocationForm) decode(c *call, _ *http.Request) error {
	d := &c.dec
	found := false
	err := object(d, func(key []byte) error {
		switch string(key) {
		case "params", "signature_name":
			return d.Skip()
		case "parameters": // ours, for what the other forms have them for
			return c.requestParameters()
		}
		read, ok := map[string]func() error{
			"dataframe_split": c.splitTable, "dataframe_records": c.records, "instances": c.instances, "inputs": c.namedOrOne,
		}[string(key)]
		switch {
		case !ok:
			return unknown("field", key, invocationFields())
		case found:
			return zarpa.Errorf(zarpa.Invalid, "field %.60q: the body has inputs already", key).WithHint("send one of %s", strings.Join(invocationFields()[:4], ", "))
		}
		found = true
		return read()
	})
	switch {
	case err != nil:
		return err
	case !found:
		return zarpa.Errorf(zarpa.Invalid, "no inputs").WithHint("send one of %s", strings.Join(invocationFields()[:4], ", "))
	}
	if err := c.chooseMethod("", invocationMethods()); err != nil {
		return err
	}
	return d.End()
}

// instances reads rows: of inputs by name, or of the one input.
func (c *call) instances() error {
	d := &c.dec
	if d.Peek() == '[' {
		here := d.Offset()
		d.Seek(here + 1)
		first := d.Peek()
		d.Seek(here)
		if first == '{' {
			return c.records()
		}
	}
	return c.one()
}

func (c *call) namedOrOne() error {
	if c.dec.Peek() == '{' {
		return c.byName()
	}
	return c.one()
}

// one reads the value of the model's one input.
func (c *call) one() error {
	if len(c.values) != 1 {
		return zarpa.Errorf(zarpa.Invalid, "the model has %d inputs", len(c.values)).
			WithHint("send them by name: %s", describeInputs(c.model.sig.Inputs))
	}
	return c.read(0, 0)
}

func (invocationForm) encode(c *call) error {
	out := append(c.out[:0], `{"predictions":`...)
	if len(c.outputs) == 1 {
		var err error
		if out, err = (tensorjson.Format{NonFinite: c.allow}).AppendNested(out, &c.outputs[0]); err != nil {
			return err
		}
		c.out = append(out, '}', '\n')
		return nil
	}
	out, err := c.appendNamed(out)
	c.out = append(out, '}', '\n')
	return err
}
