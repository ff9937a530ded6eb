// Package inputs holds a request's tensors against a model's signature, for engines: names, types,
// ranks, sizes and the amount of data, so that what reaches native code is well-formed.
package inputs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// Checker knows one signature. It does not change after it was made, and may be used by many
// goroutines.
type Checker struct {
	inputs  []zarpa.ValueInfo
	index   map[string]int
	outputs map[string]int
	// groups gives, for each input and dimension, the number of its dimension name; -1 for none.
	groups [][]int
	// dims are the dimension names that occur more than once.
	dims []string
}

// New makes the checker of a signature, which must not change any more.
func New(sig zarpa.Signature) *Checker {
	c := &Checker{inputs: sig.Inputs, index: map[string]int{}, outputs: map[string]int{}, groups: make([][]int, len(sig.Inputs))}
	count := map[string]int{}
	for i, v := range sig.Inputs {
		c.index[v.Name] = i
		for _, d := range v.Shape {
			count[d.Name]++
		}
	}
	for i, v := range sig.Outputs {
		c.outputs[v.Name] = i
	}
	for i, v := range sig.Inputs {
		c.groups[i] = make([]int, len(v.Shape))
		for j, d := range v.Shape {
			c.groups[i][j] = -1
			if d.Size >= 0 || d.Name == "" || count[d.Name] < 2 {
				continue
			}
			if c.groups[i][j] = slices.Index(c.dims, d.Name); c.groups[i][j] < 0 {
				c.groups[i][j] = len(c.dims)
				c.dims = append(c.dims, d.Name)
			}
		}
	}
	return c
}

// Seen is scratch memory: which input set the size of a named dimension.
type Seen struct {
	size  int64
	input string
}

// NewSeen makes the scratch memory of one [Checker.Place] at a time.
func (c *Checker) NewSeen() []Seen { return make([]Seen, len(c.dims)) }

