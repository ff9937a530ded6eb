// Package bundle makes what replicas run: it brings files into content by digest, writes and
// reads bundles, unpacks them into directories, and lets them travel as one tar.
//
// Three things are blobs: each file, the manifest of each content (its digest names the content),
// and each bundle.json (its digest names the bundle). The package keeps no state of its own; what
// it leaves behind after a failure is unreferenced, and [Sweep] removes it.
package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

const (
	// Format is the number of the format that this package writes, and the highest that it reads.
	Format = 1
	// descriptor is the file that holds the zarpa.Bundle.
	descriptor = "bundle.json"
	// maxDescriptor bounds bundle.json, and maxManifest a content's manifest.
	maxDescriptor = 64 << 20
	maxManifest   = 64 << 20
	algorithm     = "sha256:"
)

// Build stores the bundle's description and returns its digest, which names the bundle. Equal
// bundles have equal digests: models are put in order of name and version first. The contents
// must be complete ([ReadContent]); their blobs are not looked at.
func Build(ctx context.Context, blobs zarpa.Blobs, b zarpa.Bundle) (string, error) {
	text, err := encode(b)
	if err != nil {
		return "", err
	}
	return putBytes(ctx, blobs, text)
}

// Digest is the digest that Build would return; nothing is stored.
func Digest(b zarpa.Bundle) (string, error) {
	text, err := encode(b)
	if err != nil {
		return "", err
	}
	return digestOf(text), nil
}

// encode is the canonical text of a valid bundle.
func encode(b zarpa.Bundle) ([]byte, error) {
	if b.Format == 0 {
		b.Format = Format
	}
	b.Models = slices.Clone(b.Models)
	slices.SortFunc(b.Models, compareModels)
	if b.Code != nil {
		b.Code = new(*b.Code)
	}
	if b.Environment != nil {
		b.Environment = new(*b.Environment)
	}
	for _, part := range parts(&b) {
		part.content.Files = slices.Clone(part.content.Files)
		slices.SortFunc(part.content.Files, func(x, y zarpa.File) int { return strings.Compare(x.Path, y.Path) })
	}
	if err := validate(b); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", descriptor, err)
	}
	return append(text, '\n'), nil
}

func compareModels(x, y zarpa.BundleModel) int {
	if c := strings.Compare(x.Name, y.Name); c != 0 {
		return c
	}
	return x.Version - y.Version
}

// parse reads a bundle's text, strictly: what it does not know it does not run.
func parse(text []byte) (zarpa.Bundle, error) {
	broken := func(err error) error {
		return zarpa.Errorf(zarpa.Invalid, "%s: cannot be read: %v", descriptor, err).WithHint("it is damaged or was not written by zarpa; package the model again")
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return zarpa.Bundle{}, broken(err)
	}
	if head.Format > Format {
		return zarpa.Bundle{}, zarpa.Errorf(zarpa.Conflict, "%s: format %d, this zarpa knows up to %d", descriptor, head.Format, Format).WithHint("update zarpa on this machine")
	}
	var b zarpa.Bundle
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return zarpa.Bundle{}, broken(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return zarpa.Bundle{}, broken(errors.New("something follows its end"))
	}
	return b, validate(b)
}

func validate(b zarpa.Bundle) error {
	switch {
	case b.Format != Format:
		return zarpa.Errorf(zarpa.Invalid, "%s: format: %d is not known", descriptor, b.Format)
	case b.Engine == "":
		return zarpa.Errorf(zarpa.Invalid, "%s: engine: empty", descriptor).WithHint(`name the engine that runs the models, such as "onnx"`)
	case len(b.Models) == 0 && b.Code == nil:
		return zarpa.Errorf(zarpa.Invalid, "%s: models: empty", descriptor).WithHint("a bundle holds at least one model, or code")
	}
	if err := validateCode(b); err != nil {
		return err
	}
	for i, m := range b.Models {
		if err := validateModel(m); err != nil {
			return err
		}
		if i > 0 && compareModels(b.Models[i-1], m) >= 0 {
			return zarpa.Errorf(zarpa.Invalid, "%s: models: %s:%d stands there twice or out of order", descriptor, m.Name, m.Version)
		}
	}
	return nil
}

