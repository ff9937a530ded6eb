package environment

import (
	"fmt"
	"strconv"
	"strings"
)

// oldest is the oldest Python that the scoring worker runs on.
var oldest = version{3, 8, 0}

// version is MAJOR.MINOR.PATCH of a Python. What follows in a pre-release does not count.
type version [3]int

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

func (v version) minor() string { return fmt.Sprintf("%d.%d", v[0], v[1]) }

func (v version) compare(w version) int {
	for i := range v {
		if v[i] != w[i] {
			return v[i] - w[i]
		}
	}
	return 0
}

// parseVersion reads up to three numbers with dots between them and says how many there were.
func parseVersion(s string) (v version, parts int, ok bool) {
	for field := range strings.SplitSeq(s, ".") {
		digits := len(field) - len(strings.TrimLeft(field, "0123456789"))
		n, err := strconv.Atoi(field[:digits])
		if err != nil || n > 9999 {
			return version{}, 0, false
		}
		if parts < len(v) {
			v[parts] = n
			parts++
		}
		if digits < len(field) {
			return v, parts, parts == len(v) // 3.14.0rc1
		}
	}
	return v, parts, true
}

// clause is one comparison, such as >=3.9.
type clause struct {
	op      string
	version version
	parts   int  // how many numbers were given
	prefix  bool // only those count: ==3.11.*
}

func (c clause) allows(v version) bool {
	order := v.compare(c.version)
	if c.prefix {
		order = 0
		for i := range c.parts {
			if order == 0 {
				order = v[i] - c.version[i]
			}
		}
	}
	switch c.op {
	case "==", "===":
		return order == 0
	case "!=":
		return order != 0
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	}
	// ~=3.9 is >=3.9 and ==3.*
	same := clause{op: "==", version: c.version, parts: c.parts - 1, prefix: true}
	return v.compare(c.version) >= 0 && same.allows(v)
}

// constraint is what is asked of a Python: all clauses of one of its alternatives. Without any it
// allows all.
type constraint struct {
	text         string // as it was written
	alternatives [][]clause
	// loose is the version that was asked for to the last number, where another patch of the same
	// minor version does as well.
	loose string
}

func (c constraint) allows(v version) bool {
	for _, all := range c.alternatives {
		ok := true
		for _, one := range all {
			ok = ok && one.allows(v)
		}
		if ok {
			return true
		}
	}
	return len(c.alternatives) == 0
}

// exactly is the constraint of MAJOR.MINOR or MAJOR.MINOR.PATCH, as a spec has it.
func exactly(s string) (constraint, bool) {
	if s == "" {
		return constraint{}, true
	}
	v, parts, ok := parseVersion(s)
	if !ok || parts < 2 {
		return constraint{}, false
	}
	return constraint{text: s, alternatives: [][]clause{{{op: "==", version: v, parts: parts, prefix: true}}}}, true
}

// parseSpecifiers reads version specifiers as pyproject.toml has them in requires-python:
// comparisons with commas between them.
func parseSpecifiers(s string) (constraint, bool) {
	c := constraint{text: strings.TrimSpace(s)}
	if c.text == "" {
		return constraint{}, true
	}
	var all []clause
	for part := range strings.SplitSeq(c.text, ",") {
		if strings.TrimSpace(part) == "" {
			continue // a comma at the end
		}
		one, ok := parseClause(strings.TrimSpace(part))
		if !ok {
			return constraint{}, false
		}
		all = append(all, one)
	}
	c.alternatives = [][]clause{all}
	return c, true
}

func parseClause(s string) (clause, bool) {
	for _, op := range []string{"===", "==", "~=", "!=", "<=", ">=", "<", ">"} {
		rest, found := strings.CutPrefix(s, op)
		if !found {
			continue
		}
		number, prefix := strings.CutSuffix(strings.TrimSpace(rest), ".*")
		v, parts, ok := parseVersion(number)
		if !ok || prefix && op != "==" && op != "!=" || op == "~=" && parts < 2 {
			return clause{}, false
		}
		return clause{op: op, version: v, parts: parts, prefix: prefix}, true
	}
	return clause{}, false
}

// parseCondaVersion reads what conda.yml has behind "python": =3.8, ==3.8.5, 3.8.*, >=3.7,<3.9,
// 3.8|3.9, with a build's name behind it or not. A patch version need not be met exactly.
func parseCondaVersion(s string) (constraint, bool) {
	c := constraint{text: strings.TrimSpace(s)}
	if c.text == "" || c.text == "*" {
		return constraint{}, true
	}
	for alternative := range strings.SplitSeq(c.text, "|") {
		var all []clause
		for part := range strings.SplitSeq(alternative, ",") {
			one, ok := parseCondaClause(strings.TrimSpace(part))
			if !ok {
				return constraint{}, false
			}
			if one.op == "==" && one.parts == 3 {
				c.loose = one.version.String()
				one.parts, one.prefix = 2, true
			}
			all = append(all, one)
		}
		c.alternatives = append(c.alternatives, all)
	}
	return c, true
}

func parseCondaClause(s string) (clause, bool) {
	if fields := strings.Fields(s); len(fields) == 2 && !strings.ContainsAny(fields[0][len(fields[0])-1:], "=<>~!") {
		s = fields[0] // the second one is a build's name
	}
	s = strings.ReplaceAll(s, " ", "")
	if rest, ok := strings.CutPrefix(s, "~="); ok {
		return parseClause("~=" + rest)
	}
	if strings.HasPrefix(s, "<") || strings.HasPrefix(s, ">") || strings.HasPrefix(s, "!=") {
		return parseClause(s)
	}
	exact := strings.HasPrefix(s, "==")
	number, _, _ := strings.Cut(strings.TrimLeft(s, "="), "=") // 3.8.5=h7579374_0
	number, star := strings.CutSuffix(number, "*")
	number = strings.TrimSuffix(number, ".")
	v, parts, ok := parseVersion(number)
	return clause{op: "==", version: v, parts: parts, prefix: star || !exact}, ok
}
