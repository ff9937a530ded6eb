package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
)

// Changes are what users do while the product is killed under them. Each notes in the ledger what
// was acknowledged; an answer that was lost with the control plane makes it a maybe.

// family is the model whose versions take the same numbers in different element types: any of
// them can replace another while requests go on.
const family = "family"

// change is one call of a user, chosen before its round begins.
type change struct {
	kind     string
	endpoint *promised // nil for changes of models
	run      func(ctx context.Context) error
}

// lost tells an answer that never came from one that says no.
func lost(err error) bool {
	var e *zarpa.Error
	if !errors.As(err, &e) {
		return err != nil
	}
	return e.Code == zarpa.Unavailable && strings.HasPrefix(e.Message, "cannot reach the server")
}

func (c *crash) register(ctx context.Context, name, source string) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(bundle.TarFiles(ctx, w, source)) }()
	content, err := c.host.client.PutContent(ctx, r)
	_ = r.CloseWithError(io.ErrClosedPipe) // frees the writer when the server left first
	if err != nil {
		return err
	}
	m, err := c.host.client.RegisterModel(ctx, zarpa.Registration{Name: name, Digest: content.Digest})
	switch {
	case lost(err):
		c.library.mu.Lock()
		c.library.maybeNew++
		c.library.mu.Unlock()
		return err
	case err != nil:
		return err
	case c.known[m.Content.Digest] != source:
		return fmt.Errorf("model %s: registered %s as digest %s", m.Ref(), source, m.Content.Digest)
	}
	c.library.add(m)
	return nil
}

func (c *crash) tag(ctx context.Context, ref, value string) error {
	m, err := c.host.client.UpdateModel(ctx, ref, zarpa.ModelPatch{SetTags: map[string]string{"round": value}})
	c.library.mu.Lock()
	defer c.library.mu.Unlock()
	if lost(err) {
		c.library.maybeTag[ref] = value
	}
	if err == nil {
		c.library.models[ref] = m
	}
	return err
}

func (c *crash) deleteModel(ctx context.Context, ref string) error {
	err := c.host.client.DeleteModel(ctx, ref)
	c.library.mu.Lock()
	defer c.library.mu.Unlock()
	if lost(err) {
		c.library.maybeDeleted[ref] = true
	}
	if err == nil {
		delete(c.library.models, ref)
		c.library.deleted[ref] = true
	}
	return err
}

// put creates or changes an endpoint and waits for the operation, as long as the server lives.
func (c *crash) put(ctx context.Context, p *promised, spec zarpa.EndpointSpec) error {
	answer, err := c.host.client.PutEndpoint(ctx, p.endpoint, spec, nil)
	if lost(err) {
		p.maybeSpec = &spec
		return err
	}
	if err != nil {
		return err
	}
	if answer.Operation == nil {
		return fmt.Errorf("endpoint %s: the change %s is no change", p.endpoint, specText(spec))
	}
	created := !p.exists
	p.exists, p.generation, p.spec = true, answer.Operation.Generation, spec
	op, err := c.host.client.Wait(ctx, *answer.Operation, nil)
	if err != nil || op.State != zarpa.OperationSucceeded || !created {
		return ignoreLost(err) // the change itself was acknowledged; settle looks at its operation
	}
	keys, err := c.host.client.Keys(ctx, p.endpoint)
	if err != nil {
		return ignoreLost(err)
	}
	p.keys, p.knowsKeys = keys, true
	p.set(true, keys.Primary) // succeeded means that requests are answered from now on
	return nil
}

func ignoreLost(err error) error {
	if lost(err) {
		return nil
	}
	return err
}

// rotate makes one key anew while callers use the other: no request may notice.
func (c *crash) rotate(ctx context.Context, p *promised, which string) error {
	old, other := p.keys.Primary, p.keys.Secondary
	if which == "secondary" {
		old, other = other, old
	}
	p.set(true, other)
	keys, err := c.host.client.RegenerateKey(ctx, p.endpoint, which)
	if lost(err) {
		p.maybeKey = which
	}
	if err != nil {
		return err
	}
	p.keys, p.retired = keys, old
	return nil
}

func (c *crash) delete(ctx context.Context, p *promised) error {
	p.set(false, "")
	answer, err := c.host.client.DeleteEndpoint(ctx, p.endpoint)
	if lost(err) {
		p.maybeDelete = true
	}
	if err != nil {
		return err
	}
	p.exists = false
	_, err = c.host.client.Wait(ctx, *answer.Operation, nil)
	return ignoreLost(err)
}

// spec is a deployment of the family on an endpoint of its own.
func spec(d zarpa.DeploymentSpec) zarpa.EndpointSpec {
	d.Name, d.Target = zarpa.DefaultDeployment, zarpa.DefaultTarget
	return zarpa.EndpointSpec{Deployments: []zarpa.DeploymentSpec{d}}
}

// changed is an endpoint's spec with its deployment changed.
func changed(s zarpa.EndpointSpec, change func(*zarpa.DeploymentSpec)) zarpa.EndpointSpec {
	s.Deployments = slices.Clone(s.Deployments)
	s.Deployments[0].Env = maps.Clone(s.Deployments[0].Env)
	change(&s.Deployments[0])
	return s
}

// contentDigest is computed here anew, from the words of the API's description: the SHA-256 over
// one line "<sha256 hex> <size> <path>\n" per file, in the order of paths.
func contentDigest(files map[string][]byte) string {
	var manifest bytes.Buffer
	for _, path := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256(files[path])
		fmt.Fprintf(&manifest, "%s %d %s\n", hex.EncodeToString(sum[:]), len(files[path]), path)
	}
	sum := sha256.Sum256(manifest.Bytes())
	return "sha256:" + hex.EncodeToString(sum[:])
}

// readSource reads a model's file, or all files of its folder.
func readSource(source string) (map[string][]byte, error) {
	files := map[string][]byte{}
	info, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		files[filepath.Base(source)], err = os.ReadFile(source)
		return files, err
	}
	err = fs.WalkDir(os.DirFS(source), ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files[path], err = os.ReadFile(filepath.Join(source, path))
		}
		return err
	})
	return files, err
}

// download reads a model back and compares every byte with what was sent.
func (c *crash) download(ctx context.Context, ref string) error {
	content, err := c.host.client.ModelContent(ctx, ref)
	if err != nil {
		return fmt.Errorf("download %s: %w", ref, err)
	}
	defer content.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			files[h.Name], err = io.ReadAll(r)
		}
		if err != nil {
			return fmt.Errorf("download %s: %w", ref, err)
		}
	}
	c.library.mu.Lock()
	wanted := c.library.models[ref].Content.Digest
	c.library.mu.Unlock()
	source, err := readSource(c.known[wanted])
	if err != nil {
		return err
	}
	if !maps.EqualFunc(files, source, bytes.Equal) || contentDigest(files) != wanted {
		return fmt.Errorf("download %s: not the files that were registered", ref)
	}
	return nil
}
