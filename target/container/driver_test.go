package container_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/targettest"
)

// TestMain leaves no image in engines that are not its own.
func TestMain(m *testing.M) {
	code := m.Run()
	for _, variable := range engines {
		host := os.Getenv(variable)
		if host == "" || imageName() == "" {
			continue
		}
		if c, err := client.New(client.WithHost(host)); err == nil {
			_, _ = c.ImageRemove(context.Background(), imageName(), client.ImageRemoveOptions{}) // it may never have been there
			_ = c.Close()
		}
	}
	os.Exit(code)
}

func TestDriver(t *testing.T) {
	onEngines(t, func(t *testing.T, host string) {
		targettest.Run(t, targettest.Config{
			New: func(t *testing.T) zarpa.Driver { return open(t, options(t, host)) },
			Reopen: func(t *testing.T, old zarpa.Driver) zarpa.Driver {
				was := old.(opened)
				if err := was.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, was.o)
			},
			Deployment: deployment,
			Change:     func(d zarpa.Deployment) zarpa.Deployment { return with(d, "CHANGED", "yes") },
			Broken:     func(d zarpa.Deployment) zarpa.Deployment { return with(d, "REPLICA", "broken") },
			Crash:      func(t *testing.T, d zarpa.Driver, r zarpa.Replica) { crash(t, d.(opened).o, r) },
			Call:       targettest.Call,
			Patience:   2 * time.Minute,
		})
	})
}
