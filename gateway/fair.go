package gateway

import (
	"net/http"
	"sync/atomic"

	"github.com/zarpa-dev/zarpa"
)

// DefaultMaxRequests is how many requests a gateway has at a time, from the check of their key to the
// end of their answer. Each costs 10 to 80 KiB, mostly for its body: about 1 GiB at the most.
const DefaultMaxRequests = 16384

// crowd bounds the requests of all endpoints together. While there is room everybody gets in. When it
// is full, an endpoint that has its fair share of the places, an equal part for every endpoint that
// has requests, gets no more, while others are let in above the bound: one endpoint's overload is
// refused to itself. In all there are never more than twice as many as the bound.
type crowd struct {
	max    int64
	total  atomic.Int64
	active atomic.Int64 // endpoints with requests
	// unnamed are the gRPC calls whose first message, which names their endpoint, is on its way.
	unnamed share
}

// share is the part of one endpoint.
type share struct{ requests atomic.Int64 }

// enter lets a request in, or refuses it; who was let in leaves once.
func (c *crowd) enter(s *share) bool {
	own := s.requests.Add(1)
	if own == 1 {
		c.active.Add(1)
	}
	total := c.total.Add(1)
	if total <= c.max || own <= max(1, c.max/max(1, c.active.Load())) {
		return true
	}
	c.leave(s)
	return false
}

func (c *crowd) leave(s *share) {
	c.total.Add(-1)
	if s.requests.Add(-1) == 0 {
		c.active.Add(-1)
	}
}

// enter holds a request against all bounds that need no look at its body: the gateway's, its key's
// and its queue's. What was counted is given back with leave.
func (ex *exchange) enter() *zarpa.Error {
	p := ex.rule.pool
	p.budget.count(ex.start)
	if !ex.g.crowd.enter(&p.share) {
		p.countRejected(ex.pinned())
		return p.reject("gateway_full", ex.g.full(p.endpoint))
	}
	ex.place = &p.share
	who := ex.who
	if ex.rule.open && ex.rule.limits != nil {
		who = address(ex.r.RemoteAddr)
	}
	allowance, err := ex.rule.limit(who, ex.start)
	if err != nil {
		ex.refuse(http.StatusTooManyRequests, err) // in every mapping: that of another caller would be served
		return nil
	}
	ex.allowance = allowance
	return p.crowded(ex.pinned())
}

// leave gives back what enter counted.
func (ex *exchange) leave() {
	ex.allowance.giveBack()
	if ex.place != nil {
		ex.g.crowd.leave(ex.place)
	}
	ex.allowance, ex.place = nil, nil
}

// enter is that of a gRPC call, when its endpoint is known.
func (c *call) enter() error {
	p := c.rule.pool
	p.budget.count(c.start)
	if !c.g.crowd.enter(&p.share) {
		p.countRejected(c.pinned())
		return p.reject("gateway_full", c.g.full(p.endpoint))
	}
	c.leave() // the place of a call without a name
	c.place = &p.share
	who := c.who
	if c.rule.open && c.rule.limits != nil {
		who = address(c.remote())
	}
	allowance, err := c.rule.limit(who, c.start)
	if err != nil {
		return limited{err}
	}
	c.allowance = allowance
	if err := p.crowded(c.pinned()); err != nil {
		return err
	}
	return nil
}

// enterUnnamed is for a call whose endpoint is not known yet.
func (c *call) enterUnnamed() error {
	if !c.g.crowd.enter(&c.g.crowd.unnamed) {
		return c.g.full("")
	}
	c.place = &c.g.crowd.unnamed
	return nil
}

func (c *call) leave() {
	c.allowance.giveBack()
	if c.place != nil {
		c.g.crowd.leave(c.place)
	}
	c.allowance, c.place = nil, nil
}

// full refuses a request of an endpoint that has its share.
func (g *Gateway) full(endpoint string) *zarpa.Error {
	err := zarpa.Errorf(zarpa.Overloaded, "the gateway has as many requests as it may, and endpoint %s its share of them (overloaded)", endpoint)
	if endpoint == "" {
		err = zarpa.Errorf(zarpa.Overloaded, "the gateway has as many requests as it may (overloaded)").WithHint("name the endpoint in the metadata %s", metaEndpoint)
	}
	err.RetryAfter = jittered(minRetryAfter)
	return err
}
