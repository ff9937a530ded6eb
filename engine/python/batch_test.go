package python_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/python"
)

const batching = `
import json, os, time
sizes = []
def init(): pass
def run(raw):
    raise ValueError("run() of a script with run_batch()")
def run_batch(raws):
    print("together", len(raws))
    sizes.append(len(raws))
    if "sizes" in raws:
        return [sizes for _ in raws]
    if "die" in raws:
        os._exit(9)
    if "hang" in raws:
        try:
            time.sleep(100)
        except TimeoutError:
            pass
    time.sleep(0.02)
    return ["answer to " + r for r in raws]
`

func TestRequestsThatWaitAreAnsweredTogether(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	s := open(t, python.Options{Workers: 1, MaxBatch: 4, Log: rec.log()}, batching)
	var all sync.WaitGroup
	for n := range 41 {
		all.Go(func() { answers(t, s, strconv.Itoa(n), fmt.Sprintf(`"answer to %d"`, n)) })
	}
	all.Wait()
	runs, largest := 0, 0
	for _, e := range rec.lines() {
		var size int
		if _, err := fmt.Sscanf(e.message, "together %d", &size); err != nil {
			t.Fatal(err)
		}
		runs++
		largest = max(largest, size)
		if ids := strings.Split(e.attrs["request_id"], ","); len(ids) != size {
			t.Errorf("%q has the ids %q", e.message, ids)
		}
	}
	if largest != 4 || runs > 20 {
		t.Errorf("41 requests took %d runs, the largest of %d", runs, largest)
	}
}

func TestABatchWaitsForMoreNoLongerThanSaid(t *testing.T) {
	t.Parallel()
	s := open(t, python.Options{Workers: 1, MaxBatch: 2, MaxBatchDelay: time.Hour}, batching)
	var all sync.WaitGroup
	for n := range 10 {
		all.Go(func() { answers(t, s, strconv.Itoa(n), fmt.Sprintf(`"answer to %d"`, n)) })
	}
	all.Wait()
	all.Go(func() { answers(t, s, "sizes", "[2, 2, 2, 2, 2, 2]") })
	answers(t, s, "sizes", "[2, 2, 2, 2, 2, 2]")
	all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := call(ctx, s, "alone"); zarpa.AsError(err).Code != zarpa.Timeout {
		t.Errorf("%v", err)
	}
	s = open(t, python.Options{Workers: 1, MaxBatch: 2, MaxBatchDelay: time.Millisecond}, batching)
	answers(t, s, "alone", `"answer to alone"`)
}

func TestARequestLeavesItsBatchAlone(t *testing.T) {
	t.Parallel()
	s := open(t, python.Options{Workers: 1, MaxBatch: 4, MaxBatchDelay: 100 * time.Millisecond, Grace: 5 * time.Second}, batching)
	var all sync.WaitGroup
	all.Go(func() { // it leaves while the batch gathers
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := call(ctx, s, "early"); zarpa.AsError(err).Code != zarpa.Timeout {
			t.Errorf("%v", err)
		}
	})
	answers(t, s, "patient", `"answer to patient"`)
	all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := call(ctx, s, "hang"); zarpa.AsError(err).Code != zarpa.Timeout { // all have left: it is interrupted
		t.Errorf("%v", err)
	}
	answers(t, s, "next", `"answer to next"`)
	_, err := call(t.Context(), s, "die")
	if e := zarpa.AsError(err); err == nil || e.Code != zarpa.ModelError || !strings.Contains(e.Message, "status 9") {
		t.Errorf("%v", err)
	}
	answers(t, s, "next", `"answer to next"`)
}
