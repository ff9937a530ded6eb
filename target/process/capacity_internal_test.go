package process

import (
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func TestMemoryOfTheMachine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]zarpa.Bytes{
		"MemTotal:        8007264 kB\nMemFree:  12 kB\n": 8007264 << 10,
		"MemFree:  12 kB\nMemTotal: 1 kB\n":              1 << 10,
		"MemTotal: many kB\n":                            0,
		"":                                               0,
	} {
		if got := memoryTotal(text); got != want {
			t.Errorf("%q: %d, expected %d", text, got, want)
		}
	}
}
