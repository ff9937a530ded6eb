package score

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// The routes as metrics name them.
const (
	routeScore = iota
	routeInfer
	routeInvocations
	routeGenerate
	routeGRPCInfer
	routeGRPCStream // each request of a ModelStreamInfer
	routeGRPCOther
	routeOther // probes, metadata, pages, and what is not found
	numRoutes
)

var routeNames = [numRoutes]string{"score", "infer", "invocations", "generate", "grpc_infer", "grpc_stream", "grpc_other", "other"}

// codeOf is what the label "code" says of an answer: the HTTP status, or gRPC's name of one.
func codeOf(route int, err error) string {
	switch route {
	case routeGRPCInfer, routeGRPCStream, routeGRPCOther:
		return grpcx.Name(status.Code(grpcStatus(err)))
	}
	if err == nil {
		return "200"
	}
	return strconv.Itoa(httpx.Status(err))
}

// metrics are resolved before a request comes: looking labels up takes longer than counting.
type metrics struct {
	requests *prometheus.CounterVec
	ok       [numRoutes]prometheus.Counter
	duration [numRoutes]prometheus.Observer
	rejected *prometheus.CounterVec
	canceled prometheus.Counter
	loaded   *prometheus.GaugeVec
	batch    *batchVectors // nil without batching
}

// buckets resolve a tenth of a millisecond, for models that answer in one, and reach a minute.
func buckets() []float64 {
	return []float64{
		.0001, .0002, .0003, .0005, .00075, .001, .0015, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .075,
		.1, .2, .5, 1, 2, 5, 10, 30, 60,
	}
}

func newMetrics(reg *prometheus.Registry, l *limiter) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zarpa_score_requests_total", Help: "Requests answered, by route and status.",
		}, []string{"route", "code"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zarpa_score_rejected_total", Help: "Predictions that did not reach the model, by reason.",
		}, []string{"reason"}),
		canceled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zarpa_score_canceled_total", Help: "Predictions whose client left before the answer.",
		}),
		loaded: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zarpa_score_model_load_seconds", Help: "How long a model took to load; 0 while it is not in memory.",
		}, []string{"model"}),
	}
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "zarpa_score_request_duration_seconds", Help: "Time from the end of the header to the end of the answer.", Buckets: buckets(),
	}, []string{"route"})
	for i, name := range routeNames {
		m.ok[i] = m.requests.WithLabelValues(name, codeOf(i, nil))
		m.duration[i] = duration.WithLabelValues(name)
	}
	running := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zarpa_score_in_flight", Help: "Predictions that run, or gather in batches, now.",
	}, func() float64 { return float64(len(l.slots)) })
	queued := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zarpa_score_queued", Help: "Predictions that wait for a run to end.",
	}, func() float64 { return float64(l.waiting.Load()) })
	for _, c := range []prometheus.Collector{m.requests, m.rejected, m.canceled, m.loaded, duration, running, queued} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// observe counts one answered request; err is why it failed.
func (m *metrics) observe(route int, began time.Time, err error) {
	m.duration[route].Observe(time.Since(began).Seconds())
	if err == nil {
		m.ok[route].Inc()
		return
	}
	m.requests.WithLabelValues(routeNames[route], codeOf(route, err)).Inc()
	if route == routeOther || route == routeGRPCOther {
		return
	}
	switch code := zarpa.AsError(err).Code; code {
	case zarpa.Canceled:
		m.canceled.Inc()
	case zarpa.ModelError, zarpa.Internal:
	default:
		m.rejected.WithLabelValues(string(code)).Inc()
	}
}
