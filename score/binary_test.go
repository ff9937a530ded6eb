package score

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/zarpa-dev/zarpa"
)

// binaryRequest is a JSON header and the tensors behind it.
func binaryRequest(header string, tensors ...[]byte) *http.Request {
	body := append([]byte(header), bytes.Join(tensors, nil)...)
	r := httptest.NewRequest(http.MethodPost, inferPath, bytes.NewReader(body))
	r.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(header)))
	return r
}

// binaryAnswer is the JSON of an answer and the tensors behind it.
func binaryAnswer(t *testing.T, w *httptest.ResponseRecorder) (header string, tensors map[string][]byte) {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	n, err := strconv.Atoi(w.Header().Get("Inference-Header-Content-Length"))
	if err != nil || w.Header().Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("header %v, body %q", w.Header(), w.Body)
	}
	body := w.Body.Bytes()
	var answer struct {
		Outputs []struct {
			Name       string
			Parameters map[string]any
		}
	}
	if err := json.Unmarshal(body[:n], &answer); err != nil {
		t.Fatalf("%s: %v", body[:n], err)
	}
	header, tensors, body = string(body[:n]), map[string][]byte{}, body[n:]
	for _, o := range answer.Outputs {
		if size, ok := o.Parameters["binary_data_size"].(float64); ok {
			tensors[o.Name], body = body[:int(size)], body[int(size):]
		}
	}
	if len(body) != 0 {
		t.Fatalf("%d bytes are left", len(body))
	}
	return header, tensors
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestBinaryTensorsBothWays(t *testing.T) {
	t.Parallel()
	h := newServer(t, echo(info("x", zarpa.Float32, -1), info("s", zarpa.String, -1), info("h", zarpa.Float16, 2)), Options{}).Handler()
	x, s, half := le(float32(1.5), nan), []byte("\x02\x00\x00\x00\xff\x00\x00\x00\x00\x00"), le(uint16(0x3C00), uint16(0x7E01))
	header := `{"id":"7","parameters":{"binary_data_output":true},"outputs":[{"name":"out_x"},{"name":"out_s"},{"name":"out_h"}],"inputs":[
		{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},
		{"name":"s","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":10}},
		{"parameters":{"binary_data_size":4},"name":"h","shape":[2],"datatype":"FP16"}]}`
	got, tensors := binaryAnswer(t, do(h, binaryRequest(header, x, s, half)))
	if !bytes.Equal(tensors["out_x"], x) || !bytes.Equal(tensors["out_s"], s) || !bytes.Equal(tensors["out_h"], half) || !strings.Contains(got, `"id":"7"`) {
		t.Errorf("%s %q", got, tensors)
	}

	// an output's own word counts before the request's
	for choice, binary := range map[string][]bool{
		`"parameters":{"binary_data_output":true},"outputs":[{"name":"out_h"},{"name":"out_x","parameters":{"binary_data":false}}]`: {true, false},
		`"outputs":[{"name":"out_h","parameters":{"binary_data":true}},{"name":"out_x"}]`:                                           {true, false},
	} {
		header := header[:strings.Index(header, `"parameters"`)] + choice + header[strings.Index(header, `,"inputs"`):]
		got, tensors := binaryAnswer(t, do(h, binaryRequest(header, le(float32(1), float32(2)), s, half)))
		if (tensors["out_h"] != nil) != binary[0] || (tensors["out_x"] != nil) != binary[1] || !strings.Contains(got, `"data":[1,2]`) {
			t.Errorf("%s: %s %q", choice, got, tensors)
		}
	}

	// JSON inputs beside binary ones, and JSON answers to them
	mixed := `{"outputs":[{"name":"out_x"}],"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]},{"name":"s","shape":[1],"datatype":"BYTES","data":["a"]},{"name":"h","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}}]}`
	if w := do(h, binaryRequest(mixed, half)); w.Code != 200 || !strings.Contains(w.Body.String(), `"data":[1,2]`) || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("mixed: %d %s", w.Code, w.Body)
	}
}

