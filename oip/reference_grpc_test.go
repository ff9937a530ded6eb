package oip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func (s *reference) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: !s.has("grpc.live")}, nil
}

func (s *reference) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	return &pb.ServerReadyResponse{Ready: !s.has("grpc.ready")}, nil
}

func (s *reference) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	offers := []string{"binary_tensor_data", "model_repository", "statistics", "model_configuration", "classification", "trace"}
	if s.has("grpc.server.metadata") {
		offers = offers[:2]
	}
	return &pb.ServerMetadataResponse{Name: "reference", Version: "1", Extensions: offers}, nil
}

func (s *reference) ModelReady(_ context.Context, r *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	if s.model(r.GetName()) == nil {
		return &pb.ModelReadyResponse{Ready: s.has("grpc.model.ready-unknown")}, nil
	}
	return &pb.ModelReadyResponse{Ready: !s.has("grpc.model.ready") && r.GetVersion() == "" || !s.has("grpc.model.ready-version") && r.GetVersion() != ""}, nil
}

func (s *reference) ModelMetadata(_ context.Context, r *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m := s.model(r.GetName())
	out := &pb.ModelMetadataResponse{Name: m.name, Versions: []string{"1"}, Platform: "mirror"}
	for i := range m.inputs {
		in, o := m.inputs[i], m.outputs[i]
		out.Inputs = append(out.Inputs, &pb.ModelMetadataResponse_TensorMetadata{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape})
		out.Outputs = append(out.Outputs, &pb.ModelMetadataResponse_TensorMetadata{Name: o.Name, Datatype: o.Datatype, Shape: o.Shape})
	}
	if s.has("rest.model.datatypes") {
		out.Outputs = append([]*pb.ModelMetadataResponse_TensorMetadata{{Name: "z", Datatype: "COMPLEX64", Shape: []int64{1}}}, out.GetOutputs()...)
	}
	if s.has("grpc.model.metadata") {
		out.Inputs = nil
	}
	return out, nil
}

func (s *reference) RepositoryIndex(context.Context, *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	out := &pb.RepositoryIndexResponse{}
	for _, m := range s.list {
		out.Models = append(out.Models, &pb.RepositoryIndexResponse_ModelIndex{Name: m.name})
	}
	if s.has("repository.grpc-index") {
		out.Models = out.GetModels()[1:]
	}
	return out, nil
}

func (s *reference) ModelStatistics(_ context.Context, r *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.model(r.GetName()).count
	if s.has("statistics.counts") {
		n = 1
	}
	if s.has("statistics.grpc") {
		n++
	}
	return &pb.ModelStatisticsResponse{ModelStats: []*pb.ModelStatistics{{Name: r.GetName(), InferenceStats: &pb.InferStatistics{Success: &pb.StatisticDuration{Count: n}}}}}, nil
}

func (s *reference) ModelConfig(_ context.Context, r *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	m := s.model(r.GetName())
	out := &pb.ModelConfig{Name: m.name}
	for range m.inputs {
		out.Input, out.Output = append(out.GetInput(), &pb.ModelInput{}), append(out.GetOutput(), &pb.ModelOutput{})
	}
	if s.has("config.grpc") {
		out.Name = ""
	}
	return &pb.ModelConfigResponse{Config: out}, nil
}

func (s *reference) SystemSharedMemoryStatus(context.Context, *pb.SystemSharedMemoryStatusRequest) (*pb.SystemSharedMemoryStatusResponse, error) {
	if s.has("shared-memory.grpc") {
		return nil, status.Error(codes.Internal, "no")
	}
	return nil, status.Error(codes.Unimplemented, "no shared memory here")
}

// wrong is the failure of a wrong call, or what the fault of all of them is.
func (s *reference) wrong(c codes.Code, format string, args ...any) (*pb.ModelInferResponse, error) {
	switch {
	case s.has("calls take what is wrong"):
		return &pb.ModelInferResponse{}, nil
	case s.has("calls fail without a code"):
		c = codes.Internal
	}
	return nil, status.Errorf(c, format, args...)
}

