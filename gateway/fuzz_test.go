package gateway

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// FuzzParseHead holds the parser against net/http's: what this one takes, that one takes, too, and
// both find the same status and the same body.
func FuzzParseHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HTTP/1.0 404 Not Found\r\nA:b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: x, close\r\n\r\n", "HTTP/1.1 204\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", "HTTP/1.1 200 OK\r\n:c\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "\r\n\r\n", "HTTP/1.1 99 x\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var a answer
		if parseHead(text, &a) != nil {
			return
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), req)
		if err != nil {
			t.Fatalf("%q: taken, but net/http says %v", text, err)
		}
		defer res.Body.Close()
		if res.StatusCode != a.status {
			t.Errorf("%q: status %d, net/http %d", text, a.status, res.StatusCode)
		}
		if !a.bodyless(http.MethodGet) {
			chunked := len(res.TransferEncoding) > 0
			if chunked != a.chunked || !chunked && res.ContentLength != a.length {
				t.Errorf("%q: length %d chunked %v, net/http %d %v", text, a.length, a.chunked, res.ContentLength, chunked)
			}
		}
		for _, fd := range a.fields {
			if strings.ContainsAny(fd.name+fd.value, "\r\n\x00") {
				t.Errorf("%q: field %q", text, fd)
			}
		}
	})
}

func FuzzReadHeadText(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\n\r\nbody", 3)
	f.Add(strings.Repeat("x", 100), 1)
	f.Fuzz(func(t *testing.T, text string, step int) {
		in := bufio.NewReaderSize(&stepReader{strings.NewReader(text), step&15 + 1}, 64)
		head, err := readHeadText(in)
		end := strings.Index(text, "\r\n\r\n")
		if (err == nil) != (end >= 0 && end <= 60) {
			t.Errorf("%q: %q %v", text, head, err)
		}
		if err == nil && head != text[:end+4] {
			t.Errorf("%q: %q", text, head)
		}
	})
}

// stepReader gives a few bytes at a time.
type stepReader struct {
	r    io.Reader
	step int
}

func (r *stepReader) Read(b []byte) (int, error) { return r.r.Read(b[:min(len(b), r.step)]) }

// FuzzMatch proves that no path leads to a replica under another name than its own, and that what
// reaches a replica stays one line.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"/endpoints/a/score", "/endpoints/%2e%2e/score", "/v2/models/a/../b/infer", "/api/v1/service/a%2Fb/score", "/endpoints/a/v2/%2e%2e/x?y=z", "/v2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil {
			return
		}
		m, e := matchRequest(r, nil)
		if e != nil || m.own != nil {
			return
		}
		if !strings.HasPrefix(m.path, "/") || strings.ContainsAny(m.path, " \r\n\x00") || dotted(m.path) {
			t.Errorf("%q: path %q", target, m.path)
		}
		if m.endpoint == "" || strings.ContainsAny(m.endpoint, "/%\r\n") {
			t.Errorf("%q: endpoint %q", target, m.endpoint)
		}
	})
}

// FuzzPeek holds the look at a message against the full parser: where both take it, both find the
// same name, wherever gRPC's buffers break.
func FuzzPeek(f *testing.F) {
	whole, err := proto.Marshal(&inferencepb.ModelInferRequest{
		ModelName: "iris", ModelVersion: "1", Id: "42", RawInputContents: [][]byte{make([]byte, 300)},
		Parameters: map[string]*inferencepb.InferParameter{"a": {ParameterChoice: &inferencepb.InferParameter_DoubleParam{DoubleParam: 1}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, 7)
	f.Add([]byte("\x0a\x01a\x0a\x01b"), 1)
	f.Add([]byte("\x0d\x00\x00\x00\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 2)
	f.Add([]byte("\x0b\x0c"), 1)
	f.Fuzz(func(t *testing.T, message []byte, piece int) {
		pieces := inPieces(t, message, piece&63+1)
		defer pieces.Free()
		got, bad := peek(pieces, 1)
		var full inferencepb.ModelInferRequest
		if err := proto.Unmarshal(message, &full); err != nil || bad != nil {
			return
		}
		if got != full.GetModelName() {
			t.Errorf("%x: %q, want %q", message, got, full.GetModelName())
		}
	})
}

// inPieces is a frame as gRPC receives it: in buffers of any size.
func inPieces(t testing.TB, message []byte, size int) *grpcx.Frame {
	t.Helper()
	var data mem.BufferSlice
	for piece := range slices.Chunk(message, size) {
		data = append(data, mem.SliceBuffer(piece))
	}
	f := new(grpcx.Frame)
	if err := (grpcx.Codec{}).Unmarshal(data, f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPeekFindsEveryMethodsName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 2000)
	for _, c := range []struct {
		message proto.Message
		method  string
		want    string
		code    zarpa.Code
	}{
		{&inferencepb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{make([]byte, 9000)}}, "ModelInfer", "iris", ""},
		{&inferencepb.ModelReadyRequest{Name: "iris", Version: "1"}, "ModelReady", "iris", ""},
		{&inferencepb.RepositoryModelLoadRequest{RepositoryName: "r", ModelName: "iris"}, "RepositoryModelLoad", "iris", ""},
		{&inferencepb.ModelConfigRequest{}, "ModelConfig", "", ""},
		{&inferencepb.ModelInferRequest{ModelName: long}, "ModelInfer", "", zarpa.NotFound},
	} {
		b, err := proto.Marshal(c.message)
		if err != nil {
			t.Fatal(err)
		}
		got, bad := peek(inPieces(t, b, 3), methods()[c.method].name)
		if got != c.want || (bad != nil) != (c.code != "") || bad != nil && bad.Code != c.code {
			t.Errorf("%s: %q %v", c.method, got, bad)
		}
	}
}
