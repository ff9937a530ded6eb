package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Options configure a [Server]. Dir is needed; other zero fields take the defaults.
type Options struct {
	// Dir holds everything. One process at a time may serve it.
	Dir string
	// MaxManifest bounds one manifest, in bytes; 0 is [DefaultMaxManifest].
	MaxManifest int64
	// MaxBlob bounds one blob, in bytes; 0 is [DefaultMaxBlob].
	MaxBlob int64
	// MaxUploads bounds the uploads that are under way or interrupted; 0 is [DefaultMaxUploads].
	MaxUploads int
	// Stall is how long a client that sends a blob may be silent; 0 is [DefaultStall].
	Stall time.Duration
	// Changed is told of every push and delete of a manifest ("image.push" or "image.delete", and the
	// repository with its tag or digest), in the request's context; nil for nobody.
	Changed func(ctx context.Context, action, object string)
	Log     *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// The defaults of [Options].
const (
	DefaultMaxManifest = 4 << 20
	DefaultMaxBlob     = 64 << 30
	DefaultMaxUploads  = 1000
	DefaultStall       = time.Minute
)

// Server is a registry after the OCI distribution specification 1.1, in a directory:
//
//	blobs/ab/HEX               content by SHA-256
//	uploads/ID                 content on its way in
//	repos/NAME/_manifests/HEX  a manifest, behind a line with its media type
//	repos/NAME/_tags/TAG       the digest that the tag stands for
//
// What it acknowledged survives the loss of power; a kill at any point leaves nothing half. Blobs are shared by
// all repositories: who may read one may read all. It asks for no credentials: that is its caller's. All
// methods may be called from many goroutines.
type Server struct {
	o         Options
	blobs     *blobs
	uploads   *uploads
	catalogue *catalogue
}

var _ http.Handler = (*Server)(nil)

// Open opens the directory, or makes it, and reads what it holds.
func Open(ctx context.Context, o Options) (*Server, error) {
	o.MaxManifest = cmp.Or(o.MaxManifest, DefaultMaxManifest)
	o.MaxBlob = cmp.Or(o.MaxBlob, DefaultMaxBlob)
	o.MaxUploads = cmp.Or(o.MaxUploads, DefaultMaxUploads)
	o.Stall = cmp.Or(o.Stall, DefaultStall)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Changed == nil {
		o.Changed = func(context.Context, string, string) {}
	}
	s := &Server{o: o}
	var err error
	if s.blobs, err = openBlobs(o); err == nil {
		s.uploads, err = openUploads(o)
	}
	if err == nil {
		s.catalogue, err = openCatalogue(ctx, o)
	}
	if err == nil {
		err = syncFolder(o.Dir) // the folders made in it, before anything is acknowledged
	}
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Unavailable, "the registry in %s cannot be opened: %w", o.Dir, err).
			WithHint("make it writable for this user, or turn the registry off with zarpa up --no-registry")
	}
	return s, nil
}

// failure is an error of the specification's form.
type failure struct {
	status        int
	code, message string
}

func (f *failure) Error() string { return f.code + ": " + f.message }

func fail(status int, code, format string, args ...any) error {
	return &failure{status, code, fmt.Sprintf(format, args...)}
}

// WriteError answers in the specification's form.
func WriteError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	body := map[string]any{"errors": []any{map[string]any{"code": code, "message": message}}}
	_ = json.NewEncoder(w).Encode(body) // the client left
}

// ServeHTTP answers everything under /v2/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	err := s.serve(w, r)
	var known *failure
	switch {
	case err == nil:
	case errors.As(err, &known):
		WriteError(w, known.status, known.code, known.message)
	case r.Context().Err() != nil: // nobody reads it
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		s.o.Log.Error("the registry's disk is full", "path", r.URL.Path, "error", err)
		WriteError(w, http.StatusInsufficientStorage, "INSUFFICIENT_STORAGE", "the registry's disk is full")
	default:
		s.o.Log.Error("a call of the registry failed", "method", r.Method, "path", r.URL.Path, "error", err)
		WriteError(w, http.StatusInternalServerError, "UNKNOWN", "the registry failed; its log says why")
	}
}

// place is what a path names.
type place struct {
	repo string
	kind string // manifests, blobs, uploads, tags or referrers
	id   string // tag, digest or upload; "" for a new upload
}

var (
	repoPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// maxRepo bounds a repository's name, as usual clients do.
const maxRepo = 255

// locate reads a path below /v2/.
func locate(path string) (place, error) {
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	n := len(parts)
	var p place
	switch {
	case n >= 3 && (parts[n-2] == "manifests" || parts[n-2] == "referrers" || parts[n-2] == "tags" && parts[n-1] == "list"):
		p = place{strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1]}
	case n >= 4 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		p = place{strings.Join(parts[:n-3], "/"), "uploads", parts[n-1]}
	case n >= 3 && parts[n-2] == "blobs" && parts[n-1] == "uploads":
		p = place{strings.Join(parts[:n-2], "/"), "uploads", ""}
	case n >= 3 && parts[n-2] == "blobs":
		p = place{strings.Join(parts[:n-2], "/"), "blobs", parts[n-1]}
	default:
		return p, fail(http.StatusNotFound, "UNSUPPORTED", "the registry has no such call")
	}
	if len(p.repo) > maxRepo || !repoPattern.MatchString(p.repo) {
		return p, fail(http.StatusBadRequest, "NAME_INVALID", "%.80q is not a repository's name: use small letters, digits and single . _ - between them", p.repo)
	}
	return p, nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case !ok && r.URL.Path != "/v2":
		return fail(http.StatusNotFound, "UNSUPPORTED", "the registry has no such call")
	case path == "":
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{}"))
		return nil
	case path == "_catalog":
		return s.catalog(w, r)
	}
	p, err := locate(path)
	if err != nil {
		return err
	}
	switch p.kind {
	case "manifests":
		return s.manifest(w, r, p)
	case "blobs":
		return s.blob(w, r, p)
	case "uploads":
		return s.upload(w, r, p)
	case "tags":
		return s.tags(w, r, p)
	default:
		return s.referrers(w, r, p)
	}
}

func notAllowed(r *http.Request) error {
	return fail(http.StatusMethodNotAllowed, "UNSUPPORTED", "%.20s is not possible there", r.Method)
}

const digestPrefix = "sha256:"

// hexOf is the hexadecimal part of a digest.
func hexOf(digest string) (string, error) {
	hex, ok := strings.CutPrefix(digest, digestPrefix)
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fail(http.StatusBadRequest, "DIGEST_INVALID", "%.100q is not a digest: write sha256: and 64 hexadecimal digits", digest)
	}
	return hex, nil
}
