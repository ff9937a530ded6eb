package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// The media types of manifests.
const (
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// description is what is known of a manifest without reading it again.
type description struct {
	digest, mediaType string
	size              int64
	artifactType      string
	annotations       map[string]string
	subject           string   // digest of what it refers to
	blobs, children   []string // digests that it needs
}

// pointer is a descriptor in a manifest.
type pointer struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`
	URLs      []string `json:"urls"`
}

// describe reads a manifest. Errors are of the specification's form.
func describe(mediaType string, raw []byte) (*description, error) {
	bad := func(format string, args ...any) error {
		return fail(http.StatusBadRequest, "MANIFEST_INVALID", format, args...)
	}
	var m struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *pointer          `json:"config"`
		Layers        []pointer         `json:"layers"`
		Manifests     []pointer         `json:"manifests"`
		Subject       *pointer          `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, bad("the manifest is not JSON of a manifest: %v", err)
	}
	sum := sha256.Sum256(raw)
	d := &description{
		digest: digestPrefix + hex.EncodeToString(sum[:]), mediaType: mediaType, size: int64(len(raw)),
		artifactType: m.ArtifactType, annotations: m.Annotations,
	}
	switch {
	case m.SchemaVersion != 2:
		return nil, bad("schemaVersion is %d and not 2", m.SchemaVersion)
	case m.MediaType != "" && m.MediaType != mediaType:
		return nil, bad("the manifest says that it is %.100q, and its Content-Type %.100q", m.MediaType, mediaType)
	}
	switch mediaType {
	case ociManifest, dockerManifest:
		if m.Config == nil {
			return nil, bad("the manifest has no config")
		}
		d.artifactType = cmp.Or(d.artifactType, m.Config.MediaType)
		for _, p := range append(m.Layers, *m.Config) {
			if len(p.URLs) == 0 { // what is elsewhere need not be here
				d.blobs = append(d.blobs, p.Digest)
			}
		}
	case ociIndex, dockerList:
		for _, p := range m.Manifests {
			d.children = append(d.children, p.Digest)
		}
	default:
		return nil, bad("Content-Type: %.100q is no manifest that the registry knows", mediaType)
	}
	if m.Subject != nil {
		d.subject = m.Subject.Digest
		if _, err := hexOf(d.subject); err != nil {
			return nil, bad("subject: %v", err)
		}
	}
	for _, digest := range append(d.blobs, d.children...) {
		if _, err := hexOf(digest); err != nil {
			return nil, bad("%v", err)
		}
	}
	return d, nil
}

// manifest answers GET, HEAD, PUT and DELETE of one manifest.
func (s *Server) manifest(w http.ResponseWriter, r *http.Request, p place) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return s.sendManifest(w, r, p)
	case http.MethodPut:
		return s.putManifest(w, r, p)
	case http.MethodDelete:
		return s.deleteManifest(w, r, p)
	}
	return notAllowed(r)
}

func unknownManifest(p place) error {
	return fail(http.StatusNotFound, "MANIFEST_UNKNOWN", "%s has no manifest %.100s", p.repo, p.id)
}

func (s *Server) sendManifest(w http.ResponseWriter, r *http.Request, p place) error {
	d := s.catalogue.find(p.repo, p.id)
	if d == nil {
		return unknownManifest(p)
	}
	raw, err := s.catalogue.read(p.repo, d)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Docker-Content-Digest", d.digest)
	h.Set("Content-Type", d.mediaType)
	h.Set("Content-Length", strconv.Itoa(len(raw)))
	h.Set("Etag", `"`+d.digest+`"`)
	if strings.Contains(r.Header.Get("If-None-Match"), d.digest) {
		h.Del("Content-Length")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if r.Method == http.MethodGet {
		_, _ = w.Write(raw) // the client left
	}
	return nil
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, p place) error {
	digest, tagged := "", tagPattern.MatchString(p.id)
	if !tagged {
		hex, err := hexOf(p.id)
		if err != nil {
			return fail(http.StatusBadRequest, "MANIFEST_INVALID", "%.140q is neither a tag nor a digest", p.id)
		}
		digest = digestPrefix + hex
	}
	raw, err := io.ReadAll(io.LimitReader(s.patient(w, r), s.o.MaxManifest+1))
	switch {
	case err != nil:
		return fail(http.StatusBadRequest, "MANIFEST_INVALID", "the manifest broke off")
	case int64(len(raw)) > s.o.MaxManifest:
		return fail(http.StatusRequestEntityTooLarge, "SIZE_INVALID", "the manifest is larger than %d bytes, which the registry takes", s.o.MaxManifest)
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return fail(http.StatusBadRequest, "MANIFEST_INVALID", "Content-Type: %v", err)
	}
	d, err := describe(mediaType, raw)
	if err != nil {
		return err
	}
	if !tagged && d.digest != digest {
		return fail(http.StatusBadRequest, "DIGEST_INVALID", "the manifest has the digest %s and not %s", d.digest, digest)
	}
	if err := s.keep(p, d, raw); err != nil {
		return err
	}
	s.o.Changed(r.Context(), "image.push", object(p))
	if d.subject != "" {
		w.Header().Set("Oci-Subject", d.subject)
	}
	w.Header().Set("Location", "/v2/"+p.repo+"/manifests/"+d.digest)
	w.Header().Set("Docker-Content-Digest", d.digest)
	w.WriteHeader(http.StatusCreated)
	return nil
}

// object is what an audit log calls a manifest.
func object(p place) string {
	if strings.HasPrefix(p.id, digestPrefix) {
		return p.repo + "@" + p.id
	}
	return p.repo + ":" + p.id
}

// keep stores a manifest when all is there that it names.
func (s *Server) keep(p place, d *description, raw []byte) error {
	s.blobs.serial.Lock()
	defer s.blobs.serial.Unlock()
	for _, child := range d.children {
		if s.catalogue.find(p.repo, child) == nil {
			return fail(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "%s has no manifest %s, which the index names: push it first", p.repo, child)
		}
	}
	for _, blob := range d.blobs {
		if err := s.blobs.look(strings.TrimPrefix(blob, digestPrefix)); err != nil {
			if _, ok := errors.AsType[*failure](err); ok {
				return fail(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the registry has no blob %s, which the manifest names: push it first", blob)
			}
			return err
		}
	}
	return s.catalogue.put(p, d, raw)
}

func (s *Server) deleteManifest(w http.ResponseWriter, r *http.Request, p place) error {
	err := func() error {
		s.blobs.serial.Lock()
		defer s.blobs.serial.Unlock()
		d := s.catalogue.find(p.repo, p.id)
		if d == nil {
			return unknownManifest(p)
		}
		return s.catalogue.remove(p, d)
	}()
	if err != nil {
		return err
	}
	s.o.Changed(r.Context(), "image.delete", object(p))
	w.WriteHeader(http.StatusAccepted)
	return nil
}
