package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// promised is one endpoint as the API has acknowledged it. One goroutine at a time uses it.
type promised struct {
	caller
	churn      bool // it comes, changes and goes
	exists     bool
	generation int64
	spec       zarpa.EndpointSpec
	keys       zarpa.KeyPair
	knowsKeys  bool
	retired    string // a key that was replaced, and must not open the endpoint any more

	// What was asked without an answer; nil for none.
	maybeSpec   *zarpa.EndpointSpec
	maybeDelete bool
	maybeKey    string // "primary" or "secondary"
}

// resolve compares a promise with what is. Where an answer was lost, the truth is taken over.
func (p *promised) resolve(ctx context.Context, api *client.Client) error {
	report, err := api.GetEndpoint(ctx, p.endpoint)
	switch {
	case errors.Is(err, zarpa.ErrNotFound):
		if p.exists && !p.maybeDelete {
			return fatal{fmt.Errorf("endpoint %s: acknowledged at generation %d, and lost", p.endpoint, p.generation)}
		}
		p.exists, p.knowsKeys, p.retired = false, false, ""
	case err != nil:
		return err
	case report.Endpoint.Deleting:
		if !p.maybeDelete && p.exists {
			return fatal{fmt.Errorf("endpoint %s is being deleted, and nobody asked for it", p.endpoint)}
		}
		return fmt.Errorf("endpoint %s is still being deleted", p.endpoint)
	default:
		if err := p.match(report.Endpoint); err != nil {
			return fatal{err}
		}
		if err := p.matchKeys(ctx, api); err != nil {
			return err
		}
	}
	p.maybeSpec, p.maybeDelete, p.maybeKey = nil, false, ""
	return nil
}

// match holds what the server stores against what it acknowledged.
func (p *promised) match(e zarpa.Endpoint) error {
	have := specText(e.Spec)
	switch {
	case p.exists && e.Generation == p.generation && have == specText(p.spec):
	case p.maybeSpec != nil && have == specText(*p.maybeSpec) &&
		(p.exists && e.Generation == p.generation+1 || !p.exists && e.Generation == 1):
		p.exists, p.generation, p.spec = true, e.Generation, e.Spec
	default:
		return fmt.Errorf("endpoint %s: generation %d, spec %s; acknowledged (%t): generation %d, spec %s",
			p.endpoint, e.Generation, have, p.exists, p.generation, specText(p.spec))
	}
	return nil
}

// matchKeys does the same with keys.
func (p *promised) matchKeys(ctx context.Context, api *client.Client) error {
	have, err := api.Keys(ctx, p.endpoint)
	if err != nil {
		return err
	}
	if !p.knowsKeys {
		p.keys, p.knowsKeys = have, true
	}
	switch {
	case have == p.keys:
	case p.maybeKey == "primary" && have.Secondary == p.keys.Secondary:
		p.retired, p.keys = p.keys.Primary, have
	case p.maybeKey == "secondary" && have.Primary == p.keys.Primary:
		p.retired, p.keys = p.keys.Secondary, have
	default:
		return fatal{fmt.Errorf("endpoint %s: its keys are not those that were acknowledged", p.endpoint)}
	}
	return nil
}

func specText(s zarpa.EndpointSpec) string {
	b, err := json.Marshal(s.WithDefaults())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// library is the registered models as the API has acknowledged them.
type library struct {
	mu      sync.Mutex
	models  map[string]zarpa.Model // by NAME:VERSION
	deleted map[string]bool
	// What was asked without an answer: deletions and tags by NAME:VERSION, and registrations.
	maybeDeleted map[string]bool
	maybeTag     map[string]string
	maybeNew     int
	fresh        []string // since the last look
}

func newLibrary() *library {
	return &library{
		models: map[string]zarpa.Model{}, deleted: map[string]bool{},
		maybeDeleted: map[string]bool{}, maybeTag: map[string]string{},
	}
}

func (l *library) add(m zarpa.Model) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.models[m.Ref().String()] = m
	l.fresh = append(l.fresh, m.Ref().String())
}

// refs are the models that are known to be registered, in order.
func (l *library) refs(name string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for ref, m := range l.models {
		if m.Name == name {
			out = append(out, ref)
		}
	}
	slices.Sort(out)
	return out
}

// resolve compares all models with the server's list; known holds the digests that can be. It
// returns those that are to be downloaded: new ones, and any that turned up without an answer.
func (l *library) resolve(ctx context.Context, api *client.Client, known map[string]string) ([]string, error) {
	list, err := api.ListModels(ctx, "")
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	have := map[string]zarpa.Model{}
	surprises := 0
	for _, m := range list {
		ref := m.Ref().String()
		have[ref] = m
		if _, ok := known[m.Content.Digest]; !ok || l.deleted[ref] {
			return nil, fatal{fmt.Errorf("model %s: digest %s, deleted: %t", ref, m.Content.Digest, l.deleted[ref])}
		}
		if _, ok := l.models[ref]; !ok {
			surprises++
			l.fresh = append(l.fresh, ref)
		}
	}
	if surprises > l.maybeNew {
		return nil, fatal{fmt.Errorf("%d models that nobody registered, at most %d were expected", surprises, l.maybeNew)}
	}
	for ref, m := range l.models {
		if err := l.held(ref, m, have); err != nil {
			return nil, fatal{err}
		}
	}
	l.models, l.maybeNew = have, 0
	clear(l.maybeDeleted)
	clear(l.maybeTag)
	fresh := l.fresh
	l.fresh = nil
	return fresh, nil
}

// held holds one acknowledged model against what the server has. It needs mu.
func (l *library) held(ref string, m zarpa.Model, have map[string]zarpa.Model) error {
	now, ok := have[ref]
	if !ok {
		if !l.maybeDeleted[ref] {
			return fmt.Errorf("model %s: acknowledged, and lost", ref)
		}
		l.deleted[ref] = true
		return nil
	}
	if now.Content.Digest != m.Content.Digest {
		return fmt.Errorf("model %s: digest %s, acknowledged with %s", ref, now.Content.Digest, m.Content.Digest)
	}
	if now.Tags["round"] != m.Tags["round"] && (l.maybeTag[ref] == "" || now.Tags["round"] != l.maybeTag[ref]) {
		return fmt.Errorf("model %s: tag %q, acknowledged with %q", ref, now.Tags["round"], m.Tags["round"])
	}
	return nil
}
