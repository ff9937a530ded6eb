package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Entrypoint is the fixed part of the container's command line; what is appended overrides it.
func Entrypoint(b zarpa.Bundle, o Options) []string {
	args := append([]string{"/" + binFolder + "/zarpa-score"}, o.Runtime.Verb...)
	args = append(args, "--listen", "0.0.0.0:"+strconv.Itoa(Port), "--insecure")
	if b.Code != nil {
		args = append(args, "--code", "/"+bundleFolder+"/code", "--entry", b.Code.Entry)
		if len(b.Models) > 0 {
			args = append(args, "--models", "/"+bundleFolder+"/models")
		}
	} else {
		args = append(args, "--bundle", "/"+bundleFolder)
		if main := mainModel(b, o.Model); len(b.Models) > 1 && main != "" {
			args = append(args, "--model", main)
		}
	}
	if b.Code != nil || b.Engine != "onnx" {
		args = append(args, "--work", workFolder)
		if b.Environment != nil {
			args = append(args, "--python", "/"+environmentFolder+"/bin/python")
		}
	}
	return args
}

func mainModel(b zarpa.Bundle, wanted string) string {
	if wanted != "" || len(b.Models) == 0 {
		return wanted
	}
	return b.Models[0].Name
}

func (a *assembly) labels() (map[string]string, error) {
	p, err := a.provenance()
	if err != nil {
		return nil, err
	}
	provenance, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{
		"org.opencontainers.image.created": made.Format(time.RFC3339),
		"org.opencontainers.image.title":   a.o.Title,
		"org.opencontainers.image.version": a.o.ModelVersion,
		LabelBundle:                        a.digest,
		LabelProvenance:                    string(provenance),
	}
	for _, m := range a.b.Models {
		if m.Name == mainModel(a.b, a.o.Model) {
			labels["org.opencontainers.image.title"] = first(a.o.Title, m.Name)
			labels["org.opencontainers.image.version"] = first(a.o.ModelVersion, strconv.Itoa(m.Version))
		}
	}
	if a.b.Environment != nil {
		labels[LabelEnvironment] = a.b.Environment.ID
	}
	if len(a.libraries) > 0 {
		text, err := json.Marshal(a.libraries)
		if err != nil {
			return nil, err
		}
		labels[LabelLibraries] = string(text)
	}
	maps.Copy(labels, a.o.Labels)
	maps.DeleteFunc(labels, func(_, v string) bool { return v == "" })
	return labels, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (a *assembly) provenance() (Provenance, error) {
	p := Provenance{Zarpa: a.o.Version, Bundle: a.digest, Models: []string{}, Base: "none"}
	for _, m := range a.b.Models {
		p.Models = append(p.Models, m.Name+":"+strconv.Itoa(m.Version)+":"+m.Content.Digest)
	}
	if a.b.Code != nil {
		p.Code = a.b.Code.Content.Digest
	}
	if a.b.Environment != nil {
		p.Environment = a.b.Environment.ID
	}
	if a.from != "" {
		p.Base = a.from
	}
	if a.o.Base != nil {
		digest, err := a.o.Base.Digest()
		if err != nil {
			return p, fmt.Errorf("base %s: %w", a.o.BaseName, err)
		}
		p.Base, p.BaseDigest = a.o.BaseName, digest.String()
	}
	return p, nil
}
