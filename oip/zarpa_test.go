package oip_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/fake"
	"github.com/zarpa-dev/zarpa/engine/onnx"
	"github.com/zarpa-dev/zarpa/oip"
	"github.com/zarpa-dev/zarpa/score"
)

// served starts a replica of models on loopback and says where it is.
func served(t *testing.T, models ...score.ModelOptions) string {
	t.Helper()
	server, err := score.New(score.Options{Models: models, ModelControl: zarpa.ModelControlExplicit})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, server.Close()); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// keeps runs the suite against a replica, REST and gRPC on one address, and wants no difference.
func keeps(t *testing.T, address string) {
	t.Helper()
	report, err := oip.Run(t.Context(), oip.Target{URL: "http://" + address, GRPC: address, Extensions: []string{"load"}, Harsh: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range report.Results {
		if x.Outcome == oip.Fail {
			t.Errorf("%s [%s]: expected %s, observed %s", x.ID, x.Model, x.Expected, x.Observed)
		}
	}
}

// TestZarpaWithAFakeModel runs the suite against a replica whose model is three inputs that come back.
func TestZarpaWithAFakeModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wide := []zarpa.Dim{{Size: -1, Name: "n"}, {Size: 3}}
	model := fake.Model{
		Inputs:  []zarpa.ValueInfo{{Name: "a", Type: zarpa.Float32, Shape: wide}, {Name: "b", Type: zarpa.Int64, Shape: wide}, {Name: "c", Type: zarpa.Bool, Shape: wide}},
		Outputs: []zarpa.ValueInfo{{Name: "out_a", Type: zarpa.Float32, Shape: wide}, {Name: "out_b", Type: zarpa.Int64, Shape: wide}, {Name: "out_c", Type: zarpa.Bool, Shape: wide}},
	}
	if err := fake.Write(dir, model); err != nil {
		t.Fatal(err)
	}
	engine := fake.New(fake.Options{})
	keeps(t, served(t, score.ModelOptions{Name: "mirror", Version: "1", Load: func(ctx context.Context) (zarpa.Session, error) {
		return engine.Load(ctx, dir, zarpa.LoadOptions{})
	}}))
}

// TestZarpaWithEveryDatatype runs the suite against a replica of ONNX models that answer their input.
func TestZarpaWithEveryDatatype(t *testing.T) {
	t.Parallel()
	library := os.Getenv("ZARPA_ONNXRUNTIME")
	if library == "" {
		t.Skip("ZARPA_ONNXRUNTIME is not set: run make build")
	}
	zoo := filepath.Join("..", "engine", "enginetest", "testdata")
	engine := onnx.New(onnx.Options{Library: library})
	var models []score.ModelOptions
	for _, name := range []string{
		"identity_bool", "identity_uint8", "identity_uint16", "identity_uint32", "identity_uint64", "identity_int8", "identity_int16",
		"identity_int32", "identity_int64", "identity_float16", "identity_bfloat16", "identity_float", "identity_double", "identity_string", "rank8", "scalar",
	} {
		models = append(models, score.ModelOptions{Name: name, Version: "1", Load: func(ctx context.Context) (zarpa.Session, error) {
			return engine.Load(ctx, zoo, zarpa.LoadOptions{File: name + ".onnx", Threads: 1})
		}})
	}
	keeps(t, served(t, models...))
}
