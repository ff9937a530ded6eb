package modelfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// boosterInput and boosterOutput are the names that the scorers of boosted trees give.
const (
	boosterInput  = "input"
	boosterOutput = "predict"
)

// booster is what the file of a tree model says.
type booster struct {
	version   []string
	objective string
	features  int64
	classes   int64
	targets   int64
	isBooster bool
}

// note keeps a scalar of XGBoost's document.
func (b *booster) note(at, value []byte) {
	if bytes.HasPrefix(at, []byte("learner/gradient_booster/")) {
		return // the trees
	}
	count := func(n *int64) { *n, _ = strconv.ParseInt(string(value), 10, 32) } // what is no number is as good as absent
	switch string(at) {
	case "version/":
		if len(b.version) < 3 {
			b.version = append(b.version, string(value))
		}
	case "learner/objective/name":
		b.objective, b.isBooster = string(value), true
	case "learner/learner_model_param/num_feature":
		count(&b.features)
	case "learner/learner_model_param/num_class":
		count(&b.classes)
	case "learner/learner_model_param/num_target":
		count(&b.targets)
	}
}

// inspectXGBoost reads XGBoost's JSON or UBJSON. A file too long to be read to its end is judged by its
// beginning, which has no version.
func inspectXGBoost(in *stream, walk func(*stream, visitor) error) (Info, error) {
	var b booster
	err := walk(in, b.note)
	switch {
	case errors.Is(err, errEnough):
		return b.info(), nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Info{}, zarpa.Errorf(zarpa.Invalid, "truncated: the file ends at byte %d", in.pos).WithHint("copy or save the model again")
	case err != nil:
		return Info{}, err
	case !b.isBooster:
		return Info{}, zarpa.Errorf(zarpa.Invalid, "a document without learner and objective: not a model that XGBoost saved").
			WithHint("save it by booster.save_model, not by dump_model or save_config")
	}
	return b.info(), nil
}

func (b *booster) info() Info {
	info := Info{Format: zarpa.FormatXGBoost, Framework: "xgboost", FrameworkVersion: strings.Join(b.version, ".")}
	if b.features <= 0 || b.objective == "" {
		return info
	}
	info.Signature = boosterSignature(b.features, b.columns())
	if b.objective == "reg:quantileerror" { // a column for each quantile, which stand elsewhere
		info.Signature.Outputs[0].Shape, info.Signature.Outputs[0].NoShape = nil, true
	}
	info.Signature.Inputs[0].Type, info.Signature.Outputs[0].Type = zarpa.Float32, zarpa.Float32
	return info
}

// columns is how many numbers there are for a row, 0 where they have no dimension of their own.
func (b *booster) columns() int64 {
	switch {
	case b.objective == "multi:softprob" && b.classes > 1:
		return b.classes
	case b.targets > 1:
		return b.targets
	}
	return 0
}

func boosterSignature(features, columns int64) zarpa.Signature {
	out := []zarpa.Dim{{Size: -1}}
	if columns > 0 {
		out = append(out, zarpa.Dim{Size: columns})
	}
	return zarpa.Signature{
		Inputs:  []zarpa.ValueInfo{{Name: boosterInput, Type: zarpa.Float64, Shape: []zarpa.Dim{{Size: -1}, {Size: features}}}},
		Outputs: []zarpa.ValueInfo{{Name: boosterOutput, Type: zarpa.Float64, Shape: out}},
	}
}

// The parts of XGBoost's old binary form: a structure, the objective and the booster, both behind their
// lengths. It tells the version since 1.0.
const (
	oldBoosterHead   = 136
	oldFeaturesAt    = 4
	oldClassesAt     = 8
	oldVersionAt     = 20
	maxObjectiveName = 64
)

// oldBooster recognises the old binary form; head is the file's beginning.
func oldBooster(head []byte) (Info, bool) {
	head = bytes.TrimPrefix(head, []byte("binf"))
	if len(head) < oldBoosterHead {
		return Info{}, false
	}
	objective, rest := lengthed(head[oldBoosterHead:])
	kind, _ := lengthed(rest)
	if !strings.Contains(objective, ":") || kind != "gbtree" && kind != "gblinear" && kind != "dart" {
		return Info{}, false
	}
	word := func(at int) int64 { return int64(int32(binary.LittleEndian.Uint32(head[at:]))) } //nolint:gosec // as it is defined
	b := booster{objective: objective, features: word(oldFeaturesAt), classes: word(oldClassesAt)}
	if major, minor := word(oldVersionAt), word(oldVersionAt+4); major > 0 && major < 10 && minor >= 0 && minor < 100 {
		b.version = []string{strconv.FormatInt(major, 10), strconv.FormatInt(minor, 10), "0"}
	}
	info := b.info()
	info.Old = true
	return info, true
}

// lengthed is a text behind its length, and what follows.
func lengthed(b []byte) (text string, rest []byte) {
	if len(b) < 8 {
		return "", nil
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxObjectiveName || uint64(len(b)-8) < n {
		return "", nil
	}
	return string(b[8 : 8+n]), b[8+n:]
}
