package environment_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/environment"
)

func TestAnEnvironmentIsBuiltFromRequirements(t *testing.T) {
	t.Parallel()
	c := open(t, settings(t))
	req := environment.Request{Files: plain(t, "alpha==1.0  # the first\n")}
	id, err := c.Resolve(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	e, err := c.Ensure(t.Context(), req, func(line string) { lines = append(lines, line) })
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != id || e.Phase != zarpa.EnvironmentReady || e.Source != "requirements.txt" || e.Tool == "" || e.Size == 0 || e.Created.IsZero() {
		t.Errorf("environment %+v", e)
	}
	if got := without(e.Packages, "setuptools"); !slices.Equal(got, []string{"alpha==1.0", "beta==2.1"}) {
		t.Errorf("packages %q", got)
	}
	if got := run(t, c, id, "import alpha, beta; print(alpha.VERSION, beta.VERSION)"); got != "1.0 2.1" {
		t.Errorf("the packages say %q", got)
	}
	if got := run(t, c, id, "import platform; print(platform.python_version())"); got != e.Python {
		t.Errorf("Python %s, the environment says %s", got, e.Python)
	}
	log, err := c.Log(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	text, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != strings.Join(lines, "\n")+"\n" || !strings.Contains(string(text), "alpha") {
		t.Errorf("the log is\n%s\nprogress was\n%s", text, strings.Join(lines, "\n"))
	}

	again, err := c.Ensure(t.Context(), req, func(line string) { t.Errorf("built again: %s", line) })
	if err != nil || again.ID != id || !again.Created.Equal(e.Created) {
		t.Errorf("again: %+v, %v", again, err)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("list %+v, %v", list, err)
	}
	if err := c.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), id); !errors.Is(err, zarpa.ErrNotFound) {
		t.Errorf("after removal: %v", err)
	}
	if err := c.Remove(t.Context(), id); !errors.Is(err, zarpa.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
}
