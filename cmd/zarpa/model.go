package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
	"github.com/zarpa-dev/zarpa/client"
	scorecmd "github.com/zarpa-dev/zarpa/cmd/score"
)

func (c *cli) modelCommand() *cobra.Command {
	return withVerbs(&cobra.Command{Use: "model", Short: "Register, show and delete models", Example: "  zarpa model list"},
		c.modelRegister(), c.modelList(), c.modelShow(), c.modelDownload(), c.modelPush(), c.modelConvert(), c.modelTag(), c.modelDelete())
}

func (c *cli) modelRegister() *cobra.Command {
	var tags, properties []string
	var description string
	var files bool
	var insecure []string
	cmd := &cobra.Command{
		Use: "register NAME PATH|oci://REF", Short: "Register a file, a folder or what a registry has as the next version of a model",
		Long: `Registers a file or folder. With oci://HOST/REPOSITORY:TAG the files come from a container registry, with
your Docker credentials: a model that zarpa model push brought there, files of oras push, or an image with
its model in /models. Tags, properties and the description of a pushed model come with it; flags win.`,
		Example: `  zarpa model register iris iris.onnx --tag stage=trial --property commit=4f2a
  zarpa model register big ./model-with-external-data/
  zarpa model register iris oci://registry.example.com/models/iris:1
  zarpa model register weights ./weights.bin --files`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			tagMap, err := pairs("tag", tags)
			if err != nil {
				return err
			}
			propertyMap, err := pairs("property", properties)
			if err != nil {
				return err
			}
			api, err := c.connect()
			if err != nil {
				return err
			}
			reg := zarpa.Registration{Name: args[0], Tags: tagMap, Properties: propertyMap, Description: description}
			if files {
				reg.Format = zarpa.FormatFiles
			}
			register := c.register
			if strings.HasPrefix(args[1], ociScheme) {
				register = c.registerPulled(insecure)
			}
			m, err := register(cmd.Context(), api, args[1], reg)
			if err != nil {
				return err
			}
			c.warnPickle(m)
			return c.show(m, func(w io.Writer) { row(w, m.Ref()) })
		},
	}
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "a tag, key=value; may be changed later; repeat for more")
	cmd.Flags().StringArrayVar(&properties, "property", nil, "a property, key=value; set once; repeat for more")
	cmd.Flags().StringVar(&description, "description", "", "what the model is")
	insecureFlag(cmd, &insecure)
	cmd.Flags().BoolVar(&files, "files", false, "take what is not recognised as a model, too, for a scoring script")
	return cmd
}

// register uploads a file or folder and registers it.
func (c *cli) register(ctx context.Context, api *client.Client, path string, reg zarpa.Registration) (zarpa.Model, error) {
	if err := zarpa.ValidateName("model", reg.Name); err != nil {
		return zarpa.Model{}, err
	}
	content, err := c.upload(ctx, api, path)
	if err != nil {
		return zarpa.Model{}, err
	}
	reg.Digest, reg.Folder = content.Digest, folderName(path)
	return api.RegisterModel(ctx, reg)
}

// folderName is the name of a folder, and empty for a file.
func folderName(path string) string {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return ""
	}
	if path, err = filepath.Abs(path); err != nil {
		return ""
	}
	if name := filepath.Base(path); zarpa.ValidatePath(name) == nil {
		return name
	}
	return ""
}

// upload sends a file or folder, showing how far it is.
func (c *cli) upload(ctx context.Context, api *client.Client, path string) (zarpa.Content, error) {
	measured, err := bundle.Measure(ctx, path)
	if err != nil {
		return zarpa.Content{}, err
	}
	total := measured.Stream
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := c.progress()
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() { // ends when the upload has ended: then r is closed
		err := bundle.TarFiles(ctx, w, path)
		w.CloseWithError(err)
		packed <- err
	}()
	counted := &countingReader{r: r, each: func(n int64) {
		if c.terminal && total > 8<<20 {
			p.step("uploading %s: %s of %s", filepath.Base(path), size(n), size(total))
		}
	}}
	content, err := api.PutContent(ctx, counted)
	_ = r.Close() // ends the packing; never fails
	p.clear()
	if packErr := <-packed; packErr != nil && !errors.Is(packErr, io.ErrClosedPipe) {
		return content, packErr // the cause of the upload's failure
	}
	return content, err
}

// countingReader tells how much was read.
type countingReader struct {
	r    io.Reader
	n    int64
	each func(n int64)
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.each(c.n)
	return n, err
}

func (c *cli) modelList() *cobra.Command {
	return &cobra.Command{
		Use: "list [NAME]", Short: "List models, or the versions of one", Example: "  zarpa model list\n  zarpa model list iris -o json",
		Args: cobra.MaximumNArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			list, err := api.ListModels(cmd.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			return c.show(list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "No models yet. Register one: zarpa model register NAME PATH")
					return
				}
				row(w, "MODEL", "FORMAT", "SIZE", "DIGEST", "AGE", "TAGS")
				for _, m := range list {
					row(w, m.Ref(), m.Format, size(m.Content.Size), short(m.Content.Digest), ago(m.Created, time.Now()), joinMap(m.Tags))
				}
			})
		}),
	}
}

// short is the beginning of a digest, enough for people.
func short(digest string) string {
	d := strings.TrimPrefix(digest, "sha256:")
	return d[:min(12, len(d))]
}

func (c *cli) modelShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME[:VERSION]", Short: "Show a model, its inputs and outputs", Example: "  zarpa model show iris:1",
		Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			m, err := api.GetModel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(m, func(w io.Writer) { modelTable(w, m) })
		}),
	}
}

