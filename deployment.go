package zarpa

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// DeploymentSpec says: this model, on that target, so many replicas.
type DeploymentSpec struct {
	// Name is unique within the endpoint.
	Name string `json:"name"`
	// Model is NAME:VERSION; the API resolves a bare NAME to the newest version before it stores. It
	// may be empty where there is Code.
	Model string `json:"model,omitempty"`
	// Models are further models that every replica serves beside Model, as NAME:VERSION. /score is
	// answered by Model; the others are reached by their names under /v2/models.
	Models []string `json:"models,omitempty"`
	// ModelControl says whether clients of the endpoint may load and unload its models at run time.
	ModelControl ModelControl `json:"model_control,omitempty"`
	// Code is the digest of stored content with a scoring script, and Entry the script's path in it;
	// the script then answers /score for all models.
	Code  string `json:"code,omitempty"`
	Entry string `json:"entry,omitempty"`
	// Environment is what Python code and models run in.
	Environment *EnvironmentSpec `json:"environment,omitempty"`
	// Workers is how many Python processes each replica has; 0 is one for each processor of CPU.
	Workers int `json:"workers,omitempty"`
	// Preload says whether the workers are forked from one process that ran init().
	Preload Preload `json:"preload,omitempty"`
	// WorkerMaxRequests and WorkerMaxMemory guard against leaks: a worker that answered so many
	// requests, or that holds so much resident memory after one, is replaced; 0 is never.
	WorkerMaxRequests int   `json:"worker_max_requests,omitempty"`
	WorkerMaxMemory   Bytes `json:"worker_max_memory,omitempty"`
	// Target is the name of the target; "local" is this machine.
	Target   string `json:"target,omitempty"`
	Replicas int    `json:"replicas,omitempty"`
	// CPU bounds the processors of one replica and sets the model's threads; 0 is unlimited.
	CPU CPU `json:"cpu,omitempty"`
	// Memory bounds one replica; 0 is unlimited.
	Memory Bytes `json:"memory,omitempty"`
	// Env is added to the replica's environment.
	Env map[string]string `json:"env,omitempty"`
	// Secrets are names of stored secrets: the replica finds the value of each in a file of that name in
	// the folder that the variable ZARPA_SECRETS names. A changed value reaches replicas that start later.
	Secrets []string `json:"secrets,omitempty"`
	// MaxConcurrency is how many requests one replica works on at a time; more wait in the gateway.
	MaxConcurrency int `json:"max_concurrency,omitempty"`
	// MaxBatchRows is how many rows of several requests the model runs at once; 0 and 1 leave every
	// request to a run of its own.
	MaxBatchRows int `json:"max_batch_rows,omitempty"`
	// MaxBatchDelay bounds how long a request waits for others to share its run; 0 never waits, and
	// takes together what came while the model was busy. It has no meaning without MaxBatchRows.
	MaxBatchDelay Duration `json:"max_batch_delay,omitempty"`
	// StartTimeout bounds a replica's start, model load included; then it is stopped and retried.
	StartTimeout Duration `json:"start_timeout,omitempty"`
	// DrainTimeout bounds the wait for running requests when a replica is stopped.
	DrainTimeout Duration `json:"drain_timeout,omitempty"`
	// Weight is the share of the endpoint's traffic; nil with one deployment is all of it.
	Weight *int `json:"weight,omitempty"`
	// Scale lets the number of replicas follow the load; nil keeps it at Replicas.
	Scale *ScaleSpec `json:"scale,omitempty"`
	// SlowStart is how long a replica that is new gets fewer requests than its fellows; 0 is
	// [DefaultSlowStart], and less than a millisecond none.
	SlowStart Duration `json:"slow_start,omitempty"`
	// MaxSurge is how many replicas beyond Replicas an update may run, and MaxUnavailable how many
	// below it may be missing: a number, or a share of Replicas as "25%". Both 0 is invalid.
	MaxSurge       string `json:"max_surge,omitempty"`
	MaxUnavailable string `json:"max_unavailable,omitempty"`
	// Restarted, when it changes, replaces all replicas, as an update does.
	Restarted string `json:"restarted,omitempty"`
}

// ModelControl says who decides which models of a replica are in memory.
type ModelControl string

// The ways to decide it.
const (
	ModelControlNone     ModelControl = "none"     // all models, always; a client's load or unload is refused
	ModelControlExplicit ModelControl = "explicit" // all at the start; then clients of the endpoint load and unload
)

// Preload says how the Python workers of a replica come to their models.
type Preload string

