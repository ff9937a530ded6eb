package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
)

// model is a file to serve, with the row that every request asks about.
type model struct {
	name, file string
	input      string    // its one input
	shape      []int64   // of the row
	row        []float64 // flat
	// heavy is a model that fills the processors by itself: it runs as often at a time as there are
	// processors, and is held against the raw loop. The others are held against the bare handler.
	heavy bool
	// forBatches is a model that only batching is measured with.
	forBatches bool
	bundle     string // unpacked
}

// modelNames are all models, from the cheapest to the dearest.
var modelNames = []string{"iris", "forest", "digits", "wide", "ten_ms"}

// models are those that were asked for.
func (b *bench) models(ctx context.Context) ([]*model, error) {
	digit, err := heldOut(filepath.Join(b.root, "examples", "digits", "heldout.json"))
	if err != nil {
		return nil, err
	}
	list := []*model{
		{name: "iris", file: "examples/iris/iris.onnx", input: "input", shape: []int64{1, 4}, row: []float64{5.1, 3.5, 1.4, 0.2}},
		{name: "forest", file: "bench/models/forest.onnx", input: "x", shape: []int64{1, 64}, row: digit},
		{name: "digits", file: "examples/digits/digits.onnx", input: "image", shape: []int64{1, 1, 8, 8}, row: digit},
		{name: "wide", file: "bench/models/wide.onnx", input: "x", shape: []int64{1, 1024}, row: noise(1024), forBatches: true},
		{name: "ten_ms", file: "bench/models/ten_ms.onnx", input: "x", shape: []int64{1, 3072}, row: noise(3072), heavy: true},
	}
	wanted := strings.Split(b.only, ",")
	for _, w := range wanted {
		if w != "all" && !slices.Contains(modelNames, w) {
			return nil, fmt.Errorf("-models: %q is not known; there are all, %s", w, strings.Join(modelNames, ", "))
		}
	}
	list = slices.DeleteFunc(list, func(m *model) bool { return b.only != "all" && !slices.Contains(wanted, m.name) })
	for _, m := range list {
		m.file = filepath.Join(b.root, filepath.FromSlash(m.file))
		if m.bundle, err = b.unpack(ctx, m); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// noise is n values of eight decimals, the same on every run.
func noise(n int) []float64 {
	out := make([]float64, n)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range out {
		out[i] = float64(int64(random.Float64()*1e8)) / 1e8
	}
	return out
}

// heldOut is the first image of an example's held-out ones, flat.
func heldOut(file string) ([]float64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var heldout struct {
		Inputs [][][][]float64 `json:"inputs"`
	}
	if err := json.Unmarshal(text, &heldout); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	var flat []float64
	for _, line := range heldout.Inputs[0][0] {
		flat = append(flat, line...)
	}
	return flat, nil
}

// raw is the row as the runtime reads it: FP32, little-endian.
func (m *model) raw() []byte {
	out := make([]byte, 0, 4*len(m.row))
	for _, v := range m.row {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(v)))
	}
	return out
}

// nested is the row in its shape, for encoding/json.
func nested(flat []float64, shape []int64) any {
	if len(shape) == 1 {
		return flat
	}
	size := len(flat) / int(shape[0])
	out := make([]any, shape[0])
	for i := range out {
		out[i] = nested(flat[i*size:(i+1)*size], shape[1:])
	}
	return out
}

// runs is how many runs of the model are worth having at a time with so many clients.
func (m *model) runs(clients, cores int) int {
	if m.heavy {
		return min(clients, cores)
	}
	return clients
}

// unpack makes the bundle of a model and unpacks it.
func (b *bench) unpack(ctx context.Context, m *model) (string, error) {
	home := filepath.Join(b.temp, m.name)
	blobs, err := dir.Open(ctx, filepath.Join(home, "blobs"))
	if err != nil {
		return "", err
	}
	var stream bytes.Buffer // the models are small
	if err := bundle.TarFiles(ctx, &stream, m.file); err != nil {
		return "", err
	}
	content, err := bundle.WriteContent(ctx, blobs, &stream, bundle.Limits{})
	if err != nil {
		return "", err
	}
	digest, err := bundle.Build(ctx, blobs, zarpa.Bundle{Format: bundle.Format, Engine: "onnx", Models: []zarpa.BundleModel{
		{Name: m.name, Version: 1, Content: content, File: content.Files[0].Path},
	}})
	if err != nil {
		return "", err
	}
	return bundle.Unpack(ctx, blobs, digest, filepath.Join(home, "bundles"))
}
