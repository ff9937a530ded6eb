package modelfile

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// The bounds of the scan of a pickle. Only what tells classes, versions and the sizes of joblib's
// arrays is kept of it: what is beyond a bound is stepped over unread.
const (
	maxPickleText  = 512      // bytes of a text that are kept
	maxPickleTexts = 16 << 20 // bytes of all texts kept
	maxPickleStack = 1 << 19  // values and marks
	maxPickleMemo  = 1 << 18  // values kept for later use
	maxPickleItems = 32       // values of one tuple: NumPy's greatest rank
	maxPickleDepth = 8        // pickles inside each other: joblib writes arrays of objects so
	maxGlobals     = 4096     // classes and functions
)

// scan is what a pickle would do, found without doing it: Python's own reader calls what the file
// names.
type scan struct {
	// globals are the classes and functions that the file imports, as "module name", sorted.
	globals []string
	// class is the class of the object in the file, as in globals, empty where it is no object of a
	// class; kind then says what it is.
	class string
	kind  string
	// sklearn is scikit-learn's version, which its estimators note of themselves.
	sklearn string
	// table says that an estimator in it was fitted on a table, and wants one again.
	table bool
}

// findings gathers a scan over all pickles of a file.
type findings struct {
	globals map[string]bool
	sklearn string
	table   bool
	texts   int
}

// scanPickle reads a pickle or joblib file, not compressed. A file that is longer than maxScan without
// its arrays is judged by its beginning.
func scanPickle(s *stream) (scan, error) {
	found := &findings{globals: map[string]bool{}}
	m := &machine{in: s, found: found}
	top, err := m.run()
	switch {
	case errors.Is(err, errEnough):
		top = m.bottom()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return scan{}, zarpa.Errorf(zarpa.Invalid, "a truncated pickle: it ends at byte %d", s.pos).WithHint("copy or save the model again")
	case errors.As(err, new(*zarpa.Error)):
		return scan{}, err
	case err != nil:
		return scan{}, zarpa.Errorf(zarpa.Invalid, "cannot be read at byte %d", s.pos).Because(err)
	}
	out := scan{sklearn: found.sklearn, table: found.table, kind: top.kind.String()}
	for g := range found.globals {
		out.globals = append(out.globals, g)
	}
	slices.Sort(out.globals)
	if top.kind == kindObject {
		out.class = top.obj.class
	}
	return out, nil
}

// pickleKind is what a value on the machine's stack is.
type pickleKind uint8

const (
	kindOther  pickleKind = iota // of no interest
	kindText                     // text
	kindInt                      // number
	kindTuple                    // obj.items
	kindDict                     // obj's fields
	kindGlobal                   // text is "module name"
	kindObject                   // obj.class and, of NumPy's dtypes, obj.size
	kindList
)

func (k pickleKind) String() string {
	return [...]string{"a plain value", "a text", "a number", "a tuple", "a dict", "a class or function", "an object", "a list"}[k]
}

// pickled is a value on the machine's stack.
type pickled struct {
	kind   pickleKind
	number int64
	text   string
	obj    *pickledObject
}

type pickledObject struct {
	class string
	items []pickled
	// of a dict
	shape, dtype, align pickled
	// of a NumPy dtype: bytes of an element, and whether elements are Python objects
	size    int64
	objects bool
}

// machine follows a pickle's instructions as far as they move values about.
type machine struct {
	in    *stream
	found *findings
	stack []pickled
	marks []int
	memo  map[uint64]pickled
	next  uint64 // key of the next MEMOIZE
	depth int    // of pickles around this one
	done  bool
	array *pickledObject // joblib's description of an array whose bytes come next
}

func (m *machine) run() (pickled, error) {
	m.memo = map[uint64]pickled{}
	for !m.done {
		at := m.in.pos
		op, err := m.in.byte()
		if err != nil {
			return pickled{}, err
		}
		step := opcodes[op]
		if step == nil {
			return pickled{}, brokenPickle(at)
		}
		if err := step(m); err != nil {
			return pickled{}, err
		}
		if len(m.stack)+len(m.marks) > maxPickleStack {
			return pickled{}, zarpa.Errorf(zarpa.Invalid, "a pickle with more than %d values at a time", maxPickleStack)
		}
		if m.array != nil {
			if err := m.stepOver(m.array); err != nil {
				return pickled{}, err
			}
			m.array = nil
		}
	}
	return m.pop()
}

// bottom is the value that a pickle which was not read to its end began with.
func (m *machine) bottom() pickled {
	if m.depth > 0 || len(m.stack) == 0 {
		return pickled{}
	}
	return m.stack[0]
}

func brokenPickle(at int64) error {
	return zarpa.Errorf(zarpa.Invalid, "not a Python pickle, or a damaged one: no valid instruction at byte %d", at).WithHint("save the model again")
}

func (m *machine) push(v pickled) { m.stack = append(m.stack, v) }

func (m *machine) pop() (pickled, error) {
	floor := 0
	if len(m.marks) > 0 {
		floor = m.marks[len(m.marks)-1]
	}
	if len(m.stack) <= floor {
		return pickled{}, brokenPickle(m.in.pos)
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v, nil
}

// popMark is all values since the last mark, valid until the next push.
func (m *machine) popMark() ([]pickled, error) {
	if len(m.marks) == 0 {
		return nil, brokenPickle(m.in.pos)
	}
	at := m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	items := m.stack[at:]
	m.stack = m.stack[:at]
	return items, nil
}

func (m *machine) top() (*pickled, error) {
	v, err := m.pop()
	if err != nil {
		return nil, err
	}
	m.push(v)
	return &m.stack[len(m.stack)-1], nil
}

// keep remembers the top value under a key.
func (m *machine) keep(key uint64) error {
	v, err := m.top()
	if err == nil && v.kind != kindOther && len(m.memo) < maxPickleMemo {
		m.memo[key] = *v
	}
	return err
}

// text makes a text value, without the text once there are too many of them.
func (m *machine) text(n uint64) error {
	most := maxPickleText
	if m.found.texts > maxPickleTexts {
		most = 0
	}
	s, err := m.in.text(n, most)
	m.found.texts += len(s)
	m.push(pickled{kind: kindText, text: s})
	return err
}

func (m *machine) global(module, name string) {
	g := module + " " + name
	if len(m.found.globals) < maxGlobals {
		m.found.globals[g] = true
	}
	m.push(pickled{kind: kindGlobal, text: g})
}

// set notes an entry of a dict.
func (m *machine) set(dict *pickled, key, value pickled) {
	if key.kind != kindText {
		return
	}
	if key.text == "_sklearn_version" && value.kind == kindText {
		m.found.sklearn = value.text
	}
	if key.text == "feature_names_in_" {
		m.found.table = true
	}
	if dict.kind != kindDict {
		return
	}
	switch key.text {
	case "shape":
		dict.obj.shape = value
	case "dtype":
		dict.obj.dtype = value
	case "numpy_array_alignment_bytes":
		dict.obj.align = value
	}
}

// called is what a class or function gives when it is called.
func called(function pickled, args []pickled) pickled {
	o := &pickledObject{class: function.text}
	if function.kind != kindGlobal {
		return pickled{}
	}
	switch {
	case strings.HasPrefix(function.text, "copy_reg ") || strings.HasPrefix(function.text, "copyreg "):
		if len(args) > 0 && args[0].kind == kindGlobal {
			o.class = args[0].text
		}
	case function.text == "numpy dtype" && len(args) > 0:
		o.size, o.objects = elementSize(args[0].text)
	}
	return pickled{kind: kindObject, obj: o}
}
