package environment

import (
	"slices"
	"strings"
)

// Included are the files that a requirements file names by -r and -c, in the order of its lines and as
// they stand there: relative to its own folder, unless they are absolute or URLs, which [Cache.Ensure]
// refuses. Lines that are not understood name nothing; Ensure tells what is wrong with them.
func Included(raw []byte) []string {
	var names []string
	for line := range logicalLines(string(decodeText(raw))) {
		if !strings.HasPrefix(line.text, "-") {
			continue
		}
		words := strings.Fields(line.text)
		for len(words) > 0 {
			name, value, given := splitOption(words[0])
			words = words[1:]
			if !slices.Contains(valueOptions, name) {
				continue
			}
			if !given && len(words) > 0 {
				value, words = words[0], words[1:]
			}
			if value = strings.Trim(value, `"'`); value != "" && (name == "--requirement" || name == "--constraint") {
				names = append(names, value)
			}
		}
	}
	return names
}
