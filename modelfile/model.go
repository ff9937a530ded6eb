package modelfile

import (
	"hash/maphash"
	"io/fs"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zarpa-dev/zarpa"
)

// The bounds of what is read. Real models stay far below them.
const (
	maxDepth        = 64      // subgraphs and types inside each other
	maxValues       = 4096    // inputs, and outputs
	maxRank         = 256     // dimensions of one value
	maxName         = 1024    // bytes of a name
	maxDoc          = 4096    // bytes of a documentation text that are kept
	maxInitializers = 1 << 18 // tensors with weights
	maxProperties   = 256     // metadata entries and operator sets
	maxProperty     = 4096    // bytes of a metadata value that are kept
)

// Field numbers of onnx.proto, named message and field.
const (
	modelIRVersion       = 1
	modelProducer        = 2
	modelProducerVersion = 3
	modelDoc             = 6
	modelGraph           = 7
	modelOpset           = 8
	modelMetadata        = 14
	modelFunctions       = 25

	graphNode        = 1
	graphInitializer = 5
	graphInput       = 11
	graphOutput      = 12
	graphSparse      = 15

	nodeAttribute = 5
	functionNode  = 7

	attributeTensor        = 5
	attributeGraph         = 6
	attributeTensors       = 10
	attributeGraphs        = 11
	attributeSparseTensor  = 22
	attributeSparseTensors = 23

	entryKey   = 1
	entryValue = 2
)

// model gathers what one pass over a ModelProto finds.
type model struct {
	sig      zarpa.Signature
	external *externalData
	hasGraph bool
	seed     maphash.Seed
	// initializers are the hashes of the main graph's initializer names.
	initializers map[uint64]struct{}
}

func newModel(fsys fs.FS, dir string) *model {
	return &model{external: &externalData{fsys: fsys, dir: dir, sizes: map[string]int64{}}, seed: maphash.MakeSeed(), initializers: map[uint64]struct{}{}}
}

func (m *model) read(src *source) error {
	for msg := (message{src, 0, src.size}); msg.more(); {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if err := m.readField(f); err != nil {
			return err
		}
	}
	if !m.hasGraph {
		return zarpa.Errorf(zarpa.Invalid, "no graph: not an ONNX model").WithHint("export the model again")
	}
	return nil
}

func (m *model) readField(f field) (err error) {
	switch {
	case f.number == modelIRVersion && f.kind == protowire.VarintType:
		m.sig.IRVersion = int64(f.value)
	case f.number == modelIRVersion:
		return damaged(f.body.pos)
	case f.kind != protowire.BytesType:
	case f.number == modelProducer:
		m.sig.Producer, err = f.body.text(maxName)
	case f.number == modelProducerVersion:
		m.sig.ProducerVersion, err = f.body.text(maxName)
	case f.number == modelDoc:
		m.sig.Doc, err = f.body.text(maxDoc)
	case f.number == modelGraph:
		m.hasGraph = true
		return m.readGraph(f.body)
	case f.number == modelOpset:
		return m.readOpset(f.body)
	case f.number == modelMetadata:
		return m.readProperty(f.body)
	case f.number == modelFunctions:
		return m.readFunction(f.body)
	}
	return err
}

func (m *model) readOpset(msg message) error {
	domain, version := "", int64(0)
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		switch {
		case f.number == 1 && f.kind == protowire.BytesType:
			if domain, err = name(f.body); err != nil {
				return err
			}
		case f.number == 2 && f.kind == protowire.VarintType:
			version = int64(f.value)
		}
	}
	if domain == "" {
		domain = "ai.onnx"
	}
	if m.sig.Opsets == nil {
		m.sig.Opsets = map[string]int64{}
	}
	if len(m.sig.Opsets) >= maxProperties {
		return zarpa.Errorf(zarpa.Invalid, "more than %d operator sets", maxProperties)
	}
	m.sig.Opsets[domain] = version
	return nil
}

func (m *model) readProperty(msg message) error {
	key, value, err := entry(msg, maxProperty)
	if err != nil {
		return err
	}
	if m.sig.Metadata == nil {
		m.sig.Metadata = map[string]string{}
	}
	if len(m.sig.Metadata) < maxProperties {
		m.sig.Metadata[key] = value
	}
	return nil
}

