package score

import (
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// table is a pandas table in its "split" form as far as it is read: its fields come in any order.
type table struct {
	columns []int // for each column its input; nil when all of them are one input's last dimension
	order   []int // for each column that the one input knows its place in the table; nil as they stand
	given   bool  // the columns were named
	data    int   // where the rows begin, -1 unknown
	read    bool
}

// isTable tells {"columns": …, "index": …, "data": …} from inputs by name; the decoder stands on
// an object. A model with an input of such a name gets no table.
func (c *call) isTable() bool {
	d := &c.dec
	here := d.Offset()
	defer d.Seek(here)
	d.Seek(here + 1)
	if d.Peek() != '"' {
		return false
	}
	key, err := d.Text()
	if err != nil {
		return false
	}
	_, input := c.model.inputs[string(key)]
	return !input && slices.Contains(splitFields(), string(key))
}

func splitFields() []string { return []string{"columns", "index", "data"} }

// splitTable reads a table:
//
//	{"columns": ["x", "y"], "index": [0, 1], "data": [[1, "a"], [2, "b"]]}
//
// Columns that are named as the inputs are become them, each row one row of each. Of a model with
// one input of another name the rows are the input itself, in the order of its columns if it knows them.
func (c *call) splitTable() error {
	d := &c.dec
	t := table{data: -1}
	err := object(d, func(key []byte) error {
		switch string(key) {
		case "columns":
			t.given = true
			return c.columns(&t)
		case "index":
			return d.Skip()
		case "data":
			d.Peek()
			if t.data >= 0 {
				return twice("field", key)
			}
			t.data = d.Offset()
			if !t.given {
				return d.SkipData()
			}
			t.read = true
			return c.rowsOf(&t)
		}
		return unknown("field", key, splitFields())
	})
	switch {
	case err != nil:
		return err
	case t.data < 0:
		return zarpa.Errorf(zarpa.Invalid, "field data: missing").WithHint(`a table is {"columns": […], "data": [[…], …]}`)
	case t.read:
		return nil
	}
	if !t.given && len(c.values) > 1 { // columns are the inputs, in their order
		for i := range c.values {
			t.columns = append(t.columns, i)
		}
	}
	behind := d.Offset()
	d.Seek(t.data)
	if err := c.rowsOf(&t); err != nil {
		return err
	}
	d.Seek(behind)
	return nil
}

func (c *call) columns(t *table) error {
	var named [][]byte
	err := array(&c.dec, func(int64) error {
		if c.dec.Peek() != '"' { // pandas numbers columns without names
			named = append(named, nil)
			return c.dec.Skip()
		}
		name, err := c.dec.Text()
		named = append(named, slices.Clone(name))
		return err
	})
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(named, func(name []byte) bool { _, ok := c.model.inputs[string(name)]; return ok })
	if len(c.values) == 1 && !known {
		return c.order(t, named)
	}
	for _, name := range named {
		i, ok := c.model.inputs[string(name)]
		if !ok {
			return unknown("column", name, names(c.model.sig.Inputs))
		}
		if slices.Contains(t.columns, i) {
			return twice("column", name)
		}
		t.columns = append(t.columns, i)
	}
	return nil
}

// knownColumns are the names of the columns of the model's one input; nil where it has none.
func (c *call) knownColumns() []string {
	if len(c.model.sig.Inputs) != 1 {
		return nil
	}
	return c.model.sig.Inputs[0].Columns
}

// order finds the places of the one input's columns in a table. Of columns without names, and for an input
// without, the order is as they stand.
func (c *call) order(t *table, named [][]byte) error {
	known := c.knownColumns()
	if known == nil || slices.ContainsFunc(named, func(name []byte) bool { return name == nil }) {
		return nil
	}
	t.order = make([]int, len(known))
	for i, k := range known {
		t.order[i] = slices.IndexFunc(named, func(name []byte) bool { return string(name) == k })
		if t.order[i] < 0 {
			return zarpa.Errorf(zarpa.Invalid, "column %.60q: missing", k).WithHint("the model's columns are %s", some(known))
		}
	}
	for i, name := range named {
		switch at := slices.Index(known, string(name)); {
		case at < 0:
			return unknown("column", name, known)
		case t.order[at] != i:
			return twice("column", name)
		}
	}
	return nil
}

// some names the first few.
func some(names []string) string {
	const most = 10
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// ordered reads the rows of a table into the one input, its columns in the input's order.
func (c *call) ordered(t *table) error {
	v := &c.values[0]
	v.given = true
	known := c.knownColumns()
	offsets, at, rows := make([]int, 0, len(known)), make([]int, len(known)), int64(0)
	err := array(&c.dec, func(row int64) error {
		rows, offsets = row+1, offsets[:0]
		err := array(&c.dec, func(i int64) error {
			if i >= int64(len(known)) {
				return zarpa.Errorf(zarpa.Invalid, "data: row %d has more than %d values", row, len(known)).WithHint("every row has one value for each column")
			}
			c.dec.Peek()
			offsets = append(offsets, c.dec.Offset())
			return c.dec.SkipData()
		})
		switch {
		case err != nil:
			return err
		case len(offsets) < len(known):
			return zarpa.Errorf(zarpa.Invalid, "data: row %d has %d values, %d columns", row, len(offsets), len(known))
		}
		for i, place := range t.order {
			at[i] = offsets[place]
		}
		return c.cells(known, at)
	})
	return c.whole(rows, known, err)
}

// whole gives the one input the shape of the rows that were read into it.
func (c *call) whole(rows int64, columns []string, err error) error {
	v := &c.values[0]
	if err == nil && v.Elements() != rows*int64(len(columns)) {
		return zarpa.Errorf(zarpa.Invalid, "a value is an array").WithHint("a cell of a table is one element")
	}
	v.Reshape([]int64{rows, int64(len(columns))})
	return err
}

// rowsOf reads the rows of a table.
func (c *call) rowsOf(t *table) error {
	if t.order != nil {
		return c.ordered(t)
	}
	if t.columns == nil {
		return c.read(0, 0)
	}
	rows := int64(0)
	err := array(&c.dec, func(row int64) error {
		rows = row + 1
		cells := 0
		err := array(&c.dec, func(i int64) error {
			if i >= int64(len(t.columns)) {
				return zarpa.Errorf(zarpa.Invalid, "data: row %d has more than %d values", row, len(t.columns)).WithHint("every row has one value for each column")
			}
			cells++
			c.values[t.columns[i]].rows = rows
			return c.read(t.columns[i], 1)
		})
		if err == nil && cells < len(t.columns) {
			return zarpa.Errorf(zarpa.Invalid, "data: row %d has %d values, %d columns", row, cells, len(t.columns))
		}
		return err
	})
	for _, i := range t.columns {
		c.values[i].given = true
		c.values[i].Rows(rows)
	}
	return err
}

// records reads rows that are objects. Their keys are inputs or, of a model with one input of
// another name, its columns in the order of the first row.
func (c *call) records() error {
	columns, places, err := c.firstKeys()
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(columns, func(name string) bool { _, ok := c.model.inputs[name]; return ok })
	if known || len(c.values) != 1 {
		return c.byRow()
	}
	if names := c.knownColumns(); names != nil {
		for _, name := range columns {
			if !slices.Contains(names, name) {
				return unknown("column", []byte(name), names)
			}
		}
		columns, places = names, make(map[string]int, len(names))
		for i, name := range names {
			places[name] = i
		}
	}
	return c.matrix(columns, places)
}

// firstKeys are the keys of the first row, and the place of each among them; the decoder stays where
// the rows begin.
func (c *call) firstKeys() (columns []string, places map[string]int, err error) {
	d := &c.dec
	if d.Peek() != '[' {
		return nil, nil, d.Unexpected("an array of rows")
	}
	here := d.Offset()
	defer d.Seek(here)
	d.Seek(here + 1)
	if d.Peek() != '{' {
		return nil, nil, d.Unexpected("a row, which is an object")
	}
	places = map[string]int{}
	err = object(d, func(key []byte) error {
		if _, given := places[string(key)]; given {
			return twice("column", key)
		}
		name := string(key)
		places[name] = len(columns)
		columns = append(columns, name)
		return d.SkipData()
	})
	return columns, places, err
}

// matrix reads records as the rows of the one input.
func (c *call) matrix(columns []string, places map[string]int) error {
	d, v := &c.dec, &c.values[0]
	v.given = true
	at := make([]int, len(columns))
	rows := int64(0)
	err := array(d, func(row int64) error {
		rows = row + 1
		if d.Peek() != '{' {
			return zarpa.Errorf(zarpa.Invalid, "row %d is no object as those before it are", row)
		}
		clear(at)
		err := object(d, func(key []byte) error {
			i, ok := places[string(key)]
			switch {
			case !ok:
				return zarpa.Errorf(zarpa.Invalid, "row %d: column %.60q: not in the first row", row, key).WithHint("every row needs the same columns")
			case at[i] > 0:
				return twice("column", key)
			}
			d.Peek()
			at[i] = d.Offset()
			return d.SkipData()
		})
		if err != nil {
			return err
		}
		return c.cells(columns, at)
	})
	return c.whole(rows, columns, err)
}

// cells reads the values of one row, which stand at the offsets.
func (c *call) cells(columns []string, at []int) error {
	behind := c.dec.Offset()
	for i, offset := range at {
		if offset == 0 {
			return zarpa.Errorf(zarpa.Invalid, "column %q: missing", columns[i]).WithHint("every row needs the same columns")
		}
		c.dec.Seek(offset)
		if err := c.read(0, 1); err != nil {
			return err
		}
	}
	c.dec.Seek(behind)
	return nil
}
