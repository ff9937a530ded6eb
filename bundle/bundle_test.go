package bundle_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/blob/dir"
	"github.com/zarpa-dev/zarpa/bundle"
)

func blobs(t testing.TB) *dir.Blobs {
	t.Helper()
	b, err := dir.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// plain hides the optional powers of blobs, and the ReadAt of their files.
type plain struct{ zarpa.Blobs }

func (p plain) Open(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	r, err := p.Blobs.Open(ctx, digest)
	return struct{ io.ReadSeekCloser }{r}, err
}

func expect(t *testing.T, err error, code zarpa.Code, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	if e := zarpa.AsError(err); e.Code != code {
		t.Fatalf("%v: %s, want %s", err, e.Code, code)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Fatalf("error %q does not say %q", err, part)
		}
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

type entry struct {
	name, body string
	kind       byte
	link       string
}

func file(name, body string) entry { return entry{name: name, body: body, kind: tar.TypeReg} }

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Size: int64(len(e.body)), Linkname: e.link, Mode: 0o777, ModTime: time.Now(), Uname: "me"}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func content(t testing.TB, b zarpa.Blobs, entries ...entry) zarpa.Content {
	t.Helper()
	return must[zarpa.Content](t)(bundle.WriteContent(t.Context(), b, bytes.NewReader(tarOf(t, entries...)), bundle.Limits{}))
}

func sample(t testing.TB, b zarpa.Blobs) zarpa.Bundle {
	t.Helper()
	return zarpa.Bundle{Format: 1, Engine: "onnx", Models: []zarpa.BundleModel{
		{Name: "rose", Version: 2, Content: content(t, b, file("model.onnx", "rose"), file("data/weights.bin", strings.Repeat("w", 5000)), file("data/empty", ""))},
		{Name: "iris", Version: 10, Content: content(t, b, file("iris.onnx", "iris")), File: "iris.onnx", Signature: zarpa.Signature{
			Inputs: []zarpa.ValueInfo{{Name: "x<&>", Type: zarpa.Float32, Shape: []zarpa.Dim{{Size: -1}}}}, Opsets: map[string]int64{"b": 1, "a": 2},
		}},
	}}
}

func TestContentIsTheSameHoweverTheTarWasMade(t *testing.T) {
	t.Parallel()
	b := blobs(t)
	one := content(t, b, file("b/c", "cc"), file("a", "a"), file("a b", ""))
	two := content(t, b, entry{name: "./", kind: tar.TypeDir}, entry{name: "b/", kind: tar.TypeDir}, file("./a b", ""), file("a", "a"), file("b/c", "cc"))
	if one.Digest != two.Digest || one.Size != 3 || len(one.Files) != 3 || one.Files[0].Path != "a" {
		t.Fatalf("%+v\n%+v", one, two)
	}
	r := must[io.ReadSeekCloser](t)(b.Open(t.Context(), one.Digest))
	defer r.Close()
	want := "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb 1 a\n" +
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 a b\n" +
		"355b1bbfc96725cdce8f4a2708fda310a80e6d13315aec4e5eed2a75fe8032ce 2 b/c\n"
	if got := must[[]byte](t)(io.ReadAll(r)); string(got) != want {
		t.Fatalf("manifest\n%swant\n%s", got, want)
	}
	again := must[zarpa.Content](t)(bundle.ReadContent(t.Context(), b, one.Digest))
	if again.Digest != one.Digest || again.Size != one.Size || !slices.Equal(again.Files, one.Files) {
		t.Fatalf("read back %+v, want %+v", again, one)
	}
}

func TestWriteContentRefusesWhatCouldHarm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		entries []entry
		code    zarpa.Code
		part    string
	}{
		{"Nothing", nil, zarpa.Invalid, "no file"},
		{"FoldersAlone", []entry{{name: "a/", kind: tar.TypeDir}}, zarpa.Invalid, "no file"},
		{"AbsolutePath", []entry{file("/etc/passwd", "x")}, zarpa.Invalid, "/etc/passwd"},
		{"Parent", []entry{file("../x", "x")}, zarpa.Invalid, "../x"},
		{"ParentInside", []entry{file("a/../../x", "x")}, zarpa.Invalid, "clean"},
		{"ParentFolder", []entry{{name: "../a/", kind: tar.TypeDir}}, zarpa.Invalid, "clean"},
		{"BackSlash", []entry{file(`a\..\b`, "x")}, zarpa.Invalid, "clean"},
		{"NewLine", []entry{file("a\nb", "x")}, zarpa.Invalid, "clean"},
		{"ControlCharacter", []entry{file("a\x1b[2Jb", "x")}, zarpa.Invalid, "control"},
		{"LongName", []entry{file(strings.Repeat("n", 256), "x")}, zarpa.Invalid, "255"},
		{"Symlink", []entry{{name: "a", kind: tar.TypeSymlink, link: "/etc/passwd"}}, zarpa.Invalid, "link"},
		{"HardLink", []entry{file("b", "x"), {name: "a", kind: tar.TypeLink, link: "b"}}, zarpa.Invalid, "link"},
		{"Device", []entry{{name: "null", kind: tar.TypeChar}}, zarpa.Invalid, "regular"},
		{"Pipe", []entry{{name: "fifo", kind: tar.TypeFifo}}, zarpa.Invalid, "regular"},
		{"Twice", []entry{file("a", "x"), file("a", "y")}, zarpa.Invalid, "twice"},
		{"CaseAlone", []entry{file("Model.onnx", "x"), file("model.ONNX", "y")}, zarpa.Invalid, "case"},
		{"CaseOfFolder", []entry{file("Data/x", "x"), file("data/y", "y")}, zarpa.Invalid, "case"},
		{"FileIsFolder", []entry{file("a", "x"), file("a/b", "y")}, zarpa.Invalid, "folder"},
		{"FolderIsFile", []entry{file("a/b", "y"), file("a", "x")}, zarpa.Invalid, "folder"},
		{"TooManyFiles", []entry{file("1", ""), file("2", ""), file("3", ""), file("4", "")}, zarpa.TooLarge, "3 files"},
		{"TooLarge", []entry{file("1", strings.Repeat("x", 60)), file("2", strings.Repeat("x", 60))}, zarpa.TooLarge, "100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := bundle.WriteContent(t.Context(), blobs(t), bytes.NewReader(tarOf(t, c.entries...)), bundle.Limits{Files: 3, Bytes: 100})
			expect(t, err, c.code, c.part)
		})
	}
}

