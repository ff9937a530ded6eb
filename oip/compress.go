package oip

import (
	"compress/gzip"
	"compress/zlib"
	"context"
	"io"

	"google.golang.org/grpc"
)

// compressor packs and unpacks messages of gRPC in an encoding. It is set for a connection, not registered: what is
// registered holds for every client and server of the process.
type compressor struct{ encoding string }

// Type is the name of the encoding.
func (c compressor) Type() string { return c.encoding }

// Do packs a message; it is the part of gRPC's compressor.
func (c compressor) Do(w io.Writer, p []byte) error {
	_, err := w.Write(packed(c.encoding, p))
	return err
}

// decompressor is the other direction.
type decompressor struct{ encoding string }

// Type is the name of the encoding.
func (d decompressor) Type() string { return d.encoding }

// Do unpacks a message.
func (d decompressor) Do(r io.Reader) ([]byte, error) {
	var in io.Reader
	var err error
	if d.encoding == "gzip" {
		in, err = gzip.NewReader(r)
	} else {
		in, err = zlib.NewReader(r)
	}
	if err != nil {
		return nil, err
	}
	return readLimited(in)
}

// compressedCall sends the sample in a compressed message, on a connection of its own.
func compressedCall(encoding string) func(context.Context, *probe) (string, error) {
	return func(ctx context.Context, p *probe) (string, error) {
		c, err := newRPC(p.run.target,
			grpc.WithCompressor(compressor{encoding}),     //nolint:staticcheck // registering would change the whole process
			grpc.WithDecompressor(decompressor{encoding}), //nolint:staticcheck // likewise
		)
		if err != nil {
			return "", err
		}
		defer c.close()
		resp, err := c.infer(ctx, p.rawRequest(p.sample))
		if err != nil {
			return "", differs("OK", "%s", failed(err))
		}
		got, err := grpcTensors(resp)
		if err != nil {
			return "", err
		}
		return p.compare(got)
	}
}
