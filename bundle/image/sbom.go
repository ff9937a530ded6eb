package image

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/bundle"
)

// The parts of a document of SPDX 2.3 that are written.
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		DataLicense   string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Version       string         `json:"versionInfo,omitempty"`
		File          string         `json:"packageFileName,omitempty"`
		Location      string         `json:"downloadLocation"`
		FilesAnalyzed bool           `json:"filesAnalyzed"`
		License       string         `json:"licenseConcluded"`
		Declared      string         `json:"licenseDeclared"`
		Copyright     string         `json:"copyrightText"`
		Purpose       string         `json:"primaryPackagePurpose,omitempty"`
		Checksums     []spdxChecksum `json:"checksums,omitempty"`
		References    []spdxExternal `json:"externalRefs,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxExternal struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

const noAssertion = "NOASSERTION"

// sbom is a document that grows.
type sbom struct {
	doc   spdxDocument
	owner string // the package that holds what is added
}

func (s *sbom) add(p spdxPackage) string {
	p.ID = fmt.Sprintf("SPDXRef-Package-%d", len(s.doc.Packages))
	p.License, p.Declared, p.Copyright = noAssertion, noAssertion, noAssertion
	if p.Location == "" {
		p.Location = noAssertion
	}
	s.doc.Packages = append(s.doc.Packages, p)
	if s.owner != "" {
		s.relate(s.owner, "CONTAINS", p.ID)
	}
	return p.ID
}

func (s *sbom) relate(element, kind, related string) {
	s.doc.Relationships = append(s.doc.Relationships, spdxRelationship{element, kind, related})
}

func sha256Sum(digest string) []spdxChecksum {
	return []spdxChecksum{{"SHA256", strings.TrimPrefix(digest, "sha256:")}}
}

// purl is a reference to a package of an ecosystem.
func purl(kind, name, version string) []spdxExternal {
	return []spdxExternal{{"PACKAGE-MANAGER", "purl", "pkg:" + kind + "/" + name + "@" + strings.ReplaceAll(version, "+", "%2B")}}
}

// SBOM tells what an image that Assemble made of a bundle holds, as a document of SPDX 2.3 in JSON: zarpa,
// ONNX Runtime, the libraries of the system, the Python packages of the lock, the models' files and the
// code's. Of a base it tells the reference and digest; what is in it, the base's own document tells.
func SBOM(ctx context.Context, img v1.Image, b Build) ([]byte, error) {
	described, err := bundle.Describe(ctx, b.Blobs, b.Digest)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	labels := config.Config.Labels
	s := &sbom{doc: spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: labels["org.opencontainers.image.title"],
		Namespace: "https://spdx.org/spdxdocs/zarpa-" + digest.Hex,
		Creation:  spdxCreation{made.Format(time.RFC3339), []string{"Tool: zarpa-" + b.Options.Version}},
	}}
	image := s.add(spdxPackage{
		Name: s.doc.Name, Version: labels["org.opencontainers.image.version"], Purpose: "CONTAINER", Checksums: sha256Sum(digest.String()),
	})
	s.relate(s.doc.ID, "DESCRIBES", image)
	s.owner = image
	if err := s.runtime(b.Options, described); err != nil {
		return nil, err
	}
	if err := s.system(labels); err != nil {
		return nil, err
	}
	if e := described.Environment; e != nil {
		s.add(spdxPackage{Name: "python", Version: e.Python, Purpose: "APPLICATION"})
		for _, line := range e.Lock {
			name, version, _ := strings.Cut(line, "==")
			s.add(spdxPackage{Name: name, Version: version, Purpose: "LIBRARY", References: purl("pypi", pypiName(name), version)})
		}
	}
	s.files(described)
	return json.MarshalIndent(s.doc, "", "  ")
}

// runs are the signs that PyPI takes for one.
var runs = regexp.MustCompile(`[-_.]+`)

// pypiName is a package's name as PyPI writes it.
func pypiName(name string) string { return runs.ReplaceAllString(strings.ToLower(name), "-") }

// runtime adds zarpa and ONNX Runtime.
func (s *sbom) runtime(o Options, b zarpa.Bundle) error {
	digest, err := digestFile(o.Runtime.Program)
	if err != nil {
		return err
	}
	s.add(spdxPackage{
		Name: "zarpa", Version: o.Version, File: "/" + binFolder + "/zarpa-score", Purpose: "APPLICATION", Checksums: sha256Sum(digest),
		References: purl("golang", "github.com/zarpa-dev/zarpa", o.Version),
	})
	if b.Engine != "onnx" || b.Code != nil {
		return nil
	}
	if digest, err = digestFile(o.Runtime.Library); err != nil {
		return err
	}
	file := path.Base(o.Runtime.Library)
	_, version, _ := strings.Cut(file, ".so.")
	p := spdxPackage{Name: "onnxruntime", Version: version, File: "/" + binFolder + "/" + file, Purpose: "LIBRARY", Checksums: sha256Sum(digest)}
	if version != "" {
		p.References = purl("github", "microsoft/onnxruntime", "v"+version)
	}
	s.add(p)
	return nil
}

// system adds what came from the machine or is below.
func (s *sbom) system(labels map[string]string) error {
	var list []Library
	if text := labels[LabelLibraries]; text != "" {
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return fmt.Errorf("label %s: %w", LabelLibraries, err)
		}
	}
	for _, l := range list {
		s.add(spdxPackage{Name: path.Base(l.Path), File: l.Path, Purpose: "LIBRARY", Checksums: sha256Sum(l.Digest)})
	}
	var p Provenance
	if err := json.Unmarshal([]byte(labels[LabelProvenance]), &p); err != nil {
		return fmt.Errorf("label %s: %w", LabelProvenance, err)
	}
	if p.BaseDigest != "" {
		s.add(spdxPackage{Name: p.Base, Version: p.BaseDigest, Purpose: "CONTAINER", Checksums: sha256Sum(p.BaseDigest)})
	}
	return nil
}

// files adds the files of the models and of the code. They are packages of one file: SPDX wants a SHA-1 of each
// of what it calls files, and those only in packages that were analyzed whole.
func (s *sbom) files(b zarpa.Bundle) {
	for _, f := range bundle.Files(b) {
		if !strings.HasPrefix(f.Path, "environment/") {
			s.add(spdxPackage{Name: f.Path, File: "/" + bundleFolder + "/" + f.Path, Purpose: "FILE", Checksums: sha256Sum(f.Digest)})
		}
	}
}
