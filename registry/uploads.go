package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// uploads are the blobs on their way in.
type uploads struct {
	dir string
	max int

	mu sync.Mutex // guards what follows
	// sums are the digests of what has come so far. An upload of before a restart has none: its file is read again.
	sums map[string]*running
	busy map[string]bool // those that a request writes to
}

// running is the digest of the first bytes of an upload.
type running struct {
	sum  hash.Hash
	size int64
}

func openUploads(o Options) (*uploads, error) {
	u := &uploads{dir: filepath.Join(o.Dir, "uploads"), max: o.MaxUploads, sums: map[string]*running{}, busy: map[string]bool{}}
	return u, os.MkdirAll(u.dir, 0o700)
}

// mark ends the ID of an upload: it belongs to one repository.
func mark(repo string) string {
	sum := sha256.Sum256([]byte(repo))
	return hex.EncodeToString(sum[:4])
}

func (u *uploads) path(id string) string { return filepath.Join(u.dir, id) }

// begin makes an upload.
func (u *uploads) begin(repo string) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	there, err := os.ReadDir(u.dir)
	if err != nil {
		return "", err
	}
	if len(there) >= u.max {
		return "", fail(http.StatusTooManyRequests, "TOOMANYREQUESTS", "%d uploads are under way or were interrupted; the latter are removed after a day", len(there))
	}
	id := strings.ToLower(rand.Text()) + "-" + mark(repo)
	f, err := os.OpenFile(u.path(id), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	u.sums[id] = &running{sum: sha256.New()}
	return id, f.Close()
}

// take gives one request at a time the use of an upload, until release.
func (u *uploads) take(p place) (release func(), err error) {
	unknown := fail(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "there is no such upload in %s: begin another", p.repo)
	if strings.Trim(p.id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || !strings.HasSuffix(p.id, "-"+mark(p.repo)) {
		return nil, unknown
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.busy[p.id] {
		return nil, fail(http.StatusConflict, "BLOB_UPLOAD_INVALID", "another request writes to the upload")
	}
	if _, err := os.Stat(u.path(p.id)); errors.Is(err, fs.ErrNotExist) {
		return nil, unknown
	} else if err != nil {
		return nil, err
	}
	u.busy[p.id] = true
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.busy, p.id)
	}, nil
}

// forget ends an upload that is taken. Its file may be gone already.
func (u *uploads) forget(id string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.sums, id)
	err := os.Remove(u.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// open opens an upload that is taken, at its end, with the digest of what it holds.
func (u *uploads) open(id string) (*os.File, *running, error) {
	f, err := os.OpenFile(u.path(id), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	u.mu.Lock()
	so := u.sums[id]
	u.mu.Unlock()
	if so == nil || so.size != info.Size() {
		so = &running{sum: sha256.New()}
		if so.size, err = io.Copy(so.sum, f); err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		u.mu.Lock()
		u.sums[id] = so
		u.mu.Unlock()
	}
	_, err = f.Seek(so.size, io.SeekStart)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, so, nil
}

// upload answers POST, GET, PATCH, PUT and DELETE of uploads.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, p place) error {
	if p.id == "" {
		if r.Method != http.MethodPost {
			return notAllowed(r)
		}
		return s.beginUpload(w, r, p)
	}
	release, err := s.uploads.take(p)
	if err != nil {
		return err
	}
	defer release()
	switch r.Method {
	case http.MethodGet:
		info, err := os.Stat(s.uploads.path(p.id))
		if err != nil {
			return err
		}
		return accepted(w, p, upTo{info.Size(), http.StatusNoContent})
	case http.MethodPatch:
		size, err := s.receive(w, r, p)
		if err != nil {
			return err
		}
		return accepted(w, p, upTo{size, http.StatusAccepted})
	case http.MethodPut:
		return s.finishUpload(w, r, p)
	case http.MethodDelete:
		if err := s.uploads.forget(p.id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return notAllowed(r)
}

// upTo is how much of an upload is there, and the status that says so.
type upTo struct {
	size   int64
	status int
}

// accepted tells where an upload goes on.
func accepted(w http.ResponseWriter, p place, u upTo) error {
	w.Header().Set("Location", "/v2/"+p.repo+"/blobs/uploads/"+p.id)
	w.Header().Set("Docker-Upload-Uuid", p.id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, u.size-1)))
	w.WriteHeader(u.status)
	return nil
}

func created(w http.ResponseWriter, p place, digest string) {
	w.Header().Set("Location", "/v2/"+p.repo+"/blobs/"+digest)
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
}

// beginUpload mounts a blob, takes one whole, or begins an upload.
func (s *Server) beginUpload(w http.ResponseWriter, r *http.Request, p place) error {
	q := r.URL.Query()
	if mount := q.Get("mount"); mount != "" {
		if hex, err := hexOf(mount); err == nil {
			if err := s.blobs.find(hex); err == nil { // all repositories share it
				created(w, p, mount)
				return nil
			}
		}
	}
	if digest := q.Get("digest"); digest != "" {
		if _, err := hexOf(digest); err != nil {
			return err
		}
	}
	var err error
	if p.id, err = s.uploads.begin(p.repo); err != nil {
		return err
	}
	if q.Get("digest") == "" || q.Get("mount") != "" {
		return accepted(w, p, upTo{0, http.StatusAccepted})
	}
	release, err := s.uploads.take(p)
	if err != nil {
		return err
	}
	defer release()
	if err := s.finishUpload(w, r, p); err != nil { // nobody knows of the upload: there is no going on
		return errors.Join(err, s.uploads.forget(p.id))
	}
	return nil
}

// receive appends a request's body to an upload and returns its size. What came before the client left is kept.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, p place) (int64, error) {
	f, so, err := s.uploads.open(p.id)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // finishUpload syncs
	if err := fits(w, r, p, so.size); err != nil {
		return 0, err
	}
	room := s.o.MaxBlob - so.size
	if r.ContentLength > room {
		return 0, tooLarge(s.o.MaxBlob)
	}
	n, err := io.CopyBuffer(&counted{io.MultiWriter(f, so.sum), so}, io.LimitReader(s.patient(w, r), room+1), make([]byte, bufferLen))
	switch {
	case n > room:
		return 0, errors.Join(tooLarge(s.o.MaxBlob), s.uploads.forget(p.id))
	case err != nil && writeFailed(err):
		return 0, err
	case err != nil:
		return 0, fail(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the blob broke off after %d bytes, which are kept: %v", so.size, err)
	}
	return so.size, nil
}

// bufferLen is how much is copied at a time, in bytes.
const bufferLen = 256 << 10

// writeFailed reports whether it was this side that failed.
func writeFailed(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path)
}

