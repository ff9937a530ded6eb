package registry

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"
)

// TestABodyIsReadAfterItsPush is a layer that its registry refused before it had all of it: the connection reads
// on while the push is over, and nobody is told.
func TestABodyIsReadAfterItsPush(t *testing.T) {
	t.Parallel()
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	var last Progress
	told := 0
	s, err := newSending(img, func(p Progress) { last, told = p, told+1 })
	if err != nil {
		t.Fatal(err)
	}
	s.again()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://host/v2/a/blobs/uploads/x", strings.NewReader("0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	body := s.watched(r).Body
	if _, err := io.ReadFull(body, make([]byte, 4)); err != nil || last.Bytes != 4 || last.Layers != 0 || last.LayersTotal != 3 || last.BytesTotal < 2000 {
		t.Fatalf("%+v %v", last, err)
	}
	s.again() // the second attempt begins with nothing under way, whatever the first one's connection still reads
	if _, err := io.ReadFull(body, make([]byte, 2)); err != nil || last.Bytes != 0 {
		t.Errorf("%+v %v", last, err)
	}
	s.end(io.ErrUnexpectedEOF)
	before := told
	if _, err := io.ReadAll(body); err != nil || told != before {
		t.Errorf("told %d times after the end, %v", told-before, err)
	}
}
