// Package rollout moves an endpoint's traffic to a deployment step by step. [Judge] decides over a step
// from what was measured, and nothing else; a [Controller] measures, asks it, moves the weights, and goes
// back to those from before when a step has failed. The state of a rollout is in the store at any time, so
// that another controller goes on where one ended. Package imports the root alone: how weights are
// changed and where load is read is given to it.
package rollout

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Weights asks for shares of an endpoint's traffic.
type Weights struct {
	Endpoint string
	Shares   map[string]int
	// Who is "rollout ro-…".
	Who string
	// Urgent takes the place of an operation that is in the way, to go back.
	Urgent bool
}

// Options are the parts that a Controller works with.
type Options struct {
	Store  zarpa.Store
	Loader zarpa.Loader
	// SetWeights changes the wanted weights and returns; weights that are wanted already are no
	// error. conflict while another operation is in the way, not_found when the endpoint is gone.
	SetWeights func(ctx context.Context, w Weights) error
	Log        *slog.Logger
	// Every is how often is measured; 0 is [DefaultEvery].
	Every time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

const (
	// DefaultEvery is how often a rollout under way is measured.
	DefaultEvery = time.Second
	// resync is how many rounds later all endpoints are looked at without a reason.
	resync = 30
	// saveEvery is how often is stored what was measured: at most so much is lost by a crash.
	saveEvery = 3 * time.Second
	// lostFor is how long the deployment that gets the traffic may be without a ready replica.
	lostFor = 10 * time.Second
)

// Controller takes rollouts to their end. Its methods may be called from many goroutines.
type Controller struct {
	o Options

	mu      sync.Mutex
	active  map[string]*course       // rollouts under way, by endpoint
	last    map[string]zarpa.Rollout // what was last seen of each endpoint, also of one that is over
	judged  map[Verdicts]int64
	pending map[string]bool // endpoints to look at
}

// Verdicts are counted by endpoint and outcome.
type Verdicts struct {
	Endpoint string
	Passed   bool
}

// course is what is known of a rollout beyond its record. It belongs to Run's goroutine.
type course struct {
	rollout zarpa.Rollout
	stored  zarpa.Rollout
	saved   time.Time
	// before is the load that the next one is compared with; nil begins anew.
	before *zarpa.Load
	// lost is since when the deployment has had no ready replica.
	lost time.Time
	// revision is the deployment's, of the last look.
	revision string
	// told is what was logged last.
	told string
}

// New makes a Controller that does nothing until Run.
func New(o Options) *Controller {
	if o.Every == 0 {
		o.Every = DefaultEvery
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Controller{
		o: o, active: map[string]*course{}, last: map[string]zarpa.Rollout{}, judged: map[Verdicts]int64{}, pending: map[string]bool{},
	}
}

// Wake has an endpoint looked at in the next round: a rollout of it began or was steered. It never blocks.
func (c *Controller) Wake(endpoint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[endpoint] = true
}

// Rollouts are the last of every endpoint that had one since the controller began or has one under way.
func (c *Controller) Rollouts() map[string]zarpa.Rollout {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.last)
}

// Judged counts the judgements since the controller began.
func (c *Controller) Judged() map[Verdicts]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.judged)
}

