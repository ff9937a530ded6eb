package environment

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

const (
	// askTimeout bounds the search for the cause of a failure.
	askTimeout = 30 * time.Second
	// maxUnfetched bounds the lines that are taken over from it.
	maxUnfetched = 20
)

// failure explains why a build ended: the phase, the cause and what to do. The log's end is the cause
// beneath: an operation shows it beside the message.
func (b *builder) failure(ctx, limited context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("build environment %s: %w", b.id, ctx.Err())
	}
	if limited.Err() != nil {
		return b.explained(zarpa.Errorf(zarpa.Timeout, "environment: %s: not done within %v", b.phase, b.cache.opts.BuildTimeout).
			WithHint("find out what took so long").Because(limited.Err()))
	}
	if told, ok := errors.AsType[*zarpa.Error](err); ok {
		return told
	}
	exit, ran := errors.AsType[*exec.ExitError](err)
	if !ran {
		b.log.say("%v", err)
		if e, ok := errors.AsType[*zarpa.Error](diskError("environment: "+b.phase, err)); ok {
			return e
		}
		return b.explained(zarpa.Errorf(zarpa.Unavailable, "environment: %s: it could not be done", b.phase).Because(err))
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return b.explained(zarpa.Errorf(zarpa.Unavailable, "environment: %s: the program was killed, as is done when memory runs out", b.phase).
			WithHint("give the machine more memory, or use packages with wheels, which are not compiled").Because(err))
	}
	b.askWhy(limited)
	cause := diagnose(b.log.kept, b.description)
	e := zarpa.Errorf(cause.code, "environment: %s: %s", b.phase, cause.what).Because(err)
	if cause.hint != "" {
		e = e.WithHint("%s", cause.hint)
	}
	return b.explained(e)
}

// explained adds to an error, which has a cause, the end of the log as a part of that, and to its hint
// how to see all of the log.
func (b *builder) explained(e *zarpa.Error) *zarpa.Error {
	if end := tail(b.log.kept); end != "" {
		e = e.Because(fmt.Errorf("%w; the log ends with:\n%s", e.Err, end))
	}
	hint := "see the log: zarpa environment log " + b.id
	if e.Hint != "" {
		hint = e.Hint + "; " + hint
	}
	e.Message, e.Hint = b.log.redact.clean(e.Message), b.log.redact.clean(hint)
	return e
}

// unfetched is how pip tells, if asked to be verbose, that an index did not answer.
var unfetched = regexp.MustCompile(`Could not fetch URL.*`)

// askWhy finds out why pip says that a package is in no index: it says the same when an index refused
// it. pip is asked for the package once more, verbosely, as nobody wants to read all it says then. It is
// not asked where the description names an index: the question would take the names of private packages
// to another one. Nothing is built for an answer.
func (b *builder) askWhy(ctx context.Context) {
	wanted := notFound(b.log.kept)
	if wanted == "" || len(b.pip) == 0 || b.packages.index || b.offline() || b.cache.pipSettings().on("no-index") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	args := append(slices.Clone(b.pip[1:]), "download", "-vv", "--no-input", "--no-deps", "--only-binary", ":all:", "--dest", b.temp, "--", wanted)
	cmd := b.command(ctx, step{program: b.pip[0], args: args})
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // it fails, as it did before
	for _, line := range sorted(unfetched.FindAllString(out.String(), maxUnfetched)) {
		b.log.say("%s", line)
	}
}

// notFound is the package that pip found in no index, by its name and versions alone: what a build wrote
// may look like pip's message, and pip builds what a path or an address names.
func notFound(lines []string) string {
	none := pipNone.FindStringSubmatch(strings.Join(lines, "\n"))
	if none == nil {
		return ""
	}
	plain, _, _ := strings.Cut(none[1], ";") // without its marker
	m := named.FindStringSubmatch(plain)
	if m == nil {
		return ""
	}
	for part := range strings.SplitSeq(m[2], ",") {
		if part != "" && !specifier.MatchString(part) {
			return ""
		}
	}
	return normalName(m[1]) + m[2]
}

// cause is what the output of a failed tool says to a person.
type cause struct {
	code       zarpa.Code
	what, hint string
}

