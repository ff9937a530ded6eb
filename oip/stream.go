package oip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

const streamSection = "extension: ModelStreamInfer"

func streamChecks() []check {
	of := func(id, says string) Check {
		return Check{ID: id, Group: Streaming, Level: Extension, Says: says, Section: streamSection, PerModel: true}
	}
	const n = needGRPC | needSample
	return []check{
		{Check: of("stream.answers", "ModelStreamInfer answers each request of a stream once, and ends when the client does"), needs: n, ask: streamAnswers},
		{Check: of("stream.same", "its answers have the bits of ModelInfer"), needs: n | needSame, ask: streamSame},
		{Check: of("stream.id", "each answer has the id of its request"), needs: n, ask: streamIDs},
		{Check: of("stream.error", "a wrong request is answered by error_message, and the stream goes on"), needs: n, ask: streamError},
	}
}

// streamed sends requests over one stream, ends it, and gives the answers.
func (p *probe) streamed(ctx context.Context, requests []*pb.ModelInferRequest) ([]*pb.ModelStreamInferResponse, error) {
	ctx, cancel := p.run.rpc.limit(ctx)
	defer cancel()
	stream, err := p.run.rpc.client.ModelStreamInfer(ctx)
	if err != nil {
		return nil, differs("a stream", "%s", failed(err))
	}
	for _, q := range requests {
		if err := stream.Send(q); err != nil {
			break // Recv tells why
		}
	}
	_ = stream.CloseSend() // Recv tells what is wrong
	var list []*pb.ModelStreamInferResponse
	for {
		r, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return list, nil
		case code(err) == codes.Unimplemented:
			return nil, skip("the server does not offer ModelStreamInfer")
		case err != nil:
			return nil, differs("an end with OK", "%d answers, then %s", len(list), failed(err))
		case len(list) > 10*len(requests):
			return nil, differs(fmt.Sprintf("%d answers", len(requests)), "more than %d", len(list))
		}
		list = append(list, r)
	}
}

// numbered are n requests of the sample, their ids their numbers.
func (p *probe) numbered(n int) []*pb.ModelInferRequest {
	var list []*pb.ModelInferRequest
	for i := range n {
		q := p.rawRequest(p.sample)
		q.Id = fmt.Sprintf("stream-%d", i)
		list = append(list, q)
	}
	return list
}

func streamAnswers(ctx context.Context, p *probe) (string, error) {
	const n = 5
	list, err := p.streamed(ctx, p.numbered(n))
	if err == nil && len(list) != n {
		err = differs(fmt.Sprintf("%d answers", n), "%d", len(list))
	}
	if err != nil {
		return "", err
	}
	for _, r := range list {
		if r.GetErrorMessage() != "" || r.GetInferResponse() == nil {
			return "", differs("answers", "error_message %q", r.GetErrorMessage())
		}
	}
	return fmt.Sprintf("%d answers", n), nil
}

func streamSame(ctx context.Context, p *probe) (string, error) {
	list, err := p.streamed(ctx, p.numbered(1))
	if err != nil {
		return "", err
	}
	if len(list) == 0 || list[0].GetErrorMessage() != "" {
		return "", skip("the stream does not answer")
	}
	got, err := grpcTensors(list[0].GetInferResponse())
	if err != nil {
		return "", err
	}
	return p.compare(got)
}

func streamIDs(ctx context.Context, p *probe) (string, error) {
	sent := p.numbered(3)
	list, err := p.streamed(ctx, sent)
	if err != nil {
		return "", err
	}
	left := map[string]bool{}
	for _, q := range sent {
		left[q.GetId()] = true
	}
	for _, r := range list {
		id := r.GetInferResponse().GetId()
		if !left[id] && r.GetErrorMessage() == "" && len(list) == len(sent) {
			return "", differs("the ids stream-0 to stream-2, each once", "%q", id)
		}
		delete(left, id)
	}
	return "each once", nil
}

