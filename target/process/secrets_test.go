package process_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/replica"
)

// secretFile is the one file of that name below a state directory; "" for none.
func secretFile(t *testing.T, dir, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "replicas", "*", "secrets", name))
	if err != nil || len(found) > 1 {
		t.Fatalf("%q, %v", found, err)
	}
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// mentions lists the files below dir, that of the secret itself aside, which hold the text.
func mentions(t *testing.T, dir, text string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Base(filepath.Dir(path)) == "secrets" {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), text) {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestSecretsAreFilesOfTheReplicaAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options(dir)
	var version atomic.Int64
	version.Store(1)
	o.Secrets = func(_ context.Context, names []string) (map[string][]byte, error) {
		out := map[string][]byte{}
		for _, n := range names {
			out[n] = fmt.Appendf(nil, "%s-hunter2-v%d", n, version.Load())
		}
		return out, nil
	}
	d := open(t, o)
	want := with(deployment("vault", "blue"), "REPLICA", "environment")
	want.Spec.Secrets = []string{"db", "token"}
	want.Spec.Env[zarpa.SecretsVariable] = "/somewhere/else" // what names the real folder wins
	h := apply(t, d, want)
	r := await(t, d, h, isReady).Replicas[0]
	path := secretFile(t, dir, "db")
	for name, mode := range map[string]fs.FileMode{path: 0o400, filepath.Dir(path): 0o700 | fs.ModeDir} {
		info, err := os.Stat(name)
		if err != nil || info.Mode() != mode {
			t.Fatalf("%s: %v %v, want %v", name, info.Mode(), err, mode)
		}
	}
	if b, _ := os.ReadFile(path); string(b) != "db-hunter2-v1" {
		t.Fatalf("the file holds %q", b)
	}
	log, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(path)), "current.log"))
	if err != nil || !strings.Contains(string(log), zarpa.SecretsVariable+"="+filepath.Dir(path)) {
		t.Fatalf("the replica's environment: %s %v", log, err)
	}
	version.Store(2) // the next run gets it
	if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, d, h, func(s zarpa.DeploymentStatus) bool { return isReady(s) && s.Replicas[0].Restarts == 1 })
	if b, _ := os.ReadFile(path); string(b) != "db-hunter2-v2" {
		t.Fatalf("after a restart the file holds %q", b)
	}
	if list := mentions(t, dir, "hunter2"); len(list) > 0 {
		t.Errorf("the value stands in %q, too", list)
	}
	if err := d.Remove(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if err := d.StopAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := secretFile(t, dir, "*"); left != "" {
		t.Errorf("%s is left", left)
	}
}

func TestAReplicaWithoutItsSecretsDoesNotStart(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		give func(context.Context, []string) (map[string][]byte, error)
		want string
	}{
		"NobodyHasAny": {nil, "this target has none to give"},
		"Gone": {func(context.Context, []string) (map[string][]byte, error) {
			return nil, zarpa.Errorf(zarpa.NotFound, `secret "db" does not exist`)
		}, `secret "db" does not exist`},
		"Missing": {func(context.Context, []string) (map[string][]byte, error) { return nil, nil }, `secret "db" does not exist`},
		"Traversal": {func(_ context.Context, names []string) (map[string][]byte, error) {
			return map[string][]byte{names[0]: []byte("x"), "../evil": []byte("x")}, nil
		}, `secret name "../evil"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := options(dir)
			o.Secrets, o.Backoff = tc.give, replica.Backoff{}
			d := open(t, o)
			want := deployment("vault", "blue")
			want.Spec.Secrets = []string{"db"}
			if name == "Traversal" {
				want.Spec.Secrets = []string{"db", "../evil"}
			}
			r := await(t, d, apply(t, d, want), failed).Replicas[0]
			if !strings.Contains(r.Last.Reason, tc.want) {
				t.Errorf("reason %q, want %q", r.Last.Reason, tc.want)
			}
		})
	}
}