func TestBinaryRequestsThatLie(t *testing.T) {
	t.Parallel()
	h := newServer(t, echo(info("x", zarpa.Float32, -1), info("s", zarpa.String, -1), info("b", zarpa.Bool, -1)), Options{}).Handler()
	in := func(name, typ string, size, shape int) string {
		return fmt.Sprintf(`{"name":%q,"shape":[%d],"datatype":%q,"parameters":{"binary_data_size":%d}}`, name, shape, typ, size)
	}
	wrap := func(inputs ...string) string { return `{"inputs":[` + strings.Join(inputs, ",") + `]}` }
	good := []string{in("x", "FP32", 8, 2), in("s", "BYTES", 5, 1), in("b", "BOOL", 1, 1)}
	x, s, b := le(float32(1), float32(2)), []byte("\x01\x00\x00\x00a"), []byte{1}
	for _, c := range []struct {
		name, header string
		tensors      []byte
		want         string
	}{
		{"too few bytes", wrap(good...), x, `input \"s\": binary_data_size is 5, 0 bytes are left`},
		{"bytes left", wrap(good...), append(append(append(append([]byte{}, x...), s...), b...), 9), "1 bytes are left behind the tensors"},
		{"size against shape", wrap(in("x", "FP32", 8, 3)), x, "8 bytes, shape [3] of FP32 has 12"},
		{"huge size", wrap(in("x", "FP32", 1<<62, 2)), x, "8 bytes are left"},
		{"huge shape", wrap(in("x", "FP32", 8, 1<<62-1)), x, "too many bytes"},
		{"string length", wrap(in("s", "BYTES", 5, 1)), []byte("\xff\xff\xff\xffa"), "element 0 is cut off"},
		{"string cut off", wrap(in("s", "BYTES", 6, 1)), []byte("\x01\x00\x00\x00ab"), "element 1 is cut off"},
		{"more strings than bytes", wrap(in("s", "BYTES", 5, 1<<40)), s, "1 elements, shape [1099511627776] has"},
		{"no bool", wrap(in("b", "BOOL", 1, 1)), []byte{2}, "byte 2 is neither 0 nor 1"},
		{"both", `{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2],"parameters":{"binary_data_size":8}}]}`, x, "both data and binary_data_size"},
		{"negative", `{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":-8}}]}`, x, "parameter binary_data_size: not a number"},
	} {
		w := do(h, binaryRequest(c.header, c.tensors))
		if w.Code != 400 || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %s", c.name, w.Code, w.Body, c.want)
		}
	}
	for _, length := range []string{"-1", "99999", "x", "1e3", ""} {
		r := binaryRequest(wrap(good...), x, s, b)
		r.Header.Set("Inference-Header-Content-Length", length)
		if w := do(h, r); w.Code != 400 || !strings.Contains(w.Body.String(), "header Inference-Header-Content-Length") {
			t.Errorf("length %q: %d %s", length, w.Code, w.Body)
		}
	}
}

func TestRawBinaryRequests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   zarpa.ValueInfo
		body []byte
		want string // shape, or the error
	}{
		{info("x", zarpa.Float32, -1, 2), le(float32(1), float32(2), float32(3), float32(4)), `"shape":[2,2]`},
		{info("x", zarpa.Float32, 2), le(float32(1), float32(2)), `"shape":[2]`},
		{info("x", zarpa.Int64), le(int64(7)), `"shape":[]`},
		{info("x", zarpa.Float32, -1), nil, `"shape":[0]`},
		{info("x", zarpa.String, -1, 1), []byte("any\x00bytes"), `"shape":[1,1]`},
		{info("x", zarpa.Float32, -1, 2), le(float32(1)), "4 bytes, shape [0 2] of FP32 has 0"},
		{info("x", zarpa.Float32, -1, -1), le(float32(1)), "several free dimensions"},
		{info("x", zarpa.String, 2), []byte("a"), "several strings"},
	} {
		h := newServer(t, echo(c.in), Options{}).Handler()
		r := binaryRequest("", c.body)
		w := do(h, r)
		if strings.Contains(c.want, "shape\"") {
			header, tensors := binaryAnswer(t, w)
			got := tensors["out_x"]
			if c.in.Type == zarpa.String {
				got = got[4:]
			}
			if !strings.Contains(header, c.want) || !bytes.Equal(got, c.body) {
				t.Errorf("%v: %s %q", c.in, header, tensors)
			}
		} else if w.Code != 400 || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%v: %d %s, want %s", c.in, w.Code, w.Body, c.want)
		}
	}
	two := newServer(t, echo(info("x", zarpa.Float32, -1), info("y", zarpa.Float32, -1)), Options{}).Handler()
	if w := do(two, binaryRequest("", le(float32(1)))); w.Code != 400 || !strings.Contains(w.Body.String(), "several inputs") {
		t.Errorf("two inputs: %d %s", w.Code, w.Body)
	}
}

