package python_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// cached is the interpreter of the environment that e2e/azureml.sh makes: it has the packages that
// some tests of the contract need.
const cached = "../../.cache/azureml/server/bin/python"

var skipped = regexp.MustCompile(`(?m)^(\S+) .*skipped (['"].*['"])$`)

// TestContractOfScripts runs the worker's own tests, in Python, once for each interpreter there is.
func TestContractOfScripts(t *testing.T) {
	t.Parallel()
	system, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("the worker's tests need python3: %v", err)
	}
	for name, interpreter := range map[string]string{"bare": system, "packages": cached} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, err := filepath.Abs(interpreter)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); err != nil {
				t.Skipf("e2e/azureml.sh has not made the environment with the packages: %v", err)
			}
			cmd := exec.CommandContext(t.Context(), path, "-B", "-m", "unittest", "-v", "tests.test_batch", "tests.test_convert", "tests.test_described",
				"tests.test_forms", "tests.test_limit", "tests.test_load", "tests.test_models", "tests.test_plain", "tests.test_response")
			cmd.Dir = "worker"
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, m := range skipped.FindAllSubmatch(out, -1) {
				t.Logf("skipped: %s: %s", m[1], bytes.Trim(m[2], `'"`))
			}
		})
	}
}
