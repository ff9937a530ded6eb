package tensorjson

import (
	"encoding/binary"
	"math"
	"strconv"
	"unsafe"
)

// number is a decimal number as it was written: (-1)^neg · mant · 10^exp. When exact is not set
// it had more than 19 digits, mant is meaningless, and only its text tells the value.
type number struct {
	mant  uint64
	exp   int
	neg   bool
	exact bool
}

// pow10 holds the powers of ten that a float64 holds exactly.
var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// scanNumber reads the number of RFC 8259 at b[i:]; end is where it stops, -1 when there is none.
func scanNumber(b []byte, i int) (n number, end int) {
	if i < len(b) && b[i] == '-' {
		n.neg = true
		i++
	}
	first := i
	switch {
	case i >= len(b):
		return n, -1
	case b[i] == '0':
		i++
	case b[i] >= '1' && b[i] <= '9':
		n.mant, i = digits(b, i, 0)
	default:
		return n, -1
	}
	count := i - first
	if i < len(b) && b[i] == '.' {
		i++
		from := i
		if n.mant, i = digits(b, i, n.mant); i == from {
			return n, -1
		}
		n.exp = from - i
		count += i - from
	}
	n.exact = count <= 19
	if i < len(b) && b[i]|0x20 == 'e' {
		var e int
		if e, i = exponent(b, i+1); i < 0 {
			return n, -1
		}
		n.exp += e
	}
	// "01" and "1x" are no numbers: what follows must end it
	if i < len(b) && (b[i] >= '0' && b[i] <= '9' || b[i] == '.') {
		return n, -1
	}
	return n, i
}

// digits folds a run of decimal digits into mant, eight at a time; more than 19 in all overflow.
func digits(b []byte, i int, mant uint64) (uint64, int) {
	for i+8 <= len(b) {
		v := binary.LittleEndian.Uint64(b[i:])
		if (v&0xF0F0F0F0F0F0F0F0)|((v+0x0606060606060606)&0xF0F0F0F0F0F0F0F0)>>4 != 0x3333333333333333 {
			break
		}
		v -= 0x3030303030303030
		v = v*10 + v>>8
		v = ((v&0x000000FF000000FF)*(100+1000000<<32) + (v>>16&0x000000FF000000FF)*(1+10000<<32)) >> 32
		mant = mant*100000000 + v
		i += 8
	}
	for i < len(b) {
		c := b[i] - '0'
		if c > 9 {
			break
		}
		mant = mant*10 + uint64(c)
		i++
	}
	return mant, i
}

// exponent reads what follows the letter e; it is cut at a million, beyond every type.
func exponent(b []byte, i int) (e, end int) {
	neg := false
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		neg = b[i] == '-'
		i++
	}
	from := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		if e < 1_000_000 {
			e = e*10 + int(b[i]-'0')
		}
		i++
	}
	if i == from {
		return 0, -1
	}
	if neg {
		e = -e
	}
	return e, i
}

// float64 is the nearest float64; ok is false when the number is too large. text is its text.
func (n number) float64(text []byte) (f float64, ok bool) {
	if n.exact && n.mant < 1<<53 && n.exp >= -22 && n.exp <= 22 {
		// both operands are exact, so that the one rounding is the right one
		return n.signed(n.scaled()), true
	}
	f, err := strconv.ParseFloat(view(text), 64)
	return f, err == nil
}

// float32 is the nearest float32; ok is false when the number is too large. text is its text.
//
// A float64 within 1.5 units in the last place of the true value rounds to the same float32 as
// the true value does, unless it lies about half-way between two: then, and outside the range of
// normal numbers, strconv decides.
func (n number) float32(text []byte) (f float32, ok bool) {
	if n.exact && n.exp >= -22 && n.exp <= 22 {
		if n.mant == 0 {
			return float32(n.signed(0)), true
		}
		const half, guard = 1 << 28, 8 // of the 29 bits that a float32 has less
		v := n.scaled()
		low := math.Float64bits(v)&(1<<29-1) - half + guard
		if v >= 0x1p-126 && v < math.MaxFloat32 && low > 2*guard {
			return float32(n.signed(v)), true
		}
	}
	wide, err := strconv.ParseFloat(view(text), 32)
	return float32(wide), err == nil
}

// scaled is mant·10^exp for |exp| ≤ 22: rounded once when mant < 2^53, else twice.
func (n number) scaled() float64 {
	if n.exp < 0 {
		return float64(n.mant) / pow10[-n.exp]
	}
	return float64(n.mant) * pow10[n.exp]
}

func (n number) signed(f float64) float64 {
	if n.neg {
		return -f
	}
	return f
}

// scanInteger reads a number like scanNumber, but keeps all 64 bits of one that is written
// without fraction and exponent.
func scanInteger(b []byte, i int) (n number, end int) {
	start := i
	if i < len(b) && b[i] == '-' {
		n.neg = true
		i++
	}
	first := i
	for i < len(b) {
		c := uint64(b[i] - '0')
		if c > 9 {
			break
		}
		if n.mant > math.MaxUint64/10 || n.mant == math.MaxUint64/10 && c > math.MaxUint64%10 {
			return scanNumber(b, start) // too many digits: not exact
		}
		n.mant = n.mant*10 + c
		i++
	}
	if i == first || b[first] == '0' && i > first+1 {
		return n, -1
	}
	if i < len(b) && (b[i] == '.' || b[i]|0x20 == 'e') {
		return scanNumber(b, start)
	}
	n.exact = true
	return n, i
}

// whole is the magnitude of a number without a fraction: 3, 3.0 and 3e0 are whole, 3.5 is not;
// nor is one beyond 64 bits.
func (n number) whole() (uint64, bool) {
	if !n.exact {
		return 0, false
	}
	if n.mant == 0 {
		return 0, true
	}
	for n.exp < 0 && n.mant%10 == 0 {
		n.mant /= 10
		n.exp++
	}
	for ; n.exp > 0; n.exp-- {
		if n.mant > math.MaxUint64/10 {
			return 0, false
		}
		n.mant *= 10
	}
	return n.mant, n.exp == 0
}

// int64 is the value of a whole number that fits.
func (n number) int64() (int64, bool) {
	m, ok := n.whole()
	switch {
	case !ok:
		return 0, false
	case n.neg:
		return -int64(m), m <= 1<<63
	}
	return int64(m), m <= math.MaxInt64
}

// fraction reports whether the number is written with digits behind the point that count.
func (n number) fraction() bool {
	for n.exact && n.exp < 0 && n.mant != 0 && n.mant%10 == 0 {
		n.mant /= 10
		n.exp++
	}
	return n.exact && n.exp < 0 && n.mant != 0
}

// view is b as a string without a copy, for strconv, which keeps none.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