// The ways to preload.
const (
	PreloadAuto   Preload = "auto"   // fork after init() where the script left nothing that a fork would break
	PreloadAlways Preload = "always" // fork in any case
	PreloadNever  Preload = "never"  // every worker runs init() itself
)

// maxWorkers bounds Workers.
const maxWorkers = 256

// MaxModels bounds the models of one deployment, Model included.
const MaxModels = 100

// AllModels are the models that a replica serves: Model, where there is one, then Models.
func (s DeploymentSpec) AllModels() []string {
	if s.Model == "" {
		return s.Models
	}
	return append([]string{s.Model}, s.Models...)
}

// The defaults of a deployment.
const (
	DefaultDeployment     = "blue"
	DefaultTarget         = "local"
	DefaultReplicas       = 1
	DefaultEntry          = "score.py"
	DefaultMaxConcurrency = 8
	DefaultStartTimeout   = Duration(5 * time.Minute)
	DefaultDrainTimeout   = Duration(30 * time.Second)
	DefaultMaxSurge       = "100%"
	DefaultMaxUnavailable = "0"
)

// maxConcurrency bounds MaxConcurrency, and maxBatchRows MaxBatchRows.
const (
	maxConcurrency = 10_000
	maxBatchRows   = 10_000
)

// WithDefaults is the spec with every unset field filled in.
func (s DeploymentSpec) WithDefaults() DeploymentSpec {
	if s.Name == "" {
		s.Name = DefaultDeployment
	}
	if s.Target == "" {
		s.Target = DefaultTarget
	}
	if s.Replicas == 0 {
		s.Replicas = DefaultReplicas
	}
	if s.ModelControl == "" {
		s.ModelControl = ModelControlNone
	}
	if s.Code != "" && s.Entry == "" {
		s.Entry = DefaultEntry
	}
	if s.MaxConcurrency == 0 {
		// two batches of single rows: one that runs and one that gathers
		s.MaxConcurrency = min(max(DefaultMaxConcurrency, 2*s.MaxBatchRows), maxConcurrency)
	}
	if s.StartTimeout == 0 {
		s.StartTimeout = DefaultStartTimeout
	}
	if s.DrainTimeout == 0 {
		s.DrainTimeout = DefaultDrainTimeout
	}
	if s.SlowStart == 0 {
		s.SlowStart = DefaultSlowStart
	}
	if s.MaxSurge == "" {
		s.MaxSurge = DefaultMaxSurge
	}
	if s.MaxUnavailable == "" {
		s.MaxUnavailable = DefaultMaxUnavailable
	}
	s.Scale = s.Scale.WithDefaults()
	return s
}

// Validate checks every field and names the first that is wrong.
func (s DeploymentSpec) Validate() error {
	if s.Name == "" {
		s.Name = DefaultDeployment
	}
	if err := ValidateName("deployment", s.Name); err != nil {
		return err
	}
	switch {
	case s.Model == "" && s.Code == "":
		return Errorf(Invalid, "deployment %q: model: empty", s.Name).WithHint("name a registered model, NAME or NAME:VERSION, or give code")
	case s.Model == "" && len(s.Models) > 0:
		return Errorf(Invalid, "deployment %q: model: empty, and models are not", s.Name).WithHint("name the first one in model")
	}
	if err := s.validatePython(); err != nil {
		return err
	}
	if err := s.validateModels(); err != nil {
		return err
	}
	if s.Target != "" {
		if err := ValidateName("target", s.Target); err != nil {
			return err
		}
	}
	return s.validateNumbers()
}

func (s DeploymentSpec) validatePython() error {
	bad := func(field string, format string, args ...any) *Error {
		return Errorf(Invalid, "deployment %q: "+field+": "+format, append([]any{s.Name}, args...)...)
	}
	switch s.Preload {
	case "", PreloadAuto, PreloadAlways, PreloadNever:
	default:
		return bad("preload", "%.40q is not known", s.Preload).WithHint("use auto, always or never")
	}
	switch {
	case s.Code == "" && s.Entry != "":
		return bad("entry", "%.80q without code", s.Entry).WithHint("give the folder of the script")
	case s.Entry != "" && ValidatePath(s.Entry) != nil:
		return ValidatePath(s.Entry)
	case s.Workers < 0 || s.Workers > maxWorkers:
		return bad("workers", "%d is not between 1 and %d", s.Workers, maxWorkers)
	case s.WorkerMaxRequests < 0:
		return bad("worker_max_requests", "%d is negative", s.WorkerMaxRequests)
	case s.WorkerMaxMemory != 0 && s.WorkerMaxMemory < 16<<20:
		return bad("worker_max_memory", "%v is less than 16Mi", s.WorkerMaxMemory)
	case s.Environment != nil && !validPython(s.Environment.Python):
		return bad("environment.python", "%.40q is not a version", s.Environment.Python).WithHint("write 3.11 or 3.11.2")
	}
	return nil
}

