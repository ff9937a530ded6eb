package score

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// TestGRPCTypes sends every datatype, as raw and as typed contents where it has them, and gets its
// bytes back.
func TestGRPCTypes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ   zarpa.ElementType
		typed *pb.InferTensorContents // two elements
		raw   []byte
	}{
		{zarpa.Bool, &pb.InferTensorContents{BoolContents: []bool{true, false}}, []byte{1, 0}},
		{zarpa.Int8, &pb.InferTensorContents{IntContents: []int32{-128, 127}}, le(int8(-128), int8(127))},
		{zarpa.Int16, &pb.InferTensorContents{IntContents: []int32{math.MinInt16, math.MaxInt16}}, le(int16(math.MinInt16), int16(math.MaxInt16))},
		{zarpa.Int32, &pb.InferTensorContents{IntContents: []int32{math.MinInt32, math.MaxInt32}}, le(int32(math.MinInt32), int32(math.MaxInt32))},
		{zarpa.Int64, &pb.InferTensorContents{Int64Contents: []int64{math.MinInt64, math.MaxInt64}}, le(int64(math.MinInt64), int64(math.MaxInt64))},
		{zarpa.Uint8, &pb.InferTensorContents{UintContents: []uint32{0, 255}}, []byte{0, 255}},
		{zarpa.Uint16, &pb.InferTensorContents{UintContents: []uint32{0, 65535}}, le(uint16(0), uint16(65535))},
		{zarpa.Uint32, &pb.InferTensorContents{UintContents: []uint32{0, math.MaxUint32}}, le(uint32(0), uint32(math.MaxUint32))},
		{zarpa.Uint64, &pb.InferTensorContents{Uint64Contents: []uint64{0, math.MaxUint64}}, le(uint64(0), uint64(math.MaxUint64))},
		{zarpa.Float16, nil, le(uint16(0x3C00), uint16(0x7E00))},
		{zarpa.BFloat16, nil, le(uint16(0x3F80), uint16(0x7FC0))},
		{zarpa.Float32, &pb.InferTensorContents{Fp32Contents: []float32{1.5, float32(math.Inf(1))}}, le(float32(1.5), float32(math.Inf(1)))},
		{zarpa.Float64, &pb.InferTensorContents{Fp64Contents: []float64{1.5, math.NaN()}}, le(1.5, math.NaN())},
		{zarpa.String, &pb.InferTensorContents{BytesContents: [][]byte{{0, 0xFF}, nil}}, []byte("\x02\x00\x00\x00\x00\xff\x00\x00\x00\x00")},
	} {
		t.Run(c.typ.String(), func(t *testing.T) {
			t.Parallel()
			l := serve(t, newServer(t, own(echo(info("x", c.typ, -1))), Options{}))
			client := pb.NewGRPCInferenceServiceClient(dial(t, l.grpc))
			ask := func(typed *pb.InferTensorContents, raw ...[]byte) {
				t.Helper()
				got, err := client.ModelInfer(t.Context(), &pb.ModelInferRequest{
					ModelName: "iris", RawInputContents: raw,
					Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: c.typ.String(), Shape: []int64{2}, Contents: typed}},
				})
				switch {
				case typed == nil && raw == nil:
					if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "raw_input_contents") {
						t.Errorf("typed: %v", err)
					}
				case err != nil:
					t.Error(err)
				case got.GetOutputs()[0].GetDatatype() != c.typ.String() || !slices.Equal(got.GetOutputs()[0].GetShape(), []int64{2}) || string(got.GetRawOutputContents()[0]) != string(c.raw):
					t.Errorf("%v", got)
				}
			}
			ask(c.typed)
			ask(nil, c.raw)
		})
	}
}

