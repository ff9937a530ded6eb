package environment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/zarpa-dev/zarpa"
)

// Limits of a description.
const (
	maxDescription = 1 << 20 // bytes of one file
	maxFiles       = 50      // files that name each other by -r and -c
	maxLines       = 20_000  // requirements and options in all of them
)

// requirement is one line of a requirements file.
type requirement struct {
	file string
	line int // the first one, where it was continued
	text string
	// name is the package, normalised; empty where only its file tells it.
	name string
	// constraint lines bound versions and install nothing.
	constraint bool
}

// where names the line for an error.
func (r requirement) where() string { return fmt.Sprintf("%s line %d: %.200q", r.file, r.line, r.text) }

// requirements is what a requirements file and those that it names ask for.
type requirements struct {
	list []requirement
	// index says that they name an index themselves, or say that there is none.
	index bool
	// texts are the files that were read, by path, in UTF-8.
	texts map[string][]byte
}

// readRequirements reads a requirements file of the content and those that it names. It knows just so
// much of the format as is needed to find what reads or runs outside the content, and to name the line
// of a package; the tools read it for themselves.
func readRequirements(files fs.FS, name string) (requirements, error) {
	r := requirementsReader{files: files, got: requirements{texts: map[string][]byte{}}}
	err := r.file(name, false)
	return r.got, err
}

type requirementsReader struct {
	files fs.FS
	got   requirements
}

func (r *requirementsReader) file(name string, constraint bool) error {
	if _, again := r.got.texts[name]; again {
		return nil
	}
	if len(r.got.texts) == maxFiles {
		return zarpa.Errorf(zarpa.TooLarge, "%s: more than %d files name each other", name, maxFiles)
	}
	raw, err := readLimited(r.files, name)
	if err != nil {
		return err
	}
	text := decodeText(raw)
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return zarpa.Errorf(zarpa.Invalid, "%s: not text", name).WithHint("save it as UTF-8")
	}
	r.got.texts[name] = text
	for line := range logicalLines(string(text)) {
		if len(r.got.list) >= maxLines {
			return zarpa.Errorf(zarpa.TooLarge, "%s: more than %d lines", name, maxLines)
		}
		req := requirement{file: name, line: line.number, text: line.text, constraint: constraint}
		if err := r.line(req); err != nil {
			return err
		}
	}
	return nil
}

type logicalLine struct {
	number int
	text   string
}

// comment begins at the line's beginning or behind a space: a URL may hold a #.
var comment = regexp.MustCompile(`(^|\s)#.*$`)

// logicalLines yields the lines that say something: joined where a back-slash continues them, without
// comments.
func logicalLines(text string) func(yield func(logicalLine) bool) {
	return func(yield func(logicalLine) bool) {
		var joined strings.Builder
		number, first := 0, 0
		emit := func() bool {
			l := strings.TrimSpace(comment.ReplaceAllString(joined.String(), ""))
			joined.Reset()
			at := first
			first = 0
			return l == "" || yield(logicalLine{at, l})
		}
		for line := range strings.Lines(text) {
			number++
			line = strings.TrimRight(line, "\r\n")
			if first == 0 {
				first = number
			}
			isComment := strings.HasPrefix(strings.TrimSpace(line), "#")
			if rest, continued := strings.CutSuffix(line, "\\"); continued && !isComment {
				joined.WriteString(rest)
				continue
			}
			if isComment && joined.Len() > 0 {
				line = " " + line
			}
			joined.WriteString(line)
			if !emit() {
				return
			}
		}
		emit()
	}
}

// line takes one line: options, or a requirement.
func (r *requirementsReader) line(req requirement) error {
	if strings.HasPrefix(req.text, "-") {
		return r.options(req)
	}
	text, options := req.text, ""
	if at := strings.Index(text, " --"); at >= 0 {
		text, options = strings.TrimSpace(text[:at]), strings.TrimSpace(text[at:])
	}
	for o := range strings.FieldsSeq(options) {
		if !strings.HasPrefix(o, "--hash=") && !strings.HasPrefix(o, "sha") && o != "--hash" {
			return req.bad("option %.40q is not allowed behind a requirement", o).WithHint("only --hash may stand there")
		}
	}
	name, err := r.requirement(req, text)
	if err != nil {
		return err
	}
	req.name = name
	r.got.list = append(r.got.list, req)
	return nil
}

func (r requirement) bad(format string, args ...any) *zarpa.Error {
	return zarpa.Errorf(zarpa.Invalid, "%s line %d: %s", r.file, r.line, fmt.Sprintf(format, args...))
}

var (
	named     = regexp.MustCompile(`^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9._, -]*\])?\s*(.*)$`)
	specifier = regexp.MustCompile(`^(===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+$`)
	address   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)
	archive   = regexp.MustCompile(`(?i)\.(whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz)$`)
)

