package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func frame(stream byte, text string) []byte {
	out := make([]byte, 8, 8+len(text))
	out[0] = stream
	binary.BigEndian.PutUint32(out[4:], uint32(len(text)))
	return append(out, text...)
}

func decoded(t *testing.T, since time.Time, frames ...[]byte) ([]string, error) {
	t.Helper()
	var lines []string
	d := decoder{since: since, emit: func(l string) error { lines = append(lines, l); return nil }}
	return lines, errors.Join(d.decode(bytes.NewReader(bytes.Join(frames, nil))), nil)
}

func TestLogStreamsAreDecoded(t *testing.T) {
	t.Parallel()
	const at = "2026-01-02T03:04:05.000000006Z "
	for name, tc := range map[string]struct {
		frames [][]byte
		want   []string
	}{
		"Lines":            {[][]byte{frame(1, at+"a\n"), frame(2, at+"b\r\n"), frame(1, at+"\n")}, []string{"a", "b", ""}},
		"PiecesOfOneLine":  {[][]byte{frame(1, at+"a"), frame(2, at+"other\n"), frame(1, at+"b\n")}, []string{"other", "ab"}},
		"NeverEnded":       {[][]byte{frame(1, at+"a")}, []string{"a"}},
		"NoTime":           {[][]byte{frame(1, "a b\n")}, []string{"a b"}},
		"SeveralInOne":     {[][]byte{frame(1, at+"a\nb\n")}, []string{"a", "b"}},
		"LongerThanALine":  {[][]byte{frame(1, at+strings.Repeat("x", maxLine+1)+"\n")}, []string{strings.Repeat("x", maxLine), "x"}},
		"ExactlyALine":     {[][]byte{frame(1, at+strings.Repeat("x", maxLine)+"\n")}, []string{strings.Repeat("x", maxLine)}},
		"Nothing":          {nil, nil},
		"TimeAndNoText":    {[][]byte{frame(1, at)}, nil},
		"ALineThatIsATime": {[][]byte{frame(1, at+at+"x\n")}, []string{at + "x"}},
	} {
		if got, err := decoded(t, time.Time{}, tc.frames...); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tc.want)
		}
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	if got, err := decoded(t, since, frame(1, at+"read before\n"), frame(1, "2026-01-02T03:04:05.000000007Z new\n")); err != nil || !slices.Equal(got, []string{"new"}) {
		t.Errorf("after %v: %q, %v", since, got, err)
	}
	for name, b := range map[string][]byte{"NoFrames": []byte("plain text of a terminal"), "Cut": frame(1, at+"a\n")[:20], "HeaderCut": {1, 0, 0}, "TooLarge": {1, 0, 0, 0, 0xff, 0, 0, 0}} {
		if _, err := decoded(t, time.Time{}, b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzLogStream(f *testing.F) {
	f.Add(frame(1, "2026-01-02T03:04:05Z a\n"))
	f.Add(append(frame(1, "2026-01-02T03:04:05Z a"), frame(2, "b\r\n")...))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 9, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		d := decoder{emit: func(l string) error {
			if n += len(l); len(l) > maxLine || strings.Contains(l, "\n") {
				t.Errorf("a line of %d bytes: %.80q", len(l), l)
			}
			return nil
		}}
		_ = d.decode(bytes.NewReader(b)) // any error, no panic
		if n > len(b) {
			t.Errorf("%d bytes out of %d", n, len(b))
		}
	})
}

