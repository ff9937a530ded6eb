package score

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// batchVectors are the metrics of all models' batches.
type batchVectors struct {
	rows     *prometheus.HistogramVec
	dispatch *prometheus.CounterVec
	wait     *prometheus.HistogramVec
}

// batchMetrics are those of one model, resolved before a request comes.
type batchMetrics struct {
	rows     prometheus.Observer
	dispatch [numReasons]prometheus.Counter
	wait     prometheus.Observer
}

// newBatchVectors registers the metrics of batches.
func newBatchVectors(reg *prometheus.Registry, entries []*entry) (*batchVectors, error) {
	v := &batchVectors{
		rows: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "zarpa_score_batch_rows", Help: "Rows of each run, by model.", Buckets: prometheus.ExponentialBuckets(1, 2, 14),
		}, []string{"model"}),
		dispatch: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zarpa_score_batch_dispatch_total", Help: "Runs begun, by model and by why they waited no longer.",
		}, []string{"model", "reason"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "zarpa_score_batch_wait_seconds", Help: "How long the oldest request of each run had waited, by model.", Buckets: buckets(),
		}, []string{"model"}),
	}
	all := []prometheus.Collector{v.rows, v.dispatch, v.wait}
	for _, e := range entries {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "zarpa_score_batch_oldest_wait_seconds", Help: "How long the request has waited now that has waited longest for its run, by model.",
			ConstLabels: prometheus.Labels{"model": e.Name},
		}, e.oldestWait))
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// oldestWait is that of the model in memory, in seconds.
func (e *entry) oldestWait() float64 {
	if m := e.model.Load(); m != nil && m.batcher != nil {
		return m.batcher.oldestWait(time.Now()).Seconds()
	}
	return 0
}

// of resolves the metrics of one model.
func (v *batchVectors) of(model string) *batchMetrics {
	m := &batchMetrics{rows: v.rows.WithLabelValues(model), wait: v.wait.WithLabelValues(model)}
	for r := keepWaiting + 1; r < numReasons; r++ {
		m.dispatch[r] = v.dispatch.WithLabelValues(model, reasonNames[r])
	}
	return m
}

// began counts one run.
func (m *batchMetrics) began(b *batch) {
	m.rows.Observe(float64(b.rows))
	m.dispatch[b.why].Inc()
	m.wait.Observe(b.began.Sub(b.members[0].came).Seconds())
}
