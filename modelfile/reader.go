package modelfile

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// The files that make a folder a model.
const (
	markerMLflow     = "MLmodel"
	markerSavedModel = "saved_model.pb"
)

// opened is a file to be judged.
type opened struct {
	name string
	file fs.File
	size int64
	head []byte
}

// reader says by a file's name and first bytes what reads it; nil where it is none of the formats that
// Python runs. The name counts only where the bytes leave several.
func reader(name string, head []byte) func(opened) (Info, error) {
	ext := strings.ToLower(path.Ext(name))
	document := bytes.TrimLeft(head, " \n\r\t")
	_, old := oldBooster(head)
	plain, known, err := unpack(head, bytes.NewReader(head)) // head may end too early, which then is the error
	packed := !known || plain != nil || err != nil
	switch {
	case isPickle(head):
		return func(o opened) (Info, error) { return inspectPickle(o.file) }
	case packed && (known || pickleName(name)):
		return func(o opened) (Info, error) { return inspectPacked(o.name, o.head, o.file) }
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return atRandom(inspectArchive)
	case bytes.HasPrefix(head, []byte("\x89HDF\r\n\x1a\n")):
		return atRandom(inspectHDF5)
	case isLightGBM(head):
		return func(o opened) (Info, error) { return inspectLightGBM(o.file) }
	case old:
		return func(o opened) (Info, error) { info, _ := oldBooster(o.head); return info, nil }
	case bytes.HasPrefix(document, []byte("{")) && (ext == ".ubj" || len(document) > 1 && strings.IndexByte("LlIiU#$", document[1]) >= 0):
		return func(o opened) (Info, error) { return inspectXGBoost(newStream(o.file), walkUBJSON) }
	case bytes.HasPrefix(document, []byte("{")) && (ext == ".json" || bytes.Contains(document, []byte(`"learner"`))):
		return func(o opened) (Info, error) { return inspectXGBoost(newStream(o.file), walkJSON) }
	}
	return nil
}

func atRandom(inspect func(io.ReaderAt, int64) (Info, error)) func(opened) (Info, error) {
	return func(o opened) (Info, error) {
		r, err := randomAccess(o.file)
		if err != nil {
			return Info{}, err
		}
		return inspect(r, o.size)
	}
}

// open opens a file with its beginning.
func open(fsys fs.FS, name string) (opened, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return opened{}, zarpa.Errorf(zarpa.Invalid, "cannot be opened").Because(err)
	}
	stat, err := f.Stat()
	if err != nil {
		_ = f.Close() // was only read
		return opened{}, zarpa.Errorf(zarpa.Invalid, "cannot be read").Because(err)
	}
	return opened{name: name, file: f, size: stat.Size()}, nil
}

// beginning is the first bytes of a file, which is closed again: readers begin at the first.
func beginning(fsys fs.FS, name string) ([]byte, error) {
	o, err := open(fsys, name)
	if err != nil {
		return nil, err
	}
	defer o.file.Close() //nolint:errcheck // was only read
	head := make([]byte, min(o.size, headLength))
	if _, err := io.ReadFull(o.file, head); err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "cannot be read").Because(err)
	}
	return head, nil
}

func inspectOther(fsys fs.FS, name string, read func(opened) (Info, error)) (Info, error) {
	head, err := beginning(fsys, name)
	if err != nil {
		return Info{}, err
	}
	o, err := open(fsys, name)
	if err != nil {
		return Info{}, err
	}
	defer o.file.Close() //nolint:errcheck // was only read
	o.head = head
	return read(o)
}

// sideFiles are the names of files that stand beside models, whatever their bytes look like.
func sideFile(name string) bool {
	base := strings.ToLower(path.Base(name))
	switch path.Ext(base) {
	case ".json":
		return strings.Contains(base, "config") || strings.Contains(base, "example") || strings.Contains(base, "schema") || strings.Contains(base, "metadata")
	case ".md", ".txt", ".yml", ".yaml", ".py", ".csv", ".tsv", ".ipynb", ".npz", ".whl", ".xlsx", ".docx":
		return path.Ext(base) != ".txt" || strings.HasPrefix(base, "requirements")
	}
	return strings.HasPrefix(base, ".")
}

// maybeModel says whether a file's beginning is that of a model which Python runs.
func maybeModel(fsys fs.FS, name string) bool {
	if sideFile(name) {
		return false
	}
	head, err := beginning(fsys, name)
	if err != nil {
		return false // an unreadable file among others: what is chosen is read again
	}
	if strings.EqualFold(path.Ext(name), ".json") && !bytes.Contains(head, []byte(`"learner"`)) {
		return false
	}
	return reader(name, head) != nil
}

// inspectFolder reads a model that is a folder, by its marker.
func inspectFolder(fsys fs.FS, marker string) (Info, error) {
	var info Info
	var err error
	if path.Base(marker) == markerMLflow {
		info, err = inspectMLflow(fsys, marker)
	} else {
		info, err = openSavedModel(fsys, marker)
	}
	if strings.Contains(marker, "/") {
		info.File = marker
	}
	return info, err
}

func openSavedModel(fsys fs.FS, marker string) (Info, error) {
	o, err := open(fsys, marker)
	if err != nil {
		return Info{}, err
	}
	defer o.file.Close() //nolint:errcheck // was only read
	if o.size == 0 {
		return Info{}, zarpa.Errorf(zarpa.Invalid, "the file is empty").WithHint("save the model again")
	}
	return inspectSavedModel(newSource(o.file, o.size))
}
