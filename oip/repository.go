package oip

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// extensionLoad is what Target.Extensions names to have models unloaded and loaded.
const extensionLoad = "load"

func repositoryChecks() []check {
	of := func(id, says string) Check {
		return Check{ID: id, Group: Extensions, Level: Extension, Says: says, Section: "extension: model repository"}
	}
	grpcIndex := of("repository.grpc-index", "RepositoryIndex lists what REST lists")
	load := of("repository.load", "unload makes a model not ready, load makes it ready again")
	load.PerModel = true
	return []check{
		{Check: of("repository.index", "POST /v2/repository/index without body or length, as clients send it, lists models with name, and state where there is one"), ask: indexOf(bare, "")},
		{Check: of("repository.index-empty", "the same with an empty JSON object"), ask: indexOf(sized, "{}")},
		{Check: of("repository.index-ready", `{"ready": true} lists the models that are ready alone`), ask: indexReady},
		{Check: grpcIndex, needs: needGRPC, ask: repositoryGRPC},
		{Check: load, needs: needModel, ask: repositoryLoad},
	}
}

type indexed struct {
	Name    *string
	Version json.RawMessage
	State   string
}

// index asks for the repository index; a server without one is a skip.
func (r *run) index(ctx context.Context, q request) ([]indexed, error) {
	q.method, q.path = http.MethodPost, "/v2/repository/index"
	a, err := r.wire.do(ctx, q)
	if err != nil {
		return nil, err
	}
	if !r.offers("model_repository") && isStatus(a) {
		return nil, skip("the server does not offer model_repository: %s", a.said())
	}
	var list []indexed
	if err := json.Unmarshal(a.body, &list); err != nil || a.status != http.StatusOK {
		return nil, differs("200 with a list", "%s", a.said())
	}
	for _, m := range list {
		if m.Name == nil {
			return nil, differs("a name for each model", "%s", a.said())
		}
	}
	return list, nil
}

func indexOf(f framing, body string) func(context.Context, *probe) (string, error) {
	return func(ctx context.Context, p *probe) (string, error) {
		q := request{framing: f}
		if body != "" {
			q.body, q.header = []byte(body), jsonType()
		}
		list, err := p.run.index(ctx, q)
		if err != nil {
			return "", err
		}
		return strings.Join(indexedNames(list), ", "), nil
	}
}

func indexedNames(list []indexed) []string {
	var names []string
	for _, m := range list {
		names = append(names, *m.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func indexReady(ctx context.Context, p *probe) (string, error) {
	list, err := p.run.index(ctx, request{body: []byte(`{"ready": true}`), header: jsonType()})
	if err != nil {
		return "", err
	}
	for _, m := range list {
		if m.State != "" && m.State != "READY" {
			return "", differs("models that are READY", "%s is %s", *m.Name, m.State)
		}
	}
	return strings.Join(indexedNames(list), ", "), nil
}

func repositoryGRPC(ctx context.Context, p *probe) (string, error) {
	list, err := p.run.index(ctx, request{framing: bare})
	if err != nil {
		return "", err
	}
	ctx, cancel := p.run.rpc.limit(ctx)
	defer cancel()
	r, err := p.run.rpc.client.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})
	if code(err) == codes.Unimplemented && !p.run.offers("model_repository") {
		return "", skip("the server does not offer RepositoryIndex")
	}
	if err != nil {
		return "", differs("OK", "%s", failed(err))
	}
	var names []string
	for _, m := range r.GetModels() {
		names = append(names, m.GetName())
	}
	slices.Sort(names)
	return want("the models of REST:", strings.Join(indexedNames(list), ", "), strings.Join(slices.Compact(names), ", "))
}

func repositoryLoad(ctx context.Context, p *probe) (string, error) {
	if !slices.Contains(p.run.target.Extensions, extensionLoad) {
		return "", skip("only when load is asked for")
	}
	step := func(verb, body string) (answer, error) {
		return p.run.wire.do(ctx, request{
			method: http.MethodPost, path: "/v2/repository/models/" + escape(p.name) + "/" + verb, header: jsonType(), body: []byte(body),
		})
	}
	a, err := step("unload", `{"parameters":{"unload_dependents":false}}`)
	if err != nil {
		return "", err
	}
	if isStatus(a) {
		return "", differs("200 from unload", "%s", a.said())
	}
	ready, err := p.run.get(ctx, modelPath(p.name)+"/ready")
	if err != nil {
		return "", err
	}
	loaded, err := step("load", "{}") // whatever was seen, the model comes back
	switch {
	case err != nil:
		return "", err
	case ready.status == http.StatusOK:
		return "", differs("a model that is not ready after unload", "%s", ready.said())
	case isStatus(loaded):
		return "", differs("200 from load", "%s", loaded.said())
	}
	return modelReady(ctx, p)
}
