package zarpa

import (
	"context"
	"time"
)

// Endpoint is a stable name, reachable through the gateway, with deployments behind it. Spec is
// what is wanted and is written by the API alone; Status is what was observed and is written by
// the reconciler alone.
type Endpoint struct {
	Name string       `json:"name"`
	Spec EndpointSpec `json:"spec"`
	// Generation counts the changes of Spec, from 1.
	Generation int64 `json:"generation"`
	// Deleting is set when the endpoint is on its way out: it gets no traffic and no changes.
	Deleting bool      `json:"deleting,omitempty"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
}

// AuthMode says how callers of an endpoint prove who they are.
type AuthMode string

// The ways to authenticate a prediction request.
const (
	AuthKey  AuthMode = "key"  // Authorization: Bearer, with the primary or secondary key
	AuthNone AuthMode = "none" // anybody who reaches the gateway
)

// EndpointSpec is what a user wants of an endpoint. Zero values mean the default, which
// [EndpointSpec.WithDefaults] fills in: what it returns is the effective setting.
type EndpointSpec struct {
	Auth AuthMode `json:"auth,omitempty"`
	// RequestTimeout bounds one prediction from the request's arrival at the gateway to the end
	// of the answer; then 504.
	RequestTimeout Duration `json:"request_timeout,omitempty"`
	// MaxQueue is how many requests may wait in the gateway for a free replica; the next gets 503.
	MaxQueue int `json:"max_queue,omitempty"`
	// QueueWait is how long one of them waits at most; then 503.
	QueueWait Duration `json:"queue_wait,omitempty"`
	// MaxBody is the largest request body; then 413.
	MaxBody Bytes `json:"max_body,omitempty"`
	// Deployments are in the order of their names; names are unique.
	Deployments []DeploymentSpec `json:"deployments"`
}

// The defaults of an endpoint.
const (
	DefaultRequestTimeout = Duration(60 * time.Second)
	DefaultMaxQueue       = 256
	DefaultQueueWait      = Duration(500 * time.Millisecond)
	DefaultMaxBody        = Bytes(100 << 20)
)

// WithDefaults is the spec with every unset field filled in, those of its deployments included.
func (s EndpointSpec) WithDefaults() EndpointSpec {
	if s.Auth == "" {
		s.Auth = AuthKey
	}
	if s.RequestTimeout == 0 {
		s.RequestTimeout = DefaultRequestTimeout
	}
	if s.MaxQueue == 0 {
		s.MaxQueue = DefaultMaxQueue
	}
	if s.QueueWait == 0 {
		s.QueueWait = DefaultQueueWait
	}
	if s.MaxBody == 0 {
		s.MaxBody = DefaultMaxBody
	}
	deployments := make([]DeploymentSpec, len(s.Deployments))
	for i, d := range s.Deployments {
		deployments[i] = d.WithDefaults()
	}
	s.Deployments = deployments
	return s
}

// Validate checks every field and names the first that is wrong.
func (s EndpointSpec) Validate() error {
	switch {
	case s.Auth != "" && s.Auth != AuthKey && s.Auth != AuthNone:
		return Errorf(Invalid, "auth: %q is not known", s.Auth).WithHint("use key or none")
	case s.RequestTimeout != 0 && s.RequestTimeout < Duration(time.Millisecond) || s.RequestTimeout > Duration(24*time.Hour):
		return Errorf(Invalid, "request_timeout: %v is not between 1ms and 24h", s.RequestTimeout)
	case s.MaxQueue < 0 || s.MaxQueue > 100_000:
		return Errorf(Invalid, "max_queue: %d is not between 1 and 100000", s.MaxQueue)
	case s.QueueWait != 0 && s.QueueWait < Duration(time.Millisecond) || s.QueueWait > Duration(time.Hour):
		return Errorf(Invalid, "queue_wait: %v is not between 1ms and 1h", s.QueueWait)
	case s.MaxBody < 0 || s.MaxBody > 4<<30:
		return Errorf(Invalid, "max_body: %v is not between 1 and 4Gi", s.MaxBody)
	}
	seen := map[string]bool{}
	for _, d := range s.Deployments {
		if err := d.Validate(); err != nil {
			return err
		}
		d = d.WithDefaults()
		if seen[d.Name] {
			return Errorf(Invalid, "deployments: the name %q stands there twice", d.Name).WithHint("give each deployment of an endpoint a name of its own")
		}
		seen[d.Name] = true
	}
	return nil
}

// EndpointPhase sums up an endpoint in one word.
type EndpointPhase string

// The phases of an endpoint.
const (
	EndpointEmpty    EndpointPhase = "empty"    // it has no deployment
	EndpointUpdating EndpointPhase = "updating" // an operation runs
	EndpointReady    EndpointPhase = "ready"    // every wanted replica is ready
	EndpointDegraded EndpointPhase = "degraded" // some are, or are on their way
	EndpointFailed   EndpointPhase = "failed"   // none is, or is on its way, and no operation runs
	EndpointDeleting EndpointPhase = "deleting" // it is on its way out
)

// EndpointReport is an endpoint with all that is known of it.
type EndpointReport struct {
	Endpoint Endpoint `json:"endpoint"`
	// Effective is the spec with the defaults filled in.
	Effective   EndpointSpec  `json:"effective"`
	Phase       EndpointPhase `json:"phase"`
	URLs        URLs          `json:"urls"`
	Deployments []Observed    `json:"deployments"`
	// Operation is the last one.
	Operation *Operation `json:"operation,omitempty"`
}

// URLs are where an endpoint answers.
type URLs struct {
	Score   string `json:"score"`
	Infer   string `json:"infer"`
	Swagger string `json:"swagger"`
}

// Change is one difference between what is and what is wanted.
type Change struct {
	// Field is a path: "deployments.blue.replicas".
	Field string `json:"field"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
}

// ChangeSet is the answer to a wanted state: what it changes, and the operation that does it.
type ChangeSet struct {
	Endpoint  string     `json:"endpoint"`
	Changes   []Change   `json:"changes"`
	Operation *Operation `json:"operation,omitempty"`
}

// KeyPair is the two keys of an endpoint: either opens it, so that one can be changed while
// callers use the other.
type KeyPair struct {
	Primary   string `json:"primary"`
	Secondary string `json:"secondary"`
}

// Endpoints keeps endpoints.
type Endpoints interface {
	// Put creates or replaces an endpoint. The stored generation must be e.Generation-1 (absent
	// counts as 0); else conflict. Created is kept from the first Put.
	Put(ctx context.Context, e Endpoint) error
	// Get returns an endpoint or not_found.
	Get(ctx context.Context, name string) (Endpoint, error)
	// List returns all, ordered by name.
	List(ctx context.Context) ([]Endpoint, error)
	// Delete removes the record; removing what is gone is no error.
	Delete(ctx context.Context, name string) error
}

// SealedKeys are an endpoint's keys as the store keeps them: encrypted, unreadable to it.
type SealedKeys struct {
	Endpoint string
	Sealed   []byte
	Updated  time.Time
}

// Keys keeps the keys of endpoints.
type Keys interface {
	// Put creates or replaces the keys of an endpoint.
	Put(ctx context.Context, k SealedKeys) error
	// Get returns them or not_found.
	Get(ctx context.Context, endpoint string) (SealedKeys, error)
	// Delete removes them; removing what is gone is no error.
	Delete(ctx context.Context, endpoint string) error
}
