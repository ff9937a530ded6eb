package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/environment"
	"github.com/zarpa-dev/zarpa/internal/endpointfile"
	"github.com/zarpa-dev/zarpa/modelfile"
	"github.com/zarpa-dev/zarpa/target"
	"github.com/zarpa-dev/zarpa/target/process"
)

// source is what a package is made from.
type source struct {
	digest        string // the bundle's
	name, version string
	main          string   // the model that answers /score
	args          []string // of zarpa-score
	env           map[string]string
}

// open makes the place that the package's content is in, and finds the environments of this machine.
func (p *packaging) open(ctx context.Context) (err error) {
	data, err := p.c.dataDir()
	if err != nil {
		return err
	}
	log, err := p.c.logger("warn")
	if err != nil {
		return err
	}
	p.plane.data, p.plane.log, p.plane.builds = data, log, make(chan struct{}, maxBuilds)
	if p.plane.blobs, err = dir.Open(ctx, filepath.Join(p.temp, "blobs")); err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return dataError(data, err)
	}
	p.plane.environments, err = environment.Open(ctx, environment.Options{
		Dir: filepath.Join(data, "environments"), Path: filepath.SplitList(p.c.getenv("PATH")), Env: os.Environ(), Log: log,
	})
	return err
}

// put stores a file or folder in the package's own place.
func (p *packaging) put(ctx context.Context, path string) (zarpa.Content, error) {
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() { // ends when the content is stored: then r is closed
		err := bundle.TarFiles(ctx, w, path)
		w.CloseWithError(err)
		packed <- err
	}()
	content, err := bundle.WriteContent(ctx, p.plane.blobs, r, bundle.Limits{})
	_ = r.Close() // ends the packing; never fails
	if packErr := <-packed; packErr != nil && !errors.Is(packErr, io.ErrClosedPipe) {
		return content, packErr
	}
	return content, err
}

// source stores all that the package is made from, and builds the environment that it needs.
func (p *packaging) source(ctx context.Context) (source, error) {
	pkg, s, err := p.wanted(ctx)
	if err != nil {
		return s, err
	}
	progress := p.c.progress()
	pkg.Environment, err = p.plane.environment(ctx, pkg, func(line string) { progress.step("environment: %s", line) })
	progress.clear()
	if err != nil {
		return s, err
	}
	s.digest, err = p.plane.bundle(ctx, pkg)
	return s, err
}

