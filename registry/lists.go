package registry

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxPage is the most names that one answer lists.
const maxPage = 10_000

// page cuts a sorted list as n and last of the query say, and names the next one in a Link header.
func page(w http.ResponseWriter, r *http.Request, names []string) ([]string, error) {
	q, n := r.URL.Query(), maxPage
	if text := q.Get("n"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			return nil, fail(http.StatusBadRequest, "UNSUPPORTED", "n: %.40q is not a number", text)
		}
		n = min(n, maxPage)
	}
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(names, last)
		if found {
			i++
		}
		names = names[i:]
	}
	if len(names) <= n {
		return names, nil
	}
	names = names[:n]
	if n > 0 {
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {names[n-1]}}
		w.Header().Set("Link", "<"+r.URL.Path+"?"+next.Encode()+`>; rel="next"`)
	}
	return names, nil
}

func answer(w http.ResponseWriter, mediaType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client left
	return nil
}

// tags lists the tags of a repository.
func (s *Server) tags(w http.ResponseWriter, r *http.Request, p place) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed(r)
	}
	s.catalogue.mu.RLock()
	repo := s.catalogue.repos[p.repo]
	var names []string
	if repo != nil {
		names = slices.Sorted(maps.Keys(repo.tags))
	}
	s.catalogue.mu.RUnlock()
	if repo == nil {
		return fail(http.StatusNotFound, "NAME_UNKNOWN", "the registry has no repository %s", p.repo)
	}
	names, err := page(w, r, names)
	if err != nil {
		return err
	}
	return answer(w, "application/json", map[string]any{"name": p.repo, "tags": append([]string{}, names...)})
}

// catalog lists the repositories.
func (s *Server) catalog(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed(r)
	}
	s.catalogue.mu.RLock()
	names := slices.Sorted(maps.Keys(s.catalogue.repos))
	s.catalogue.mu.RUnlock()
	names, err := page(w, r, names)
	if err != nil {
		return err
	}
	return answer(w, "application/json", map[string]any{"repositories": append([]string{}, names...)})
}

// referrer is a manifest in the list of those that refer to another.
type referrer struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// referrers lists the manifests of a repository whose subject is a digest; one that nobody refers to, or
// that is not there, has an empty list.
func (s *Server) referrers(w http.ResponseWriter, r *http.Request, p place) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed(r)
	}
	if _, err := hexOf(p.id); err != nil {
		return err
	}
	list := []referrer{}
	wanted := r.URL.Query().Get("artifactType")
	s.catalogue.mu.RLock()
	if repo := s.catalogue.repos[p.repo]; repo != nil {
		for _, d := range repo.manifests {
			if d.subject == p.id && (wanted == "" || wanted == d.artifactType) {
				list = append(list, referrer{d.mediaType, d.digest, d.size, d.artifactType, d.annotations})
			}
		}
	}
	s.catalogue.mu.RUnlock()
	slices.SortFunc(list, func(a, b referrer) int { return strings.Compare(a.Digest, b.Digest) })
	if wanted != "" {
		w.Header().Set("Oci-Filters-Applied", "artifactType")
	}
	return answer(w, ociIndex, map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": list})
}
