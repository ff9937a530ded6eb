package api

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// The bounds of the audit log's reading.
const (
	defaultAudit = 100
	maxAudit     = 10_000
)

// Audit appends what a call does to the audit log: who, role, request and address are the call's, and
// the time is now unless it is set. It belongs into the transaction of the change itself: nothing is
// changed without its entry, and what failed has none.
func Audit(ctx context.Context, n zarpa.Nouns, e zarpa.AuditEntry) error {
	c := callerOf(ctx)
	e.Who, e.Role, e.Address, e.RequestID = c.name, c.role, c.address, httpx.ID(ctx)
	e.Changes = withoutSecrets(e.Changes)
	if e.At.IsZero() {
		e.At = time.Now().UTC()
	}
	return n.Audits.Append(ctx, e)
}

// withoutSecrets hides the values of deployments' variables, where people put passwords.
func withoutSecrets(changes []zarpa.Change) []zarpa.Change {
	hide := func(v string) string {
		if v == "" {
			return ""
		}
		return "(hidden)"
	}
	out := slices.Clone(changes)
	for i, c := range out {
		if strings.HasPrefix(c.Field, "deployments.") && strings.Contains(c.Field, ".env.") {
			out[i].From, out[i].To = hide(c.From), hide(c.To)
		}
	}
	return out
}

// audit is Audit at the server's time.
func (s *server) audit(ctx context.Context, n zarpa.Nouns, action, object string, changes ...zarpa.Change) error {
	return Audit(ctx, n, zarpa.AuditEntry{At: s.Now().UTC(), Action: action, Object: object, Changes: changes})
}

// refused logs what somebody who is known was not allowed to do. It is no part of a transaction, and
// one that cannot be written is said in the log of the server.
func (s *server) refused(ctx context.Context, action, object string, why error) {
	if !s.refusals.allow(whoOf(ctx), s.Now()) {
		return
	}
	err := Audit(ctx, s.Store.Nouns(), zarpa.AuditEntry{At: s.Now().UTC(), Action: action, Object: object, Refused: zarpa.AsError(why).Message})
	if err != nil && ctx.Err() == nil {
		s.Log.Warn("a refused call is not in the audit log", "who", whoOf(ctx), "action", action, "error", err)
	}
}

// The refused calls that are logged, in a minute: of one caller, and of all. Further ones are refused
// all the same, and not logged: nobody fills the disk by what he may not do.
const (
	refusalsOfOne = 10
	refusalsOfAll = 100
)

// refusals counts the refused calls of the present minute.
type refusals struct {
	mu     sync.Mutex // guards what follows
	minute time.Time
	all    int
	of     map[string]int // of at most refusalsOfAll callers
}

func (r *refusals) allow(who string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if minute := now.Truncate(time.Minute); !minute.Equal(r.minute) {
		r.minute, r.all, r.of = minute, 0, map[string]int{}
	}
	if r.all >= refusalsOfAll || r.of[who] >= refusalsOfOne {
		return false
	}
	r.all++
	r.of[who]++
	return true
}

// ListAudit reads the audit log. Who is no admin names an object, which is not one of an admin's own,
// and does not see where others called from.
func (s *server) ListAudit(ctx context.Context, req ListAuditRequestObject) (ListAuditResponseObject, error) {
	q := zarpa.AuditQuery{
		Object: value(req.Params.Object), Since: value(req.Params.Since), Before: value(req.Params.Before), Limit: defaultAudit,
	}
	if req.Params.Limit != nil {
		q.Limit = *req.Params.Limit
	}
	if q.Limit < 1 || q.Limit > maxAudit {
		return nil, zarpa.Errorf(zarpa.Invalid, "limit: %d is not between 1 and %d", q.Limit, maxAudit)
	}
	admin := callerOf(ctx).role.Allows(zarpa.RoleAdmin)
	if !admin && (q.Object == "" || strings.HasPrefix(q.Object, accessObject) || q.Object == signingObject) {
		err := zarpa.Errorf(zarpa.Denied, "the whole audit log needs the role %s, and %q has %s", zarpa.RoleAdmin, whoOf(ctx), callerOf(ctx).role).
			WithHint("name an endpoint or a model: zarpa audit NAME")
		s.refused(ctx, "audit.read", clip(q.Object), err)
		return nil, err
	}
	list, err := s.Store.Nouns().Audits.List(ctx, q)
	if err != nil {
		return nil, err
	}
	if !admin {
		for i := range list {
			list[i].Address = ""
		}
	}
	return ListAudit200JSONResponse(notNil(list)), nil
}