// The model gets the bytes of the request's own buffer, aligned for their type.
func TestBinaryTensorsAreUsedInPlace(t *testing.T) {
	t.Parallel()
	s := echo(info("x", zarpa.Float64, -1))
	var address uintptr
	s.run = func(_ context.Context, in []zarpa.Tensor, _ []string) ([]zarpa.Tensor, error) {
		address = uintptr(unsafe.Pointer(&in[0].Data[0]))
		return []zarpa.Tensor{{Name: "out_x", Type: zarpa.Float64, Shape: []int64{1}, Data: le(float64(1))}}, nil
	}
	srv := newServer(t, s, Options{})
	for pad := range 70 {
		header := `{"id":"` + strings.Repeat("x", pad) + `","inputs":[{"name":"x","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":8}}]}`
		m, err := srv.entries[0].ready()
		if err != nil {
			t.Fatal(err)
		}
		c := srv.begin(m)
		r := binaryRequest(header, le(float64(1)))
		if err := srv.predict(httptest.NewRecorder(), r, c, inferenceForm{}); err != nil {
			t.Fatal(err)
		}
		begin := uintptr(unsafe.Pointer(unsafe.SliceData(c.body)))
		if address%64 != 0 || address < begin || address >= begin+uintptr(len(c.body)) {
			t.Errorf("header of %d bytes: the tensor is at %x, the body at %x", len(header), address, begin)
		}
		srv.end(c)
	}
}

func TestAnswersAreCompressedForWhoAsks(t *testing.T) {
	t.Parallel()
	h := newServer(t, echo(info("x", zarpa.Float32, -1)), Options{}).Handler()
	data := "[1" + strings.Repeat(",1", 2000) + "]"
	body := `{"data":` + data + `}`
	plain := ask(h, http.MethodPost, "/score", body).Body.String()
	for _, c := range []struct{ accept, want string }{
		{"gzip", "gzip"},
		{"deflate", "deflate"},
		{"gzip, deflate, br", "gzip"},
		{"deflate;q=1.0, gzip; q=0.5", "deflate"},
		{"gzip;q=0", ""},
		{"br", ""},
		{"*", ""},
	} {
		for range 2 { // with a compressor that was used before
			w := ask(h, http.MethodPost, "/score", body, "Accept-Encoding", c.accept)
			var src io.Reader = w.Body
			switch w.Header().Get("Content-Encoding") {
			case "gzip":
				src, _ = gzip.NewReader(w.Body)
			case "deflate":
				src, _ = zlib.NewReader(w.Body)
			}
			if got := text(src); w.Header().Get("Content-Encoding") != c.want || got != plain {
				t.Errorf("%s: %v, %d bytes", c.accept, w.Header(), len(got))
			}
		}
	}
	if w := ask(h, http.MethodPost, "/score", `{"data":[1]}`, "Accept-Encoding", "gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Error("a small answer is compressed")
	}
	r := binaryRequest(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[500],"datatype":"FP32","parameters":{"binary_data_size":2000}}]}`, make([]byte, 2000))
	r.Header.Set("Accept-Encoding", "gzip")
	w := do(h, r)
	unzipped, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(w.Header().Get("Inference-Header-Content-Length"))
	if got := text(unzipped); len(got) != n+2000 || !json.Valid([]byte(got[:n])) {
		t.Errorf("%v: %d bytes", w.Header(), len(got))
	}
}