// symptoms are what tools write when something of the machine is missing, in the order in which they
// are looked for: a full disk and a dead network are behind many other messages.
var symptoms = []struct {
	pattern *regexp.Regexp
	cause   cause
}{
	{
		regexp.MustCompile(`No space left on device|\[Errno 28\]|os error 28|Disk quota exceeded`),
		cause{zarpa.Unavailable, "no space left on the disk", "make room, for example with: zarpa environment prune"},
	},
	{
		regexp.MustCompile(`CERTIFICATE_VERIFY_FAILED|invalid peer certificate`),
		cause{zarpa.Unavailable, "the index has a certificate that this machine does not trust", "name the authority's certificate in pip's configuration: pip config set global.cert FILE"},
	},
	{
		regexp.MustCompile(`\b(401|403) (Client )?Error|HTTP status client error \((401|403)|\bstatus code 40[13]\b|Unauthorized|Credentials not correct`),
		cause{zarpa.Unavailable, "the index refused the credentials, or wants some", "put them into pip's configuration or ~/.netrc of the user that runs zarpa"},
	},
	{
		regexp.MustCompile(`NewConnectionError|NameResolutionError|Temporary failure in name resolution|Network is unreachable|ConnectTimeoutError|ReadTimeoutError|dns error|tcp connect error|error sending request|Failed to fetch|Connection refused|network connectivity is disabled`),
		cause{zarpa.Unavailable, "the package index cannot be reached", "check the network, proxy and index of pip's configuration, or put all packages into wheels/ (pip download -d wheels -r requirements.txt)"},
	},
	{
		regexp.MustCompile(`THESE PACKAGES DO NOT MATCH THE HASHES|Hash mismatch for`),
		cause{zarpa.Invalid, "a package is not the one whose hash is written in the requirements", "write the hashes of the packages that the index has, if you trust it"},
	},
	{
		regexp.MustCompile(`Hashes are required in --require-hashes mode|In --require-hashes mode`),
		cause{zarpa.Invalid, "some requirements have a hash, and others none or no exact version", "give every package, also those that others need, as NAME==VERSION with --hash (pip-compile --generate-hashes)"},
	},
	{
		regexp.MustCompile(`(?:command|execute) '?"?[^'" ]*(?:gcc|cc|g\+\+|c\+\+|clang|gfortran)[^'" ]*'?"?(?: failed)?: No such file|No such file or directory: '?"?[^'" ]*(?:gcc|cc|g\+\+|c\+\+|clang|gfortran)\b|Unknown compiler|[Nn]o (?:acceptable )?C compiler|can't find Rust compiler|CMake must be installed|Could not find \w*[cC][mM]ake`),
		cause{zarpa.Unavailable, "a package is to be compiled, and this machine has no compiler for it", "use a version that has a wheel for this Python, or install a compiler (apt-get install build-essential)"},
	},
	{
		regexp.MustCompile(`fatal error: Python\.h: No such file`),
		cause{zarpa.Unavailable, "a package is to be compiled, and the headers of this Python are missing", "use a version that has a wheel for this Python, or install its headers (apt-get install python3-dev)"},
	},
	{
		regexp.MustCompile(`ensurepip is not available`),
		cause{zarpa.Unavailable, "this Python cannot make environments: it has no ensurepip", "install what the system calls python3-venv, or uv"},
	},
}

// The messages that name a package, of pip and of uv.
var (
	pipNoVersion   = regexp.MustCompile(`Could not find a version that satisfies the requirement (.+?) \(from versions: (.*)\)`)
	pipNone        = regexp.MustCompile(`No matching distribution found for ([^\s(]+)`)
	pipConflict    = regexp.MustCompile(`Cannot install (.+) because these package versions have conflicting dependencies`)
	pipOtherPython = regexp.MustCompile(`Ignored the following versions that require a different python version`)
	uvAbsent       = regexp.MustCompile(`Because ([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])? was not found in the (?:package registry|provided package locations)`)
	uvNoVersion    = regexp.MustCompile(`(?:[Bb]ecause|and) (?:there (?:is|are) no versions? of ([A-Za-z0-9][A-Za-z0-9._-]*)|only (?:the following versions of )?([A-Za-z0-9][A-Za-z0-9._-]*)(?:[<>=! ][^ ]*)? (?:is|are) available)`)
	uvNoSolution   = regexp.MustCompile(`No solution found when resolving dependencies`)
	failedBuild    = regexp.MustCompile("(?:[Ff]ailed building wheel for|Failed to build(?: installable wheels for some pyproject.toml based projects \\()?|Failed to download and build|Building wheel for) [`']?([A-Za-z0-9][A-Za-z0-9._-]*)")
	pipMetadata    = regexp.MustCompile(`(?:Getting requirements to build wheel|Preparing metadata|python setup\.py egg_info|Building wheel).*did not run successfully|metadata-generation-failed|subprocess-exited-with-error|build backend returned an error|The build backend`)
	pipCollecting  = regexp.MustCompile(`^(?:Collecting|Processing) ([^\s(]+)`)
)

