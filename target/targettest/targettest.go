// Package targettest is the contract of [zarpa.Driver], executable. Every driver runs it:
//
//	targettest.Run(t, targettest.Config{New: …, Deployment: …, …})
//
// The cases wait for what a driver tells (Notify, where it has it) and look (Observe); none
// counts on how fast a target is, within Config.Patience.
package targettest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Config tells the suite how to use a driver. Every case gets a driver of its own, and cases run
// in parallel.
type Config struct {
	// New makes a driver over fresh ground and has it cleaned up when the test ends.
	New func(t *testing.T) zarpa.Driver
	// Reopen ends a driver the way a crash of the control plane does, leaving replicas as they
	// are, and makes a new one over the same ground. Nil when nothing outlives the driver.
	Reopen func(t *testing.T, old zarpa.Driver) zarpa.Driver
	// Deployment returns one that runs, with a single replica, for an endpoint and deployment
	// name; calls with the same names return the same.
	Deployment func(endpoint, name string) zarpa.Deployment
	// Change returns the deployment with something changed that makes another revision.
	Change func(d zarpa.Deployment) zarpa.Deployment
	// Broken returns the deployment changed so that its model cannot be loaded.
	Broken func(d zarpa.Deployment) zarpa.Deployment
	// Crash kills a replica without warning.
	Crash func(t *testing.T, d zarpa.Driver, r zarpa.Replica)
	// Call makes a prediction that takes about hold.
	Call func(ctx context.Context, address string, hold time.Duration) error
	// Patience bounds each wait; 0 is 30 s.
	Patience time.Duration
}

// Run runs the suite.
func Run(t *testing.T, c Config) {
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	cases := []struct {
		name string
		run  func(t *testing.T, g *ground)
	}{
		{"ApplyTwiceIsApplyOnce", applyTwice},
		{"ApplyWithoutTheHandleIsApplyOnce", applyWithoutHandle},
		{"ScalesUpAndDown", scales},
		{"ScalesToNoneAndBack", scalesToNone},
		{"TellsItsCapacity", capacity},
		{"ChecksAsItApplies", checks},
		{"ObserveOfUnknownIsNotFound", observeUnknown},
		{"RemoveOfUnknownIsNoError", removeUnknown},
		{"RemoveLeavesNothing", removes},
		{"RemoveLetsRequestsEnd", removeDrains},
		{"AppliedAgainWhileRemovedRuns", appliedWhileRemoved},
		{"ReplacesWithoutLosingARequest", replaces},
		{"SurgeAndUnavailableAreKept", keepsBounds},
		{"OneReplicaIsReplaced", replacesOne},
		{"ReplacementOfOneGoesOnAfterRestart", replacesOneAfterRestart},
		{"DrainingIsShownBeforeItIsStopped", drainingIsShown},
		{"ChangingBackWhileDrainingKeepsTheReplica", changedBack},
		{"BrokenRevisionLeavesTheReadyOne", brokenRevision},
		{"BrokenIsStartedAgainWithAGrowingDelay", backsOff},
		{"BrokenSaysWhy", brokenSaysWhy},
		{"CrashedReplicaComesBack", crashes},
		{"NotifiesOfChanges", notifies},
		{"RunsManyDeploymentsAtOnce", many},
		{"CanceledContextChangesNothing", canceled},
		{"LogsOfUnknownAreNotFound", logsUnknown},
		{"LogsAreKept", logs},
		{"LogsOfTheRunBeforeAreKept", previousLogs},
		{"LogsAreFollowed", followsLogs},
		{"AdoptsWhatRuns", adopts},
		{"AdoptedIsRemoved", adoptedIsRemoved},
		{"AdoptedIsReplacedWhenItCrashes", adoptedCrashes},
		{"DiedUnseenComesBack", diedUnseen},
		{"RemovalGoesOnAfterRestart", removalGoesOn},
		{"ReplacementGoesOnAfterRestart", replacementGoesOn},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 4*c.Patience)
			t.Cleanup(cancel)
			tc.run(t, newGround(t, ctx, c))
		})
	}
}

// ground is one case's driver and what the suite knows of it.
type ground struct {
	Config
	ctx     context.Context //nolint:containedctx // of the one test that it lives for
	driver  zarpa.Driver
	changed chan struct{}
	keys    chan string
}

func newGround(t *testing.T, ctx context.Context, c Config) *ground {
	t.Helper()
	g := &ground{Config: c, ctx: ctx}
	g.use(c.New(t))
	return g
}

