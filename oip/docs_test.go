package oip

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

//go:generate env OIP_WRITE_DOCS=1 go test -count=1 -run ^TestChecksAreDocumented$ .

// TestChecksAreDocumented holds the table of the document against the catalogue. With OIP_WRITE_DOCS it writes the table.
func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- checks: written by go generate ./oip -->\n", "<!-- end of checks -->\n"
	path := filepath.Join("..", "docs", "conformance.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(text), begin)
	table, tail, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the checks", path)
	}
	want := documentation()
	switch {
	case os.Getenv("OIP_WRITE_DOCS") != "":
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	case table != want:
		t.Errorf("%s: the checks are not those of the code: run go generate ./oip", path)
	}
}

// documentation is the catalogue as Markdown, a table for each group.
func documentation() string {
	var b strings.Builder
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, g := range Groups() {
		fmt.Fprintf(&b, "\n### %s\n\n| check | level | | says | from |\n|---|---|---|---|---|\n", g)
		for _, c := range Catalogue() {
			if c.Group != g {
				continue
			}
			says := c.Says
			if c.Choices != "" {
				says += ". Choices: " + c.Choices
			}
			per := ""
			if c.PerModel {
				per = "M"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", c.ID, c.Level, per, cell.Replace(says), c.Section)
		}
	}
	return b.String() + "\n"
}