func TestMessagesOfEngines(t *testing.T) {
	t.Parallel()
	said, err := messages(strings.NewReader(`{"stream":"Step 1/2 : FROM x\n"}{"status":"pulling"}{"stream":"  \n"}{"errorDetail":{"code":1,"message":"no"},"error":"no"}`), func(string) {})
	if err == nil || err.Error() != "no" || !slices.Equal(said, []string{"Step 1/2 : FROM x"}) {
		t.Errorf("%q, %v", said, err)
	}
	if _, err := messages(strings.NewReader(`{"stream":`), func(string) {}); err == nil {
		t.Error("a cut answer is no error")
	}
	if said, err := messages(strings.NewReader(strings.Repeat(`{"stream":"x\n"}`, 2*maxSaidLines)), func(string) {}); err != nil || len(said) != maxSaidLines {
		t.Errorf("%d lines are kept, %v", len(said), err)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte(`{"stream":"Step 1/2 : FROM x\n"}{"errorDetail":{"message":"no"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if said, _ := messages(bytes.NewReader(b), func(string) {}); len(said) > maxSaidLines {
			t.Errorf("%d lines are kept", len(said))
		}
	})
}

// TestCausesHaveHints holds texts that engines really say.
func TestCausesHaveHints(t *testing.T) {
	t.Parallel()
	r := &runner{host: host{why: &lastError{}}}
	for text, want := range map[string]struct {
		code zarpa.Code
		hint string
	}{
		"failed to create shim task: OCI runtime create failed: exec /replica: exec format error: unknown":                                                {zarpa.Invalid, "another architecture"},
		"driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:80 failed: port is already allocated":                          {zarpa.Unavailable, "another program holds the port"},
		"write /var/lib/docker/tmp/x: no space left on device":                                                                                            {zarpa.Unavailable, "disk of the engine is full"},
		`OCI runtime create failed: runc create failed: unable to start container process: exec: "/nope": stat /nope: no such file or directory: unknown`: {zarpa.Invalid, "does not hold the program"},
		`runc create failed: unable to start container process: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown`:                        {zarpa.Invalid, "has no shell"},
		"network nowhere-net not found":                                                                    {zarpa.Invalid, "docker network create"},
		"Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available":                           {zarpa.Invalid, "less cpu"},
		"client version 1.56 is too new. Maximum supported API version is 1.39":                            {zarpa.Invalid, "Docker 19.03"},
		"toomanyrequests: You have reached your pull rate limit":                                           {zarpa.Overloaded, "limits how much"},
		"cannot listen on the TCP port: listen tcp4 10.0.0.9:44671: bind: cannot assign requested address": {zarpa.Invalid, "publish address"},
		"Get \"https://registry.example/v2/\": unauthorized: authentication required":                      {zarpa.Denied, "docker login"},
		"something new": {zarpa.Unavailable, ""},
	} {
		e := zarpa.AsError(r.failure("start the container", fmt.Errorf("Error response from daemon: %s", text)))
		if e.Code != want.code || !strings.Contains(e.Hint, want.hint) || !strings.Contains(e.Message, text) || strings.Contains(e.Message, "daemon: ") {
			t.Errorf("%s: %s %v", text, e.Code, e)
		}
	}
}

func TestTakenPortsAndNamesAreTriedAgain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"Bind for 127.0.0.1:80 failed: port is already allocated":                               true,
		"listen tcp4 127.0.0.1:80: bind: address already in use":                                true,
		`Conflict. The container name "/zarpa-a-b" is already in use by container "0c1"`:        true,
		`creating container storage: the container name "z" is already in use by 0c1. You have`: true,
		"no space left on device": false,
	} {
		if got := retryable(errors.New(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestHostIsFound(t *testing.T) {
	t.Parallel()
	//nolint:usetesting // the name of a test's folder is long, and a socket's path has 107 bytes at most
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	podman := filepath.Join(dir, "podman", "podman.sock")
	if err := os.Mkdir(filepath.Dir(podman), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", podman)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tc := range []struct {
		o    Options
		want string
		tls  TLS
	}{
		{Options{Host: "unix:///a.sock", Environ: []string{"DOCKER_HOST=unix:///b.sock"}}, "unix:///a.sock", TLS{}},
		{Options{Environ: []string{"DOCKER_HOST=unix:///b.sock"}}, "unix:///b.sock", TLS{}},
		{
			Options{Environ: []string{"DOCKER_HOST=tcp://10.0.0.1:2376", "DOCKER_CERT_PATH=/c", "DOCKER_TLS_VERIFY=1"}},
			"tcp://10.0.0.1:2376",
			TLS{CA: "/c/ca.pem", Cert: "/c/cert.pem", Key: "/c/key.pem"},
		},
	} {
		h, err := tc.o.endpoint()
		if err != nil || h.String() != tc.want || h.tls != tc.tls {
			t.Errorf("%+v: %v, %+v, %v", tc.o, h, h.tls, err)
		}
	}
	if got := (Options{Environ: []string{"XDG_RUNTIME_DIR=" + dir}}).socket(); got != "unix://"+podman && !strings.Contains(got, "/run/") {
		t.Errorf("the socket is %s", got)
	}
}

// TestSSHPathStaysOneWord has a shell read what ssh would be given.
func TestSSHPathStaysOneWord(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/run/docker.sock", "/a b/$HOME/`id`/\"q\"/'s'/x\\y;z"} {
		h, err := Options{Host: "ssh://u@h"}.endpoint()
		if err != nil {
			t.Fatal(err)
		}
		h.url.Path = path
		args := sshArgs(h)
		remote := args[len(args)-1]
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "docker"), []byte("#!/bin/sh\nprintf '%s|' \"$@\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", remote)
		cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "HOME=/never"}
		out, err := cmd.CombinedOutput()
		if want := "--host|unix://" + path + "|system|dial-stdio|"; err != nil || string(out) != want {
			t.Errorf("%s: %q, %v; want %q", path, out, err, want)
		}
	}
}

func TestPlatformsAreCompared(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "linux/arm64/v8": "linux/arm64", "linux/aarch64": "linux/arm64", "odd": "odd"} {
		if got := normal(text); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestEnginesTellWhatTheyCannot(t *testing.T) {
	t.Parallel()
	spec := zarpa.DeploymentSpec{Memory: 64 << 20, CPU: 0.5}
	rootless := about{name: "Podman", rootless: true, cgroup: "1"}
	if got := rootless.enforced(spec); len(got) != 2 || !strings.Contains(got[0], "memory 64Mi: not enforced: a rootless engine on cgroup v1") {
		t.Errorf("rootless: %q", got)
	}
	if got := strings.Join(rootless.notes(), "\n"); !strings.Contains(got, "no limit of cpu, memory or processes") {
		t.Errorf("rootless: %q", got)
	}
	full := about{name: "Docker", cgroup: "2", limitsMemory: true, limitsSwap: true, limitsCPU: true, limitsPIDs: true, liveRestore: true}
	if got := full.enforced(spec); !slices.Equal(got, []string{"memory 64Mi (cgroup v2, Docker)", "cpu 0.5 (cgroup v2, Docker)"}) {
		t.Errorf("all: %q", got)
	}
	if got := full.notes(); len(got) != 0 {
		t.Errorf("all: %q", got)
	}
}

func TestNoteThatCannotBeReadIsNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := note{Container: "c", Run: "r", Started: time.Unix(1, 2).UTC()}
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	if got := readNote(dir); got.Container != "c" || !got.Started.Equal(want.Started) {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{"", "{", `{"version":99,"container":"c"}`} {
		if err := os.WriteFile(notePath(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readNote(dir); got.Container != "" {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if err := want.save(filepath.Join(dir, "gone")); err != nil {
		t.Errorf("a replica that is gone: %v", err)
	}
}
