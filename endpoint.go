package zarpa

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"
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
	AuthKey   AuthMode = "key"   // Authorization: Bearer, with the primary or secondary key, or a scoring token
	AuthToken AuthMode = "token" // with a scoring token alone, which is short-lived
	AuthNone  AuthMode = "none"  // anybody who reaches the gateway
)

// StatusCodes names a mapping from failures to HTTP statuses. It holds for the paths of the
// original service; the Open Inference Protocol has its own.
type StatusCodes string

// The mappings. What is not named here is the same in all: 400, 401, 404, 413, 415, 500.
const (
	// StatusStandard: model error 424, overload and no replica 503, timeout 504, broken replica 502.
	StatusStandard StatusCodes = "standard"
	// StatusV1 is Azure ML's first generation: model error and broken replica 502, overload and no
	// replica 503, timeout 504.
	StatusV1 StatusCodes = "v1"
	// StatusV2 is its second: whatever the model's server answers other than 2xx is 424 with the
	// headers ms-azureml-model-error-statuscode and -reason, overload 429, timeout 408.
	StatusV2 StatusCodes = "v2"
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
	// StatusCodes says which HTTP statuses tell callers of /score and /invocations what failed.
	StatusCodes StatusCodes `json:"status_codes,omitempty"`
	// CORSOrigins are the origins whose pages browsers let call the endpoint: "*" for all, origins
	// such as "https://app.example.com", or regular expressions between slashes.
	CORSOrigins []string `json:"cors_origins,omitempty"`
	// Default is the deployment that gets what the weights leave; see [EndpointSpec.Weights].
	Default string `json:"default,omitempty"`
	// Mirror copies a share of the traffic to one deployment; nil for none.
	Mirror *MirrorSpec `json:"mirror,omitempty"`
	// Sticky is [StickyKey] or [StickyHeader]+NAME; empty chooses a deployment for each request anew.
	Sticky string `json:"sticky,omitempty"`
	// Limits bound what one key may do; nil for nothing.
	Limits *KeyLimits `json:"limits,omitempty"`
	// RetryBudget is how many requests may go to a second replica, in per cent of all; nil is
	// [DefaultRetryBudget].
	RetryBudget *int `json:"retry_budget,omitempty"`
	// Ejection says when replicas that fail get no requests; nil is the default.
	Ejection *EjectionSpec `json:"ejection,omitempty"`
	// Priority decides who gives way when a target is full: idle replicas of an endpoint with a lower
	// one do. Equal ones, as by default, never.
	Priority int `json:"priority,omitempty"`
	// Hostname is a name of the gateway at which the endpoint is the only one: /score, /v2 and the rest are
	// its own there. No two endpoints have the same; empty for none.
	Hostname string `json:"hostname,omitempty"`
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
	if s.StatusCodes == "" {
		s.StatusCodes = StatusStandard
	}
	if s.RetryBudget == nil {
		budget := DefaultRetryBudget
		s.RetryBudget = &budget
	}
	s.Ejection = s.Ejection.WithDefaults()
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
	case s.Auth != "" && s.Auth != AuthKey && s.Auth != AuthToken && s.Auth != AuthNone:
		return Errorf(Invalid, "auth: %q is not known", s.Auth).WithHint("use key, token or none")
	case s.RequestTimeout != 0 && s.RequestTimeout < Duration(time.Millisecond) || s.RequestTimeout > Duration(24*time.Hour):
		return Errorf(Invalid, "request_timeout: %v is not between 1ms and 24h", s.RequestTimeout)
	case s.MaxQueue < 0 || s.MaxQueue > 100_000:
		return Errorf(Invalid, "max_queue: %d is not between 1 and 100000", s.MaxQueue)
	case s.QueueWait != 0 && s.QueueWait < Duration(time.Millisecond) || s.QueueWait > Duration(time.Hour):
		return Errorf(Invalid, "queue_wait: %v is not between 1ms and 1h", s.QueueWait)
	case s.Priority < -1000 || s.Priority > 1000:
		return Errorf(Invalid, "priority: %d is not between -1000 and 1000", s.Priority)
	case s.MaxBody < 0 || s.MaxBody > 4<<30:
		return Errorf(Invalid, "max_body: %v is not between 1 and 4Gi", s.MaxBody)
	}
	if err := s.validateHTTP(); err != nil {
		return err
	}
	if s.Hostname != "" && !validHostname(s.Hostname) {
		return Errorf(Invalid, "hostname: %.260q is not the name of a host", s.Hostname).
			WithHint("write a name in small letters, without a port, such as iris.example.com")
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
	return s.validateTraffic()
}

// validHostname accepts names of RFC 1123 in small letters, and no IP addresses.
func validHostname(name string) bool {
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return len(name) <= 253 && strings.Trim(last, "0123456789") != "" // which a name of numbers alone is taken for
}

// maxCORSOrigins bounds the list, which is searched for every request of a browser.
const maxCORSOrigins = 100

func (s EndpointSpec) validateHTTP() error {
	switch s.StatusCodes {
	case "", StatusStandard, StatusV1, StatusV2:
	default:
		return Errorf(Invalid, "status_codes: %.40q is not known", s.StatusCodes).WithHint("use standard, v1 or v2")
	}
	if len(s.CORSOrigins) > maxCORSOrigins {
		return Errorf(Invalid, "cors_origins: %d, at most %d", len(s.CORSOrigins), maxCORSOrigins)
	}
	for i, o := range s.CORSOrigins {
		if err := validateOrigin(o); err != nil {
			return Errorf(Invalid, "cors_origins[%d]: %.200q: %v", i, o, err).
				WithHint("write *, an origin such as https://app.example.com, or a regular expression between slashes")
		}
	}
	return nil
}

func validateOrigin(o string) error {
	if o == "*" {
		return nil
	}
	if _, ok := OriginExpression(o); ok {
		_, err := regexp.Compile(o[1 : len(o)-1])
		return err
	}
	if strings.Contains(o, "*") {
		return errors.New("a * within an origin stands for nothing")
	}
	u, err := url.Parse(o)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("not an http or https origin")
	case u.Scheme+"://"+u.Host != o:
		return errors.New("an origin is scheme, host and port alone")
	case strings.ToLower(o) != o, u.Scheme == "http" && u.Port() == "80", u.Scheme == "https" && u.Port() == "443":
		return errors.New("browsers write origins in small letters, without the usual port")
	}
	return nil
}

// OriginExpression is the regular expression in an entry of CORSOrigins that is one, made to match
// whole origins.
func OriginExpression(entry string) (expression string, ok bool) {
	if len(entry) < 3 || entry[0] != '/' || entry[len(entry)-1] != '/' {
		return "", false
	}
	return `\A(?:` + entry[1:len(entry)-1] + `)\z`, true
}

// EndpointPhase sums up an endpoint in one word.
type EndpointPhase string

// The phases of an endpoint.
const (
	EndpointEmpty    EndpointPhase = "empty"    // it has no deployment
	EndpointUpdating EndpointPhase = "updating" // an operation runs
	EndpointReady    EndpointPhase = "ready"    // every wanted replica is ready
	EndpointIdle     EndpointPhase = "idle"     // no replica is wanted until a request comes
	EndpointDegraded EndpointPhase = "degraded" // some are, or are on their way, or about to be after all worked before
	EndpointFailed   EndpointPhase = "failed"   // none is, those on their way died before they were ready, and no operation runs
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
