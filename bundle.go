package zarpa

// Bundle is everything a replica needs, immutable and named by its digest. On disk it is a
// directory: bundle.json (this structure) beside models/NAME/VERSION/…, code/… and environment/….
type Bundle struct {
	// Format is 1.
	Format int `json:"format"`
	// Engine is the name of the engine that runs the models: "onnx" or "python".
	Engine string `json:"engine"`
	// Models may be empty where there is Code.
	Models []BundleModel `json:"models"`
	// Code is the scoring script; nil for models that need none.
	Code *BundleCode `json:"code,omitempty"`
	// Environment is what the python engine runs in.
	Environment *BundleEnvironment `json:"environment,omitempty"`
}

// BundleCode is a scoring script with the files beside it.
type BundleCode struct {
	Content Content `json:"content"`
	// Entry is the script's path within the content.
	Entry string `json:"entry"`
}

// BundleEnvironment says what was built for a bundle, so that it can be built again.
type BundleEnvironment struct {
	// ID is the [Environment]'s on the machine that built it.
	ID string `json:"id"`
	// Python is the interpreter's full version.
	Python         string `json:"python"`
	SystemPackages bool   `json:"system_packages,omitempty"`
	// Content holds the files that it was built from.
	Content Content `json:"content"`
	// Lock is what was really installed, as name==version, ordered.
	Lock []string `json:"lock"`
}

// BundleModel is one model in a bundle.
type BundleModel struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	// Format is what the files were recognised as; empty in bundles of old releases is "onnx".
	Format string `json:"format,omitempty"`
	// Folder is below the model's own and holds its content; empty is that itself.
	Folder    string    `json:"folder,omitempty"`
	Content   Content   `json:"content"`
	Signature Signature `json:"signature"`
	// File is the model's main file within the content; empty for a format that is a folder.
	File string `json:"file,omitempty"`
}
