package zarpa

import "time"

// Server describes a running control plane.
type Server struct {
	Version    string    `json:"version"`
	GatewayURL string    `json:"gateway_url"`
	DataDir    string    `json:"data_dir"`
	Engines    []string  `json:"engines"`
	Started    time.Time `json:"started"`
	// NoPickle tells that models which run code when they are loaded are refused.
	NoPickle bool `json:"no_pickle,omitempty"`
	// CertificateEnds is when the certificate of the control API does; the zero time without one.
	CertificateEnds time.Time `json:"certificate_ends,omitzero"`
}
