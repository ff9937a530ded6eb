package tensorjson

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// read reads a text that holds one tensor and nothing else.
func read(text string, t zarpa.ElementType) (zarpa.Tensor, *Builder, error) {
	var d Decoder
	b := &Builder{}
	b.Reset(t)
	d.Reset([]byte(text))
	if err := d.Append(b, 0); err != nil {
		return zarpa.Tensor{}, b, err
	}
	if err := d.End(); err != nil {
		return zarpa.Tensor{}, b, err
	}
	return zarpa.Tensor{Type: t, Shape: b.Shape(), Data: b.Data(), Strings: b.Strings()}, b, nil
}

func TestReadsBackWhatItWrites(t *testing.T) {
	t.Parallel()
	cases := []struct {
		typ   zarpa.ElementType
		text  string
		shape []int64
	}{
		{zarpa.Float32, `[[1.5,-2],[0.1,1e-9]]`, []int64{2, 2}},
		{zarpa.Float32, `3.4028235e+38`, nil},
		{zarpa.Float32, `[-0.0,16777216,1e-45]`, []int64{3}},
		{zarpa.Float64, `[0.1,1.7976931348623157e+308,5e-324,123456789.125]`, []int64{4}},
		{zarpa.Float16, `[0.5,65504,-2,5.9604645e-8,0.00006097555]`, []int64{5}},
		{zarpa.BFloat16, `[0.5,1,-3.3895314e+38]`, []int64{3}},
		{zarpa.Bool, `[[true],[false]]`, []int64{2, 1}},
		{zarpa.Uint8, `[0,255]`, []int64{2}},
		{zarpa.Uint16, `[0,65535]`, []int64{2}},
		{zarpa.Uint32, `[0,4294967295]`, []int64{2}},
		{zarpa.Uint64, `[0,18446744073709551615]`, []int64{2}},
		{zarpa.Int8, `[-128,127]`, []int64{2}},
		{zarpa.Int16, `[-32768,32767]`, []int64{2}},
		{zarpa.Int32, `[-2147483648,2147483647]`, []int64{2}},
		{zarpa.Int64, `[-9223372036854775808,9223372036854775807]`, []int64{2}},
		{zarpa.Int4, `[-8,7,-1]`, []int64{3}},
		{zarpa.Uint4, `[15,0,9]`, []int64{3}},
		{zarpa.String, `["","é😀","\"\\\n\u0001"]`, []int64{3}},
		{zarpa.Float32, `[[],[]]`, []int64{2, 0}},
		{zarpa.Float32, `[]`, []int64{0}},
		{zarpa.Int64, `7`, nil},
	}
	for _, c := range cases {
		got, b, err := read(c.text, c.typ)
		if err != nil {
			t.Errorf("%v %s: %v", c.typ, c.text, err)
			continue
		}
		if len(got.Shape) != len(c.shape) || len(c.shape) > 0 && !reflect.DeepEqual(got.Shape, c.shape) {
			t.Errorf("%v %s: shape %v, want %v", c.typ, c.text, got.Shape, c.shape)
		}
		if b.NonFinite() != nil {
			t.Errorf("%v %s: %v", c.typ, c.text, b.NonFinite())
		}
		out, err := Format{}.AppendNested(nil, &got)
		if err != nil || string(out) != c.text {
			t.Errorf("%v: read %s, wrote %s, %v", c.typ, c.text, out, err)
		}
	}
}

func TestOtherWaysToWriteTheSameNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`[ 1.0 ,	1e2,
		-0.0, 120e-1]`: `[1,100,0,12]`,
		`[1.00000000000000]`: `[1]`,
	} {
		got, _, err := read(text, zarpa.Int32)
		if err != nil {
			t.Fatal(err)
		}
		if out, _ := (Format{}).AppendFlat(nil, &got); string(out) != want {
			t.Errorf("%s: %s, want %s", text, out, want)
		}
	}
}

