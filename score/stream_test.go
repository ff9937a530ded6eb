package score

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/fake"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// storyteller says words one after the other; its input is a text.
func storyteller(words ...string) fake.Model {
	m := fake.Model{
		Inputs:  []zarpa.ValueInfo{info("prompt", zarpa.String, 1, 1), {Name: "n", Type: zarpa.Int32, Shape: dims(1), Optional: true}},
		Outputs: []zarpa.ValueInfo{info("text", zarpa.String, 1), info("odds", zarpa.Float32, 2)},
		Parts:   [][]zarpa.Tensor{},
	}
	for _, word := range words {
		m.Parts = append(m.Parts, []zarpa.Tensor{
			{Name: "text", Type: zarpa.String, Shape: []int64{1}, Strings: []string{word}},
			{Name: "odds", Type: zarpa.Float32, Shape: []int64{2}, Data: le(float32(0.5), float32(0.25))},
		})
	}
	return m
}

func faked(t testing.TB, m fake.Model) zarpa.Session {
	t.Helper()
	dir := t.TempDir()
	if err := fake.Write(dir, m); err != nil {
		t.Fatal(err)
	}
	s, err := fake.New(fake.Options{}).Load(t.Context(), dir, zarpa.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// both is a server of a model that streams, "teller", and one that does not, "iris".
func both(t testing.TB, m fake.Model, o Options) *Server {
	t.Helper()
	models := map[string]zarpa.Session{"iris": iris(), "teller": faked(t, m)}
	for _, name := range []string{"teller", "iris"} {
		o.Models = append(o.Models, ModelOptions{Name: name, Version: "1", Load: func(context.Context) (zarpa.Session, error) { return models[name], nil }})
	}
	srv := newServer(t, nil, o)
	if err := srv.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return srv
}

func prompt(id string) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName: "teller", Id: id, RawInputContents: [][]byte{[]byte("\x04\x00\x00\x00once")},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "prompt", Datatype: "BYTES", Shape: []int64{1, 1}}},
	}
}

func final(r *pb.ModelInferResponse) string {
	p, ok := r.GetParameters()["triton_final_response"]
	if !ok {
		return "unsaid"
	}
	return strconv.FormatBool(p.GetBoolParam())
}

func TestModelStreamInfer(t *testing.T) {
	t.Parallel()
	l := serve(t, both(t, storyteller("there", "was"), Options{}))
	overBoth(t, l, func(t *testing.T, conn *grpc.ClientConn) {
		stream, err := pb.NewGRPCInferenceServiceClient(conn).ModelStreamInfer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		withFinal := prompt("c")
		withFinal.Parameters = map[string]*pb.InferParameter{"triton_enable_empty_final_response": boolParam(true)}
		plain := request(1, 2, 3, 4)
		plain.Id = "b"
		bad := prompt("bad")
		bad.RawInputContents = nil
		for _, in := range []*pb.ModelInferRequest{prompt("a"), plain, bad, {ModelName: "rose", Id: "no"}, withFinal, prompt("d")} {
			if err := stream.Send(in); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			in := r.GetInferResponse()
			switch {
			case r.GetErrorMessage() != "":
				got = append(got, in.GetId()+" error "+strings.Fields(r.GetErrorMessage())[0])
			case len(in.GetOutputs()) == 0:
				got = append(got, in.GetId()+" empty "+final(in))
			default:
				got = append(got, in.GetId()+" "+strings.Trim(string(in.GetRawOutputContents()[0]), "\x00\x01\x03\x05")+" "+final(in))
			}
		}
		want := "a there false,a was false,b  true,bad error input,no error Request,c there false,c was false,c empty true,d there false,d was false"
		if strings.Join(got, ",") != want {
			t.Errorf("got  %s\nwant %s", strings.Join(got, ","), want)
		}
	})
	l.stop()
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
	m := ask(l.Handler(), http.MethodGet, "/metrics", "").Body.String()
	for _, want := range []string{`{code="OK",route="grpc_stream"} 8`, `{code="INVALID_ARGUMENT",route="grpc_stream"} 2`, `{code="NOT_FOUND",route="grpc_stream"} 2`} {
		if !strings.Contains(m, want) {
			t.Errorf("metrics lack %s: %s", want, m)
		}
	}
}

