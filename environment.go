package zarpa

import "time"

// EnvironmentSpec names the Python environment that a deployment's code and models run in.
type EnvironmentSpec struct {
	// Python is the interpreter's version, MAJOR.MINOR or MAJOR.MINOR.PATCH, found on the machine
	// that builds; empty is what the files ask for or else the machine's python3.
	Python string `json:"python,omitempty"`
	// Content is the digest of the files that say what is installed: requirements.txt,
	// pyproject.toml or conda.yml (conda.yaml), and a folder wheels/ with packages that are not
	// fetched. Empty, with models whose format tells what they need, is that.
	Content string `json:"content,omitempty"`
	// SystemPackages lets the environment see the packages of the machine's own interpreter.
	SystemPackages bool `json:"system_packages,omitempty"`
}

// EnvironmentPhase is where an environment is on its way.
type EnvironmentPhase string

// The phases of an environment.
const (
	EnvironmentBuilding EnvironmentPhase = "building"
	EnvironmentReady    EnvironmentPhase = "ready"
	EnvironmentFailed   EnvironmentPhase = "failed"
)

// Environment is a Python environment as a machine has built it. Equal specs share one.
type Environment struct {
	// ID is 16 hexadecimal digits, a digest over all that decides what is built.
	ID    string           `json:"id"`
	Phase EnvironmentPhase `json:"phase"`
	// Python is the interpreter's full version, Source the file that was read ("conda.yml"), and Tool
	// what installed from it: "pip", "uv", "micromamba" and so on.
	Python string `json:"python"`
	Source string `json:"source,omitempty"`
	Tool   string `json:"tool,omitempty"`
	// Size is that of its files, in bytes.
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used"`
	// Packages are what is installed, as name==version, ordered; the lock of the bundle.
	Packages []string `json:"packages,omitempty"`
	// UsedBy are the deployments that need it, as ENDPOINT/DEPLOYMENT.
	UsedBy []string `json:"used_by,omitempty"`
	// Error says why it failed.
	Error *Error `json:"error,omitempty"`
}