func tooLarge(most int64) error {
	return fail(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "the blob is larger than %d bytes, which the registry takes", most)
}

// counted keeps the size of what its digest is of.
type counted struct {
	w  io.Writer
	so *running
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if err == nil {
		c.so.size += int64(n)
	} else {
		c.so.size = -1 // the digest may be ahead of the file or behind it: it is read again
	}
	return n, err
}

// fits wants a chunk to begin where the upload ends.
func fits(w http.ResponseWriter, r *http.Request, p place, size int64) error {
	text := r.Header.Get("Content-Range")
	if text == "" {
		return nil
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "-")
	to, _, _ = strings.Cut(to, "/")
	start, err1 := strconv.ParseInt(from, 10, 64)
	end, err2 := strconv.ParseInt(to, 10, 64)
	switch {
	case !ok || err1 != nil || err2 != nil || start < 0 || end < start:
		return fail(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "Content-Range: %.80q is not START-END", text)
	case start != size:
		w.Header().Set("Location", "/v2/"+p.repo+"/blobs/uploads/"+p.id)
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, size-1)))
		return fail(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "the chunk begins at %d, and the upload has %d bytes", start, size)
	case r.ContentLength >= 0 && r.ContentLength != end-start+1:
		return fail(http.StatusBadRequest, "SIZE_INVALID", "Content-Range says %d bytes and Content-Length %d", end-start+1, r.ContentLength)
	}
	return nil
}

// patient reads a body that may take long, but not be silent for long.
func (s *Server) patient(w http.ResponseWriter, r *http.Request) io.Reader {
	return &patient{body: r.Body, control: http.NewResponseController(w), stall: s.o.Stall}
}

type patient struct {
	body    io.Reader
	control *http.ResponseController
	stall   time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(p.stall)) // where a connection has none, so be it
	n, err := p.body.Read(b)
	if errors.Is(err, io.EOF) { // else it stays: the server reads on, and must not wait for who is silent
		_ = p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// finishUpload takes the last part, checks the digest and makes the upload a blob.
func (s *Server) finishUpload(w http.ResponseWriter, r *http.Request, p place) error {
	digest := r.URL.Query().Get("digest")
	hexWant, err := hexOf(digest)
	if err != nil {
		return err
	}
	if _, err := s.receive(w, r, p); err != nil {
		return err
	}
	f, so, err := s.uploads.open(p.id)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(so.sum.Sum(nil)); got != hexWant {
		return errors.Join(fail(http.StatusBadRequest, "DIGEST_INVALID", "the content has the digest %s%s and not %s", digestPrefix, got, digest),
			f.Close(), s.uploads.forget(p.id))
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.blobs.settle(s.uploads.path(p.id), hexWant); err != nil {
		return err
	}
	if err := s.uploads.forget(p.id); err != nil {
		return err
	}
	created(w, p, digest)
	return nil
}