// wanted is what the arguments name.
func (p *packaging) wanted(ctx context.Context) (target.Package, source, error) {
	if p.f.file != "" {
		return p.fromFile(ctx)
	}
	var s source
	files := endpointfile.FileDeployment{DeploymentSpec: zarpa.DeploymentSpec{Code: p.f.code, Entry: p.f.entry}}
	if p.f.environment(p.given) {
		files.Environment = &endpointfile.FileEnvironment{
			EnvironmentSpec: zarpa.EnvironmentSpec{Python: p.f.python, SystemPackages: p.f.systemPackages},
			Requirements:    p.f.requirements, Conda: p.f.conda, PyProject: p.f.pyproject, Wheels: p.f.wheels,
		}
		files.DeploymentSpec.Environment = &files.Environment.EnvironmentSpec
	}
	spec := files.DeploymentSpec
	if err := sendFor(ctx, p.put, files, applied{spec: &spec}); err != nil {
		return target.Package{}, s, err
	}
	pkg := target.Package{Spec: spec}
	s.name, s.version = "script", "1"
	if p.model != "" {
		m, err := p.load(ctx, p.model, "")
		if err != nil {
			return pkg, s, err
		}
		pkg.Models = []zarpa.Model{m}
		s.name, s.version, s.main = m.Name, strconv.Itoa(m.Version), m.Name
	} else if name := filepath.Base(absolute(p.f.code)); zarpa.ValidateName("model", name) == nil {
		s.name = name
	}
	return pkg, s, nil
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// fromFile is a deployment of an endpoint file.
func (p *packaging) fromFile(ctx context.Context) (target.Package, source, error) {
	var pkg target.Package
	var s source
	files, folder, err := p.c.readEndpointFile(p.f.file)
	if err != nil {
		return pkg, s, err
	}
	if len(files) > 1 {
		return pkg, s, zarpa.Errorf(zarpa.Invalid, "--file: it describes %d endpoints", len(files)).WithHint("package them one by one, from files of their own")
	}
	file := files[0]
	i, err := p.chosen(file)
	if err != nil {
		return pkg, s, err
	}
	d, spec := file.Deployments[i], file.Spec().Deployments[i]
	at := applyOptions{dir: folder}
	if err := sendFor(ctx, p.put, d, applied{at, &spec}); err != nil {
		return pkg, s, err
	}
	names := slices.Clone(d.Models)
	for j, name := range names {
		if isFile(name) {
			names[j] = at.at(name)
		}
	}
	s.name, s.version = file.Name, "1"
	if main := d.Model; main != "" || d.File != "" {
		as := ""
		if d.File != "" {
			main, as = at.at(d.File), file.Name
		}
		m, err := p.load(ctx, main, as)
		if err != nil {
			return pkg, s, err
		}
		pkg.Models, s.main, s.version = append(pkg.Models, m), m.Name, strconv.Itoa(m.Version)
	}
	for _, name := range names {
		m, err := p.load(ctx, name, "")
		if err != nil {
			return pkg, s, err
		}
		pkg.Models = append(pkg.Models, m)
	}
	pkg.Spec = spec.WithDefaults()
	s.args, s.env = settingArgs(file, spec), spec.Env
	return pkg, s, nil
}

// chosen is the index of the deployment that is to be packaged.
func (p *packaging) chosen(file endpointfile.File) (int, error) {
	var names []string
	for i, d := range file.Deployments {
		if d.Name == p.f.deployment || p.f.deployment == "" && len(file.Deployments) == 1 {
			return i, nil
		}
		names = append(names, d.Name)
	}
	if p.f.deployment == "" {
		return 0, zarpa.Errorf(zarpa.Invalid, "--deployment: not given, and the file has %d: %s", len(names), strings.Join(names, ", ")).WithHint("name one of them")
	}
	return 0, zarpa.Errorf(zarpa.NotFound, "--deployment: %q is not in the file, which has %s", p.f.deployment, strings.Join(names, ", "))
}

// settingArgs are the settings of a deployment as arguments of zarpa-score, without those that say where
// things are.
func settingArgs(file endpointfile.File, spec zarpa.DeploymentSpec) []string {
	d := zarpa.Deployment{Endpoint: file.Name, Spec: spec}
	d.Request.Timeout, d.Request.MaxBody = file.RequestTimeout, file.MaxBody
	all := process.ScoreArgs(process.ReplicaStart{Deployment: d})
	var out []string
	for i := 1; i+1 < len(all); i += 2 { // the first is the verb
		switch all[i] {
		case "--bundle", "--listen", "--label", "--deployment", "--work", "--model":
		default:
			out = append(out, all[i], all[i+1])
		}
	}
	return out
}

// load brings a model into the package: a file or folder, under a name or its own, or a registered model.
func (p *packaging) load(ctx context.Context, model, as string) (zarpa.Model, error) {
	if !isFile(model) && as == "" {
		return p.registered(ctx, model)
	}
	if as == "" {
		var err error
		if as, err = fileModel(model); err != nil {
			return zarpa.Model{}, err
		}
	}
	content, err := p.put(ctx, model)
	if err != nil {
		return zarpa.Model{}, err
	}
	info, err := modelfile.Inspect(bundle.ContentFS(ctx, p.plane.blobs, content))
	if err != nil && p.scripted() && zarpa.AsError(err).Code == zarpa.Invalid {
		info, err = modelfile.Info{Format: zarpa.FormatFiles}, nil // the script reads what nobody else knows
	}
	m := zarpa.Model{
		Name: as, Version: 1, Format: info.Format, Framework: info.Framework, FrameworkVersion: info.FrameworkVersion,
		Content: content, Folder: folderName(model), Signature: info.Signature,
	}
	if err == nil {
		p.c.warnPickle(m)
	}
	return m, err
}

// scripted reports whether a script answers.
func (p *packaging) scripted() bool { return p.f.code != "" || p.f.file != "" }

// registered fetches a model from the server.
func (p *packaging) registered(ctx context.Context, ref string) (zarpa.Model, error) {
	api, err := p.c.connect()
	if err != nil {
		return zarpa.Model{}, orFile(ref, err)
	}
	m, err := api.GetModel(ctx, ref)
	if err != nil {
		return m, orFile(ref, err)
	}
	return m, p.fetch(ctx, api, m)
}

// orFile adds to an error about a registered model how a file of that name, where there is one, is meant.
func orFile(ref string, err error) error {
	if _, there := os.Stat(ref); there == nil {
		return zarpa.AsError(err).WithHint("for the file or folder of that name, write ./%s", ref)
	}
	return err
}

func (p *packaging) fetch(ctx context.Context, api *client.Client, m zarpa.Model) error {
	r, err := api.ModelContent(ctx, m.Ref().String())
	if err != nil {
		return err
	}
	content, err := bundle.WriteContent(ctx, p.plane.blobs, r, bundle.Limits{})
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if content.Digest != m.Content.Digest {
		return zarpa.Errorf(zarpa.Internal, "model %s: what came is not what the server says of it", m.Ref()).WithHint("try again")
	}
	return nil
}
