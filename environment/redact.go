package environment

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

const blacked = "***"

// minSecret is the length from which a value of the build's environment is blacked out wherever it
// stands: shorter ones would black out ordinary words. In URLs all are.
const minSecret = 5

// userinfo is what stands between :// and the last @ before the path: a name and a password.
var userinfo = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^/\s"'<>` + "`" + `]*@`)

// redactor blacks out credentials.
type redactor struct{ secrets []string }

// newRedactor finds the secrets of a build's environment: the credentials in the URLs of PIP_ and UV_
// variables, and the values of those that call themselves a token, a password or a secret.
func newRedactor(env []string) redactor {
	var r redactor
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		name = strings.ToUpper(name)
		if strings.Contains(name, "TOKEN") || strings.Contains(name, "PASSWORD") || strings.Contains(name, "SECRET") {
			r = r.with(value)
		}
		if strings.HasPrefix(name, "PIP_") || strings.HasPrefix(name, "UV_") {
			r = r.withURLs(value)
		}
	}
	return r
}

func (r redactor) with(secret string) redactor {
	if len(secret) < minSecret || slices.Contains(r.secrets, secret) {
		return r
	}
	r.secrets = append(slices.Clone(r.secrets), secret)
	slices.SortStableFunc(r.secrets, func(a, b string) int { return len(b) - len(a) }) // one may be a part of another
	return r
}

// withURLs adds the names and passwords of the URLs in a list of values.
func (r redactor) withURLs(values string) redactor {
	for _, at := range userinfo.FindAllStringSubmatchIndex(values, -1) {
		info := values[at[3] : at[1]-1]
		name, password, found := strings.Cut(info, ":")
		if !found {
			password = name // a token alone
		}
		r = r.with(password)
		if plain, err := url.PathUnescape(password); err == nil {
			r = r.with(plain)
		}
	}
	return r
}

// clean is s without credentials.
func (r redactor) clean(s string) string {
	for _, secret := range r.secrets {
		s = strings.ReplaceAll(s, secret, blacked)
	}
	return userinfo.ReplaceAllString(s, "${1}"+blacked+"@")
}
