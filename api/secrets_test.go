package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
)

const hidden = "hunter2\x00\n"

// setSecret sends a secret's value.
func (s *server) setSecret(t *testing.T, name, value string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.http.URL+"/v1/secrets/"+name, strings.NewReader(value))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	req.Header.Set("Content-Type", "application/octet-stream")
	return send(t, s, req)
}

func TestSecretsGoInAndNeverComeOut(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, c := range []struct {
		name, value string
		code        int
		want        string
	}{
		{"db", hidden, 200, `"name":"db"`},
		{"db", hidden + "2", 200, `"name":"db"`},
		{"1db", hidden, 400, "does not start with a letter"},
		{"a%2Fb", hidden, 400, "is not allowed"},
		{"empty", "", 400, "the value is empty"},
		{"big", strings.Repeat("hunter2", zarpa.MaxSecret/7+1), 413, "more than 65536 bytes"},
		{"most", strings.Repeat("x", zarpa.MaxSecret), 200, `"name":"most"`},
	} {
		if code, answer := s.setSecret(t, c.name, c.value); code != c.code || !strings.Contains(answer, c.want) || strings.Contains(answer, "hunter2") {
			t.Errorf("%s: %d %s, want %d %s", c.name, code, answer, c.code, c.want)
		}
	}
	values, err := api.SecretValues(s.store, s.box)(t.Context(), []string{"db", "most"})
	if err != nil || string(values["db"]) != hidden+"2" || len(values["most"]) != zarpa.MaxSecret {
		t.Fatalf("%d values, %v", len(values), err)
	}
	if _, err := api.SecretValues(s.store, s.box)(t.Context(), []string{"db", "rose"}); zarpa.AsError(err).Code != zarpa.NotFound {
		t.Errorf("a secret that is not there: %v", err)
	}
	stored, err := s.store.Nouns().Secrets.Get(t.Context(), "db")
	if err != nil || strings.Contains(string(stored.Sealed), "hunter2") {
		t.Errorf("the store has it in the clear: %v", err)
	}
	for path, want := range map[string]string{"/v1/secrets": `"name":"db"`, "/v1/audit?object=secret/db": `"action":"secret.set"`} {
		if code, answer := s.ask(t, "GET", path, nil); code != 200 || !strings.Contains(answer, want) || strings.Contains(answer, "hunter2") {
			t.Errorf("%s: %d %s", path, code, answer)
		}
	}
	if code, answer := s.ask(t, "GET", "/v1/secrets/db", nil); code != 405 && code != 404 || strings.Contains(answer, "hunter2") {
		t.Errorf("reading one: %d %s", code, answer)
	}
}

// TestASealedValueIsOfItsSecretAlone moves a sealed value to another name.
func TestASealedValueIsOfItsSecretAlone(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.setSecret(t, "db", hidden)
	stored, err := s.store.Nouns().Secrets.Get(t.Context(), "db")
	if err != nil {
		t.Fatal(err)
	}
	stored.Name = "mine"
	if err := s.store.Nouns().Secrets.Put(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	_, err = api.SecretValues(s.store, s.box)(t.Context(), []string{"mine"})
	if e := zarpa.AsError(err); e == nil || e.Code != zarpa.Internal || !strings.Contains(e.Hint, "set the secret anew") {
		t.Errorf("%v", err)
	}
}

func TestSecretsOfDeployments(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.register(t, "iris")
	const with = `{"deployments": [{"name": "blue", "model": "iris", "secrets": ["db"]}]}`
	if code, answer := s.ask(t, "PUT", "/v1/endpoints/iris", with); code != 400 || !strings.Contains(answer, `secrets: \"db\" does not exist`) || !strings.Contains(answer, "zarpa secret set db") {
		t.Fatalf("%d %s", code, answer)
	}
	s.setSecret(t, "db", hidden)
	if code, answer := s.ask(t, "PUT", "/v1/endpoints/iris", with); code != 200 || !strings.Contains(answer, `"field":"deployments.blue.secrets","to":"db"`) {
		t.Fatalf("%d %s", code, answer)
	}
	if code, answer := s.ask(t, "DELETE", "/v1/secrets/db", nil); code != 409 || !strings.Contains(answer, "deployment iris/blue has it") {
		t.Fatalf("%d %s", code, answer)
	}
	if code, answer := s.ask(t, "PUT", "/v1/endpoints/iris?interrupt=true", `{"deployments": [{"name": "blue", "model": "iris"}]}`); code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	if code, answer := s.ask(t, "DELETE", "/v1/secrets/db", nil); code != 204 {
		t.Fatalf("%d %s", code, answer)
	}
	if code, answer := s.ask(t, "DELETE", "/v1/secrets/db", nil); code != 404 {
		t.Fatalf("%d %s", code, answer)
	}
	if code, answer := s.ask(t, "POST", "/v1/endpoints/iris/undo", nil); code != 400 || !strings.Contains(answer, "does not exist") {
		t.Fatalf("undo to a secret that is gone: %d %s", code, answer)
	}
}
