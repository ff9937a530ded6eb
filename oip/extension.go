package oip

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func statisticsChecks() []check {
	of := func(id, says string) Check {
		return Check{ID: id, Group: Extensions, Level: Extension, Says: says, Section: "extension: statistics", PerModel: true}
	}
	return []check{
		{Check: of("statistics.model", "GET .../stats has model_stats with the model's name, version and counters"), needs: needModel, ask: statisticsModel},
		{Check: of("statistics.all", "GET /v2/models/stats has every model"), needs: needModel, ask: statisticsAll},
		{Check: of("statistics.counts", "success.count and inference_count rise by what was asked"), needs: needSample, ask: statisticsCounts},
		{Check: of("statistics.grpc", "ModelStatistics says what REST says"), needs: needModel | needGRPC, ask: statisticsGRPC},
	}
}

type counted struct {
	Count uint64
	NS    uint64
}

type modelStatistics struct {
	Name           *string
	Version        *string
	InferenceCount *uint64 `json:"inference_count"`
	ExecutionCount *uint64 `json:"execution_count"`
	InferenceStats struct {
		Success, Fail, Queue *counted
		ComputeInput         *counted `json:"compute_input"`
		ComputeInfer         *counted `json:"compute_infer"`
		ComputeOutput        *counted `json:"compute_output"`
	} `json:"inference_stats"`
}

