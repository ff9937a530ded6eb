package zarpa_test

import (
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestRolesIncludeThoseBeforeThem(t *testing.T) {
	t.Parallel()
	roles := []zarpa.Role{"", "root", zarpa.RoleViewer, zarpa.RoleDeployer, zarpa.RoleAdmin}
	for i, have := range roles {
		for j, need := range roles[2:] {
			if got, want := have.Allows(need), i >= j+2; got != want {
				t.Errorf("%q does what needs %q: %t, want %t", have, need, got, want)
			}
		}
	}
}

func TestAccessIsCheckedFieldByField(t *testing.T) {
	t.Parallel()
	hour := zarpa.Duration(time.Hour)
	for _, c := range []struct {
		name string
		spec interface{ Validate() error }
		want string // "" is valid
	}{
		{"least", zarpa.AccessSpec{Name: "ci", Role: zarpa.RoleViewer}, ""},
		{"full", zarpa.AccessSpec{Name: "ci", Role: zarpa.RoleAdmin, Lifetime: hour}, ""},
		{"no name", zarpa.AccessSpec{Role: zarpa.RoleViewer}, "access name"},
		{"the server's", zarpa.AccessSpec{Name: "admin", Role: zarpa.RoleAdmin}, "own token"},
		{"no role", zarpa.AccessSpec{Name: "ci"}, "role:"},
		{"unknown role", zarpa.AccessSpec{Name: "ci", Role: "root"}, "viewer, deployer or admin"},
		{"over at once", zarpa.AccessSpec{Name: "ci", Role: zarpa.RoleViewer, Lifetime: 1}, "lifetime"},
		{"backwards", zarpa.AccessSpec{Name: "ci", Role: zarpa.RoleViewer, Lifetime: -hour}, "lifetime"},
		{"for too long", zarpa.AccessSpec{Name: "ci", Role: zarpa.RoleViewer, Lifetime: 100_000 * hour}, "lifetime"},
		{"token", zarpa.TokenSpec{}, ""},
		{"token of a day", zarpa.TokenSpec{Lifetime: 24 * hour}, ""},
		{"token of more", zarpa.TokenSpec{Lifetime: 24*hour + 1}, "between 1m and 24h"},
		{"token of a second", zarpa.TokenSpec{Lifetime: zarpa.Duration(time.Second)}, "between 1m and 24h"},
		{"key", zarpa.KeySpec{Value: "0123456789abcdef"}, ""},
		{"short key", zarpa.KeySpec{Value: "0123456789abcde"}, "between 16 and 256"},
		{"long key", zarpa.KeySpec{Value: strings.Repeat("k", 257)}, "between 16 and 256"},
		{"key with a blank", zarpa.KeySpec{Value: "0123456789 abcdef"}, "character 11"},
		{"key with an end of line", zarpa.KeySpec{Value: "0123456789abcdef\n"}, "character 17"},
	} {
		err := c.spec.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || zarpa.AsError(err).Code != zarpa.Invalid || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want invalid with %q", c.name, err, c.want)
		}
	}
}
