package modelfile

import (
	"slices"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// Requirements is the text of a requirements.txt with which Python loads and runs a model without code: its
// framework in the version that made it, where the files tell one, and what that needs. It is empty
// for formats that Python does not run.
func Requirements(info Info) string {
	var lines []string
	switch info.Format {
	case zarpa.FormatSklearn, zarpa.FormatPickle:
		lines = pickleRequirements(info)
	case zarpa.FormatXGBoost:
		lines = xgboostRequirements(info)
	case zarpa.FormatLightGBM:
		lines = []string{"lightgbm>=4,<5", "numpy"}
	case zarpa.FormatTorchScript:
		lines = []string{"torch", "numpy"}
	case zarpa.FormatTorchExport:
		lines = []string{pinned("torch", info.FrameworkVersion), "numpy"}
	case zarpa.FormatSavedModel:
		lines = []string{pinned("tensorflow-cpu", info.FrameworkVersion)}
	case zarpa.FormatKeras:
		lines = kerasRequirements(info.FrameworkVersion)
	case zarpa.FormatMLflow:
		return mlflowRequirements(info)
	default:
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// pinned is the package in exactly that version, or in any where it is not known or no release.
func pinned(name, version string) string {
	if !release(version) {
		return name
	}
	return name + "==" + version
}

// release tells versions that a registry has from those of a checkout, such as 1.9.dev0.
func release(version string) bool {
	if version == "" || len(version) > 32 {
		return false
	}
	for part := range strings.SplitSeq(version, ".") {
		switch strings.Trim(part, "0123456789") {
		case "", "rc", "post":
		default:
			return false
		}
		if part == "" {
			return false
		}
	}
	return true
}

// before says whether a version is older than major.minor; an unknown one is not.
func before(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, errMajor := strconv.Atoi(parts[0])
	b, errMinor := strconv.Atoi(parts[1])
	return errMajor == nil && errMinor == nil && (a < major || a == major && b < minor)
}

// numpyFor is NumPy as releases before its version 2 need it: their wheels were built for version 1 and
// say so seldom.
func numpyFor(old bool) string {
	if old {
		return "numpy<2"
	}
	return "numpy"
}

// pickleRequirements are the framework and what else the pickle imports. The estimators of XGBoost and LightGBM
// need scikit-learn without importing anything of it in the file.
func pickleRequirements(info Info) []string {
	packages := info.Packages
	if info.Framework != "" {
		packages = append([]string{pinned(info.Framework, info.FrameworkVersion)}, packages...)
	}
	hasSklearn := slices.ContainsFunc(packages, func(p string) bool { return requirementName(p) == sklearn })
	if !hasSklearn && (info.Framework == "xgboost" || info.Framework == "lightgbm") {
		packages = append(packages, sklearn)
	}
	old, lines := false, []string{}
	for _, p := range packages {
		name, version, _ := strings.Cut(p, "==")
		switch name {
		case "numpy", "joblib":
			continue // below
		case "xgboost":
			name = "xgboost-cpu"
		case sklearn:
			old = before(version, 1, 4)
		}
		lines = append(lines, pinned(name, version))
	}
	return append(lines, "joblib", numpyFor(old))
}

// xgboostRequirements prefers the build without CUDA, which there is since version 2.1. Versions read the files
// of older ones, but for the old binary form, which ended with 3.0.
func xgboostRequirements(info Info) []string {
	switch v := info.FrameworkVersion; {
	case info.Old:
		return []string{"xgboost-cpu<3.1", "numpy"}
	case v == "" || before(v, 2, 1):
		return []string{"xgboost-cpu", "numpy"}
	default:
		return []string{pinned("xgboost-cpu", v), "numpy"}
	}
}

// kerasRequirements is Keras with TensorFlow; until version 2 both had one version.
func kerasRequirements(version string) []string {
	parts := strings.SplitN(version, ".", 3)
	if release(version) && before(version, 3, 0) {
		return []string{"tensorflow-cpu==" + parts[0] + "." + parts[1] + ".*"}
	}
	return []string{pinned("keras", version), "tensorflow-cpu"}
}

// mlflowRequirements is the folder's own text with the smaller build of MLflow, which loads the flavours of
// single models; what the text does not name is added.
func mlflowRequirements(info Info) string {
	var out strings.Builder
	named := map[string]bool{}
	for line := range strings.Lines(info.Requirements) {
		line = strings.TrimRight(line, "\r\n")
		name := requirementName(line)
		if name == "mlflow" && strings.HasPrefix(strings.TrimSpace(line), "mlflow") && !strings.Contains(line, "[") {
			line, name = strings.Replace(line, "mlflow", "mlflow-skinny", 1), "mlflow-skinny"
		}
		named[name] = true
		out.WriteString(line + "\n")
	}
	if !named["mlflow-skinny"] && !named["mlflow"] {
		out.WriteString(pinned("mlflow-skinny", info.FrameworkVersion) + "\n")
	}
	for _, name := range []string{"pandas", "numpy"} {
		if !named[name] {
			out.WriteString(name + "\n")
		}
	}
	return out.String()
}

// requirementName is the package that a line of a requirements text names, in its one spelling.
func requirementName(line string) string {
	name := strings.TrimSpace(line)
	if i := strings.IndexAny(name, "=<>!~[;@ #"); i >= 0 {
		name = name[:i]
	}
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}
