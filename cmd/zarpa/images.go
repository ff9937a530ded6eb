package main

import (
	"context"
	"net/http"
	"path/filepath"
	"time"

	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/registry"
)

// openRegistry opens the container registry of the server, unless it is turned off.
func (p *plane) openRegistry(ctx context.Context) (err error) {
	if p.flags.noRegistry {
		return nil
	}
	p.registry, err = registry.Open(ctx, registry.Options{
		Dir: filepath.Join(p.data, "registry"), Log: p.log, Changed: api.RegistryChanged(p.store, p.log.Warn),
	})
	return err
}

// registryHandler is nil without a registry, which a nil *registry.Server in an interface is not.
func (p *plane) registryHandler() http.Handler {
	if p.registry == nil {
		return nil
	}
	return p.registry
}

// imageGrace is how long layers that no image names are kept: a push that was interrupted goes on within it.
const imageGrace = 24 * time.Hour

// sweepRegistry removes such layers.
func (p *plane) sweepRegistry(ctx context.Context) error {
	if p.registry == nil {
		return nil
	}
	swept, err := p.registry.Sweep(ctx, time.Now().Add(-imageGrace))
	if swept.Blobs+swept.Uploads > 0 {
		p.log.Info("swept the registry", "layers", swept.Blobs, "uploads", swept.Uploads, "bytes", swept.Bytes)
	}
	return err
}
