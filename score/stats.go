package score

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// statistics count what a model did since the server started, in the terms of the protocol's
// statistics extension. Its methods may be called from many goroutines.
type statistics struct {
	mu sync.Mutex // guards what follows
	counters
}

// counters are the numbers at one moment.
type counters struct {
	last       time.Time // the end of the last run
	inferences uint64    // rows that were run
	executions uint64    // runs of the model
	success    duration  // from the request to the end of its answer
	fail       duration
	queue      duration // waits for a run to begin
	input      duration // reads of requests
	infer      duration // runs, counted once for each request in them
	output     duration // writes of answers
	batches    map[int64]batchCounters
}

type duration struct {
	count uint64
	sum   time.Duration
}

// batchCounters are those of the runs of one number of rows.
type batchCounters struct{ infer duration }

func (d *duration) add(took time.Duration) {
	d.count++
	d.sum += took
}

// phases are how long the parts of one answered request took.
type phases struct {
	input, queue, infer, output, total time.Duration
}

func (s *statistics) succeeded(p phases) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.success.add(p.total)
	s.input.add(p.input)
	s.queue.add(p.queue)
	s.infer.add(p.infer)
	s.output.add(p.output)
}

func (s *statistics) failed(total time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail.add(total)
}

// ran counts one run of the model that gave an answer for so many rows.
func (s *statistics) ran(rows int64, took time.Duration, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = now
	s.executions++
	s.inferences += uint64(rows)
	if s.batches == nil {
		s.batches = map[int64]batchCounters{}
	}
	if _, known := s.batches[rows]; !known && len(s.batches) >= maxBatchSizes {
		rows = 0 // all the others
	}
	b := s.batches[rows]
	b.infer.add(took)
	s.batches[rows] = b
}

// maxBatchSizes bounds the batch sizes that are counted apart: a client chooses them.
const maxBatchSizes = 256

// read copies the numbers.
func (s *statistics) read() counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counters
	c.batches = maps.Clone(c.batches)
	return c
}

// sizes are the batch sizes in ascending order.
func (c counters) sizes() []int64 { return slices.Sorted(maps.Keys(c.batches)) }
