package tensorjson

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// MaxRank is how deep the arrays of one tensor may nest.
const MaxRank = 32

// Builder takes the elements of one tensor from a [Decoder]. It is reused by [Builder.Reset],
// which keeps the memory: what it gave out before is overwritten then.
type Builder struct {
	typ     zarpa.ElementType
	data    []byte
	strings []string
	dims    [MaxRank]int64
	at      [MaxRank]int64 // where the decoder is, for messages
	rank    int            // -1 until the first element or empty array tells
	leaf    int64          // number of elements before the innermost array
	n       int64
	odd     int64 // the first element that is no finite number, -1 for none
}

// Reset empties the builder for elements of type t.
func (b *Builder) Reset(t zarpa.ElementType) {
	clear(b.strings)
	b.typ, b.data, b.strings = t, b.data[:0], b.strings[:0]
	b.rank, b.leaf, b.n, b.odd = -1, 0, 0, -1
	for i := range b.dims {
		b.dims[i] = -1
	}
}

// Shape is the shape that the nesting has: none for a bare element. It is the builder's memory.
func (b *Builder) Shape() []int64 { return b.dims[:max(b.rank, 0)] }

// Elements is the number of elements so far.
func (b *Builder) Elements() int64 { return b.n }

// Data is the elements' bytes, nil for strings. It is the builder's memory.
func (b *Builder) Data() []byte {
	if b.typ == zarpa.String {
		return nil
	}
	return b.data
}

// Strings are the elements of a tensor of strings. It is the builder's memory.
func (b *Builder) Strings() []string { return b.strings }

// Size is how many bytes the builder holds on to.
func (b *Builder) Size() int { return cap(b.data) + 16*cap(b.strings) }

// Rows sets the first dimension, for a tensor whose rows were appended at level 1.
func (b *Builder) Rows(n int64) {
	b.dims[0] = n
	b.rank = max(b.rank, 1)
}

// NonFinite is nil when every element was a finite number, else the error that refuses it.
func (b *Builder) NonFinite() error {
	if b.odd < 0 {
		return nil
	}
	return zarpa.Errorf(zarpa.Invalid, "element %d: JSON has no NaN and no infinity", b.odd).
		WithHint("send finite numbers, or set parameters.allow_nan to true")
}

// Append reads one value, an element or nested arrays of them, into b. Level 0 is the whole
// tensor; level 1 is one row of a tensor whose rows come one by one, all of one shape.
//
// Errors are invalid and name the element by its indexes: rows of different length, a value of
// another kind, a whole number out of the type's range, a fraction for a whole number. FP16 and
// BF16 are rounded from the number written.
func (d *Decoder) Append(b *Builder, level int) error {
	if !readable(b.typ) {
		return zarpa.Errorf(zarpa.Invalid, "datatype %v cannot be written in JSON", b.typ)
	}
	if level == 1 {
		b.at[0] = b.dims[0] + 1
		b.dims[0] = b.at[0]
	}
	if d.Peek() == '[' {
		return d.array(b, level)
	}
	b.leaf = b.n
	if err := b.settle(level, level); err != nil {
		return err
	}
	return d.element(b)
}

// settle makes the first element, or the first empty array, say what the rank is.
func (b *Builder) settle(rank, level int) error {
	if b.rank < 0 {
		b.rank = rank
		return nil
	}
	if b.rank != rank {
		return zarpa.Errorf(zarpa.Invalid, "%s is nested %d deep, %d expected", b.place(level), rank, b.rank).
			WithHint("all rows need the same shape")
	}
	return nil
}

func (d *Decoder) array(b *Builder, level int) error {
	if level >= MaxRank {
		return zarpa.Errorf(zarpa.Invalid, "a tensor nested deeper than %d levels", MaxRank)
	}
	d.pos++
	switch d.Peek() {
	case ']':
		d.pos++
		if err := b.settle(max(level+1, b.rank), level); err != nil {
			return err
		}
		return b.close(level, 0)
	case '[':
		return d.rows(b, level)
	}
	if err := b.settle(level+1, level); err != nil {
		return err
	}
	b.leaf = b.n
	for {
		if err := d.element(b); err != nil {
			return err
		}
		switch d.Peek() {
		case ',':
			d.pos++
			d.Peek()
		case ']':
			d.pos++
			return b.close(level, b.n-b.leaf)
		default:
			return d.Unexpected("a comma or the end of the array")
		}
	}
}

