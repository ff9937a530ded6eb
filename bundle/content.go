package bundle

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/zarpa-dev/zarpa"
)

// Limits bound what comes from outside. Zero fields mean the defaults.
type Limits struct {
	Files int   // number of files, [DefaultFiles]
	Bytes int64 // sum of their sizes, [DefaultBytes]
}

// The defaults of Limits.
const (
	DefaultFiles = 10_000
	DefaultBytes = 64 << 30
)

func (l Limits) withDefaults() Limits {
	if l.Files == 0 {
		l.Files = DefaultFiles
	}
	if l.Bytes == 0 {
		l.Bytes = DefaultBytes
	}
	return l
}

// manifest is the text whose digest names a content: "<sha256 hex> <size> <path>\n" for each file.
func manifest(files []zarpa.File) []byte {
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "%s %d %s\n", strings.TrimPrefix(f.Digest, algorithm), f.Size, f.Path)
	}
	return b.Bytes()
}

// contentOf is the content of files in any order.
func contentOf(files []zarpa.File) zarpa.Content {
	slices.SortFunc(files, func(x, y zarpa.File) int { return strings.Compare(x.Path, y.Path) })
	c := zarpa.Content{Files: files, Digest: digestOf(manifest(files))}
	for _, f := range files {
		c.Size += f.Size
	}
	return c
}

// ReadContent reads the manifest that digest names. not_found when there is none, invalid when
// the blob is something else. The files' own blobs are not looked at.
func ReadContent(ctx context.Context, blobs zarpa.Blobs, digest string) (zarpa.Content, error) {
	text, err := getBytes(ctx, blobs, digest, maxManifest)
	if err != nil {
		return zarpa.Content{}, fmt.Errorf("read content %s: %w", digest, err)
	}
	files, err := parseManifest(text)
	if err != nil {
		return zarpa.Content{}, fmt.Errorf("read content %s: %w", digest, err)
	}
	return contentOf(files), nil
}

// parseManifest reads exactly what manifest writes, and nothing else.
func parseManifest(text []byte) ([]zarpa.File, error) {
	bad := func(line int, why string) error {
		return zarpa.Errorf(zarpa.Invalid, "manifest, line %d: %s", line, why).WithHint("name the digest of a content, as the upload of the files gave it")
	}
	if len(text) == 0 || text[len(text)-1] != '\n' {
		return nil, bad(1, "not a manifest of files")
	}
	var files []zarpa.File
	names, total, number := newPathSet(), int64(0), 0
	for line := range strings.Lines(string(text)) {
		number++
		hex, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		sizeText, name, _ := strings.Cut(rest, " ")
		size, err := strconv.ParseInt(sizeText, 10, 64)
		f := zarpa.File{Path: name, Digest: algorithm + hex, Size: size}
		switch {
		case !validDigest(f.Digest):
			return nil, bad(number, "not a manifest of files")
		case err != nil || size < 0 || strconv.FormatInt(size, 10) != sizeText:
			return nil, bad(number, fmt.Sprintf("size %.30q: not a number", sizeText))
		case size > math.MaxInt64-total:
			return nil, bad(number, "the sizes are too large")
		case len(files) > 0 && files[len(files)-1].Path >= name:
			return nil, bad(number, fmt.Sprintf("path %.80q: out of order", name))
		}
		if err := names.add(name); err != nil {
			return nil, err
		}
		total += size
		files = append(files, f)
	}
	return files, nil
}

// validateContent checks that a content is what its manifest would be read as.
func validateContent(c zarpa.Content) error {
	files, err := parseManifest(manifest(c.Files))
	if err != nil {
		return err
	}
	if !slices.Equal(files, c.Files) {
		return zarpa.Errorf(zarpa.Invalid, "content %s: its files are not well-formed", c.Digest)
	}
	if again := contentOf(files); again.Digest != c.Digest || again.Size != c.Size {
		return zarpa.Errorf(zarpa.Invalid, "content %.80s: its digest or size is not that of its files", c.Digest)
	}
	return nil
}

// ContentDigests are the digests of all blobs of a content: its manifest and its files.
func ContentDigests(c zarpa.Content) []string {
	out := make([]string, 0, len(c.Files)+1)
	out = append(out, c.Digest)
	for _, f := range c.Files {
		out = append(out, f.Digest)
	}
	return out
}

// pathSet takes the paths of one content and refuses those that cannot lie beside each other on
// every file system.
type pathSet struct {
	files   map[string]string // folded path → path as it was written
	folders map[string]string // folded folder → folder as it was written
}

func newPathSet() pathSet {
	return pathSet{files: map[string]string{}, folders: map[string]string{}}
}

func (s pathSet) add(p string) error {
	if err := checkPath(p); err != nil {
		return err
	}
	folded := strings.ToLower(p)
	if other, there := s.files[folded]; there {
		if other == p {
			return zarpa.Errorf(zarpa.Invalid, "file %q: stands there twice", p).WithHint("send every file once")
		}
		return collision(p, other)
	}
	if other, there := s.folders[folded]; there {
		return zarpa.Errorf(zarpa.Invalid, "file %q: is also the folder %q", p, other).WithHint("rename one of them")
	}
	for i, r := range p {
		if r != '/' {
			continue
		}
		folder, foldedFolder := p[:i], strings.ToLower(p[:i])
		if other, there := s.files[foldedFolder]; there {
			return zarpa.Errorf(zarpa.Invalid, "file %q: is also a folder, of %q", other, p).WithHint("rename one of them")
		}
		if other, there := s.folders[foldedFolder]; there && other != folder {
			return collision(folder, other)
		}
		s.folders[foldedFolder] = folder
	}
	s.files[folded] = p
	return nil
}

func collision(p, other string) error {
	return zarpa.Errorf(zarpa.Invalid, "paths %q and %q: differ in upper and lower case alone", other, p).
		WithHint("rename one: on some disks they would be the same file")
}

// checkPath is zarpa.ValidatePath and what file systems and JSON ask for besides.
func checkPath(p string) error {
	if err := zarpa.ValidatePath(p); err != nil {
		return err
	}
	if !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl) {
		return zarpa.Errorf(zarpa.Invalid, "file path %.80q: holds control characters or is not UTF-8", p).WithHint("rename the file")
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > 255 {
			return zarpa.Errorf(zarpa.Invalid, "file path %.80q: a name in it is over 255 bytes", p).WithHint("use a shorter name")
		}
	}
	return nil
}
