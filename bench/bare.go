package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/onnx"
)

// modelSpec is a model in the bare server or in the raw loop.
type modelSpec struct {
	Listen     string // of the bare server
	ListenGRPC string // of the bare server's other half
	File       string
	Library    string
	Threads    int
	Input      string
	Shape      []int64 // of one row
	Data       []byte  // one row, for the raw loop
	Batch      int     // rows of one run in the raw loop
	Concurrent int     // runs at a time in the raw loop
	Duration   time.Duration
}

func (m modelSpec) open(ctx context.Context) (zarpa.Session, error) {
	engine := onnx.New(onnx.Options{Library: m.Library})
	return engine.Load(ctx, filepath.Dir(m.File), zarpa.LoadOptions{File: filepath.Base(m.File), Threads: m.Threads})
}

// serveBare is what one writes to get a model behind HTTP in an hour: net/http, encoding/json and
// the engine. No limits, no checks but those of JSON, no metrics, no ids.
func serveBare(ctx context.Context, spec modelSpec) error {
	session, err := spec.open(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	mux := http.NewServeMux()
	if len(spec.Shape) == 4 {
		mux.Handle("POST /score", bare[[][][][]float32](session, spec.Input))
	} else {
		mux.Handle("POST /score", bare[[][]float32](session, spec.Input))
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveHTTP(gctx, spec.Listen, mux) })
	g.Go(func() error { return serveBareGRPC(gctx, spec, session) })
	return g.Wait()
}

// bare answers {"data": …} whose nesting is that of T.
func bare[T any](session zarpa.Session, input string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			Data T `json:"data"`
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		tensor := zarpa.Tensor{Name: input, Type: zarpa.Float32}
		tensor.Data, tensor.Shape = flatten(request.Data)
		outputs, err := session.Run(r.Context(), []zarpa.Tensor{tensor}, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer := make(map[string]any, len(outputs))
		for _, t := range outputs {
			answer[t.Name] = values(t)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // a client that left is no failure
	})
}

// flatten is the little-endian data and the shape of nested slices.
func flatten(data any) ([]byte, []int64) {
	var b []byte
	switch d := data.(type) {
	case [][]float32:
		b = make([]byte, 0, 4*len(d)*len(d[0]))
		for _, row := range d {
			b = appendFloats(b, row)
		}
		return b, []int64{int64(len(d)), int64(len(d[0]))}
	case [][][][]float32:
		for _, image := range d {
			for _, channel := range image {
				for _, row := range channel {
					b = appendFloats(b, row)
				}
			}
		}
		return b, []int64{int64(len(d)), int64(len(d[0])), int64(len(d[0][0])), int64(len(d[0][0][0]))}
	}
	return nil, nil
}

func appendFloats(b []byte, row []float32) []byte {
	for _, f := range row {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

// values makes of a tensor what encoding/json writes as one would expect.
func values(t zarpa.Tensor) any {
	switch t.Type {
	case zarpa.Int64:
		return integers(t)
	case zarpa.Float32:
		flat := floats(t)
		if len(t.Shape) < 2 {
			return flat
		}
		return slices.Collect(slices.Chunk(flat, int(t.Shape[1])))
	case zarpa.Sequence:
		maps := make([]map[int64]float32, len(t.Items))
		for i, item := range t.Items {
			keys, probabilities := integers(item.Items[0]), floats(item.Items[1])
			maps[i] = make(map[int64]float32, len(keys))
			for j, k := range keys {
				maps[i][k] = probabilities[j]
			}
		}
		return maps
	default:
		return nil
	}
}

func integers(t zarpa.Tensor) []int64 {
	out := make([]int64, len(t.Data)/8)
	for i := range out {
		out[i] = int64(binary.LittleEndian.Uint64(t.Data[8*i:]))
	}
	return out
}

func floats(t zarpa.Tensor) []float32 {
	out := make([]float32, len(t.Data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return out
}

// rawLoop runs the model again and again from as many goroutines as asked, with nothing around it.
func rawLoop(ctx context.Context, spec modelSpec) (loadResult, error) {
	session, err := spec.open(ctx)
	if err != nil {
		return loadResult{}, err
	}
	defer session.Close()
	input := spec.rows()
	runners := make([]*runner, spec.Concurrent)
	warm := spec.Duration / 5
	start := time.Now()
	before := ownProcessor()
	var wg sync.WaitGroup
	for i := range runners {
		r := &runner{session: session, input: input, from: start.Add(warm), until: start.Add(warm + spec.Duration)}
		r.latencies = make([]time.Duration, 0, 1<<16)
		runners[i] = r
		wg.Go(func() { r.run(ctx) })
	}
	wg.Wait()
	senders := make([]*sender, len(runners))
	for i, r := range runners {
		senders[i] = &sender{latencies: r.latencies, sent: r.runs, last: r.last, err: r.err}
	}
	res := gather(senders, start.Add(warm))
	res.Processor = ownProcessor() - before
	if res.Failed > 0 {
		return res, fmt.Errorf("raw loop: %s", res.Failure)
	}
	return res, nil
}

// rows is the row as often as a batch has rows.
func (m modelSpec) rows() zarpa.Tensor {
	n := max(m.Batch, 1)
	shape := slices.Clone(m.Shape)
	shape[0] *= int64(n)
	return zarpa.Tensor{Name: m.Input, Type: zarpa.Float32, Shape: shape, Data: bytes.Repeat(m.Data, n)}
}

type runner struct {
	session     zarpa.Session
	input       zarpa.Tensor
	from, until time.Time
	latencies   []time.Duration
	runs        int
	last        time.Time
	err         error
}

func (r *runner) run(ctx context.Context) {
	in := []zarpa.Tensor{r.input}
	ctx = context.WithoutCancel(ctx) // nothing but the model; the loop ends by itself
	for began := time.Now(); began.Before(r.until); {
		if _, r.err = r.session.Run(ctx, in, nil); r.err != nil {
			return
		}
		r.runs++
		r.last = time.Now()
		if !began.Before(r.from) {
			r.latencies = append(r.latencies, r.last.Sub(began))
		}
		began = r.last
	}
}
