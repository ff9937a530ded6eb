package api

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// diff lists the differences between an endpoint before and after, in effective settings: a
// default that is written out is no change.
func diff(p planned) []zarpa.Change {
	before := map[string]string{}
	if p.was != nil {
		before = flatten(p.was.Spec)
	}
	changes := changed(before, flatten(p.next.Spec))
	if p.was == nil && len(changes) == 0 {
		changes = append(changes, zarpa.Change{Field: "endpoint", To: p.next.Name})
	}
	return changes
}

// changed lists the differences between two sets of paths and texts, by path.
func changed(before, after map[string]string) []zarpa.Change {
	fields := maps.Clone(before)
	maps.Copy(fields, after)
	changes := []zarpa.Change{}
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		if b, a := before[f], after[f]; b != a {
			changes = append(changes, zarpa.Change{Field: f, From: b, To: a})
		}
	}
	return changes
}

// flatten turns a spec into paths and texts: "deployments.blue.replicas" → "2".
func flatten(spec zarpa.EndpointSpec) map[string]string {
	out := map[string]string{}
	spec = spec.WithDefaults()
	deployments := spec.Deployments
	spec.Deployments = nil
	flattenInto(out, "", spec)
	delete(out, "deployments")
	for _, d := range deployments {
		flattenInto(out, "deployments."+d.Name+".", d)
	}
	return out
}

// flattenInto adds the fields of a plain value, as its JSON names them.
func flattenInto(out map[string]string, prefix string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		return // specs hold plain values only
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil {
		return
	}
	for name, raw := range fields {
		var list []string
		if json.Unmarshal(raw, &list) == nil && list != nil {
			out[prefix+name] = strings.Join(list, ", ")
			continue
		}
		var nested map[string]json.RawMessage
		if json.Unmarshal(raw, &nested) == nil && nested != nil {
			flattenInto(out, prefix+name+".", nested)
			continue
		}
		out[prefix+name] = strings.Trim(string(raw), `"`)
	}
}
