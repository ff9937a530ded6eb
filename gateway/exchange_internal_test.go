package gateway

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// A replica is not kept from requests because one of them had no time left to connect.
func TestARequestWithoutTimeLeftBenchesNobody(t *testing.T) {
	t.Parallel()
	p := pooled(ejecting(1, nil))
	ex := &exchange{
		g: New(Options{}), r: httptest.NewRequest(http.MethodPost, "/", nil), rule: &rule{pool: p, timeout: time.Second},
		replica: p.deployments[0].take(), deadline: time.Now(),
	}
	out, err := ex.try(true)
	if out != answered || zarpa.AsError(err).Code != zarpa.Timeout {
		t.Errorf("outcome %v, %v", out, err)
	}
}

// limitedWriter notes the deadline of an answer.
type limitedWriter struct {
	http.ResponseWriter
	until time.Time
}

func (w *limitedWriter) SetWriteDeadline(t time.Time) error {
	w.until = t
	return nil
}

func TestATimeLimitLetsASmallAnswerEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		phase phase
		cause cause
		later bool // the writing may go on for a moment
	}{
		"a small answer":                  {finishing, timedOut, true},
		"a small answer, the client left": {finishing, left, false},
		"a large answer":                  {writing, timedOut, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &limitedWriter{}
			ex := &exchange{w: w}
			if err := ex.beginAnswer(c.phase); err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			ex.breakOff(c.cause)
			if got := w.until.After(now); got != c.later || w.until.IsZero() {
				t.Errorf("until %v", w.until)
			}
			ex.endAnswer(nil)
			if c.cause == timedOut && !w.until.IsZero() {
				t.Error("the next request on the connection has a deadline")
			}
		})
	}
}