func modelTable(w io.Writer, m zarpa.Model) {
	row(w, "Model:", m.Ref())
	row(w, "Format:", m.Format)
	if m.Description != "" {
		row(w, "Description:", m.Description)
	}
	row(w, "Digest:", m.Content.Digest)
	row(w, "Size:", size(m.Content.Size))
	row(w, "Created:", m.Created.Local().Format(time.DateTime))
	row(w, "Tags:", joinMap(m.Tags))
	row(w, "Properties:", joinMap(m.Properties))
	if scorecmd.EngineOf(m.Format) == scorecmd.EngineONNX {
		row(w, "Producer:", strings.TrimSpace(m.Signature.Producer+" "+m.Signature.ProducerVersion))
		var opsets []string
		for _, domain := range slices.Sorted(maps.Keys(m.Signature.Opsets)) {
			opsets = append(opsets, fmt.Sprintf("%s %d", domain, m.Signature.Opsets[domain]))
		}
		row(w, "Opset:", strings.Join(opsets, ", "))
	} else {
		row(w, "Framework:", orDash(strings.TrimSpace(m.Framework+" "+m.FrameworkVersion)))
	}
	signatureTable(w, m.Signature)
	row(w, "Files:", "")
	for _, f := range m.Content.Files {
		row(w, "  "+f.Path, size(f.Size)+"  "+short(f.Digest))
	}
}

func signatureTable(w io.Writer, sig zarpa.Signature) {
	if len(sig.Inputs)+len(sig.Outputs) == 0 {
		row(w, "Inputs:", "known when it runs: GET …/v2/models/NAME of its endpoint")
		return
	}
	row(w, "Inputs:", "")
	for _, v := range sig.Inputs {
		row(w, "  "+v.Name, valueType(v))
	}
	row(w, "Outputs:", "")
	for _, v := range sig.Outputs {
		row(w, "  "+v.Name, valueType(v))
	}
}

// valueType is a type in words: "FP32 [batch, 4]", "sequence of map INT64 → FP32".
func valueType(v zarpa.ValueInfo) string {
	text := v.Type.String()
	switch {
	case v.Type == zarpa.Sequence && len(v.Items) == 1:
		text = "sequence of " + valueType(v.Items[0])
	case v.Type == zarpa.Map && len(v.Items) == 2:
		text = "map " + v.Items[0].Type.String() + " → " + v.Items[1].Type.String()
	case v.NoShape:
		text += " [any shape]"
	default:
		var dims []string
		for _, d := range v.Shape {
			switch {
			case d.Size >= 0:
				dims = append(dims, strconv.FormatInt(d.Size, 10))
			case d.Name != "":
				dims = append(dims, d.Name)
			default:
				dims = append(dims, "?")
			}
		}
		text += " [" + strings.Join(dims, ", ") + "]"
	}
	if v.Optional {
		text += " (optional)"
	}
	return text
}

func (c *cli) modelDownload() *cobra.Command {
	return &cobra.Command{
		Use: "download NAME[:VERSION] DIR", Short: "Write a model's files into a directory", Example: "  zarpa model download iris:1 ./iris",
		Args: cobra.ExactArgs(2),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			m, err := api.GetModel(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			body, err := api.ModelContent(cmd.Context(), m.Ref().String())
			if err != nil {
				return err
			}
			defer body.Close()
			if err := untar(body, args[1]); err != nil {
				return err
			}
			return c.show(m, func(w io.Writer) { fmt.Fprintf(w, "%s is in %s\n", m.Ref(), args[1]) })
		}),
	}
}

// untar writes regular files below dir. Existing files are not replaced.
func untar(r io.Reader, dir string) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return zarpa.Errorf(zarpa.Unavailable, "the download broke off: %w", err).WithHint("try again")
		}
		if err := zarpa.ValidatePath(h.Name); err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return zarpa.Errorf(zarpa.Invalid, "cannot write: %w", err)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if err != nil {
			return zarpa.Errorf(zarpa.Invalid, "cannot write: %w", err).WithHint("choose an empty directory")
		}
		_, err = io.Copy(f, t)
		if err := errors.Join(err, f.Close()); err != nil {
			return zarpa.Errorf(zarpa.Unavailable, "write %s: %w", path, err)
		}
	}
}

func (c *cli) modelTag() *cobra.Command {
	return &cobra.Command{
		Use: "tag NAME:VERSION k=v...", Short: "Set tags; k= removes one", Example: "  zarpa model tag iris:1 stage=production owner=",
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			tags, err := pairs("tag", args[1:])
			if err != nil {
				return err
			}
			var patch zarpa.ModelPatch
			for k, v := range tags {
				if v == "" {
					patch.RemoveTags = append(patch.RemoveTags, k)
					delete(tags, k)
				}
			}
			patch.SetTags = tags
			api, err := c.connect()
			if err != nil {
				return err
			}
			m, err := api.UpdateModel(cmd.Context(), args[0], patch)
			if err != nil {
				return err
			}
			return c.show(m, func(w io.Writer) { row(w, m.Ref(), joinMap(m.Tags)) })
		},
	}
}

func (c *cli) modelDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME:VERSION", Short: "Delete a version that is not deployed", Example: "  zarpa model delete iris:1",
		Args: cobra.ExactArgs(1),
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if err := api.DeleteModel(cmd.Context(), args[0]); err != nil {
				return err
			}
			return c.show(map[string]string{"deleted": args[0]}, func(w io.Writer) { row(w, "deleted", args[0]) })
		}),
	}
}

// warnPickle says once, where a model is registered, what loading it means.
func (c *cli) warnPickle(m zarpa.Model) {
	if zarpa.RunsCode(m.Format) {
		fmt.Fprintf(c.stderr, "note: %s is a %s model: loading it can run code that its author put into the file. Register only files you trust; zarpa up --no-pickle refuses such models.\n", m.Ref(), m.Format)
	}
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
