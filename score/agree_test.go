package score

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// protocolTypes are the datatypes of the inference protocol.
func protocolTypes() []zarpa.ElementType {
	return []zarpa.ElementType{
		zarpa.Bool, zarpa.Uint8, zarpa.Uint16, zarpa.Uint32, zarpa.Uint64, zarpa.Int8, zarpa.Int16, zarpa.Int32, zarpa.Int64,
		zarpa.Float16, zarpa.BFloat16, zarpa.Float32, zarpa.Float64, zarpa.String,
	}
}

// randomTensor has elements of all sorts of bits; finite ones where they are numbers.
func randomTensor(r *rand.Rand, typ zarpa.ElementType, shape []int64) zarpa.Tensor {
	n, _ := zarpa.Elements(shape)
	t := zarpa.Tensor{Name: "x", Type: typ, Shape: shape, Data: []byte{}}
	for range n {
		switch typ {
		case zarpa.Bool:
			t.Data = append(t.Data, byte(r.IntN(2)))
		case zarpa.String:
			t.Strings = append(t.Strings, string([]rune{rune(r.IntN(0x500)), '"', '\\', rune(0x1F600 + r.IntN(50))}[:r.IntN(5)]))
		case zarpa.Float32:
			t.Data = binary.LittleEndian.AppendUint32(t.Data, finite32(r))
		case zarpa.Float64:
			t.Data = binary.LittleEndian.AppendUint64(t.Data, finite64(r))
		default:
			t.Data = binary.LittleEndian.AppendUint64(t.Data, r.Uint64())[:len(t.Data)+typ.Bits()/8]
		}
	}
	if typ == zarpa.String {
		t.Data = nil
	}
	return t
}

func finite32(r *rand.Rand) uint32 {
	for {
		bits := r.Uint32()
		if f := float64(math.Float32frombits(bits)); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return bits
		}
	}
}

func finite64(r *rand.Rand) uint64 {
	for {
		bits := r.Uint64()
		if f := math.Float64frombits(bits); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return bits
		}
	}
}

// raw are a tensor's bytes as the binary extension has them.
func raw(t *zarpa.Tensor) []byte {
	if t.Type == zarpa.String {
		return appendStrings([]byte{}, t.Strings)
	}
	return t.Data
}

