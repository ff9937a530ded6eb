package modelfile

import (
	"archive/zip"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// maxDirectory bounds the bytes that are read to list an archive.
const maxDirectory = 16 << 20

// randomAccess is the file for reading at any place.
func randomAccess(f fs.File) (io.ReaderAt, error) {
	switch r := f.(type) {
	case io.ReaderAt:
		return r, nil
	case io.ReadSeeker:
		return seeking{r}, nil
	}
	return nil, zarpa.Errorf(zarpa.Invalid, "the file can only be read forward")
}

// seeking reads at any place by going there first; for one goroutine.
type seeking struct{ io.ReadSeeker }

func (s seeking) ReadAt(p []byte, off int64) (int, error) {
	if _, err := s.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(s.ReadSeeker, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// allowance is a file of which so many bytes may be read.
type allowance struct {
	io.ReaderAt
	left int
}

func (a *allowance) ReadAt(p []byte, off int64) (int, error) {
	if a.left -= len(p); a.left < 0 {
		return 0, errEnough
	}
	return a.ReaderAt.ReadAt(p, off)
}

// archive is a zip file with its members by their paths, without the folder that PyTorch puts around
// them.
type archive struct {
	members map[string]*zip.File
	access  *allowance
}

func openArchive(r io.ReaderAt, size int64) (*archive, error) {
	a := &archive{members: map[string]*zip.File{}, access: &allowance{r, maxDirectory}}
	z, err := zip.NewReader(a.access, size)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "a zip archive that is damaged, or truncated").WithHint("copy or save the model again").Because(err)
	}
	folder := ""
	if len(z.File) > 0 {
		folder, _, _ = strings.Cut(z.File[0].Name, "/")
	}
	for _, f := range z.File {
		if !strings.HasPrefix(f.Name, folder+"/") {
			folder = ""
			break
		}
	}
	for _, f := range z.File {
		a.members[strings.TrimPrefix(strings.TrimPrefix(f.Name, folder), "/")] = f
	}
	return a, nil
}

func (a *archive) has(names ...string) bool {
	for _, n := range names {
		if a.members[n] == nil {
			return false
		}
	}
	return true
}

// scalars gives the scalars of a member that is JSON; a member that cannot be read gives none.
func (a *archive) scalars(member string, visit visitor) {
	f := a.members[member]
	if f == nil {
		return
	}
	a.access.left = maxScan
	r, err := f.Open()
	if err != nil {
		return
	}
	defer r.Close()
	_ = walkJSON(newStream(r), visit) // what was found until an error counts: a version is only a help
}

// inspectArchive judges a zip file by its members.
func inspectArchive(r io.ReaderAt, size int64) (Info, error) {
	a, err := openArchive(r, size)
	if err != nil {
		return Info{}, err
	}
	script := slices.ContainsFunc(a.names(), func(n string) bool { return strings.HasPrefix(n, "code/") })
	switch {
	case a.has("data.pkl", "constants.pkl") && script:
		return Info{Format: zarpa.FormatTorchScript, Framework: "torch"}, nil
	case a.has("serialized_exported_program.json"):
		return a.exported("serialized_exported_program.json"), nil
	case a.has("archive_format") && a.exportedModel() != "":
		return a.exported(a.exportedModel()), nil
	case a.has("archive_format"):
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a PyTorch package without an exported program in it (AOTInductor's are compiled for one machine)").
			WithHint("save the program itself: torch.export.save(torch.export.export(model, args), 'model.pt2')")
	case a.has("data.pkl"):
		return Info{}, stateDict()
	case a.has("metadata.json", "config.json"):
		info := Info{Format: zarpa.FormatKeras, Framework: "keras"}
		a.scalars("metadata.json", func(at, value []byte) {
			if string(at) == "keras_version" {
				info.FrameworkVersion = string(value)
			}
		})
		return info, nil
	case a.has("schema.json"):
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a model in the form of skops").WithHint("save it with joblib.dump, export it to ONNX, or use a scoring script that loads the file")
	case a.has("MLmodel"), a.has("saved_model.pb"):
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a zip archive of a model's folder").WithHint("unpack it and register the folder")
	case len(a.members) > 0 && !slices.ContainsFunc(a.names(), func(n string) bool { return path.Ext(n) != ".npy" }):
		return Info{}, zarpa.Errorf(zarpa.Invalid, "arrays of NumPy, not a model").WithHint(scriptHint)
	}
	return Info{}, zarpa.Errorf(zarpa.Invalid, "a zip archive without a model that is known").WithHint("unpack it, and register the model file itself")
}

func (a *archive) names() []string {
	names := make([]string, 0, len(a.members))
	for n := range a.members {
		names = append(names, n)
	}
	return names
}

// exportedModel is the exported program in the newer form of such archives; "" for none.
func (a *archive) exportedModel() string {
	for n := range a.members {
		if strings.HasPrefix(n, "models/") && path.Ext(n) == ".json" {
			return n
		}
	}
	return ""
}

func (a *archive) exported(member string) Info {
	info := Info{Format: zarpa.FormatTorchExport, Framework: "torch"}
	a.scalars(member, func(at, value []byte) {
		if string(at) == "torch_version" {
			info.FrameworkVersion, _, _ = strings.Cut(string(value), "+") // without the build: +cpu, +cu126
		}
	})
	return info
}
