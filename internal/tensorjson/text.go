package tensorjson

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/zarpa-dev/zarpa"
)

// Text reads a string. Where it has no escapes the bytes are a part of the text itself, so they
// are valid until the text changes. What is no UTF-8, or half of a surrogate pair, is refused:
// replacing it would change the value unseen.
func (d *Decoder) Text() ([]byte, error) {
	start := d.pos + 1
	ascii := true
	for i := start; i < len(d.buf); i++ {
		switch c := d.buf[i]; {
		case c == '"':
			if !ascii && !utf8.Valid(d.buf[start:i]) {
				return nil, zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: the string is not valid UTF-8", d.pos)
			}
			d.pos = i + 1
			return d.buf[start:i], nil
		case c == '\\':
			return d.escapedText(start, i)
		case c < ' ':
			return nil, zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: a control character in a string", i).WithHint("write it as \\u%04x", c)
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, d.unterminated()
}

func (d *Decoder) unterminated() error {
	return zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: the string does not end", d.pos)
}

// escapedText reads on from the first back-slash, at i, of a string that begins at start.
func (d *Decoder) escapedText(start, i int) ([]byte, error) {
	out := append(make([]byte, 0, i-start+32), d.buf[start:i]...)
	for i < len(d.buf) {
		switch c := d.buf[i]; {
		case c == '"':
			if !utf8.Valid(out) {
				return nil, zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: the string is not valid UTF-8", d.pos)
			}
			d.pos = i + 1
			return out, nil
		case c < ' ':
			return nil, zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: a control character in a string", i).WithHint("write it as \\u%04x", c)
		case c != '\\':
			out = append(out, c)
			i++
		default:
			r, size := unescape(d.buf[i:])
			if size == 0 {
				return nil, zarpa.Errorf(zarpa.Invalid, "JSON: byte %d: %s is not an escape sequence", i, excerpt(d.buf[i:min(i+6, len(d.buf))])).
					WithHint("a surrogate needs its other half, a back-slash is written \\\\")
			}
			out = utf8.AppendRune(out, r)
			i += size
		}
	}
	return nil, d.unterminated()
}

// unescape reads the escape sequence at the start of b; size is 0 when there is none.
func unescape(b []byte) (r rune, size int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r = hex4(b[2:])
		if r < 0 {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
			if pair := utf16.DecodeRune(r, hex4(b[8:])); pair != utf8.RuneError {
				return pair, 12
			}
		}
	}
	return 0, 0
}

func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

const hexDigits = "0123456789abcdef"

// AppendString appends s in double quotes; ok is false when s is no valid UTF-8, which JSON
// cannot carry.
func AppendString(dst []byte, s string) (out []byte, ok bool) {
	dst = append(dst, '"')
	from, ascii := 0, true
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf {
			ascii = false
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"'), ascii || utf8.ValidString(s)
}

// excerpt is at most 40 bytes of b, for error texts.
func excerpt(b []byte) string {
	if len(b) > 40 {
		return string(b[:40]) + "…"
	}
	return string(b)
}

func quoteRune(r rune) string { return strconv.QuoteRune(r) }
