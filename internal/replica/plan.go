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
	current  bool // of the wanted revision, and not to be replaced
	phase    zarpa.ReplicaPhase
	stopping bool // it was told to end: it counts for nothing any more
	exposed  bool // the last Observe called it ready, so that requests may be on their way to it
}

// wanted is how many replicas there should be, and how an update gets there.
type wanted struct {
	replicas int
	// surge is how many more may run during an update, and missing how many fewer may be ready.
	surge, missing int
	// free is how many more the target has room for.
	free int
}

// plan is what follows from the views; it holds their indexes.
type plan struct {
	// surplus are too many or of another revision.
	surplus []int
	// leaving are those of the surplus that are to go now, ready or not.
	leaving []int
	// stop are those of them that may be stopped now: nothing is routed to them.
	stop []int
	// start is how many replicas to start.
	start int
	// short is how many more should be started, for which the target has no room and none will be made.
	short int
}

// standing orders phases by how much would be lost with the replica.
var standing = []zarpa.ReplicaPhase{
	zarpa.ReplicaReady, zarpa.ReplicaUnready, zarpa.ReplicaLoading, zarpa.ReplicaStarting, zarpa.ReplicaBackoff,
}

// decide plans the next step. As many replicas of the wanted revision are started as the surge allows
// beyond what is wanted; those before them stay until all that are wanted are ready. When the surge
// or the target's room does not allow all at once, some of those before them make room, as far as enough
// stay ready.
func decide(want wanted, views []view) plan {
	var p plan
	var current, former []int
	ready, readyBefore := 0, 0
	for i, v := range views {
		switch {
		case v.stopping:
		case !v.current:
			former = append(former, i)
			if v.phase == zarpa.ReplicaReady {
				readyBefore++
			}
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
	p.surplus = former
	if len(current) > want.replicas {
		p.surplus = append(p.surplus, current[want.replicas:]...)
		current = current[:want.replicas]
	}
	serving := slices.DeleteFunc(slices.Clone(former), func(i int) bool { return !serves(views[i]) })
	absent := want.replicas - len(current)
	start := max(0, min(absent, want.replicas+want.surge-len(current)-len(serving)))
	p.start = min(start, max(0, want.free+ending(views, p.surplus)))
	if len(serving) == 0 || len(current)+p.start+len(serving) <= want.replicas-want.missing {
		p.short = start - p.start
	}
	room := roomFor{places: absent - p.start, spare: ready + readyBefore - (want.replicas - want.missing)}
	leaves := room.made(views, serving)
	for _, i := range p.surplus {
		goes := ready >= want.replicas || slices.Contains(leaves, i)
		if goes {
			p.leaving = append(p.leaving, i)
		}
		if !views[i].exposed && (goes || !serves(views[i])) {
			p.stop = append(p.stop, i)
		}
	}
	return p
}

// ending counts those of the surplus that are stopped at once: they never served, or do so no more.
func ending(views []view, surplus []int) int {
	n := 0
	for _, i := range surplus {
		if !views[i].exposed && !serves(views[i]) {
			n++
		}
	}
	return n
}

func serves(v view) bool {
	return v.phase == zarpa.ReplicaReady || v.phase == zarpa.ReplicaUnready
}

// roomFor is how many places are needed for replicas that the surge does not allow, and how many ready
// ones can be spared for them.
type roomFor struct{ places, spare int }

// made chooses who makes room: those that are not ready, which are missed by nobody, then those that
// drain already, so that the choice stays the same from look to look.
func (r roomFor) made(views []view, serving []int) []int {
	rank := func(i int) int {
		switch v := views[i]; {
		case v.phase != zarpa.ReplicaReady:
			return 0
		case !v.exposed:
			return 1
		}
		return 2
	}
	order := slices.Clone(serving)
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(views[b].ordinal, views[a].ordinal))
	})
	var leaves []int
	for _, i := range order {
		if len(leaves) == max(0, r.places) {
			break
		}
		if views[i].phase == zarpa.ReplicaReady {
			if r.spare <= 0 {
				break
			}
			r.spare--
		}
		leaves = append(leaves, i)
	}
	return leaves
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

// wanted is what the deployment's last Apply asked for, where the target has room for so many more. When
// single replicas are replaced and nothing else, one more may always run, and none is missed meanwhile.
func (d *deployment) wanted(free int) wanted {
	spec, revision := d.want.Spec, d.want.Revision()
	w := wanted{replicas: spec.Replicas, free: free}
	w.surge, _ = zarpa.AmountOf(cmp.Or(spec.MaxSurge, zarpa.DefaultMaxSurge), spec.Replicas) // both are valid
	w.missing, _ = zarpa.AmountOf(cmp.Or(spec.MaxUnavailable, zarpa.DefaultMaxUnavailable), spec.Replicas)
	single := slices.ContainsFunc(d.slots, func(l *slot) bool { return l.note.Replace })
	if single && !slices.ContainsFunc(d.slots, func(l *slot) bool { return l.revision != revision && !l.stopping }) {
		w.surge, w.missing = max(1, w.surge), 0
	}
	return w
}
