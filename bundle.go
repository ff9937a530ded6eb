package zarpa

// Bundle is everything a replica needs, immutable and named by its digest. On disk it is a
// directory: bundle.json (this structure) beside models/NAME/VERSION/….
type Bundle struct {
	// Format is 1.
	Format int `json:"format"`
	// Engine is the name of the engine that runs the models: "onnx".
	Engine string        `json:"engine"`
	Models []BundleModel `json:"models"`
}

// BundleModel is one model in a bundle.
type BundleModel struct {
	Name      string    `json:"name"`
	Version   int       `json:"version"`
	Content   Content   `json:"content"`
	Signature Signature `json:"signature"`
	// File is the model's main file within the content; empty for a format that is a folder.
	File string `json:"file,omitempty"`
}
