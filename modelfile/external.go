package modelfile

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
)

// Field numbers of TensorProto and SparseTensorProto.
const (
	tensorName         = 8
	tensorExternalData = 13
	tensorDataLocation = 14

	sparseValues  = 1
	sparseIndices = 2
)

// maxExternalFiles bounds the files with weights.
const maxExternalFiles = 4096

// externalData checks tensors whose bytes are in other files.
type externalData struct {
	fsys  fs.FS
	dir   string           // of the main file
	sizes map[string]int64 // of the files seen, by path in fsys
}

func (x *externalData) names() []string { return slices.Sorted(maps.Keys(x.sizes)) }

// place is where a tensor's bytes are.
type place struct {
	location       string
	offset, length string // decimal, may be empty
	external       bool
}

// readTensor reads a TensorProto's name and checks where its bytes are, without reading them.
func (x *externalData) readTensor(msg message) (string, error) {
	const external = 1 // TensorProto.DataLocation
	var tensor string
	var p place
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return "", err
		}
		switch {
		case f.number == tensorName && f.kind == protowire.BytesType:
			tensor, err = name(f.body)
		case f.number == tensorDataLocation && f.kind == protowire.VarintType:
			p.external = f.value == external
		case f.number == tensorExternalData && f.kind == protowire.BytesType:
			err = p.read(f.body)
		}
		if err != nil {
			return "", err
		}
	}
	if !p.external {
		return tensor, nil
	}
	return tensor, x.check(tensor, p)
}

func (x *externalData) readSparse(msg message) error {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if (f.number == sparseValues || f.number == sparseIndices) && f.kind == protowire.BytesType {
			if _, err := x.readTensor(f.body); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *place) read(msg message) error {
	key, value, err := entry(msg, maxName+1)
	switch {
	case err != nil:
		return err
	case len(value) > maxName:
		return zarpa.Errorf(zarpa.Invalid, "external data: %q is longer than %d bytes", key, maxName)
	}
	switch key {
	case "location":
		p.location = value
	case "offset":
		p.offset = value
	case "length":
		p.length = value
	}
	return nil
}

// check proves that the bytes of a tensor are inside the folder.
func (x *externalData) check(tensor string, p place) error {
	const hint = "put the file into the model's folder, beside the model"
	full := path.Join(x.dir, p.location)
	outside := p.location == "" || path.IsAbs(p.location) || strings.ContainsAny(p.location, "\\\x00:") ||
		full == "." || !fs.ValidPath(full) || full == ".." || strings.HasPrefix(full, "../") || strings.HasPrefix(path.Clean(p.location), "..")
	if outside {
		return zarpa.Errorf(zarpa.Invalid, "tensor %q: its external data %q is outside the model's folder", tensor, p.location).WithHint(hint)
	}
	size, err := x.size(full)
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "tensor %q: its external data %q is not in the model's folder", tensor, p.location).WithHint(hint).Because(err)
	}
	offset, okOffset := number(p.offset)
	length, okLength := number(p.length)
	if !okOffset || !okLength || offset > size || length > size-offset {
		return zarpa.Errorf(zarpa.Invalid, "tensor %q: its external data is bytes %.24q plus %.24q of %q, which has %d", tensor, p.offset, p.length, p.location, size).
			WithHint("copy or export the external data again")
	}
	return nil
}

// number reads a decimal number that is not negative; empty is 0.
func number(s string) (int64, bool) {
	if s == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0
}

func (x *externalData) size(full string) (int64, error) {
	if size, ok := x.sizes[full]; ok {
		return size, nil
	}
	if len(x.sizes) >= maxExternalFiles {
		return 0, zarpa.Errorf(zarpa.Invalid, "more than %d files of external data", maxExternalFiles)
	}
	info, err := fs.Stat(x.fsys, full)
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fs.ErrInvalid
	}
	x.sizes[full] = info.Size()
	return info.Size(), nil
}
