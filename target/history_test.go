package target

import (
	"strconv"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// TestAnUpdateInManyStepsHasTimeForEach: what the start timeout bounds is one step, and one that goes back
// and forth is none.
func TestAnUpdateInManyStepsHasTimeForEach(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)
	r := &Reconciler{o: Options{Now: func() time.Time { return now }}, history: history{of: map[string]*remembered{}}}
	rec := &recorder{r: r, op: zarpa.Operation{ID: "op-1", Endpoint: "a", Kind: "update", State: zarpa.OperationRunning, Created: now}}
	spec := zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{{Name: "blue", Replicas: 10, StartTimeout: zarpa.Duration(5 * time.Minute)}}}
	d := zarpa.Deployment{Endpoint: "a", Spec: spec.Deployments[0]}
	pass := func(ready int) time.Duration {
		var s zarpa.DeploymentStatus
		for i := range ready {
			s.Replicas = append(s.Replicas, zarpa.Replica{ID: strconv.Itoa(i), Revision: d.Revision(), Phase: zarpa.ReplicaReady})
		}
		now = now.Add(4 * time.Minute)
		rec.replicas(d, s)
		return rec.expire(spec)
	}
	for ready := range 5 {
		if left := pass(ready + 1); left != 5*time.Minute+grace || !rec.runs() {
			t.Fatalf("%d ready: %v are left: %+v", ready+1, left, rec.op)
		}
	}
	pass(4)
	pass(5)
	if rec.runs() || rec.op.Error == nil || rec.op.Error.Code != zarpa.Timeout {
		t.Errorf("what makes no step forward goes on: %+v", rec.op)
	}
	if r.history.forget("a"); len(r.history.of) != 0 {
		t.Errorf("%d are remembered", len(r.history.of))
	}
}