// requirement checks NAME SPECIFIERS; MARKER, NAME @ URL, a URL or a file of the content, and returns
// the name.
func (r *requirementsReader) requirement(req requirement, text string) (string, error) {
	plain, _, _ := strings.Cut(text, ";")
	plain = strings.TrimSpace(plain)
	if address.MatchString(text) {
		_, egg, _ := strings.Cut(text, "#egg=")
		name, _, _ := strings.Cut(egg, "&")
		return normalName(name), req.checkURL(text)
	}
	if archive.MatchString(plain) && !strings.Contains(plain, "@") || strings.HasPrefix(plain, ".") || strings.HasPrefix(plain, "/") {
		return wheelName(path.Base(plain)), r.inside(req, plain)
	}
	m := named.FindStringSubmatch(plain)
	if m == nil {
		return "", req.bad("%.80q is not a requirement", text).WithHint("write NAME==VERSION, one on each line")
	}
	name, rest := normalName(m[1]), strings.TrimSpace(m[2])
	if target, ok := strings.CutPrefix(rest, "@"); ok {
		target = strings.TrimSpace(target)
		if !address.MatchString(target) {
			return name, r.inside(req, target)
		}
		return name, req.checkURL(target)
	}
	rest = strings.TrimSuffix(strings.TrimPrefix(rest, "("), ")")
	for part := range strings.SplitSeq(rest, ",") {
		part = strings.TrimSpace(part)
		if part == "" || specifier.MatchString(part) {
			continue
		}
		hint := "write NAME==VERSION, one on each line"
		if strings.HasPrefix(part, "=") {
			hint = "write == where the version is to be met exactly"
		}
		return name, req.bad("%.80q is not a requirement: %.40q is not understood", text, part).WithHint("%s", hint)
	}
	return name, nil
}

// checkURL refuses what reads files of the machine, and credentials, which would be stored.
func (r requirement) checkURL(s string) error {
	scheme, rest, _ := strings.Cut(s, ":")
	scheme = strings.ToLower(scheme)
	if _, transport, ok := strings.Cut(scheme, "+"); ok {
		scheme = transport
	}
	if !slices.Contains([]string{"http", "https", "ssh"}, scheme) || !strings.HasPrefix(rest, "//") {
		return r.bad("%.80q reads from outside the description", redactor{}.clean(s)).
			WithHint("use https, or put the package's file into wheels/")
	}
	if hasSecret(scheme, rest[2:]) {
		return r.bad("%.80q has a password or token in it, which would be stored with the deployment", redactor{}.clean(s)).
			WithHint("put it into pip's configuration, ~/.netrc or a variable, written as ${NAME}")
	}
	return nil
}

// variable is how pip reads a variable of its environment in a requirements file.
var variable = regexp.MustCompile(`\$\{[A-Z0-9_]+\}`)

// hasSecret tells whether there are credentials before the host, and no variable for them. A name alone
// is a token, but for ssh, where it is the user that everybody has (git@) and a key opens.
func hasSecret(scheme, rest string) bool {
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	at := strings.LastIndexByte(rest, '@')
	if at <= 0 || variable.MatchString(rest[:at]) {
		return false
	}
	return scheme != "ssh" || strings.Contains(rest[:at], ":")
}

// inside wants a path to be that of a file of the content. It counts from the content's folder, in
// which the tools run, also in a file of a folder below.
func (r *requirementsReader) inside(req requirement, p string) error {
	full := path.Clean(p)
	if path.IsAbs(p) || zarpa.ValidatePath(full) != nil {
		return req.bad("%.80q reads from outside the description", p).WithHint("put the file beside it, into wheels/")
	}
	info, err := fs.Stat(r.files, full)
	if err != nil || !info.Mode().IsRegular() {
		return req.bad("%.80q: no such file in the description", p).WithHint("put the package's file into wheels/")
	}
	return nil
}

// normalName is a package's name as indexes compare it: lower case, runs of - _ . as one dash.
func normalName(s string) string {
	return strings.ToLower(separators.ReplaceAllString(s, "-"))
}

var separators = regexp.MustCompile(`[-_.]+`)

// wheelName is the package of a wheel or source archive by its file's name, normalised; empty for
// other files.
func wheelName(file string) string {
	if !archive.MatchString(file) {
		return ""
	}
	if strings.HasSuffix(strings.ToLower(file), ".whl") {
		name, _, _ := strings.Cut(file, "-")
		return normalName(name)
	}
	at := strings.LastIndexByte(file, '-') // NAME-VERSION.tar.gz
	if at < 0 {
		return ""
	}
	return normalName(file[:at])
}

// decodeText reads the marks at a file's beginning by which Windows says UTF-16.
func decodeText(b []byte) []byte {
	var order func(b []byte) uint16
	switch {
	case bytes.HasPrefix(b, []byte{0xEF, 0xBB, 0xBF}):
		return b[3:]
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE}):
		order = func(b []byte) uint16 { return uint16(b[0]) | uint16(b[1])<<8 }
	case bytes.HasPrefix(b, []byte{0xFE, 0xFF}):
		order = func(b []byte) uint16 { return uint16(b[1]) | uint16(b[0])<<8 }
	default:
		return b
	}
	var units []uint16
	for i := 2; i+1 < len(b); i += 2 {
		units = append(units, order(b[i:]))
	}
	return []byte(string(utf16.Decode(units)))
}

// readLimited reads a file of the description.
func readLimited(files fs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, zarpa.Errorf(zarpa.Invalid, "%s: not in the description of the environment", name).WithHint("put the file beside the others")
	}
	if err != nil {
		return nil, diskError("read "+name, err)
	}
	defer f.Close() //nolint:errcheck // was only read
	b, err := io.ReadAll(io.LimitReader(f, maxDescription+1))
	if err != nil {
		return nil, diskError("read "+name, err)
	}
	if len(b) > maxDescription {
		return nil, zarpa.Errorf(zarpa.TooLarge, "%s: more than %d bytes", name, maxDescription)
	}
	return b, nil
}
