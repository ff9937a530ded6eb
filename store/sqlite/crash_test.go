package sqlite

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

const crashFile = "ZARPA_TEST_CRASH_FILE"

// TestAcknowledgedWritesSurviveAKill lets a child write and kills it again and again, each time at
// another point: what it had acknowledged must be there, and no transaction by half.
func TestAcknowledgedWritesSurviveAKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "zarpa.db")
	acknowledged := 0
	for range 6 {
		acknowledged = max(acknowledged, crash(t, path, 1+rand.IntN(40)))
		s := mustOpen(t, path)
		versions, err := s.Nouns().Models.List(t.Context(), "iris")
		if err != nil {
			t.Fatal(err)
		}
		if len(versions) < acknowledged || len(versions) > acknowledged+1 {
			t.Fatalf("%d versions after %d acknowledged", len(versions), acknowledged)
		}
		for i, m := range versions {
			if m.Version != len(versions)-i {
				t.Fatalf("version %d at place %d of %d", m.Version, i, len(versions))
			}
		}
		targets, err := s.Nouns().Targets.List(t.Context())
		if err != nil || len(targets) != len(versions) {
			t.Fatalf("%d targets (%v) for %d models: a transaction happened by half", len(targets), err, len(versions))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// crash starts the child and kills it after so many acknowledgements, while it goes on writing.
// It returns the last number that the child acknowledged.
func crash(t *testing.T, path string, after int) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashingChild$", "-test.v")
	cmd.Env = append(os.Environ(), crashFile+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last, seen := 0, 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d.", &n); err != nil {
			continue
		}
		last = n
		if seen++; seen == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err == nil || seen < after {
		t.Fatalf("the child ended by itself after %d of %d", seen, after)
	}
	return last
}

// TestCrashingChild is the child: it writes until it is killed.
func TestCrashingChild(t *testing.T) { //nolint:paralleltest // it runs alone, in a process of its own
	path := os.Getenv(crashFile)
	if path == "" {
		t.Skip("the child of TestAcknowledgedWritesSurviveAKill")
	}
	s := mustOpen(t, path)
	for {
		var m zarpa.Model
		err := s.Atomically(t.Context(), func(n zarpa.Nouns) (err error) {
			if m, err = n.Models.Create(t.Context(), zarpa.Model{Name: "iris", Description: "a model"}); err != nil {
				return err
			}
			return n.Targets.Put(t.Context(), zarpa.Target{Name: strconv.Itoa(m.Version)})
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("acknowledged %d.\n", m.Version)
	}
}
