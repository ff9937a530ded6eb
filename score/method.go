package score

import (
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// caller is what a session may be beside: one whose model is an object with methods, each of which
// gives an output of its name or, where it gives several, outputs NAME_0, NAME_1 and so on.
type caller interface {
	// Methods are the object's methods, at least one. The caller must not change them.
	Methods() []string
}

// The methods that are called when a request names none: the first of them that a model has. The original's
// scoring script for such models preferred probabilities; MLflow always predicts.
func scoreMethods() []string      { return []string{"predict_proba", "predict"} }
func invocationMethods() []string { return []string{"predict"} }

// chooseMethod limits the answer to what a method gives: the one that was asked for, or else, where
// no outputs were asked for, the first of preferred. Models without methods have predict only, which gives
// all.
func (c *call) chooseMethod(asked string, preferred []string) error {
	methods := c.model.methods
	switch {
	case len(methods) == 0 && (asked == "" || asked == "predict"):
		return nil
	case len(methods) == 0:
		return zarpa.Errorf(zarpa.Invalid, "method %.60q: the model has predict only", asked).WithHint("leave method out, and choose with outputs")
	case asked != "" && len(c.wanted) > 0:
		return zarpa.Errorf(zarpa.Invalid, "method %.60q: outputs are there, too", asked).WithHint("choose either by method or by outputs")
	case asked == "" && len(c.wanted) > 0:
		return nil
	case asked == "":
		asked = methods[0]
		for _, p := range slices.Backward(preferred) {
			if slices.Contains(methods, p) {
				asked = p
			}
		}
	case !slices.Contains(methods, asked):
		return zarpa.Errorf(zarpa.Invalid, "method %.60q: the model has none such", asked).WithHint("it has %s", strings.Join(methods, ", "))
	}
	for _, v := range c.model.sig.Outputs {
		if givenBy(v.Name, asked) {
			if err := c.want([]byte(v.Name), requested{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// givenBy says whether an output is what a method gives, or one of several such.
func givenBy(output, method string) bool {
	rest, ok := strings.CutPrefix(output, method)
	if !ok || rest == "" {
		return ok
	}
	number, ok := strings.CutPrefix(rest, "_")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}