func TestWriteContentTellsABrokenTarFromABrokenConnection(t *testing.T) {
	t.Parallel()
	b, whole := blobs(t), tarOf(t, file("a", strings.Repeat("x", 2000)))
	for _, cut := range []int{100, 600, 1500} {
		_, err := bundle.WriteContent(t.Context(), b, bytes.NewReader(whole[:cut]), bundle.Limits{})
		expect(t, err, zarpa.Invalid, "cut short")
	}
	_, err := bundle.WriteContent(t.Context(), b, strings.NewReader(strings.Repeat("no tar ", 1000)), bundle.Limits{})
	expect(t, err, zarpa.Invalid, "not a tar")
	gone := errors.New("connection reset")
	_, err = bundle.WriteContent(t.Context(), b, io.MultiReader(bytes.NewReader(whole[:1000]), failing{gone}), bundle.Limits{})
	if !errors.Is(err, gone) {
		t.Fatalf("%v, want the connection's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = bundle.WriteContent(ctx, b, bytes.NewReader(whole), bundle.Limits{})
	expect(t, err, zarpa.Canceled)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestReadContentRefusesOtherBlobs(t *testing.T) {
	t.Parallel()
	b := blobs(t)
	hex := strings.Repeat("a", 64)
	for _, text := range []string{
		"", "a model", hex + " 1 a", hex + "  1 a\n", hex + " 01 a\n", hex + " -1 a\n", hex + " +1 a\n", hex + " 1 ../a\n", hex + " 1 \n",
		strings.ToUpper(hex) + " 1 a\n", hex[1:] + " 1 a\n", hex + " 1 b\n" + hex + " 1 a\n", hex + " 1 a\n" + hex + " 1 a\n", hex + " 1 a\n\n",
		hex + " 9223372036854775807 a\n" + hex + " 1 b\n", hex + " 9223372036854775808 a\n", hex + " 1 a\r\n",
	} {
		info := must[zarpa.BlobInfo](t)(b.Put(t.Context(), strings.NewReader(text)))
		_, err := bundle.ReadContent(t.Context(), b, info.Digest)
		expect(t, err, zarpa.Invalid)
	}
	_, err := bundle.ReadContent(t.Context(), b, "sha256:"+hex)
	expect(t, err, zarpa.NotFound)
}

func TestContentFSIsAFileSystem(t *testing.T) {
	t.Parallel()
	store := blobs(t)
	for name, b := range map[string]zarpa.Blobs{"direct": store, "plain": plain{store}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := content(t, b, file("model.onnx", "0123456789"), file("data/a/x", "x"), file("data/b", ""))
			fsys := bundle.ContentFS(t.Context(), b, c)
			if err := fstest.TestFS(fsys, "model.onnx", "data/a/x", "data/b"); err != nil {
				t.Fatal(err)
			}
			f := must[fs.File](t)(fsys.Open("model.onnx"))
			defer f.Close()
			part := make([]byte, 3)
			if _, err := f.(io.Seeker).Seek(1, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if n, err := f.(io.ReaderAt).ReadAt(part, 4); n != 3 || err != nil || string(part) != "456" {
				t.Fatalf("%d, %v, %q", n, err, part)
			}
			if n, err := f.(io.ReaderAt).ReadAt(part, 8); n != 2 || !errors.Is(err, io.EOF) {
				t.Fatalf("%d, %v at the end", n, err)
			}
			if rest := must[[]byte](t)(io.ReadAll(f)); string(rest) != "123456789" {
				t.Fatalf("ReadAt moved the position: %q", rest)
			}
		})
	}
}

func TestWriteTarIsDeterministicAndReadsBack(t *testing.T) {
	t.Parallel()
	b := blobs(t)
	c := content(t, b, file("b/"+strings.Repeat("long/", 40)+"ñ", "x"), file("a", "a"))
	var one, two bytes.Buffer
	for _, w := range []io.Writer{&one, &two} {
		if err := bundle.WriteTar(t.Context(), b, c, w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Fatal("two tars of one content differ")
	}
	if again := must[zarpa.Content](t)(bundle.WriteContent(t.Context(), blobs(t), &one, bundle.Limits{})); again.Digest != c.Digest {
		t.Fatalf("%s came back as %s", c.Digest, again.Digest)
	}
}

func TestBuildGivesEqualBundlesEqualDigests(t *testing.T) {
	t.Parallel()
	b := blobs(t)
	one, two := sample(t, b), sample(t, b)
	slices.Reverse(two.Models)
	d1 := must[string](t)(bundle.Build(t.Context(), b, one))
	if d2 := must[string](t)(bundle.Build(t.Context(), b, two)); d1 != d2 {
		t.Fatal("the order of the models makes a difference")
	}
	if one.Models[0].Name != "rose" {
		t.Fatal("Build changed its argument")
	}
	two.Models[0].Signature.Opsets["a"]++
	if d3 := must[string](t)(bundle.Build(t.Context(), b, two)); d1 == d3 {
		t.Fatal("another signature makes no difference")
	}
	dir := must[string](t)(bundle.Unpack(t.Context(), b, d1, t.TempDir()))
	read := must[zarpa.Bundle](t)(bundle.Read(dir))
	if d4 := must[string](t)(bundle.Build(t.Context(), b, read)); d1 != d4 {
		t.Fatal("what was read builds something else")
	}
}

func TestBuildRefusesABrokenBundle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*zarpa.Bundle)
		part   string
	}{
		"Format":       {func(b *zarpa.Bundle) { b.Format = 2 }, "format"},
		"Engine":       {func(b *zarpa.Bundle) { b.Engine = "" }, "engine"},
		"NoModels":     {func(b *zarpa.Bundle) { b.Models = nil }, "models"},
		"Twice":        {func(b *zarpa.Bundle) { b.Models[0] = b.Models[1] }, "twice"},
		"Name":         {func(b *zarpa.Bundle) { b.Models[0].Name = "../x" }, "../x"},
		"Version":      {func(b *zarpa.Bundle) { b.Models[0].Version = 0 }, "version"},
		"File":         {func(b *zarpa.Bundle) { b.Models[0].File = "none" }, "none"},
		"Path":         {func(b *zarpa.Bundle) { b.Models[0].Content.Files[0].Path = "../x" }, "../x"},
		"FileDigest":   {func(b *zarpa.Bundle) { b.Models[0].Content.Files[0].Digest = "x" }, "manifest"},
		"Digest":       {func(b *zarpa.Bundle) { b.Models[0].Content.Digest = "sha256:0" }, "digest"},
		"Size":         {func(b *zarpa.Bundle) { b.Models[0].Content.Size++ }, "size"},
		"EmptyContent": {func(b *zarpa.Bundle) { b.Models[0].Content = zarpa.Content{} }, "manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := blobs(t)
			bad := sample(t, b)
			c.change(&bad)
			_, err := bundle.Build(t.Context(), b, bad)
			expect(t, err, zarpa.Invalid, c.part)
		})
	}
}