// use makes the driver wake waits.
func (g *ground) use(d zarpa.Driver) {
	g.driver = d
	changed, keys := make(chan struct{}, 1), make(chan string, 1000)
	g.changed, g.keys = changed, keys
	if n, ok := d.(zarpa.Notifier); ok {
		n.Notify(func(key string) {
			select {
			case changed <- struct{}{}:
			default:
			}
			select {
			case keys <- key:
			default:
			}
		})
	}
}

// reopen restarts the control plane.
func (g *ground) reopen(t *testing.T) {
	t.Helper()
	if g.Reopen == nil {
		t.Skip("nothing outlives this driver")
	}
	g.use(g.Reopen(t, g.driver))
}

func (g *ground) apply(t *testing.T, d zarpa.Deployment) zarpa.Handle {
	t.Helper()
	h, err := g.driver.Apply(g.ctx, d)
	if err != nil {
		t.Fatalf("Apply %s: %v", d.Key(), err)
	}
	if h.IsZero() {
		t.Fatalf("Apply %s: the handle is zero", d.Key())
	}
	return h
}

// await observes until ok says so. A driver that tells of changes is looked at when it does, and
// every second in case it missed one; others ten times a second.
func (g *ground) await(t *testing.T, h zarpa.Handle, what string, ok func(zarpa.DeploymentStatus) bool) zarpa.DeploymentStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(g.ctx, g.Patience)
	defer cancel()
	every := 100 * time.Millisecond
	if _, tells := g.driver.(zarpa.Notifier); tells {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s, err := g.driver.Observe(ctx, h)
		if err != nil && !errors.Is(err, zarpa.ErrNotFound) && ctx.Err() == nil {
			t.Fatalf("Observe: %v", err)
		}
		if err == nil && ok(s) {
			return s
		}
		select {
		case <-g.changed:
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v; last seen: %+v, %v", what, g.Patience, s, err)
		}
	}
}

// gone waits for not_found.
func (g *ground) gone(t *testing.T, h zarpa.Handle) {
	t.Helper()
	ctx, cancel := context.WithTimeout(g.ctx, g.Patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := g.driver.Observe(ctx, h)
		if errors.Is(err, zarpa.ErrNotFound) {
			return
		}
		select {
		case <-g.changed:
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the deployment is not gone within %v: %+v, %v", g.Patience, s, err)
		}
	}
}

// reconcile applies and observes as the reconciler does, until ok says so.
func (g *ground) reconcile(t *testing.T, d zarpa.Deployment, what string, ok func(zarpa.DeploymentStatus) bool) zarpa.DeploymentStatus {
	t.Helper()
	var h zarpa.Handle
	h = g.apply(t, d)
	return g.await(t, h, what, func(s zarpa.DeploymentStatus) bool {
		if ok(s) {
			return true
		}
		d.Handle = h
		h = g.apply(t, d)
		return false
	})
}

// ready tells that n replicas of the wanted revision are ready, and no others are there.
func ready(d zarpa.Deployment, n int) func(zarpa.DeploymentStatus) bool {
	return func(s zarpa.DeploymentStatus) bool {
		return s.Revision == d.Revision() && s.Ready(d.Revision()) == n && len(s.Replicas) == n
	}
}

func (g *ground) remove(t *testing.T, h zarpa.Handle) {
	t.Helper()
	if err := g.driver.Remove(g.ctx, h); err != nil {
		t.Fatalf("Remove: %v", err)
	}
}

func (g *ground) logs(t *testing.T, h zarpa.Handle, q zarpa.LogQuery) []string {
	t.Helper()
	l, ok := g.driver.(zarpa.Logger)
	if !ok {
		t.Skip("this driver keeps no logs")
	}
	r, err := l.Logs(g.ctx, h, q)
	if err != nil {
		t.Fatalf("Logs: %v", err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read logs: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// written waits until a replica's log holds something and does not grow from one look to the next.
func (g *ground) written(t *testing.T, h zarpa.Handle, id string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(g.ctx, g.Patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	before := []string{""}
	for {
		now := g.logs(t, h, zarpa.LogQuery{Replica: id})
		if now[0] != "" && slices.Equal(now, before) {
			return now
		}
		before = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("replica %s has printed nothing, or goes on, for %v: %q", id, g.Patience, now)
		}
	}
}

func scaled(d zarpa.Deployment, n int) zarpa.Deployment {
	d.Spec.Replicas = n
	return d
}
