package environment

import (
	"path"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// The options that a requirements file may have. Those of one letter are other names of long ones.
var (
	shortOptions = map[string]string{
		"-r": "--requirement", "-c": "--constraint", "-i": "--index-url", "-f": "--find-links", "-e": "--editable",
	}
	flagOptions  = []string{"--no-index", "--pre", "--prefer-binary", "--require-hashes"}
	valueOptions = []string{
		"--requirement", "--constraint", "--index-url", "--extra-index-url", "--find-links", "--trusted-host",
		"--no-binary", "--only-binary", "--editable",
	}
)

// options takes a line of options.
func (r *requirementsReader) options(req requirement) error {
	words := strings.Fields(req.text)
	for len(words) > 0 {
		name, value, given := splitOption(words[0])
		words = words[1:]
		if slices.Contains(flagOptions, name) && !given {
			r.got.index = r.got.index || name == "--no-index"
			continue
		}
		if !slices.Contains(valueOptions, name) {
			return req.bad("option %.40q is not allowed", name).
				WithHint("allowed are -r, -c, %s and %s", strings.Join(flagOptions, ", "), strings.Join(valueOptions[2:8], ", "))
		}
		if !given {
			if len(words) == 0 {
				return req.bad("option %s has no value", name)
			}
			value, words = words[0], words[1:]
		}
		if err := r.option(req, name, strings.Trim(value, `"'`)); err != nil {
			return err
		}
	}
	return nil
}

// splitOption reads --name=value, -xvalue, --name and -x.
func splitOption(word string) (name, value string, given bool) {
	if strings.HasPrefix(word, "--") {
		return strings.Cut(word, "=")
	}
	if len(word) >= 2 {
		if long, ok := shortOptions[word[:2]]; ok {
			return long, strings.TrimPrefix(word[2:], "="), len(word) > 2
		}
	}
	return word, "", false
}

func (r *requirementsReader) option(req requirement, name, value string) error {
	switch name {
	case "--editable":
		return req.bad("option -e reads sources from outside the description").
			WithHint("build a wheel of it (pip wheel) and put it into wheels/, or name it by its URL without -e")
	case "--requirement", "--constraint":
		target := path.Join(path.Dir(req.file), value)
		if address.MatchString(value) || path.IsAbs(value) || zarpa.ValidatePath(target) != nil {
			return req.bad("%.80q is outside the description", redactor{}.clean(value)).WithHint("put the file beside it")
		}
		return r.file(target, req.constraint || name == "--constraint")
	case "--index-url", "--extra-index-url":
		r.got.index = true
		return req.checkURL(value)
	case "--find-links":
		if address.MatchString(value) {
			return req.checkURL(value)
		}
		if path.IsAbs(value) || value != "." && zarpa.ValidatePath(path.Join(path.Dir(req.file), value)) != nil {
			return req.bad("%.80q is outside the description", value).WithHint("use wheels/")
		}
	}
	return nil
}
