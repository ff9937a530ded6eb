package registry

import (
	"io"
	"net/http"
	"path"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// sending is how far a push is, by what its requests carry. The library's own progress is not used: it sends on a
// channel that it closes when the push ends, and a registry that refuses a layer early ends it while
// the connection still reads that layer, which panics.
type sending struct {
	tell  func(Progress)   // nil for nobody
	sizes map[string]int64 // of the blobs and the manifest, by their digests

	mu      sync.Mutex // guards what follows
	at      Progress
	done    map[string]bool
	flights map[string]*flight // by the path that they go to
	ended   bool
}

// flight is the bytes of a blob on its way.
type flight struct{ n int64 }

// newSending reads what an image has.
func newSending(img v1.Image, tell func(Progress)) (*sending, error) {
	s := &sending{tell: tell, sizes: map[string]int64{}, done: map[string]bool{}}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	for _, d := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		s.sizes[d.Digest.String()] = d.Size
	}
	s.at.LayersTotal = len(s.sizes)
	for _, size := range s.sizes {
		s.at.BytesTotal += size
	}
	return s, nil
}

// again begins an attempt: what was under way is sent anew, and what is there stays.
func (s *sending) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights = map[string]*flight{}
}

// end is after the last attempt: nothing is told any more but that all is there, where it is.
func (s *sending) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if err == nil && s.tell != nil {
		s.tell(Progress{Layers: s.at.LayersTotal, LayersTotal: s.at.LayersTotal, Bytes: s.at.BytesTotal, BytesTotal: s.at.BytesTotal})
	}
}

// report tells how far it is. It needs mu.
func (s *sending) report() {
	if s.ended || s.tell == nil {
		return
	}
	s.at.Layers, s.at.Bytes = len(s.done), 0
	for digest := range s.done {
		s.at.Bytes += s.sizes[digest]
	}
	for _, f := range s.flights {
		s.at.Bytes += f.n
	}
	s.at.Bytes = min(s.at.Bytes, s.at.BytesTotal)
	s.tell(s.at)
}

// watched is a request whose body is counted, if it is one that carries a blob.
func (s *sending) watched(r *http.Request) *http.Request {
	if r.Method != http.MethodPatch || r.Body == nil || r.Body == http.NoBody {
		return r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &flight{}
	s.flights[r.URL.Path] = f
	out := r.WithContext(r.Context()) // a copy: a transport changes no request
	out.Body = &flightBody{r.Body, s, f}
	if again := r.GetBody; again != nil {
		out.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			if err != nil {
				return nil, err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			f.n = 0
			return &flightBody{body, s, f}, nil
		}
	}
	return out
}

// answered notes which blob an answer says to be there.
func (s *sending) answered(r *http.Request, status int) {
	digest := ""
	switch {
	case !strings.Contains(r.URL.Path, "/blobs/"):
	case r.Method == http.MethodHead && status == http.StatusOK:
		digest = path.Base(r.URL.Path)
	case r.Method == http.MethodPut && status == http.StatusCreated:
		digest = r.URL.Query().Get("digest")
	case r.Method == http.MethodPost && status == http.StatusCreated:
		digest = r.URL.Query().Get("mount")
	}
	if _, known := s.sizes[digest]; !known {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, r.URL.Path)
	s.done[digest] = true
	s.report()
}

// flightBody counts what is read of a body. The connection may read on when the push has ended.
type flightBody struct {
	io.ReadCloser

	s *sending
	f *flight
}

func (b *flightBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.f.n += int64(n)
	b.s.report()
	return n, err
}