// validPython accepts nothing, MAJOR.MINOR and MAJOR.MINOR.PATCH.
func validPython(version string) bool {
	if version == "" {
		return true
	}
	parts := strings.Split(version, ".")
	for _, p := range parts {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return len(parts) == 2 || len(parts) == 3
}

// validateModels wants names that differ: a replica tells its models apart by them.
func (s DeploymentSpec) validateModels() error {
	switch s.ModelControl {
	case "", ModelControlNone, ModelControlExplicit:
	default:
		return Errorf(Invalid, "deployment %q: model_control: %.40q is not known", s.Name, s.ModelControl).WithHint("use none or explicit")
	}
	if len(s.Models) >= MaxModels {
		return Errorf(Invalid, "deployment %q: models: %d, at most %d beside model", s.Name, len(s.Models), MaxModels-1)
	}
	seen := map[string]bool{}
	for _, m := range s.AllModels() {
		ref, err := ParseModelRef(m)
		if err != nil {
			return err
		}
		if seen[ref.Name] {
			return Errorf(Invalid, "deployment %q: models: %q stands there twice", s.Name, ref.Name).WithHint("one deployment serves one version of a model")
		}
		seen[ref.Name] = true
	}
	return nil
}

func (s DeploymentSpec) validateNumbers() error {
	bad := func(field string, format string, args ...any) error {
		return Errorf(Invalid, "deployment %q: "+field+": "+format, append([]any{s.Name}, args...)...)
	}
	switch {
	case s.Replicas < 0 || s.Replicas > 1000:
		return bad("replicas", "%d is not between 1 and 1000", s.Replicas)
	case s.CPU != 0 && s.CPU < 0.01:
		return bad("cpu", "%v is less than 0.01", s.CPU)
	case s.Memory != 0 && s.Memory < 16<<20:
		return bad("memory", "%v is less than 16Mi", s.Memory)
	case s.MaxConcurrency < 0 || s.MaxConcurrency > maxConcurrency:
		return bad("max_concurrency", "%d is not between 1 and %d", s.MaxConcurrency, maxConcurrency)
	case s.MaxBatchRows < 0 || s.MaxBatchRows > maxBatchRows:
		return bad("max_batch_rows", "%d is not between 0 and %d", s.MaxBatchRows, maxBatchRows)
	case s.MaxBatchDelay < 0 || s.MaxBatchDelay > Duration(10*time.Second):
		return bad("max_batch_delay", "%v is not between 0 and 10s", s.MaxBatchDelay)
	case s.MaxBatchDelay > 0 && s.MaxBatchRows <= 1:
		return bad("max_batch_delay", "%v without max_batch_rows: there are no batches to wait for", s.MaxBatchDelay)
	case s.StartTimeout != 0 && s.StartTimeout < Duration(time.Second) || s.StartTimeout > Duration(24*time.Hour):
		return bad("start_timeout", "%v is not between 1s and 24h", s.StartTimeout)
	case s.DrainTimeout != 0 && s.DrainTimeout < Duration(time.Second) || s.DrainTimeout > Duration(24*time.Hour):
		return bad("drain_timeout", "%v is not between 1s and 24h", s.DrainTimeout)
	case s.Weight != nil && (*s.Weight < 0 || *s.Weight > 100):
		return bad("weight", "%d is not between 0 and 100", *s.Weight)
	case s.SlowStart < 0 || s.SlowStart > maxSlowStart:
		return bad("slow_start", "%v is not between 0 and %v", s.SlowStart, maxSlowStart)
	case len(s.Restarted) > MaxName:
		return bad("restarted", "%d characters, at most %d", len(s.Restarted), MaxName)
	}
	if err := s.validateUpdate(); err != nil {
		return err
	}
	if len(s.Secrets) > MaxSecrets {
		return bad("secrets", "%d, at most %d", len(s.Secrets), MaxSecrets)
	}
	for i, name := range s.Secrets {
		if err := ValidateName("secret", name); err != nil {
			return err
		}
		if slices.Contains(s.Secrets[:i], name) {
			return bad("secrets", "%q stands there twice", name)
		}
	}
	if err := s.Scale.Validate(); err != nil {
		return Errorf(AsError(err).Code, "deployment %q: %s", s.Name, AsError(err).Message).WithHint("%s", AsError(err).Hint)
	}
	for k, v := range s.Env {
		if k == "" || strings.ContainsAny(k, "=\x00 ") || strings.ContainsRune(v, 0) {
			return bad("env", "%q is not a variable's name", k)
		}
	}
	return nil
}

// validateUpdate checks how an update goes about.
func (s DeploymentSpec) validateUpdate() error {
	full := s.WithDefaults()
	for field, text := range map[string]string{"max_surge": full.MaxSurge, "max_unavailable": full.MaxUnavailable} {
		if _, err := AmountOf(text, 1); err != nil {
			return Errorf(Invalid, "deployment %q: %s: %v", s.Name, field, err)
		}
	}
	surge, _ := AmountOf(full.MaxSurge, percent)
	missing, _ := AmountOf(full.MaxUnavailable, percent)
	if surge == 0 && missing == 0 {
		return Errorf(Invalid, "deployment %q: max_surge and max_unavailable are both 0: an update could not begin", s.Name).
			WithHint("allow one replica more (max_surge: 1) or one less (max_unavailable: 1)")
	}
	return nil
}

// Deployment is what the reconciler hands to a driver.
type Deployment struct {
	Endpoint string
	Spec     DeploymentSpec // defaults filled in
	// Request holds the endpoint's settings that a replica needs.
	Request RequestLimits
	// Bundle is the digest of what to run.
	Bundle string
	// Handle is the driver's note from the Apply before; zero at first.
	Handle Handle
}

// RequestLimits are enforced by the replica as well as by the gateway.
type RequestLimits struct {
	Timeout Duration `json:"timeout"`
	MaxBody Bytes    `json:"max_body"`
}

// Key names the deployment across restarts: ENDPOINT/DEPLOYMENT.
func (d Deployment) Key() string { return d.Endpoint + "/" + d.Spec.Name }

// Revision is a short digest over all that a running replica depends on: replicas of another
// revision are replaced. The number of replicas, weight and timeouts of the start are not in it.
func (d Deployment) Revision() string {
	main, control := "", d.Spec.ModelControl
	if len(d.Spec.Models) > 0 {
		main = d.Spec.Model // the bundle does not tell which of its models answers /score
	}
	if control == ModelControlNone {
		control = ""
	}
	preload := d.Spec.Preload
	if preload == PreloadAuto {
		preload = ""
	}
	b, _ := json.Marshal(struct { // plain values only: cannot fail
		Bundle         string
		CPU            CPU
		Memory         Bytes
		Env            map[string]string
		MaxConcurrency int
		Request        RequestLimits
		MaxBatchRows   int          `json:",omitempty"`
		MaxBatchDelay  Duration     `json:",omitempty"`
		ModelControl   ModelControl `json:",omitempty"`
		Main           string       `json:",omitempty"`
		Workers        int          `json:",omitempty"`
		Preload        Preload      `json:",omitempty"`
		MaxRequests    int          `json:",omitempty"`
		MaxMemory      Bytes        `json:",omitempty"`
		Restarted      string       `json:",omitempty"`
		Secrets        []string     `json:",omitempty"`
	}{
		d.Bundle, d.Spec.CPU, d.Spec.Memory, d.Spec.Env, d.Spec.MaxConcurrency, d.Request,
		d.Spec.MaxBatchRows, d.Spec.MaxBatchDelay, control, main,
		d.Spec.Workers, preload, d.Spec.WorkerMaxRequests, d.Spec.WorkerMaxMemory, d.Spec.Restarted, d.Spec.Secrets,
	})
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// Observed is the reconciler's record of one deployment on one target.
type Observed struct {
	Endpoint   string           `json:"endpoint"`
	Deployment string           `json:"deployment"`
	Target     string           `json:"target"`
	Handle     Handle           `json:"handle"`
	Status     DeploymentStatus `json:"status"`
	// Weight is the share of the traffic that is in use: it follows the wanted one once the deployment
	// has a ready replica, or may start one by a request.
	Weight int `json:"weight,omitempty"`
}

// Deployments keeps what was observed, one record per endpoint, deployment and target.
type Deployments interface {
	// Put creates or replaces a record.
	Put(ctx context.Context, o Observed) error
	// List returns the records of an endpoint, of all for an empty name, ordered by endpoint,
	// deployment and target.
	List(ctx context.Context, endpoint string) ([]Observed, error)
	// Delete removes a record; removing what is gone is no error. Handle and Status are ignored.
	Delete(ctx context.Context, o Observed) error
}