func TestGRPCContentsOutOfRange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ   zarpa.ElementType
		typed *pb.InferTensorContents
		raw   string
		want  string
	}{
		{zarpa.Int8, &pb.InferTensorContents{IntContents: []int32{0, 128}}, "", "element 1: 128 is out of range for INT8 (-128 to 127)"},
		{zarpa.Int16, &pb.InferTensorContents{IntContents: []int32{-32769, 0}}, "", "element 0: -32769 is out of range for INT16"},
		{zarpa.Uint8, &pb.InferTensorContents{UintContents: []uint32{0, 256}}, "", "element 1: 256 is out of range for UINT8 (0 to 255)"},
		{zarpa.Bool, nil, "\x00\x02", "element 1: byte 2 is neither 0 nor 1"},
		{zarpa.String, nil, "\x01\x00\x00\x00a\x05\x00\x00\x00b", "element 1 is cut off"},
		{zarpa.String, nil, "\x01\x00\x00\x00a\x05\x00", "element 1 is cut off"},
		{zarpa.String, nil, "\x01\x00\x00\x00a", "1 elements, shape [2] has 2"},
	} {
		l := newServer(t, own(echo(info("x", c.typ, -1))), Options{})
		in := &pb.ModelInferRequest{ModelName: "iris", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: c.typ.String(), Shape: []int64{2}, Contents: c.typed}}}
		if c.raw != "" {
			in.RawInputContents = [][]byte{[]byte(c.raw)}
		}
		_, err := inferWire(t, l, in)
		if zarpa.AsError(err).Code != zarpa.Invalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `input "x"`) {
			t.Errorf("%v: %v", c.typ, err)
		}
	}
}

// inferWire answers a request without a connection.
func inferWire(t testing.TB, s *Server, in *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	t.Helper()
	wire, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return inferBytes(t, s, mem.BufferSlice{mem.SliceBuffer(wire)})
}

func inferBytes(t testing.TB, s *Server, wire mem.BufferSlice) (*pb.ModelInferResponse, error) {
	t.Helper()
	read := func(m any) error { return inferCodec{}.Unmarshal(wire, m) }
	chain := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return next(ctx, req)
	}
	reply, err := s.unaryInfer(t.Context(), read, chain)
	if err != nil {
		return nil, err
	}
	data, err := inferCodec{}.Marshal(reply)
	if err != nil {
		t.Fatal(err)
	}
	var out pb.ModelInferResponse
	if err := proto.Unmarshal(data.Materialize(), &out); err != nil {
		t.Fatalf("the answer is no message: %v", err)
	}
	return &out, nil
}

func TestGRPCScalarsEmptyTensorsAndAbsentOutputs(t *testing.T) {
	t.Parallel()
	s := own(echo(info("x", zarpa.Int64), info("e", zarpa.Float32, -1, 3), zarpa.ValueInfo{Name: "o", Type: zarpa.Int8, Shape: dims(1), Optional: true}))
	run := s.run
	s.run = func(ctx context.Context, in []zarpa.Tensor, wanted []string) ([]zarpa.Tensor, error) {
		out, err := run(ctx, in, wanted)
		return append(out, zarpa.Tensor{Name: "out_o"}), err // as engines tell an absent one
	}
	srv := newServer(t, s, Options{})
	for _, shape := range [][]int64{nil, {1}} {
		got, err := inferWire(t, srv, &pb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{{}, le(int64(7))}, Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: "e", Datatype: "FP32", Shape: []int64{0, 3}}, {Name: "x", Datatype: "INT64", Shape: shape},
		}})
		want := &pb.ModelInferResponse{ModelName: "iris", ModelVersion: "3", RawOutputContents: [][]byte{le(int64(7)), {}}, Outputs: []*pb.ModelInferResponse_InferOutputTensor{
			{Name: "out_x", Datatype: "INT64"}, {Name: "out_e", Datatype: "FP32", Shape: []int64{0, 3}},
		}}
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%v %v", got, err)
		}
	}
}

func TestGRPCTensorsOfNothingAreBounded(t *testing.T) {
	t.Parallel()
	srv := newServer(t, own(echo(info("x", zarpa.Float32, -1, -1))), Options{})
	for rows, refused := range map[int64]bool{1000: false, 4_000_000_000: true} {
		_, err := inferWire(t, srv, &pb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{{}}, Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "FP32", Shape: []int64{rows, 0}},
		}})
		if (err != nil) != refused || refused && zarpa.AsError(err).Code != zarpa.Invalid {
			t.Errorf("%d rows: %v", rows, err)
		}
	}
}

