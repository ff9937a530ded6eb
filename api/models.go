package api

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/modelfile"
)

const (
	maxTags        = 100  // tags or properties of one model
	maxTag         = 1024 // bytes of one key or value
	maxDescription = 64 << 10
)

func (s *server) model(ctx context.Context, ref string) (zarpa.Model, error) {
	parsed, err := zarpa.ParseModelRef(ref)
	if err != nil {
		return zarpa.Model{}, err
	}
	return s.Store.Nouns().Models.Get(ctx, parsed)
}

// ListModels lists all models, or the versions of one.
func (s *server) ListModels(ctx context.Context, req ListModelsRequestObject) (ListModelsResponseObject, error) {
	name := ""
	if req.Params.Name != nil {
		name = *req.Params.Name
	}
	list, err := s.Store.Nouns().Models.List(ctx, name)
	if err != nil {
		return nil, err
	}
	return ListModels200JSONResponse(notNil(list)), nil
}

// RegisterModel makes stored content the next version of a name.
func (s *server) RegisterModel(ctx context.Context, req RegisterModelRequestObject) (RegisterModelResponseObject, error) {
	reg := *req.Body
	if err := validateRegistration(reg); err != nil {
		return nil, err
	}
	content, err := bundle.ReadContent(ctx, s.Blobs, reg.Digest)
	if err != nil {
		return nil, err
	}
	info, err := modelfile.Inspect(bundle.ContentFS(ctx, s.Blobs, content))
	if err != nil && reg.Format == zarpa.FormatFiles && zarpa.AsError(err).Code == zarpa.Invalid {
		info, err = modelfile.Info{Format: zarpa.FormatFiles}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.allow("model "+reg.Name, info.Format); err != nil {
		return nil, err
	}
	m := zarpa.Model{
		Name: reg.Name, Format: info.Format, Framework: info.Framework, FrameworkVersion: info.FrameworkVersion,
		Content: content, Folder: reg.Folder, Created: s.Now().UTC(),
		Tags: reg.Tags, Properties: reg.Properties, Description: reg.Description, Signature: info.Signature,
	}
	err = s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		created, err := n.Models.Create(ctx, m)
		if err != nil {
			return err
		}
		m = created
		return AuditModel(ctx, n, "model.register", m)
	})
	if err != nil {
		return nil, err
	}
	return RegisterModel201JSONResponse(m), nil
}

// AuditModel appends a new model version to the audit log.
func AuditModel(ctx context.Context, n zarpa.Nouns, action string, m zarpa.Model) error {
	changes := []zarpa.Change{{Field: "digest", To: m.Content.Digest}}
	if from := m.Properties["converted_from"]; from != "" {
		changes = append(changes, zarpa.Change{Field: "converted_from", To: from})
	}
	return Audit(ctx, n, zarpa.AuditEntry{At: m.Created, Action: action, Object: m.Ref().String(), Changes: changes})
}

// allow refuses a format that runs code, where the server does. It is asked wherever a model is to be
// loaded, not only where it is registered: the server may have taken the model before it refused such.
func (s *server) allow(what, format string) error {
	if !s.Server.NoPickle || !zarpa.RunsCode(format) {
		return nil
	}
	return zarpa.Errorf(zarpa.Denied, "%s: models of the format %s can run code of their author when they are loaded, and this server refuses them", what, format).
		WithHint("export the model to ONNX where its files are trusted, or run the server without --no-pickle")
}

func validateRegistration(reg zarpa.Registration) error {
	if err := zarpa.ValidateName("model", reg.Name); err != nil {
		return err
	}
	if err := validateTags("tags", reg.Tags); err != nil {
		return err
	}
	if reg.Folder != "" && (zarpa.ValidatePath(reg.Folder) != nil || strings.Contains(reg.Folder, "/")) {
		return zarpa.Errorf(zarpa.Invalid, "folder: %.80q is not the name of a folder", reg.Folder)
	}
	if reg.Format != "" && reg.Format != zarpa.FormatFiles {
		return zarpa.Errorf(zarpa.Invalid, "format: %.40q cannot be asked for", reg.Format).WithHint("leave it empty, or use files for what only a scoring script reads")
	}
	if len(reg.Description) > maxDescription {
		return zarpa.Errorf(zarpa.TooLarge, "description: %d bytes, %d allowed", len(reg.Description), maxDescription)
	}
	return validateTags("properties", reg.Properties)
}

