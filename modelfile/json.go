package modelfile

import "strings"

// jsonWalk reads a JSON document in one pass, in little memory, however long it is. It checks no more than it
// needs to find its way.
type jsonWalk struct {
	trail
	in  *stream
	buf []byte // of the last word or text
}

// walkJSON gives each scalar to visit.
func walkJSON(in *stream, visit visitor) error {
	w := &jsonWalk{trail: trail{visit: visit}, in: in}
	b, err := w.space()
	if err != nil {
		return err
	}
	return w.value(b)
}

// space is the first byte that is no white space.
func (w *jsonWalk) space() (byte, error) {
	for {
		b, err := w.in.byte()
		if err != nil || b != ' ' && b != '\n' && b != '\r' && b != '\t' {
			return b, err
		}
	}
}

func (w *jsonWalk) value(b byte) error {
	switch {
	case b == '{':
		return w.object()
	case b == '[':
		return w.array()
	case b == '"':
		s, err := w.text()
		w.say(s)
		return err
	case b == '-' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b == 'N' || b == 'I':
		return w.word(b)
	}
	return brokenDocument("JSON", w.in.pos-1)
}

// word is a number, or true, false or null.
func (w *jsonWalk) word(b byte) error {
	w.buf = append(w.buf[:0], b)
	for {
		next := w.in.peek()
		if len(next) == 0 || strings.IndexByte("+-.0123456789abcdefghijklmnopqrstuvwxyzEINY", next[0]) < 0 {
			w.say(w.buf)
			return nil
		}
		b, err := w.in.byte()
		if err != nil {
			return err
		}
		if len(w.buf) < maxKey {
			w.buf = append(w.buf, b)
		}
	}
}

// text is what stands before the closing quote, escapes undone where they are simple.
func (w *jsonWalk) text() ([]byte, error) {
	w.buf = w.buf[:0]
	for {
		b, err := w.in.byte()
		if err != nil {
			return nil, err
		}
		switch b {
		case '"':
			return w.buf, nil
		case '\\':
			if b, err = w.in.byte(); err != nil {
				return nil, err
			}
			if b == 'u' { // kept as it stands
				w.buf = append(w.buf, '\\')
			}
		}
		if len(w.buf) < maxKey {
			w.buf = append(w.buf, b)
		}
	}
}

func (w *jsonWalk) object() error {
	for first := true; ; first = false {
		b, err := w.space()
		if err == nil && b == ',' && !first {
			b, err = w.space()
		}
		switch {
		case err != nil:
			return err
		case b == '}':
			return nil
		case b != '"':
			return brokenDocument("JSON", w.in.pos-1)
		}
		if err := w.member(); err != nil {
			return err
		}
	}
}

func (w *jsonWalk) member() error {
	text, err := w.text()
	if err != nil {
		return err
	}
	key := string(text)
	if b, err := w.space(); err != nil || b != ':' {
		return brokenDocument("JSON", w.in.pos-1)
	}
	b, err := w.space()
	if err != nil {
		return err
	}
	if err := w.enter(key); err != nil {
		return err
	}
	defer w.leave()
	return w.value(b)
}

func (w *jsonWalk) array() error {
	if err := w.enter(""); err != nil { // counts the depth; the key is that of the array
		return err
	}
	defer w.leave()
	for first := true; ; first = false {
		b, err := w.space()
		if err == nil && b == ',' && !first {
			b, err = w.space()
		}
		switch {
		case err != nil:
			return err
		case b == ']':
			return nil
		}
		if err := w.value(b); err != nil {
			return err
		}
	}
}