func streamError(ctx context.Context, p *probe) (string, error) {
	list := p.numbered(3)
	list[1].ModelName = unknownName
	got, err := p.streamed(ctx, list)
	if err != nil {
		return "", err
	}
	failures, answers := 0, 0
	said := ""
	for _, r := range got {
		if r.GetErrorMessage() == "" {
			answers++
			continue
		}
		failures, said = failures+1, r.GetErrorMessage()
	}
	if failures != 1 || answers < 2 {
		return "", differs("an error_message and the two answers beside it", "%d error messages, %d answers", failures, answers)
	}
	return said, nil
}

func generateChecks() []check {
	of := func(id, says string) Check {
		return Check{ID: id, Group: Streaming, Level: Extension, Says: says, Section: "extension: generate", PerModel: true}
	}
	return []check{
		{Check: of("generate.answers", "POST .../generate takes the inputs as members of a JSON object and answers one with the outputs"), needs: needJSON, ask: generate},
		{Check: of("generate.error", "a generate request that is no JSON is refused with an error status and {\"error\": string}"), needs: needJSON, ask: generateError},
		{Check: of("generate.stream", "POST .../generate_stream answers server-sent events, each one JSON object in a data line"), needs: needJSON, ask: generateStream},
	}
}

// generated posts the sample to generate or generate_stream, nested and, where a server does not take that, flat; a
// model that does not generate is a skip.
func (p *probe) generated(ctx context.Context, verb string) (answer, error) {
	a, err := p.generateAs(ctx, verb, nested)
	if err == nil && isStatus(a) {
		a, err = p.generateAs(ctx, verb, flat)
	}
	if err == nil && isStatus(a) {
		err = skip("the model does not generate from made-up inputs: %s", a.said())
	}
	return a, err
}

func (p *probe) generateAs(ctx context.Context, verb string, write func(zarpa.Tensor) json.RawMessage) (answer, error) {
	body := map[string]json.RawMessage{}
	for _, t := range p.sample {
		body[t.Name] = write(t)
		if count(t) == 1 {
			body[t.Name] = json.RawMessage(element(t, 0))
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return answer{}, err
	}
	return p.run.wire.do(ctx, request{method: http.MethodPost, path: modelPath(p.name) + "/" + verb, header: jsonType(), body: text})
}

func generate(ctx context.Context, p *probe) (string, error) {
	a, err := p.generated(ctx, "generate")
	if err != nil {
		return "", err
	}
	return p.isGenerated(a.body)
}

// isGenerated wants a JSON object with the model's outputs.
func (p *probe) isGenerated(body []byte) (string, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		return "", differs("a JSON object", "%s", body)
	}
	for _, d := range p.outputs {
		if _, ok := object[d.Name]; !ok {
			return "", differs("output "+d.Name, "%s", body)
		}
	}
	return string(body), nil
}

func generateError(ctx context.Context, p *probe) (string, error) {
	if _, err := p.generated(ctx, "generate"); err != nil {
		return "", err
	}
	a, err := p.run.wire.do(ctx, request{method: http.MethodPost, path: modelPath(p.name) + "/generate", header: jsonType(), body: []byte("{")})
	if err != nil {
		return "", err
	}
	var body struct{ Error *string }
	if err := json.Unmarshal(a.body, &body); err != nil || body.Error == nil || !isStatus(a) {
		return "", differs(`an error status and {"error": string}`, "%s", a.said())
	}
	return a.said(), nil
}

func generateStream(ctx context.Context, p *probe) (string, error) {
	a, err := p.generated(ctx, "generate_stream")
	if err != nil {
		return "", err
	}
	if kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type")); err != nil || kind != "text/event-stream" {
		return "", differs("Content-Type: text/event-stream", "%q", a.header.Get("Content-Type"))
	}
	n := 0
	for event := range strings.SplitSeq(strings.ReplaceAll(string(a.body), "\r\n", "\n"), "\n\n") {
		if strings.TrimSpace(event) == "" {
			continue
		}
		data, ok := strings.CutPrefix(event, "data:")
		if !ok {
			return "", differs("data: {…} and an empty line", "%s", event)
		}
		if _, err := p.isGenerated([]byte(strings.TrimSpace(data))); err != nil {
			return "", err
		}
		n++
	}
	if n == 0 {
		return "", differs("an event at least", "none")
	}
	return fmt.Sprintf("%d events", n), nil
}
