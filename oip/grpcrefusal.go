package oip

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// grpcRefusal is a wrong call. It makes two checks: ID, an error, and ID.code, the code that says it best.
type grpcRefusal struct {
	id, says string
	level    Level
	codes    []codes.Code
	wrong    func(p *probe, q *pb.ModelInferRequest) error
}

func grpcRefusalChecks() []check {
	var list []check
	for _, r := range slices.Concat(callRefusals(), contentRefusals()) {
		first := Check{
			ID: "grpc.errors." + r.id, Group: GRPC, Level: r.level, PerModel: true, Section: "gRPC: Inference",
			Says: r.says + " is refused with an error",
		}
		if r.level == Should {
			first.Choices = "refused; some servers take it"
		}
		second := first
		second.ID, second.Level, second.Choices = first.ID+".code", Should, ""
		second.Says = fmt.Sprintf("%s has the code %v", r.says, r.codes)
		list = append(list, check{Check: first, needs: needGRPC | needSample, ask: r.refused}, check{Check: second, needs: needGRPC | needSample, ask: r.coded})
	}
	return list
}

// send makes the call and gives the error that it was refused with; nil when it was taken.
func (r grpcRefusal) send(ctx context.Context, p *probe) (refused, err error) {
	q := p.rawRequest(p.sample)
	if err := r.wrong(p, q); err != nil {
		return nil, err
	}
	_, refused = p.run.rpc.infer(ctx, q)
	if c := code(refused); c == codes.Unavailable || c == codes.DeadlineExceeded {
		return nil, differs("an answer", "%s", failed(refused))
	}
	return refused, nil
}

func (r grpcRefusal) refused(ctx context.Context, p *probe) (string, error) {
	refused, err := r.send(ctx, p)
	if err != nil {
		return "", err
	}
	if refused == nil {
		return "", differs("an error", "OK")
	}
	return failed(refused), nil
}

func (r grpcRefusal) coded(ctx context.Context, p *probe) (string, error) {
	refused, err := r.send(ctx, p)
	switch {
	case err != nil:
		return "", err
	case refused == nil:
		return "", skip("it was taken")
	case !slices.Contains(r.codes, code(refused)):
		return "", differs(fmt.Sprint(r.codes), "%s", failed(refused))
	}
	return code(refused).String(), nil
}

// input is a change to the first input.
func input(change func(in *pb.ModelInferRequest_InferInputTensor)) func(*probe, *pb.ModelInferRequest) error {
	return func(_ *probe, q *pb.ModelInferRequest) error {
		change(q.GetInputs()[0])
		return nil
	}
}

// typed is a change to the sample in typed contents.
func typed(change func(p *probe, q *pb.ModelInferRequest) error) func(*probe, *pb.ModelInferRequest) error {
	return func(p *probe, q *pb.ModelInferRequest) error {
		if err := p.typeable(); err != nil {
			return err
		}
		t := p.typedRequest(p.sample)
		q.Inputs, q.RawInputContents = t.GetInputs(), nil
		return change(p, q)
	}
}

