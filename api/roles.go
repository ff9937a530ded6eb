package api

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// permit is the role that a call needs, none for one that is open, and how the audit log calls it.
type permit struct {
	need   zarpa.Role
	action string
}

// permits has every call, by method and path as the description writes them. Reading is a viewer's, but
// for keys: who has one can send requests.
func permits() map[string]permit {
	const viewer, deployer, admin = zarpa.RoleViewer, zarpa.RoleDeployer, zarpa.RoleAdmin
	return map[string]permit{
		"GET /healthz":                                         {action: "health.read"},
		"GET /metrics":                                         {viewer, "metrics.read"},
		"GET /metrics/gateway":                                 {viewer, "metrics.read"},
		"GET /v1/server":                                       {viewer, "server.read"},
		"POST /v1/content":                                     {deployer, "content.store"},
		"GET /v1/models":                                       {viewer, "model.list"},
		"POST /v1/models":                                      {deployer, "model.register"},
		"GET /v1/models/{ref}":                                 {viewer, "model.read"},
		"PATCH /v1/models/{ref}":                               {deployer, "model.update"},
		"DELETE /v1/models/{ref}":                              {deployer, "model.delete"},
		"GET /v1/models/{ref}/content":                         {viewer, "model.download"},
		"POST /v1/models/{ref}/convert":                        {deployer, "model.convert"},
		"GET /v1/endpoints":                                    {viewer, "endpoint.list"},
		"GET /v1/endpoints/{name}":                             {viewer, "endpoint.read"},
		"PUT /v1/endpoints/{name}":                             {deployer, "endpoint.update"},
		"DELETE /v1/endpoints/{name}":                          {deployer, "endpoint.delete"},
		"GET /v1/endpoints/{name}/keys":                        {deployer, "key.read"},
		"POST /v1/endpoints/{name}/keys/{which}":               {deployer, "key.regenerate"},
		"PUT /v1/endpoints/{name}/keys/{which}":                {deployer, "key.set"},
		"POST /v1/endpoints/{name}/token":                      {deployer, "token.create"},
		"POST /v1/endpoints/{name}/replicas/{replica}/replace": {deployer, "replica.replace"},
		"POST /v1/endpoints/{name}/undo":                       {deployer, "endpoint.undo"},
		"GET /v1/endpoints/{name}/rollout":                     {viewer, "rollout.list"},
		"POST /v1/endpoints/{name}/rollout":                    {deployer, "rollout.start"},
		"POST /v1/endpoints/{name}/rollout/{action}":           {deployer, "rollout.steer"},
		"GET /v1/signing-keys":                                 {viewer, "signing-key.list"},
		"POST /v1/signing-keys":                                {admin, "signing-key.rotate"},
		"GET /v1/endpoints/{name}/logs":                        {viewer, "endpoint.logs"},
		"GET /v1/endpoints/{name}/scaling":                     {viewer, "scaling.read"},
		"GET /v1/load":                                         {viewer, "load.read"},
		"GET /v1/operations":                                   {viewer, "operation.list"},
		"GET /v1/operations/{id}":                              {viewer, "operation.read"},
		"GET /v1/targets":                                      {viewer, "target.list"},
		"POST /v1/targets":                                     {admin, "target.create"},
		"GET /v1/targets/{name}":                               {viewer, "target.read"},
		"PUT /v1/targets/{name}":                               {admin, "target.update"},
		"DELETE /v1/targets/{name}":                            {admin, "target.delete"},
		"GET /v1/targets/{name}/status":                        {viewer, "target.read"},
		"GET /v1/environments":                                 {viewer, "environment.list"},
		"GET /v1/environments/{id}":                            {viewer, "environment.read"},
		"DELETE /v1/environments/{id}":                         {deployer, "environment.delete"},
		"GET /v1/environments/{id}/log":                        {viewer, "environment.logs"},
		"GET /v1/accesses":                                     {admin, "access.list"},
		"POST /v1/accesses":                                    {admin, "access.create"},
		"POST /v1/accesses/{name}/revoke":                      {admin, "access.revoke"},
		"DELETE /v1/accesses/{name}":                           {admin, "access.delete"},
		"GET /v1/secrets":                                      {viewer, "secret.list"},
		"PUT /v1/secrets/{name}":                               {deployer, "secret.set"},
		"DELETE /v1/secrets/{name}":                            {deployer, "secret.delete"},
		"GET /v1/audit":                                        {deployer, "audit.read"},
	}
}

// authorize refuses what the caller's role does not allow, before the call's body is read.
func (s *server) authorize(mux *http.ServeMux, next http.Handler) http.Handler {
	table := permits()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		p, listed := table[pattern]
		switch {
		case pattern == "/": // that there is no such call may be told to everybody who is known
			p.need = zarpa.RoleViewer
		case !listed: // a call that was forgotten is not open
			p = permit{zarpa.RoleAdmin, pattern}
		}
		c := callerOf(r.Context())
		if p.need == "" || c.role.Allows(p.need) {
			next.ServeHTTP(w, r)
			return
		}
		err := zarpa.Errorf(zarpa.Denied, "%s needs the role %s, and %q has %s", p.action, p.need, c.name, orNone(c.role)).
			WithHint("ask an admin for a token with that role: zarpa access create NAME --role %s; the roles of an issuer's tokens are given by --oidc-roles", p.need)
		s.refused(r.Context(), p.action, objectOf(pattern, r.URL.Path), err)
		httpx.WriteError(w, r, httpx.API, err)
	})
}

func orNone(r zarpa.Role) zarpa.Role { return cmp.Or(r, "none") }

// objectOf is what a call is about: the part of its path that its pattern names.
func objectOf(pattern, path string) string {
	_, pattern, _ = strings.Cut(pattern, " ")
	parts := strings.Split(path, "/")
	for i, p := range strings.Split(pattern, "/") {
		if strings.HasPrefix(p, "{") && i < len(parts) {
			return clip(parts[i])
		}
	}
	return clip(path)
}

// clip bounds what comes from outside and is kept.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
