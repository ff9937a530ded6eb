package api_test

import (
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/zarpa-dev/zarpa"
)

func loadSpec(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDescriptionIsValid(t *testing.T) {
	t.Parallel()
	doc := loadSpec(t)
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.OperationID == "" || op.Summary == "" {
				t.Errorf("%s %s: no operationId or summary", method, path)
			}
		}
	}
}

// TestSchemasAreTheNouns holds every schema that stands for a noun against the noun itself: the
// same fields, and required exactly where the noun always writes them.
func TestSchemasAreTheNouns(t *testing.T) {
	t.Parallel()
	nouns := map[string]any{
		"Error": zarpa.Error{}, "File": zarpa.File{}, "Content": zarpa.Content{}, "Dim": zarpa.Dim{},
		"ValueInfo": zarpa.ValueInfo{}, "Signature": zarpa.Signature{}, "Model": zarpa.Model{},
		"DeploymentSpec": zarpa.DeploymentSpec{}, "EndpointSpec": zarpa.EndpointSpec{}, "Endpoint": zarpa.Endpoint{},
		"Exit": zarpa.Exit{}, "Replica": zarpa.Replica{}, "DeploymentStatus": zarpa.DeploymentStatus{}, "Handle": zarpa.Handle{},
		"Observed": zarpa.Observed{}, "Phase": zarpa.Phase{}, "Operation": zarpa.Operation{}, "Target": zarpa.Target{},
		"TargetSpec": zarpa.TargetSpec{}, "TargetInfo": zarpa.TargetInfo{}, "CapacityReport": zarpa.CapacityReport{}, "TargetStatus": zarpa.TargetStatus{},
		"EndpointReport": zarpa.EndpointReport{}, "URLs": zarpa.URLs{}, "KeyPair": zarpa.KeyPair{},
		"Registration": zarpa.Registration{}, "ModelPatch": zarpa.ModelPatch{}, "Change": zarpa.Change{},
		"ChangeSet": zarpa.ChangeSet{}, "Server": zarpa.Server{}, "Environment": zarpa.Environment{}, "EnvironmentSpec": zarpa.EnvironmentSpec{},
		"ConversionSpec": zarpa.ConversionSpec{}, "Conversion": zarpa.Conversion{}, "ConversionEvent": zarpa.ConversionEvent{},
		"MirrorSpec": zarpa.MirrorSpec{}, "KeyLimits": zarpa.KeyLimits{}, "EjectionSpec": zarpa.EjectionSpec{},
		"ScaleSpec": zarpa.ScaleSpec{}, "ScaleSchedule": zarpa.ScaleSchedule{}, "Scaling": zarpa.Scaling{},
		"ScaleDecision": zarpa.ScaleDecision{}, "ScaleInputs": zarpa.ScaleInputs{}, "ColdStart": zarpa.ColdStart{},
		"RolloutSpec": zarpa.RolloutSpec{}, "Rollout": zarpa.Rollout{}, "RolloutSample": zarpa.RolloutSample{},
		"Judgement": zarpa.Judgement{}, "Gate": zarpa.Gate{}, "Access": zarpa.Access{}, "Secret": zarpa.Secret{}, "AuditEntry": zarpa.AuditEntry{},
		"AccessSpec": zarpa.AccessSpec{}, "AccessGrant": zarpa.AccessGrant{}, "TokenSpec": zarpa.TokenSpec{}, "KeySpec": zarpa.KeySpec{},
		"SigningKey": zarpa.SigningKey{}, "ScoringToken": zarpa.ScoringToken{}, "Load": zarpa.Load{}, "DeploymentLoad": zarpa.DeploymentLoad{},
	}
	for name, ref := range loadSpec(t).Components.Schemas {
		goType, _ := ref.Value.Extensions["x-go-type"].(string)
		if goType == "" {
			continue
		}
		noun, ok := nouns[strings.TrimPrefix(goType, "zarpa.")]
		if !ok {
			t.Errorf("schema %s: the test does not know %s", name, goType)
			continue
		}
		fields, required := jsonFields(reflect.TypeOf(noun))
		var have []string
		for field := range ref.Value.Properties {
			have = append(have, field)
		}
		sort.Strings(have)
		if !slices.Equal(have, fields) {
			t.Errorf("schema %s has %v, the noun %v", name, have, fields)
		}
		want := slices.Sorted(slices.Values(ref.Value.Required))
		if !slices.Equal(want, required) {
			t.Errorf("schema %s requires %v, the noun always writes %v", name, want, required)
		}
	}
}

// jsonFields are the names that encoding/json gives a struct's fields, and those always written.
func jsonFields(t reflect.Type) (all, always []string) {
	for field := range t.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		all = append(all, name)
		if !strings.Contains(options, "omit") {
			always = append(always, name)
		}
	}
	sort.Strings(all)
	sort.Strings(always)
	return all, always
}
