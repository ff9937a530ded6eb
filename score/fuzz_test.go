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

func FuzzInvocations(f *testing.F) {
	fuzz(f, "/invocations", `{"inputs":{"x":[[1,2]],"n":[3],"s":[["a"]]}}`,
		`{"dataframe_split":{"columns":["n","s","x"],"data":[[1,"a",[1,2]]]}}`, `{"dataframe_split":{"data":[[[1,2],1,"a"]],"index":[0]}}`,
		`{"dataframe_records":[{"x":[1,2],"n":1,"s":"a"},{"n":1}]}`, `{"instances":[{"x":[1,2],"n":1,"s":"a"}],"params":null}`)
}

// FuzzBinary splits its input into a JSON header and tensors.
func FuzzBinary(f *testing.F) {
	h := newServer(f, echo(info("x", zarpa.Float32, -1, 2), info("s", zarpa.String, -1)), Options{MaxBody: 1 << 16}).Handler()
	header := `{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}},{"name":"s","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}`
	f.Add(header, le(float32(1), float32(2), uint32(1), byte('a')), "")
	f.Add(header, []byte{}, "gzip")
	f.Add(`{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":1e1}}]}`, []byte{1}, "deflate")
	f.Add("", []byte("12345678"), "")
	f.Fuzz(func(t *testing.T, header string, tensors []byte, encoding string) {
		r := binaryRequest(header, tensors)
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		w := do(h, r)
		switch w.Code {
		case 200, 400, 413, 415:
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w.Code == 200 && w.Header().Get("Inference-Header-Content-Length") != "" {
			binaryAnswer(t, w)
		}
	})
}
