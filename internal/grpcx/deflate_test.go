package grpcx

import (
	"bytes"
	"io"
	"testing"

	"google.golang.org/grpc/encoding"
)

func TestDeflateIsWhatClientsSend(t *testing.T) {
	t.Parallel()
	c := encoding.GetCompressor("deflate")
	if c == nil {
		t.Fatal("not registered")
	}
	for _, text := range []string{"", "tensors", string(bytes.Repeat([]byte("0123"), 1<<16))} {
		for range 2 { // with a reader and a writer that were used before
			var packed bytes.Buffer
			w, err := c.Compress(&packed)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(w, text)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if packed.Bytes()[0] != 0x78 {
				t.Errorf("begins with %x, zlib with 78", packed.Bytes()[0])
			}
			r, err := c.Decompress(&packed)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); string(got) != text || err != nil {
				t.Errorf("%d bytes of %d: %v", len(got), len(text), err)
			}
		}
	}
	if _, err := c.Decompress(bytes.NewReader([]byte("no zlib"))); err == nil {
		t.Error("what is no zlib is taken")
	}
}
