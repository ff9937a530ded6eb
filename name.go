package zarpa

import "strings"

// MaxName is the longest name of a model, endpoint, deployment or target, in bytes.
const MaxName = 63

// ValidateName checks the name of a noun (kind is "model", "endpoint", …): ASCII letters, digits,
// "-", "_" and ".", a letter first, at most [MaxName] bytes. The error names the first offending
// character. Targets that need DNS labels map names by themselves.
func ValidateName(kind, name string) error {
	const rule = "use letters, digits, '-', '_' and '.', a letter first, at most 63 characters"
	switch {
	case name == "":
		return Errorf(Invalid, "%s name: empty", kind).WithHint(rule)
	case len(name) > MaxName:
		return Errorf(Invalid, "%s name %.20q…: %d characters, %d allowed", kind, name, len(name), MaxName).WithHint(rule)
	case !letter(rune(name[0])):
		return Errorf(Invalid, "%s name %q: does not start with a letter", kind, name).WithHint(rule)
	}
	for i, r := range name {
		if !letter(r) && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r) {
			return Errorf(Invalid, "%s name %q: character %q at position %d is not allowed", kind, name, r, i+1).WithHint(rule)
		}
	}
	return nil
}

func letter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

// maxWord is the longest word, in bytes, that candidates are compared with: words come from clients,
// and comparing costs the product of two lengths.
const maxWord = 64

// Nearest is the candidate closest to word in edit distance, or "" when none is near enough to
// be worth suggesting (more than a third of the word differs, two edits always allowed), or the word
// is too long for a slip.
func Nearest(word string, candidates []string) string {
	if len(word) > maxWord {
		return ""
	}
	best, bestDist := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if len(c) >= len(word)+bestDist {
			continue // that many bytes are missing
		}
		if d := editDistance(strings.ToLower(word), strings.ToLower(c)); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