// readGraph reads the main graph.
func (m *model) readGraph(msg message) error {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case graphInput:
			err = appendValue(&m.sig.Inputs, f.body, "input")
		case graphOutput:
			err = appendValue(&m.sig.Outputs, f.body, "output")
		case graphInitializer:
			err = m.initializer(f.body)
		default:
			err = m.readGraphField(f, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *model) initializer(msg message) error {
	name, err := m.external.readTensor(msg)
	if err != nil {
		return err
	}
	if len(m.initializers) >= maxInitializers {
		return zarpa.Errorf(zarpa.Invalid, "more than %d initializers", maxInitializers)
	}
	m.initializers[maphash.String(m.seed, name)] = struct{}{}
	return nil
}

// readGraphField looks for external data in a field of a graph; depth counts the graphs around it.
func (m *model) readGraphField(f field, depth int) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	switch f.number {
	case graphNode:
		return m.readNode(f.body, depth)
	case graphInitializer:
		_, err := m.external.readTensor(f.body)
		return err
	case graphSparse:
		return m.external.readSparse(f.body)
	}
	return nil
}

func (m *model) readFunction(msg message) error {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if f.number != functionNode || f.kind != protowire.BytesType {
			continue
		}
		if err := m.readNode(f.body, 0); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) readNode(msg message, depth int) error {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if f.number != nodeAttribute || f.kind != protowire.BytesType {
			continue
		}
		if err := m.readAttribute(f.body, depth); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) readAttribute(msg message, depth int) error {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case attributeTensor, attributeTensors:
			_, err = m.external.readTensor(f.body)
		case attributeSparseTensor, attributeSparseTensors:
			err = m.external.readSparse(f.body)
		case attributeGraph, attributeGraphs:
			err = m.readSubgraph(f.body, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *model) readSubgraph(msg message, depth int) error {
	if depth > maxDepth {
		return zarpa.Errorf(zarpa.Invalid, "graphs nested more than %d deep", maxDepth)
	}
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return err
		}
		if err := m.readGraphField(f, depth); err != nil {
			return err
		}
	}
	return nil
}

// signature puts the inputs in order: those with a default in the file come last and are optional.
// Before IR version 4 every weight had to be listed as an input, too: there a default is no input.
func (m *model) signature() (zarpa.Signature, error) {
	const overridable = 4
	required, optional := make([]zarpa.ValueInfo, 0, len(m.sig.Inputs)), []zarpa.ValueInfo(nil)
	for _, v := range m.sig.Inputs {
		_, hasDefault := m.initializers[maphash.String(m.seed, v.Name)]
		switch {
		case !hasDefault:
			required = append(required, v)
		case m.sig.IRVersion >= overridable:
			v.Optional = true
			optional = append(optional, v)
		}
	}
	m.sig.Inputs = append(required, optional...)
	if len(m.sig.Inputs) == 0 {
		return m.sig, zarpa.Errorf(zarpa.Invalid, "the model has no inputs").WithHint("export it with the inputs that a request fills")
	}
	if len(m.sig.Outputs) == 0 {
		return m.sig, zarpa.Errorf(zarpa.Invalid, "the model has no outputs").WithHint("export it with the outputs that a request reads")
	}
	return m.sig, nil
}

// name is the body as a name.
func name(msg message) (string, error) {
	if msg.length() > maxName {
		return "", zarpa.Errorf(zarpa.Invalid, "a name of %d bytes at byte %d: %d allowed", msg.length(), msg.pos, maxName)
	}
	return msg.text(maxName)
}

// entry reads a key and a value, of which the first `most` bytes are kept.
func entry(msg message, most int) (key, value string, err error) {
	for msg.more() {
		f, err := msg.next()
		if err != nil {
			return "", "", err
		}
		if f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case entryKey:
			key, err = name(f.body)
		case entryValue:
			value, err = f.body.text(most)
		}
		if err != nil {
			return "", "", err
		}
	}
	return key, value, nil
}
