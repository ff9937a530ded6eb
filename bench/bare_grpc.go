package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// bareGRPC is the bare handler over gRPC: grpc-go as it comes, the generated messages, the engine.
type bareGRPC struct {
	inferencepb.UnimplementedGRPCInferenceServiceServer
	session zarpa.Session
	input   string
}

// serveBareGRPC serves until ctx ends.
func serveBareGRPC(ctx context.Context, spec modelSpec, session zarpa.Session) error {
	network, where := splitAddress(spec.ListenGRPC)
	ln, err := new(net.ListenConfig).Listen(ctx, network, where)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	inferencepb.RegisterGRPCInferenceServiceServer(s, &bareGRPC{session: session, input: spec.Input})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// ModelInfer runs the model on the one input of the request.
func (b *bareGRPC) ModelInfer(ctx context.Context, r *inferencepb.ModelInferRequest) (*inferencepb.ModelInferResponse, error) {
	if len(r.Inputs) != 1 || len(r.RawInputContents) != 1 {
		return nil, status.Error(codes.InvalidArgument, "one raw input is wanted")
	}
	outputs, err := b.session.Run(ctx, []zarpa.Tensor{{
		Name: b.input, Type: zarpa.Float32, Shape: r.Inputs[0].Shape, Data: r.RawInputContents[0],
	}}, nil)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	answer := &inferencepb.ModelInferResponse{ModelName: r.ModelName}
	for _, t := range outputs {
		o := &inferencepb.ModelInferResponse_InferOutputTensor{Name: t.Name, Datatype: "FP32", Shape: t.Shape}
		raw := t.Data
		switch t.Type {
		case zarpa.Int64:
			o.Datatype = "INT64"
		case zarpa.Sequence:
			o.Datatype, o.Shape = "BYTES", []int64{1}
			text, err := json.Marshal(values(t))
			if err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
			raw = append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...)
		default: // FP32
		}
		answer.Outputs = append(answer.Outputs, o)
		answer.RawOutputContents = append(answer.RawOutputContents, raw)
	}
	return answer, nil
}
