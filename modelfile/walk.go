package modelfile

import "github.com/zarpa-dev/zarpa"

// The bounds of a document.
const (
	maxDocumentDepth = 64
	maxKey           = 256 // bytes of a key or text that are kept
)

// visitor gets each scalar of a document of JSON or UBJSON, as text, with the keys around it, joined
// with slashes; the elements of an array have the array's own key and a slash behind it. Both are valid
// until it returns.
type visitor func(at, value []byte)

// trail is where a walk is.
type trail struct {
	path  []byte
	ends  []int // of path, before each key
	visit visitor
}

func (t *trail) enter(key string) error {
	if len(t.ends) >= maxDocumentDepth {
		return zarpa.Errorf(zarpa.Invalid, "values nested more than %d deep", maxDocumentDepth)
	}
	t.ends = append(t.ends, len(t.path))
	if len(t.path) > 0 {
		t.path = append(t.path, '/')
	}
	t.path = append(t.path, key...)
	return nil
}

func (t *trail) leave() {
	last := len(t.ends) - 1
	t.path, t.ends = t.path[:t.ends[last]], t.ends[:last]
}

func (t *trail) say(value []byte) { t.visit(t.path, value) }

func brokenDocument(what string, at int64) error {
	return zarpa.Errorf(zarpa.Invalid, "not %s, or damaged: nothing valid at byte %d", what, at).WithHint("save the model again")
}
