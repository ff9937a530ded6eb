package child

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func TestSentence(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"error: iris.onnx: not an ONNX file": "iris.onnx: not an ONNX file",
		`time=2026-11-23T19:00:00Z level=ERROR msg="load the model" err="iris.onnx: \"truncated\""`: `load the model: iris.onnx: "truncated"`,
		`{"time":"x","level":"ERROR","msg":"load","error":"too old"}`:                               "load: too old",
		`level=INFO msg=bye`: "bye",
		`{broken`:            "{broken",
		"  plain words  ":    "plain words",
		`msg="never closed`:  `msg="never closed`,
	} {
		if got := Sentence(line); got != want {
			t.Errorf("Sentence(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestReasonNamesTheCause(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, crash, want string
		exit              zarpa.Exit
	}{
		{"LoadFailed", "", "the model could not be loaded: no such file", zarpa.Exit{Code: 3, Log: []string{"error: no such file", ""}}},
		{"LoadFailedSilently", "", "the model could not be loaded, and the replica printed no reason", zarpa.Exit{Code: 3}},
		{"OutOfMemory", "", "it used more than its memory limit of 64Mi and the kernel ended it", zarpa.Exit{Code: -1, Signal: "SIGKILL", OutOfMemory: true}},
		{"NativeCrash", "SIGSEGV: segmentation violation", "it crashed: SIGSEGV: segmentation violation", zarpa.Exit{Code: 2}},
		{"UnseenCrash", "fatal error: x", "it crashed: fatal error: x", zarpa.Exit{Code: -1, Unknown: true}},
		{"Unseen", "", "it ended while nobody watched; its last line: bye", zarpa.Exit{Code: -1, Unknown: true, Log: []string{"bye"}}},
		{"Signal", "", "signal SIGKILL ended it", zarpa.Exit{Code: -1, Signal: "SIGKILL"}},
		{"Code", "", "it ended with exit code 7", zarpa.Exit{Code: 7}},
		{"CodeWithAHint", "", "it ended with exit code 2; its last line: --access-log: no such folder (name another)", zarpa.Exit{Code: 2, Log: []string{"ready", "Error: --access-log: no such folder", "  → name another"}}},
		{"HintAlone", "", "it ended with exit code 2; its last line: → name another", zarpa.Exit{Code: 2, Log: []string{"  → name another"}}},
		{"ByItself", "panic: old", "it ended by itself", zarpa.Exit{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := reason(tc.exit, tc.crash, Limits{Memory: 64 << 20}); got != tc.want {
				t.Errorf("reason = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestCrashLineIsTheHeadOfTheLastCrash(t *testing.T) {
	t.Parallel()
	trace := "ready\npanic: first\n\ngoroutine 1\nSIGSEGV: segmentation violation\nPC=0x0\n" + strings.Repeat("\tmain.go:1\n", 500)
	if got := crashLine(trace); got != "SIGSEGV: segmentation violation" {
		t.Errorf("crashLine = %q", got)
	}
	if got := crashLine("all is well\n"); got != "" {
		t.Errorf("crashLine of no crash = %q", got)
	}
}

func TestParseMounts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, info, groups, own string
		version                 int
	}{
		{
			"Version1", "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/user/a\n",
			"/sys/fs/cgroup/memory/user/a", 1,
		},
		{
			"Version1InAContainer", "32 31 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/docker/abc/x\n",
			"/sys/fs/cgroup/memory/x", 1,
		},
		{
			"Version1OutsideTheMount", "32 31 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/other\n",
			"/sys/fs/cgroup/memory", 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ms := parseMounts("/", tc.info, tc.groups)
			if len(ms) != 1 || ms[0].own != tc.own || ms[0].version != tc.version || !slices.Contains(ms[0].controllers, "memory") {
				t.Errorf("mounts = %+v, want own %s", ms, tc.own)
			}
		})
	}
}

// A version 2 hierarchy is imitated by plain files: only the kernel's refusals are missing.
func TestVersion2GroupsAreMadeWhereControllersAreHandedOn(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("proc/self/mountinfo", "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n")
	put("proc/self/cgroup", "0::/user/session\n")
	put("cg/cgroup.controllers", "cpu memory\n")
	put("cg/user/cgroup.subtree_control", "cpu memory\n")
	put("cg/user/session/cgroup.procs", "1\n")        // no subtree_control: nothing can be made here
	put("cg/user/zarpa-x/cgroup.subtree_control", "") // the kernel makes these
	put("cg/user/zarpa-x/run/cpu.max", "")
	put("cg/user/zarpa-x/run/memory.max", "")
	put("cg/user/zarpa-x/run/memory.events", "oom 1\noom_kill 2\n")
	g := openCgroups(root, "zarpa-x").create("run", Limits{CPU: 0.5, Memory: 64 << 20})
	if want := []string{"memory 64Mi (cgroup v2)", "cpu 0.5 (cgroup v2)"}; !slices.Equal(g.enforced, want) {
		t.Fatalf("enforced = %q, want %q", g.enforced, want)
	}
	for file, want := range map[string]string{"cpu.max": "50000 100000", "memory.max": "67108864"} {
		if b, err := os.ReadFile(filepath.Join(root, "cg/user/zarpa-x/run", file)); err != nil || string(b) != want {
			t.Errorf("%s = %q, %v, want %q", file, b, err, want)
		}
	}
	if len(g.dirs) != 1 || !outOfMemory(g.dirs) {
		t.Errorf("groups %v: the kill in memory.events is not seen", g.dirs)
	}
}

func TestLimitsWithoutControlGroupsSaySo(t *testing.T) {
	t.Parallel()
	limits := Limits{CPU: 0.5, Memory: 64 << 20}
	for _, groups := range []*Cgroups{nil, openCgroups(t.TempDir(), "x")} {
		g := groups.create("run", limits)
		if len(g.enforced) != 2 || len(g.dirs) != 0 {
			t.Fatalf("group = %+v", g)
		}
		for _, e := range g.enforced {
			if !strings.Contains(e, ": not enforced: ") {
				t.Errorf("%q does not say that nothing is enforced", e)
			}
		}
	}
}

func FuzzSentence(f *testing.F) {
	for _, s := range []string{`msg="a" err="b\"c"`, `{"msg":"x"}`, `msg="`, `msg="\`, "=", "a=b msg= "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if got := Sentence(line); len(got) > len(line)*3+maxReason {
			t.Errorf("Sentence(%q) is longer than all it was made from", line)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"label":"a","pid":1,"boot":"b","log":{"path":"x"}}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRecord(b); err == nil && (r.Label == "" || r.PID < 0) {
			t.Errorf("parseRecord(%q) accepted %+v", b, r)
		}
	})
}

func FuzzParseMounts(f *testing.F) {
	f.Add("32 31 0:29 / /cg rw - cgroup cgroup rw,memory\n", "4:memory:/a/../../etc\n")
	f.Add("30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n", "0::/\n")
	f.Fuzz(func(t *testing.T, info, groups string) {
		for _, m := range parseMounts("/", info, groups) {
			if rel, err := filepath.Rel(m.top, m.own); err != nil || strings.HasPrefix(rel, "..") {
				t.Errorf("own group %s is outside %s", m.own, m.top)
			}
		}
	})
}

func TestSweepRemovesWhatAKillLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{".tmp-1234", ".tmp-5", "run.json", "tmp-kept"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := SweepFiles(dir, filepath.Join(dir, "nowhere")); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if hidden, _ := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 2 || len(hidden) != 0 {
		t.Errorf("left %v and %v, %v", left, hidden, err)
	}
}
