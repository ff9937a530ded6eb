package score

import (
	"net/http"
	"time"

	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// statistics are the entry's counters, under the name that was asked for.
func (e *entry) statistics(name string) *pb.ModelStatistics {
	c := e.stats.read()
	out := &pb.ModelStatistics{
		Name: name, Version: e.Version, InferenceCount: c.inferences, ExecutionCount: c.executions,
		InferenceStats: &pb.InferStatistics{
			Success: c.success.message(), Fail: c.fail.message(), Queue: c.queue.message(),
			ComputeInput: c.input.message(), ComputeInfer: c.infer.message(), ComputeOutput: c.output.message(),
			CacheHit: &pb.StatisticDuration{}, CacheMiss: &pb.StatisticDuration{},
		},
	}
	if !c.last.IsZero() {
		out.LastInference = uint64(c.last.UnixMilli())
	}
	for _, size := range c.sizes() {
		out.BatchStats = append(out.BatchStats, &pb.InferBatchStatistics{
			BatchSize: uint64(size), ComputeInput: &pb.StatisticDuration{},
			ComputeInfer: c.batches[size].infer.message(), ComputeOutput: &pb.StatisticDuration{},
		})
	}
	return out
}

func (d duration) message() *pb.StatisticDuration {
	return &pb.StatisticDuration{Count: d.count, Ns: uint64(max(d.sum, 0) / time.Nanosecond)}
}

func (s *Server) allStatistics() *pb.ModelStatisticsResponse {
	all := &pb.ModelStatisticsResponse{}
	for _, e := range s.entries {
		all.ModelStats = append(all.ModelStats, e.statistics(e.Name))
	}
	return all
}

// modelStats answers GET /v2/models/M/stats, whether the model is in memory or not.
func (s *Server) modelStats(w http.ResponseWriter, _ *http.Request, p place) error {
	return answer(w, jsonType, appendMessage(nil, &pb.ModelStatisticsResponse{ModelStats: []*pb.ModelStatistics{p.entry.statistics(p.name)}}))
}