func TestBadTensorsAreRefusedByName(t *testing.T) {
	t.Parallel()
	cases := []struct {
		typ        zarpa.ElementType
		text, want string
	}{
		{zarpa.Float32, `[[1,2,3,4,5],[1,2,3,4,5],[1,2,3,4,5],[1,2,3,4]]`, "row [3] has 4 values, 5 expected"},
		{zarpa.Float32, `[[[1],[2]],[[1],[2,3]]]`, "row [1][1] has 2 values, 1 expected"},
		{zarpa.Float32, `[[],[1]]`, "row [1] has 1 values, 0 expected"},
		{zarpa.Float32, `[[1],[]]`, "row [1] has 0 values, 1 expected"},
		{zarpa.Float32, `[[[1]],[]]`, "row [1] has 0 values, 1 expected"},
		{zarpa.Float32, `[[],[[1]]]`, "[1][0] is nested 3 deep, 2 expected"},
		{zarpa.Float32, `[[1],2]`, "[1] is 2 where an array is expected"},
		{zarpa.Float32, `[1,[2]]`, "element [1] is an array where a number is expected"},
		{zarpa.Float32, `[1,"2"]`, "element [1]: a string where a number is expected"},
		{zarpa.Float32, `[1,null]`, "element [1]: null where a number is expected"},
		{zarpa.Float32, `[1,true]`, "element [1]: true where a number is expected"},
		{zarpa.Float32, `[[1],[1e39]]`, "element [1][0]: 1e39 is out of range for FP32"},
		{zarpa.Float32, `[3.40282357e38]`, "out of range"},
		{zarpa.Float64, `[1e400]`, "element [0]: 1e400 is out of range for FP64"},
		{zarpa.Float16, `[65520]`, "out of range for FP16"},
		{zarpa.BFloat16, `[3.4e38]`, "out of range for BF16"},
		{zarpa.Float32, `[01]`, "element [0]: 01 where a number is expected"},
		{zarpa.Float32, `[1.]`, "1. where a number"},
		{zarpa.Float32, `[.5]`, "the character '.'"},
		{zarpa.Float32, `[+1]`, "the character '+'"},
		{zarpa.Float32, `[1e]`, "1e where a number"},
		{zarpa.Float32, `[-]`, "- where a number"},
		{zarpa.Float32, `[1 2]`, "2 where a comma or the end of the array is expected"},
		{zarpa.Float32, `[1,]`, "the character ']'"},
		{zarpa.Float32, `[1`, "the text ends at byte 2"},
		{zarpa.Float32, `[1] x`, "the end of the text is expected"},
		{zarpa.Float32, ``, "the text ends at byte 0"},
		{zarpa.Uint8, `[1,256]`, "element [1]: 256 is out of range for UINT8 (0 to 255)"},
		{zarpa.Uint8, `[-1]`, "element [0]: -1 is out of range for UINT8 (0 to 255)"},
		{zarpa.Int8, `[-129]`, "out of range for INT8 (-128 to 127)"},
		{zarpa.Int4, `[8]`, "out of range for INT4 (-8 to 7)"},
		{zarpa.Int64, `[9223372036854775808]`, "out of range for INT64"},
		{zarpa.Int64, `[-9223372036854775809]`, "out of range for INT64"},
		{zarpa.Uint64, `[18446744073709551616]`, "out of range for UINT64"},
		{zarpa.Int64, `[1e999999999999]`, "out of range for INT64"},
		{zarpa.Int64, `[1.5]`, "element [0]: 1.5 has a fraction, INT64 takes whole numbers"},
		{zarpa.Int64, `[NaN]`, "INT64 has no NaN"},
		{zarpa.Bool, `[1]`, "element [0]: 1 where true or false is expected"},
		{zarpa.Bool, `["true"]`, "a string where true or false"},
		{zarpa.String, `[1]`, "element [0]: 1 where a string is expected"},
		{zarpa.String, `["a`, "the string does not end"},
		{zarpa.String, "[\"a\x01\"]", "a control character"},
		{zarpa.String, "[\"\xff\"]", "not valid UTF-8"},
		{zarpa.String, `["\ud800"]`, "not an escape sequence"},
		{zarpa.String, `["\x"]`, "not an escape sequence"},
		{zarpa.Complex64, `[1]`, "cannot be written in JSON"},
		{zarpa.Float32, strings.Repeat("[", 200), "nested deeper than 32"},
	}
	for _, c := range cases {
		_, _, err := read(c.text, c.typ)
		if e := zarpa.AsError(err); err == nil || e.Code != zarpa.Invalid || !strings.Contains(e.Message, c.want) {
			t.Errorf("%v %.60s: %v, want %q", c.typ, c.text, err, c.want)
		}
	}
}

