package bundle

import (
	"context"
	"fmt"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// SweepRule says which blobs stay.
type SweepRule struct {
	// Keep reports whether a digest is referenced. Collect the references (see [ContentDigests],
	// and the digests of the bundles in use) before Sweep begins.
	Keep func(digest string) bool
	// OlderThan spares what was put less long ago: it may be about to be referenced. Let it be
	// longer than any upload or deployment takes; a day is good.
	OlderThan time.Duration
	Now       time.Time
}

// Swept is what Sweep removed.
type Swept struct {
	Blobs int
	Bytes int64
}

// Sweep removes blobs that nothing references and that are old. It may run beside all else. After
// an error it tells what it had removed.
func Sweep(ctx context.Context, blobs zarpa.Blobs, rule SweepRule) (Swept, error) {
	var swept Swept
	var failed error
	err := blobs.List(ctx, func(i zarpa.BlobInfo) bool {
		if !i.Stored.Before(rule.Now.Add(-rule.OlderThan)) || rule.Keep(i.Digest) {
			return true
		}
		if failed = blobs.Delete(ctx, i.Digest); failed != nil {
			return false
		}
		swept.Blobs++
		swept.Bytes += i.Size
		return true
	})
	if failed != nil {
		err = failed
	}
	if err != nil {
		return swept, fmt.Errorf("sweep blobs: %w", err)
	}
	return swept, nil
}
