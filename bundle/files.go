package bundle

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// ContentFS shows a content as a file system. Its files implement io.ReaderAt and io.Seeker and
// are opened in the blob store when they are opened here; ctx bounds that. Use it while ctx lasts.
func ContentFS(ctx context.Context, blobs zarpa.Blobs, c zarpa.Content) fs.FS {
	t := &tree{ctx: ctx, blobs: blobs, nodes: map[string]*node{".": {name: ".", dir: true}}}
	for _, f := range c.Files {
		t.add(f.Path, &node{name: path.Base(f.Path), file: f})
	}
	for _, n := range t.nodes {
		slices.SortFunc(n.below, func(x, y fs.DirEntry) int { return strings.Compare(x.Name(), y.Name()) })
	}
	return t
}

type tree struct {
	ctx   context.Context //nolint:containedctx // fs.FS has no room for one
	blobs zarpa.Blobs
	nodes map[string]*node
}

func (t *tree) add(at string, n *node) {
	for {
		t.nodes[at] = n
		at = path.Dir(at)
		if parent, there := t.nodes[at]; there {
			parent.below = append(parent.below, n)
			return
		}
		n = &node{name: path.Base(at), dir: true, below: []fs.DirEntry{n}}
	}
}

// Open implements fs.FS.
func (t *tree) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	n, there := t.nodes[name]
	switch {
	case !there:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case n.dir:
		return &openFolder{node: n}, nil
	}
	r, err := t.blobs.Open(t.ctx, n.file.Digest)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &openFile{node: n, ReadSeekCloser: r}, nil
}

// node is a file or folder, its own fs.FileInfo and fs.DirEntry.
type node struct {
	name  string
	file  zarpa.File
	dir   bool
	below []fs.DirEntry
}

func (n *node) Name() string               { return n.name }
func (n *node) Size() int64                { return n.file.Size }
func (n *node) ModTime() time.Time         { return time.Unix(0, 0).UTC() }
func (n *node) IsDir() bool                { return n.dir }
func (n *node) Sys() any                   { return nil }
func (n *node) Type() fs.FileMode          { return n.Mode().Type() }
func (n *node) Info() (fs.FileInfo, error) { return n, nil }

func (n *node) Mode() fs.FileMode {
	if n.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

type openFile struct {
	node *node
	mu   sync.Mutex // guards the position while ReadAt moves it
	io.ReadSeekCloser
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.node, nil }

func (f *openFile) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ReadSeekCloser.Read(p)
}

func (f *openFile) Seek(offset int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ReadSeekCloser.Seek(offset, whence)
}

// ReadAt uses the blob's own, or else moves the position there and back.
func (f *openFile) ReadAt(p []byte, offset int64) (int, error) {
	if direct, ok := f.ReadSeekCloser.(io.ReaderAt); ok {
		return direct.ReadAt(p, offset)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before, err := f.ReadSeekCloser.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if _, err := f.ReadSeekCloser.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(f.ReadSeekCloser, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	if _, back := f.ReadSeekCloser.Seek(before, io.SeekStart); back != nil {
		return n, back
	}
	return n, err
}

type openFolder struct {
	node *node
	next int
}

func (f *openFolder) Stat() (fs.FileInfo, error) { return f.node, nil }
func (f *openFolder) Close() error               { return nil }

func (f *openFolder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.node.name, Err: errors.New("is a folder")}
}

// ReadDir implements fs.ReadDirFile.
func (f *openFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	rest := f.node.below[f.next:]
	if n > 0 && len(rest) == 0 {
		return nil, io.EOF
	}
	if n > 0 && n < len(rest) {
		rest = rest[:n]
	}
	f.next += len(rest)
	return slices.Clone(rest), nil
}
