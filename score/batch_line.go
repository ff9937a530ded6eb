package score

import (
	"slices"
	"time"
)

// line is where the requests of one model wait, and what of them runs. It reads no clock and
// starts nothing: the [batcher] does, and the tests under a clock of their own.
type line struct {
	maxRows     int64
	runs        int // how many runs go on at a time
	concurrency int // how many requests can be inside at a time
	pace        pace
	sizes       sizes
	groups      []*group // never empty ones
	waiting     int      // requests in groups
	inside      int      // requests that wait or run
	running     int      // runs
	closing     bool     // nobody else comes: nothing is waited for
}

// group are the requests that wait and may share a run, oldest first.
type group struct {
	key      string // of those who share; empty for those who run alone
	members  []*member
	rows     int64
	deadline time.Time // the earliest of those of the members, or of some that have left
	since    time.Time // when it was first told to wait, though a run could begin; zero for never
}

// alone is the key of requests that share no run.
const alone = ""

// stage is how far a request is.
type stage int

const (
	stageWaiting stage = iota
	stageTaken         // its batch was told to begin
	stageOut           // its caller waits no more
)

// member is one request in the line.
type member struct {
	key      string
	rows     int64
	came     time.Time
	deadline time.Time       // zero for none
	done     <-chan struct{} // closed when its caller has left; nil for never
	call     *call
	slots    []int        // for each input of the signature its place in call.inputs, or -1
	turn     chan outcome // of one

	stage stage
	batch *batch
}

// gone reports whether the request's caller has left, maybe without a word so far.
func (m *member) gone() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// batch are the requests of one run.
type batch struct {
	members []*member
	rows    int64
	left    int // how many of them have left since
	began   time.Time
	why     reason
	copied  chan struct{} // closed when the members' memory is read no more
	cancel  func()        // ends the run; nil for that of one member, whose context does
}

func (l *line) join(m *member, now time.Time) {
	l.pace.back.arrive(now)
	l.queue(m)
	l.inside++
}

// again makes a request, whose run has failed because of another one perhaps, wait to run alone.
func (l *line) again(m *member) {
	m.key, m.stage, m.batch = alone, stageWaiting, nil
	l.queue(m)
}

func (l *line) queue(m *member) {
	i := slices.IndexFunc(l.groups, func(g *group) bool { return g.key == m.key })
	if i < 0 {
		i = len(l.groups)
		l.groups = append(l.groups, &group{key: m.key})
	}
	g := l.groups[i]
	g.members = append(g.members, m)
	g.add(m)
	l.waiting++
}

func (g *group) add(m *member) {
	g.rows += m.rows
	if !m.deadline.IsZero() && (g.deadline.IsZero() || m.deadline.Before(g.deadline)) {
		g.deadline = m.deadline
	}
}

// leave takes a request out that waits. One that is taken stays in its batch, whose run ends when
// all have left.
func (l *line) leave(m *member) {
	switch m.stage {
	case stageOut:
		return
	case stageTaken:
		m.batch.left++
	case stageWaiting:
		for _, g := range l.groups {
			if i := slices.Index(g.members, m); i >= 0 {
				g.members = slices.Delete(g.members, i, i+1)
				g.rows -= m.rows
				l.waiting--
			}
		}
		l.tidy()
	}
	m.stage = stageOut
	l.inside--
}

// tidy drops empty groups.
func (l *line) tidy() {
	l.groups = slices.DeleteFunc(l.groups, func(g *group) bool { return len(g.members) == 0 })
}

// next takes the batch that begins now, or else tells when to ask again unless something happens
// before; a zero time is never. The groups are asked in the order of their oldest requests.
func (l *line) next(now time.Time) (*batch, time.Time) {
	var wake time.Time
	if l.running >= l.runs {
		return nil, wake
	}
	var chosen *group
	var why reason
	for _, g := range l.groups {
		r, until := l.decide(g, now)
		switch {
		case r == keepWaiting:
			if g.since.IsZero() {
				g.since = now
			}
			if wake.IsZero() || until.Before(wake) {
				wake = until
			}
		case chosen == nil || g.members[0].came.Before(chosen.members[0].came):
			chosen, why = g, r
		}
	}
	if chosen == nil {
		return nil, wake
	}
	b := l.take(chosen)
	b.began, b.why = now, why
	return b, time.Time{}
}

func (l *line) decide(g *group, now time.Time) (reason, time.Time) {
	switch {
	case g.key == alone:
		return reasonAlone, now
	case l.closing:
		return reasonIdle, now
	}
	return l.pace.decide(gathering{
		requests: len(g.members), rows: g.rows, since: g.since, deadline: g.deadline,
		full: g.rows >= l.sizes.limit(l.maxRows) || l.inside >= l.concurrency,
	}, now)
}

// take makes a batch of the oldest requests of a group, as many as fit; of none when the callers
// of all have left.
func (l *line) take(g *group) *batch {
	b := &batch{}
	n, limit := 0, l.sizes.limit(l.maxRows)
	for _, m := range g.members {
		if len(b.members) > 0 && (g.key == alone || b.rows+m.rows > limit) {
			break
		}
		n++
		l.waiting--
		if m.gone() {
			m.stage = stageOut
			l.inside--
			continue
		}
		m.stage, m.batch = stageTaken, b
		b.members = append(b.members, m)
		b.rows += m.rows
	}
	g.members = slices.Delete(g.members, 0, n)
	g.rows, g.deadline, g.since = 0, time.Time{}, time.Time{}
	for _, m := range g.members {
		g.add(m)
	}
	l.tidy()
	if len(b.members) > 0 {
		l.running++
	}
	return b
}

// ended notes that a batch's run is over, and how long it took; a duration of 0 is that of no run
// that tells something.
func (l *line) ended(b *batch, took time.Duration) {
	l.running--
	if took > 0 {
		l.pace.cost.add(b.rows, took)
		l.sizes.add(b.rows, took)
	}
}

// answered notes that n requests go back to their callers.
func (l *line) answered(n int, now time.Time) {
	l.inside -= n
	l.pace.back.answer(n, now)
}

// oldest is when the request came that has waited longest; zero when none waits.
func (l *line) oldest() time.Time {
	var t time.Time
	for _, g := range l.groups {
		if came := g.members[0].came; t.IsZero() || came.Before(t) {
			t = came
		}
	}
	return t
}
