package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/zarpa-dev/zarpa/internal/grpcx"
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
	// exhausted counts tries that were not made, ejections replicas that were sent away.
	exhausted   *prometheus.CounterVec
	ejections   *prometheus.CounterVec
	mirrored    *prometheus.CounterVec
	held        *prometheus.CounterVec
	wakes       *prometheus.CounterVec
	unlogged    prometheus.Counter
	revision    prometheus.Gauge
	connections prometheus.Counter // refused
	pools       func() []*pool
	queue       *prometheus.Desc
	inFlight    *prometheus.Desc
	replicas    *prometheus.Desc
	ejected     *prometheus.Desc
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
		requests:    counter("requests_total", "Requests that were answered, by HTTP status or gRPC code; 499 and CANCELLED are clients that left.", "endpoint", "deployment", "code"),
		duration:    histogram("request_duration_seconds", "From the arrival of a request's head to the end of its answer."),
		upstream:    histogram("upstream_duration_seconds", "From handing a request to a replica to the end of its answer."),
		wait:        histogram("queue_wait_seconds", "Time in the queue of requests that found no free replica."),
		rejected:    counter("rejected_total", "Requests refused by the gateway itself, by reason.", "endpoint", "reason"),
		retries:     counter("retries_total", "Requests that went to a replica once more, because the first try reached none.", "endpoint", "deployment"),
		canceled:    counter("canceled_total", "Requests whose client left before the answer.", "endpoint", "deployment"),
		exhausted:   counter("retry_budget_exhausted_total", "Requests that failed and were not sent again, because the endpoint's retry budget was spent.", "endpoint", "deployment"),
		ejections:   counter("ejections_total", "Replicas that were kept from requests for their failures.", "endpoint", "deployment"),
		mirrored:    counter("mirrored_total", "Requests whose turn to be copied to the mirror had come: sent, dropped (too many under way), skipped (too large), refused (no replica).", "endpoint", "deployment", "result"),
		held:        counter("held_total", "Requests that waited for a deployment without a replica, which one of them starts.", "endpoint", "deployment"),
		wakes:       counter("wakes_total", "Calls for a first replica, because requests began to wait for one.", "endpoint", "deployment"),
		unlogged:    prometheus.NewCounter(prometheus.CounterOpts{Name: "zarpa_gateway_access_log_dropped_total", Help: "Lines of the access log that were lost, because it could not be written fast enough or at all."}),
		revision:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "zarpa_gateway_routes_revision", Help: "Revision of the routes in use."}),
		connections: prometheus.NewCounter(prometheus.CounterOpts{Name: "zarpa_gateway_connections_refused_total", Help: "Connections that were closed at once, because there were as many as there may be."}),
		pools:       pools,
		queue:       prometheus.NewDesc("zarpa_gateway_queue_length", "Requests that wait for a free replica.", []string{"endpoint", "deployment"}, nil),
		inFlight:    prometheus.NewDesc("zarpa_gateway_in_flight", "Requests that replicas work on.", []string{"endpoint", "deployment"}, nil),
		replicas:    prometheus.NewDesc("zarpa_gateway_replicas", "Replicas on the routes.", []string{"endpoint", "deployment"}, nil),
		ejected:     prometheus.NewDesc("zarpa_gateway_ejected_replicas", "Replicas that get no requests for a while, for their failures.", []string{"endpoint", "deployment"}, nil),
	}
	reg.MustRegister(m.requests, m.duration, m.upstream, m.wait, m.rejected, m.retries, m.canceled, m.exhausted, m.ejections, m.mirrored, m.held, m.wakes, m.unlogged, m.connections, m.revision, m)
	return m
}

var _ prometheus.Collector = (*metrics)(nil)

// Describe names what Collect gives.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.queue
	ch <- m.inFlight
	ch <- m.replicas
	ch <- m.ejected
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
		for deployment, n := range p.ejected() {
			ch <- prometheus.MustNewConstMetric(m.ejected, prometheus.GaugeValue, float64(n), p.endpoint, deployment)
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
	m.exhausted.DeletePartialMatch(l)
	m.ejections.DeletePartialMatch(l)
	m.mirrored.DeletePartialMatch(l)
	m.held.DeletePartialMatch(l)
	m.wakes.DeletePartialMatch(l)
}

func (m *metrics) countMirror(ru *rule, result string) {
	m.mirrored.WithLabelValues(ru.name, ru.mirror.deployment, result).Inc()
}

// series are the numbers of one deployment, looked up once.
type series struct {
	endpoint, deployment string
	named                []string // deployment, as a header's value
	metrics              *metrics
	ok, okRPC            prometheus.Counter
	duration             prometheus.Observer
	upstream             prometheus.Observer
	wait                 prometheus.Observer
	retries              *retryCounter
	canceled             prometheus.Counter
	exhausted, ejections prometheus.Counter
	held, wakes          prometheus.Counter
	counts               *counts // the deployment's
}

// retryCounter counts for the metrics and for snapshots of the load.
type retryCounter struct {
	prometheus.Counter
	series *series
}

// Inc adds one.
func (c *retryCounter) Inc() {
	c.Counter.Inc()
	c.series.counts.retries.Add(1)
}

func (m *metrics) series(endpoint, deployment string) *series {
	s := &series{
		endpoint: endpoint, deployment: deployment, named: []string{deployment}, metrics: m,
		ok:       m.requests.WithLabelValues(endpoint, deployment, "200"),
		okRPC:    m.requests.WithLabelValues(endpoint, deployment, grpcx.Name(codes.OK)),
		duration: m.duration.WithLabelValues(endpoint, deployment),
		upstream: m.upstream.WithLabelValues(endpoint, deployment),
		wait:     m.wait.WithLabelValues(endpoint, deployment),
		canceled: m.canceled.WithLabelValues(endpoint, deployment),
		held:     m.held.WithLabelValues(endpoint, deployment),
		wakes:    m.wakes.WithLabelValues(endpoint, deployment),

		exhausted: m.exhausted.WithLabelValues(endpoint, deployment),
		ejections: m.ejections.WithLabelValues(endpoint, deployment),
	}
	s.retries = &retryCounter{m.retries.WithLabelValues(endpoint, deployment), s}
	return s
}

// ending is how a request ended, for the load of its deployment.
type ending int

const (
	served  ending = iota // answered, or refused by what the deployment is not to blame for
	faulty                // the deployment is to blame
	gaveUp                // the client left
	talked                // a WebSocket or a stream that ended well: it lasts as long as the two have to say
	refused               // was counted when no replica was had
)

// settle counts a request once, whatever tries it took.
func (t *counts) settle(e ending, took time.Duration) {
	switch e {
	case refused:
		return
	case gaveUp, talked:
		t.untimed.Add(1)
		return
	case faulty:
		t.failures.Add(1)
	case served:
	}
	t.answered(took)
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

func (s *series) countRPC(code codes.Code, took time.Duration) {
	s.duration.Observe(took.Seconds())
	if code == codes.OK {
		s.okRPC.Inc()
		return
	}
	if code == codes.Canceled {
		s.canceled.Inc()
	}
	s.metrics.requests.WithLabelValues(s.endpoint, s.deployment, grpcx.Name(code)).Inc()
}
