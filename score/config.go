package score

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// backends are the words of Triton's configuration for the engines behind a platform.
var backends = map[string]string{"onnx_onnxv1": "onnxruntime"}

// config is the model's configuration in Triton's form, under the name that was asked for. Where
// requests are batched, max_batch_size is the limit and dims leave the batch's dimension out;
// elsewhere it is 0 and dims are whole.
func (s *Server) config(m *model, name string) *pb.ModelConfig {
	e := m.entry
	c := &pb.ModelConfig{
		Name: name, Platform: e.Platform, Backend: backends[e.Platform],
		ModelTransactionPolicy: &pb.ModelTransactionPolicy{Decoupled: m.streamer != nil},
	}
	if c.GetBackend() == "" {
		c.Backend, _, _ = strings.Cut(e.Platform, "_")
	}
	if n, err := strconv.ParseInt(e.Version, 10, 64); err == nil {
		c.VersionPolicy = &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_Specific_{Specific: &pb.ModelVersionPolicy_Specific{Versions: []int64{n}}}}
	} else {
		c.VersionPolicy = &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_Latest_{Latest: &pb.ModelVersionPolicy_Latest{NumVersions: 1}}}
	}
	from := 0
	if m.batcher != nil && m.streamer == nil {
		from = 1
		c.MaxBatchSize = int32(s.opts.MaxBatchRows)
		c.DynamicBatching = &pb.ModelDynamicBatching{MaxQueueDelayMicroseconds: uint64(s.opts.MaxBatchDelay.Microseconds())}
	}
	for i, v := range describeAll(m.sig.Inputs) {
		c.Input = append(c.Input, &pb.ModelInput{Name: v.Name, DataType: dataType(v.Datatype), Dims: v.Shape[min(from, len(v.Shape)):], Optional: m.sig.Inputs[i].Optional})
	}
	for _, v := range describeAll(m.sig.Outputs) {
		c.Output = append(c.Output, &pb.ModelOutput{Name: v.Name, DataType: dataType(v.Datatype), Dims: v.Shape[from:]})
	}
	return c
}

// dataType is the configuration's word for a type, such as TYPE_FP32; TYPE_INVALID where it has none.
func dataType(t zarpa.ElementType) pb.DataType {
	if t == zarpa.String {
		return pb.DataType_TYPE_STRING
	}
	return pb.DataType(pb.DataType_value["TYPE_"+t.String()])
}

// modelConfig answers GET /v2/models/M/config.
func (s *Server) modelConfig(w http.ResponseWriter, _ *http.Request, p place) error {
	m, err := p.entry.ready()
	if err != nil {
		return err
	}
	return answer(w, jsonType, appendMessage(nil, s.config(m, p.name)))
}
