package image

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	"github.com/zarpa-dev/zarpa"
)

// How cosign writes a signature.
const (
	signatureType       types.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation                 = "dev.cosignproject.cosign/signature"
	signatureClaim                      = "cosign container image signature"
	maxPayload                          = 1 << 20 // bytes; a payload has some hundred
)

// payload is what is signed: the simple signing format.
type payload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

// SignatureTag is the tag, in the image's own repository, under which its signature is looked for.
func SignatureTag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex + ".sig" }

// Sign makes the signature of an image as cosign does: an image of its own, which belongs under
// [SignatureTag] beside the one that it is for. ref is the repository that the image is in, HOST/NAME, and
// key a PEM of an ECDSA key on P-256: PKCS 8, SEC 1, or cosign's own encrypted form, for which password is
// asked. The signature differs each time; what it says does not.
func Sign(digest v1.Hash, ref string, key []byte, password func() ([]byte, error)) (v1.Image, error) {
	private, err := privateKey(key, password)
	if err != nil {
		return nil, err
	}
	var p payload
	p.Critical.Identity.Reference, p.Critical.Image.Digest, p.Critical.Type = ref, digest.String(), signatureClaim
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	signature, err := ecdsa.SignASN1(rand.Reader, private, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", digest, err)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	return mutate.Append(base, mutate.Addendum{
		Layer: static.NewLayer(text, signatureType), MediaType: signatureType,
		Annotations: map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(signature)},
	})
}

// Verify checks that one of the signatures in a signature's image is for the digest, by the public key in a
// PEM. denied when none is.
func Verify(digest v1.Hash, signature v1.Image, key []byte) error {
	public, err := publicKey(key)
	if err != nil {
		return err
	}
	manifest, err := signature.Manifest()
	if err != nil {
		return fmt.Errorf("verify %s: %w", digest, err)
	}
	layers, err := signature.Layers()
	if err != nil {
		return fmt.Errorf("verify %s: %w", digest, err)
	}
	for i, l := range layers {
		if i >= len(manifest.Layers) || manifest.Layers[i].MediaType != signatureType {
			continue
		}
		r, err := l.Compressed()
		if err != nil {
			return fmt.Errorf("verify %s: %w", digest, err)
		}
		text, err := io.ReadAll(io.LimitReader(r, maxPayload))
		if err := joinClose(err, r); err != nil {
			return fmt.Errorf("verify %s: %w", digest, err)
		}
		if signed(text, manifest.Layers[i].Annotations[signatureAnnotation], public) && claims(text, digest) {
			return nil
		}
	}
	return zarpa.Errorf(zarpa.Denied, "image %s: no signature of it is by this key", digest).WithHint("sign it with zarpa package --sign, or name the key that it was signed with")
}

func signed(text []byte, signature string, key *ecdsa.PublicKey) bool {
	raw, err := base64.StdEncoding.DecodeString(signature)
	sum := sha256.Sum256(text)
	return err == nil && ecdsa.VerifyASN1(key, sum[:], raw)
}

// claims reports whether a payload is for a digest.
func claims(text []byte, digest v1.Hash) bool {
	var p payload
	return json.Unmarshal(text, &p) == nil && p.Critical.Image.Digest == digest.String() && p.Critical.Type == signatureClaim
}

const keyHint = "make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem, or with cosign generate-key-pair"

// privateKey reads a key that signs.
func privateKey(text []byte, password func() ([]byte, error)) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	for block != nil && strings.HasSuffix(block.Type, "PARAMETERS") { // as openssl ecparam writes them
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "key: not in PEM").WithHint(keyHint)
	}
	der := block.Bytes
	switch block.Type {
	case "PRIVATE KEY":
	case "EC PRIVATE KEY":
		key, err := x509.ParseECPrivateKey(der)
		if err != nil {
			return nil, zarpa.Errorf(zarpa.Invalid, "key: cannot be read: %w", err).WithHint(keyHint)
		}
		return onP256(key)
	case "ENCRYPTED COSIGN PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY":
		secret, err := password()
		if err != nil {
			return nil, err
		}
		if der, err = decrypt(der, secret); err != nil {
			return nil, err
		}
	default:
		return nil, zarpa.Errorf(zarpa.Invalid, "key: %q is not a kind of private key that is known", block.Type).WithHint(keyHint)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "key: cannot be read: %w", err).WithHint(keyHint)
	}
	return onP256(key)
}

