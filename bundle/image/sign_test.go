package image_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle/image"
)

// keys are a pair in PEM, and the private one in PKCS 8.
func keys(t testing.TB, curve elliptic.Curve) (private, public, der []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err = x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), der
}

var signedDigest = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}

func noPassword() ([]byte, error) { return nil, errors.New("nobody knows it") }

func TestSignatureIsOfTheKeyAndTheDigest(t *testing.T) {
	t.Parallel()
	private, public, _ := keys(t, elliptic.P256())
	_, stranger, _ := keys(t, elliptic.P256())
	signature, err := image.Sign(signedDigest, "example.com/iris", private, noPassword)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(signature, validate.Fast); err != nil {
		t.Error(err)
	}
	if err := image.Verify(signedDigest, signature, public); err != nil {
		t.Error(err)
	}
	if err := image.Verify(signedDigest, signature, stranger); zarpa.AsError(err).Code != zarpa.Denied {
		t.Errorf("another key: %v", err)
	}
	other := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("cd", 32)}
	if err := image.Verify(other, signature, public); zarpa.AsError(err).Code != zarpa.Denied {
		t.Errorf("another image: %v", err)
	}
	if tag := image.SignatureTag(signedDigest); tag != "sha256-"+signedDigest.Hex+".sig" {
		t.Errorf("tag %q", tag)
	}
	text, _, err := image.SignatureParts(signature)
	want := `{"critical":{"identity":{"docker-reference":"example.com/iris"},"image":{"docker-manifest-digest":"` + signedDigest.String() +
		`"},"type":"cosign container image signature"},"optional":null}`
	if err != nil || string(text) != want {
		t.Errorf("payload %s, %v", text, err)
	}
}

func TestOpenSSLAgrees(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not there to compare with")
	}
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("ecparam", "-name", "prime256v1", "-genkey", "-out", at("sec1.pem")) // with its parameters in front
	run("pkcs8", "-topk8", "-nocrypt", "-in", at("sec1.pem"), "-out", at("pkcs8.pem"))
	run("pkey", "-in", at("sec1.pem"), "-pubout", "-out", at("key.pub"))
	for _, form := range []string{"sec1.pem", "pkcs8.pem"} {
		key, err := os.ReadFile(at(form))
		if err != nil {
			t.Fatal(err)
		}
		signature, err := image.Sign(signedDigest, "example.com/iris", key, noPassword)
		if err != nil {
			t.Fatal(err)
		}
		text, encoded, err := image.SignatureParts(signature)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err := errors.Join(err, os.WriteFile(at("payload"), text, 0o600), os.WriteFile(at("signature"), raw, 0o600)); err != nil {
			t.Fatal(err)
		}
		if out := run("dgst", "-sha256", "-verify", at("key.pub"), "-signature", at("signature"), at("payload")); !strings.Contains(out, "Verified OK") {
			t.Errorf("%s: openssl says %s", form, out)
		}
	}
}

// sealed is a private key as cosign keeps it.
func sealed(t testing.TB, der []byte, password string) []byte {
	t.Helper()
	salt, nonce := []byte("0123456789abcdef0123456789abcdef"), [24]byte{1, 2, 3}
	const n, r, p = 1 << 10, 8, 1
	derived, err := scrypt.Key([]byte(password), salt, n, r, p, 32)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{
		"kdf":        map[string]any{"name": "scrypt", "params": map[string]int{"N": n, "r": r, "p": p}, "salt": salt},
		"cipher":     map[string]any{"name": "nacl/secretbox", "nonce": nonce[:]},
		"ciphertext": secretbox.Seal(nil, der, &nonce, (*[32]byte)(derived)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: text})
}

func TestCosignsKeysAreOpenedByTheirPassword(t *testing.T) {
	t.Parallel()
	_, public, der := keys(t, elliptic.P256())
	key := sealed(t, der, "secret")
	signature, err := image.Sign(signedDigest, "example.com/iris", key, func() ([]byte, error) { return []byte("secret"), nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Verify(signedDigest, signature, public); err != nil {
		t.Error(err)
	}
	if _, err := image.Sign(signedDigest, "x", key, func() ([]byte, error) { return []byte("guess"), nil }); zarpa.AsError(err).Code != zarpa.Denied {
		t.Errorf("another password: %v", err)
	}
}

func TestOtherKeysAreRefused(t *testing.T) {
	t.Parallel()
	large, _, _ := keys(t, elliptic.P384())
	for name, key := range map[string][]byte{
		"no PEM": []byte("key"), "P-384": large, "certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
		"broken": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"costly": pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED COSIGN PRIVATE KEY", Bytes: []byte(
			`{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1}},"cipher":{"name":"nacl/secretbox","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`)}),
	} {
		_, err := image.Sign(signedDigest, "x", key, func() ([]byte, error) { return nil, nil })
		if e := zarpa.AsError(err); err == nil || e.Code != zarpa.Invalid || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSign reads keys of any kind: they are refused, or they sign.
func FuzzSign(f *testing.F) {
	private, _, der := keys(f, elliptic.P256())
	f.Add(private)
	f.Add(sealed(f, der, "p"))
	f.Add([]byte("-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n"))
	f.Fuzz(func(t *testing.T, key []byte) {
		signature, err := image.Sign(signedDigest, "x", key, func() ([]byte, error) { return []byte("p"), nil })
		if (signature == nil) == (err == nil) {
			t.Errorf("signature %v, error %v", signature, err)
		}
	})
}

func TestSBOMNamesWhatIsInside(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	b := s.model(1, "one")
	build := image.Build{Blobs: s.blobs, Digest: s.build(b), Options: s.opts}
	img := s.assemble(b)
	text, err := image.SBOM(t.Context(), img, build)
	if err != nil {
		t.Fatal(err)
	}
	again, err := image.SBOM(t.Context(), img, build)
	if err != nil || string(again) != string(text) {
		t.Errorf("another document of the same image: %v", err)
	}
	var doc struct {
		Version   string `json:"spdxVersion"`
		Namespace string `json:"documentNamespace"`
		Packages  []struct {
			ID   string `json:"SPDXID"`
			Name string `json:"name"`
			Sums []struct {
				Value string `json:"checksumValue"`
			} `json:"checksums"`
		} `json:"packages"`
		Files         []any                                                `json:"files"`
		Relationships []struct{ SPDXElementID, RelatedSPDXElement string } `json:"relationships"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, p := range doc.Packages {
		found[p.Name] = len(p.Sums) == 1 && len(p.Sums[0].Value) == 64
	}
	if doc.Version != "SPDX-2.3" || !strings.Contains(doc.Namespace, digestOf(t, img).Hex) || !found["iris"] || !found["zarpa"] || !found["onnxruntime"] {
		t.Errorf("%s, %s, packages %v", doc.Version, doc.Namespace, found)
	}
	if len(doc.Files) != 0 { // each would need a SHA-1, and a package that was analyzed
		t.Errorf("files %v", doc.Files)
	}
	if !found["models/iris/1/iris.onnx"] || len(doc.Relationships) != len(doc.Packages) {
		t.Errorf("packages %v, %d relationships", found, len(doc.Relationships))
	}
}