func TestSweepRemovesWhatIsOldAndUnreferenced(t *testing.T) {
	t.Parallel()
	b := blobs(t)
	kept, gone := content(t, b, file("kept", "kept")), content(t, b, file("gone", "gone"), file("same", "kept"))
	keep := func(d string) bool { return slices.Contains(bundle.ContentDigests(kept), d) }
	rule := bundle.SweepRule{Keep: keep, OlderThan: time.Hour, Now: time.Now()}
	if s := must[bundle.Swept](t)(bundle.Sweep(t.Context(), b, rule)); s.Blobs != 0 {
		t.Fatalf("young blobs were removed: %+v", s)
	}
	rule.Now = rule.Now.Add(2 * time.Hour)
	if s := must[bundle.Swept](t)(bundle.Sweep(t.Context(), b, rule)); s.Blobs != 2 || s.Bytes < 4 {
		t.Fatalf("removed %+v, want the manifest and the file of one content", s)
	}
	must[zarpa.Content](t)(bundle.ReadContent(t.Context(), b, kept.Digest))
	_, err := bundle.ReadContent(t.Context(), b, gone.Digest)
	expect(t, err, zarpa.NotFound)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = bundle.Sweep(ctx, b, rule)
	expect(t, err, zarpa.Canceled)
}

