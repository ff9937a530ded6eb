package main

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
	"github.com/zarpa-dev/zarpa/target"
)

// logger writes to standard error, one line of text per record.
func (c *cli) logger(level string) (*slog.Logger, error) { return scorecmd.Logger(c.stderr, level) }

// bundle packages a deployment, once: versions and contents never change.
func (p *plane) bundle(ctx context.Context, pkg target.Package) (string, error) {
	parts := []string{pkg.Spec.Code, pkg.Spec.Entry}
	if e := pkg.Environment; e != nil {
		parts = append(parts, e.ID, e.Content.Digest, strings.Join(e.Lock, " "))
	}
	for _, m := range pkg.Models {
		parts = append(parts, m.Ref().String())
	}
	key := strings.Join(parts, ",")
	if made, ok := p.bundled.Load(key); ok {
		return made.(*madeBundle).use(), nil //nolint:forcetypeassert // the next lines put nothing else there
	}
	b, err := describe(pkg)
	if err != nil {
		return "", err
	}
	if pkg.Spec.Code != "" {
		code, err := bundle.ReadContent(ctx, p.blobs, pkg.Spec.Code)
		if err != nil {
			return "", err
		}
		b.Code = &zarpa.BundleCode{Content: code, Entry: pkg.Spec.Entry}
	}
	digest, err := bundle.Build(ctx, p.blobs, b)
	if err == nil {
		made := &madeBundle{digest: digest}
		made.use()
		p.bundled.Store(key, made)
	}
	return digest, err
}

// madeBundle is a bundle that is stored, and when it was last asked for: by its deployment, that is at
// every step.
type madeBundle struct {
	digest string
	used   atomic.Int64 // nanoseconds since 1970
}

// bundledFor is how long a bundle that no step asks for is remembered, and so kept.
const bundledFor = time.Hour

func (m *madeBundle) use() string {
	m.used.Store(time.Now().UnixNano())
	return m.digest
}

// describe is the bundle of a package but for its code. One engine must be able to run all its
// models; with code the script does.
func describe(pkg target.Package) (zarpa.Bundle, error) {
	b := zarpa.Bundle{Format: bundle.Format, Engine: scorecmd.EnginePython, Environment: pkg.Environment}
	if pkg.Spec.Code == "" {
		b.Engine = scorecmd.EngineOf(pkg.Models[0].Format)
	}
	for _, m := range pkg.Models {
		if pkg.Spec.Code == "" && scorecmd.EngineOf(m.Format) != b.Engine {
			return b, zarpa.Errorf(zarpa.Invalid, "models: %s is of the format %q, and %s of %q", pkg.Models[0].Ref(), pkg.Models[0].Format, m.Ref(), m.Format).
				WithHint("give ONNX models and others deployments of their own")
		}
		if pkg.Spec.Code == "" && m.Format == zarpa.FormatFiles {
			return b, zarpa.Errorf(zarpa.Invalid, "models: %s holds no model that can be served without code", m.Ref()).
				WithHint("give a scoring script that reads it: --code DIR --entry score.py")
		}
		file, format := "", m.Format
		if len(m.Content.Files) == 1 {
			file = m.Content.Files[0].Path
		}
		if format == zarpa.FormatONNX {
			format = "" // as in the bundles of releases that knew no other
		}
		folder := ""
		if pkg.Spec.Code != "" {
			folder = m.Folder
		}
		b.Models = append(b.Models, zarpa.BundleModel{
			Name: m.Name, Version: m.Version, Format: format, Folder: folder, Content: m.Content, Signature: m.Signature, File: file,
		})
	}
	return b, nil
}
