package modelfile

import (
	"encoding/binary"
	"math"
	"strconv"
)

// ubjsonWalk reads a document of Universal Binary JSON, draft 12, in one pass, stepping over arrays of one
// type. Numbers are big-endian.
type ubjsonWalk struct {
	trail
	in *stream
}

const ubjsonName = "UBJSON"

// walkUBJSON gives each scalar to visit, but for the elements of arrays that declare their type.
func walkUBJSON(in *stream, visit visitor) error {
	w := &ubjsonWalk{trail: trail{visit: visit}, in: in}
	mark, err := w.mark()
	if err != nil {
		return err
	}
	return w.value(mark)
}

// mark is the next type's letter; N is nothing at all and may stand anywhere.
func (w *ubjsonWalk) mark() (byte, error) {
	for {
		b, err := w.in.byte()
		if err != nil || b != 'N' {
			return b, err
		}
	}
}

// sizes are the bytes of an element of each type that has a fixed size.
func ubjsonSize(mark byte) int {
	switch mark {
	case 'i', 'U', 'C':
		return 1
	case 'I':
		return 2
	case 'l', 'd':
		return 4
	case 'L', 'D':
		return 8
	}
	return 0
}

// number reads a number of a type.
func (w *ubjsonWalk) number(mark byte) (string, error) {
	size := ubjsonSize(mark)
	if size == 0 {
		return "", brokenDocument(ubjsonName, w.in.pos)
	}
	var p [8]byte
	if err := w.in.take(p[8-size:]); err != nil {
		return "", err
	}
	bits := binary.BigEndian.Uint64(p[:])
	switch mark {
	case 'd':
		return strconv.FormatFloat(float64(math.Float32frombits(uint32(bits))), 'g', -1, 32), nil //nolint:gosec // four bytes
	case 'D':
		return strconv.FormatFloat(math.Float64frombits(bits), 'g', -1, 64), nil
	case 'U', 'C':
		return strconv.FormatUint(bits, 10), nil
	}
	shift := 64 - 8*size
	return strconv.FormatInt(int64(bits<<shift)>>shift, 10), nil //nolint:gosec // the sign is moved where it belongs
}

// length reads a number of elements or bytes, behind its type.
func (w *ubjsonWalk) length() (uint64, error) {
	mark, err := w.in.byte()
	if err != nil {
		return 0, err
	}
	if mark == 'd' || mark == 'D' {
		return 0, brokenDocument(ubjsonName, w.in.pos)
	}
	text, err := w.number(mark)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 62)
	if err != nil {
		return 0, brokenDocument(ubjsonName, w.in.pos)
	}
	return n, nil
}

func (w *ubjsonWalk) text() (string, error) {
	n, err := w.length()
	if err != nil {
		return "", err
	}
	return w.in.text(n, maxKey)
}

func (w *ubjsonWalk) value(mark byte) error {
	switch mark {
	case '{':
		return w.object()
	case '[':
		return w.array()
	case 'S', 'H':
		s, err := w.text()
		w.say([]byte(s))
		return err
	case 'T', 'F', 'Z':
		w.say([]byte(map[byte]string{'T': "true", 'F': "false", 'Z': "null"}[mark]))
		return nil
	}
	n, err := w.number(mark)
	w.say([]byte(n))
	return err
}

// container is the type and number that stand before the elements of a container; zero and false where
// they do not.
func (w *ubjsonWalk) container() (kind byte, count uint64, counted bool, err error) {
	if b := w.in.peek(); len(b) == 1 && b[0] == '$' {
		if err := w.in.skip(1); err != nil {
			return 0, 0, false, err
		}
		if kind, err = w.in.byte(); err != nil {
			return 0, 0, false, err
		}
	}
	if b := w.in.peek(); len(b) == 1 && b[0] == '#' {
		if err := w.in.skip(1); err != nil {
			return 0, 0, false, err
		}
		count, err = w.length()
		return kind, count, true, err
	}
	if kind != 0 {
		err = brokenDocument(ubjsonName, w.in.pos)
	}
	return kind, 0, false, err
}

// element reads one value of a container whose type is kind, 0 where each says its own.
func (w *ubjsonWalk) element(kind byte) error {
	if kind != 0 {
		return w.value(kind)
	}
	mark, err := w.mark()
	if err != nil {
		return err
	}
	return w.value(mark)
}

func (w *ubjsonWalk) array() error {
	kind, count, counted, err := w.container()
	if err != nil {
		return err
	}
	if err := w.enter(""); err != nil {
		return err
	}
	defer w.leave()
	if size := ubjsonSize(kind); size > 0 {
		if count > 1<<59 {
			return brokenDocument(ubjsonName, w.in.pos)
		}
		return w.in.skip(count * uint64(size))
	}
	if kind == 'T' || kind == 'F' || kind == 'Z' {
		return nil // the type is the value: nothing follows
	}
	for i := uint64(0); !counted || i < count; i++ {
		if b := w.in.peek(); !counted && len(b) == 1 && b[0] == ']' {
			return w.in.skip(1)
		}
		if err := w.element(kind); err != nil {
			return err
		}
	}
	return nil
}

func (w *ubjsonWalk) object() error {
	kind, count, counted, err := w.container()
	if err != nil {
		return err
	}
	for i := uint64(0); !counted || i < count; i++ {
		if b := w.in.peek(); !counted && len(b) == 1 && b[0] == '}' {
			return w.in.skip(1)
		}
		key, err := w.text()
		if err != nil {
			return err
		}
		if err := w.enter(key); err != nil {
			return err
		}
		err = w.element(kind)
		w.leave()
		if err != nil {
			return err
		}
	}
	return nil
}