// statistics asks for statistics and finds the model's; a server that does not offer them is a skip.
func (p *probe) statistics(ctx context.Context, path string) (modelStatistics, error) {
	var none modelStatistics
	if !p.run.offers("statistics") {
		return none, skip("the server does not offer statistics")
	}
	a, err := p.run.get(ctx, path)
	if err != nil {
		return none, err
	}
	var body struct {
		Stats []modelStatistics `json:"model_stats"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil || a.status != http.StatusOK {
		return none, differs("200 with model_stats", "%s", a.said())
	}
	for _, s := range body.Stats {
		if s.Name != nil && *s.Name == p.name {
			return s, nil
		}
	}
	return none, differs("model_stats of "+p.name, "%s", a.said())
}

func statisticsModel(ctx context.Context, p *probe) (string, error) {
	s, err := p.statistics(ctx, modelPath(p.name)+"/stats")
	if err != nil {
		return "", err
	}
	i := s.InferenceStats
	if s.Version == nil || s.InferenceCount == nil || s.ExecutionCount == nil || i.Success == nil || i.Fail == nil || i.Queue == nil ||
		i.ComputeInput == nil || i.ComputeInfer == nil || i.ComputeOutput == nil {
		return "", differs("version, inference_count, execution_count, and inference_stats with success, fail, queue and the three compute times", "some are missing")
	}
	return fmt.Sprintf("%d inferences, %d runs", *s.InferenceCount, *s.ExecutionCount), nil
}

func statisticsAll(ctx context.Context, p *probe) (string, error) {
	_, err := p.statistics(ctx, "/v2/models/stats")
	return "there", err
}

func statisticsCounts(ctx context.Context, p *probe) (string, error) {
	const n = 3
	path := modelPath(p.name) + "/stats"
	before, err := p.statistics(ctx, path)
	if err != nil {
		return "", err
	}
	for range n {
		if p.form == rawGRPC {
			_, err = p.inferOK(ctx, p.rawRequest(p.sample))
		} else {
			_, err = p.send(ctx, newRequest(p.form, p.sample))
		}
		if err != nil {
			return "", err
		}
	}
	var rose string
	for range 40 { // counters may follow the answer
		after, err := p.statistics(ctx, path)
		if err != nil {
			return "", err
		}
		var ok bool
		if rose, ok, err = risen(before, after, n); ok || err != nil {
			return rose, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return "", differs(fmt.Sprintf("success.count and inference_count higher by %d or more, and success.ns higher", n), "%s", rose)
}

// risen says by how much counters rose, and whether that is n or more.
func risen(before, after modelStatistics, n uint64) (text string, ok bool, err error) {
	b, a := before.InferenceStats.Success, after.InferenceStats.Success
	if b == nil || a == nil || before.InferenceCount == nil || after.InferenceCount == nil {
		return "", false, skip("there are no counters")
	}
	count, rows, ns := a.Count-b.Count, *after.InferenceCount-*before.InferenceCount, a.NS-b.NS
	text = fmt.Sprintf("success.count by %d, inference_count by %d, success.ns by %d", count, rows, ns)
	return text, count >= n && rows >= n && a.NS > b.NS && a.Count > b.Count && *after.InferenceCount > *before.InferenceCount, nil
}

func statisticsGRPC(ctx context.Context, p *probe) (string, error) {
	rest, err := p.statistics(ctx, modelPath(p.name)+"/stats")
	if err != nil {
		return "", err
	}
	r, err := call(ctx, p.run.rpc, p.run.rpc.client.ModelStatistics, &pb.ModelStatisticsRequest{Name: p.name})
	if err != nil {
		return "", err
	}
	if rest.InferenceStats.Success == nil {
		return "", skip("there are no counters")
	}
	for _, s := range r.GetModelStats() {
		if s.GetName() == p.name {
			return want("success.count", strconv.FormatUint(rest.InferenceStats.Success.Count, 10), strconv.FormatUint(s.GetInferenceStats().GetSuccess().GetCount(), 10))
		}
	}
	return "", differs("model_stats of "+p.name, "%d others", len(r.GetModelStats()))
}

func otherExtensionChecks() []check {
	of := func(id, says, section string) Check {
		return Check{ID: id, Group: Extensions, Level: Extension, Says: says, Section: "extension: " + section, PerModel: true}
	}
	shared := of("shared-memory.status", "GET /v2/systemsharedmemory/status answers a list, or refuses with an error", "shared memory")
	shared.PerModel, shared.Choices = false, "a list, or refused"
	sharedGRPC := shared
	sharedGRPC.ID, sharedGRPC.Says, sharedGRPC.Choices = "shared-memory.grpc", "SystemSharedMemoryStatus answers, or is refused as unsupported", "answered; UNIMPLEMENTED or FAILED_PRECONDITION"
	return []check{
		{Check: of("config.model", "GET .../config has the model's name, inputs and outputs", "model configuration"), needs: needModel, ask: configModel},
		{Check: of("config.grpc", "ModelConfig says the same", "model configuration"), needs: needModel | needGRPC, ask: configGRPC},
		{Check: of("classification.output", `an output asked for with classification: 1 comes as BYTES "value:index"`, "classification"), needs: needJSON, ask: classification},
		{Check: shared, ask: sharedStatus},
		{Check: of("shared-memory.unknown", "an input in a region that is not registered is refused with an error status", "shared memory"), needs: needJSON, ask: sharedUnknown},
		{Check: sharedGRPC, needs: needGRPC, ask: sharedByGRPC},
		{Check: of("trace.settings", "GET .../trace/setting answers a JSON object", "trace"), needs: needModel, ask: settings("trace", "/trace/setting")},
	}
}

func configModel(ctx context.Context, p *probe) (string, error) {
	if !p.run.offers("model_configuration") {
		return "", skip("the server does not offer model_configuration")
	}
	a, err := p.run.get(ctx, modelPath(p.name)+"/config")
	if err != nil {
		return "", err
	}
	type end struct{ Name string }
	var c struct {
		Name          string
		Input, Output []end
	}
	if err := json.Unmarshal(a.body, &c); err != nil || a.status != http.StatusOK {
		return "", differs("200 with a JSON object", "%s", a.said())
	}
	if c.Name != p.name || len(c.Input) != len(p.inputs) || len(c.Output) != len(p.outputs) {
		return "", differs(fmt.Sprintf("name %s, %d inputs, %d outputs", p.name, len(p.inputs), len(p.outputs)), "%s", a.said())
	}
	return c.Name, nil
}

func configGRPC(ctx context.Context, p *probe) (string, error) {
	if !p.run.offers("model_configuration") {
		return "", skip("the server does not offer model_configuration")
	}
	r, err := call(ctx, p.run.rpc, p.run.rpc.client.ModelConfig, &pb.ModelConfigRequest{Name: p.name})
	if err != nil {
		return "", err
	}
	c := r.GetConfig()
	return want("name, inputs and outputs", fmt.Sprint(p.name, " ", len(p.inputs), " ", len(p.outputs)),
		fmt.Sprint(c.GetName(), " ", len(c.GetInput()), " ", len(c.GetOutput())))
}

func classification(ctx context.Context, p *probe) (string, error) {
	if !p.run.offers("classification") {
		return "", skip("the server does not offer classification")
	}
	for _, d := range p.outputs {
		t := d.element()
		if t == zarpa.String || t == zarpa.Bool || len(d.Shape) == 0 {
			continue
		}
		r := p.plain()
		r.Outputs = []outputWanted{{Name: d.Name, Parameters: values{"classification": 1}}}
		got, err := p.send(ctx, r)
		if err != nil {
			return "", err
		}
		tensors, err := got.tensors()
		if err != nil {
			return "", err
		}
		var value float64
		var index int
		if tensors[0].Type != zarpa.String || count(tensors[0]) == 0 {
			return "", differs("BYTES", "%v %v", tensors[0].Type, tensors[0].Shape)
		}
		if n, err := fmt.Sscanf(tensors[0].Strings[0], "%g:%d", &value, &index); n != 2 || err != nil {
			return "", differs(`"value:index"`, "%q", tensors[0].Strings[0])
		}
		return tensors[0].Strings[0], nil
	}
	return "", skip("no output of numbers with a dimension")
}

func sharedStatus(ctx context.Context, p *probe) (string, error) {
	a, err := p.run.get(ctx, "/v2/systemsharedmemory/status")
	if err != nil {
		return "", err
	}
	var list []json.RawMessage
	if isStatus(a) && (a.status < 500 || a.status == http.StatusNotImplemented) {
		return "refused: " + a.said(), nil
	}
	if err := json.Unmarshal(a.body, &list); err != nil || a.status != http.StatusOK {
		return "", differs("200 with a list, or a refusal", "%s", a.said())
	}
	return fmt.Sprintf("%d regions", len(list)), nil
}

func sharedUnknown(ctx context.Context, p *probe) (string, error) {
	r := p.plain()
	r.Inputs[0].Data = nil
	r.Inputs[0].Parameters = values{"shared_memory_region": "no_such_region", "shared_memory_byte_size": len(raw(p.sample[0]))}
	body, header := r.encode()
	a, err := p.run.wire.do(ctx, request{method: http.MethodPost, path: modelPath(p.name) + "/infer", header: header, body: body})
	if err == nil && !isStatus(a) {
		err = differs("an error status", "%s", a.said())
	}
	return a.said(), err
}

func sharedByGRPC(ctx context.Context, p *probe) (string, error) {
	ctx, cancel := p.run.rpc.limit(ctx)
	defer cancel()
	r, err := p.run.rpc.client.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{})
	switch code(err) {
	case codes.OK:
		return fmt.Sprintf("%d regions", len(r.GetRegions())), nil
	case codes.Unimplemented, codes.FailedPrecondition:
		return failed(err), nil
	default:
		return "", differs("OK, UNIMPLEMENTED or FAILED_PRECONDITION", "%s", failed(err))
	}
}

// settings wants a JSON object of a model's settings.
func settings(extension, path string) func(context.Context, *probe) (string, error) {
	return func(ctx context.Context, p *probe) (string, error) {
		if !p.run.offers(extension) {
			return "", skip("the server does not offer %s", extension)
		}
		a, err := p.run.get(ctx, modelPath(p.name)+path)
		if err != nil {
			return "", err
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(a.body, &object); err != nil || a.status != http.StatusOK {
			return "", differs("200 with a JSON object", "%s", a.said())
		}
		return a.said(), nil
	}
}
