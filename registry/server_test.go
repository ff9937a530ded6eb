package registry_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/zarpa-dev/zarpa/registry"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

// subject is a registry over TCP.
type subject struct {
	*httptest.Server
	reg  *registry.Server
	opts registry.Options
	mu   sync.Mutex // guards changes
	// changes are what was told of pushes and deletes.
	changes []string
}

func serve(t *testing.T, o registry.Options) *subject {
	t.Helper()
	s := &subject{}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Changed = func(_ context.Context, action, object string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changes = append(s.changes, action+" "+object)
	}
	reg, err := registry.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.reg, s.opts, s.Server = reg, o, httptest.NewServer(reg)
	t.Cleanup(s.Close)
	return s
}

func (s *subject) host() string { return strings.TrimPrefix(s.URL, "http://") }

// reply is an answer, read.
type reply struct {
	code   int
	header http.Header
	body   string
}

// ask sends a request; header has pairs of name and value.
func (s *subject) ask(t *testing.T, method, path, body string, header ...string) reply {
	t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = s.URL + path
	}
	req, err := http.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

// wants ends the test unless the answer has the status and the text.
func (r reply) wants(t *testing.T, code int, text string) reply {
	t.Helper()
	if r.code != code || !strings.Contains(r.body, text) {
		t.Fatalf("%d %s %v, want %d %q", r.code, r.body, r.header, code, text)
	}
	return r
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// blob pushes content in one request.
func (s *subject) blob(t *testing.T, repo, content string) string {
	t.Helper()
	d := digestOf(content)
	s.ask(t, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d, content).wants(t, 201, "")
	return d
}

// artefact is a manifest of a config and a layer that were pushed.
func (s *subject) artefact(t *testing.T, repo, content string, more map[string]any) string {
	t.Helper()
	m := map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": map[string]any{"mediaType": "application/vnd.test+json", "digest": s.blob(t, repo, "{}"), "size": 2},
		"layers": []any{map[string]any{"mediaType": "text/plain", "digest": s.blob(t, repo, content), "size": len(content)}},
	}
	maps.Copy(m, more)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBlobsArriveInEveryWay(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	const content = "hello, registry"
	d := digestOf(content)
	s.ask(t, "HEAD", "/v2/a/b/blobs/"+d, "").wants(t, 404, "")
	s.ask(t, "GET", "/v2/a/b/blobs/"+d, "").wants(t, 404, "BLOB_UNKNOWN")
	// in one PUT
	loc := s.ask(t, "POST", "/v2/a/b/blobs/uploads/", "").wants(t, 202, "").header.Get("Location")
	s.ask(t, "PUT", s.URL+loc+"?digest="+d, content).wants(t, 201, "")
	got := s.ask(t, "GET", "/v2/a/b/blobs/"+d, "").wants(t, 200, content)
	if got.header.Get("Docker-Content-Digest") != d {
		t.Errorf("headers %v", got.header)
	}
	if head := s.ask(t, "HEAD", "/v2/a/b/blobs/"+d, ""); head.code != 200 || head.header.Get("Content-Length") != strconv.Itoa(len(content)) {
		t.Errorf("HEAD: %+v", head)
	}
	s.ask(t, "GET", "/v2/a/b/blobs/"+d, "", "Range", "bytes=7-9").wants(t, 206, "reg")
	s.ask(t, "GET", "/v2/a/b/blobs/"+d, "", "Range", "bytes=900-").wants(t, 416, "")
	// in chunks, of which one comes twice and one too early
	const chunked = "abcdefghij"
	loc = s.ask(t, "POST", "/v2/a/b/blobs/uploads/", "").header.Get("Location")
	s.ask(t, "PATCH", loc, chunked[:4], "Content-Range", "0-3").wants(t, 202, "")
	twice := s.ask(t, "PATCH", loc, chunked[:4], "Content-Range", "0-3").wants(t, 416, "the upload has 4 bytes")
	if twice.header.Get("Range") != "0-3" {
		t.Errorf("where to go on: %v", twice.header)
	}
	s.ask(t, "PATCH", loc, chunked[6:], "Content-Range", "6-9").wants(t, 416, "begins at 6")
	s.ask(t, "PATCH", loc, "x", "Content-Range", "4-9").wants(t, 400, "SIZE_INVALID")
	s.ask(t, "PATCH", loc, "x", "Content-Range", "four").wants(t, 400, "START-END")
	if st := s.ask(t, "GET", loc, "").wants(t, 204, ""); st.header.Get("Range") != "0-3" {
		t.Errorf("status: %v", st.header)
	}
	s.ask(t, "PATCH", loc, chunked[4:8], "Content-Range", "4-7").wants(t, 202, "")
	s.ask(t, "PUT", s.URL+loc+"?digest="+digestOf(chunked), chunked[8:]).wants(t, 201, "")
	s.ask(t, "GET", loc, "").wants(t, 404, "BLOB_UPLOAD_UNKNOWN")
	// mounted, and not
	s.ask(t, "POST", "/v2/c/blobs/uploads/?mount="+d+"&from=a/b", "").wants(t, 201, "")
	s.ask(t, "POST", "/v2/c/blobs/uploads/?mount="+digestOf("nobody's")+"&from=a/b", "").wants(t, 202, "")
	// given up
	loc = s.ask(t, "POST", "/v2/a/b/blobs/uploads/", "").header.Get("Location")
	s.ask(t, "DELETE", loc, "").wants(t, 204, "")
	s.ask(t, "PATCH", loc, "x").wants(t, 404, "BLOB_UPLOAD_UNKNOWN")
}

func TestWhatIsWrongIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{MaxBlob: 1000, MaxManifest: 2000, MaxUploads: 20})
	m := s.artefact(t, "a", "content", nil)
	upload := func(repo string) string {
		return s.ask(t, "POST", "/v2/"+repo+"/blobs/uploads/", "").wants(t, 202, "").header.Get("Location")
	}
	big := strings.Repeat("x", 1001)
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/v2/a/blobs/uploads/?digest=" + digestOf("x"), "y", 400, "DIGEST_INVALID"},
		{"POST", "/v2/a/blobs/uploads/?digest=sha512:00", "y", 400, "DIGEST_INVALID"},
		{"POST", "/v2/a/blobs/uploads/?digest=" + digestOf(big), big, 413, "SIZE_INVALID"},
		{"PATCH", upload("a"), big, 413, "SIZE_INVALID"},
		{"PUT", upload("a"), "x", 400, "DIGEST_INVALID"},
		{"PUT", strings.Replace(upload("a"), "/v2/a/", "/v2/b/", 1) + "?digest=" + digestOf("x"), "x", 404, "BLOB_UPLOAD_UNKNOWN"},
		{"GET", "/v2/a/blobs/uploads/..%2f..%2fx", "", 404, ""},
		{"GET", "/v2/a/blobs/sha256:../../x", "", 404, ""},
		{"GET", "/v2/a/blobs/sha256:" + strings.Repeat("G", 64), "", 400, "DIGEST_INVALID"},
		{"GET", "/v2/A/tags/list", "", 400, "NAME_INVALID"},
		{"GET", "/v2/_manifests/tags/list", "", 400, "NAME_INVALID"},
		{"GET", "/v2/a//b/tags/list", "", 400, "NAME_INVALID"},
		{"GET", "/v2/" + strings.Repeat("a", 256) + "/tags/list", "", 400, "NAME_INVALID"},
		{"GET", "/v2/a/nothing", "", 404, "UNSUPPORTED"},
		{"GET", "/v2/nobody/tags/list", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/a/manifests/nothing", "", 404, "MANIFEST_UNKNOWN"},
		{"PUT", "/v2/a/manifests/.x", m, 400, "neither a tag nor a digest"},
		{"PUT", "/v2/a/manifests/" + digestOf("x"), m, 400, "DIGEST_INVALID"},
		{"PUT", "/v2/a/manifests/t", "{", 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/a/manifests/t", `{"schemaVersion": 1}`, 400, "schemaVersion is 1"},
		{"PUT", "/v2/a/manifests/t", `{"schemaVersion": 2}`, 400, "no config"},
		{"PUT", "/v2/a/manifests/t", `{"schemaVersion": 2, "mediaType": "x/y"}`, 400, "its Content-Type"},
		{"PUT", "/v2/a/manifests/t", strings.Replace(m, digestOf("content"), digestOf("other"), 1), 404, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "/v2/a/manifests/t", strings.Replace(m, digestOf("content"), "../../x", 1), 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/a/manifests/t", m + strings.Repeat(" ", 2000), 413, "SIZE_INVALID"},
		{"POST", "/v2/a/manifests/t", m, 405, "UNSUPPORTED"},
		{"DELETE", "/v2/a/manifests/t", "", 404, "MANIFEST_UNKNOWN"},
		{"DELETE", "/v2/a/blobs/" + digestOf("x"), "", 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/a/tags/list?n=x", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/_catalog?n=x", "", 400, "not a number"},
	} {
		got := s.ask(t, c.method, c.path, c.body, "Content-Type", manifestType)
		if got.code != c.code || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, got.code, got.body, c.code, c.want)
		}
	}
	s.ask(t, "PUT", "/v2/a/manifests/t", m, "Content-Type", "application/vnd.docker.distribution.manifest.v1+json").wants(t, 400, "MANIFEST_INVALID")
	index := fmt.Sprintf(`{"schemaVersion": 2, "manifests": [{"digest": %q}]}`, digestOf("nobody"))
	s.ask(t, "PUT", "/v2/a/manifests/t", index, "Content-Type", indexType).wants(t, 404, "MANIFEST_BLOB_UNKNOWN")
	for s.ask(t, "POST", "/v2/a/blobs/uploads/", "").code == 202 {
	}
	s.ask(t, "POST", "/v2/a/blobs/uploads/", "").wants(t, 429, "TOOMANYREQUESTS")
}

