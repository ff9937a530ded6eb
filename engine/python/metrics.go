package python

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of all sessions of an engine.
type metrics struct {
	starting, alive, busy prometheus.Gauge
	restarts              *prometheus.CounterVec
	queued                prometheus.Histogram
}

// newMetrics registers the metrics with reg, which may be nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		starting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zarpa_python_workers_starting", Help: "Python workers that load now.",
		}),
		alive: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zarpa_python_workers", Help: "Python workers that have loaded.",
		}),
		busy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zarpa_python_workers_busy", Help: "Python workers that work on a request now.",
		}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zarpa_python_worker_restarts_total", Help: "Python workers that were replaced, by reason.",
		}, []string{"reason"}),
		queued: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "zarpa_python_queue_seconds", Help: "How long requests waited for a Python worker.",
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 60},
		}),
	}
	for _, why := range []reason{
		reasonCrashed, reasonTimeout, reasonCorrupt, reasonRequests, reasonMemory, reasonAsked, reasonOrphaned,
	} {
		m.restarts.WithLabelValues(string(why))
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.starting, m.alive, m.busy, m.restarts, m.queued} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
