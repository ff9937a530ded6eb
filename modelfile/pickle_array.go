package modelfile

import (
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// isArray tells joblib's description of an array, in joblib itself and in the copy of it that
// scikit-learn had before version 0.23.
func isArray(class string) bool {
	return strings.HasSuffix(class, "joblib.numpy_pickle NumpyArrayWrapper")
}

// elementSize reads NumPy's short name of a type, such as "f8", "U12" or "O8".
func elementSize(name string) (size int64, objects bool) {
	if name == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(name[1:], 10, 32)
	if err != nil || n < 0 {
		return 0, false
	}
	switch name[0] {
	case 'O':
		return n, true
	case 'U':
		return 4 * n, false
	}
	return n, false
}

// build gives an object its state.
func (m *machine) build() error {
	state, err := m.pop()
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil || v.kind != kindObject {
		return err
	}
	switch {
	case v.obj.class == "numpy dtype" && state.kind == kindTuple && len(state.obj.items) >= 8:
		const size, flags, hasObjects = 5, 7, 1 // places in the state, and a bit of the flags
		if n := state.obj.items[size].number; n > 0 {
			v.obj.size = n
		}
		v.obj.objects = v.obj.objects || state.obj.items[flags].number&hasObjects != 0
	case isArray(v.obj.class) && state.kind == kindDict:
		m.array = state.obj
	}
	return nil
}

// stepOver passes the bytes of an array, which joblib writes behind its description: an object array as
// a pickle of its own, others as they are in memory, behind as many bytes as align them.
func (m *machine) stepOver(array *pickledObject) error {
	dtype := array.dtype.obj
	if array.dtype.kind != kindObject || dtype.class != "numpy dtype" {
		return brokenPickle(m.in.pos)
	}
	if dtype.objects {
		if m.depth+1 > maxPickleDepth {
			return zarpa.Errorf(zarpa.Invalid, "pickles nested more than %d deep", maxPickleDepth)
		}
		inner := &machine{in: m.in, found: m.found, depth: m.depth + 1}
		_, err := inner.run()
		return err
	}
	var dims []int64
	switch array.shape.kind {
	case kindTuple:
		for _, d := range array.shape.obj.items {
			dims = append(dims, d.number)
		}
	case kindInt:
		dims = []int64{array.shape.number}
	default:
		return brokenPickle(m.in.pos)
	}
	elements, err := zarpa.Elements(dims)
	if err != nil || dtype.size <= 0 || elements > (1<<62)/dtype.size {
		return brokenPickle(m.in.pos)
	}
	if array.align.kind == kindInt {
		padding, err := m.in.byte()
		if err != nil {
			return err
		}
		if err := m.in.skip(uint64(padding)); err != nil {
			return err
		}
	}
	return m.in.skip(uint64(elements * dtype.size))
}
