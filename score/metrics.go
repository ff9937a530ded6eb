package score

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// The routes as metrics name them.
const (
	routeScore = iota
	routeInfer
	routeOther // probes, metadata, pages, and what is not found
	numRoutes
)

var routeNames = [numRoutes]string{"score", "infer", "other"}

// metrics are resolved before a request comes: looking labels up takes longer than counting.
type metrics struct {
	requests *prometheus.CounterVec
	ok       [numRoutes]prometheus.Counter
	duration [numRoutes]prometheus.Observer
	rejected *prometheus.CounterVec
	canceled prometheus.Counter
	loaded   prometheus.Gauge
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
			Name: "zarpa_score_requests_total", Help: "Requests answered, by route and HTTP status.",
		}, []string{"route", "code"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zarpa_score_rejected_total", Help: "Predictions that did not reach the model, by reason.",
		}, []string{"reason"}),
		canceled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zarpa_score_canceled_total", Help: "Predictions whose client left before the answer.",
		}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zarpa_score_model_load_seconds", Help: "How long the model took to load; 0 while it loads.",
		}),
	}
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "zarpa_score_request_duration_seconds", Help: "Time from the end of the header to the end of the answer.", Buckets: buckets(),
	}, []string{"route"})
	for i, name := range routeNames {
		m.ok[i] = m.requests.WithLabelValues(name, "200")
		m.duration[i] = duration.WithLabelValues(name)
	}
	running := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zarpa_score_in_flight", Help: "Runs of the model that go on now.",
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
	m.requests.WithLabelValues(routeNames[route], strconv.Itoa(httpx.Status(err))).Inc()
	if route == routeOther {
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
