package child

import (
	"os"
	"testing"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	line := "42 (a) R (b)) S 1 42 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0\n"
	state, session, start, ok := parseStat([]byte(line))
	if !ok || state != 'S' || session != 7 || start != 12345 {
		t.Errorf("parseStat = %c %d %d %v", state, session, start, ok)
	}
	if _, alive := processStart(os.Getpid()); !alive {
		t.Error("this process does not live")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (x) S 1 2 3 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 5 0 0"))
	f.Add([]byte(")"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseStat(b) })
}
