package zarpa

import (
	"context"
	"crypto/sha256"
	"encoding/json"
)

// Routes are all that a gateway needs to know, in one snapshot. They cross a process boundary as
// JSON and hold no secret: keys are digests.
type Routes struct {
	// Revision grows with every change; a gateway ignores one that is older than its own.
	Revision  int64   `json:"revision"`
	Endpoints []Route `json:"endpoints"`
	// VerifyKeys are those whose signatures make scoring tokens valid.
	VerifyKeys []VerifyKey `json:"verify_keys,omitempty"`
}

// Route is one endpoint as the gateway sees it.
type Route struct {
	Endpoint string   `json:"endpoint"`
	Auth     AuthMode `json:"auth"`
	// Hostname is the endpoint's own name of the gateway; empty for none.
	Hostname string `json:"hostname,omitempty"`
	// Keys are [KeyDigest]s of the keys that open the endpoint.
	Keys           [][]byte `json:"keys,omitempty"`
	RequestTimeout Duration `json:"request_timeout"`
	MaxQueue       int      `json:"max_queue"`
	QueueWait      Duration `json:"queue_wait"`
	MaxBody        Bytes    `json:"max_body"`
	// StatusCodes and CORSOrigins are the endpoint's.
	StatusCodes StatusCodes `json:"status_codes,omitempty"`
	CORSOrigins []string    `json:"cors_origins,omitempty"`
	// Mirror, Sticky, Limits, RetryBudget and Ejection are the endpoint's, defaults filled in.
	Mirror      *MirrorSpec   `json:"mirror,omitempty"`
	Sticky      string        `json:"sticky,omitempty"`
	Limits      *KeyLimits    `json:"limits,omitempty"`
	RetryBudget int           `json:"retry_budget"`
	Ejection    *EjectionSpec `json:"ejection,omitempty"`
	// Deployments with at least one replica, or with none yet: a request for those waits its
	// QueueWait for one to come.
	Deployments []RouteDeployment `json:"deployments"`
}

// UnmarshalJSON fills in the defaults of what earlier releases did not write: a gateway that comes
// back with their file tries again and ejects as one with new routes does.
func (r *Route) UnmarshalJSON(b []byte) error {
	type plain Route // without this method
	p := plain{RetryBudget: DefaultRetryBudget}
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	p.Ejection = p.Ejection.WithDefaults()
	*r = Route(p)
	return nil
}

// RouteDeployment is one deployment as the gateway sees it.
type RouteDeployment struct {
	Name string `json:"name"`
	// Weight is the share of the traffic in per cent.
	Weight int `json:"weight"`
	// MaxConcurrency is how many requests one replica gets at a time.
	MaxConcurrency int `json:"max_concurrency"`
	// Hold is how long a request waits, in place of QueueWait, while there is no replica: a first one
	// starts when a request waits. 0 for a deployment that is not started by requests.
	Hold Duration `json:"hold,omitempty"`
	// SlowStart is how long a new replica gets fewer requests.
	SlowStart Duration `json:"slow_start,omitempty"`
	// ModelControl is the deployment's: explicit lets a client's load and unload reach its replicas.
	ModelControl ModelControl   `json:"model_control,omitempty"`
	Replicas     []RouteReplica `json:"replicas"`
}

// RouteReplica is one replica that may get requests.
type RouteReplica struct {
	ID      string `json:"id"`
	Address string `json:"address"` // as in [Replica]
}

// Router takes routes to where requests are.
type Router interface {
	// SetRoutes returns when the new routes are in use; requests that are under way end as they
	// began. unavailable when the gateway cannot be reached: it will be given the routes when it
	// is back.
	SetRoutes(ctx context.Context, r Routes) error
}

// KeyDigest is what a gateway keeps of a key. Keys are 256 random bits, so that one SHA-256 is
// enough.
func KeyDigest(key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return sum[:]
}