func TestManifestsTagsAndReferrers(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	s.ask(t, "GET", "/v2/", "").wants(t, 200, "{}")
	m := s.artefact(t, "models/iris", "one", nil)
	d := digestOf(m)
	put := s.ask(t, "PUT", "/v2/models/iris/manifests/v1", m, "Content-Type", manifestType).wants(t, 201, "")
	if put.header.Get("Docker-Content-Digest") != d {
		t.Fatalf("%v", put.header)
	}
	for _, ref := range []string{"v1", d} {
		got := s.ask(t, "GET", "/v2/models/iris/manifests/"+ref, "").wants(t, 200, "")
		if got.body != m || got.header.Get("Content-Type") != manifestType || got.header.Get("Docker-Content-Digest") != d {
			t.Errorf("%s: %+v", ref, got)
		}
		s.ask(t, "HEAD", "/v2/models/iris/manifests/"+ref, "").wants(t, 200, "")
	}
	for _, tag := range []string{"v2", "v3", "latest"} {
		s.ask(t, "PUT", "/v2/models/iris/manifests/"+tag, m, "Content-Type", manifestType).wants(t, 201, "")
	}
	s.ask(t, "GET", "/v2/models/iris/tags/list", "").wants(t, 200, `"tags":["latest","v1","v2","v3"]`)
	first := s.ask(t, "GET", "/v2/models/iris/tags/list?n=2", "").wants(t, 200, `"tags":["latest","v1"]`)
	if link := first.header.Get("Link"); link != `</v2/models/iris/tags/list?last=v1&n=2>; rel="next"` {
		t.Errorf("Link: %s", link)
	}
	s.ask(t, "GET", "/v2/models/iris/tags/list?n=2&last=v1", "").wants(t, 200, `"tags":["v2","v3"]`)
	s.ask(t, "GET", "/v2/models/iris/tags/list?last=v2x", "").wants(t, 200, `"tags":["v3"]`)
	s.ask(t, "GET", "/v2/models/iris/tags/list?n=0", "").wants(t, 200, `"tags":[]`)
	s.ask(t, "GET", "/v2/_catalog", "").wants(t, 200, `["models/iris"]`)
	// who refers to it
	s.ask(t, "GET", "/v2/models/iris/referrers/"+d, "").wants(t, 200, `"manifests":[]`)
	s.ask(t, "GET", "/v2/nobody/referrers/"+d, "").wants(t, 200, `"manifests":[]`)
	for _, kind := range []string{"signature", "sbom"} {
		r := s.artefact(t, "models/iris", kind, map[string]any{
			"artifactType": "application/vnd." + kind, "annotations": map[string]string{"of": kind},
			"subject": map[string]any{"mediaType": manifestType, "digest": d, "size": len(m)},
		})
		if a := s.ask(t, "PUT", "/v2/models/iris/manifests/"+digestOf(r), r, "Content-Type", manifestType).wants(t, 201, ""); a.header.Get("OCI-Subject") != d {
			t.Errorf("%v", a.header)
		}
	}
	all := s.ask(t, "GET", "/v2/models/iris/referrers/"+d, "").wants(t, 200, "vnd.signature")
	if !strings.Contains(all.body, "vnd.sbom") || all.header.Get("Content-Type") != indexType {
		t.Errorf("%+v", all)
	}
	one := s.ask(t, "GET", "/v2/models/iris/referrers/"+d+"?artifactType=application/vnd.sbom", "").wants(t, 200, `"of":"sbom"`)
	if strings.Contains(one.body, "signature") || one.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("%+v", one)
	}
	// a tag goes alone, a manifest with its tags, a blob when nobody names it
	s.ask(t, "DELETE", "/v2/models/iris/manifests/v3", "").wants(t, 202, "")
	s.ask(t, "GET", "/v2/models/iris/manifests/"+d, "").wants(t, 200, "")
	s.ask(t, "DELETE", "/v2/models/iris/blobs/"+digestOf("one"), "").wants(t, 405, "a manifest in models/iris names the blob")
	s.ask(t, "DELETE", "/v2/models/iris/manifests/"+d, "").wants(t, 202, "")
	s.ask(t, "GET", "/v2/models/iris/tags/list", "").wants(t, 200, `"tags":[]`)
	s.ask(t, "DELETE", "/v2/models/iris/blobs/"+digestOf("one"), "").wants(t, 202, "")
	s.ask(t, "GET", "/v2/models/iris/blobs/"+digestOf("one"), "").wants(t, 404, "")
	if n := len(s.changes); n != 8 || s.changes[0] != "image.push models/iris:v1" || s.changes[7] != "image.delete models/iris@"+d {
		t.Errorf("told of %q", s.changes)
	}
}

