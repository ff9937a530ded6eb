package score

import (
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// TestTablesAreOrderedByTheModelsColumns: a table in another order would be another prediction.
func TestTablesAreOrderedByTheModelsColumns(t *testing.T) {
	t.Parallel()
	in := info("x", zarpa.Float32, -1, 3)
	in.Columns = []string{"a", "b", "c"}
	h := newServer(t, echo(in), Options{}).Handler()
	const want = `{"predictions":[[1,2,3],[4,5,6]]}`
	for _, sc := range []scenario{
		{name: "as they stand", body: `{"dataframe_split":{"columns":["a","b","c"],"data":[[1,2,3],[4,5,6]]}}`, want: []string{want}},
		{name: "turned round", body: `{"dataframe_split":{"columns":["c","a","b"],"index":[0,1],"data":[[3,1,2],[6,4,5]]}}`, want: []string{want}},
		{name: "data first", body: `{"dataframe_split":{"data":[[3,1,2],[6,4,5]],"columns":["c","a","b"]}}`, want: []string{want}},
		{name: "numbered", body: `{"dataframe_split":{"columns":[0,1,2],"data":[[1,2,3],[4,5,6]]}}`, want: []string{want}},
		{name: "no names", body: `{"dataframe_split":{"data":[[1,2,3],[4,5,6]]}}`, want: []string{want}},
		{name: "records", body: `{"dataframe_records":[{"b":2,"a":1,"c":3},{"c":6,"b":5,"a":4}]}`, want: []string{want}},
		{name: "no rows", body: `{"dataframe_split":{"columns":["c","a","b"],"data":[]}}`, want: []string{`{"predictions":[]}`}},
		{name: "missing", body: `{"dataframe_split":{"columns":["a","b"],"data":[[1,2]]}}`, status: 400, want: []string{`column \"c\": missing`, "a, b, c"}},
		{name: "unknown", body: `{"dataframe_split":{"columns":["a","b","c","d"],"data":[[1,2,3,4]]}}`, status: 400, want: []string{`column \"d\": unknown`}},
		{name: "twice", body: `{"dataframe_split":{"columns":["a","b","c","a"],"data":[[1,2,3,4]]}}`, status: 400, want: []string{"twice"}},
		{name: "short row", body: `{"dataframe_split":{"columns":["c","a","b"],"data":[[1,2]]}}`, status: 400, want: []string{"row 0 has 2 values, 3 columns"}},
		{name: "long row", body: `{"dataframe_split":{"columns":["c","a","b"],"data":[[1,2,3,4]]}}`, status: 400, want: []string{"more than 3 values"}},
		{name: "array in a cell", body: `{"dataframe_split":{"columns":["c","a","b"],"data":[[[1,2],3,4]]}}`, status: 400, want: []string{"nested 2 deep"}},
		{name: "record, unknown", body: `{"dataframe_records":[{"a":1,"b":2,"d":3}]}`, status: 400, want: []string{`column \"d\": unknown`}},
		{name: "record, missing", body: `{"dataframe_records":[{"a":1,"b":2}]}`, status: 400, want: []string{`column \"c\": missing`}},
	} {
		sc.check(t, h, "/invocations")
	}
	scenario{name: "rows of names", body: `{"data":[{"c":3,"b":2,"a":1}]}`, want: []string{`{"out_x":[[1,2,3]]}`}}.check(t, h, "/score")
	scenario{name: "a table", body: `{"data":{"columns":["b","c","a"],"data":[[2,3,1]]}}`, want: []string{`{"out_x":[[1,2,3]]}`}}.check(t, h, "/score")
	scenario{name: "the input by name", body: `{"data":[{"x":[1,2,3]}]}`, want: []string{`{"out_x":[[1,2,3]]}`}}.check(t, h, "/score")
}