func TestBundleTravels(t *testing.T) {
	t.Parallel()
	here, there := blobs(t), blobs(t)
	digest := must[string](t)(bundle.Build(t.Context(), here, sample(t, here)))
	var one, two bytes.Buffer
	for _, w := range []io.Writer{&one, &two} {
		if err := bundle.WriteBundleTar(t.Context(), here, digest, w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Fatal("two tars of one bundle differ")
	}
	if got := must[string](t)(bundle.ReadBundleTar(t.Context(), there, &one, bundle.Limits{})); got != digest {
		t.Fatalf("%s arrived as %s", digest, got)
	}
	dir := must[string](t)(bundle.Unpack(t.Context(), there, digest, t.TempDir()))
	if got := must[string](t)(bundle.Verify(t.Context(), dir)); got != digest {
		t.Fatalf("unpacked as %s", got)
	}
	var three bytes.Buffer
	if err := bundle.WriteBundleTar(t.Context(), there, digest, &three); err != nil || !bytes.Equal(two.Bytes(), three.Bytes()) {
		t.Fatalf("the tar from there differs (%v)", err)
	}
	for _, m := range sample(t, here).Models {
		must[zarpa.Content](t)(bundle.ReadContent(t.Context(), there, m.Content.Digest))
	}
}

func TestReadBundleTarRefusesWhatItDoesNotName(t *testing.T) {
	t.Parallel()
	b := blobs(t)
	digest := must[string](t)(bundle.Build(t.Context(), b, sample(t, b)))
	r := must[io.ReadSeekCloser](t)(b.Open(t.Context(), digest))
	defer r.Close()
	d := file("bundle.json", string(must[[]byte](t)(io.ReadAll(r))))
	iris := file("models/iris/10/iris.onnx", "iris")
	rose := []entry{file("models/rose/2/data/empty", ""), file("models/rose/2/data/weights.bin", strings.Repeat("w", 5000)), file("models/rose/2/model.onnx", "rose")}
	for _, c := range []struct {
		name    string
		entries []entry
		code    zarpa.Code
		part    string
	}{
		{"Empty", nil, zarpa.Invalid, "empty"},
		{"NoDescription", []entry{iris}, zarpa.Invalid, "begins with bundle.json"},
		{"Missing", append([]entry{d}, rose...), zarpa.Invalid, "iris.onnx"},
		{"Changed", append([]entry{d, file(iris.name, "IRIS")}, rose...), zarpa.Invalid, "changed on its way"},
		{"Longer", append([]entry{d, file(iris.name, "iris+")}, rose...), zarpa.Invalid, "5 bytes"},
		{"Extra", append([]entry{d, iris, file("models/iris/10/extra", "x")}, rose...), zarpa.Invalid, "not named"},
		{"NotJSON", []entry{file("bundle.json", "{")}, zarpa.Invalid, "cannot be read"},
		{"Newer", []entry{file("bundle.json", `{"format": 9, "new": 1}`)}, zarpa.Conflict, "format 9"},
		{"UnknownField", []entry{file("bundle.json", strings.Replace(d.body, `"engine"`, `"x": 1, "engine"`, 1))}, zarpa.Invalid, "unknown field"},
		{"NotCanonical", []entry{file("bundle.json", d.body+" ")}, zarpa.Invalid, "form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			there := blobs(t)
			_, err := bundle.ReadBundleTar(t.Context(), there, bytes.NewReader(tarOf(t, c.entries...)), bundle.Limits{})
			expect(t, err, c.code, c.part)
			if _, err := there.Open(t.Context(), digest); !errors.Is(err, zarpa.ErrNotFound) {
				t.Fatalf("the bundle is there: %v", err)
			}
		})
	}
}