// Run goes on with all rollouts until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	tick := time.NewTicker(c.o.Every)
	defer tick.Stop()
	for round := 0; ; round++ {
		if err := c.round(ctx, round%resync == 0); err != nil && ctx.Err() == nil {
			c.o.Log.Error("rollouts", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round takes every rollout one step further.
func (c *Controller) round(ctx context.Context, all bool) error {
	if err := c.find(ctx, all); err != nil {
		return err
	}
	if len(c.active) == 0 {
		return nil
	}
	load, err := c.o.Loader.Load(ctx, 0, 0)
	if err != nil {
		load = zarpa.Load{} // nothing is measured; what needs no measuring goes on
	}
	var failed error
	for endpoint, course := range c.active {
		if err := c.advance(ctx, course, load); err != nil {
			failed = errors.Join(failed, err)
			// The record may have changed below it: begin with what is stored.
			c.forget(endpoint)
		}
		if course.rollout.State.Over() {
			c.forget(endpoint)
		}
	}
	return failed
}

// forget lets an endpoint be read anew.
func (c *Controller) forget(endpoint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, endpoint)
	c.pending[endpoint] = true
}

// find reads the rollouts of the endpoints that something was told of, of all when asked to.
func (c *Controller) find(ctx context.Context, all bool) error {
	c.mu.Lock()
	pending := c.pending
	c.pending = map[string]bool{}
	c.mu.Unlock()
	list, err := c.newest(ctx, pending, all)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		maps.Copy(c.pending, pending)
		return err
	}
	for _, r := range list {
		was := c.active[r.Endpoint]
		switch {
		case r.State.Over():
			if _, seen := c.last[r.Endpoint]; seen {
				c.last[r.Endpoint] = r
			}
			delete(c.active, r.Endpoint)
		case was == nil || was.stored.Version != r.Version || was.stored.ID != r.ID:
			c.active[r.Endpoint] = &course{rollout: r, stored: r, saved: c.o.Now()}
			c.last[r.Endpoint] = r
		}
	}
	return nil
}

// newest reads the newest rollout of each endpoint: only that can be under way.
func (c *Controller) newest(ctx context.Context, pending map[string]bool, all bool) ([]zarpa.Rollout, error) {
	rollouts := c.o.Store.Nouns().Rollouts
	if all {
		list, err := rollouts.List(ctx, "", 0)
		seen := map[string]bool{}
		var newest []zarpa.Rollout
		for _, r := range list { // newest first
			if !seen[r.Endpoint] {
				newest = append(newest, r)
			}
			seen[r.Endpoint] = true
		}
		return newest, err
	}
	var newest []zarpa.Rollout
	for endpoint := range pending {
		list, err := rollouts.List(ctx, endpoint, 1)
		if err != nil {
			return nil, err
		}
		newest = append(newest, list...)
	}
	return newest, nil
}

// advance takes one rollout one step further: it looks, decides, acts, and stores.
func (c *Controller) advance(ctx context.Context, k *course, load zarpa.Load) error {
	w, err := c.look(ctx, k, load)
	if err != nil {
		return err
	}
	next, do := decide(k.rollout, w)
	if len(next.Judgements) > len(k.rollout.Judgements) {
		c.mu.Lock()
		c.judged[Verdicts{next.Endpoint, next.Judgements[len(next.Judgements)-1].Passed}]++
		c.mu.Unlock()
	}
	if next.State != zarpa.RolloutRunning || next.StepStarted.IsZero() {
		k.before = nil
	}
	moved := next.State != k.rollout.State || next.Step != k.rollout.Step
	if moved {
		k.lost = time.Time{}
	}
	goesBack := next.State == zarpa.RolloutRollingBack && k.rollout.State != next.State
	k.rollout = next
	// What is about to be done is stored before: a crash in between does it again.
	saved, err := c.save(ctx, k, moved || do.shares != nil || next.State.Over())
	switch {
	case err != nil || !saved:
		return err
	case goesBack: // callers meet the failures until the shares are back: no round is waited for
		return c.advance(ctx, k, load)
	case do.shares == nil:
		return nil
	}
	err = c.o.SetWeights(ctx, Weights{Endpoint: next.Endpoint, Shares: do.shares, Who: "rollout " + next.ID, Urgent: do.urgent})
	if err != nil && ctx.Err() == nil {
		c.hindered(k, zarpa.AsError(err))
	}
	return nil
}

// hindered notes why the weights could not be changed. It is tried again, unless it can never be.
func (c *Controller) hindered(k *course, e *zarpa.Error) {
	if k.rollout.State != zarpa.RolloutRunning { // the reason why it goes back stays
		if k.told != e.Message {
			c.o.Log.Error("roll back", "endpoint", k.rollout.Endpoint, "rollout", k.rollout.ID, "error", e.Message)
		}
		k.told = e.Message
		return
	}
	k.rollout.Reason = hindrance + e.Message
	if e.Code == zarpa.Invalid {
		k.rollout.State = zarpa.RolloutPaused
	}
}

// save stores what changed, at once or now and then. It reports false when somebody steered the rollout
// meanwhile: what was not stored is measured again.
func (c *Controller) save(ctx context.Context, k *course, now bool) (bool, error) {
	c.mu.Lock()
	c.last[k.rollout.Endpoint] = k.rollout
	c.mu.Unlock()
	hurry := now || k.rollout.Reason != k.stored.Reason || !k.rollout.StepStarted.Equal(k.stored.StepStarted)
	same := k.rollout.State == k.stored.State && k.rollout.Measured == k.stored.Measured && k.rollout.To.Requests == k.stored.To.Requests &&
		k.rollout.Step == k.stored.Step && len(k.rollout.Judgements) == len(k.stored.Judgements)
	if same && !hurry || !hurry && c.o.Now().Sub(k.saved) < saveEvery {
		return true, nil
	}
	if err := c.o.Store.Nouns().Rollouts.Update(ctx, k.rollout); err != nil {
		if zarpa.AsError(err).Code == zarpa.Conflict {
			c.forget(k.rollout.Endpoint)
			return false, nil
		}
		return false, err
	}
	k.rollout.Version++
	k.stored, k.saved = k.rollout, c.o.Now()
	return true, nil
}