func TestEachRequestOfAStreamHasItsTime(t *testing.T) {
	t.Parallel()
	m := storyteller("there", "was")
	m.PartDelay = zarpa.Duration(time.Hour)
	l := serve(t, both(t, m, Options{RequestTimeout: 30 * time.Millisecond, MaxConcurrency: 1}))
	stream, err := pb.NewGRPCInferenceServiceClient(dial(t, l.rest)).ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // longer than one limit, and the slot is free again
		if err := stream.Send(prompt("a")); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || r.GetErrorMessage() != "Scoring timeout after 30 ms (send less at a time, or raise request_timeout)" || r.GetInferResponse().GetId() != "a" {
			t.Fatalf("%v %v", r, err)
		}
	}
}

func TestAStreamWhoseClientLeavesStops(t *testing.T) {
	t.Parallel()
	m := storyteller("there", "was")
	m.Parts = slices.Repeat(m.Parts, 1000)
	m.PartDelay = zarpa.Duration(10 * time.Millisecond)
	l := serve(t, both(t, m, Options{MaxConcurrency: 1}))
	overBoth(t, l, func(t *testing.T, conn *grpc.ClientConn) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := pb.NewGRPCInferenceServiceClient(conn).ModelStreamInfer(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(prompt("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		for err == nil { // a part may have come before
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Canceled {
			t.Error(err)
		}
		// the slot is free again
		if _, err := pb.NewGRPCInferenceServiceClient(conn).ModelInfer(t.Context(), prompt("b")); err != nil {
			t.Error(err)
		}
	})
	l.waitMetric(t, "zarpa_score_canceled_total 2")
}

const generatePath = "/v2/models/teller/generate"

func TestGenerate(t *testing.T) {
	t.Parallel()
	h := both(t, storyteller("there", "was"), Options{}).Handler()
	const events = `data: {"model_name":"teller","model_version":"1","text":"there","odds":[0.5,0.25]}` + "\n\n" +
		`data: {"model_name":"teller","model_version":"1","text":"was","odds":[0.5,0.25]}` + "\n\n"
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{generatePath, `{"prompt":"once","id":"7","stream":false,"parameters":{"temperature":0.5}}`, 200, `{"model_name":"teller","model_version":"1","id":"7","text":"was","odds":[0.5,0.25]}` + "\n"},
		{"/v2/models/teller/versions/1/generate", `{"prompt":[["once"]],"n":3}`, 200, `"text":"was"`},
		{generatePath + "_stream", `{"prompt":"once","stream":true}`, 200, events},
		{"/v2/models/iris/generate_stream", `{"input":[1,2,3,4]}`, 200, `data: {"model_name":"iris","model_version":"1","label":1,"probabilities":[{"0":0.1,"1":0.9}]}` + "\n\n"},
		{generatePath, `{"promt":"once"}`, 400, "did you mean prompt?"},
		{generatePath, `{}`, 400, `"error":"input \"prompt\": missing`},
		{generatePath + "_stream", `{}`, 400, `{"error":"input \"prompt\": missing`},
		{generatePath, `{"prompt":"a","prompt":"b"}`, 400, "twice"},
		{generatePath, `{"prompt":["a","b"]}`, 400, "shape"},
		{generatePath, `{"prompt":1}`, 400, `input \"prompt\"`},
		{generatePath, `{"prompt":"a","n":[1.5]}`, 400, "fraction"},
		{generatePath, `{"prompt":"a","stream":1}`, 400, "stream: not true or false"},
		{generatePath, `{"prompt":"a"} x`, 400, "end of the text"},
		{"/v2/models/rose/generate_stream", `{}`, 404, "Request for unknown model: 'rose'"},
	} {
		w := ask(h, http.MethodPost, c.path, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
		stream := strings.HasSuffix(c.path, "_stream") && c.status == 200
		if got := w.Header().Get("Content-Type"); (got == "text/event-stream; charset=utf-8") != stream {
			t.Errorf("%s %s: Content-Type %s", c.path, c.body, got)
		}
	}
	if w := ask(h, http.MethodGet, generatePath, ""); w.Code != 405 {
		t.Errorf("GET: %d", w.Code)
	}
}

func TestFitRank(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		given, want string
		in          zarpa.ValueInfo
	}{
		{"[]", "[1 1]", info("x", zarpa.Int8, -1, 1)},
		{"[4]", "[1 4]", info("x", zarpa.Int8, -1, 4)},
		{"[4]", "[4 1]", info("x", zarpa.Int8, -1, 1)},
		{"[4]", "[1 4]", info("x", zarpa.Int8, -1, -1)},
		{"[2 4]", "[1 2 4]", info("x", zarpa.Int8, 1, 2, 4)},
		{"[4]", "none", info("x", zarpa.Int8, 2, 2)},
		{"[2 2]", "none", info("x", zarpa.Int8, 2, 2)},
		{"[2 2]", "none", info("x", zarpa.Int8)},
	} {
		var shape []int64
		for f := range strings.FieldsSeq(strings.Trim(c.given, "[]")) {
			shape = append(shape, int64(f[0]-'0'))
		}
		got := "none"
		if full, ok := fitRank(shape, &c.in); ok {
			got = fmt.Sprint(full)
		}
		if got != c.want {
			t.Errorf("%s into %v: %s, want %s", c.given, c.in.Sizes(), got, c.want)
		}
	}
}

// TestGenerateStreamSendsEachPartAtOnce reads an event while the model works on the next one, over
// HTTP/1.1, and leaves.
func TestGenerateStreamSendsEachPartAtOnce(t *testing.T) {
	t.Parallel()
	m := storyteller("there", "was")
	m.Parts = slices.Repeat(m.Parts, 1000)
	m.PartDelay = zarpa.Duration(10 * time.Millisecond)
	l := serve(t, both(t, m, Options{MaxConcurrency: 1}))
	client := &http.Client{Transport: &http.Transport{}}
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.rest+generatePath+"_stream", strings.NewReader(`{"prompt":"a"}`))
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"there"`) || len(l.limit.slots) != 1 {
		t.Errorf("%q %v, %d runs", line, err, len(l.limit.slots))
	}
	cancel()
	l.waitMetric(t, "zarpa_score_canceled_total 1")
	l.waitMetric(t, `{code="499",route="generate"} 1`)
}

func TestGenerateStreamTellsFailuresAfterAPart(t *testing.T) {
	t.Parallel()
	m := storyteller("there")
	m.Fail = "it forgot the rest"
	w := ask(both(t, m, Options{}).Handler(), http.MethodPost, generatePath+"_stream", `{"prompt":"a"}`)
	if w.Code != 200 || !strings.HasSuffix(w.Body.String(), "data: {\"error\":\"it forgot the rest\"}\n\n") || strings.Count(w.Body.String(), "data: ") != 2 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	m.Parts = [][]zarpa.Tensor{}
	srv := both(t, m, Options{})
	if w := ask(srv.Handler(), http.MethodPost, generatePath+"_stream", `{"prompt":"a"}`); w.Code != 424 || !bytes.Contains(w.Body.Bytes(), []byte(`{"error":"it forgot`)) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	m.Fail = ""
	if w := ask(both(t, m, Options{}).Handler(), http.MethodPost, generatePath+"_stream", `{"prompt":"a"}`); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("no parts: %d %s", w.Code, w.Body)
	}
	m = storyteller("there", "was")
	m.PartDelay = zarpa.Duration(time.Hour)
	if w := ask(both(t, m, Options{RequestTimeout: 20 * time.Millisecond}).Handler(), http.MethodPost, generatePath+"_stream", `{"prompt":"a"}`); w.Code != 504 || !strings.Contains(w.Body.String(), "Scoring timeout after 20 ms") {
		t.Errorf("timeout: %d %s", w.Code, w.Body)
	}
}