// rows reads an array of arrays, from its first inner one.
func (d *Decoder) rows(b *Builder, level int) error {
	for count := int64(0); ; {
		b.at[level] = count
		if d.Peek() != '[' {
			return zarpa.Errorf(zarpa.Invalid, "%s is %s where an array is expected", b.place(level+1), d.describe(d.Peek())).
				WithHint("all rows need the same shape")
		}
		if err := d.array(b, level+1); err != nil {
			return err
		}
		count++
		switch d.Peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return b.close(level, count)
		default:
			return d.Unexpected("a comma or the end of the array")
		}
	}
}

// close ends an array of count values.
func (b *Builder) close(level int, count int64) error {
	if b.dims[level] < 0 {
		b.dims[level] = count
		return nil
	}
	if b.dims[level] != count {
		return zarpa.Errorf(zarpa.Invalid, "row %s has %d values, %d expected", b.place(level), count, b.dims[level]).
			WithHint("all rows need the same length")
	}
	return nil
}

// place names what is being read by its indexes, down to a level: "[3][0]".
func (b *Builder) place(level int) string {
	if level == 0 {
		return "the value"
	}
	var s strings.Builder
	for i := range level {
		s.WriteByte('[')
		s.WriteString(strconv.FormatInt(b.at[i], 10))
		s.WriteByte(']')
	}
	return s.String()
}

// element reads one element; the decoder stands on its first byte.
func (d *Decoder) element(b *Builder) error {
	switch b.typ {
	case zarpa.Float32:
		n, end := scanNumber(d.buf, d.pos)
		if end < 0 {
			return d.odd(b)
		}
		f, ok := n.float32(d.buf[d.pos:end])
		if !ok {
			return d.outOfRange(b, end)
		}
		b.data = binary.LittleEndian.AppendUint32(b.data, math.Float32bits(f))
		d.pos = end
	case zarpa.Float64, zarpa.Float16, zarpa.BFloat16:
		return d.float(b)
	case zarpa.Bool:
		v, err := d.Bool()
		if err != nil {
			return d.badElement(b, "true or false")
		}
		b.data = append(b.data, bit(v))
	case zarpa.String:
		if d.Peek() != '"' {
			return d.badElement(b, "a string")
		}
		text, err := d.Text()
		if err != nil {
			return err
		}
		b.strings = append(b.strings, string(text))
	default:
		return d.integer(b)
	}
	b.n++
	return nil
}

