package zarpa

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as text ("60s", "1m30s") in JSON and YAML.
type Duration time.Duration

// String is the shortest usual form: "60s" and not "1m0s".
func (d Duration) String() string {
	t := time.Duration(d)
	if t >= time.Second && t < 2*time.Minute && t%time.Second == 0 {
		return strconv.FormatInt(int64(t/time.Second), 10) + "s"
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText is [Duration.String].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads "1.5s", "200ms", "1m30s"; a number without a unit is refused.
func (d *Duration) UnmarshalText(b []byte) error {
	t, err := time.ParseDuration(string(b))
	if err != nil {
		return Errorf(Invalid, "duration %q: not a duration", b).WithHint("write a number with a unit, such as 500ms, 60s or 2m")
	}
	*d = Duration(t)
	return nil
}

// Bytes is a number of bytes, written as text with a binary or decimal unit ("512Mi", "2G").
type Bytes int64

var byteUnits = []struct {
	suffix string
	size   float64
}{
	{"Ki", 1 << 10},
	{"Mi", 1 << 20},
	{"Gi", 1 << 30},
	{"Ti", 1 << 40},
	{"k", 1e3},
	{"K", 1e3},
	{"M", 1e6},
	{"G", 1e9},
	{"T", 1e12},
	{"", 1},
}

// String uses the largest binary unit that divides the number, so that it reads back unchanged.
func (b Bytes) String() string {
	for _, u := range []struct {
		suffix string
		size   Bytes
	}{{"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText is [Bytes.String].
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads "512Mi", "1.5G" or "1048576".
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSuffix(strings.TrimSpace(string(text)), "B")
	for _, u := range byteUnits {
		num, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(num, 64)
		if err != nil || f < 0 || f*u.size >= math.MaxInt64 || f != f {
			break
		}
		*b = Bytes(f * u.size)
		return nil
	}
	return Errorf(Invalid, "size %q: not a number of bytes", text).WithHint("write a number with a unit, such as 512Mi or 2G")
}

// CPU is a share of processors: 0.5 is half of one. It is written as a number, and read from a
// number or from text ("0.5", "500m").
type CPU float64

// String is the decimal form.
func (c CPU) String() string { return strconv.FormatFloat(float64(c), 'f', -1, 64) }

// MarshalJSON writes the plain number.
func (c CPU) MarshalJSON() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalJSON reads a number or text.
func (c *CPU) UnmarshalJSON(b []byte) error {
	return c.UnmarshalText([]byte(strings.Trim(string(b), `"`)))
}

// UnmarshalText reads "0.5" or "500m".
func (c *CPU) UnmarshalText(b []byte) error {
	num, milli := strings.CutSuffix(string(b), "m")
	f, err := strconv.ParseFloat(num, 64)
	if milli {
		f /= 1000
	}
	if err != nil || f < 0 || f > 4096 || f != f {
		return Errorf(Invalid, "cpu %q: not a number of processors", b).WithHint("write a number such as 0.5, 2 or 500m")
	}
	*c = CPU(f)
	return nil
}

// AmountOf reads a number, or a share of whole that ends in "%" and is rounded up. The error says what is wrong.
func AmountOf(text string, whole int) (int, error) {
	digits, share := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > 1000 {
		return 0, Errorf(Invalid, "%.20q is neither a number from 0 to 1000 nor a share such as 25%%", text)
	}
	if share {
		return (n*whole + percent - 1) / percent, nil
	}
	return n, nil
}
