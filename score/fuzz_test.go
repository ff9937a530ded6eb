package score

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

// fuzz sends bodies to a model of several inputs: an answer is 200 with JSON, or 400 with a
// message, and a failed request leaves nothing for the next one.
func fuzz(f *testing.F, path, good string, seeds ...string) {
	h := newServer(f, echo(info("x", zarpa.Float32, -1, 2), info("n", zarpa.Int8, -1), info("s", zarpa.String, -1, 1)), Options{MaxBody: 1 << 16}).Handler()
	want := ask(h, http.MethodPost, path, good)
	if want.Code != 200 {
		f.Fatal(want.Body)
	}
	f.Add(good)
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		w := ask(h, http.MethodPost, path, body)
		switch w.Code {
		case 200:
			if !json.Valid(w.Body.Bytes()) && !strings.Contains(body, "allow_nan") {
				t.Fatalf("%q: %s", body, w.Body)
			}
		case 400, 413:
			if !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%q: %s", body, w.Body)
			}
		default:
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
		if again := ask(h, http.MethodPost, path, good); again.Body.String() != want.Body.String() {
			t.Fatalf("after %q: %s", body, again.Body)
		}
	})
}

func FuzzScore(f *testing.F) {
	fuzz(f, "/score", `{"data":{"x":[[1,2]],"n":[3],"s":[["a"]]},"outputs":["out_n","out_s"]}`,
		`{"data":[{"x":[1,2],"n":3,"s":"a"},{"x":[1,2],"n":3,"s":"b"}]}`, `{"data":[[[1,2]],[3],[["a"]]],"parameters":{"allow_nan":true}}`,
		`{"data":[{"x":1},{}]}`, `{"data":[]}`, `{"input_data":{},"method":"predict"}`, `{"data":[{}]}`, `{"data":null}`)
}

func FuzzInfer(f *testing.F) {
	fuzz(f, inferPath, `{"id":"1","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]},{"name":"n","shape":[1],"datatype":"INT8","data":[1]},{"data":["a"],"name":"s","shape":[1,1],"datatype":"BYTES"}]}`,
		`{"inputs":[{"name":"x","shape":[0,2],"datatype":"FP32","data":[]}]}`, `{"inputs":[{"shape":[],"data":{},"datatype":"BOOL"}],"outputs":[{"name":"out_x"}]}`,
		`{"inputs":[{"data":[NaN],"data":[1],"datatype":"FP32","name":"x","shape":[1,1]}]}`)
}
