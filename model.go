package zarpa

import (
	"context"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Model is one registered version of a model. Its content never changes; tags and the
// description may.
type Model struct {
	Name string `json:"name"`
	// Version counts from 1 by itself, within the name; a deleted version's number is not used again.
	Version int `json:"version"`
	// Format is what the files were recognised as, one of the Format constants.
	Format string `json:"format"`
	// Framework is what made the files, as its Python package calls itself, with the version that
	// they tell; empty where they do not.
	Framework        string    `json:"framework,omitempty"`
	FrameworkVersion string    `json:"framework_version,omitempty"`
	Content          Content   `json:"content"`
	Created          time.Time `json:"created"`
	// Folder is the name of the folder that the files were registered from, empty for a file. A scoring
	// script finds them below it, as the original service laid them out.
	Folder string `json:"folder,omitempty"`
	// Tags may be set and removed at any time.
	Tags map[string]string `json:"tags,omitempty"`
	// Properties are set once, at registration.
	Properties  map[string]string `json:"properties,omitempty"`
	Description string            `json:"description,omitempty"`
	// Signature was read from the model's own file; it is empty where only running the model tells.
	Signature Signature `json:"signature"`
}

// The formats of models.
const (
	FormatONNX        = "onnx"
	FormatSklearn     = "sklearn"     // a scikit-learn estimator, by pickle or joblib
	FormatPickle      = "pickle"      // another Python object with predict, by pickle or joblib
	FormatXGBoost     = "xgboost"     // JSON, UBJSON or the old binary form
	FormatLightGBM    = "lightgbm"    // its text file
	FormatTorchScript = "torchscript" // torch.jit.save
	FormatTorchExport = "torchexport" // torch.export.save
	FormatSavedModel  = "savedmodel"  // a TensorFlow SavedModel folder
	FormatKeras       = "keras"       // a .keras or HDF5 file
	FormatMLflow      = "mlflow"      // a folder with MLmodel, pyfunc flavour
	FormatFiles       = "files"       // anything else, for scoring scripts
)

// RunsCode tells formats whose files can run code of their author when they are loaded: pickles, and
// Keras models, whose Lambda layers are Python bytecode. Keras refuses those of .keras files since 2.13,
// but not those of every HDF5 file.
func RunsCode(format string) bool {
	switch format {
	case FormatSklearn, FormatPickle, FormatMLflow, FormatKeras:
		return true
	}
	return false
}

// Content is a set of files, named by a digest over their paths and digests.
type Content struct {
	// Digest is the SHA-256 of the files' manifest: for each file in the order of paths the line
	// "<sha256 hex> <size> <path>\n".
	Digest string `json:"digest"`
	// Size is the sum of the files' sizes in bytes.
	Size  int64  `json:"size"`
	Files []File `json:"files"`
}

// File is one file of a Content.
type File struct {
	// Path is slash-separated, relative, clean, without "..".
	Path   string `json:"path"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// ValidatePath checks a file's path within a content: relative, clean, slash-separated, without
// "..", control characters or back-slashes, at most 512 bytes.
func ValidatePath(p string) error {
	const hint = "use paths inside the model's own folder, without '..'"
	if strings.ContainsFunc(p, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }) {
		return Errorf(Invalid, "file path %.80q: not a clean relative path: a control character or a back-slash in it", p).WithHint(hint)
	}
	if p == "" || len(p) > 512 || path.IsAbs(p) || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return Errorf(Invalid, "file path %.80q: not a clean relative path", p).WithHint(hint)
	}
	return nil
}

// ModelRef names a registered model: NAME or NAME:VERSION.
type ModelRef struct {
	Name string
	// Version is 0 for "the newest".
	Version int
}

// ParseModelRef reads NAME or NAME:VERSION.
func ParseModelRef(s string) (ModelRef, error) {
	name, version, found := strings.Cut(s, ":")
	if err := ValidateName("model", name); err != nil {
		return ModelRef{}, err
	}
	if !found {
		return ModelRef{Name: name}, nil
	}
	n, err := strconv.Atoi(version)
	if err != nil || n < 1 {
		return ModelRef{}, Errorf(Invalid, "model %q: version %q is not a positive number", s, version).WithHint("write NAME or NAME:VERSION, such as iris:3")
	}
	return ModelRef{Name: name, Version: n}, nil
}

// String is NAME or NAME:VERSION.
func (r ModelRef) String() string {
	if r.Version == 0 {
		return r.Name
	}
	return r.Name + ":" + strconv.Itoa(r.Version)
}

// Ref is the model's own reference, NAME:VERSION.
func (m Model) Ref() ModelRef { return ModelRef{Name: m.Name, Version: m.Version} }

// Registration asks for stored content to become a model.
type Registration struct {
	Name string `json:"name"`
	// Digest is the Content's.
	Digest string `json:"digest"`
	// Folder is the Model's.
	Folder string `json:"folder,omitempty"`
	// Format is empty, for a model that is recognised or refused, or FormatFiles: then what is not
	// recognised is taken as it is, for a scoring script.
	Format      string            `json:"format,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"`
	Description string            `json:"description,omitempty"`
}

// ConversionSpec asks for a model in ONNX.
type ConversionSpec struct {
	// Name is the model whose next version the result becomes; empty is the name of what is converted.
	Name string `json:"name,omitempty"`
	// Samples is how many rows both models answer, for the comparison; 0 is [DefaultSamples].
	Samples int `json:"samples,omitempty"`
}

// DefaultSamples suffices to see a wrong operator, in less than a second for most models.
const DefaultSamples = 1000

// Validate checks every field and names the first that is wrong.
func (s ConversionSpec) Validate() error {
	if s.Name != "" {
		if err := ValidateName("model", s.Name); err != nil {
			return err
		}
	}
	if s.Samples < 0 || s.Samples > 1_000_000 {
		return Errorf(Invalid, "samples: %d is not between 1 and 1000000", s.Samples)
	}
	return nil
}

// Conversion is a model that was brought into ONNX, with what was found when both answered the same
// samples.
type Conversion struct {
	// From is NAME:VERSION of what was converted, and Model what it became.
	From  string `json:"from"`
	Model Model  `json:"model"`
	// Converter is the package that did it, with its version.
	Converter string `json:"converter"`
	Samples   int    `json:"samples"`
	// MaxDifference is the largest absolute difference of two numbers of their answers; labels are equal.
	MaxDifference float64 `json:"max_difference"`
	// Before and After are the median times of one row, in milliseconds, in the framework and in ONNX
	// Runtime, both within one Python process.
	Before float64 `json:"before_ms"`
	After  float64 `json:"after_ms"`
}

// ConversionEvent is a line of the progress of a conversion, or its end: one of its fields is set.
type ConversionEvent struct {
	Line       string      `json:"line,omitempty"`
	Conversion *Conversion `json:"conversion,omitempty"`
	Error      *Error      `json:"error,omitempty"`
}

// ModelPatch changes what may change of a model; nil fields stay as they are.
type ModelPatch struct {
	SetTags     map[string]string `json:"set_tags,omitempty"`
	RemoveTags  []string          `json:"remove_tags,omitempty"`
	Description *string           `json:"description,omitempty"`
}

// Models keeps registered models. All methods may be called from many goroutines.
type Models interface {
	// Create stores a model under the next version of its name and returns it with Version set.
	// Version and Created of the argument are ignored. Two calls at once get two versions.
	Create(ctx context.Context, m Model) (Model, error)
	// Get returns a version, the newest for version 0, or not_found.
	Get(ctx context.Context, ref ModelRef) (Model, error)
	// List returns the versions of a name in descending order, or of all names ordered by name
	// when name is empty. Nothing found is an empty list.
	List(ctx context.Context, name string) ([]Model, error)
	// Update replaces Tags and Description of a version, nothing else; not_found when it is gone.
	Update(ctx context.Context, m Model) error
	// Delete removes a version; not_found when there is none.
	Delete(ctx context.Context, ref ModelRef) error
}
