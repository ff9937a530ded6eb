package python

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// settings say what a worker loads: a script, or else a model.
type settings struct {
	Code      string `json:"code,omitempty"`
	Entry     string `json:"entry,omitempty"`
	Models    string `json:"models,omitempty"`
	Format    string `json:"format,omitempty"`
	Directory string `json:"directory,omitempty"`
	File      string `json:"file"`
}

// hello is a worker's first frame: what it has loaded.
type hello struct {
	PID              int               `json:"pid"`
	Headers          bool              `json:"headers"`
	Batch            bool              `json:"batch"`
	Swagger          map[string]string `json:"swagger"`
	Signature        helloSignature    `json:"signature"`
	Framework        string            `json:"framework"`
	FrameworkVersion string            `json:"framework_version"`
	Notes            []string          `json:"notes"`
}

type helloSignature struct {
	Inputs  []helloValue `json:"inputs"`
	Outputs []helloValue `json:"outputs"`
	Methods []string     `json:"methods"`
}

type helloValue struct {
	Name     string            `json:"name"`
	Type     zarpa.ElementType `json:"datatype"`
	Shape    []int64           `json:"shape"`
	Optional bool              `json:"optional"`
	Columns  []string          `json:"columns"`
}

// signature is the model's; a shape of null is one that nobody knows.
func (h hello) signature() zarpa.Signature {
	values := func(in []helloValue) []zarpa.ValueInfo {
		out := make([]zarpa.ValueInfo, 0, len(in))
		for _, v := range in {
			info := zarpa.ValueInfo{Name: v.Name, Type: v.Type, NoShape: v.Shape == nil, Optional: v.Optional, Columns: v.Columns}
			for _, size := range v.Shape {
				info.Shape = append(info.Shape, zarpa.Dim{Size: max(size, -1)})
			}
			out = append(out, info)
		}
		return out
	}
	return zarpa.Signature{
		Inputs: values(h.Signature.Inputs), Outputs: values(h.Signature.Outputs),
		Producer: h.Framework, ProducerVersion: h.FrameworkVersion,
	}
}

// failed is a FAILED, LOADFAILED, END or TRACE frame.
type failed struct {
	Code      zarpa.Code `json:"code"`
	Phase     string     `json:"phase"`
	Message   string     `json:"message"`
	Error     string     `json:"error"`
	Hint      string     `json:"hint"`
	Traceback string     `json:"traceback"`
	Missing   string     `json:"missing"`
	Item      int        `json:"item"` // of a batch, from 0
}

// decodeJSON reads a frame of JSON.
func decodeJSON(payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return corrupt("its JSON: %v", err)
	}
	return nil
}

// loadError is what a user is told of a script or model that does not load: the phase (syntax, import,
// contract, init, model), then what is wrong. Only a failure of init() is the model's own error; all
// others are of what was given.
func (f failed) loadError() *zarpa.Error {
	code := zarpa.Invalid
	if f.Phase == "init" {
		code = zarpa.ModelError
	}
	err := zarpa.Errorf(code, "%.20s: %s", f.Phase, bounded(f.Message))
	if f.Traceback != "" {
		err = err.Because(pythonError(f.Traceback))
	}
	if f.Hint != "" {
		err = err.WithHint("%s", bounded(f.Hint))
	}
	return err
}

// runError is the error of a request whose worker could not answer it otherwise.
func (f failed) runError() *zarpa.Error {
	if f.Code == zarpa.Invalid {
		return zarpa.Errorf(zarpa.Invalid, "%s", bounded(f.Message)).WithHint("%s", bounded(f.Hint))
	}
	err := zarpa.Errorf(zarpa.ModelError, "the model failed: %s", bounded(f.Message))
	if f.Traceback != "" {
		err = err.Because(pythonError(f.Traceback))
	}
	return err
}

// pythonError is a traceback as the cause of an error: for the log.
type pythonError string

