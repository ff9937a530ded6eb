package autoscale

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zarpa-dev/zarpa"
)

// Metrics are what a Scaler shows of its decisions in Prometheus's format. A nil one shows nothing.
type Metrics struct {
	wanted, missing, stable, recent, target *prometheus.GaugeVec
	decisions                               *prometheus.CounterVec
	cold                                    *prometheus.HistogramVec
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	labels := []string{"endpoint", "deployment"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		wanted:  gauge("zarpa_scale_wanted_replicas", "Replicas that the autoscaler wants."),
		missing: gauge("zarpa_scale_missing_replicas", "Replicas that there should be besides, for which the target has no room."),
		stable:  gauge("zarpa_scale_stable_requests", "Requests under way and waiting, the mean over the window."),
		recent:  gauge("zarpa_scale_recent_requests", "Requests under way and waiting, the mean over the short window."),
		target:  gauge("zarpa_scale_target_requests", "Requests at a time that one replica should have."),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zarpa_scale_decisions_total", Help: "Decisions by direction: up, down, or none where the target has no room.",
		}, append(labels, "direction")),
		cold: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "zarpa_scale_cold_start_seconds", Help: "Starts from zero by their parts: decide, start, load, first_byte.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 18), // 1 ms to 131 s
		}, append(labels, "part")),
	}
	r.MustRegister(m.wanted, m.missing, m.stable, m.recent, m.target, m.decisions, m.cold)
	return m
}

func (m *Metrics) show(d *scaled) {
	if m == nil {
		return
	}
	m.wanted.WithLabelValues(d.endpoint, d.deployment).Set(float64(d.state.Wanted))
	m.missing.WithLabelValues(d.endpoint, d.deployment).Set(float64(d.state.Missing))
	m.stable.WithLabelValues(d.endpoint, d.deployment).Set(d.sample.Stable)
	m.recent.WithLabelValues(d.endpoint, d.deployment).Set(d.sample.Recent)
	m.target.WithLabelValues(d.endpoint, d.deployment).Set(d.policy.Target)
}

func (m *Metrics) count(k key, d zarpa.ScaleDecision) {
	if m == nil {
		return
	}
	direction := "none"
	switch {
	case d.To > d.From:
		direction = "up"
	case d.To < d.From:
		direction = "down"
	}
	m.decisions.WithLabelValues(k.endpoint, k.deployment, direction).Inc()
}

func (m *Metrics) coldStart(k key, c zarpa.ColdStart) {
	if m == nil {
		return
	}
	for part, took := range map[string]zarpa.Duration{"decide": c.Decide, "start": c.Start, "load": c.Load, "first_byte": c.FirstByte} {
		m.cold.WithLabelValues(k.endpoint, k.deployment, part).Observe(float64(took) / 1e9)
	}
}

// forget removes what is shown of a deployment that is gone.
func (m *Metrics) forget(k key) {
	if m == nil {
		return
	}
	labels := prometheus.Labels{"endpoint": k.endpoint, "deployment": k.deployment}
	for _, v := range []interface {
		DeletePartialMatch(labels prometheus.Labels) int
	}{m.wanted, m.missing, m.stable, m.recent, m.target, m.decisions, m.cold} {
		v.DeletePartialMatch(labels)
	}
}
