package environment

import (
	"bufio"
	"cmp"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// pipSettings is the user's configuration of pip: names as on pip's command line, without dashes
// before them. It is read for tools that do not know it, and for the credentials in it.
type pipSettings map[string]string

// pipSettings reads the configuration in pip's order: the files of the machine, those of the user, the
// one that PIP_CONFIG_FILE names, and the PIP_ variables; what comes later counts. What cannot be read
// is as if it were not there: pip itself says so.
func (c *Cache) pipSettings() pipSettings {
	got := pipSettings{}
	named := c.variable("PIP_CONFIG_FILE")
	if named != os.DevNull {
		for _, path := range append(c.pipFiles(), named) {
			if text, err := os.ReadFile(path); err == nil && len(text) <= maxDescription {
				got.read(string(text))
			}
		}
	}
	for _, e := range c.environ() {
		name, value, _ := strings.Cut(e, "=")
		if name, ok := strings.CutPrefix(name, "PIP_"); ok && value != "" {
			got[settingName(name)] = value
		}
	}
	return got
}

func (c *Cache) pipFiles() []string {
	home := c.variable("HOME")
	config := cmp.Or(c.variable("XDG_CONFIG_HOME"), filepath.Join(home, ".config"))
	files := []string{"/etc/xdg/pip/pip.conf", "/etc/pip.conf"}
	if runtime.GOOS == "darwin" {
		files = []string{"/Library/Application Support/pip/pip.conf", filepath.Join(home, "Library", "Application Support", "pip", "pip.conf")}
	}
	return append(files, filepath.Join(home, ".pip", "pip.conf"), filepath.Join(config, "pip", "pip.conf"))
}

// read takes the sections global and install of a file: NAME = VALUE, a value going on in lines that
// begin with a space.
func (s pipSettings) read(text string) {
	section, name := "", ""
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		plain := strings.TrimSpace(line)
		switch {
		case plain == "" || strings.HasPrefix(plain, "#") || strings.HasPrefix(plain, ";"):
			continue
		case strings.HasPrefix(line, "["):
			section, name = strings.Trim(plain, "[]"), ""
			continue
		case section != "global" && section != "install":
			continue
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			if name != "" {
				s[name] = strings.TrimSpace(s[name] + "\n" + plain)
			}
			continue
		}
		at := strings.IndexAny(plain, "=:")
		if at < 0 {
			continue
		}
		name = settingName(strings.TrimSpace(plain[:at]))
		s[name] = strings.TrimSpace(plain[at+1:])
	}
}

func settingName(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "-")) }

// on tells whether a switch is on.
func (s pipSettings) on(name string) bool {
	switch strings.ToLower(s[name]) {
	case "1", "true", "yes", "on", "y", "t":
		return true
	}
	return false
}

// withSettings blacks out the credentials in the values as well.
func (r redactor) withSettings(s pipSettings) redactor {
	for _, value := range s {
		r = r.withURLs(value)
	}
	return r
}
