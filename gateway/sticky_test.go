package gateway

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// For any weights, callers are spread in their proportion, and a shift of weight from one deployment to
// its neighbour moves only callers of the one, only to the other, and only that share.
func TestSpotsKeepTheirProportions(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that can be repeated
	const callers = 20_000
	spots := make([]spot, callers)
	for i := range spots {
		spots[i] = spotOf("iris", fmt.Sprint("caller-", i))
	}
	for range 30 {
		var list []*deployment
		left := 100
		for i := range 1 + random.IntN(5) {
			w := random.IntN(left + 1)
			left -= w
			list = append(list, &deployment{name: strconv.Itoa(i), weight: w})
		}
		list = append(list, &deployment{name: "last", weight: left})
		before := make([]*deployment, callers)
		got := map[*deployment]int{}
		for i, s := range spots {
			before[i] = pick(list, s.first, anyOf)
			got[before[i]]++
		}
		for _, d := range list {
			if share := 100 * float64(got[d]) / callers; math.Abs(share-float64(d.weight)) > 1.5 || d.weight == 0 && share > 0 {
				t.Errorf("weights %v: %s has %.1f %%", weights(list), d.name, share)
			}
		}
		from := random.IntN(len(list) - 1)
		shift := random.IntN(list[from].weight + 1)
		list[from].weight -= shift
		list[from+1].weight += shift
		moved := 0
		for i, s := range spots {
			switch now := pick(list, s.first, anyOf); {
			case now == before[i]:
			case before[i] == list[from] && now == list[from+1]:
				moved++
			default:
				t.Fatalf("a caller moved from %s to %s", before[i].name, now.name)
			}
		}
		if share := 100 * float64(moved) / callers; math.Abs(share-float64(shift)) > 1.5 {
			t.Errorf("%.1f %% moved, want %d", share, shift)
		}
	}
	if pick(nil, .5, anyOf) != nil || pick([]*deployment{{weight: 0}}, 0, anyOf) != nil {
		t.Error("something was picked of nothing")
	}
	if spotOf("iris", "").known || spotOf("iris", "a") == spotOf("rose", "a") {
		t.Error("spots of nobody, or of two endpoints, are alike")
	}
}

func weights(list []*deployment) (out []int) {
	for _, d := range list {
		out = append(out, d.weight)
	}
	return out
}
