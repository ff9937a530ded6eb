package grpcx

import (
	"compress/zlib"
	"io"
	"sync"

	"google.golang.org/grpc/encoding"
)

func init() { //nolint:gochecknoinits // gRPC takes compressors before the program begins alone
	encoding.RegisterCompressor(&deflate{})
}

// deflate is the compression that gRPC's clients in C and Python know beside gzip, in the form of
// zlib as HTTP has it. gRPC bounds what it reads of it.
type deflate struct{ writers, readers sync.Pool }

var _ encoding.Compressor = (*deflate)(nil)

func (*deflate) Name() string { return "deflate" }

// Compress is fast rather than thorough: tensors hardly shrink more.
func (d *deflate) Compress(w io.Writer) (io.WriteCloser, error) {
	if z, ok := d.writers.Get().(*zlib.Writer); ok {
		z.Reset(w)
		return &deflateWriter{z, &d.writers}, nil
	}
	z, err := zlib.NewWriterLevel(w, zlib.BestSpeed)
	if err != nil {
		return nil, err
	}
	return &deflateWriter{z, &d.writers}, nil
}

// deflateWriter goes back to its pool when it is closed.
type deflateWriter struct {
	*zlib.Writer
	pool *sync.Pool
}

func (w *deflateWriter) Close() error {
	defer w.pool.Put(w.Writer)
	return w.Writer.Close()
}

func (d *deflate) Decompress(r io.Reader) (io.Reader, error) {
	z, ok := d.readers.Get().(io.Reader)
	if !ok {
		var err error
		if z, err = zlib.NewReader(r); err != nil {
			return nil, err
		}
	} else if err := z.(zlib.Resetter).Reset(r, nil); err != nil {
		d.readers.Put(z)
		return nil, err
	}
	return &deflateReader{z, &d.readers}, nil
}

// deflateReader goes back to its pool at the end of what it reads.
type deflateReader struct {
	io.Reader
	pool *sync.Pool
}

func (r *deflateReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		r.pool.Put(r.Reader)
	}
	return n, err
}