// diagnose finds the cause of a failure in what a tool wrote, and the line of the requirements that it
// is about.
func diagnose(lines []string, d description) cause {
	text := strings.Join(lines, "\n")
	for _, s := range symptoms {
		if s.pattern.MatchString(text) {
			return s.cause
		}
	}
	if c, ok := diagnoseVersion(text, d); ok {
		return c
	}
	if m := pipConflict.FindStringSubmatch(text); m != nil {
		return cause{zarpa.Invalid, "no versions fit together: " + firstOf(m[1]) + " ask for different ones of the same package", "loosen one of them; the log says which want what"}
	}
	if uvNoSolution.MatchString(text) {
		return cause{zarpa.Invalid, "no versions fit together", "loosen a requirement; the log says which want what"}
	}
	if m := failedBuild.FindStringSubmatch(text); m != nil {
		return unbuilt(d.describe(m[1]))
	}
	if pipMetadata.MatchString(text) {
		return unbuilt(d.describe(lastCollected(lines)))
	}
	return cause{zarpa.Invalid, "it failed" + lastSaid(lines), ""}
}

// lastSaid is the last line that a tool wrote, for want of a cause; a line with its command is none.
func lastSaid(lines []string) string {
	if len(lines) == 0 || strings.HasPrefix(lines[len(lines)-1], "$ ") {
		return ""
	}
	return ": " + firstOf(strings.TrimSpace(lines[len(lines)-1]))
}

func unbuilt(what string) cause {
	return cause{
		zarpa.Invalid, what + " has no wheel for this Python, and building it from its sources failed",
		"use a version that has a wheel for this Python, or another Python",
	}
}

// diagnoseVersion explains a package or version that does not exist.
func diagnoseVersion(text string, d description) (cause, bool) {
	name, versions := "", ""
	if m := pipNoVersion.FindStringSubmatch(text); m != nil {
		name, versions = m[1], m[2]
	} else if m := pipNone.FindStringSubmatch(text); m != nil {
		name = m[1]
	} else if m := uvAbsent.FindStringSubmatch(text); m != nil {
		name, versions = m[1], "none"
	} else if m := uvNoVersion.FindStringSubmatch(text); m != nil {
		name = m[1] + m[2]
	} else {
		return cause{}, false
	}
	c := cause{code: zarpa.Invalid, what: d.describe(name) + ": no such version"}
	switch {
	case d.offline():
		c.what = d.describe(name) + ": wheels/ has no fitting one, and nothing is fetched, for every requirement has a file there"
		c.hint = "put it into wheels/ (pip download -d wheels -r requirements.txt), or name an index in the requirements"
	case versions == "none":
		c.what = d.describe(name) + ": there is no such package for this Python"
		c.hint = "check the spelling, the Python version, and the index of pip's configuration with its credentials"
	case pipOtherPython.MatchString(text): // of this package or of another one: the log does not tell
		c.hint = "there is " + lastOf(versions) + "; others want another Python, the log says which"
	case versions != "":
		c.hint = "there is " + lastOf(versions)
	default:
		c.hint = "the log says which versions there are"
	}
	return c, true
}

// describe names the line of a package, or the package where another one needs it.
func (d description) describe(wanted string) string {
	if wanted == "" {
		return "a package"
	}
	name := wanted
	if m := named.FindStringSubmatch(wanted); m != nil {
		name = m[1]
	}
	i := slices.IndexFunc(d.packages.list, func(r requirement) bool { return r.name == normalName(name) && !r.constraint })
	if i < 0 {
		return fmt.Sprintf("%.80q, which another package needs", wanted)
	}
	return d.packages.list[i].where()
}

// lastOf are the last of a list of versions, the newest.
func lastOf(versions string) string {
	const most = 10
	list := strings.Split(versions, ", ")
	if len(list) <= most {
		return versions
	}
	return "…, " + strings.Join(list[len(list)-most:], ", ")
}

func firstOf(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// lastCollected is the package that pip looked at last.
func lastCollected(lines []string) string {
	for _, line := range slices.Backward(lines) {
		if m := pipCollecting.FindStringSubmatch(line); m != nil {
			return cmp.Or(wheelName(path.Base(m[1])), m[1])
		}
	}
	return ""
}
