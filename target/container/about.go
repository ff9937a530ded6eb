package container

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
)

// about is what an engine tells of itself.
type about struct {
	name, version string // "Docker", "20.10.24"
	platform      string // "linux/amd64"
	cpus          int
	memory        int64
	cgroup        string // "1" or "2"
	rootless      bool
	liveRestore   bool
	// what it can enforce
	limitsMemory, limitsSwap, limitsCPU, limitsPIDs bool
}

func (a about) podman() bool { return a.name == "Podman" }

// ask asks the engine what it is, and remembers the answer.
func (r *runner) ask(ctx context.Context) (about, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.CallTimeout)
	defer cancel()
	res, err := r.engine.Info(ctx, client.InfoOptions{})
	if err != nil {
		return about{}, r.failure("tell what it is", err)
	}
	version, err := r.engine.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return about{}, r.failure("tell its version", err)
	}
	i := res.Info
	a := about{
		name: "Docker", version: i.ServerVersion, platform: i.OSType + "/" + architecture(i.Architecture), cpus: i.NCPU, memory: i.MemTotal,
		cgroup: i.CgroupVersion, liveRestore: i.LiveRestoreEnabled,
		limitsMemory: i.MemoryLimit, limitsSwap: i.SwapLimit, limitsCPU: i.CPUCfsQuota, limitsPIDs: i.PidsLimit,
	}
	for _, c := range version.Components {
		if strings.HasPrefix(c.Name, "Podman") {
			a.name, a.version, a.liveRestore = "Podman", c.Version, true // no daemon ends its containers
		}
	}
	a.rootless = slices.ContainsFunc(i.SecurityOptions, func(s string) bool { return strings.Contains(s, "rootless") })
	if a.rootless && a.cgroup == "1" {
		a.limitsMemory, a.limitsSwap, a.limitsCPU, a.limitsPIDs = false, false, false, false
	}
	r.mu.Lock()
	r.about = a
	r.mu.Unlock()
	return a, nil
}

// known is what the engine told last; zero when it has not been asked yet.
func (r *runner) known() about {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.about
}

// met is known, or the answer to asking.
func (r *runner) met(ctx context.Context) (about, error) {
	if a := r.known(); a.name != "" {
		return a, nil
	}
	return r.ask(ctx)
}

// architecture is Go's name for what uname calls a machine.
func architecture(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armv7l", "armv6l":
		return "arm"
	case "i386", "i686":
		return "386"
	}
	return machine
}

// enforced says which limits of a deployment hold, as the process driver does.
func (a about) enforced(spec zarpa.DeploymentSpec) []string {
	why := "the engine's machine has no such cgroup"
	if a.rootless && a.cgroup == "1" {
		why = "a rootless engine on cgroup v1 ignores limits"
	}
	var out []string
	say := func(what string, holds bool) {
		if holds {
			out = append(out, fmt.Sprintf("%s (cgroup v%s, %s)", what, a.cgroup, a.name))
		} else {
			out = append(out, what+": not enforced: "+why)
		}
	}
	if spec.Memory > 0 {
		say("memory "+spec.Memory.String(), a.limitsMemory)
	}
	if spec.CPU > 0 {
		say("cpu "+spec.CPU.String(), a.limitsCPU)
	}
	return out
}

// notes are what the engine cannot do.
func (a about) notes() []string {
	var out []string
	if a.rootless && a.cgroup == "1" {
		out = append(out, "rootless on cgroup v1: no limit of cpu, memory or processes is enforced")
	} else {
		for what, holds := range map[string]bool{"memory": a.limitsMemory, "cpu": a.limitsCPU, "number of processes": a.limitsPIDs} {
			if !holds {
				out = append(out, "limits of "+what+" are not enforced: the engine's machine has no such cgroup")
			}
		}
		if a.limitsMemory && !a.limitsSwap {
			out = append(out, "swap is not limited: a replica over its memory limit may use it")
		}
	}
	if a.podman() {
		out = append(out, "Podman does not tell when it ends a container for want of memory: exit 137 under a memory limit is taken for it")
	}
	if !a.liveRestore {
		out = append(out, "a restart of the engine ends its containers: set live-restore in Docker's daemon.json to keep them")
	}
	slices.Sort(out)
	return out
}

// Describe is [zarpa.Describer].Describe.
func (d *Driver) Describe(ctx context.Context) (zarpa.TargetInfo, error) {
	a, err := d.runner.ask(ctx)
	if err != nil {
		return zarpa.TargetInfo{}, err
	}
	info := zarpa.TargetInfo{Engine: a.name + " " + a.version, Platform: a.platform, Notes: a.notes()}
	others, err := d.runner.others(ctx)
	if err != nil {
		return zarpa.TargetInfo{}, err
	}
	if others > 0 {
		info.Notes = append(info.Notes, fmt.Sprintf("containers of other instances or targets of Zarpa, which are left alone: %d", others))
	}
	return info, nil
}

// Capacity is [zarpa.Capacity].Capacity: processors and memory of the engine's machine, once it has told them. It
// asks no engine: the autoscaler waits for the answer at every tick, for the deployments of all targets.
func (d *Driver) Capacity(ctx context.Context) (zarpa.CapacityReport, error) {
	report, err := d.set.Capacity(ctx)
	if err != nil {
		return report, err
	}
	a := d.runner.known()
	report.CPU, report.Memory = zarpa.CPU(a.cpus), zarpa.Bytes(a.memory)
	return report, nil
}
