package tensorjson

import "math"

// toHalf rounds to the nearest IEEE 754 binary16, ties to even; ok is false beyond its range.
// The argument is a float64 already, so a decimal number within 2^-53 of a tie may go either way.
func toHalf(f float64) (bits uint16, ok bool) { return narrow(f, 10, 5) }

// toBFloat rounds to the nearest bfloat16 as [toHalf] does.
func toBFloat(f float64) (bits uint16, ok bool) { return narrow(f, 7, 8) }

// narrow rounds to a format of 16 bits with the given numbers of fraction and exponent bits.
func narrow(f float64, fraction, exponent int) (bits uint16, ok bool) {
	maxExp := 1<<exponent - 1 // the exponent field of infinities
	bias := maxExp / 2
	if math.Signbit(f) {
		bits = 1 << 15
		f = -f
	}
	switch {
	case math.IsNaN(f):
		return bits | uint16(maxExp<<fraction) | 1<<(fraction-1), true
	case math.IsInf(f, 0):
		return bits | uint16(maxExp<<fraction), true
	case f < math.Ldexp(1, 1-bias): // subnormal; rounding up to the first normal number fits, too
		return bits | uint16(math.RoundToEven(math.Ldexp(f, bias-1+fraction))), true
	}
	m, e := math.Frexp(f) // f = m·2^e, m in [0.5, 1)
	field := e - 1 + bias
	// a significand that rounds up to the next power of two carries into the exponent
	whole := int(math.RoundToEven(math.Ldexp(m, fraction+1))) - 1<<fraction
	if field >= maxExp || field == maxExp-1 && whole >= 1<<fraction {
		return 0, false
	}
	return bits | uint16(field<<fraction+whole), true
}

// fromHalf is the value of a binary16.
func fromHalf(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, int(h>>10&31), uint32(h&1023)
	switch exp {
	case 0:
		f := float32(frac) * 0x1p-24
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 31:
		return math.Float32frombits(sign | 0xFF<<23 | frac<<13)
	}
	return math.Float32frombits(sign | uint32(exp-15+127)<<23 | frac<<13)
}

// fromBFloat is the value of a bfloat16.
func fromBFloat(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }
