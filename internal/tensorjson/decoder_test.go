package tensorjson

import (
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// walk reads a whole text member by member.
func walk(d *Decoder) error {
	switch d.Peek() {
	case '{':
		if err := d.BeginObject(); err != nil {
			return err
		}
		for {
			_, ok, err := d.Key()
			if !ok || err != nil {
				return err
			}
			if err := walk(d); err != nil {
				return err
			}
		}
	case '[':
		if err := d.BeginArray(); err != nil {
			return err
		}
		for {
			more, err := d.More()
			if !more || err != nil {
				return err
			}
			if err := walk(d); err != nil {
				return err
			}
		}
	}
	return d.Skip()
}

func TestGrammarIsStrict(t *testing.T) {
	t.Parallel()
	good := []string{
		`{}`, `[]`, ` { "a" : [ 1 , {"b":null} ] , "c" : "\u00e9\ud83d\ude00" } `, `[{},[],"",0,-0.5e+7,true,false]`, `1`, `"x"`,
		strings.Repeat("[", 100) + strings.Repeat("]", 100),
	}
	for _, text := range good {
		var d, e Decoder
		d.Reset([]byte(text))
		e.Reset([]byte(text))
		if err := d.Skip(); err != nil || d.End() != nil {
			t.Errorf("Skip %s: %v", text, err)
		}
		if err := walk(&e); err != nil || e.End() != nil {
			t.Errorf("walk %s: %v", text, err)
		}
	}
	bad := []string{
		``, `{`, `[`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[,1]`, `{,}`, `{a:1}`, `[1}`, `{"a":1]`, `tru`, `nul`, `NaN`, `[Infinity]`,
		`'x'`, `"\u12"`, `"\udc00"`, `{"a":1 "b":2}`, `[1 2]`, "\x00", strings.Repeat("[", 101) + strings.Repeat("]", 101), strings.Repeat(`{"a":`, 1_000_000),
	}
	for _, text := range bad {
		for _, read := range []func(*Decoder) error{(*Decoder).Skip, walk} {
			var d Decoder
			d.Reset([]byte(text))
			err := read(&d)
			if err == nil {
				err = d.End()
			}
			if err == nil || zarpa.AsError(err).Code != zarpa.Invalid {
				t.Errorf("%.60s: %v", text, err)
			}
		}
	}
}

func TestScalarsAndSeek(t *testing.T) {
	t.Parallel()
	var d Decoder
	d.Reset([]byte(`{"s":"a\nb","i":-12,"b":true,"later":[NaN]}`))
	if err := d.BeginObject(); err != nil {
		t.Fatal(err)
	}
	var later int
	for {
		key, ok, err := d.Key()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		switch string(key) {
		case "s":
			if s, err := d.String(); s != "a\nb" || err != nil {
				t.Errorf("%q, %v", s, err)
			}
		case "i":
			if n, err := d.Int64(); n != -12 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		case "b":
			if v, err := d.Bool(); !v || err != nil {
				t.Errorf("%v, %v", v, err)
			}
		case "later":
			later = d.Offset()
			if err := d.SkipData(); err != nil {
				t.Error(err)
			}
		}
	}
	d.Seek(later)
	var b Builder
	b.Reset(zarpa.Float64)
	if err := d.Append(&b, 0); err != nil || b.NonFinite() == nil {
		t.Errorf("%v, %v", err, b.NonFinite())
	}
}

func TestErrorsNameTheByte(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"a":1,}`:  "byte 7: the character '}' where another value behind the comma is expected",
		`{"a" 1}`:   "byte 5: 1 where a colon behind the key is expected",
		`{"a":1`:    "the text ends at byte 6",
		`{"a":é}`:   "byte 5: the character 'é' where a value is expected",
		`[1,2} `:    "byte 4: the character '}' where a comma or the end of the array is expected",
		`{"a":"b\q`: `byte 7: \q is not an escape sequence`,
	} {
		var d Decoder
		d.Reset([]byte(text))
		if err := d.Skip(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
