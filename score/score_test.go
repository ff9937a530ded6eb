package score

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

type scenario struct {
	name, body string
	status     int
	want       []string // what the answer holds
	not        []string // and what it does not
}

func (sc scenario) check(t *testing.T, h http.Handler, path string) {
	t.Helper()
	w := ask(h, http.MethodPost, path, sc.body)
	if sc.status == 0 {
		sc.status = 200
	}
	body := w.Body.String()
	if w.Code != sc.status {
		t.Errorf("%s: status %d, want %d: %s", sc.name, w.Code, sc.status, body)
	}
	if !json.Valid([]byte(body)) && !strings.Contains(sc.body, "allow_nan") {
		t.Errorf("%s: not JSON: %s", sc.name, body)
	}
	for _, s := range sc.want {
		if !strings.Contains(body, s) {
			t.Errorf("%s: %s lacks %s", sc.name, body, s)
		}
	}
	for _, s := range sc.not {
		if strings.Contains(body, s) {
			t.Errorf("%s: %s has %s", sc.name, body, s)
		}
	}
	if w.Header().Get("x-request-id") == "" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%s: header %v", sc.name, w.Header())
	}
}

func TestScoreOfOneInput(t *testing.T) {
	t.Parallel()
	h := newServer(t, iris(), Options{MaxBody: 500}).Handler()
	const row = `[5.1,3.5,1.4,0.2]`
	for _, sc := range []scenario{
		{name: "by position", body: `{"data": [` + row + `,` + row + `]}`, want: []string{`{"label":[1,1],"probabilities":[{"0":0.1,"1":0.9},{"0":0.1,"1":0.9}]}`}},
		{name: "by name", body: `{"data": {"input": [` + row + `]}}`, want: []string{`"label":[1]`}},
		{name: "second name", body: `{"input_data": [` + row + `]}`, want: []string{`"label":[1]`}},
		{name: "chosen output", body: `{"outputs":["label"],"data":[` + row + `],"method":"predict"}`, want: []string{`{"label":[1]}`}},
		{name: "empty body", body: "", status: 400, want: []string{`{"message":"request body: empty`}},
		{name: "blank body", body: " \n", status: 400, want: []string{"request body: empty"}},
		{name: "no data", body: `{}`, status: 400, want: []string{"field data: missing"}},
		{name: "no object", body: `[[1]]`, status: 400, want: []string{"an array where an object is expected"}},
		{name: "unknown field", body: `{"dta": []}`, status: 400, want: []string{`field \"dta\": unknown (did you mean data?)`}},
		{name: "both names", body: `{"data": [` + row + `],"input_data": []}`, status: 400, want: []string{"two names of one field"}},
		{name: "other method", body: `{"data": [` + row + `],"method":"fit"}`, status: 400, want: []string{"predict only"}},
		{name: "unknown output", body: `{"data": [` + row + `],"outputs":["labels"]}`, status: 400, want: []string{"did you mean label?"}},
		{name: "output twice", body: `{"data": [` + row + `],"outputs":["label","label"]}`, status: 400, want: []string{"twice"}},
		{name: "unknown input", body: `{"data": {"inptu": [` + row + `]}}`, status: 400, want: []string{"did you mean input?"}},
		{name: "columns", body: `{"data": [{"sepal": 1}]}`, status: 400, want: []string{"send rows as lists"}},
		{name: "missing input", body: `{"data": {}}`, status: 400, want: []string{`input \"input\": missing`, "FP32"}},
		{name: "row without brackets", body: `{"data": ` + row + `}`, status: 400, want: []string{"shape [4], the model takes [-1 4]", "one more pair of brackets"}},
		{name: "row too short", body: `{"data": [[1,2,3]]}`, status: 400, want: []string{"shape [1 3], the model takes [-1 4]"}},
		{name: "ragged", body: `{"data": [[1,2,3,4],[1,2,3]]}`, status: 400, want: []string{"row [1] has 3 values, 4 expected"}},
		{name: "text", body: `{"data": [[1,2,3,"4"]]}`, status: 400, want: []string{`input \"input\": element [0][3]: a string where a number is expected`}},
		{name: "NaN", body: `{"data": [[1,2,3,NaN]]}`, status: 400, want: []string{"element 3", "allow_nan"}},
		{name: "NaN allowed", body: `{"data": [[1,2,3,NaN]], "parameters": {"allow_nan": true, "other": [1]}}`, want: []string{`"label"`}},
		{name: "too large a number", body: `{"data": [[1,2,3,1e39]]}`, status: 400, want: []string{"out of range for FP32"}},
		{name: "trailing", body: `{"data": [` + row + `]} {}`, status: 400, want: []string{"the end of the text is expected"}},
		{name: "cut", body: `{"data": [[1,`, status: 400, want: []string{"the text ends at byte"}},
		{name: "deep", body: `{"x": ` + strings.Repeat("[", 400), status: 400, want: []string{"unknown"}},
		{name: "deep data", body: `{"data": ` + strings.Repeat("[", 400), status: 400, want: []string{"nested deeper"}},
		{name: "deep parameter", body: `{"parameters": {"x": ` + strings.Repeat("[", 400), status: 400, want: []string{"nested deeper"}},
		{name: "too large", body: `{"data": [` + strings.Repeat(row+",", 100) + row + `]}`, status: 413, want: []string{"limit of 500"}},
	} {
		sc.not = append(sc.not, "panic", "goroutine", `"code"`)
		sc.check(t, h, "/score")
	}
}

