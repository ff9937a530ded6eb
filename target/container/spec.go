package container

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa/internal/replica"
)

// The labels of all that this driver makes.
const (
	labelInstance   = "dev.zarpa.instance"
	labelTarget     = "dev.zarpa.target"
	labelEndpoint   = "dev.zarpa.endpoint"
	labelDeployment = "dev.zarpa.deployment"
	labelReplica    = "dev.zarpa.replica"
	labelRun        = "dev.zarpa.run"
	labelRevision   = "dev.zarpa.revision"
	labelMade       = "dev.zarpa.made" // when, so that texts sort as times do
)

// What images agree with this driver on.
const (
	port       = 5001 // where the entrypoint serves, on every address
	workDir    = "/work"
	secretsDir = "/run/secrets"
	secretsEnv = "ZARPA_SECRETS"
)

var servedPort, _ = network.PortFrom(port, network.TCP)

// own are the filters for what this driver has made.
func (r *runner) own() client.Filters {
	return make(client.Filters).Add("label", labelInstance+"="+r.o.Instance, labelTarget+"="+r.o.Target)
}

func (r *runner) labels(s replica.Start, run string) map[string]string {
	return map[string]string{
		labelInstance: r.o.Instance, labelTarget: r.o.Target, labelEndpoint: s.Deployment.Endpoint, labelDeployment: s.Deployment.Spec.Name,
		labelReplica: s.ID, labelRun: run, labelRevision: s.Deployment.Revision(),
		labelMade: r.o.Now().UTC().Format("2006-01-02T15:04:05.000000000Z"),
	}
}

// creation is all that a container is made from.
type creation struct {
	start replica.Start
	run   string
	image string
	about about
}

// options are the container's. Its user, entrypoint and folder are the image's.
func (r *runner) options(c creation) client.ContainerCreateOptions {
	spec := c.start.Deployment.Spec
	labels := r.labels(c.start, c.run)
	stop := int(math.Ceil(time.Duration(spec.DrainTimeout).Seconds())) + 1
	config := &container.Config{
		Image: c.image, Labels: labels, StopTimeout: &stop,
		Cmd:          replica.ScoreArgs(c.start.Deployment, c.start.ID+"."+c.run, workDir),
		ExposedPorts: network.PortSet{servedPort: {}},
	}
	for name, value := range spec.Env {
		config.Env = append(config.Env, name+"="+value)
	}
	tmpfs := fmt.Sprintf("rw,exec,nosuid,nodev,size=%d,mode=1777", r.o.Scratch)
	hosting := &container.HostConfig{
		ReadonlyRootfs: true, CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"},
		Tmpfs:         map[string]string{"/tmp": tmpfs, workDir: tmpfs},
		NetworkMode:   container.NetworkMode(r.o.Network),
		PortBindings:  network.PortMap{servedPort: {{HostIP: r.publish}}},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(r.o.Restart)},
		LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": strconv.FormatInt(max(1, r.o.LogLimit/2), 10), "max-file": "2"}},
	}
	if c.about.podman() { // it keeps one file, and cuts off its beginning
		hosting.LogConfig.Config = map[string]string{"max-size": strconv.FormatInt(r.o.LogLimit, 10)}
	}
	if c.about.limitsPIDs {
		hosting.PidsLimit = &r.o.MaxPIDs
	}
	if spec.CPU > 0 && c.about.limitsCPU {
		hosting.NanoCPUs = int64(math.Round(float64(spec.CPU) * 1e9))
	}
	if spec.Memory > 0 && c.about.limitsMemory {
		hosting.Memory = int64(spec.Memory)
		if c.about.limitsSwap {
			hosting.MemorySwap = int64(spec.Memory) // both together: no swap
		}
	}
	if len(spec.Secrets) > 0 {
		config.Env = append(config.Env, secretsEnv+"="+secretsDir)
		// Docker fills no volume that is read-only; there the folder is root's. Podman gives it to the container's user.
		hosting.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: secretsDir, ReadOnly: c.about.podman(), VolumeOptions: &mount.VolumeOptions{NoCopy: true, Labels: labels}}}
	}
	slices.Sort(config.Env)
	return client.ContainerCreateOptions{
		Name:   fmt.Sprintf("zarpa-%s-%s-%s", c.start.Deployment.Endpoint, spec.Name, c.run),
		Config: config, HostConfig: hosting,
	}
}
