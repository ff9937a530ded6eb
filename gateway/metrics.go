package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// buckets resolve 0.1 ms, because the gateway's own share of a request is about that.
var buckets = []float64{
	.0001, .0002, .0003, .0005, .00075, .001, .0015, .002, .003, .005, .0075, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60,
}

// metrics are the gateway's numbers. Those of a request are looked up by label once per snapshot
// and deployment, not per request; those of a state are read when somebody asks.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	upstream *prometheus.HistogramVec
	wait     *prometheus.HistogramVec
	rejected *prometheus.CounterVec
	retries  *prometheus.CounterVec
	canceled *prometheus.CounterVec
	revision prometheus.Gauge
	pools    func() []*pool
	queue    *prometheus.Desc
	inFlight *prometheus.Desc
	replicas *prometheus.Desc
}

func newMetrics(reg prometheus.Registerer, pools func() []*pool) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zarpa_gateway_" + name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "zarpa_gateway_" + name, Help: help, Buckets: buckets},
			[]string{"endpoint", "deployment"})
	}
	m := &metrics{
		requests: counter("requests_total", "Requests that were answered, by status code; 499 is a client that left.", "endpoint", "deployment", "code"),
		duration: histogram("request_duration_seconds", "From the arrival of a request's head to the end of its answer."),
		upstream: histogram("upstream_duration_seconds", "From handing a request to a replica to the end of its answer."),
		wait:     histogram("queue_wait_seconds", "Time in the queue of requests that found no free replica."),
		rejected: counter("rejected_total", "Requests refused by the gateway itself, by reason.", "endpoint", "reason"),
		retries:  counter("retries_total", "Requests that went to a replica once more, because the first try reached none.", "endpoint", "deployment"),
		canceled: counter("canceled_total", "Requests whose client left before the answer.", "endpoint", "deployment"),
		revision: prometheus.NewGauge(prometheus.GaugeOpts{Name: "zarpa_gateway_routes_revision", Help: "Revision of the routes in use."}),
		pools:    pools,
		queue:    prometheus.NewDesc("zarpa_gateway_queue_length", "Requests that wait for a free replica.", []string{"endpoint", "deployment"}, nil),
		inFlight: prometheus.NewDesc("zarpa_gateway_in_flight", "Requests that replicas work on.", []string{"endpoint", "deployment"}, nil),
		replicas: prometheus.NewDesc("zarpa_gateway_replicas", "Replicas on the routes.", []string{"endpoint", "deployment"}, nil),
	}
	reg.MustRegister(m.requests, m.duration, m.upstream, m.wait, m.rejected, m.retries, m.canceled, m.revision, m)
	return m
}

var _ prometheus.Collector = (*metrics)(nil)

// Describe names what Collect gives.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.queue
	ch <- m.inFlight
	ch <- m.replicas
}

// Collect reads queue lengths and requests in flight at this moment.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, p := range m.pools() {
		for _, s := range p.state() {
			gauge := func(d *prometheus.Desc, n int) {
				ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), p.endpoint, s.deployment)
			}
			gauge(m.queue, s.queued)
			gauge(m.inFlight, s.inFlight)
			gauge(m.replicas, s.replicas)
		}
	}
}

// forget drops the series of an endpoint or, where it is named, of one deployment that is gone.
func (m *metrics) forget(endpoint, deployment string) {
	l := prometheus.Labels{"endpoint": endpoint}
	if deployment == "" {
		m.rejected.DeletePartialMatch(l)
	} else {
		l["deployment"] = deployment
	}
	m.requests.DeletePartialMatch(l)
	m.duration.DeletePartialMatch(l)
	m.upstream.DeletePartialMatch(l)
	m.wait.DeletePartialMatch(l)
	m.retries.DeletePartialMatch(l)
	m.canceled.DeletePartialMatch(l)
}

// series are the numbers of one deployment, looked up once.
type series struct {
	endpoint, deployment string
	metrics              *metrics
	ok                   prometheus.Counter
	duration             prometheus.Observer
	upstream             prometheus.Observer
	wait                 prometheus.Observer
	retries              prometheus.Counter
	canceled             prometheus.Counter
}

func (m *metrics) series(endpoint, deployment string) *series {
	return &series{
		endpoint: endpoint, deployment: deployment, metrics: m,
		ok:       m.requests.WithLabelValues(endpoint, deployment, "200"),
		duration: m.duration.WithLabelValues(endpoint, deployment),
		upstream: m.upstream.WithLabelValues(endpoint, deployment),
		wait:     m.wait.WithLabelValues(endpoint, deployment),
		retries:  m.retries.WithLabelValues(endpoint, deployment),
		canceled: m.canceled.WithLabelValues(endpoint, deployment),
	}
}

func (s *series) count(status int, took time.Duration) {
	s.duration.Observe(took.Seconds())
	switch status {
	case 200:
		s.ok.Inc()
		return
	case statusLeft:
		s.canceled.Inc()
	}
	s.metrics.requests.WithLabelValues(s.endpoint, s.deployment, strconv.Itoa(status)).Inc()
}