func TestScoreOfSeveralInputs(t *testing.T) {
	t.Parallel()
	extra := info("extra", zarpa.Int8, -1, 1)
	extra.Optional = true
	h := newServer(t, echo(info("age", zarpa.Int32, -1, 1), info("city", zarpa.String, -1, 1), extra), Options{}).Handler()
	for _, sc := range []scenario{
		{name: "rows", body: `{"data": [{"age": 3, "city": "x"}, {"city": "é", "age": 4}]}`, want: []string{`{"out_age":[[3],[4]],"out_city":[["x"],["é"]]}`}},
		{name: "rows with an optional column", body: `{"data": [{"age": 3, "city": "x", "extra": -1}]}`, want: []string{`"out_extra":[[-1]]`}},
		{name: "by name", body: `{"data": {"city": [["x"]], "age": [[1]]}}`, want: []string{`{"out_age":[[1]],"out_city":[["x"]]}`}},
		{name: "by position", body: `{"data": [[[1]], [["x"]]]}`, want: []string{`{"out_age":[[1]],"out_city":[["x"]]}`}},
		{name: "rows as lists", body: `{"data": [[1, "x"]]}`, status: 400, want: []string{`input \"age\": element [1]`}},
		{name: "one of two", body: `{"data": [[[1]]]}`, status: 400, want: []string{`input \"city\": missing`}},
		{name: "too many", body: `{"data": [[[1]],[["x"]],[[1]],[[2]]]}`, status: 400, want: []string{"more than 3 values"}},
		{name: "unknown column", body: `{"data": [{"agee": 3}]}`, status: 400, want: []string{"did you mean age?"}},
		{name: "missing column", body: `{"data": [{"age": 3, "city": "x"}, {"age": 4}]}`, status: 400, want: []string{`row 1: column \"city\": missing`}},
		{name: "late column", body: `{"data": [{"age": 3, "city": "x"}, {"age": 4, "city": "x", "extra": 1}]}`, status: 400, want: []string{"not in the rows before"}},
		{name: "gap in a column", body: `{"data": [{"age":3,"city":"x","extra":1},{"age":4,"city":"x"}]}`, status: 400, want: []string{`row 1: column \"extra\": missing`}},
		{name: "column twice", body: `{"data": [{"age": 3, "age": 4}]}`, status: 400, want: []string{"twice"}},
		{name: "input twice", body: `{"data": {"age": [[3]], "age": [[4]]}}`, status: 400, want: []string{"twice"}},
		{name: "row of another kind", body: `{"data": [{"age": 3, "city": "x"}, 5]}`, status: 400, want: []string{"row 1 is no object"}},
		{name: "fraction", body: `{"data": [{"age": 3.5, "city": "x"}]}`, status: 400, want: []string{`input \"age\": element [0]: 3.5 has a fraction`}},
		{name: "range", body: `{"data": [{"age": 3000000000, "city": "x"}]}`, status: 400, want: []string{"out of range for INT32"}},
	} {
		sc.check(t, h, "/score")
	}
}