// callRefusals are calls that name what there is not, or say it wrongly.
func callRefusals() []grpcRefusal {
	invalid, missing := []codes.Code{codes.InvalidArgument}, []codes.Code{codes.NotFound}
	either := []codes.Code{codes.InvalidArgument, codes.NotFound}
	return []grpcRefusal{
		{"unknown-model", "a model that does not exist", Must, missing, func(_ *probe, q *pb.ModelInferRequest) error {
			q.ModelName = unknownName
			return nil
		}},
		{"unknown-version", "a version that does not exist", Must, either, func(_ *probe, q *pb.ModelInferRequest) error {
			q.ModelVersion = "987654321"
			return nil
		}},
		{"unknown-input", "an input that the model does not have", Must, either, input(func(in *pb.ModelInferRequest_InferInputTensor) { in.Name = "no_such_input" })},
		{"no-inputs", "a request without inputs", Must, invalid, func(_ *probe, q *pb.ModelInferRequest) error {
			q.Inputs, q.RawInputContents = nil, nil
			return nil
		}},
		{"unknown-output", "an output that the model does not have", Must, either, func(_ *probe, q *pb.ModelInferRequest) error {
			q.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "no_such_output"}}
			return nil
		}},
		{"wrong-datatype", "a datatype that is not the model's", Must, invalid, input(func(in *pb.ModelInferRequest_InferInputTensor) {
			in.Datatype = map[bool]string{true: "FP32", false: "INT32"}[in.GetDatatype() == "INT32"] // of the same width, where that is four
		})},
		{"unknown-datatype", "a datatype that does not exist", Must, invalid, input(func(in *pb.ModelInferRequest_InferInputTensor) { in.Datatype = "FP31" })},
		{"wrong-rank", "a shape with dimensions too many", Must, invalid, input(func(in *pb.ModelInferRequest_InferInputTensor) {
			in.Shape = append(slices.Clone(in.GetShape()), 1, 1)
		})},
		{"negative-dimension", "a negative dimension", Must, invalid, func(p *probe, q *pb.ModelInferRequest) error {
			if err := firstDims(p); err != nil {
				return err
			}
			in := q.GetInputs()[0]
			in.Shape = slices.Clone(in.GetShape())
			in.Shape[0] = -in.GetShape()[0]
			return nil
		}},
	}
}

// contentRefusals are calls whose contents are wrong.
func contentRefusals() []grpcRefusal {
	invalid := []codes.Code{codes.InvalidArgument}
	return []grpcRefusal{
		{"raw-missing", "raw contents for some inputs alone", Must, invalid, func(_ *probe, q *pb.ModelInferRequest) error {
			if len(q.GetInputs()) < 2 {
				return skip("the model has one input")
			}
			q.RawInputContents = q.GetRawInputContents()[1:]
			return nil
		}},
		{"raw-surplus", "raw contents for more inputs than there are", Should, invalid, func(_ *probe, q *pb.ModelInferRequest) error {
			q.RawInputContents = append(q.GetRawInputContents(), []byte{0})
			return nil
		}},
		{"raw-short", "raw contents shorter than the shape tells", Must, invalid, func(_ *probe, q *pb.ModelInferRequest) error {
			b := q.GetRawInputContents()[0]
			if len(b) == 0 {
				return skip("the first input has no bytes")
			}
			q.RawInputContents[0] = b[:len(b)-1]
			return nil
		}},
		{"raw-long", "raw contents longer than the shape tells", Must, invalid, func(_ *probe, q *pb.ModelInferRequest) error {
			q.RawInputContents[0] = append(slices.Clone(q.GetRawInputContents()[0]), 0)
			return nil
		}},
		{"both-contents", "an input in raw and in typed contents", Must, invalid, func(p *probe, q *pb.ModelInferRequest) error {
			if err := p.typeable(); err != nil {
				return err
			}
			q.Inputs = p.typedRequest(p.sample).GetInputs()
			return nil
		}},
		{"typed-few", "fewer typed elements than the shape tells", Must, invalid, typed(func(p *probe, q *pb.ModelInferRequest) error {
			if count(p.sample[0]) == 0 {
				return skip("the first input has no elements")
			}
			t := fill(zarpa.Tensor{Type: p.sample[0].Type}, count(p.sample[0])-1)
			q.Inputs[0].Contents = contents(t)
			return nil
		})},
		{"typed-field", "typed contents in the field of another type", Must, invalid, typed(func(p *probe, q *pb.ModelInferRequest) error {
			other := zarpa.Float64
			if p.sample[0].Type == zarpa.Float64 {
				other = zarpa.Int64
			}
			q.Inputs[0].Contents = contents(fill(zarpa.Tensor{Type: other}, count(p.sample[0])))
			return nil
		})},
		{"half-typed", "FP16 or BF16 in typed contents, which have no field for them", Must, invalid, func(p *probe, q *pb.ModelInferRequest) error {
			if p.typeable() == nil {
				return skip("no input of FP16 or BF16")
			}
			q.RawInputContents = nil
			for i, t := range p.sample {
				q.Inputs[i].Contents = contents(fill(zarpa.Tensor{Type: zarpa.Float32}, count(t)))
			}
			return nil
		}},
	}
}
