package zarpa

import (
	"context"
	"io"
	"time"
)

// Blobs keeps content by digest. A digest is "sha256:" and 64 hexadecimal digits. Content is
// immutable: what was put once reads the same for ever, until deleted. Implementations prove
// themselves with package blobtest; all methods may be called from many goroutines and processes.
type Blobs interface {
	// Put stores all of r and returns its digest and size. The content is durable when Put
	// returns, and not visible before. Equal content is stored once. An error of r ends Put with
	// that error and leaves nothing behind. A full disk is an unavailable error that says so.
	Put(ctx context.Context, r io.Reader) (BlobInfo, error)
	// Open reads the content of a digest; not_found when there is none. The caller closes it.
	Open(ctx context.Context, digest string) (io.ReadSeekCloser, error)
	// List calls each for every blob, in no order, until it returns false.
	List(ctx context.Context, each func(BlobInfo) bool) error
	// Delete removes the content; deleting what is not there is no error. Open readers go on.
	Delete(ctx context.Context, digest string) error
}

// BlobInfo describes one blob.
type BlobInfo struct {
	Digest string
	Size   int64
	// Stored is when the content was put last: sweeping spares what is young.
	Stored time.Time
}