// Place finds the tensor of every input: slots[i], for each input i of the signature, becomes its
// index in `in`, or -1 for an optional input that is left out or undefined. Dimensions of equal
// names must have equal sizes. The error is invalid and names the input.
func (c *Checker) Place(in []zarpa.Tensor, slots []int, seen []Seen) error {
	for i := range slots {
		slots[i] = -1
	}
	for i := range in {
		n, ok := c.index[in[i].Name]
		switch {
		case !ok:
			return c.unknownInput(in[i].Name)
		case slots[n] >= 0:
			return zarpa.Errorf(zarpa.Invalid, "input %q: given twice", in[i].Name)
		}
		if in[i].Type == zarpa.Undefined && c.inputs[n].Optional {
			continue
		}
		slots[n] = i
	}
	clear(seen)
	for n, i := range slots {
		if i < 0 {
			if c.inputs[n].Optional {
				continue
			}
			return zarpa.Errorf(zarpa.Invalid, "input %q: missing", c.inputs[n].Name).WithHint("send %s", describe(c.inputs[n]))
		}
		if err := checkValue(c.inputs[n].Name, &in[i], &c.inputs[n]); err != nil {
			return err
		}
		if err := c.checkNamed(n, in[i].Shape, seen); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checker) unknownInput(name string) error {
	names := make([]string, len(c.inputs))
	for i, v := range c.inputs {
		names[i] = v.Name
	}
	err := zarpa.Errorf(zarpa.Invalid, "input %.200q: the model has none of this name", name)
	if near := zarpa.Nearest(name, names); near != "" {
		return err.WithHint("did you mean %q?", near)
	}
	return err.WithHint("its inputs are %s", quoted(names))
}

// Want lists the wanted outputs by their index, in the signature's order, in the memory of into; no
// names mean all. The error is invalid and names the output.
func (c *Checker) Want(wanted []string, into []int) ([]int, error) {
	into, all := into[:0], len(c.outputs)
	if len(wanted) == 0 {
		for i := range all {
			into = append(into, i)
		}
		return into, nil
	}
	for _, name := range wanted {
		i, ok := c.outputs[name]
		if !ok {
			return into, c.unknownOutput(name, all)
		}
		if !slices.Contains(into, i) {
			into = append(into, i)
		}
	}
	slices.Sort(into)
	return into, nil
}

func (c *Checker) unknownOutput(name string, all int) error {
	names := make([]string, all)
	for n, i := range c.outputs {
		names[i] = n
	}
	err := zarpa.Errorf(zarpa.Invalid, "output %.200q: the model has none of this name", name)
	if near := zarpa.Nearest(name, names); near != "" {
		return err.WithHint("did you mean %q?", near)
	}
	return err.WithHint("its outputs are %s", quoted(names))
}

func (c *Checker) checkNamed(n int, shape []int64, seen []Seen) error {
	if c.inputs[n].NoShape {
		return nil
	}
	for d, group := range c.groups[n] {
		switch {
		case group < 0:
		case seen[group].input == "":
			seen[group] = Seen{shape[d], c.inputs[n].Name}
		case seen[group].size != shape[d]:
			return zarpa.Errorf(zarpa.Invalid, "input %q: dimension %d (%q) is %d, and %d in input %q", c.inputs[n].Name, d, c.dims[group], shape[d], seen[group].size, seen[group].input).
				WithHint("make dimensions of one name equal")
		}
	}
	return nil
}

// checkValue holds one value, and those inside it, against what the model takes.
func checkValue(name string, t *zarpa.Tensor, want *zarpa.ValueInfo) error {
	if t.Type != want.Type {
		return zarpa.Errorf(zarpa.Invalid, "input %q: datatype is %s, the model takes %s", name, t.Type, want.Type).WithHint("send %s", describe(*want))
	}
	switch t.Type {
	case zarpa.Undefined:
		return zarpa.Errorf(zarpa.Invalid, "input %q: the model takes a type that this engine cannot fill", name)
	case zarpa.Sequence:
		if len(t.Items) == 0 {
			return zarpa.Errorf(zarpa.Invalid, "input %q: the sequence is empty", name).WithHint("ONNX Runtime takes sequences of at least one value")
		}
		for i := range t.Items {
			if err := checkValue(fmt.Sprintf("%s[%d]", name, i), &t.Items[i], &want.Items[0]); err != nil {
				return err
			}
		}
		return nil
	case zarpa.Map:
		return checkMap(name, t, want)
	default: // what is left follows
	}
	if err := checkShape(name, t.Shape, want); err != nil {
		return err
	}
	return checkSize(name, t)
}

func checkMap(name string, t *zarpa.Tensor, want *zarpa.ValueInfo) error {
	if len(t.Items) != 2 {
		return zarpa.Errorf(zarpa.Invalid, "input %q: a map has two items, its keys and its values, and here are %d", name, len(t.Items))
	}
	keys, values := &t.Items[0], &t.Items[1]
	if keys.Type != want.Items[0].Type || values.Type != want.Items[1].Type {
		return zarpa.Errorf(zarpa.Invalid, "input %q: the map is of %s to %s, the model takes %s to %s", name, keys.Type, values.Type, want.Items[0].Type, want.Items[1].Type)
	}
	if len(keys.Shape) != 1 || !slices.Equal(keys.Shape, values.Shape) {
		return zarpa.Errorf(zarpa.Invalid, "input %q: keys of shape %v and values of shape %v are not lists of one length", name, keys.Shape, values.Shape)
	}
	if err := checkSize(name, keys); err != nil {
		return err
	}
	return checkSize(name, values)
}

func checkShape(name string, shape []int64, want *zarpa.ValueInfo) error {
	if want.NoShape {
		return nil
	}
	if len(shape) != len(want.Shape) {
		return zarpa.Errorf(zarpa.Invalid, "input %q: rank is %d (shape %v), the model takes rank %d", name, len(shape), shape, len(want.Shape)).WithHint("send %s", describe(*want))
	}
	for i, d := range want.Shape {
		if d.Size >= 0 && shape[i] != d.Size {
			return zarpa.Errorf(zarpa.Invalid, "input %q: dimension %d is %d, the model takes %d", name, i, shape[i], d.Size).WithHint("send %s", describe(*want))
		}
	}
	return nil
}

func checkSize(name string, t *zarpa.Tensor) error {
	if t.Type == zarpa.String {
		n, err := zarpa.Elements(t.Shape)
		if err != nil {
			return zarpa.Errorf(zarpa.Invalid, "input %q: %w", name, err)
		}
		if n != int64(len(t.Strings)) {
			return zarpa.Errorf(zarpa.Invalid, "input %q: %d strings, shape %v holds %d", name, len(t.Strings), t.Shape, n)
		}
		return nil
	}
	n, err := zarpa.ByteSize(t.Type, t.Shape)
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "input %q: %w", name, err)
	}
	if n != int64(len(t.Data)) {
		return zarpa.Errorf(zarpa.Invalid, "input %q: %d bytes of data, shape %v of %s takes %d", name, len(t.Data), t.Shape, t.Type, n)
	}
	return nil
}

// describe is a value in words: "FP32 of shape [batch, 4]".
func describe(v zarpa.ValueInfo) string {
	if v.Type == zarpa.Sequence || v.Type == zarpa.Map || v.NoShape {
		return v.Type.String()
	}
	dims := make([]string, len(v.Shape))
	for i, d := range v.Shape {
		switch {
		case d.Size >= 0:
			dims[i] = strconv.FormatInt(d.Size, 10)
		case d.Name != "":
			dims[i] = d.Name
		default:
			dims[i] = "any"
		}
	}
	return fmt.Sprintf("%s of shape [%s]", v.Type, strings.Join(dims, ", "))
}

// quoted lists names, not too many of them.
func quoted(names []string) string {
	const most = 12
	more := ""
	if len(names) > most {
		names, more = names[:most], ", …"
	}
	return fmt.Sprintf("%q", names) + more
}
