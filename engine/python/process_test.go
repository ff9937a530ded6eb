package python_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// processes are those whose command line has the text; a zombie has none.
func processes(text string) []string {
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(text)) {
			found = append(found, filepath.Base(filepath.Dir(file)))
		}
	}
	return found
}

// eventually waits until ok; the machine may be busy.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticks := time.NewTicker(10 * time.Millisecond)
	defer ticks.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-ticks.C
	}
}

// status is a field of a process's /proc/PID/status, or of another file there.
func status(t testing.TB, pid, file, field string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("/proc/%s/%s has no %s", pid, file, field)
	return ""
}