func validateModel(m zarpa.BundleModel) error {
	if err := zarpa.ValidateName("model", m.Name); err != nil {
		return err
	}
	if m.Version < 1 {
		return zarpa.Errorf(zarpa.Invalid, "%s: model %q: version: %d is not 1 or more", descriptor, m.Name, m.Version)
	}
	if m.Folder != "" && (zarpa.ValidatePath(m.Folder) != nil || strings.Contains(m.Folder, "/")) {
		return zarpa.Errorf(zarpa.Invalid, "%s: model %s:%d: folder: %.80q is not a name", descriptor, m.Name, m.Version, m.Folder)
	}
	if err := validateContent(m.Content); err != nil {
		return fmt.Errorf("%s: model %s:%d: %w", descriptor, m.Name, m.Version, err)
	}
	if m.File != "" && !holds(m.Content, m.File) {
		return zarpa.Errorf(zarpa.Invalid, "%s: model %s:%d: file: %q is not among its files", descriptor, m.Name, m.Version, m.File)
	}
	return nil
}

func validateCode(b zarpa.Bundle) error {
	if c := b.Code; c != nil {
		if err := validateContent(c.Content); err != nil {
			return fmt.Errorf("%s: code: %w", descriptor, err)
		}
		if !holds(c.Content, c.Entry) {
			return zarpa.Errorf(zarpa.Invalid, "%s: code: entry: %q is not among its files", descriptor, c.Entry)
		}
	}
	if e := b.Environment; e != nil && len(e.Content.Files) > 0 {
		if err := validateContent(e.Content); err != nil {
			return fmt.Errorf("%s: environment: %w", descriptor, err)
		}
	}
	return nil
}

func holds(c zarpa.Content, path string) bool {
	return slices.ContainsFunc(c.Files, func(f zarpa.File) bool { return f.Path == path })
}

// part is one content of a bundle, with the folder that it is in, slash-separated.
type part struct {
	folder  string
	content *zarpa.Content
}

// parts are all contents of a bundle that have files.
func parts(b *zarpa.Bundle) []part {
	var all []part
	for i, m := range b.Models {
		all = append(all, part{path.Join("models", m.Name, strconv.Itoa(m.Version), m.Folder), &b.Models[i].Content})
	}
	if b.Code != nil {
		all = append(all, part{"code", &b.Code.Content})
	}
	if b.Environment != nil && len(b.Environment.Content.Files) > 0 {
		all = append(all, part{"environment", &b.Environment.Content})
	}
	return all
}

// Files are all files of a bundle, with their paths within it.
func Files(b zarpa.Bundle) []zarpa.File {
	var files []zarpa.File
	for _, p := range parts(&b) {
		for _, f := range p.content.Files {
			f.Path = path.Join(p.folder, f.Path)
			files = append(files, f)
		}
	}
	return files
}

// Describe reads what a stored bundle says of itself; not_found when there is none. The blobs of its
// files are not looked at.
func Describe(ctx context.Context, blobs zarpa.Blobs, digest string) (zarpa.Bundle, error) {
	b, _, err := load(ctx, blobs, digest)
	return b, err
}

// Contents are those of a bundle: its models', its code's and its environment's.
func Contents(b zarpa.Bundle) []zarpa.Content {
	var all []zarpa.Content
	for _, p := range parts(&b) {
		all = append(all, *p.content)
	}
	return all
}

// load reads a bundle's description from its blob.
func load(ctx context.Context, blobs zarpa.Blobs, digest string) (zarpa.Bundle, []byte, error) {
	text, err := getBytes(ctx, blobs, digest, maxDescriptor)
	if err != nil {
		return zarpa.Bundle{}, nil, fmt.Errorf("read bundle %s: %w", digest, err)
	}
	b, err := parse(text)
	if err != nil {
		return zarpa.Bundle{}, nil, fmt.Errorf("read bundle %s: %w", digest, err)
	}
	return b, text, nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return algorithm + hex.EncodeToString(sum[:])
}

func validDigest(digest string) bool {
	name, ok := strings.CutPrefix(digest, algorithm)
	return ok && len(name) == sha256.Size*2 && strings.Trim(name, "0123456789abcdef") == ""
}

func putBytes(ctx context.Context, blobs zarpa.Blobs, b []byte) (string, error) {
	info, err := blobs.Put(ctx, bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	return info.Digest, nil
}

// getBytes reads a small blob and checks it against its digest.
func getBytes(ctx context.Context, blobs zarpa.Blobs, digest string, limit int64) ([]byte, error) {
	r, err := blobs.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(reader{ctx, r}, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(b)) > limit:
		return nil, zarpa.Errorf(zarpa.TooLarge, "blob %s: over %d bytes, not a description", digest, limit)
	case digestOf(b) != digest:
		return nil, damaged("blob " + digest)
	}
	return b, nil
}

func damaged(what string) error {
	return zarpa.Errorf(zarpa.Internal, "%s: its bytes do not match its digest", what).WithHint("the disk damaged it; register the model again")
}

// reader ends with its context.
type reader struct {
	ctx context.Context //nolint:containedctx // it lives as long as one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
