package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets this binary play the roles that the bench starts itself in.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], rolePrefix) {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestAShortRunMeasuresEveryFormAndReportsIt(t *testing.T) {
	t.Parallel()
	library, err := findLibrary("..", "", os.Environ())
	if err != nil {
		t.Skip("no ONNX Runtime in ZARPA_ONNXRUNTIME or ../bin: run make build first")
	}
	var said bytes.Buffer
	out := filepath.Join(t.TempDir(), "RESULTS.md")
	p := program{
		args: []string{"-short", "-only", "peers,scoring,batch", "-peers", "none", "-models", "forest", "-library", library, "-out", out},
		env:  append(os.Environ(), "GORACE=atexit_sleep_ms=0"), // else each role under -race ends a second late
		in:   strings.NewReader(""), out: &bytes.Buffer{}, progress: &said,
	}
	if err := p.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	report := string(text)
	for _, want := range []string{
		"| zarpa score | one thread a run | JSON | 16 |", "| zarpa score | one thread a run | v2 binary | 64 |", "| zarpa score | one thread a run | gRPC | 1 |",
		"| bare handler | – | gRPC | 64 |", "| raw loop |", "| forest | zarpa score | batching on | v2 binary | 16 |", "| forest | static batch |", "-only peers,scoring,batch -models forest -peers none", "(results.svg)",
		"batching forest at 64 clients", "memory with a small model",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	for _, bad := range []string{"not measured", "NaN", "+Inf", "%!"} {
		if strings.Contains(report, bad) {
			t.Errorf("the report says %q", bad)
		}
	}
	if t.Failed() {
		t.Log(report)
	}
	svg, err := os.ReadFile(filepath.Join(filepath.Dir(out), plotName))
	if err != nil || !bytes.HasPrefix(svg, []byte("<svg ")) || !bytes.HasSuffix(svg, []byte("</svg>\n")) {
		t.Errorf("the plot: %v, %.80s", err, svg)
	}
}

func TestAShortRunMeasuresScriptsAndReportsThem(t *testing.T) {
	t.Parallel()
	library, err := findLibrary("..", "", os.Environ())
	if err != nil {
		t.Skip("no ONNX Runtime in ZARPA_ONNXRUNTIME or ../bin: run make build first")
	}
	if err := exec.CommandContext(t.Context(), "python3", "-c", "import venv, ensurepip").Run(); err != nil {
		t.Skip("no python3 with venv in PATH")
	}
	var said, out bytes.Buffer
	p := program{
		args: []string{"-short", "-only", "python", "-peers", "none", "-library", library},
		env:  append(os.Environ(), "GORACE=atexit_sleep_ms=0"), in: strings.NewReader(""), out: &out, progress: &said,
	}
	if err := p.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	for _, want := range []string{
		"| zarpa score, script | 1 worker | 1 |", "| zarpa score, GET / | no worker | 16 |", "| bare Go handler | – | 16 |",
		"| zarpa score, script | default: forked after init() | 7 |", "| zarpa score, script | `--preload never` | 6 |",
		"| phase load |", "| **from the edit to the new answer** |", "0 were answered otherwise than with 200", "-only python -peers none",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	for _, bad := range []string{"not measured", "NaN", "+Inf", "%!"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("the report says %q", bad)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestUnknownNamesAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ flag, value, want string }{
		{"-only", "hop,a", `"a" is not known; the parts are peers,scoring,batch,hop,overload,many,elastic,first,containers,memory,python`},
		{"-out", "no/such/folder/x.md", "-out: "},
		{"-rounds", "many", "invalid value"},
	} {
		p := program{args: []string{c.flag, c.value, "-zarpa", "zarpa", "-library", "lib.so"}, out: &bytes.Buffer{}, progress: &bytes.Buffer{}}
		if err := p.run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v", c.flag, c.value, err)
		}
	}
}

func TestPlotKeepsToItsWidthAndEscapesNames(t *testing.T) {
	t.Parallel()
	text := string(plot("a < b", []bar{{"one", "x & y", 100, true}, {"one", "z", 0, false}, {"two", "w", 1, false}}))
	for _, want := range []string{"a &lt; b", "x &amp; y", `width="460.0"`, `width="1.0"`, ">100</text>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plot lacks %q:\n%s", want, text)
		}
	}
}
