package api

import (
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/zarpa-dev/zarpa"
)

// TestEveryCallHasARole holds the table against the description, both ways.
func TestEveryCallHasARole(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	table, described := permits(), map[string]bool{"GET /metrics": true, "GET /metrics/gateway": true}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			call := method + " " + path
			described[call] = true
			p, ok := table[call]
			open := op.Security != nil && len(*op.Security) == 0
			switch {
			case !ok:
				t.Errorf("%s (%s) has no role", call, op.OperationID)
			case open != (p.need == ""):
				t.Errorf("%s needs %q, and the description says that it is open: %t", call, p.need, open)
			case !open && !p.need.Allows(zarpa.RoleViewer):
				t.Errorf("%s needs %q, which is no role", call, p.need)
			case p.need == zarpa.RoleViewer && method != "GET":
				t.Errorf("%s changes something, and needs a viewer alone", call)
			}
			if strings.Count(p.action, ".") != 1 {
				t.Errorf("%s: the audit log calls it %q, want NOUN.VERB", call, p.action)
			}
		}
	}
	for call := range table {
		if !described[call] {
			t.Errorf("%s has a role and is no call", call)
		}
	}
}
