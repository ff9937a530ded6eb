package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// endings are those of model files, longer ones first.
var endings = []string{
	".onnx", ".pkl", ".pickle", ".joblib", ".json", ".ubj", ".xgb", ".bst", ".txt", ".lgb", ".pt2", ".pt", ".pth", ".ts", ".keras", ".h5", ".hdf5",
}

// isFile tells a path from the name of a registered model: a path has a slash or ends as models
// do, so that a file in the working directory never takes a model's place.
func isFile(model string) bool {
	return strings.ContainsAny(model, `/\`) || withoutEnding(model) != model
}

// withoutEnding is a file's name without the ending of a model file.
func withoutEnding(name string) string {
	for _, ending := range endings {
		if short, ok := strings.CutSuffix(name, ending); ok && short != "" {
			return short
		}
	}
	return name
}

// modelFiles are the models of a deployment, some of which may be files. format is that of a
// registration.
type modelFiles struct {
	endpoint, format string
	models           []string
}

// registerFiles registers those of a deployment's models that are files, the first under the
// endpoint's name, and puts their names in their places.
func (c *cli) registerFiles(ctx context.Context, api *client.Client, f modelFiles) error {
	endpoint, models := f.endpoint, f.models
	names, seen := make([]string, len(models)), map[string]bool{}
	for i, model := range models {
		var err error
		if names[i], err = modelName(endpoint, i, model); err != nil {
			return err
		}
		if seen[names[i]] {
			return zarpa.Errorf(zarpa.Invalid, "--model: two of them are called %q", names[i]).
				WithHint("register one under another name: zarpa model register NAME PATH")
		}
		seen[names[i]] = true
	}
	for i, model := range models {
		if !isFile(model) {
			continue
		}
		m, err := c.registerOnce(ctx, api, zarpa.Registration{Name: names[i], Format: f.format}, model)
		if err != nil {
			return err
		}
		models[i] = m.Ref().String()
	}
	return nil
}

// modelName is the name of a deployment's i-th model.
func modelName(endpoint string, i int, model string) (string, error) {
	switch {
	case !isFile(model):
		name, _, _ := strings.Cut(model, ":")
		return name, nil
	case i == 0:
		return endpoint, nil
	}
	return fileModel(model)
}

// fileModel is the model's name of a file or folder that is not an endpoint's first model.
func fileModel(path string) (string, error) {
	name := withoutEnding(filepath.Base(path))
	if err := zarpa.ValidateName("model", name); err != nil {
		return "", zarpa.Errorf(zarpa.Invalid, "%s: its name does not do for a model: %w", path, err).
			WithHint("register it under another name first: zarpa model register NAME %s", path)
	}
	return name, nil
}

// registerOnce registers a file, unless the newest version of the name has the same content.
func (c *cli) registerOnce(ctx context.Context, api *client.Client, reg zarpa.Registration, path string) (zarpa.Model, error) {
	m, err := c.wouldRegister(ctx, api, reg, path)
	if err != nil || !m.Created.IsZero() {
		return m, err
	}
	reg.Digest, reg.Folder = m.Content.Digest, folderName(path)
	if m, err = api.RegisterModel(ctx, reg); err == nil {
		c.warnPickle(m)
	}
	return m, err
}

// wouldRegister uploads a file and returns the newest version of the name when it has the same
// content, else the version, not created yet, that registering it would make. Content that is
// not registered is swept after a day.
func (c *cli) wouldRegister(ctx context.Context, api *client.Client, reg zarpa.Registration, path string) (zarpa.Model, error) {
	content, err := c.upload(ctx, api, path)
	if err != nil {
		return zarpa.Model{}, err
	}
	newest, err := api.GetModel(ctx, reg.Name)
	switch {
	case err == nil && newest.Content.Digest == content.Digest && newest.Folder == folderName(path):
		return newest, nil
	case err != nil && !errors.Is(err, zarpa.ErrNotFound):
		return zarpa.Model{}, err
	}
	return zarpa.Model{Name: reg.Name, Version: newest.Version + 1, Content: content}, nil
}
