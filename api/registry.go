package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// guardRegistry lets the calls of a container registry through that the control API's tokens and roles allow: a
// viewer pulls, a deployer pushes, an admin deletes. Clients of registries send the token as the password of
// any user (docker login), or as a bearer token. Failures have the form that such clients show.
func (s *server) guardRegistry(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.identifyBy(r, registryToken(r))
		if err == nil && !c.role.Allows(registryNeeds(r)) {
			err = zarpa.Errorf(zarpa.Denied, "%s needs the role %s, and %q has %s", r.Method, registryNeeds(r), c.name, orNone(c.role))
			s.refused(context.WithValue(r.Context(), callerKey{}, c), "image."+strings.ToLower(r.Method), imageObject+clip(strings.TrimPrefix(r.URL.Path, "/v2/")), err)
		}
		if err != nil {
			refuseRegistry(w, zarpa.AsError(err))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// RegistryChanged returns the function that a registry behind the control API tells of what was pushed and
// deleted: it is in the audit log, right after it happened.
func RegistryChanged(store zarpa.Store, warn func(msg string, args ...any)) func(ctx context.Context, action, object string) {
	return func(ctx context.Context, action, object string) {
		err := Audit(context.WithoutCancel(ctx), store.Nouns(), zarpa.AuditEntry{Action: action, Object: imageObject + object})
		if err != nil {
			warn("a change of the registry is not in the audit log", "action", action, "object", object, "error", err)
		}
	}
}

// registryToken is the password of basic credentials, or a bearer token.
func registryToken(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	return bearerOf(r)
}

// registryNeeds is the role that a call of a registry needs. Giving an upload up is part of pushing.
func registryNeeds(r *http.Request) zarpa.Role {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return zarpa.RoleViewer
	case http.MethodDelete:
		if !namesUpload(r.URL.Path) {
			return zarpa.RoleAdmin
		}
	}
	return zarpa.RoleDeployer
}

// namesUpload reports whether a path is that of an upload, by its end: /blobs/uploads/ may stand before it, in the
// name of a repository.
func namesUpload(path string) bool {
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	n := len(parts)
	return n >= 3 && parts[n-3] == "blobs" && parts[n-2] == "uploads"
}

// noRegistry tells clients of registries, which ask for no token there, that there is none.
func noRegistry(w http.ResponseWriter, _ *http.Request) {
	refuseRegistry(w, zarpa.Errorf(zarpa.NotFound, "this server has no registry"))
}

func refuseRegistry(w http.ResponseWriter, e *zarpa.Error) {
	var code string
	switch e.Code {
	case zarpa.NotFound:
		code = "UNSUPPORTED"
	case zarpa.Unauthenticated:
		code = "UNAUTHORIZED"
		w.Header().Set("WWW-Authenticate", `Basic realm="zarpa"`)
	case zarpa.Denied:
		code = "DENIED"
	default:
		code = "UNKNOWN"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.WriteHeader(e.Code.HTTPStatus())
	body := map[string]any{"errors": []any{map[string]string{"code": code, "message": e.Message}}}
	_ = json.NewEncoder(w).Encode(body) // the client left
}
