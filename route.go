package zarpa

import (
	"context"
	"crypto/sha256"
)

// Routes are all that a gateway needs to know, in one snapshot. They cross a process boundary as
// JSON and hold no secret: keys are digests.
type Routes struct {
	// Revision grows with every change; a gateway ignores one that is older than its own.
	Revision  int64   `json:"revision"`
	Endpoints []Route `json:"endpoints"`
}

// Route is one endpoint as the gateway sees it.
type Route struct {
	Endpoint string   `json:"endpoint"`
	Auth     AuthMode `json:"auth"`
	// Keys are [KeyDigest]s of the keys that open the endpoint.
	Keys           [][]byte `json:"keys,omitempty"`
	RequestTimeout Duration `json:"request_timeout"`
	MaxQueue       int      `json:"max_queue"`
	QueueWait      Duration `json:"queue_wait"`
	MaxBody        Bytes    `json:"max_body"`
	// Deployments with at least one replica, or with none yet: a request for those waits its
	// QueueWait for one to come.
	Deployments []RouteDeployment `json:"deployments"`
}

// RouteDeployment is one deployment as the gateway sees it.
type RouteDeployment struct {
	Name string `json:"name"`
	// Weight is the share of the traffic in per cent.
	Weight int `json:"weight"`
	// MaxConcurrency is how many requests one replica gets at a time.
	MaxConcurrency int            `json:"max_concurrency"`
	Replicas       []RouteReplica `json:"replicas"`
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
