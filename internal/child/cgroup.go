package child

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Limits bound one process and what it starts; zero is unlimited.
type Limits struct {
	CPU    zarpa.CPU   `json:"cpu,omitempty"`
	Memory zarpa.Bytes `json:"memory,omitempty"`
}

// Cgroups makes control groups below the one that this process is in, where it may. Its methods
// may be called from many goroutines; a nil Cgroups enforces nothing.
type Cgroups struct {
	name   string
	cpu    hierarchy
	memory hierarchy

	mu sync.Mutex // orders making the parent group and pruning it
}

// hierarchy is where groups for one controller are made, or why none can be.
type hierarchy struct {
	version int    // 1 or 2
	dir     string // the group of the whole supervisor, made when first needed
	why     string // why nothing is enforced; empty when it is
}

// cgroup is what was made for one run.
type cgroup struct {
	dirs     []string
	enforced []string
}

const (
	cpuPeriod = 100 * time.Millisecond // the kernel's own default
	minQuota  = time.Millisecond       // the least that the kernel takes
	// groupBusy bounds the wait for a group to become empty after its processes were killed.
	groupBusy = 2 * time.Second
)

// OpenCgroups finds out what can be enforced here. name is the same for every supervisor of the
// same children: groups are made in a group of that name.
func OpenCgroups(name string) *Cgroups { return openCgroups("/", name) }

func openCgroups(root, name string) *Cgroups {
	mounts, err := cgroupMounts(root)
	if err != nil {
		why := "this system has no control groups"
		return &Cgroups{name: name, cpu: hierarchy{why: why}, memory: hierarchy{why: why}}
	}
	return &Cgroups{name: name, cpu: mounts.find("cpu", name), memory: mounts.find("memory", name)}
}

// mount is a mounted cgroup hierarchy and the directory in it of this process.
type mount struct {
	version     int
	controllers []string
	top, own    string
}

type mounts []mount

// cgroupMounts reads /proc/self/mountinfo and /proc/self/cgroup.
func cgroupMounts(root string) (mounts, error) {
	info, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil, err
	}
	return parseMounts(root, string(info), string(groups)), nil
}

func parseMounts(root, info, groups string) mounts {
	own := map[string]string{} // controller, "" for version 2 → path within the hierarchy
	for line := range strings.Lines(groups) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			for c := range strings.SplitSeq(parts[1], ",") {
				own[c] = parts[2]
			}
		}
	}
	var out mounts
	for line := range strings.Lines(info) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 || !strings.HasPrefix(kind[0], "cgroup") {
			continue
		}
		m := mount{version: 1, top: filepath.Join(root, fields[4]), controllers: strings.Split(kind[2], ",")}
		path, ok := "", false
		if kind[0] == "cgroup2" {
			m.version = 2
			if b, err := os.ReadFile(filepath.Join(m.top, "cgroup.controllers")); err == nil {
				m.controllers = strings.Fields(string(b))
			}
			path, ok = own[""]
		} else {
			for _, c := range m.controllers {
				if p, found := own[c]; found {
					path, ok = p, true
				}
			}
		}
		// in a container the mount may begin below the root that /proc/self/cgroup counts from
		rel, below := strings.CutPrefix(path, strings.TrimSuffix(fields[3], "/"))
		if m.own = m.top; ok && below && !strings.Contains(rel, "..") {
			m.own = filepath.Join(m.top, rel)
		}
		out = append(out, m)
	}
	return out
}

func (ms mounts) find(controller, name string) hierarchy {
	for _, m := range ms {
		if slices.Contains(m.controllers, controller) {
			return m.hierarchy(controller, name)
		}
	}
	return hierarchy{why: "no control group hierarchy with the " + controller + " controller is mounted"}
}

// hierarchy decides where groups go: below the own group, or, in version 2, below the nearest
// group above it that hands the controller on.
func (m mount) hierarchy(controller, name string) hierarchy {
	h := hierarchy{version: m.version}
	if m.version == 1 {
		h.dir = filepath.Join(m.own, name)
		h.why = tryGroup(h.dir)
		return h
	}
	for dir := m.own; ; dir = filepath.Dir(dir) {
		why := handOn(dir, controller)
		if why == "" {
			h.dir = filepath.Join(dir, name)
			if why = tryGroup(h.dir); why == "" {
				why = handOn(h.dir, controller)
			}
		}
		if h.why = cmp.Or(h.why, why); why == "" {
			h.why = ""
			return h
		}
		if dir == m.top || len(dir) <= len(m.top) {
			return h
		}
	}
}

// handOn makes a version 2 group give a controller to the groups in it.
func handOn(dir, controller string) string {
	path := filepath.Join(dir, "cgroup.subtree_control")
	b, err := os.ReadFile(path)
	if err != nil {
		return "no permission to read " + path
	}
	if slices.Contains(strings.Fields(string(b)), controller) {
		return ""
	}
	if err := writeGroup(path, "+"+controller); err != nil {
		return fmt.Sprintf("%s: the %s controller cannot be handed on: %s", dir, controller, plain(err))
	}
	return ""
}

// tryGroup says why a group cannot be made, or "".
func tryGroup(dir string) string {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, fs.ErrPermission) {
			return "no permission to write " + filepath.Dir(dir)
		}
		return fmt.Sprintf("no group can be made in %s: %s", filepath.Dir(dir), plain(err))
	}
	return ""
}

func plain(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}

