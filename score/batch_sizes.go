package score

import (
	"math/bits"
	"time"
)

// sizes knows what a row costs in runs of different sizes, and so how many rows a run should have
// at most. More rows are not always cheaper: their values may no longer fit into the processor's
// cache. Sizes count by powers of two: those above 8 and up to 16 are alike.
type sizes struct {
	kinds [maxKind + 1]sizeCost
	runs  int
	trial bool // one run may be of the next larger size
}

type sizeCost struct {
	n      int
	perRow float64 // seconds, of the quicker ones of the last runs
}

const (
	maxKind = 14 // 16384 rows
	// enough is how many runs of a size are seen before it is judged.
	enough = 4
	// worse is how many times the best cost of a row a size may have: measurements differ by less on
	// a machine that does other work, too.
	worse = 1.15
	// retry is after how many runs one of the next larger size is tried again.
	retry = 100
	// A run that was quicker than thought counts for more than one that was slower: what slowed it
	// down was most often not its size. jump is how many times the cost known a run counts for at most.
	quicker = 1.0 / 2
	slower  = 1.0 / 16
	jump    = 1.5
)

func kindOf(rows int64) int { return min(bits.Len64(uint64(max(rows, 1)-1)), maxKind) }

func (s *sizes) add(rows int64, took time.Duration) {
	if rows <= 0 {
		return
	}
	kind := kindOf(rows)
	k := &s.kinds[kind]
	if kind > s.good(kind) {
		s.trial = false
	}
	cost := took.Seconds() / float64(rows)
	k.n++
	switch {
	case k.n == 1:
		k.perRow = cost
	case cost < k.perRow:
		k.perRow += quicker * (cost - k.perRow)
	default:
		k.perRow += slower * (min(cost, k.perRow*jump) - k.perRow)
	}
	if s.runs++; s.runs%retry == 0 {
		s.trial = true
	}
}

// limit is how many rows a run should have, of at most so many.
func (s *sizes) limit(most int64) int64 {
	kind := s.good(kindOf(most))
	if s.trial {
		kind++
	}
	return min(most, 1<<kind)
}

// good is the largest size up to top that costs little more than the best, or is not known.
func (s *sizes) good(top int) int {
	best := 0.0
	for _, k := range s.kinds[:top+1] {
		if k.n >= enough && (best == 0 || k.perRow < best) {
			best = k.perRow
		}
	}
	for kind := top; kind > 0; kind-- {
		if k := s.kinds[kind]; k.n < enough || k.perRow <= worse*best {
			return kind
		}
	}
	return 0
}