func onP256(key any) (*ecdsa.PrivateKey, error) {
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, zarpa.Errorf(zarpa.Invalid, "key: is not of ECDSA on the curve P-256").WithHint(keyHint)
	}
	return private, nil
}

func publicKey(text []byte) (*ecdsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, zarpa.Errorf(zarpa.Invalid, "public key: not in PEM").WithHint("make it with: openssl pkey -in key.pem -pubout -out key.pub")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "public key: cannot be read: %w", err)
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, zarpa.Errorf(zarpa.Invalid, "public key: is not of ECDSA")
	}
	return public, nil
}

// encrypted is the form in which cosign keeps a private key.
type encrypted struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

// The most that a key may ask of scrypt, some 250 MB of memory: cosign's own ask for 65536, 8 and 1.
const (
	maxScryptN = 1 << 18
	maxScryptR = 8
	maxScryptP = 4
)

// decrypt opens a key of cosign's.
func decrypt(text, password []byte) ([]byte, error) {
	var e encrypted
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "key: cannot be read: %w", err).WithHint(keyHint)
	}
	var nonce [24]byte
	p := e.KDF.Params
	switch {
	case e.KDF.Name != "scrypt" || e.Cipher.Name != "nacl/secretbox" || len(e.Cipher.Nonce) != len(nonce):
		return nil, zarpa.Errorf(zarpa.Invalid, "key: is encrypted with %.40q and %.40q, which is not known", e.KDF.Name, e.Cipher.Name).WithHint(keyHint)
	case p.N < 2 || p.N > maxScryptN || p.R < 1 || p.R > maxScryptR || p.P < 1 || p.P > maxScryptP:
		return nil, zarpa.Errorf(zarpa.Invalid, "key: scrypt's parameters %d, %d, %d are out of bounds", p.N, p.R, p.P).WithHint(keyHint)
	}
	copy(nonce[:], e.Cipher.Nonce)
	derived, err := scrypt.Key(password, e.KDF.Salt, p.N, p.R, p.P, 32)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "key: %w", err).WithHint(keyHint)
	}
	out, ok := secretbox.Open(nil, e.Ciphertext, &nonce, (*[32]byte)(derived))
	if !ok {
		return nil, zarpa.Errorf(zarpa.Denied, "key: the password is not the one that it was encrypted with").WithHint("set COSIGN_PASSWORD")
	}
	return out, nil
}

// Identity is the repository of a reference, HOST/NAME, as a signature names it.
func Identity(ref string) (string, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return "", badName(ref, err)
	}
	return r.Context().Name(), nil
}

// SignatureParts are what is signed and the signature of it in base64, of a signature that Sign made: for
// those who verify without a registry.
func SignatureParts(signature v1.Image) (text []byte, base64Signature string, err error) {
	manifest, err := signature.Manifest()
	if err != nil {
		return nil, "", fmt.Errorf("read a signature: %w", err)
	}
	layers, err := signature.Layers()
	if err != nil {
		return nil, "", fmt.Errorf("read a signature: %w", err)
	}
	if len(layers) != 1 || len(manifest.Layers) != 1 {
		return nil, "", zarpa.Errorf(zarpa.Invalid, "signature: has %d layers and not one", len(layers))
	}
	r, err := layers[0].Compressed()
	if err != nil {
		return nil, "", fmt.Errorf("read a signature: %w", err)
	}
	text, err = io.ReadAll(io.LimitReader(r, maxPayload))
	return text, manifest.Layers[0].Annotations[signatureAnnotation], joinClose(err, r)
}
