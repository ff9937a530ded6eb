package zarpa

import "time"

// Server describes a running control plane.
type Server struct {
	Version    string    `json:"version"`
	GatewayURL string    `json:"gateway_url"`
	DataDir    string    `json:"data_dir"`
	Engines    []string  `json:"engines"`
	Started    time.Time `json:"started"`
}
