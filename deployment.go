package zarpa

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"
)

// DeploymentSpec says: this model, on that target, so many replicas.
type DeploymentSpec struct {
	// Name is unique within the endpoint.
	Name string `json:"name"`
	// Model is NAME:VERSION; the API resolves a bare NAME to the newest version before it stores.
	Model string `json:"model"`
	// Target is the name of the target; "local" is this machine.
	Target   string `json:"target,omitempty"`
	Replicas int    `json:"replicas,omitempty"`
	// CPU bounds the processors of one replica and sets the model's threads; 0 is unlimited.
	CPU CPU `json:"cpu,omitempty"`
	// Memory bounds one replica; 0 is unlimited.
	Memory Bytes `json:"memory,omitempty"`
	// Env is added to the replica's environment.
	Env map[string]string `json:"env,omitempty"`
	// MaxConcurrency is how many requests one replica works on at a time; more wait in the gateway.
	MaxConcurrency int `json:"max_concurrency,omitempty"`
	// StartTimeout bounds a replica's start, model load included; then it is stopped and retried.
	StartTimeout Duration `json:"start_timeout,omitempty"`
	// DrainTimeout bounds the wait for running requests when a replica is stopped.
	DrainTimeout Duration `json:"drain_timeout,omitempty"`
	// Weight is the share of the endpoint's traffic; nil with one deployment is all of it.
	Weight *int `json:"weight,omitempty"`
}

// The defaults of a deployment.
const (
	DefaultDeployment     = "blue"
	DefaultTarget         = "local"
	DefaultReplicas       = 1
	DefaultMaxConcurrency = 8
	DefaultStartTimeout   = Duration(5 * time.Minute)
	DefaultDrainTimeout   = Duration(30 * time.Second)
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
	if s.MaxConcurrency == 0 {
		s.MaxConcurrency = DefaultMaxConcurrency
	}
	if s.StartTimeout == 0 {
		s.StartTimeout = DefaultStartTimeout
	}
	if s.DrainTimeout == 0 {
		s.DrainTimeout = DefaultDrainTimeout
	}
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
	if s.Model == "" {
		return Errorf(Invalid, "deployment %q: model: empty", s.Name).WithHint("name a registered model: NAME or NAME:VERSION")
	}
	if _, err := ParseModelRef(s.Model); err != nil {
		return err
	}
	if s.Target != "" {
		if err := ValidateName("target", s.Target); err != nil {
			return err
		}
	}
	return s.validateNumbers()
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
	case s.MaxConcurrency < 0 || s.MaxConcurrency > 10_000:
		return bad("max_concurrency", "%d is not between 1 and 10000", s.MaxConcurrency)
	case s.StartTimeout != 0 && s.StartTimeout < Duration(time.Second) || s.StartTimeout > Duration(24*time.Hour):
		return bad("start_timeout", "%v is not between 1s and 24h", s.StartTimeout)
	case s.DrainTimeout != 0 && s.DrainTimeout < Duration(time.Second) || s.DrainTimeout > Duration(24*time.Hour):
		return bad("drain_timeout", "%v is not between 1s and 24h", s.DrainTimeout)
	case s.Weight != nil && (*s.Weight < 0 || *s.Weight > 100):
		return bad("weight", "%d is not between 0 and 100", *s.Weight)
	}
	for k, v := range s.Env {
		if k == "" || strings.ContainsAny(k, "=\x00 ") || strings.ContainsRune(v, 0) {
			return bad("env", "%q is not a variable's name", k)
		}
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
	b, _ := json.Marshal(struct { // plain values only: cannot fail
		Bundle         string
		CPU            CPU
		Memory         Bytes
		Env            map[string]string
		MaxConcurrency int
		Request        RequestLimits
	}{d.Bundle, d.Spec.CPU, d.Spec.Memory, d.Spec.Env, d.Spec.MaxConcurrency, d.Request})
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
