package score

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const zoo = "../engine/enginetest/testdata"

// question makes the body of a random request of so many rows.
type question func(r *rand.Rand, rows int) string

// rowsOf makes {"data": …} of rows that one function makes.
func rowsOf(row func(r *rand.Rand) string) question {
	return func(r *rand.Rand, rows int) string {
		all := make([]string, rows)
		for i := range all {
			all[i] = row(r)
		}
		return `{"data":[` + strings.Join(all, ",") + `]}`
	}
}

func numbers(n int) func(r *rand.Rand) string {
	return func(r *rand.Rand) string {
		all := make([]string, n)
		for i := range all {
			all[i] = strconv.Itoa(r.IntN(1000))
		}
		return "[" + strings.Join(all, ",") + "]"
	}
}

// slowed is a model whose runs take long enough for others to come.
type slowed struct{ zarpa.Session }

func (s slowed) Run(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
	timer := time.NewTimer(time.Duration(len(in[0].Shape)) * 100 * time.Microsecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return s.Session.Run(ctx, in, wanted)
}

// TestBatchingDoesNotChangeAnswers compares answers with those of requests run one by one, byte for
// byte, while clients come at random, leave, and have little time.
func TestBatchingDoesNotChangeAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dir, file string
		ask       question
		shared    bool // requests do share runs
	}{
		{zoo, "batch_double.onnx", rowsOf(numbers(2)), true},
		{zoo, "dynamic_named.onnx", func(r *rand.Rand, rows int) string {
			return rowsOf(numbers(1+r.IntN(2)*2))(rand.New(rand.NewPCG(r.Uint64(), 1)), 1)
		}, true},
		{zoo, "unnamed_dim.onnx", rowsOf(numbers(2)), true},
		{zoo, "add.onnx", rowsOf(func(r *rand.Rand) string { return fmt.Sprintf(`{"a":%s,"b":%s}`, numbers(2)(r), numbers(2)(r)) }), true},
		{zoo, "mixed.onnx", rowsOf(func(r *rand.Rand) string {
			return fmt.Sprintf(`{"age":%d,"city":%q,"n":%d}`, r.IntN(90), []string{"lisboa", "sevilla", ""}[r.IntN(3)], r.IntN(9))
		}), true},
		{zoo, "zipmap_string.onnx", rowsOf(numbers(3)), true},
		{"../examples/iris", "iris.onnx", func(r *rand.Rand, rows int) string { // its probabilities depend on the lanes of the processor
			return strings.TrimSuffix(rowsOf(numbers(4))(r, rows), "}") + `,"outputs":["label"]}`
		}, true},
		{zoo, "poison_row.onnx", rowsOf(func(r *rand.Rand) string { // one in twenty is out of the table
			if r.IntN(20) == 0 {
				return "7"
			}
			return strconv.Itoa(r.IntN(4))
		}), true},
		{zoo, "batch_sum.onnx", rowsOf(numbers(2)), false},
		{zoo, "fixed_batch.onnx", func(r *rand.Rand, _ int) string { return rowsOf(numbers(2))(r, 1) }, false},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			session := slowed{loadONNX(t, c.dir, c.file)}
			alone := newServer(t, session, Options{}).Handler()
			srv := newServer(t, session, Options{MaxBatchRows: 8, MaxBatchDelay: 2 * time.Millisecond, BatchRuns: 1 + len(c.file)%2, QueueLimit: 100})
			if (theBatcher(srv) != nil) != c.shared {
				t.Fatalf("requests share runs: %v", !c.shared)
			}
			h := srv.Handler()
			var wg sync.WaitGroup
			for g := range 16 {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(uint64(g), 5))
					for range 40 {
						body := c.ask(r, 1+r.IntN(1+r.IntN(10)))
						compare(t, r, h, exchange{body, score(alone, body)})
					}
				})
			}
			wg.Wait()
			stats := srv.entries[0].stats.read()
			if c.shared && stats.executions >= stats.success.count+stats.fail.count {
				t.Errorf("%d runs for %d answers: none shared", stats.executions, stats.success.count)
			}
			if c.shared {
				nothingIsLeft(t, srv)
			}
		})
	}
}

// exchange is a request and its answer from a server that has nothing else to do.
type exchange struct {
	body string
	want *httptest.ResponseRecorder
}

// compare asks, and at random leaves or has little time.
func compare(t *testing.T, r *rand.Rand, h http.Handler, alone exchange) {
	body, want := alone.body, alone.want
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req := httptest.NewRequest(http.MethodPost, "/score", strings.NewReader(body))
	may := want.Code
	switch r.IntN(10) {
	case 0:
		may = 499
		timer := time.AfterFunc(time.Duration(r.IntN(1000))*time.Microsecond, cancel)
		defer timer.Stop()
	case 1:
		may = http.StatusGatewayTimeout
		req.Header.Set("Zarpa-Timeout-Ms", strconv.Itoa(1+r.IntN(3)))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req.WithContext(ctx))
	if w.Code != want.Code && w.Code != may || w.Code == 200 && w.Body.String() != want.Body.String() {
		t.Errorf("%s\n%d %s, alone %d %s", body, w.Code, w.Body, want.Code, want.Body)
	}
}
