package score

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// FuzzModelInferRequest reads messages in pieces of any size: the reader agrees with protobuf's own
// on what is a message and on what stands in it, a server answers it or says what is wrong, and the
// next request is as good as the first.
func FuzzModelInferRequest(f *testing.F) {
	srv := newServer(f, own(echo(info("x", zarpa.Float32, -1, 2), info("n", zarpa.Int8, -1), info("s", zarpa.String, -1))), Options{})
	inputs := []*pb.ModelInferRequest_InferInputTensor{
		{Name: "x", Datatype: "FP32", Shape: []int64{1, 2}}, {Name: "n", Datatype: "INT8", Shape: []int64{1}}, {Name: "s", Datatype: "BYTES", Shape: []int64{1}},
	}
	good := &pb.ModelInferRequest{
		ModelName: "iris", Id: "1", Inputs: inputs, RawInputContents: [][]byte{make([]byte, 8), {3}, []byte("\x01\x00\x00\x00a")},
		Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "out_x", Parameters: map[string]*pb.InferParameter{"classification": intParam(1)}}, {Name: "out_s"}},
	}
	typed := &pb.ModelInferRequest{ModelName: "flowers", Parameters: map[string]*pb.InferParameter{"allow_nan": boolParam(true), "t": textParam("é")}}
	for i, contents := range []*pb.InferTensorContents{{Fp32Contents: []float32{1, 2}}, {IntContents: []int32{-3}}, {BytesContents: [][]byte{[]byte("b")}}} {
		in := proto.CloneOf(inputs[i])
		in.Contents = contents
		typed.Inputs = append(typed.Inputs, in)
	}
	for _, m := range []*pb.ModelInferRequest{good, typed, {}} {
		wire, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, uint8(7))
	}
	f.Add([]byte{0x7b, 0x08, 0x01, 0x7c}, uint8(1)) // a group
	want, err := inferWire(f, srv, good)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, wire []byte, piece uint8) {
		pieces := inPieces(wire, int(piece)+1)
		sameAsProtobuf(t, wire, int(piece)+1)
		if _, err := inferBytes(t, srv, pieces); err != nil {
			switch e := zarpa.AsError(err); e.Code {
			case zarpa.Invalid, zarpa.NotFound:
			default:
				t.Fatalf("%x: %v", wire, err)
			}
		}
		if again, err := inferWire(t, srv, good); err != nil || !proto.Equal(again, want) {
			t.Fatalf("after %x: %v %v", wire, again, err)
		}
	})
}

// sameAsProtobuf holds the split into head and raw contents against protobuf's own reading.
func sameAsProtobuf(t *testing.T, wire []byte, piece int) {
	t.Helper()
	var theirs, head pb.ModelInferRequest
	valid := proto.Unmarshal(wire, &theirs) == nil
	var m inferRequest
	if err := m.fill(inPieces(wire, piece)); err != nil {
		if valid && len(theirs.GetRawInputContents()) <= maxRaw && !deepGroups(wire) {
			t.Fatalf("%x: %v", wire, err)
		}
		return
	}
	if limit := len(wire) + alignment*(len(m.raw)+2); cap(m.buf) > limit {
		t.Fatalf("%d bytes of memory for a message of %d", cap(m.buf), len(wire))
	}
	if !valid {
		return // what is inside is read later
	}
	if err := proto.Unmarshal(m.head, &head); err != nil {
		t.Fatalf("%x: head: %v", wire, err)
	}
	if !slices.EqualFunc(m.raw, theirs.GetRawInputContents(), func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Fatalf("%x: raw contents %q", wire, m.raw)
	}
	theirs.RawInputContents = nil
	if !proto.Equal(&head, &theirs) {
		t.Fatalf("%x: %v, want %v", wire, &head, &theirs)
	}
	id, err := m.names()
	if err != nil || id != theirs.GetId() || m.model != theirs.GetModelName() || m.version != theirs.GetModelVersion() {
		t.Fatalf("%x: names %q %q %q %v", wire, id, m.model, m.version, err)
	}
}

// deepGroups reports whether groups of unknown fields nest deeper than the server reads.
func deepGroups(wire []byte) bool {
	depth, most := 0, 0
	for len(wire) > 0 {
		_, typ, n := protowire.ConsumeTag(wire)
		if n < 0 {
			break
		}
		wire = wire[n:]
		switch typ {
		case protowire.StartGroupType:
			depth++
			most = max(most, depth)
		case protowire.EndGroupType:
			depth--
		default:
			if n = protowire.ConsumeFieldValue(1, typ, wire); n < 0 {
				return most > maxGroups
			}
			wire = wire[n:]
		}
	}
	return most > maxGroups
}
