package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usage is one command line: the verb and the flags that it gives.
type usage struct {
	where, line string
	verb        string
	flags       []string
}

// commandLines finds the lines of a text that run zarpa.
func commandLines(t *testing.T, where, text string) []usage {
	t.Helper()
	var found []usage
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		for _, part := range regexp.MustCompile(`\$\(|\)|\||&&|;|"\$`).Split(line, -1) {
			part = strings.TrimSpace(part)
			part = regexp.MustCompile(`^((fails \d+|await|!|sh -c '!?|exec|\$|[A-Z_]+=\S+)\s*)+`).ReplaceAllString(part, "")
			if rest, ok := strings.CutPrefix(part, "zarpa "); ok {
				found = append(found, parse(t, where, strings.TrimSpace(line), rest))
			}
		}
	}
	return found
}

// parse reads one command line with the real commands: unknown verbs and flags fail the test.
func parse(t *testing.T, where, line, rest string) usage {
	t.Helper()
	rest, _, _ = strings.Cut(rest, " #")
	var words []string
	for _, w := range regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`).FindAllString(rest, -1) {
		if strings.HasPrefix(w, ">") || strings.HasPrefix(w, "<") || w == "&" || strings.HasPrefix(w, "&") {
			break
		}
		words = append(words, strings.Trim(w, `'"`))
	}
	root := (&cli{getenv: func(string) string { return "" }}).root()
	root.InitDefaultCompletionCmd(words...)
	root.InitDefaultHelpFlag()
	cmd, args, err := root.Find(words)
	u := usage{where: where, line: line, verb: cmd.CommandPath()}
	if err != nil {
		t.Errorf("%s: %s: %v", where, line, err)
		return u
	}
	if err := cmd.ParseFlags(args); err != nil && !strings.Contains(err.Error(), "help requested") && !strings.Contains(err.Error(), "needs an argument") {
		t.Errorf("%s: %s: %v", where, line, err)
	}
	cmd.Flags().Visit(func(f *pflag.Flag) { u.flags = append(u.flags, f.Name) })
	return u
}

// TestDocumentedCommandsAreScripted holds the command lines of the documents against the
// commands: verbs and flags exist, and a script runs each verb and each of its flags.
func TestDocumentedCommandsAreScripted(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	scripted := map[string][]string{}
	scripts, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for _, s := range scripts {
		text, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "zarpa ") || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "std") || strings.HasPrefix(line, "fails 2") {
				continue // what fails by design shows no flag at work
			}
			for _, u := range commandLines(t, s, line) {
				scripted[u.verb] = append(scripted[u.verb], u.flags...)
				scripted[u.verb] = append(scripted[u.verb], "")
			}
		}
	}
	scripted["zarpa up"] = append(scripted["zarpa up"], "api", "gateway", "data", "") // the command up of the scripts
	for _, pattern := range []string{"README.md", "CONTRIBUTING.md", "docs/*.md", "examples/*.md", "examples/*/README.md"} {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range commandLines(t, filepath.Base(file), fenced(string(text))) {
				for _, flag := range append(u.flags, "") {
					if !slices.Contains(scripted[u.verb], flag) && flag != "help" {
						t.Errorf("%s: %q: no script runs %s with %q", u.where, u.line, u.verb, flag)
					}
				}
			}
		}
	}
}

// fenced is the text inside code fences that show commands.
func fenced(text string) string {
	var out strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		if lang, fence := strings.CutPrefix(strings.TrimSpace(line), "```"); fence {
			inside = !inside && (lang == "" || lang == "sh" || lang == "console" || lang == "bash")
			continue
		}
		if inside {
			out.WriteString(line)
		}
	}
	return out.String()
}

// TestEveryVerbHasAnExample walks all commands.
func TestEveryVerbHasAnExample(t *testing.T) {
	t.Parallel()
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Runnable() && cmd.Example == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		if cmd.Short == "" {
			t.Errorf("%s has no short description", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := (&cli{getenv: func(string) string { return "" }}).root()
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "help" && cmd.Name() != "completion" {
			walk(cmd)
		}
	}
}