func TestScoreOfRareShapes(t *testing.T) {
	t.Parallel()
	free := zarpa.ValueInfo{Name: "x", Type: zarpa.Float32, NoShape: true}
	for _, c := range []struct {
		in zarpa.ValueInfo
		sc scenario
	}{
		{info("x", zarpa.Float32), scenario{name: "scalar", body: `{"data": 5}`, want: []string{`{"out_x":5}`}}},
		{info("x", zarpa.Float32), scenario{name: "[1] for a scalar", body: `{"data": [5]}`, want: []string{`{"out_x":5}`}}},
		{info("x", zarpa.Float32), scenario{name: "two for a scalar", body: `{"data": [5,6]}`, status: 400, want: []string{"shape [2]"}}},
		{info("x", zarpa.Float32, -1), scenario{name: "empty", body: `{"data": []}`, want: []string{`{"out_x":[]}`}}},
		{info("x", zarpa.Float32, -1, -1), scenario{name: "empty rows", body: `{"data": [[],[]]}`, want: []string{`{"out_x":[[],[]]}`}}},
		{info("x", zarpa.Float32, -1), scenario{name: "rows of a vector", body: `{"data": [{"x":1},{"x":2}]}`, want: []string{`{"out_x":[1,2]}`}}},
		{info("x", zarpa.Float32, -1, 2), scenario{name: "rows of lists", body: `{"data": [{"x":[1,2]},{"x":[3,4]}]}`, want: []string{`{"out_x":[[1,2],[3,4]]}`}}},
		{free, scenario{name: "unknown rank", body: `{"data": [[[1]]]}`, want: []string{`[[[1]]]`}}},
		{info("x", zarpa.Float16, -1), scenario{name: "half", body: `{"data": [0.1,2]}`, want: []string{`[0.099975586,2]`}}},
		{info("x", zarpa.BFloat16, -1), scenario{name: "bfloat", body: `{"data": [0.1]}`, want: []string{`[0.100097656]`}}},
		{info("x", zarpa.Bool, -1), scenario{name: "bool", body: `{"data": [true,false]}`, want: []string{`[true,false]`}}},
		{info("x", zarpa.Uint64, -1), scenario{name: "uint64", body: `{"data": [18446744073709551615]}`, want: []string{`[18446744073709551615]`}}},
		{info("x", zarpa.Complex64, -1), scenario{name: "complex", body: `{"data": [1]}`, status: 400, want: []string{"cannot be written in JSON"}}},
	} {
		c.sc.check(t, newServer(t, echo(c.in), Options{}).Handler(), "/score")
	}
}

func TestWhatJSONCannotCarryOutIsAModelError(t *testing.T) {
	t.Parallel()
	odd := zarpa.Tensor{Name: "y", Type: zarpa.Float32, Shape: []int64{1}, Data: le(nan)}
	for _, sc := range []scenario{
		{name: "NaN", body: `{"data":[1]}`, status: 424, want: []string{"NaN", "allow_nan"}},
		{name: "NaN asked for", body: `{"data":[1],"parameters":{"allow_nan":true}}`, want: []string{`{"y":[NaN]}`}},
	} {
		sc.check(t, newServer(t, constant(odd), Options{}).Handler(), "/score")
	}
	raw := zarpa.Tensor{Name: "y", Type: zarpa.String, Shape: []int64{1}, Strings: []string{"\xff"}}
	scenario{name: "bytes", body: `{"data":[1]}`, status: 424, want: []string{"not valid UTF-8"}}.check(t, newServer(t, constant(raw, zarpa.Tensor{Name: "absent"}), Options{}).Handler(), "/score")
	scenario{name: "absent", body: `{"data":[1]}`, want: []string{`{"absent":null}`}}.check(t, newServer(t, constant(zarpa.Tensor{Name: "absent"}), Options{}).Handler(), "/score")
}

func TestContentTypeDoesNotMatterAndEncodingsAreUndone(t *testing.T) {
	t.Parallel()
	h := newServer(t, echo(info("x", zarpa.Float32, -1)), Options{MaxBody: 1000}).Handler()
	const body = `{"data":[1,2]}`
	packed := func(w func(io.Writer) io.WriteCloser, s string) string {
		var b bytes.Buffer
		z := w(&b)
		_, _ = io.WriteString(z, s)
		_ = z.Close()
		return b.String()
	}
	zip := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	lib := func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
	bare := func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 5); return f }
	for _, c := range []struct {
		name, body, key, value string
		status                 int
	}{
		{"form", body, "Content-Type", "application/x-www-form-urlencoded", 200},
		{"text", body, "Content-Type", "text/plain", 200},
		{"gzip", packed(zip, body), "Content-Encoding", "gzip", 200},
		{"zlib", packed(lib, body), "Content-Encoding", "Deflate", 200},
		{"deflate", packed(bare, body), "Content-Encoding", "deflate", 200},
		{"identity", body, "Content-Encoding", "identity", 200},
		{"brotli", body, "Content-Encoding", "br", 415},
		{"no gzip", body, "Content-Encoding", "gzip", 400},
		{"bomb", packed(zip, strings.Repeat(" ", 1<<20)), "Content-Encoding", "gzip", 413},
	} {
		w := ask(h, http.MethodPost, "/score", c.body, c.key, c.value)
		if w.Code != c.status || c.status == 200 && w.Body.String() != "{\"out_x\":[1,2]}\n" {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
}
