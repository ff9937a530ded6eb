package replica

import (
	"math"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// ScoreArgs are the arguments of `zarpa score` that follow from a deployment; where the bundle is and where
// to listen is the driver's to say. label names the run, work is a directory for what it writes ("" is none).
// An unlimited cpu leaves the number of threads to the engine.
func ScoreArgs(d zarpa.Deployment, label, work string) []string {
	spec := d.Spec
	args := []string{"--label", label, "--endpoint", d.Endpoint, "--deployment", spec.Name}
	option := func(set bool, name, value string) {
		if set {
			args = append(args, name, value)
		}
	}
	main, _, _ := strings.Cut(spec.Model, ":")
	option(main != "", "--model", main)
	option(work != "", "--work", work)
	option(spec.Workers > 0, "--workers", strconv.Itoa(spec.Workers))
	option(spec.Preload != "", "--preload", string(spec.Preload))
	option(spec.WorkerMaxRequests > 0, "--worker-max-requests", strconv.Itoa(spec.WorkerMaxRequests))
	option(spec.WorkerMaxMemory > 0, "--worker-max-memory", spec.WorkerMaxMemory.String())
	option(spec.ModelControl != "", "--model-control", string(spec.ModelControl))
	option(spec.MaxBatchRows > 0, "--max-batch-rows", strconv.Itoa(spec.MaxBatchRows))
	option(spec.MaxBatchDelay > 0, "--max-batch-delay", spec.MaxBatchDelay.String())
	option(spec.MaxConcurrency > 0, "--max-concurrency", strconv.Itoa(spec.MaxConcurrency))
	option(spec.CPU > 0, "--threads", strconv.Itoa(int(math.Ceil(float64(spec.CPU)))))
	option(d.Request.Timeout > 0, "--request-timeout", d.Request.Timeout.String())
	option(d.Request.MaxBody > 0, "--max-body", d.Request.MaxBody.String())
	option(spec.DrainTimeout > 0, "--drain-timeout", spec.DrainTimeout.String())
	return args
}
