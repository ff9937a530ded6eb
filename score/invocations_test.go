package score

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestInvocations(t *testing.T) {
	t.Parallel()
	matrix := newServer(t, echo(info("x", zarpa.Float32, -1, 2)), Options{}).Handler()
	vector := newServer(t, echo(info("a", zarpa.Float32, -1)), Options{}).Handler()
	named := newServer(t, echo(info("a", zarpa.Int64, -1, 1), info("b", zarpa.String, -1, 1)), Options{}).Handler()
	const rows = `{"predictions":[[1,2],[3,4]]}`
	for _, c := range []struct {
		h  http.Handler
		sc scenario
	}{
		{matrix, scenario{name: "split", body: `{"dataframe_split":{"columns":["p","q"],"index":[0,1],"data":[[1,2],[3,4]]}}`, want: []string{rows}}},
		{matrix, scenario{name: "split, data first", body: `{"dataframe_split":{"data":[[1,2],[3,4]],"columns":["p","q"]}}`, want: []string{rows}}},
		{matrix, scenario{name: "split without columns", body: `{"dataframe_split":{"data":[[1,2],[3,4]]}}`, want: []string{rows}}},
		{matrix, scenario{name: "numbered columns", body: `{"dataframe_split":{"columns":[0,1],"data":[[1,2],[3,4]]}}`, want: []string{rows}}},
		{matrix, scenario{name: "records", body: `{"dataframe_records":[{"p":1,"q":2},{"q":4,"p":3}]}`, want: []string{rows}}},
		{matrix, scenario{name: "instances", body: `{"params":{"k":[1]},"instances":[[1,2],[3,4]]}`, want: []string{rows}}},
		{matrix, scenario{name: "instances by name", body: `{"instances":[{"x":[1,2]},{"x":[3,4]}]}`, want: []string{rows}}},
		{matrix, scenario{name: "inputs", body: `{"inputs":[[1,2],[3,4]]}`, want: []string{rows}}},
		{matrix, scenario{name: "inputs by name", body: `{"inputs":{"x":[[1,2],[3,4]]}}`, want: []string{rows}}},
		{vector, scenario{name: "one column", body: `{"dataframe_split":{"columns":["a"],"data":[[1],[2]]}}`, want: []string{`{"predictions":[1,2]}`}}},
		{vector, scenario{name: "scalar instances", body: `{"instances":[1,2]}`, want: []string{`{"predictions":[1,2]}`}}},
		{named, scenario{name: "two columns, turned round", body: `{"dataframe_split":{"columns":["b","a"],"data":[["x",1],["y",2]]}}`, want: []string{`{"predictions":{"out_a":[[1],[2]],"out_b":[["x"],["y"]]}}`}}},
		{named, scenario{name: "two columns without names", body: `{"dataframe_split":{"data":[[1,"x"]]}}`, want: []string{`"out_a":[[1]],"out_b":[["x"]]`}}},
		{named, scenario{name: "two columns, records", body: `{"dataframe_records":[{"a":1,"b":"x"},{"b":"y","a":2}]}`, want: []string{`"out_a":[[1],[2]]`}}},

		{matrix, scenario{name: "allow_nan", body: `{"parameters":{"allow_nan":true},"inputs":[[1,NaN]]}`, want: []string{`[[1,NaN]]`}}},
		{matrix, scenario{name: "nothing", body: `{}`, status: 400, want: []string{"no inputs", "dataframe_split"}}},
		{matrix, scenario{name: "two kinds", body: `{"inputs":[[1,2]],"instances":[[1,2]]}`, status: 400, want: []string{"has inputs already"}}},
		{matrix, scenario{name: "unknown kind", body: `{"instance":[[1,2]]}`, status: 400, want: []string{"did you mean instances?"}}},
		{matrix, scenario{name: "no data", body: `{"dataframe_split":{"columns":["p","q"]}}`, status: 400, want: []string{"field data: missing"}}},
		{matrix, scenario{name: "ragged", body: `{"dataframe_split":{"columns":["p","q"],"data":[[1,2],[3]]}}`, status: 400, want: []string{"row [1] has 1 values, 2 expected"}}},
		{matrix, scenario{name: "record without a column", body: `{"dataframe_records":[{"p":1,"q":2},{"p":3}]}`, status: 400, want: []string{`column \"q\": missing`}}},
		{matrix, scenario{name: "record with another column", body: `{"dataframe_records":[{"p":1,"q":2},{"p":3,"r":1}]}`, status: 400, want: []string{`row 1: column \"r\": not in the first row`}}},
		{matrix, scenario{name: "array in a record", body: `{"dataframe_records":[{"p":[1,2],"q":[3,4]}]}`, status: 400, want: []string{"a value is an array"}}},
		{matrix, scenario{name: "no records", body: `{"dataframe_records":[]}`, status: 400, want: []string{"a row, which is an object"}}},
		{matrix, scenario{name: "wrong width", body: `{"dataframe_records":[{"p":1,"q":2,"r":3}]}`, status: 400, want: []string{"shape [1 3], the model takes [-1 2]"}}},
		{named, scenario{name: "short row", body: `{"dataframe_split":{"columns":["a","b"],"data":[[1]]}}`, status: 400, want: []string{"row 0 has 1 values, 2 columns"}}},
		{named, scenario{name: "long row", body: `{"dataframe_split":{"columns":["a","b"],"data":[[1,"x",2]]}}`, status: 400, want: []string{"more than 2 values"}}},
		{named, scenario{name: "unknown column", body: `{"dataframe_split":{"columns":["a","c"],"data":[[1,"x"]]}}`, status: 400, want: []string{`column \"c\": unknown`}}},
		{named, scenario{name: "column twice", body: `{"dataframe_split":{"columns":["a","a"],"data":[[1,1]]}}`, status: 400, want: []string{"twice"}}},
		{named, scenario{name: "column missing", body: `{"dataframe_split":{"columns":["a"],"data":[[1]]}}`, status: 400, want: []string{`input \"b\": missing`}}},
		{named, scenario{name: "one value for two inputs", body: `{"instances":[1]}`, status: 400, want: []string{"send them by name"}}},
	} {
		c.sc.check(t, c.h, "/invocations")
	}
	// the same tables under the original's name
	scenario{name: "input_data", body: `{"input_data":{"columns":["p","q"],"index":[0],"data":[[1,2]]}}`, want: []string{`{"out_x":[[1,2]]}`}}.check(t, matrix, "/score")
	scenario{name: "input_data with an unknown field", body: `{"input_data":{"columns":["p","q"],"dat":[[1,2]]}}`, status: 400, want: []string{"did you mean data?"}}.check(t, matrix, "/score")
	for path, want := range map[string]string{"/ping": "\n", "/health": "\n", "/version": "zarpa"} {
		if w := ask(matrix, http.MethodGet, path, ""); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
	}
	loading := newServer(t, nil, Options{}).Handler()
	if w := ask(loading, http.MethodGet, "/ping", ""); w.Code != 503 {
		t.Errorf("ping while loading: %d", w.Code)
	}
}

// A row's width is the client's choice: reading it must not cost the square of it.
func TestWideRecordsAreReadInTime(t *testing.T) {
	t.Parallel()
	const columns = 200_000
	row := []byte{'{'}
	for i := range columns {
		row = append(strconv.AppendInt(append(row, '"'), int64(i), 10), `":1,`...)
	}
	row[len(row)-1] = '}'
	body := `{"dataframe_records":[` + string(row) + "," + string(row) + `]}`
	h := newServer(t, echo(info("x", zarpa.Float32, -1, -1)), Options{}).Handler()
	began := time.Now()
	w := ask(h, http.MethodPost, "/invocations", body)
	if took := time.Since(began); w.Code != http.StatusOK || took > 10*time.Second { // linear: a tenth of a second
		t.Errorf("%d after %v", w.Code, took)
	}
}
