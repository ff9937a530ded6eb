package tensorjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// FuzzSkipAgreesWithEncodingJSON: what encoding/json calls valid is valid here, and the reverse,
// but for depth, and for text that is no UTF-8 or has half a surrogate pair.
func FuzzSkipAgreesWithEncodingJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"x\u00e9",null,true]}`, `[1,]`, `{"a":1}x`, `"\ud83d\ude00"`, `-0.0e-0`, ` [ ] `, `01`, `NaN`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var d Decoder
		d.Reset(text)
		err := d.Skip()
		if err == nil {
			err = d.End()
		}
		valid := json.Valid(text)
		if err == nil && !valid {
			t.Fatalf("%q: accepted", text)
		}
		if err == nil || !valid || bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) > MaxDepth ||
			bytes.Contains(text, []byte(`\u`)) || !json.Valid(text) || !bytes.Equal(text, bytes.ToValidUTF8(text, nil)) {
			return
		}
		t.Fatalf("%q: %v", text, err)
	})
}

// FuzzTensor: reading never panics; what was read is what encoding/json reads; what is written
// reads back the same.
func FuzzTensor(f *testing.F) {
	for _, s := range []string{`[[1,2],[3,4]]`, `[1.5e-3,-0,NaN]`, `["a","\n"]`, `[true]`, `[[],[]]`, `[9223372036854775807]`, `[[[1]],[[2]]]`, `0.1`, `[1,[2]]`} {
		for typ := range uint8(25) {
			f.Add([]byte(s), typ)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, kind uint8) {
		typ := zarpa.ElementType(kind % 25)
		got, b, err := read(string(text), typ)
		if err != nil {
			if zarpa.AsError(err).Code != zarpa.Invalid {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if b.NonFinite() == nil && !json.Valid(text) {
			t.Fatalf("%q: accepted", text)
		}
		if n, err := zarpa.Elements(got.Shape); err != nil || n != b.Elements() {
			t.Fatalf("%q: shape %v of %d elements", text, got.Shape, b.Elements())
		}
		sameAsEncodingJSON(t, text, got)
		format := Format{NonFinite: true}
		out, err := format.AppendNested(nil, &got)
		if err != nil {
			t.Fatalf("%q: write: %v", text, err)
		}
		again, _, err := read(string(out), typ)
		if err != nil || !reflect.DeepEqual(again.Shape, got.Shape) || !bytes.Equal(again.Data, got.Data) || len(got.Strings) > 0 && !reflect.DeepEqual(again.Strings, got.Strings) {
			t.Fatalf("%q: wrote %q, read %v, %v", text, out, again, err)
		}
	})
}

func sameAsEncodingJSON(t *testing.T, text []byte, got zarpa.Tensor) {
	t.Helper()
	if len(got.Shape) != 1 {
		return
	}
	var want any
	switch got.Type {
	case zarpa.Float32:
		want = &[]float32{}
	case zarpa.Float64:
		want = &[]float64{}
	case zarpa.String:
		want = &[]string{}
	case zarpa.Bool:
		want = &[]bool{}
	default:
		return
	}
	if json.Unmarshal(text, want) != nil {
		return // NaN
	}
	expected, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := Format{}.AppendFlat(nil, &got)
	var a, b any
	if err != nil || json.Unmarshal(ours, &a) != nil || json.Unmarshal(expected, &b) != nil || !reflect.DeepEqual(a, b) {
		t.Fatalf("%q: %s, encoding/json has %s (%v)", text, ours, expected, err)
	}
}
