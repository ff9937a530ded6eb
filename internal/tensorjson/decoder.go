// Package tensorjson reads and writes tensors as JSON, straight between the text and the bytes
// that an engine takes: numbers go into the little-endian Data of a [zarpa.Tensor] without
// passing through interface values, reflection or strings.
//
// [Decoder] walks a JSON text in memory, [Builder] takes the elements of one tensor and infers its
// shape from the nesting, [Format] writes tensors. The grammar is RFC 8259, strictly; bare NaN,
// Infinity and -Infinity are understood too, and reported, so that a caller decides. The package
// knows nothing of HTTP and nothing of the bodies that tensors stand in.
package tensorjson

import (
	"unicode/utf8"

	"github.com/zarpa-dev/zarpa"
)

// MaxDepth is how deep objects and arrays may nest in a text.
const MaxDepth = 100

// Decoder walks one JSON text. The caller asks for what it expects, in the text's order; an
// unexpected value is an invalid error that names the place. It allocates only what it returns and
// errors. The zero value reads an empty text; a Decoder is for one goroutine.
type Decoder struct {
	buf   []byte
	pos   int
	depth int
	fresh bool // the innermost open object or array has had no member yet
}

// Reset starts on a new text, which the caller leaves unchanged until it is read.
func (d *Decoder) Reset(text []byte) { *d = Decoder{buf: text} }

// Offset is where the decoder stands; [Decoder.Seek] goes back there.
func (d *Decoder) Offset() int { return d.pos }

// Seek goes back to an offset at which a value begins. The nesting that the decoder counts stays
// as it is: seek to a value, read that value whole, and seek to where you were.
func (d *Decoder) Seek(offset int) { d.pos = offset }

// Peek is the first byte of what comes next, white space left out, and 0 at the end of the text.
func (d *Decoder) Peek() byte {
	for d.pos < len(d.buf) {
		switch c := d.buf[d.pos]; c {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return c
		}
	}
	return 0
}

// BeginObject enters an object; then [Decoder.Key] gives its keys.
func (d *Decoder) BeginObject() error { return d.begin('{', "an object") }

// BeginArray enters an array; then [Decoder.More] says whether there is another value.
func (d *Decoder) BeginArray() error { return d.begin('[', "an array") }

func (d *Decoder) begin(open byte, want string) error {
	if d.Peek() != open {
		return d.Unexpected(want)
	}
	if d.depth++; d.depth > MaxDepth {
		return zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: nested deeper than %d levels", d.pos, MaxDepth)
	}
	d.pos++
	d.fresh = true
	return nil
}

// Key gives the next key of the innermost object and stands before its value; ok is false behind
// the last one. The bytes are valid until the text changes. The caller reads or skips the value
// before it asks again.
func (d *Decoder) Key() (key []byte, ok bool, err error) {
	more, err := d.next('}', "a comma or the end of the object")
	if !more || err != nil {
		return nil, false, err
	}
	if d.Peek() != '"' {
		return nil, false, d.Unexpected("a key in double quotes")
	}
	if key, err = d.Text(); err != nil {
		return nil, false, err
	}
	if d.Peek() != ':' {
		return nil, false, d.Unexpected("a colon behind the key")
	}
	d.pos++
	return key, true, nil
}

// More reports whether the innermost array has another value, and stands before it.
func (d *Decoder) More() (bool, error) {
	return d.next(']', "a comma or the end of the array")
}

func (d *Decoder) next(closing byte, want string) (bool, error) {
	fresh := d.fresh
	d.fresh = false
	switch c := d.Peek(); {
	case c == closing:
		d.pos++
		d.depth--
		return false, nil
	case fresh:
		return true, nil
	case c != ',':
		return false, d.Unexpected(want)
	}
	d.pos++
	if d.Peek() == closing {
		return false, d.Unexpected("another value behind the comma")
	}
	return true, nil
}

