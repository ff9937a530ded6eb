package main

import (
	"path/filepath"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	nothing := filepath.Join(t.TempDir(), "nothing")
	for name, test := range map[string]struct {
		args []string
		want int
	}{
		"help":           {[]string{"--help"}, 0},
		"version":        {[]string{"--version"}, 0},
		"nothing":        {nil, zarpa.Invalid.ExitCode()},
		"a flag unknown": {[]string{"--no-such"}, zarpa.Invalid.ExitCode()},
		"an argument":    {[]string{"score", "--bundle", nothing}, zarpa.Invalid.ExitCode()},
		"open address":   {[]string{"--bundle", nothing, "--listen", "0.0.0.0:0"}, zarpa.Invalid.ExitCode()},
		"no bundle":      {[]string{"--bundle", nothing, "--listen", "127.0.0.1:0"}, zarpa.ExitLoadFailed},
		"what overrides": {[]string{"--bundle", nothing, "--listen", "0.0.0.0:0", "--listen", "127.0.0.1:0"}, zarpa.ExitLoadFailed},
	} {
		if got := run(test.args); got != test.want {
			t.Errorf("%s: ended with %d, want %d", name, got, test.want)
		}
	}
}