func TestGRPCClassification(t *testing.T) {
	t.Parallel()
	y := zarpa.Tensor{Name: "y", Type: zarpa.Float32, Shape: []int64{2, 3}, Data: le([]float32{0.1, 0.7, 0.2, 3, nan, 3})}
	srv := newServer(t, constant(y), Options{})
	in := &pb.ModelInferRequest{
		ModelName: "iris", RawInputContents: [][]byte{le(float32(1))},
		Inputs:  []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1}}},
		Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y", Parameters: map[string]*pb.InferParameter{"classification": intParam(2)}}},
	}
	got, err := inferWire(t, srv, in)
	if err != nil {
		t.Fatal(err)
	}
	want := string(rawStrings([]string{"0.700000:1", "0.200000:2", "3.000000:0", "3.000000:2"}))
	if o := got.GetOutputs()[0]; o.GetDatatype() != "BYTES" || !slices.Equal(o.GetShape(), []int64{2, 2}) || string(got.GetRawOutputContents()[0]) != want {
		t.Errorf("%v", got)
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in    zarpa.Tensor
		k     int
		shape []int64
		want  string
	}{
		{zarpa.Tensor{Type: zarpa.Int8, Shape: []int64{3}, Data: le(int8(-1), int8(5), int8(2))}, 9, []int64{3}, "5:1 2:2 -1:0"},
		{zarpa.Tensor{Type: zarpa.Uint64, Shape: []int64{1, 2}, Data: le(uint64(1), uint64(math.MaxUint64))}, 1, []int64{1, 1}, "18446744073709551615:1"},
		{zarpa.Tensor{Type: zarpa.Float64, Shape: []int64{2}, Data: le(math.Inf(-1), math.NaN())}, 2, []int64{2}, "-inf:0 nan:1"},
		{zarpa.Tensor{Type: zarpa.Float32, Shape: []int64{0, 2}}, 2, []int64{0, 0}, ""},
		{zarpa.Tensor{Type: zarpa.Float32, Shape: []int64{1 << 60, 0}}, 2, []int64{1 << 60, 0}, ""},
		{zarpa.Tensor{Type: zarpa.Float32, Data: le(float32(1))}, 2, []int64{1}, "1.000000:0"},
		{zarpa.Tensor{Type: zarpa.Float32, Shape: []int64{2, 2, 1}, Data: le([]float32{1, 2, 4, 3})}, 1, []int64{2, 1}, "2.000000:1 4.000000:0"},
	} {
		got, err := classify(&c.in, c.k)
		if err != nil || !slices.Equal(got.Shape, c.shape) || strings.Join(got.Strings, " ") != c.want {
			t.Errorf("%v: %v %v", c.in, got, err)
		}
	}
	if _, err := classify(&zarpa.Tensor{Name: "h", Type: zarpa.Float16}, 1); zarpa.AsError(err).Code != zarpa.Invalid {
		t.Error(err)
	}
}

// inPieces is a message in pieces of n bytes, as gRPC receives one.
func inPieces(wire []byte, n int) mem.BufferSlice {
	var out mem.BufferSlice
	for part := range slices.Chunk(wire, n) {
		out = append(out, mem.SliceBuffer(part))
	}
	return out
}

func TestRawContentsAreAligned(t *testing.T) {
	t.Parallel()
	in := &pb.ModelInferRequest{ModelName: "m", Id: "an id", RawInputContents: [][]byte{[]byte("abc"), nil, []byte("0123456789"), make([]byte, 4000)}}
	wire, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var m inferRequest
	for _, n := range []int{1, 2, 3, 64, len(wire)} {
		if err := m.fill(inPieces(wire, n)); err != nil {
			t.Fatal(err)
		}
		if len(m.raw) != 4 {
			t.Fatalf("%d raw contents", len(m.raw))
		}
		for i, raw := range m.raw {
			if string(raw) != string(in.RawInputContents[i]) {
				t.Errorf("pieces of %d: raw %d is %q", n, i, raw)
			}
			if len(raw) > 0 && uintptr(unsafe.Pointer(&raw[0]))%alignment != 0 {
				t.Errorf("pieces of %d: raw %d lies at %p", n, i, &raw[0])
			}
		}
		var head pb.ModelInferRequest
		if err := proto.Unmarshal(m.head, &head); err != nil || head.GetId() != "an id" || head.GetRawInputContents() != nil {
			t.Errorf("pieces of %d: head %v %v", n, &head, err)
		}
	}
}

func TestBigOutputsAreNotCopied(t *testing.T) {
	t.Parallel()
	data := make([]byte, 4096)
	c := call{model: &model{entry: &entry{}}, outputs: []zarpa.Tensor{{Name: "y", Type: zarpa.Uint8, Shape: []int64{4096}, Data: data}}}
	reply, err := c.reply(unary)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(reply.data, func(b mem.Buffer) bool { return unsafe.SliceData(b.ReadOnlyData()) == unsafe.SliceData(data) }) {
		t.Error("the output's memory is not in the answer")
	}
}