func validateTags(field string, tags map[string]string) error {
	if len(tags) > maxTags {
		return zarpa.Errorf(zarpa.Invalid, "%s: %d of them, %d allowed", field, len(tags), maxTags)
	}
	for k, v := range tags {
		switch {
		case k == "":
			return zarpa.Errorf(zarpa.Invalid, "%s: an empty name", field).WithHint("write key=value")
		case len(k) > maxTag || len(v) > maxTag:
			return zarpa.Errorf(zarpa.Invalid, "%s: %.40q is longer than %d bytes", field, k, maxTag)
		}
	}
	return nil
}

// GetModel shows one version.
func (s *server) GetModel(ctx context.Context, req GetModelRequestObject) (GetModelResponseObject, error) {
	m, err := s.model(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	return GetModel200JSONResponse(m), nil
}

// UpdateModel changes tags and description.
func (s *server) UpdateModel(ctx context.Context, req UpdateModelRequestObject) (UpdateModelResponseObject, error) {
	ref, err := zarpa.ParseModelRef(req.Ref)
	if err != nil {
		return nil, err
	}
	var m zarpa.Model
	err = s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		var err error
		if m, err = n.Models.Get(ctx, ref); err != nil {
			return err
		}
		tags := maps.Clone(m.Tags)
		if tags == nil {
			tags = map[string]string{}
		}
		before := modelText(m)
		maps.Copy(tags, req.Body.SetTags)
		for _, k := range req.Body.RemoveTags {
			delete(tags, k)
		}
		if err := validateTags("tags", tags); err != nil {
			return err
		}
		m.Tags = tags
		if req.Body.Description != nil {
			m.Description = *req.Body.Description
		}
		if err := n.Models.Update(ctx, m); err != nil {
			return err
		}
		return s.audit(ctx, n, "model.update", m.Ref().String(), changed(before, modelText(m))...)
	})
	if err != nil {
		return nil, err
	}
	return UpdateModel200JSONResponse(m), nil
}

// modelText is what an update can change, as paths and texts.
func modelText(m zarpa.Model) map[string]string {
	text := map[string]string{"description": m.Description}
	for k, v := range m.Tags {
		text["tags."+k] = v
	}
	return text
}

// DeleteModel removes a version that no endpoint uses. Its content goes with the next sweep.
func (s *server) DeleteModel(ctx context.Context, req DeleteModelRequestObject) (DeleteModelResponseObject, error) {
	ref, err := zarpa.ParseModelRef(req.Ref)
	if err != nil {
		return nil, err
	}
	if ref.Version == 0 {
		return nil, zarpa.Errorf(zarpa.Invalid, "model %q: which version?", ref.Name).
			WithHint("write NAME:VERSION; zarpa model list shows the versions")
	}
	err = s.Store.Atomically(ctx, func(n zarpa.Nouns) error {
		endpoints, err := n.Endpoints.List(ctx)
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			for _, d := range e.Spec.Deployments {
				if slices.Contains(d.AllModels(), ref.String()) {
					return zarpa.Errorf(zarpa.Conflict, "model %s is deployed: endpoint %q, deployment %q", ref, e.Name, d.Name).
						WithHint("deploy another version there, or delete the endpoint, first")
				}
			}
		}
		m, err := n.Models.Get(ctx, ref)
		if err != nil {
			return err
		}
		if err := n.Models.Delete(ctx, ref); err != nil {
			return err
		}
		return s.audit(ctx, n, "model.delete", ref.String(), zarpa.Change{Field: "digest", From: m.Content.Digest})
	})
	if err != nil {
		return nil, err
	}
	return DeleteModel204Response{}, nil
}

// notNil makes an empty list out of none, so that JSON has [] and not null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
