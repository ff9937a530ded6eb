package environment

import (
	"os"
	"path/filepath"
	"strings"
)

// uvTool installs with uv, which is told to take what pip would: the best version of all indexes,
// compiled beforehand, and no interpreter of its own.
func uvTool(path string) tool {
	return tool{"uv", func(b *builder) []step {
		create := step{phase: phaseCreate, program: path, args: []string{"venv", "--no-project", "--python", b.python.Path}}
		if b.spec.SystemPackages {
			create.args = append(create.args, "--system-site-packages")
		}
		create.args = append(create.args, b.cache.prefix(b.id))
		settings := b.cache.pipSettings()
		install := func(options ...string) step {
			args := append([]string{"pip", "install", "--python", b.python3()}, options...)
			return step{phase: phaseInstall, program: path, args: args, env: b.uvEnvironment(settings)}
		}
		steps := []step{create}
		if b.nothing() {
			return steps
		}
		if b.python.Setuptools != "" {
			steps = append(steps, install("--quiet", "--no-index", "--no-deps", b.python.Setuptools))
		}
		return append(steps, install(append(b.uvOptions(settings), "--compile-bytecode", "--requirement", b.main)...))
	}}
}

// uvOptions are the settings of pip that uv has no variables for.
func (b *builder) uvOptions(s pipSettings) []string {
	var options []string
	if b.offline() || s.on("no-index") {
		options = append(options, "--no-index")
	}
	for _, name := range []string{"only-binary", "no-binary"} {
		for value := range strings.FieldsFuncSeq(s[name], listSeparator) {
			options = append(options, "--"+name, value)
		}
	}
	return options
}

func listSeparator(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }

// uvEnvironment tells uv, which does not read it, the user's configuration of pip. It goes by
// variables: other users of the machine see a program's arguments. What the user has set for uv
// itself counts more.
func (b *builder) uvEnvironment(s pipSettings) []string {
	var env []string
	set := func(name, value string) {
		if value != "" && b.cache.variable(name) == "" {
			env = append(env, name+"="+value)
		}
	}
	words := func(name string) []string { return strings.Fields(s[name]) }
	// a package of one name may be in several indexes: pip takes the newest, whichever has it
	set("UV_INDEX_STRATEGY", "unsafe-best-match")
	set("UV_INDEX_URL", s["index-url"])
	set("UV_EXTRA_INDEX_URL", strings.Join(words("extra-index-url"), " "))
	set("UV_INSECURE_HOST", strings.Join(words("trusted-host"), " "))
	set("UV_CONSTRAINT", strings.Join(words("constraint"), " "))
	set("SSL_CERT_FILE", s["cert"])
	set("SSL_CLIENT_CERT", s["client-cert"])
	set("ALL_PROXY", s["proxy"])
	for _, name := range []string{"timeout", "default-timeout"} {
		seconds, _, _ := strings.Cut(s[name], ".")
		set("UV_HTTP_TIMEOUT", seconds)
	}
	if s.on("pre") {
		set("UV_PRERELEASE", "allow")
	}
	if s.on("require-hashes") {
		set("UV_REQUIRE_HASHES", "1")
	}
	if links := b.uvLinks(words("find-links")); len(links) > 0 {
		env = append(env, "UV_FIND_LINKS="+strings.Join(links, ","))
	}
	return env
}

// uvLinks are the places beside the index, with wheels/ of the description and those of uv's own
// variable. Folders that are not there stop uv, where pip only warns: they are left out.
func (b *builder) uvLinks(fromPip []string) []string {
	var links []string
	if len(b.wheels) > 0 {
		links = append(links, filepath.Join(b.files, wheelsFolder))
	}
	for _, link := range append(strings.FieldsFunc(b.cache.variable("UV_FIND_LINKS"), listSeparator), fromPip...) {
		if _, err := os.Stat(link); err == nil || strings.Contains(link, "://") {
			links = append(links, link)
		}
	}
	return links
}