func shapeText(shape []int64) string {
	parts := make([]string, len(shape))
	for i, n := range shape {
		parts[i] = strconv.FormatInt(n, 10)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// ways send a tensor to a model that gives it back, each in a form of its own, and return the bytes
// of the answer. A way that has no form for the tensor returns nil.
var ways = map[string]func(t *testing.T, p peer, x *zarpa.Tensor) []byte{
	"binary": func(t *testing.T, p peer, x *zarpa.Tensor) []byte {
		data := raw(x)
		header := fmt.Sprintf(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":%s,"datatype":"%v","parameters":{"binary_data_size":%d}}]}`, shapeText(x.Shape), x.Type, len(data))
		return binaryBytes(t, do(p.rest, binaryRequest(header, data)), x.Shape)
	},
	"flat JSON": func(t *testing.T, p peer, x *zarpa.Tensor) []byte {
		return jsonWay(t, p.rest, x, tensorjson.Format{}.AppendFlat)
	},
	"nested JSON": func(t *testing.T, p peer, x *zarpa.Tensor) []byte {
		if len(x.Shape) == 0 || slices.Contains(x.Shape, 0) {
			return nil // a scalar is not nested, and nesting does not tell [0,2] from [0,3]
		}
		return jsonWay(t, p.rest, x, tensorjson.Format{}.AppendNested)
	},
	"JSON back": func(t *testing.T, p peer, x *zarpa.Tensor) []byte {
		if x.Type == zarpa.Float16 || x.Type == zarpa.BFloat16 {
			return nil
		}
		data := raw(x)
		w := do(p.rest, binaryRequest(fmt.Sprintf(`{"inputs":[{"name":"x","shape":%s,"datatype":"%v","parameters":{"binary_data_size":%d}}]}`, shapeText(x.Shape), x.Type, len(data)), data))
		_, text, found := strings.Cut(w.Body.String(), `"data":`)
		if !found {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return parse(t, x.Type, strings.TrimSuffix(strings.TrimSpace(text), "}]}"))
	},
	"gRPC, raw": func(t *testing.T, p peer, x *zarpa.Tensor) []byte {
		return grpcWay(t, p.grpc, x, nil)
	},
	"gRPC, typed": func(t *testing.T, p peer, x *zarpa.Tensor) []byte {
		if contents := typedContents(x); contents != nil {
			return grpcWay(t, p.grpc, x, contents)
		}
		return nil
	},
}

// peer is one server, by its REST handler and its gRPC listener.
type peer struct {
	rest http.Handler
	grpc pb.GRPCInferenceServiceClient
}

// grpcWay sends a tensor by its contents, or raw when they are nil.
func grpcWay(t *testing.T, client pb.GRPCInferenceServiceClient, x *zarpa.Tensor, contents *pb.InferTensorContents) []byte {
	t.Helper()
	var bytes [][]byte
	if contents == nil {
		bytes = [][]byte{raw(x)}
	}
	out, err := client.ModelInfer(t.Context(), &pb.ModelInferRequest{
		ModelName: "iris", RawInputContents: bytes,
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: x.Type.String(), Shape: x.Shape, Contents: contents}},
	})
	if err != nil {
		t.Fatalf("%v: %v", x.Shape, err)
	}
	if o := out.Outputs[0]; !slices.Equal(o.Shape, x.Shape) || o.Datatype != x.Type.String() {
		t.Errorf("%v of shape %v, want %v", o.Datatype, o.Shape, x.Shape)
	}
	return append([]byte{}, out.RawOutputContents[0]...)
}

// typedContents are a tensor's elements in the field of their type; nil for 16-bit floats.
func typedContents(x *zarpa.Tensor) *pb.InferTensorContents {
	c := &pb.InferTensorContents{}
	n, _ := zarpa.Elements(x.Shape)
	for i := range n {
		d, le := x.Data, binary.LittleEndian
		if x.Type != zarpa.String {
			size := int64(x.Type.Bits() / 8)
			d = d[i*size:]
		}
		switch x.Type {
		case zarpa.Bool:
			c.BoolContents = append(c.BoolContents, d[0] == 1)
		case zarpa.Int8:
			c.IntContents = append(c.IntContents, int32(int8(d[0])))
		case zarpa.Int16:
			c.IntContents = append(c.IntContents, int32(int16(le.Uint16(d))))
		case zarpa.Int32:
			c.IntContents = append(c.IntContents, int32(le.Uint32(d)))
		case zarpa.Int64:
			c.Int64Contents = append(c.Int64Contents, int64(le.Uint64(d)))
		case zarpa.Uint8:
			c.UintContents = append(c.UintContents, uint32(d[0]))
		case zarpa.Uint16:
			c.UintContents = append(c.UintContents, uint32(le.Uint16(d)))
		case zarpa.Uint32:
			c.UintContents = append(c.UintContents, le.Uint32(d))
		case zarpa.Uint64:
			c.Uint64Contents = append(c.Uint64Contents, le.Uint64(d))
		case zarpa.Float32:
			c.Fp32Contents = append(c.Fp32Contents, math.Float32frombits(le.Uint32(d)))
		case zarpa.Float64:
			c.Fp64Contents = append(c.Fp64Contents, math.Float64frombits(le.Uint64(d)))
		case zarpa.String:
			c.BytesContents = append(c.BytesContents, []byte(x.Strings[i]))
		default:
			return nil
		}
	}
	if x.Type == zarpa.Float16 || x.Type == zarpa.BFloat16 {
		return nil
	}
	return c
}

func jsonWay(t *testing.T, h http.Handler, x *zarpa.Tensor, write func([]byte, *zarpa.Tensor) ([]byte, error)) []byte {
	t.Helper()
	if x.Type == zarpa.Float16 || x.Type == zarpa.BFloat16 {
		return nil
	}
	body, err := write(fmt.Appendf(nil, `{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":%s,"datatype":"%v","data":`, shapeText(x.Shape), x.Type), x)
	if err != nil {
		t.Fatal(err)
	}
	return binaryBytes(t, ask(h, http.MethodPost, inferPath, string(body)+"}]}"), x.Shape)
}

// parse reads flat JSON data.
func parse(t *testing.T, typ zarpa.ElementType, text string) []byte {
	t.Helper()
	var d tensorjson.Decoder
	var b tensorjson.Builder
	d.Reset([]byte(text))
	b.Reset(typ)
	if err := d.Append(&b, 0); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return raw(&zarpa.Tensor{Type: typ, Data: append([]byte{}, b.Data()...), Strings: b.Strings()})
}

// binaryBytes are those of the one output of a binary answer.
func binaryBytes(t *testing.T, w *httptest.ResponseRecorder, shape []int64) []byte {
	t.Helper()
	header, tensors := binaryAnswer(t, w)
	if !strings.Contains(header, `"shape":`+shapeText(shape)) {
		t.Errorf("shape %v: %s", shape, header)
	}
	return tensors["out_x"]
}

// Every datatype, of every rank, empty and not, comes back with the same bits in every form.
func TestAllFormsAgreeBitForBit(t *testing.T) {
	t.Parallel()
	for _, typ := range protocolTypes() {
		t.Run(typ.String(), func(t *testing.T) {
			t.Parallel()
			l := serve(t, newServer(t, own(echo(zarpa.ValueInfo{Name: "x", Type: typ, NoShape: true})), Options{}))
			p := peer{l.Handler(), pb.NewGRPCInferenceServiceClient(dial(t, l.rest))}
			r := rand.New(rand.NewPCG(uint64(typ), 4))
			for rank := range 9 {
				for _, shape := range shapes(r, rank) {
					x := randomTensor(r, typ, shape)
					want := raw(&x)
					for name, way := range ways {
						if got := way(t, p, &x); got != nil && !bytes.Equal(got, want) {
							t.Errorf("%s of shape %v: %x, want %x", name, shape, got, want)
						}
					}
				}
			}
		})
	}
}

// shapes are some of a rank: one row, one with a zero in it, and others.
func shapes(r *rand.Rand, rank int) [][]int64 {
	one := slices.Repeat([]int64{1}, rank)
	if rank == 0 {
		return [][]int64{one}
	}
	empty, some := slices.Clone(one), slices.Clone(one)
	empty[r.IntN(rank)] = 0
	for i := range some {
		some[i] = 1 + r.Int64N(3)
	}
	some[0] = 1
	rows := slices.Clone(some)
	rows[0] = 3
	return [][]int64{one, empty, some, rows}
}
