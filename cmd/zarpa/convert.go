package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/client"
	"github.com/zarpa-dev/zarpa/engine/python"
	"github.com/zarpa-dev/zarpa/environment"
	"github.com/zarpa-dev/zarpa/modelfile"
	"github.com/zarpa-dev/zarpa/target"
)

// convert brings a model into ONNX in an environment of its own, and registers the result.
func (p *plane) convert(ctx context.Context, m zarpa.Model, spec zarpa.ConversionSpec, progress func(string)) (zarpa.Conversion, error) {
	none := zarpa.Conversion{}
	interpreter, err := p.converter(ctx, m, progress)
	if err != nil {
		return none, err
	}
	b, err := describe(target.Package{Models: []zarpa.Model{m}})
	if err != nil {
		return none, err
	}
	digest, err := bundle.Build(ctx, p.blobs, b)
	if err != nil {
		return none, err
	}
	dir, err := bundle.Unpack(ctx, p.blobs, digest, filepath.Join(p.data, "bundles"))
	if err != nil {
		return none, err
	}
	work, err := os.MkdirTemp("", "zarpa-convert-")
	if err != nil {
		return none, zarpa.Errorf(zarpa.Unavailable, "convert: %w", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // the result is stored, or there is none
	engine, err := python.New(python.Options{Python: interpreter, Dir: work, Env: os.Environ(), Log: p.log})
	if err != nil {
		return none, err
	}
	out := filepath.Join(work, "model.onnx")
	done, err := engine.Convert(ctx, python.Conversion{
		Dir: filepath.Join(dir, "models", m.Name, strconv.Itoa(m.Version)), File: b.Models[0].File, Format: m.Format,
		Out: out, Samples: spec.Samples, Progress: progress,
	})
	if err != nil {
		return none, err
	}
	c := zarpa.Conversion{
		From: m.Ref().String(), Converter: done.Converter, Samples: done.Samples, MaxDifference: done.MaxDifference,
		Before: done.Before, After: done.After,
	}
	c.Model, err = p.registerConverted(ctx, out, c, spec.Name)
	return c, err
}

// converter is the interpreter of an environment in which a model can be converted.
func (p *plane) converter(ctx context.Context, m zarpa.Model, progress func(string)) (string, error) {
	if modelfile.Converter(modelfile.Info{Format: m.Format}) == "" {
		return "", zarpa.Errorf(zarpa.Invalid, "model %s: there is no converter from %s to ONNX", m.Ref(), m.Format).
			WithHint("serve it as it is, or export it to ONNX with its framework")
	}
	info, err := modelfile.Inspect(bundle.ContentFS(ctx, p.blobs, m.Content))
	if err != nil {
		return "", err
	}
	needs := modelfile.Converter(info)
	content, err := p.textContent(ctx, "requirements.txt", needs)
	if err != nil {
		return "", err
	}
	e, err := p.ensure(ctx, environment.Request{
		Spec: zarpa.EnvironmentSpec{Content: content.Digest}, Files: bundle.ContentFS(ctx, p.blobs, content), Retry: true,
	}, progress)
	if err != nil {
		return "", err
	}
	return p.environments.Python(e.ID)
}

// registerConverted makes a file the next version of a model, with the proof in its properties.
func (p *plane) registerConverted(ctx context.Context, file string, c zarpa.Conversion, name string) (zarpa.Model, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(bundle.TarFiles(ctx, w, file)) }() // ends when the content is stored: then r is read or closed
	content, err := bundle.WriteContent(ctx, p.blobs, r, bundle.Limits{})
	_ = r.Close() // never fails
	if err != nil {
		return zarpa.Model{}, err
	}
	info, err := modelfile.Inspect(bundle.ContentFS(ctx, p.blobs, content))
	if err != nil {
		return zarpa.Model{}, err
	}
	m := zarpa.Model{
		Name: name, Format: info.Format, Content: content, Created: time.Now().UTC(), Signature: info.Signature,
		Properties: map[string]string{
			"converted_from": c.From, "converter": c.Converter, "samples": strconv.Itoa(c.Samples),
			"max_difference": strconv.FormatFloat(c.MaxDifference, 'g', 3, 64),
		},
	}
	err = p.store.Atomically(ctx, func(n zarpa.Nouns) error {
		created, err := n.Models.Create(ctx, m)
		if err != nil {
			return err
		}
		m = created
		return api.AuditModel(ctx, n, "model.convert", m)
	})
	return m, err
}

func (c *cli) modelConvert() *cobra.Command {
	var spec zarpa.ConversionSpec
	cmd := &cobra.Command{
		Use: "convert NAME[:VERSION]", Short: "Convert a model to ONNX, and compare both",
		Long: `Converts a scikit-learn, XGBoost or LightGBM model to ONNX on the server, lets both answer the same rows, and registers the result as the next version of the model, or of --name. It then runs without Python. A model that
answers differently is not registered.`,
		Example: "  zarpa model convert churn:1\n  zarpa model convert churn:1 --name churn-onnx --samples 5000",
		Args:    cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, server *client.Client) error {
			p := c.progress()
			done, err := server.ConvertModel(cmd.Context(), args[0], spec, func(line string) { p.step("%s", line) })
			p.clear()
			if err != nil {
				return err
			}
			return c.show(done, func(w io.Writer) { conversionTable(w, done) })
		}),
	}
	cmd.Flags().StringVar(&spec.Name, "name", "", "the model whose next version it becomes; the same by default")
	cmd.Flags().IntVar(&spec.Samples, "samples", zarpa.DefaultSamples, "rows that both models answer, for the comparison")
	return cmd
}

func conversionTable(w io.Writer, c zarpa.Conversion) {
	row(w, "Model:", c.Model.Ref())
	row(w, "From:", c.From+", by "+c.Converter)
	row(w, "Difference:", fmt.Sprintf("at most %.3g in %d rows", c.MaxDifference, c.Samples))
	speed := ""
	if c.After > 0 {
		speed = fmt.Sprintf(" (%.1f×)", c.Before/c.After)
	}
	row(w, "One row:", fmt.Sprintf("%.3f ms before, %.3f ms in ONNX Runtime%s", c.Before, c.After, speed))
	row(w, "Deploy it:", strings.TrimSpace("zarpa deploy "+c.Model.Name+" --model "+c.Model.Ref().String()))
}