// Error is the traceback.
func (e pythonError) Error() string { return strings.TrimRight(string(e), "\n") }

// maxText bounds what of a worker's words goes into a message, in bytes.
const maxText = 2000

func bounded(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// request is a call of /score as a worker gets it.
type request struct {
	timeoutMS uint32
	method    string
	query     string
	headers   []byte
	body      []byte
}

// scoreHead is the length of a SCORE payload's fixed part.
const scoreHead = 12

// maxMethod and maxHeaders are what the frame's 16-bit lengths hold.
const (
	maxMethod  = math.MaxUint16
	maxHeaders = math.MaxInt32
)

// appendScore is all of a SCORE payload but the body.
func (r *request) appendScore(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, r.timeoutMS)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(r.method)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(r.query)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.headers)))
	b = append(b, r.method...)
	b = append(b, r.query...)
	return append(b, r.headers...)
}

// size is the length of the whole payload.
func (r *request) size() int {
	return scoreHead + len(r.method) + len(r.query) + len(r.headers) + len(r.body)
}

// check refuses what the frame cannot hold.
func (r *request) check() error {
	switch {
	case len(r.method) > maxMethod:
		return zarpa.Errorf(zarpa.TooLarge, "request method: %d bytes, at most %d", len(r.method), maxMethod)
	case len(r.query) > math.MaxUint16:
		return zarpa.Errorf(zarpa.TooLarge, "query: %d bytes, at most %d", len(r.query), math.MaxUint16).
			WithHint("send the values in the body of a POST")
	case int64(r.size()) > math.MaxUint32:
		return zarpa.Errorf(zarpa.TooLarge, "request: %d bytes, a worker takes at most %d", r.size(), uint32(math.MaxUint32))
	}
	return nil
}

// The flags of a RESULT.
const (
	flagRunFailed = 1 << iota
	flagNoRunHeaders
	flagExecTime
	flagStreamed
	flagReplace
)

// resultHead is the length of a RESULT payload's fixed part.
const resultHead = 16

// result is an answer to a call of /score.
type result struct {
	status  int
	flags   uint16
	execMS  float64
	headers []byte // "Name: value\r\n"…
	body    []byte
}

func parseResult(payload []byte) (result, error) {
	if len(payload) < resultHead {
		return result{}, corrupt("a result of %d bytes", len(payload))
	}
	r := result{
		status: int(binary.LittleEndian.Uint16(payload)),
		flags:  binary.LittleEndian.Uint16(payload[2:]),
		execMS: math.Float64frombits(binary.LittleEndian.Uint64(payload[8:])),
	}
	rest := payload[resultHead:]
	n := binary.LittleEndian.Uint32(payload[4:])
	if uint64(n) > uint64(len(rest)) {
		return result{}, corrupt("headers of %d bytes in a result of %d", n, len(payload))
	}
	r.headers, r.body = rest[:n], rest[n:]
	return r, nil
}

// parseBatched takes the answers of a batch apart, which must be so many.
func parseBatched(payload []byte, count int) ([]result, error) {
	if len(payload) < 4 || uint64(binary.LittleEndian.Uint32(payload)) != uint64(count) {
		return nil, corrupt("not %d answers", count)
	}
	payload = payload[4:]
	results := make([]result, 0, count)
	for range count {
		if len(payload) < 4 {
			return nil, corrupt("an answer is missing")
		}
		n := binary.LittleEndian.Uint32(payload)
		if payload = payload[4:]; uint64(n) > uint64(len(payload)) {
			return nil, corrupt("an answer of %d bytes where %d are left", n, len(payload))
		}
		r, err := parseResult(payload[:n])
		if err != nil {
			return nil, err
		}
		results, payload = append(results, r), payload[n:]
	}
	if len(payload) > 0 {
		return nil, corrupt("%d bytes behind the answers", len(payload))
	}
	return results, nil
}
