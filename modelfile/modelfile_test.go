package modelfile_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/modelfile"
)

// The builders write protobuf by hand, so that broken files can be made, too.
func bytesField(n protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), body)
}

func textField(n protowire.Number, s string) []byte { return bytesField(n, []byte(s)) }

func intField(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func tensorType(element uint64, dims ...[]byte) []byte {
	var shape []byte
	for _, d := range dims {
		shape = append(shape, bytesField(1, d)...)
	}
	return bytesField(1, join(intField(1, element), bytesField(2, shape)))
}

func valueInfo(name string, typ []byte) []byte {
	return join(textField(1, name), bytesField(2, typ))
}

func external(name string, entries ...string) []byte {
	t := textField(8, name)
	for i := 0; i < len(entries); i += 2 {
		t = append(t, bytesField(13, join(textField(1, entries[i]), textField(2, entries[i+1])))...)
	}
	return append(t, intField(14, 1)...)
}

var (
	input  = bytesField(11, valueInfo("x", tensorType(1, textField(2, "n"), intField(1, 4))))
	output = bytesField(12, valueInfo("y", tensorType(7)))
)

func onnx(graph ...[]byte) []byte {
	return join(intField(1, 10), bytesField(8, intField(2, 17)), bytesField(7, join(graph...)))
}

func folder(files map[string][]byte) fstest.MapFS {
	m := fstest.MapFS{}
	for name, data := range files {
		m[name] = &fstest.MapFile{Data: data, Mode: 0o644}
	}
	return m
}

func TestInspectReadsTheSignature(t *testing.T) {
	t.Parallel()
	data := join(
		intField(1, 8), textField(2, "maker"), textField(3, "1.2"), textField(6, "doc"),
		bytesField(8, intField(2, 17)), bytesField(8, join(textField(1, "ai.onnx.ml"), intField(2, 3))),
		bytesField(14, join(textField(1, "k"), textField(2, "v"))),
		bytesField(7, join(
			bytesField(5, join(textField(8, "w"), bytesField(9, make([]byte, 100_000)))),
			bytesField(11, valueInfo("w", tensorType(1))),
			input,
			bytesField(11, valueInfo("o", bytesField(9, bytesField(1, tensorType(10))))),
			bytesField(12, valueInfo("s", bytesField(4, bytesField(1, bytesField(5, join(intField(1, 7), bytesField(2, tensorType(1)))))))),
			bytesField(12, join(textField(1, "unknown rank"), bytesField(2, bytesField(1, intField(1, 16))))),
		)),
	)
	info, err := modelfile.Inspect(folder(map[string][]byte{"any.onnx": data}))
	if err != nil {
		t.Fatal(err)
	}
	sig := info.Signature
	if info.Format != "onnx" || info.File != "any.onnx" || sig.IRVersion != 8 || sig.Producer != "maker" || sig.ProducerVersion != "1.2" || sig.Doc != "doc" {
		t.Errorf("got %+v", info)
	}
	if sig.Opsets["ai.onnx"] != 17 || sig.Opsets["ai.onnx.ml"] != 3 || sig.Metadata["k"] != "v" {
		t.Errorf("opsets %v, metadata %v", sig.Opsets, sig.Metadata)
	}
	if len(sig.Inputs) != 3 || sig.Inputs[0].Name != "x" || !sig.Inputs[1].Optional || sig.Inputs[1].Type != zarpa.Float16 || sig.Inputs[2].Name != "w" || !sig.Inputs[2].Optional {
		t.Fatalf("inputs %+v", sig.Inputs)
	}
	if x := sig.Inputs[0]; x.Type != zarpa.Float32 || x.Shape[0] != (zarpa.Dim{Size: -1, Name: "n"}) || x.Shape[1] != (zarpa.Dim{Size: 4}) {
		t.Errorf("x is %+v", x)
	}
	if s := sig.Outputs[0]; s.Type != zarpa.Sequence || s.Items[0].Type != zarpa.Map || s.Items[0].Items[0].Type != zarpa.Int64 || s.Items[0].Items[1].Type != zarpa.Float32 {
		t.Errorf("s is %+v", s)
	}
	if u := sig.Outputs[1]; u.Type != zarpa.BFloat16 || !u.NoShape {
		t.Errorf("unknown rank is %+v", u)
	}
}

func TestWeightsListedAsInputsBeforeIR4AreNoInputs(t *testing.T) {
	t.Parallel()
	data := join(intField(1, 3), bytesField(7, join(input, bytesField(11, valueInfo("w", tensorType(1))), bytesField(5, textField(8, "w")), output)))
	info, err := modelfile.Inspect(folder(map[string][]byte{"model.onnx": data}))
	if err != nil || len(info.Signature.Inputs) != 1 {
		t.Errorf("%+v, %v", info.Signature.Inputs, err)
	}
}

func TestInspectRefuses(t *testing.T) {
	t.Parallel()
	good := onnx(input, output)
	deep := output
	for range 100 {
		deep = bytesField(1, bytesField(5, bytesField(6, deep)))
	}
	deepType := tensorType(1)
	for range 100 {
		deepType = bytesField(4, bytesField(1, deepType))
	}
	weights := func(entries ...string) map[string][]byte {
		return map[string][]byte{
			"model.onnx": onnx(input, output, bytesField(5, external("w", entries...))),
			"w.bin":      make([]byte, 100),
		}
	}
	one := func(data []byte) map[string][]byte { return map[string][]byte{"model.onnx": data} }
	for name, test := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"empty folder":           {nil, "folder is empty"},
		"empty file":             {one(nil), "model.onnx: the file is empty"},
		"text":                   {one([]byte("hello, I am no model\n")), "not an ONNX file, but text"},
		"short text":             {one([]byte("h")), "but text"},
		"PNG":                    {one([]byte("\x89PNG\r\n\x1a\n")), "a PNG image"},
		"zip":                    {one([]byte("PK\x03\x04rest\x00")), "a zip archive"},
		"pickle":                 {one([]byte("\x80\x04\x95\x00")), "a Python pickle"},
		"LFS pointer":            {one([]byte("version https://git-lfs.github.com/spec/v1\n")), "git lfs pull"},
		"noise":                  {one([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), "no valid field at byte 0"},
		"group":                  {one([]byte{0x0b, 0x00, 0x01, 0x02}), "no valid field"},
		"truncated":              {one(good[:len(good)-3]), "truncated: the file ends at byte"},
		"truncated varint":       {one([]byte{0x08, 0x80}), "truncated: the file ends at byte 2"},
		"field beyond message":   {one(join(intField(1, 8), bytesField(7, []byte{0x0a, 0x50}), make([]byte, 200))), "no valid field at byte"},
		"no graph":               {one(intField(1, 8)), "no graph"},
		"no inputs":              {one(onnx(output)), "no inputs"},
		"no outputs":             {one(onnx(input)), "no outputs"},
		"nameless input":         {one(onnx(bytesField(11, bytesField(2, tensorType(1))), output)), "input 0 has no name"},
		"long name":              {one(onnx(bytesField(11, valueInfo(strings.Repeat("n", 5000), tensorType(1))))), "5000 bytes"},
		"deep graphs":            {one(onnx(input, output, deep)), "graphs nested more than"},
		"deep types":             {one(onnx(bytesField(11, valueInfo("x", deepType)), output)), "types nested more than"},
		"many inputs":            {one(onnx(bytes.Repeat(input, 5000), output)), "more than 4096 inputs"},
		"many dimensions":        {one(onnx(bytesField(11, valueInfo("x", tensorType(1, make([][]byte, 300)...))), output)), "more than 256 dimensions"},
		"several models":         {map[string][]byte{"a.onnx": good, "b.onnx": good}, "several .onnx files: a.onnx, b.onnx (name the main one model.onnx)"},
		"no model":               {map[string][]byte{"a.txt": good, "b.txt": good}, "no model among a.txt, b.txt"},
		"external absolute":      {weights("location", "/etc/passwd"), `tensor "w": its external data "/etc/passwd" is outside`},
		"external escape":        {weights("location", "../w.bin"), `"../w.bin" is outside`},
		"external hidden escape": {weights("location", "a/../../w.bin"), "is outside"},
		"external back-slash":    {weights("location", `..\w.bin`), "is outside"},
		"external nowhere":       {weights(), "is outside"},
		"external missing":       {weights("location", "v.bin"), `"v.bin" is not in the model's folder`},
		"external is a folder":   {map[string][]byte{"model.onnx": weights("location", "d")["model.onnx"], "d/x": nil}, "is not in the model's folder"},
		"external too short":     {weights("location", "w.bin", "offset", "64", "length", "64"), `"w.bin", which has 100`},
		"external overflow":      {weights("location", "w.bin", "offset", "9223372036854775807", "length", "9223372036854775807"), "which has 100"},
		"external negative":      {weights("location", "w.bin", "offset", "-1"), "which has 100"},
		"external in a subgraph": {one(onnx(input, output, bytesField(1, bytesField(5, bytesField(6, bytesField(5, external("v", "location", "../x"))))))), `tensor "v"`},
		"external in a constant": {one(onnx(input, output, bytesField(1, bytesField(5, bytesField(5, external("v", "location", "../x")))))), `tensor "v"`},
		"external in a function": {one(join(onnx(input, output), bytesField(25, bytesField(7, bytesField(5, bytesField(5, external("v", "location", "../x"))))))), `tensor "v"`},
		"external, sparse":       {one(onnx(input, output, bytesField(15, bytesField(1, external("v", "location", "../x"))))), `tensor "v"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := modelfile.Inspect(folder(test.files))
			var e *zarpa.Error
			if !errors.As(err, &e) || e.Code != zarpa.Invalid || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want invalid with %q", err, test.want)
			}
		})
	}
}

func TestMainFile(t *testing.T) {
	t.Parallel()
	good := onnx(input, output)
	for name, test := range map[string]struct {
		files []string
		want  string
	}{
		"model.onnx first":    {[]string{"a.onnx", "model.onnx"}, "model.onnx"},
		"one at the top":      {[]string{"a.onnx", "parts/b.onnx", "c.bin"}, "a.onnx"},
		"one anywhere":        {[]string{"parts/b.onnx", "c.bin"}, "parts/b.onnx"},
		"any name when alone": {[]string{"weights"}, "weights"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := map[string][]byte{}
			for _, f := range test.files {
				files[f] = good
			}
			if info, err := modelfile.Inspect(folder(files)); err != nil || info.File != test.want {
				t.Errorf("got %q, %v", info.File, err)
			}
		})
	}
}

func TestExternalDataIsNamed(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{
		"m/model.onnx": onnx(input, output,
			bytesField(5, external("a", "location", "z.bin", "offset", "0", "length", "10")),
			bytesField(5, external("b", "location", "d/a.bin")),
			bytesField(5, external("c", "location", "z.bin", "offset", "10"))),
		"m/z.bin": make([]byte, 10), "m/d/a.bin": nil,
	}
	info, err := modelfile.Inspect(folder(files))
	if err != nil || strings.Join(info.ExternalData, " ") != "m/d/a.bin m/z.bin" {
		t.Errorf("got %v, %v", info.ExternalData, err)
	}
}

// sparse writes a model with one tensor of size bytes, of which the disk holds next to nothing.
func sparse(t *testing.T, size int64) fs.FS {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// the tensor's bytes: tag and length of raw_data, then a hole
	raw := protowire.AppendVarint(protowire.AppendTag(nil, 9, protowire.BytesType), uint64(size))
	tensor := protowire.AppendVarint(protowire.AppendTag(nil, 5, protowire.BytesType), uint64(size)+uint64(len(raw)))
	graph := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.BytesType), uint64(len(input)+len(output)+len(tensor)+len(raw))+uint64(size))
	head := join(intField(1, 8), graph, input, tensor, raw)
	if _, err := f.Write(head); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(output, int64(len(head))+size); err != nil {
		t.Skipf("this file system has no sparse files: %v", err)
	}
	return os.DirFS(dir)
}

func TestWeightsAreSteppedOver(t *testing.T) {
	t.Parallel()
	fsys := sparse(t, 1_900_000_000)
	start := time.Now()
	info, err := modelfile.Inspect(fsys)
	if err != nil || len(info.Signature.Outputs) != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("1.9 GB took %v", took)
	}
}

func TestTwoGibibytesAreRefused(t *testing.T) {
	t.Parallel()
	_, err := modelfile.Inspect(sparse(t, math.MaxInt32))
	if err == nil || !strings.Contains(err.Error(), "external data") {
		t.Errorf("got %v", err)
	}
}

// inOrder is a file system whose files can only be read in order.
type inOrder struct{ fs.FS }

type inOrderFile struct{ fs.File }

func (f inOrder) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if _, dir := file.(fs.ReadDirFile); err != nil || dir {
		return file, err
	}
	return inOrderFile{file}, nil
}

func TestFilesReadInOrderGiveTheSame(t *testing.T) {
	t.Parallel()
	data := onnx(input, bytesField(5, join(textField(8, "w"), bytesField(9, make([]byte, 100_000)))), output)
	info, err := modelfile.Inspect(inOrder{folder(map[string][]byte{"model.onnx": data})})
	if err != nil || len(info.Signature.Outputs) != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	var _ io.Reader = inOrderFile{}
}

func FuzzONNX(f *testing.F) {
	f.Add(onnx(input, output))
	f.Add(onnx(input, output, bytesField(5, external("w", "location", "w.bin", "offset", "1"))))
	f.Add([]byte("text"))
	seeds, _ := filepath.Glob("../engine/enginetest/testdata/*.onnx")
	for _, seed := range seeds {
		if data, err := os.ReadFile(seed); err == nil && len(data) < 4096 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := modelfile.Inspect(folder(map[string][]byte{"model.onnx": data, "w.bin": make([]byte, 9)}))
		if err == nil && (len(info.Signature.Inputs) == 0 || len(info.Signature.Outputs) == 0) {
			t.Error("a model without inputs or outputs was accepted")
		}
		var e *zarpa.Error
		if err != nil && (!errors.As(err, &e) || e.Code != zarpa.Invalid) {
			t.Errorf("not an invalid error: %v", err)
		}
	})
}
