package grpcx

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"  // peers may compress with it
	_ "google.golang.org/grpc/encoding/proto" // what Codec hands all but frames to
	"google.golang.org/grpc/mem"
)

// Frame is one message as it is on the wire, not parsed. One goroutine uses it at a time.
//
// A Frame that was received holds a reference to gRPC's buffers until Free; one that is sent is
// read by gRPC, which takes a reference of its own: it may be freed when SendMsg has returned, and
// sent again before.
type Frame struct {
	data mem.BufferSlice
}

// NewFrame is a frame of b, which must not change while the frame is in use.
func NewFrame(b []byte) *Frame {
	return &Frame{data: mem.BufferSlice{mem.SliceBuffer(b)}}
}

// Len is the number of bytes.
func (f *Frame) Len() int { return f.data.Len() }

// Bytes are the frame's bytes in one piece. They are copied only when gRPC received them in
// several, and are valid until Free.
func (f *Frame) Bytes() []byte {
	switch len(f.data) {
	case 0:
		return nil
	case 1:
		return f.data[0].ReadOnlyData()
	}
	whole := mem.SliceBuffer(f.data.Materialize())
	f.data.Free()
	f.data = mem.BufferSlice{whole}
	return whole
}

// Chunks calls yield with the frame's bytes, piece by piece and in order, until it returns false.
func (f *Frame) Chunks(yield func([]byte) bool) {
	for _, b := range f.data {
		if !yield(b.ReadOnlyData()) {
			return
		}
	}
}

// Free gives the buffers back; the frame is empty then. Freeing an empty frame does nothing.
func (f *Frame) Free() {
	f.data.Free()
	f.data = nil
}

// Codec hands [*Frame] on as it is, and is the usual one for protobuf messages. A server takes it
// with grpc.ForceServerCodecV2, a client with grpc.ForceCodecV2.
type Codec struct{}

var _ encoding.CodecV2 = Codec{}

// Name is that of the usual codec: what is on the wire is protobuf, whoever made it.
func (Codec) Name() string { return "proto" }

// Marshal gives gRPC a reference to a frame's bytes, or the bytes of a protobuf message.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*Frame); ok {
		f.data.Ref()
		return f.data, nil
	}
	return encoding.GetCodecV2("proto").Marshal(v)
}

// Unmarshal keeps a reference to what was received in a frame, freeing what it held before, or
// parses a protobuf message.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*Frame); ok {
		data.Ref()
		f.Free()
		f.data = data
		return nil
	}
	return encoding.GetCodecV2("proto").Unmarshal(data, v)
}