// create makes the groups for one run. It never fails: what cannot be enforced is said.
func (c *Cgroups) create(label string, l Limits) cgroup {
	var g cgroup
	if c == nil {
		c = &Cgroups{cpu: hierarchy{why: "this driver enforces no limits"}, memory: hierarchy{why: "this driver enforces no limits"}}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.Memory > 0 {
		err := g.limit(c.memory, label, memoryFiles(c.memory.version, l.Memory))
		g.say("memory "+l.Memory.String(), c.memory, err)
	}
	if l.CPU > 0 {
		err := g.limit(c.cpu, label, cpuFiles(c.cpu.version, l.CPU))
		g.say("cpu "+l.CPU.String(), c.cpu, err)
	}
	return g
}

func (g *cgroup) say(what string, h hierarchy, err error) {
	switch {
	case h.why != "":
		what += ": not enforced: " + h.why
	case err != nil:
		what += ": not enforced: " + err.Error()
	default:
		what += fmt.Sprintf(" (cgroup v%d)", h.version)
	}
	g.enforced = append(g.enforced, what)
}

// groupFile is one setting; an optional one may be absent.
type groupFile struct {
	name, value string
	optional    bool
}

func memoryFiles(version int, limit zarpa.Bytes) []groupFile {
	n := strconv.FormatInt(int64(limit), 10)
	if version == 1 {
		return []groupFile{
			{"memory.limit_in_bytes", n, false},
			{"memory.memsw.limit_in_bytes", n, true}, // swap is not a way out
		}
	}
	return []groupFile{{"memory.max", n, false}, {"memory.swap.max", "0", true}}
}

func cpuFiles(version int, cpu zarpa.CPU) []groupFile {
	period := strconv.FormatInt(cpuPeriod.Microseconds(), 10)
	quota := max(time.Duration(float64(cpuPeriod)*float64(cpu)), minQuota)
	q := strconv.FormatInt(quota.Microseconds(), 10)
	if version == 1 {
		return []groupFile{{"cpu.cfs_period_us", period, false}, {"cpu.cfs_quota_us", q, false}}
	}
	return []groupFile{{"cpu.max", q + " " + period, false}}
}

func (g *cgroup) limit(h hierarchy, label string, files []groupFile) error {
	if h.why != "" {
		return nil
	}
	if why := tryGroup(h.dir); why != "" { // pruned since
		return errors.New(why)
	}
	dir := filepath.Join(h.dir, label)
	if why := tryGroup(dir); why != "" {
		return errors.New(why)
	}
	if len(g.dirs) == 0 || g.dirs[0] != dir {
		g.dirs = append(g.dirs, dir)
	}
	for _, f := range files {
		err := writeGroup(filepath.Join(dir, f.name), f.value)
		if err != nil && (!f.optional || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("%s cannot be set: %s", f.name, plain(err))
		}
	}
	return nil
}

// writeGroup never creates a file: in a real hierarchy it cannot, elsewhere it must not.
func writeGroup(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// add moves a process that was started a moment ago into the groups. What it used before, some
// hundred kilobytes and microseconds, counts elsewhere.
func (g *cgroup) add(pid int) {
	for _, dir := range g.dirs {
		if err := writeGroup(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			for i, what := range g.enforced {
				what, was := strings.CutSuffix(strings.TrimRight(what, "12)"), " (cgroup v")
				if was {
					g.enforced[i] = fmt.Sprintf("%s: not enforced: the process cannot enter %s: %s", what, dir, plain(err))
				}
			}
		}
	}
}

// outOfMemory tells whether the kernel killed anything in the groups.
func outOfMemory(dirs []string) bool {
	for _, dir := range dirs {
		for _, name := range []string{"memory.events", "memory.oom_control"} {
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			n := oomKills(bufio.NewScanner(f))
			_ = f.Close()
			if n > 0 {
				return true
			}
		}
	}
	return false
}

func oomKills(lines *bufio.Scanner) int {
	for lines.Scan() {
		if n, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			kills, _ := strconv.Atoi(strings.TrimSpace(n)) // the kernel writes a number
			return kills
		}
	}
	return 0
}

// removeCgroups removes groups whose processes are dead or dying. Groups that stay busy are left
// for [Cgroups.Sweep], and so are all when stop is closed.
func removeCgroups(dirs []string, stop <-chan struct{}) {
	deadline := time.Now().Add(groupBusy)
	for _, dir := range dirs {
		for pause := time.Millisecond; ; pause *= 2 {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) || time.Now().Add(pause).After(deadline) {
				break
			}
			select {
			case <-time.After(pause): // the kernel tells nobody when a group becomes free
			case <-stop:
				return
			}
		}
	}
}

// prune removes the supervisor's own group when it is empty.
func (c *Cgroups) prune() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range []hierarchy{c.cpu, c.memory} {
		if h.dir != "" && h.why == "" {
			_ = os.Remove(h.dir) // not empty: in use
		}
	}
}

// Sweep removes the groups of runs that are no more. Groups with processes in them stay.
func (c *Cgroups) Sweep() {
	if c == nil {
		return
	}
	for _, h := range []hierarchy{c.cpu, c.memory} {
		if h.dir == "" || h.why != "" {
			continue
		}
		entries, err := os.ReadDir(h.dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() {
				_ = os.Remove(filepath.Join(h.dir, e.Name())) // busy: it is in use
			}
		}
	}
	c.prune()
}
