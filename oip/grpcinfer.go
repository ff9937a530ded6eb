package oip

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func grpcInferChecks() []check {
	of := func(id string, l Level, says string) Check {
		return Check{ID: id, Group: GRPC, Level: l, Says: says, Section: "gRPC: Inference", PerModel: true}
	}
	const (
		n    = needGRPC | needSample
		same = n | needSame
	)
	form := of("grpc.infer.answer-form", Should, "the answer to typed contents is raw or typed, all of it in one way; clients read raw numbers alone")
	form.Choices = "raw_output_contents, or contents"
	limit := of("grpc.message-limit", Should, "a message of 16 MiB that is no right request is refused with a code of the client's fault")
	limit.Section, limit.Choices, limit.PerModel = "gRPC", "RESOURCE_EXHAUSTED for its size, or INVALID_ARGUMENT for what it says", false
	packing := func(id, says string) Check {
		return Check{ID: id, Group: GRPC, Level: Should, Says: says, Section: "gRPC Compression"}
	}
	return []check{
		{Check: of("grpc.infer.raw", Must, "inputs in raw_input_contents are answered, and with the bits of REST"), needs: same, ask: asForm(rawGRPC)},
		{Check: of("grpc.infer.typed", Must, "inputs in typed contents are answered, and with the bits of raw ones"), needs: same, ask: grpcTyped},
		{Check: form, needs: n, ask: grpcAnswerForm},
		{Check: of("grpc.infer.model-name", Must, "the answer has the model's name"), needs: n, ask: grpcModelName},
		{Check: of("grpc.infer.id", Must, "the id of the request comes back"), needs: n, ask: grpcID},
		{Check: of("grpc.infer.outputs", Must, "outputs have the names, datatypes and shapes of the metadata"), needs: n, ask: grpcOutputs},
		{Check: of("grpc.infer.elements", Must, "an output has as many bytes or elements as its datatype and shape tell"), needs: n, ask: grpcElements},
		{Check: of("grpc.infer.requested-output", Must, "only the outputs that are asked for are in the answer"), needs: n, ask: grpcRequested},
		{Check: of("grpc.infer.version", Must, "model_version asks that version, and the answer's model_version says so"), needs: n, ask: grpcVersion},
		{Check: of("grpc.infer.parameters", Should, "parameters of every kind that mean nothing to the model change nothing"), needs: same, ask: grpcParameters},
		{Check: of("grpc.infer.input-order", Must, "inputs are told apart by name, not by position"), needs: same, ask: grpcOrder},
		{Check: packing("grpc.gzip", "a call may be compressed with gzip"), needs: same, ask: compressedCall("gzip")},
		{Check: packing("grpc.deflate", "a call may be compressed with deflate, as tritonclient can"), needs: same, ask: compressedCall("deflate")},
		{Check: limit, needs: n, ask: grpcMessageLimit},
	}
}

func grpcTyped(ctx context.Context, p *probe) (string, error) {
	if err := p.typeable(); err != nil {
		return "", err
	}
	return p.sameByGRPC(ctx, p.typedRequest(p.sample))
}

// inferOK wants an answer to a request.
func (p *probe) inferOK(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	return call(ctx, p.run.rpc, p.run.rpc.client.ModelInfer, r)
}

// sameByGRPC wants the sample's answer to a request.
func (p *probe) sameByGRPC(ctx context.Context, r *pb.ModelInferRequest) (string, error) {
	resp, err := p.inferOK(ctx, r)
	if err != nil {
		return "", err
	}
	got, err := grpcTensors(resp)
	if err != nil {
		return "", err
	}
	return p.compare(got)
}

func grpcAnswerForm(ctx context.Context, p *probe) (string, error) {
	if err := p.typeable(); err != nil {
		return "", err
	}
	r, err := p.inferOK(ctx, p.typedRequest(p.sample))
	if err != nil {
		return "", skip("typed contents are not answered")
	}
	typed := 0
	for _, o := range r.GetOutputs() {
		if o.GetContents() != nil {
			typed++
		}
	}
	switch {
	case len(r.GetRawOutputContents()) == len(r.GetOutputs()) && typed == 0:
		return "raw_output_contents", nil
	case len(r.GetRawOutputContents()) == 0 && typed == len(r.GetOutputs()):
		return "contents", nil
	}
	return "", differs("one way for all outputs", "%d raw and %d typed of %d", len(r.GetRawOutputContents()), typed, len(r.GetOutputs()))
}

func grpcModelName(ctx context.Context, p *probe) (string, error) {
	r, err := p.inferOK(ctx, p.rawRequest(p.sample))
	if err != nil {
		return "", err
	}
	return want("model_name", p.name, r.GetModelName())
}

func grpcID(ctx context.Context, p *probe) (string, error) {
	q := p.rawRequest(p.sample)
	q.Id = "conformance: 42"
	r, err := p.inferOK(ctx, q)
	if err != nil {
		return "", err
	}
	return want("id", q.GetId(), r.GetId())
}

