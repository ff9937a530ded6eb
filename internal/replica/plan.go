package replica

import (
	"cmp"
	"slices"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// view is what planning needs to know of a replica.
type view struct {
	ordinal  int
	current  bool // of the wanted revision
	phase    zarpa.ReplicaPhase
	stopping bool // it was told to end: it counts for nothing any more
	exposed  bool // the last Observe called it ready, so that requests may be on their way to it
}

// plan is what follows from the views; it holds their indexes.
type plan struct {
	// surplus are too many or of another revision. They leave once enough is true.
	surplus []int
	// stop are those of the surplus that may be stopped now: nothing is routed to them.
	stop []int
	// start is how many replicas are missing.
	start int
	// enough tells that as many replicas as wanted are ready.
	enough bool
}

// standing orders phases by how much would be lost with the replica.
var standing = []zarpa.ReplicaPhase{
	zarpa.ReplicaReady, zarpa.ReplicaUnready, zarpa.ReplicaLoading, zarpa.ReplicaStarting, zarpa.ReplicaBackoff,
}

func decide(want int, views []view) plan {
	var p plan
	var current []int
	ready := 0
	for i, v := range views {
		switch {
		case v.stopping:
		case !v.current:
			p.surplus = append(p.surplus, i)
		default:
			current = append(current, i)
			if v.phase == zarpa.ReplicaReady {
				ready++
			}
		}
	}
	slices.SortFunc(current, func(a, b int) int {
		byStanding := cmp.Compare(slices.Index(standing, views[a].phase), slices.Index(standing, views[b].phase))
		return cmp.Or(byStanding, cmp.Compare(views[a].ordinal, views[b].ordinal))
	})
	if len(current) > want {
		p.surplus = append(p.surplus, current[want:]...)
		current = current[:want]
	}
	p.start = want - len(current)
	p.enough = ready >= want
	for _, i := range p.surplus {
		serving := views[i].phase == zarpa.ReplicaReady || views[i].phase == zarpa.ReplicaUnready
		if !views[i].exposed && (p.enough || !serving) {
			p.stop = append(p.stop, i)
		}
	}
	return p
}

// Backoff is the delay before a replica that died is started again.
type Backoff struct {
	// First is the delay after one death; every further one doubles it, up to Max.
	First, Max time.Duration
	// Reset is how long a run must have been ready for its death to count as the first.
	Reset time.Duration
}

// delay is the delay after a number of deaths in a row.
func (b Backoff) delay(deaths int) time.Duration {
	d := b.First
	for range deaths - 1 {
		if d >= b.Max {
			break
		}
		d *= 2
	}
	return min(d, b.Max)
}
