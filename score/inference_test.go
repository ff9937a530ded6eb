package score

import (
	"net/http"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

const inferPath = "/v2/models/iris/infer"

func TestInfer(t *testing.T) {
	t.Parallel()
	h := newServer(t, iris(), Options{}).Handler()
	const in = `"name":"input","shape":[1,4],"datatype":"FP32"`
	one := func(rest string) string { return `{"inputs":[{` + in + `,` + rest + `}]}` }
	for _, sc := range []scenario{
		{name: "flat", body: `{"id":"q\"1","parameters":{"mine":{"a":1}},"inputs":[{` + in + `,"data":[1,2,3,4]}]}`, want: []string{
			`{"model_name":"iris","model_version":"3","id":"q\"1","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[1]},`,
			`{"name":"probabilities","datatype":"BYTES","shape":[1],"parameters":{"content_type":"application/json"},"data":["{\"0\":0.1,\"1\":0.9}"]}]}`,
		}},
		{name: "nested, without id", body: one(`"data":[[1,2,3,4]]`), want: []string{`"label"`}, not: []string{`"id"`}},
		{name: "the model's name in the body", body: `{"model_name":"iris","model_version":null,"inputs":[{` + in + `,"data":[1,2,3,4]}]}`, want: []string{`"label"`}},
		{name: "data first", body: `{"outputs":[{"name":"label"}],"inputs":[{"data":[[1,2,3,4]],"datatype":"FP32","shape":[1,4],"name":"input"}]}`, want: []string{`"label"`}, not: []string{"probabilities"}},
		{name: "nothing binary asked", body: `{"parameters":{"binary_data_output":false},"outputs":[{"name":"label","parameters":{"binary_data":false}}],"inputs":[{` + in + `,"data":[1,2,3,4]}]}`, want: []string{`"label"`}},
		{name: "no inputs", body: `{}`, status: 400, want: []string{`{"error":"field inputs: missing`}},
		{name: "unknown field", body: `{"input":[]}`, status: 400, want: []string{"did you mean inputs?"}},
		{name: "unknown field of an input", body: one(`"dat":[1]`), status: 400, want: []string{"inputs[0]: field", "did you mean data?"}},
		{name: "no data", body: `{"inputs":[{` + in + `}]}`, status: 400, want: []string{"inputs[0]: field data: missing"}},
		{name: "no shape", body: `{"inputs":[{"name":"input","datatype":"FP32","data":[1,2,3,4]}]}`, status: 400, want: []string{"field shape: missing"}},
		{name: "no name", body: `{"inputs":[{"shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`, status: 400, want: []string{"field name: missing"}},
		{name: "unknown input", body: strings.Replace(one(`"data":[1,2,3,4]`), "input\"", "imput\"", 2), status: 400, want: []string{"did you mean input?"}},
		{name: "input twice", body: `{"inputs":[{` + in + `,"data":[1,2,3,4]},{` + in + `,"data":[1,2,3,4]}]}`, status: 400, want: []string{"twice"}},
		{name: "wrong type", body: strings.Replace(one(`"data":[1,2,3,4]`), "FP32", "FP64", 1), status: 400, want: []string{"datatype FP64, the model takes FP32"}},
		{name: "unknown type", body: strings.Replace(one(`"data":[1,2,3,4]`), "FP32", "FLOAT", 1), status: 400, want: []string{`datatype \"FLOAT\": unknown`}},
		{name: "too few", body: one(`"data":[1,2,3]`), status: 400, want: []string{"3 elements, shape [1 4] has 4"}},
		{name: "nested otherwise", body: one(`"data":[[1,2],[3,4]]`), status: 400, want: []string{"data nested as [2 2], its shape is [1 4]"}},
		{name: "negative", body: strings.Replace(one(`"data":[1,2,3,4]`), "[1,4]", "[-1,4]", 1), status: 400, want: []string{"dimension 0 is negative"}},
		{name: "huge", body: strings.Replace(one(`"data":[1,2,3,4]`), "[1,4]", "[9223372036854775807,9223372036854775807]", 1), status: 400, want: []string{"too many elements"}},
		{name: "wrong shape", body: strings.Replace(one(`"data":[1,2,3,4]`), "[1,4]", "[2,2]", 1), status: 400, want: []string{"shape [2 2], the model takes [-1 4]"}},
		{name: "wrong rank", body: strings.Replace(one(`"data":[1,2,3,4]`), "[1,4]", "[4]", 1), status: 400, want: []string{"shape [4], the model takes [-1 4]"}},
		{name: "unknown output", body: `{"outputs":[{"name":"lable"}],"inputs":[{` + in + `,"data":[1,2,3,4]}]}`, status: 400, want: []string{"did you mean label?"}},
		{name: "output twice", body: `{"outputs":[{"name":"label"},{"name":"label"}],"inputs":[{` + in + `,"data":[1,2,3,4]}]}`, status: 400, want: []string{"twice"}},
		{name: "binary input without its header", body: `{"inputs":[{` + in + `,"parameters":{"binary_data_size":16}}]}`, status: 400, want: []string{"Inference-Header-Content-Length"}},
		{name: "shared memory", body: `{"inputs":[{` + in + `,"parameters":{"shared_memory_region":"r","shared_memory_byte_size":16}}]}`, status: 400, want: []string{"shared memory: this server does not support it"}},
		{name: "shared memory out", body: `{"outputs":[{"name":"label","parameters":{"shared_memory_region":"r"}}],"inputs":[{` + in + `,"data":[1,2,3,4]}]}`, status: 400, want: []string{"shared memory"}},
		{name: "parameters of others", body: `{"parameters":{"priority":3,"x":{"y":[1]}},"outputs":[{"name":"label","parameters":{"z":null}}],"inputs":[{` + in + `,"parameters":{"content_type":"np"},"data":[1,2,3,4]}]}`, want: []string{`"label"`}},
		{name: "a flag that is none", body: `{"parameters":{"binary_data_output":1},"inputs":[{` + in + `,"data":[1,2,3,4]}]}`, status: 400, want: []string{"parameter binary_data_output: not true or false"}},
		{name: "NaN", body: one(`"data":[1,2,3,NaN]`), status: 400, want: []string{"allow_nan"}},
		{name: "deep", body: strings.Repeat(`[`, 5000), status: 400, want: []string{"error"}},
		{name: "no JSON", body: `hello`, status: 400, want: []string{"the character 'h'"}},
		{name: "id of a number", body: `{"id":1}`, status: 400, want: []string{"id: not a string"}},
	} {
		if sc.status != 0 {
			sc.not = append(sc.not, `"message"`, "panic")
		}
		sc.check(t, h, inferPath)
	}
}

func TestInferOfRareTypes(t *testing.T) {
	t.Parallel()
	body := func(shape, typ, data string) string {
		return `{"inputs":[{"name":"x","shape":` + shape + `,"datatype":"` + typ + `","data":` + data + `}]}`
	}
	for _, c := range []struct {
		in zarpa.ValueInfo
		sc scenario
	}{
		{info("x", zarpa.Int64), scenario{name: "scalar", body: body("[]", "INT64", "[7]"), want: []string{`"shape":[],"data":[7]`}}},
		{info("x", zarpa.Int64), scenario{name: "[1] for a scalar", body: body("[1]", "INT64", "[7]"), want: []string{`"shape":[],"data":[7]`}}},
		{info("x", zarpa.String, -1), scenario{name: "text", body: body("[2]", "BYTES", `["a","é\n"]`), want: []string{`"data":["a","é\n"]`}}},
		{info("x", zarpa.Float32, -1, 3), scenario{name: "no rows", body: body("[0,3]", "FP32", `[]`), want: []string{`"shape":[0,3],"data":[]`}}},
		{info("x", zarpa.Float32, -1, -1), scenario{name: "rows of nothing", body: body("[1000,0]", "FP32", `[]`), want: []string{`"shape":[1000,0],"data":[]`}}},
		{info("x", zarpa.Float32, -1, -1), scenario{name: "more of them than fit", body: body("[4000000000,0]", "FP32", `[]`), status: 400, want: []string{"rows without elements"}}},
		{info("x", zarpa.Float32, 2, 2), scenario{name: "rows answered flat", body: body("[2,2]", "FP32", `[[1,2],[3,4]]`), want: []string{`"data":[1,2,3,4]`}}},
		{info("x", zarpa.Uint8, -1), scenario{name: "range", body: body("[1]", "UINT8", `[256]`), status: 400, want: []string{"element [0]: 256 is out of range"}}},
		{info("x", zarpa.Bool, -1), scenario{name: "number as bool", body: body("[1]", "BOOL", `[1]`), status: 400, want: []string{"true or false"}}},
		{info("x", zarpa.Float16, -1), scenario{name: "half", body: body("[1]", "FP16", `[1]`), status: 400, want: []string{"no JSON form", "/score"}}},
	} {
		c.sc.check(t, newServer(t, echo(c.in), Options{}).Handler(), inferPath)
	}
	base64 := `{"outputs":[{"name":"out_x","parameters":{"content_type":"base64"}}],"inputs":[{"name":"x","shape":[2],"datatype":"BYTES","parameters":{"content_type":"base64"},"data":["AP8=",""]}]}`
	h := newServer(t, echo(info("x", zarpa.String, -1)), Options{}).Handler()
	for _, sc := range []scenario{
		{name: "base64", body: base64, want: []string{`"parameters":{"content_type":"base64"},"data":["AP8=",""]`}},
		{name: "parameters last", body: strings.Replace(base64, `"parameters":{"content_type":"base64"},"data":["AP8=",""]`, `"data":["AP8=",""],"parameters":{"content_type":"base64"}`, 1), want: []string{`"data":["AP8=",""]`}},
		{name: "no base64", body: strings.Replace(base64, "AP8=", "?", 1), status: 400, want: []string{"element [0]: not base64"}},
	} {
		sc.check(t, h, inferPath)
	}
	half := zarpa.Tensor{Name: "y", Type: zarpa.Float16, Shape: []int64{1}, Data: le(uint16(0x3C00))}
	scenario{name: "half out", body: body("[1]", "FP32", "[1]"), status: 400, want: []string{"no JSON form"}}.check(t, newServer(t, constant(half), Options{}).Handler(), inferPath)
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	ready := newServer(t, iris(), Options{Self: map[string]string{"replica": "r1"}, ServerVersion: "zarpa/0.1"}).Handler()
	loading := newServer(t, nil, Options{}).Handler()
	body := `{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`
	for _, c := range []struct {
		h            http.Handler
		method, path string
		status       int
		want         string
	}{
		{ready, "GET", "/", 200, "Healthy"},
		{ready, "HEAD", "/", 200, ""},
		{loading, "GET", "/", 200, "Healthy"},
		{ready, "GET", "/-/self", 200, `{"replica":"r1"}`},
		{ready, "GET", "/v2", 200, `{"name":"zarpa","version":"zarpa/0.1","extensions":["binary_tensor_data","classification"`},
		{ready, "GET", "/v2/", 200, `"extensions":["binary`},
		{ready, "GET", "/v2/health/live", 200, `{"live":true}`},
		{loading, "GET", "/v2/health/live", 200, `{"live":true}`},
		{ready, "GET", "/v2/health/ready", 200, `{"ready":true}`},
		{loading, "GET", "/v2/health/ready", 503, `{"error":"the model is still loading`},
		{loading, "POST", "/score", 503, `{"message":"the model is still loading`},
		{loading, "POST", inferPath, 503, `{"error":"the model is still loading`},
		{loading, "GET", "/v2/models/iris", 503, "loading"},
		{loading, "GET", "/v2/models/iris/ready", 503, "loading"},
		{loading, "GET", "/swagger.json", 503, "loading"},
		{ready, "GET", "/v2/models/iris", 200, `{"name":"iris","versions":["3"],"platform":"onnx_onnxv1","inputs":[{"name":"input","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"label","datatype":"INT64","shape":[-1]},{"name":"probabilities","datatype":"BYTES","shape":[-1]}]}`},
		{ready, "GET", "/v2/models/iris/versions/3", 200, `"versions":["3"]`},
		{ready, "GET", "/v2/models/iris/versions/3/ready", 200, `{"name":"iris","ready":true}`},
		{ready, "GET", "/v2/models/flowers/ready", 200, `"ready":true`},
		{ready, "GET", "/v2/models/a/b/versions/3/ready", 200, `"name":"a/b"`},
		{ready, "GET", "/v2/models/a%2Fb", 200, `"name":"a/b"`},
		{ready, "GET", "/v2/models/%C3%A9%20x/ready", 200, `"name":"é x"`},
		{ready, "POST", "/v2/models/flowers/versions/3/infer", 200, `"model_name":"flowers"`},
		{ready, "GET", "/v2/models/rose", 404, `{"error":"Request for unknown model: 'rose' is not found`},
		{ready, "POST", "/v2/models/x/rose/infer", 404, `Request for unknown model: 'x/rose' is not found`},
		{ready, "GET", "/v2/models/iris/versions/9", 404, `Request for unknown model: 'iris' version 9 is not found`},
		{ready, "GET", "/v2/models/irises", 404, "unknown model"},
		{ready, "GET", "/v2/nothing", 404, `"error"`},
		{ready, "GET", "/nothing", 404, `"message"`},
		{ready, "GET", "/score/", 404, `"message"`},
		{ready, "GET", "/score", 405, `"message"`},
		{ready, "OPTIONS", "/score", 200, ""},
		{ready, "POST", "/", 405, ""},
		{ready, "GET", inferPath, 405, `"error"`},
		{ready, "POS", inferPath, 405, `"error"`}, // a part of one that is allowed
		{ready, "POST", "/v2/models/iris", 405, `"error"`},
		{ready, "DELETE", "/v2/health/live", 405, `"error"`},
		{ready, "GET", "/metrics", 200, `zarpa_score_model_load_seconds{model="iris"} `},
		{ready, "GET", "/swagger.json?version=4", 404, "Swagger version [4] is not valid. Supported versions: [2, 3, 3.1]."},
		{ready, "GET", "/swagger.json?version=", 404, "Swagger version [] is not valid."},
	} {
		send := ""
		if c.method == "POST" {
			send = body
		}
		w := ask(c.h, c.method, c.path, send)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, w.Code, w.Body, c.status, c.want)
		}
		if id := w.Header().Get("x-request-id"); len(id) != 36 || w.Header().Get("x-ms-server-version") == "" {
			t.Errorf("%s %s: header %v", c.method, c.path, w.Header())
		}
		if c.status == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
}

func TestInputsThatAreNoTensorsAreRefused(t *testing.T) {
	t.Parallel()
	in := zarpa.ValueInfo{Name: "x", Type: zarpa.Map, Items: []zarpa.ValueInfo{{Type: zarpa.String}, {Type: zarpa.Float32}}}
	h := newServer(t, echo(in), Options{}).Handler()
	const want = `input \"x\": the model takes a MAP there, which requests cannot carry (export the model`
	for path, body := range map[string]string{
		"/score":       `{"data":{"x":{"b":2}}}`,
		"/invocations": `{"inputs":{"x":{"b":2}}}`,
		inferPath:      `{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["b"]}]}`,
	} {
		scenario{name: path, body: body, status: 400, want: []string{want}}.check(t, h, path)
	}
}