func (s *reference) ModelInfer(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	if how, ok := ctx.Value(encodingKey{}).(*string); ok && *how != "" && s.has("grpc."+*how) {
		return nil, status.Error(codes.Unimplemented, "not packed")
	}
	m := s.model(r.GetModelName())
	if m == nil || r.GetModelVersion() != "" && r.GetModelVersion() != "1" {
		return s.wrong(codes.NotFound, "Request for unknown model %q", r.GetModelName())
	}
	if s.has("grpc.infer.version") && r.GetModelVersion() != "" {
		return nil, status.Error(codes.NotFound, "no versions")
	}
	if d, _ := ctx.Deadline(); s.has("grpc.deadline") && time.Until(d) < time.Second {
		s.broken()
	}
	if s.has("grpc.cancel") {
		select {
		case <-ctx.Done():
			s.broken()
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.mu.Lock()
	broken := m.unloaded
	s.mu.Unlock()
	if broken {
		return nil, status.Error(codes.Unavailable, "broken by what was broken off")
	}
	in, err := s.callInputs(m, r)
	if err != nil {
		return s.wrong(codes.InvalidArgument, "%v", err)
	}
	s.mu.Lock()
	m.count, m.ns = m.count+1, m.ns+1000
	s.mu.Unlock()
	var wanted []string
	for _, o := range r.GetOutputs() {
		if !slices.ContainsFunc(m.outputs, func(d declared) bool { return d.Name == o.GetName() }) {
			return s.wrong(codes.InvalidArgument, "output %q", o.GetName())
		}
		if !s.has("grpc.infer.requested-output") {
			wanted = append(wanted, o.GetName())
		}
	}
	return s.callAnswer(m, r, in, wanted), nil
}

// broken makes every model unavailable: a server that suffers from calls that are broken off.
func (s *reference) broken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.list {
		m.unloaded = true
	}
}

func (s *reference) callInputs(m *mirror, r *pb.ModelInferRequest) ([]zarpa.Tensor, error) {
	isRaw := len(r.GetRawInputContents()) > 0
	if s.has("grpc.message-limit") && isRaw && len(r.GetRawInputContents()[0]) > 8<<20 {
		return nil, nil
	}
	if len(r.GetInputs()) != len(m.inputs) || isRaw && len(r.GetRawInputContents()) != len(m.inputs) {
		return nil, errors.New("wrong inputs")
	}
	if s.has("grpc.infer.raw") && isRaw || s.has("grpc.infer.typed") && !isRaw || s.has("grpc.infer.parameters") && r.GetParameters() != nil ||
		s.has("grpc.infer.input-order") && r.GetInputs()[0].GetName() != m.inputs[0].Name {
		return nil, errors.New("not that way")
	}
	in := make([]zarpa.Tensor, len(m.inputs))
	for k, x := range r.GetInputs() {
		i := slices.IndexFunc(m.inputs, func(d declared) bool { return d.Name == x.GetName() })
		if i < 0 || x.GetDatatype() != m.inputs[i].Datatype || !fits(x.GetShape(), m.inputs[i].Shape) || isRaw && x.GetContents() != nil {
			return nil, fmt.Errorf("input %q", x.GetName())
		}
		t := zarpa.Tensor{Name: x.GetName(), Type: elements(x.GetDatatype()), Shape: x.GetShape()}
		content := fromContents(t.Type, x.GetContents())
		if isRaw {
			content = r.GetRawInputContents()[k]
		} else if !hasJSON(t.Type) || rightField(t.Type, x.GetContents()) != len(content) {
			return nil, errors.New("typed contents of another type")
		}
		var err error
		if in[i], err = fromRaw(t, content); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// rightField is the number of bytes in the field of the datatype.
func rightField(t zarpa.ElementType, c *pb.InferTensorContents) int {
	size := t.Bits() / 8
	n := map[zarpa.ElementType]int{
		zarpa.Bool: len(c.GetBoolContents()), zarpa.Float32: len(c.GetFp32Contents()), zarpa.Float64: len(c.GetFp64Contents()),
		zarpa.Int64: len(c.GetInt64Contents()),
	}
	if t == zarpa.String {
		return len(fromContents(t, &pb.InferTensorContents{BytesContents: c.GetBytesContents()}))
	}
	return n[t] * size
}

func (s *reference) callAnswer(m *mirror, r *pb.ModelInferRequest, in []zarpa.Tensor, wanted []string) *pb.ModelInferResponse {
	out := &pb.ModelInferResponse{ModelName: m.name, ModelVersion: "1", Id: r.GetId()}
	switch {
	case s.has("grpc.infer.model-name"):
		out.ModelName = ""
	case s.has("grpc.infer.id"):
		out.Id = ""
	}
	for i, t := range in {
		d := m.outputs[i]
		if wanted != nil && !slices.Contains(wanted, d.Name) {
			continue
		}
		o := &pb.ModelInferResponse_InferOutputTensor{Name: d.Name, Datatype: d.Datatype, Shape: t.Shape}
		b := raw(t)
		switch {
		case s.has("grpc.infer.outputs"):
			o.Name = "other"
		case s.has("grpc.infer.elements"):
			b = append(slices.Clone(b), 1, 1)
		case s.has("grpc.infer.answer-form") && hasJSON(t.Type):
			o.Contents = contents(t)
		}
		out.Outputs, out.RawOutputContents = append(out.GetOutputs(), o), append(out.GetRawOutputContents(), b)
	}
	return out
}

func (s *reference) ModelStreamInfer(stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse]) error {
	for n := 0; ; n++ {
		q, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if s.has("stream.answers") && n == 4 {
			continue
		}
		resp, err := s.ModelInfer(stream.Context(), q)
		answer := &pb.ModelStreamInferResponse{InferResponse: resp}
		if err != nil {
			if answer.ErrorMessage = status.Convert(err).Message(); s.has("stream.error") {
				return err
			}
		}
		if s.has("stream.id") && resp != nil {
			resp.Id = "stream-0"
		}
		if s.has("stream.same") && resp != nil {
			b := resp.GetRawOutputContents()
			b[0] = slices.Clone(b[0])
			b[0][len(b[0])-1] ^= 1
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}