func TestNonFiniteNumbersAreReported(t *testing.T) {
	t.Parallel()
	got, b, err := read(`[1,NaN,Infinity,-Infinity]`, zarpa.Float32)
	if err != nil {
		t.Fatal(err)
	}
	if e := zarpa.AsError(b.NonFinite()); e == nil || !strings.Contains(e.Message, "element 1") || e.Hint == "" {
		t.Errorf("NonFinite: %v", e)
	}
	if out, err := (Format{NonFinite: true}).AppendFlat(nil, &got); err != nil || string(out) != `[1,NaN,Infinity,-Infinity]` {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := (Format{}).AppendFlat(nil, &got); zarpa.AsError(err).Code != zarpa.ModelError {
		t.Errorf("strict: %v", err)
	}
}

func TestRowsMakeColumns(t *testing.T) {
	t.Parallel()
	var d Decoder
	var b Builder
	b.Reset(zarpa.Int32)
	d.Reset([]byte(`1 2 3`))
	for range 3 {
		if err := d.Append(&b, 1); err != nil {
			t.Fatal(err)
		}
	}
	b.Rows(3)
	if got := b.Shape(); !reflect.DeepEqual(got, []int64{3}) || b.Elements() != 3 {
		t.Errorf("shape %v", got)
	}
	b.Reset(zarpa.Int32)
	d.Reset([]byte(`[1,2] [3]`))
	if err := d.Append(&b, 1); err != nil {
		t.Fatal(err)
	}
	if err := d.Append(&b, 1); err == nil || !strings.Contains(err.Error(), "row [1] has 1 values, 2 expected") {
		t.Errorf("ragged: %v", err)
	}
}

// TestFloatsRoundLikeStrconv holds the fast paths against strconv: texts near the half-way
// points between two float32, shortest and long forms, and the borders of the ranges.
func TestFloatsRoundLikeStrconv(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var texts []string
	for range 8_000 {
		f := math.Float32frombits(r.Uint32())
		if f != f || math.IsInf(float64(f), 0) {
			continue
		}
		next := math.Nextafter32(f, float32(math.Inf(1)))
		mid := (float64(f) + float64(next)) / 2
		for _, v := range []float64{float64(f), mid, math.Nextafter(mid, 0), math.Nextafter(mid, math.Inf(1)), r.NormFloat64(), math.Float64frombits(r.Uint64())} {
			for _, digits := range []int{-1, 5, 14, 15, 16, 17, 18} {
				texts = append(texts, strconv.FormatFloat(v, 'g', digits, 64))
			}
			if a := math.Abs(v); a > 1e-15 && a < 1e19 {
				texts = append(texts, strconv.FormatFloat(v, 'f', -1, 64), strconv.FormatFloat(v, 'f', 9, 64))
			}
		}
	}
	texts = append(texts, "1e23", "8.41e21", "9007199254740993", "16777217", "16777217.0000001", "1.00000005960464477539", "1.000000059604644775",
		"1.17549435e-38", "1.1754943e-38", "1e-45", "7e-46", "3.4028235e38", "3.4028236e38", "0.000000000000000000000000000000000000011754944", "9999999999999999999", "18446744073709551615", "0e99999")
	for _, text := range texts {
		if strings.ContainsAny(text, "NI") {
			continue
		}
		n, end := scanNumber([]byte(text), 0)
		if end != len(text) {
			t.Fatalf("%s: stops at %d", text, end)
		}
		want64, err64 := strconv.ParseFloat(text, 64)
		if got, ok := n.float64([]byte(text)); ok != (err64 == nil) || ok && math.Float64bits(got) != math.Float64bits(want64) {
			t.Fatalf("%s: float64 %v, want %v", text, got, want64)
		}
		want32, err32 := strconv.ParseFloat(text, 32)
		if got, ok := n.float32([]byte(text)); ok != (err32 == nil) || ok && math.Float32bits(got) != math.Float32bits(float32(want32)) {
			t.Fatalf("%s: float32 %v, want %v", text, got, want32)
		}
	}
}

func TestHalvesConvertBothWays(t *testing.T) {
	t.Parallel()
	for h := range 1 << 16 {
		bits := uint16(h)
		if f := fromHalf(bits); f == f {
			if got, ok := toHalf(float64(f)); !ok || got != bits {
				t.Fatalf("half %04x: %v, back %04x", bits, f, got)
			}
		}
		if f := fromBFloat(bits); f == f {
			if got, ok := toBFloat(float64(f)); !ok || got != bits {
				t.Fatalf("bfloat %04x: %v, back %04x", bits, f, got)
			}
		}
	}
	// ties go to even
	for f, want := range map[float64]uint16{1 + 0x1p-11: 0x3C00, 1 + 3*0x1p-11: 0x3C02, 0x1p-25: 0, 0x1.8p-24: 2, 65519.9: 0x7BFF} {
		if got, _ := toHalf(f); got != want {
			t.Errorf("%v: %04x, want %04x", f, got, want)
		}
	}
}

func floatBody(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatFloat(r.Float64()*10, 'g', -1, 64))
	}
	b.WriteByte(']')
	return b.Bytes()
}

func BenchmarkReadFloats(b *testing.B) {
	var shorts bytes.Buffer
	shorts.WriteString("[0")
	for i := range 9000 {
		shorts.WriteString("," + strconv.Itoa(i%9) + "." + strconv.Itoa(i%7))
	}
	shorts.WriteString("]")
	for _, c := range []struct {
		name string
		typ  zarpa.ElementType
		body []byte
	}{
		{"FP32/long", zarpa.Float32, floatBody(2000)},
		{"FP64/long", zarpa.Float64, floatBody(2000)},
		{"FP32/short", zarpa.Float32, shorts.Bytes()},
	} {
		b.Run(c.name, func(b *testing.B) {
			var d Decoder
			var builder Builder
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				builder.Reset(c.typ)
				d.Reset(c.body)
				if err := d.Append(&builder, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteFloats(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	t := zarpa.Tensor{Type: zarpa.Float32, Shape: []int64{40, 50}}
	for range 2000 {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(r.Float32()))
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out, _ = Format{}.AppendNested(out[:0], &t)
	}
	b.SetBytes(int64(len(out)))
}