func grpcOutputs(ctx context.Context, p *probe) (string, error) {
	r, err := p.inferOK(ctx, p.rawRequest(p.sample))
	if err != nil {
		return "", err
	}
	if len(r.GetOutputs()) == 0 {
		return "", differs("outputs", "none")
	}
	for _, o := range r.GetOutputs() {
		d, ok := p.output(o.GetName())
		if !ok || d.Datatype != o.GetDatatype() || !fits(o.GetShape(), d.Shape) {
			return "", differs(fmt.Sprintf("%s %s %v", d.Name, d.Datatype, d.Shape), "%s %s %v", o.GetName(), o.GetDatatype(), o.GetShape())
		}
	}
	return "as declared", nil
}

func grpcElements(ctx context.Context, p *probe) (string, error) {
	r, err := p.inferOK(ctx, p.rawRequest(p.sample))
	if err != nil {
		return "", err
	}
	_, err = grpcTensors(r)
	return "as many", err
}

func grpcRequested(ctx context.Context, p *probe) (string, error) {
	for _, d := range p.outputs {
		q := p.rawRequest(p.sample)
		q.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: d.Name}}
		r, err := p.inferOK(ctx, q)
		if err != nil {
			return "", err
		}
		if len(r.GetOutputs()) != 1 || r.GetOutputs()[0].GetName() != d.Name {
			return "", differs("output "+d.Name+" alone", "%d outputs", len(r.GetOutputs()))
		}
	}
	return fmt.Sprintf("each of %d", len(p.outputs)), nil
}

func grpcVersion(ctx context.Context, p *probe) (string, error) {
	if len(p.versions) == 0 {
		return "", skip("the metadata names no versions")
	}
	q := p.rawRequest(p.sample)
	q.ModelVersion = p.versions[len(p.versions)-1]
	r, err := p.inferOK(ctx, q)
	if err != nil {
		return "", err
	}
	return want("model_version", q.GetModelVersion(), r.GetModelVersion())
}

func grpcParameters(ctx context.Context, p *probe) (string, error) {
	q := p.rawRequest(p.sample)
	extra := map[string]*pb.InferParameter{
		"conformance_text":   {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "x"}},
		"conformance_number": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 3}},
		"conformance_flag":   {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}},
	}
	q.Parameters = extra
	for _, in := range q.GetInputs() {
		in.Parameters = extra
	}
	return p.sameByGRPC(ctx, q)
}

func grpcOrder(ctx context.Context, p *probe) (string, error) {
	if len(p.sample) < 2 {
		return "", skip("the model has one input")
	}
	var reversed []zarpa.Tensor
	for _, t := range p.sample {
		reversed = append([]zarpa.Tensor{t}, reversed...)
	}
	return p.sameByGRPC(ctx, p.rawRequest(reversed))
}

func grpcMessageLimit(ctx context.Context, p *probe) (string, error) {
	const size = 16 << 20
	q := p.rawRequest(p.sample)
	q.RawInputContents[0] = make([]byte, size)
	_, err := p.run.rpc.infer(ctx, q)
	switch code(err) {
	case codes.ResourceExhausted, codes.InvalidArgument:
		return code(err).String(), nil
	case codes.OK:
		return "", differs("RESOURCE_EXHAUSTED or INVALID_ARGUMENT", "OK")
	default:
		return "", differs("RESOURCE_EXHAUSTED or INVALID_ARGUMENT", "%s", failed(err))
	}
}

const (
	interrupted = 20 // calls that are broken off after up to a millisecond
	lengthened  = 9  // further ones, each after twice the time, until one is in time: then others arrived, too
)

// brokenOff calls with times after which the call is to be broken off, from none to half a second.
func brokenOff(call func(after time.Duration) error) {
	for i := range interrupted {
		_ = call(time.Duration(i*50) * time.Microsecond) // it may be in time, or not
	}
	for i := range lengthened {
		if call(2*time.Millisecond<<i) == nil {
			return
		}
	}
}

func grpcDeadline(ctx context.Context, p *probe) (string, error) {
	brokenOff(func(after time.Duration) error {
		short, cancel := context.WithTimeout(ctx, after)
		defer cancel()
		_, err := p.run.rpc.infer(short, p.rawRequest(p.sample))
		return err
	})
	return p.equals(ctx, rawGRPC)
}

func grpcCancel(ctx context.Context, p *probe) (string, error) {
	brokenOff(func(after time.Duration) error {
		canceled, cancel := context.WithCancel(ctx)
		defer cancel()
		defer time.AfterFunc(after, cancel).Stop()
		_, err := p.run.rpc.infer(canceled, p.rawRequest(p.sample))
		return err
	})
	return p.equals(ctx, rawGRPC)
}
