package storetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func access(name string) zarpa.Access {
	return zarpa.Access{
		Name: name, Role: zarpa.RoleDeployer, Digest: zarpa.KeyDigest("token of " + name),
		Created: instant(), Expires: instant().Add(time.Hour),
	}
}

func accessScenarios() []scenario {
	return []scenario{
		{"ReadBackAsCreated", accessesReadBack},
		{"ANameIsTakenUntilDeleted", accessesTaken},
		{"RevokeIsOnce", accessesRevoke},
		{"ListOrdersByName", accessesList},
	}
}

func accessesReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	want := access("ci")
	ok(t, s.Accesses.Create(ctx, want))
	s.restart(t)
	list, err := s.Accesses.List(ctx)
	ok(t, err)
	same(t, list, []zarpa.Access{want})
	if !bytes.Equal(list[0].Digest, want.Digest) {
		t.Fatalf("digest %x, want %x", list[0].Digest, want.Digest)
	}
}

func accessesTaken(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Accesses.Create(ctx, access("ci")))
	fails(t, s.Accesses.Create(ctx, access("ci")), zarpa.Conflict)
	ok(t, s.Accesses.Revoke(ctx, "ci", instant()))
	fails(t, s.Accesses.Create(ctx, access("ci")), zarpa.Conflict)
	ok(t, s.Accesses.Delete(ctx, "ci"))
	ok(t, s.Accesses.Delete(ctx, "ci"))
	ok(t, s.Accesses.Create(ctx, access("ci")))
}

func accessesRevoke(t *testing.T, s *subject) {
	ctx := t.Context()
	fails(t, s.Accesses.Revoke(ctx, "ci", instant()), zarpa.NotFound)
	ok(t, s.Accesses.Create(ctx, access("ci")))
	ok(t, s.Accesses.Create(ctx, access("other")))
	ok(t, s.Accesses.Revoke(ctx, "ci", instant()))
	ok(t, s.Accesses.Revoke(ctx, "ci", instant().Add(time.Hour))) // it ended the first time
	list, err := s.Accesses.List(ctx)
	ok(t, err)
	want := access("ci")
	want.Revoked = instant()
	same(t, list, []zarpa.Access{want, access("other")})
}

func accessesList(t *testing.T, s *subject) {
	ctx := t.Context()
	for _, name := range []string{"b", "c", "a"} {
		ok(t, s.Accesses.Create(ctx, access(name)))
	}
	list, err := s.Accesses.List(ctx)
	ok(t, err)
	same(t, list, []zarpa.Access{access("a"), access("b"), access("c")})
}

func auditEntry(object string) zarpa.AuditEntry {
	return zarpa.AuditEntry{
		At: instant(), Who: "ci", Role: zarpa.RoleDeployer, Action: "endpoint.update", Object: object,
		Changes:   []zarpa.Change{{Field: "deployments.blue.replicas", From: "1", To: unicode}},
		RequestID: "r1", Address: "127.0.0.1", Refused: "no",
	}
}

func auditScenarios() []scenario {
	return []scenario{
		{"ReadBackAsAppended", auditsReadBack},
		{"ListSelects", auditsList},
		{"PruneDeletesTheOld", auditsPrune},
		{"NothingIsLoggedOfWhatFailed", auditsAtomic},
	}
}

func auditsReadBack(t *testing.T, s *subject) {
	ctx := t.Context()
	full := auditEntry("iris")
	ok(t, s.Audits.Append(ctx, full))
	bare := zarpa.AuditEntry{At: instant(), Who: "admin", Action: "model.delete", Object: "iris:1"}
	ok(t, s.Audits.Append(ctx, bare))
	s.restart(t)
	list, err := s.Audits.List(ctx, zarpa.AuditQuery{})
	ok(t, err)
	if len(list) != 2 || list[0].ID <= list[1].ID || list[1].ID <= 0 {
		t.Fatalf("identities do not grow: %s", text(t, list))
	}
	full.ID, bare.ID = list[1].ID, list[0].ID
	same(t, list, []zarpa.AuditEntry{bare, full})
}

func auditsList(t *testing.T, s *subject) {
	ctx := t.Context()
	for i, object := range []string{"iris", "rose", "iris", "rose", "iris"} {
		e := auditEntry(object)
		e.At, e.RequestID = instant().Add(time.Duration(i)*time.Second), string(rune('a'+i))
		ok(t, s.Audits.Append(ctx, e))
	}
	whole, err := s.Audits.List(ctx, zarpa.AuditQuery{})
	ok(t, err)
	for _, c := range []struct {
		name  string
		query zarpa.AuditQuery
		want  string
	}{
		{"all", zarpa.AuditQuery{}, "edcba"},
		{"object", zarpa.AuditQuery{Object: "iris"}, "eca"},
		{"since", zarpa.AuditQuery{Since: instant().Add(2 * time.Second)}, "edc"},
		{"limit", zarpa.AuditQuery{Limit: 2}, "ed"},
		{"page", zarpa.AuditQuery{Limit: 2, Before: whole[1].ID}, "cb"},
		{"together", zarpa.AuditQuery{Object: "iris", Since: instant().Add(time.Second), Before: whole[0].ID, Limit: 5}, "c"},
		{"none", zarpa.AuditQuery{Object: "none"}, ""},
	} {
		list, err := s.Audits.List(ctx, c.query)
		ok(t, err)
		var ids strings.Builder
		for _, e := range list {
			ids.WriteString(e.RequestID)
		}
		if got := ids.String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func auditsPrune(t *testing.T, s *subject) {
	ctx := t.Context()
	ok(t, s.Audits.Append(ctx, auditEntry("old")))
	late := auditEntry("late")
	late.At = instant().Add(time.Minute)
	ok(t, s.Audits.Append(ctx, late))
	ok(t, s.Audits.Prune(ctx, late.At))
	list, err := s.Audits.List(ctx, zarpa.AuditQuery{})
	ok(t, err)
	if objects := slices.Collect(names(list)); !slices.Equal(objects, []string{"late"}) {
		t.Fatalf("after Prune: %v", objects)
	}
	last := list[0].ID
	ok(t, s.Audits.Prune(ctx, late.At.Add(time.Hour)))
	ok(t, s.Audits.Append(ctx, late))
	list, err = s.Audits.List(ctx, zarpa.AuditQuery{})
	ok(t, err)
	if list[0].ID <= last {
		t.Fatalf("identity %d was given before: the last was %d", list[0].ID, last)
	}
}

func names(list []zarpa.AuditEntry) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, e := range list {
			if !yield(e.Object) {
				return
			}
		}
	}
}

func auditsAtomic(t *testing.T, s *subject) {
	ctx, sentinel := t.Context(), errors.New("no")
	change := func(fail error) error {
		return s.Atomically(ctx, func(n zarpa.Nouns) error {
			return errors.Join(n.Accesses.Create(ctx, access("ci")), n.Audits.Append(ctx, auditEntry("ci")), fail)
		})
	}
	count := func(want int) {
		t.Helper()
		entries, err := s.Audits.List(context.WithoutCancel(ctx), zarpa.AuditQuery{})
		ok(t, err)
		list, err := s.Accesses.List(ctx)
		ok(t, err)
		if len(entries) != want || len(list) != want {
			t.Fatalf("%d entries of %d changes, want %d", len(entries), len(list), want)
		}
	}
	if err := change(sentinel); !errors.Is(err, sentinel) {
		t.Fatalf("error %v, want the function's own", err)
	}
	count(0)
	ok(t, change(nil))
	count(1)
}
