package gateway

import (
	"crypto/sha256"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// callerParts and maxCallers bound what an endpoint remembers of its callers: each part keeps so many,
// and forgets one that is idle for a new one. Parts have locks of their own, so that callers seldom
// meet at one.
const (
	callerParts = 16
	maxCallers  = 1024
	// lookedAt is how many callers of a full part are looked at for one that may be forgotten.
	lookedAt = 8
	// longestIdle is after how long any caller may be forgotten, whatever of its burst it has used.
	longestIdle = 24 * time.Hour
)

// callers count what each caller of one endpoint does, for [zarpa.KeyLimits]. They outlive snapshots:
// new limits hold for what was counted before.
type callers struct {
	parts [callerParts]callerPart
}

type callerPart struct {
	mu    sync.Mutex
	known map[identity]*allowance
}

// allowance is one caller's. All is guarded by its part's mu.
type allowance struct {
	part *callerPart
	// left are the requests that may come at once, as of the time at.
	left    float64
	at      time.Time
	running int
}

// take counts a request in, or refuses it: overloaded, with the limit named and the time after which
// it is worth trying again. The caller gives the allowance back at the request's end.
func (c *callers) take(who identity, l zarpa.KeyLimits, now time.Time) (*allowance, *zarpa.Error) {
	burst := float64(l.Burst)
	if burst == 0 {
		burst = max(1, math.Ceil(l.Rate))
	}
	part := &c.parts[who[0]%callerParts]
	part.mu.Lock()
	defer part.mu.Unlock()
	a := part.known[who]
	if a == nil {
		idle := time.Duration(0)
		if l.Rate > 0 {
			idle = time.Duration(min(burst/l.Rate, longestIdle.Seconds()) * float64(time.Second))
		}
		part.makeRoom(now, idle)
		a = &allowance{part: part, left: burst, at: now}
		part.known[who] = a
	}
	if since := now.Sub(a.at); since > 0 { // requests may come here in another order than they arrived in
		a.left, a.at = min(burst, a.left+since.Seconds()*l.Rate), now
	}
	a.left = min(burst, a.left)
	switch {
	case l.Concurrent > 0 && a.running >= l.Concurrent:
		err := zarpa.Errorf(zarpa.Overloaded, "more than %d requests of one caller at a time (limits.concurrent)", l.Concurrent).
			WithHint("wait for the answers of those under way")
		err.RetryAfter = jittered(time.Second)
		return nil, err
	case l.Rate > 0 && a.left < 1:
		err := zarpa.Errorf(zarpa.Overloaded, "more than %v requests per second of one caller (limits.rate, with a burst of %v)", l.Rate, burst).
			WithHint("send fewer, or ask for a higher limit")
		err.RetryAfter = time.Duration(min(float64(maxRetryAfter), (1-a.left)/l.Rate*float64(time.Second)))
		return nil, err
	}
	if l.Rate > 0 {
		a.left--
	}
	a.running++
	return a, nil
}

// makeRoom forgets a caller when there are too many: among a few one without requests, and the one
// seen longest ago. Those with requests under way stay, whatever their number: the gateway bounds
// its requests. idle is how long it takes until a caller is as good as new.
func (p *callerPart) makeRoom(now time.Time, idle time.Duration) {
	if p.known == nil {
		p.known = map[identity]*allowance{}
	}
	if len(p.known) < maxCallers {
		return
	}
	var oldest identity
	var seen time.Time
	looked := 0
	for who, a := range p.known { // in no order
		if looked++; looked > lookedAt {
			break
		}
		switch {
		case a.running > 0:
		case now.Sub(a.at) > idle:
			delete(p.known, who)
		case seen.IsZero() || a.at.Before(seen):
			oldest, seen = who, a.at
		}
	}
	if len(p.known) >= maxCallers && !seen.IsZero() {
		delete(p.known, oldest)
	}
}

// giveBack ends a request; nil is one that no limit counted.
func (a *allowance) giveBack() {
	if a == nil {
		return
	}
	a.part.mu.Lock()
	a.running--
	a.part.mu.Unlock()
}

// ipv6Net is the part of an IPv6 address that counts: who has one address has all of its network.
const ipv6Net = 64

// address is the identity of a caller without credentials. What a client says of addresses is not
// believed: behind a proxy all are one.
func address(remote string) identity {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap().WithZone(""); ip.Is6() {
			net, _ := ip.Prefix(ipv6Net)
			ip = net.Addr()
		}
		host = ip.String()
	}
	return identity(sha256.Sum256([]byte("address " + host)))
}

// limit holds a request against the limits of its caller, before anything of its body is read. The
// allowance is nil where there are none.
func (ru *rule) limit(who identity, now time.Time) (*allowance, *zarpa.Error) {
	if ru.limits == nil {
		return nil, nil
	}
	a, err := ru.pool.callers.take(who, *ru.limits, now)
	if err != nil {
		return nil, ru.pool.reject("key_limit", err)
	}
	return a, nil
}
