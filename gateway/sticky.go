package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// sticky says what a caller is told by, so that it stays with one deployment; the zero value chooses
// for each request anew.
type sticky struct {
	key    bool
	header string // in its canonical form
}

func newSticky(setting string) sticky {
	name, header := strings.CutPrefix(setting, zarpa.StickyHeader)
	switch {
	case setting == zarpa.StickyKey:
		return sticky{key: true}
	case header:
		return sticky{header: http.CanonicalHeaderKey(name)}
	}
	return sticky{}
}

// spot is where a caller stands: two independent numbers in [0, 1), the same at every gateway and
// after every restart. The zero value is nobody's.
type spot struct {
	known         bool
	first, second float64
}

// spotOf is the caller's spot at an endpoint, by what tells it; that of an empty text is nobody's.
func spotOf(endpoint, text string) spot {
	if text == "" {
		return spot{}
	}
	sum := sha256.Sum256([]byte(endpoint + "\x00" + text))
	unit := func(b []byte) float64 { return float64(binary.BigEndian.Uint64(b)>>11) / (1 << 53) }
	return spot{true, unit(sum[:8]), unit(sum[8:16])}
}

// spot is that of a request; get reads a header field. Callers of an open endpoint have no key.
func (ru *rule) spot(who identity, get func(name string) string) spot {
	switch {
	case ru.sticky.key && !ru.open:
		return spotOf(ru.name, string(who[:]))
	case ru.sticky.header != "":
		return spotOf(ru.name, get(ru.sticky.header))
	}
	return spot{}
}

// pick is the deployment at a share of the weights, in [0, 1), of those that ok accepts, or nil when
// they have no weight. The shares lie beside each other in the order of the list, which is that of the
// names: when weights change, only the callers between an old bound and the new one move.
func pick(list []*deployment, share float64, ok func(*deployment) bool) (last *deployment) {
	total := 0
	for _, d := range list {
		if ok(d) {
			total += d.weight
		}
	}
	at := share * float64(total)
	for _, d := range list {
		if d.weight == 0 || !ok(d) {
			continue
		}
		last = d
		if at -= float64(d.weight); at < 0 {
			break
		}
	}
	return last
}

func anyOf(*deployment) bool { return true }

// able reports whether a deployment serves what it is given: it has a replica, or gets its first one
// by the request.
func able(d *deployment) bool { return d.usable > 0 || d.hold > 0 }