// readable reports whether elements of a type have a form in JSON.
func readable(t zarpa.ElementType) bool {
	switch t {
	case zarpa.Bool, zarpa.String, zarpa.Float16, zarpa.BFloat16, zarpa.Float32, zarpa.Float64:
		return true
	default: // what is left follows
	}
	_, _, whole := integerRange(t)
	return whole
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func (d *Decoder) float(b *Builder) error {
	n, end := scanNumber(d.buf, d.pos)
	if end < 0 {
		return d.odd(b)
	}
	f, ok := n.float64(d.buf[d.pos:end])
	if !ok || !b.appendFloat(f) {
		return d.outOfRange(b, end)
	}
	d.pos = end
	b.n++
	return nil
}

func (b *Builder) appendFloat(f float64) (ok bool) {
	var h uint16
	switch b.typ {
	case zarpa.Float32:
		b.data = binary.LittleEndian.AppendUint32(b.data, math.Float32bits(float32(f)))
		return true
	case zarpa.Float64:
		b.data = binary.LittleEndian.AppendUint64(b.data, math.Float64bits(f))
		return true
	case zarpa.Float16:
		h, ok = toHalf(f)
	default:
		h, ok = toBFloat(f)
	}
	b.data = binary.LittleEndian.AppendUint16(b.data, h)
	return ok
}

// odd reads NaN and infinities, which the caller of [Builder.NonFinite] refuses or takes.
func (d *Decoder) odd(b *Builder) error {
	f, ok := d.nonFinite()
	if !ok {
		return d.badElement(b, "a number")
	}
	if b.odd < 0 {
		b.odd = b.n
	}
	b.appendFloat(f)
	b.n++
	return nil
}

func (d *Decoder) nonFinite() (float64, bool) {
	switch {
	case d.literal("NaN"):
		return math.NaN(), true
	case d.literal("Infinity"):
		return math.Inf(1), true
	case d.literal("-Infinity"):
		return math.Inf(-1), true
	}
	return 0, false
}

// integerRange holds the smallest and the largest value of the types of whole numbers.
func integerRange(t zarpa.ElementType) (low int64, high uint64, ok bool) {
	switch t {
	case zarpa.Int64:
		return math.MinInt64, math.MaxInt64, true
	case zarpa.Uint64:
		return 0, math.MaxUint64, true
	case zarpa.Int4, zarpa.Int8, zarpa.Int16, zarpa.Int32:
		half := int64(1) << (t.Bits() - 1)
		return -half, uint64(half - 1), true
	case zarpa.Uint4, zarpa.Uint8, zarpa.Uint16, zarpa.Uint32:
		return 0, 1<<t.Bits() - 1, true
	default: // what is left follows
	}
	return 0, 0, false
}

func (d *Decoder) integer(b *Builder) error {
	low, high, _ := integerRange(b.typ)
	n, end := scanInteger(d.buf, d.pos)
	if end < 0 {
		return d.badElement(b, "a whole number")
	}
	m, whole := n.whole()
	if n.neg {
		whole = whole && m <= uint64(-(low+1))+1 && (low < 0 || m == 0)
	} else {
		whole = whole && m <= high
	}
	if !whole {
		if n.fraction() {
			return zarpa.Errorf(zarpa.Invalid, "element %s: %s has a fraction, %v takes whole numbers", b.element(), excerpt(d.buf[d.pos:end]), b.typ)
		}
		return d.outOfRange(b, end)
	}
	if n.neg {
		m = -m
	}
	b.appendInteger(m)
	d.pos = end
	b.n++
	return nil
}

func (b *Builder) appendInteger(m uint64) {
	switch b.typ.Bits() {
	case 4:
		if b.n%2 == 0 {
			b.data = append(b.data, byte(m&15))
		} else {
			b.data[len(b.data)-1] |= byte(m&15) << 4
		}
	case 8:
		b.data = append(b.data, byte(m))
	case 16:
		b.data = binary.LittleEndian.AppendUint16(b.data, uint16(m))
	case 32:
		b.data = binary.LittleEndian.AppendUint32(b.data, uint32(m))
	default:
		b.data = binary.LittleEndian.AppendUint64(b.data, m)
	}
}

// element names the element that is being read.
func (b *Builder) element() string {
	if b.rank > 1 {
		b.at[b.rank-1] = b.n - b.leaf
		return b.place(b.rank)
	}
	return "[" + strconv.FormatInt(b.n, 10) + "]"
}

func (d *Decoder) outOfRange(b *Builder, end int) error {
	text := excerpt(d.buf[d.pos:end])
	if low, high, ok := integerRange(b.typ); ok {
		return zarpa.Errorf(zarpa.Invalid, "element %s: %s is out of range for %v (%d to %d)", b.element(), text, b.typ, low, high)
	}
	return zarpa.Errorf(zarpa.Invalid, "element %s: %s is out of range for %v", b.element(), text, b.typ)
}

func (d *Decoder) badElement(b *Builder, want string) error {
	c := d.Peek()
	switch {
	case d.pos >= len(d.buf):
		return d.Unexpected(want)
	case c == '[':
		return zarpa.Errorf(zarpa.Invalid, "element %s is an array where %s is expected", b.element(), want).WithHint("all rows need the same shape")
	case d.literal("NaN"), d.literal("Infinity"), d.literal("-Infinity"):
		return zarpa.Errorf(zarpa.Invalid, "element %s: %v has no NaN and no infinity", b.element(), b.typ)
	}
	return zarpa.Errorf(zarpa.Invalid, "element %s: %s where %s is expected", b.element(), d.describe(c), want)
}

// Reshape gives the elements another shape of as many elements, for data that were written flat.
func (b *Builder) Reshape(shape []int64) {
	b.rank = copy(b.dims[:], shape)
}