// End checks that nothing but white space follows.
func (d *Decoder) End() error {
	if d.Peek() != 0 || d.pos < len(d.buf) {
		return d.Unexpected("the end of the text")
	}
	return nil
}

// String reads a string and returns a copy.
func (d *Decoder) String() (string, error) {
	if d.Peek() != '"' {
		return "", d.Unexpected("a string")
	}
	b, err := d.Text()
	return string(b), err
}

// Bool reads true or false.
func (d *Decoder) Bool() (bool, error) {
	switch {
	case d.Peek() == 't' && d.literal("true"):
		return true, nil
	case d.Peek() == 'f' && d.literal("false"):
		return false, nil
	}
	return false, d.Unexpected("true or false")
}

// Int64 reads a whole number.
func (d *Decoder) Int64() (int64, error) {
	d.Peek()
	n, end := scanInteger(d.buf, d.pos)
	if end < 0 {
		return 0, d.Unexpected("a whole number")
	}
	v, ok := n.int64()
	if !ok {
		return 0, zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: %s is not a whole number of 64 bits", d.pos, excerpt(d.buf[d.pos:end]))
	}
	d.pos = end
	return v, nil
}

// Skip passes over one value of any kind, checking its grammar.
func (d *Decoder) Skip() error { return d.skip(false) }

// SkipData is [Decoder.Skip] for a tensor that is read later: NaN and infinities may be in it.
func (d *Decoder) SkipData() error { return d.skip(true) }

func (d *Decoder) skip(lax bool) error {
	switch c := d.Peek(); {
	case c == '{':
		return d.skipObject(lax)
	case c == '[':
		return d.skipArray(lax)
	case c == '"':
		_, err := d.Text()
		return err
	case c == '-' || c >= '0' && c <= '9':
		if _, end := scanNumber(d.buf, d.pos); end > 0 {
			d.pos = end
			return nil
		}
	case d.literal("true") || d.literal("false") || d.literal("null"):
		return nil
	}
	if lax {
		if _, ok := d.nonFinite(); ok {
			return nil
		}
	}
	return d.Unexpected("a value")
}

func (d *Decoder) skipObject(lax bool) error {
	if err := d.BeginObject(); err != nil {
		return err
	}
	for {
		_, ok, err := d.Key()
		if !ok || err != nil {
			return err
		}
		if err := d.skip(lax); err != nil {
			return err
		}
	}
}

func (d *Decoder) skipArray(lax bool) error {
	if err := d.BeginArray(); err != nil {
		return err
	}
	for {
		more, err := d.More()
		if !more || err != nil {
			return err
		}
		if err := d.skip(lax); err != nil {
			return err
		}
	}
}

func (d *Decoder) literal(word string) bool {
	end := d.pos + len(word)
	if end > len(d.buf) || string(d.buf[d.pos:end]) != word {
		return false
	}
	d.pos = end
	return true
}

// Unexpected is the error for what stands here in place of want.
func (d *Decoder) Unexpected(want string) *zarpa.Error {
	c := d.Peek()
	if d.pos >= len(d.buf) {
		return zarpa.Errorf(zarpa.Invalid, "JSON: the text ends at byte %d where %s is expected", d.pos, want)
	}
	return zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: %s where %s is expected", d.pos, d.describe(c), want)
}

// describe names what begins with c, for error texts.
func (d *Decoder) describe(c byte) string {
	switch {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f' || c == 'n' || c == 'N' || c == 'I' || c == '-' || c >= '0' && c <= '9':
		end := d.pos
		for end < len(d.buf) && !isDelimiter(d.buf[end]) {
			end++
		}
		return excerpt(d.buf[d.pos:end])
	}
	r, _ := utf8.DecodeRune(d.buf[d.pos:])
	return "the character " + quoteRune(r)
}

func isDelimiter(c byte) bool {
	switch c {
	case ',', ']', '}', '[', '{', ':', '"', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}