// TestWhatWasAcknowledgedIsThereAfterAKill opens the directory anew while the old server is still there, as
// after a kill: nothing is written at a server's end.
func TestWhatWasAcknowledgedIsThereAfterAKill(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	m := s.artefact(t, "a", "one", nil)
	for _, tag := range []string{"v1", "v2"} {
		s.ask(t, "PUT", "/v2/a/manifests/"+tag, m, "Content-Type", manifestType).wants(t, 201, "")
	}
	s.ask(t, "DELETE", "/v2/a/manifests/v2", "").wants(t, 202, "")
	loc := s.ask(t, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	s.ask(t, "PATCH", loc, "half").wants(t, 202, "")
	// what a kill leaves half: a file on its way in, a tag whose manifest is gone
	tags := filepath.Join(s.opts.Dir, "repos", "a", "_tags")
	for name, text := range map[string]string{".tmp-1": "sha2", "dangling": digestOf("nobody")} {
		if err := os.WriteFile(filepath.Join(tags, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after := serve(t, registry.Options{Dir: s.opts.Dir})
	after.ask(t, "GET", "/v2/a/tags/list", "").wants(t, 200, `"tags":["v1"]`)
	after.ask(t, "GET", "/v2/a/manifests/v1", "").wants(t, 200, m)
	after.ask(t, "PUT", after.URL+loc+"?digest="+digestOf("half done"), " done").wants(t, 201, "")
	left, err := os.ReadDir(tags)
	if err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
	// a manifest that the disk damaged is not served
	path := filepath.Join(s.opts.Dir, "repos", "a", "_manifests", strings.TrimPrefix(digestOf(m), "sha256:"))
	if err := os.WriteFile(path, []byte(manifestType+"\n"+m[:20]), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, registry.Options{Dir: s.opts.Dir}).ask(t, "GET", "/v2/a/manifests/v1", "").wants(t, 404, "MANIFEST_UNKNOWN")
}

// part sends a PATCH that promises size bytes, and of them what is given. It is no client of net/http's: such
// a one waits for its body's reader before it says that a connection ended, and a reader that has no more to
// give before the test goes on never comes back.
func (s *subject) part(t *testing.T, path, given string, size int) *net.TCPConn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil { // nothing here takes a second
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", path, s.host(), size, given); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// replyOn reads the answer to what was sent on a connection.
func replyOn(t *testing.T, conn net.Conn) reply {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func TestAnInterruptedUploadGoesOn(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	content := strings.Repeat("0123456789", 100_000)
	loc := s.ask(t, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	conn := s.part(t, loc, content[:600_000], len(content))
	if err := conn.CloseWrite(); err != nil { // the client dies, and its ghost hears how the server took it
		t.Fatal(err)
	}
	replyOn(t, conn).wants(t, 400, "broke off after 600000 bytes, which are kept")
	if st := s.ask(t, "GET", loc, "").wants(t, 204, ""); st.header.Get("Range") != "0-599999" {
		t.Fatalf("kept: %v", st.header)
	}
	s.ask(t, "PUT", s.URL+loc+"?digest="+digestOf(content), content[600_000:]).wants(t, 201, "")
}

func TestASilentClientIsLetGo(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{Stall: 50 * time.Millisecond})
	loc := s.ask(t, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	conn := s.part(t, loc, "a few bytes", 1000)
	replyOn(t, conn).wants(t, 400, "broke off after 11 bytes, which are kept")
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the connection stays: %d %v", n, err)
	}
	s.ask(t, "DELETE", loc, "").wants(t, 204, "")
}

func TestSweepSparesWhatIsNamedOrYoung(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	m := s.artefact(t, "a", "named", nil)
	s.ask(t, "PUT", "/v2/a/manifests/v1", m, "Content-Type", manifestType).wants(t, 201, "")
	loose := s.blob(t, "a", "loose")
	loc := s.ask(t, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	swept, err := s.reg.Sweep(t.Context(), time.Now().Add(-time.Hour))
	if err != nil || swept != (registry.Swept{}) {
		t.Fatalf("young: %+v %v", swept, err)
	}
	swept, err = s.reg.Sweep(t.Context(), time.Now().Add(time.Hour))
	if err != nil || swept != (registry.Swept{Blobs: 1, Uploads: 1, Bytes: int64(len("loose"))}) {
		t.Fatalf("%+v %v", swept, err)
	}
	s.ask(t, "GET", "/v2/a/blobs/"+loose, "").wants(t, 404, "")
	s.ask(t, "GET", "/v2/a/blobs/"+digestOf("named"), "").wants(t, 200, "named")
	s.ask(t, "PATCH", loc, "x").wants(t, 404, "")
}

// TestPushesAndSweepsAtATime looks for an image whose layers were swept away under it.
func TestPushesAndSweepsAtATime(t *testing.T) {
	t.Parallel()
	s := serve(t, registry.Options{})
	stop, swept := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				swept <- nil
				return
			default:
				if _, err := s.reg.Sweep(context.WithoutCancel(t.Context()), time.Now().Add(-time.Minute)); err != nil {
					swept <- err
					return
				}
			}
		}
	}()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 5 {
				img, err := random.Image(1000, 3)
				if err != nil {
					t.Error(err)
					return
				}
				ref := fmt.Sprintf("%s/many/%d:%d", s.host(), i, j)
				if err := crane.Push(img, ref); err != nil {
					t.Error(err)
				}
				if _, err := crane.Pull(ref); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	if err := <-swept; err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
