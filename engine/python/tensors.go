package python

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"slices"

	"github.com/zarpa-dev/zarpa"
)

// step is what the bytes of each tensor in a frame begin at a multiple of.
const step = 64

// padding is the number of bytes from at to the next step.
func padding(at int) int { return (step - at%step) % step }

// described is the JSON at the beginning of a RUN or TENSORS payload.
type described struct {
	Wanted  []string         `json:"wanted"`
	Inputs  []describedValue `json:"inputs,omitempty"`
	Outputs []describedValue `json:"outputs,omitempty"`
}

type describedValue struct {
	Name  string            `json:"name"`
	Type  zarpa.ElementType `json:"datatype"`
	Shape []int64           `json:"shape"`
	Size  int               `json:"size"`
}

// appendRun is a RUN payload, whose numbers stay where they are. Error: too_large for more than a
// frame holds, invalid for a value that is no tensor.
func appendRun(in []zarpa.Tensor, wanted []string) (net.Buffers, error) {
	d := described{Wanted: wanted, Inputs: make([]describedValue, 0, len(in))}
	bodies := make([][]byte, 0, len(in))
	for _, t := range in {
		body := t.Data
		switch t.Type {
		case zarpa.String:
			body = appendTexts(t.Strings)
		case zarpa.Sequence, zarpa.Map, zarpa.Undefined:
			return nil, zarpa.Errorf(zarpa.Invalid, "input %q: datatype %s is no tensor's", t.Name, t.Type)
		default:
		}
		if t.Shape == nil {
			t.Shape = []int64{}
		}
		d.Inputs = append(d.Inputs, describedValue{t.Name, t.Type, t.Shape, len(body)})
		bodies = append(bodies, body)
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	head := append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...)
	parts, at := net.Buffers{head}, len(head)
	for _, body := range bodies {
		gap := padding(at)
		parts = append(parts, make([]byte, gap), body)
		at += gap + len(body)
	}
	if int64(at) > 1<<32-1 {
		return nil, zarpa.Errorf(zarpa.TooLarge, "the inputs: %d bytes, a worker takes at most %d", at, uint32(1<<32-1))
	}
	return parts, nil
}

func appendTexts(texts []string) []byte {
	size := 0
	for _, s := range texts {
		size += 4 + len(s)
	}
	b := make([]byte, 0, size)
	for _, s := range texts {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

// parseTensors reads a TENSORS payload; numbers stay where they are.
func parseTensors(payload []byte) ([]zarpa.Tensor, error) {
	if len(payload) < 4 || uint64(binary.LittleEndian.Uint32(payload)) > uint64(len(payload)-4) {
		return nil, corrupt("the description of the outputs")
	}
	at := 4 + int(binary.LittleEndian.Uint32(payload))
	var d described
	if err := decodeJSON(payload[4:at], &d); err != nil {
		return nil, err
	}
	out := make([]zarpa.Tensor, 0, len(d.Outputs))
	for _, v := range d.Outputs {
		at += padding(at)
		if v.Size < 0 || at > len(payload) || v.Size > len(payload)-at {
			return nil, corrupt("output %.100q of %d bytes", v.Name, v.Size)
		}
		t, err := parseTensor(v, payload[at:at+v.Size:at+v.Size])
		if err != nil {
			return nil, err
		}
		out, at = append(out, t), at+v.Size
	}
	return out, nil
}

func parseTensor(v describedValue, body []byte) (zarpa.Tensor, error) {
	t := zarpa.Tensor{Name: v.Name, Type: v.Type, Shape: v.Shape}
	if t.Shape == nil {
		t.Shape = []int64{}
	}
	if v.Type != zarpa.String {
		size, err := zarpa.ByteSize(v.Type, v.Shape)
		if err != nil || v.Type.Bits() == 0 || size != int64(len(body)) {
			return t, corrupt("output %.100q: %d bytes for %v of %v", v.Name, len(body), v.Shape, v.Type)
		}
		t.Data = body
		return t, nil
	}
	n, err := zarpa.Elements(v.Shape)
	if err != nil || n > int64(len(body))/4 {
		return t, corrupt("output %.100q: %d bytes for %v texts", v.Name, len(body), v.Shape)
	}
	t.Strings = make([]string, 0, n)
	for range n {
		if len(body) < 4 || uint64(binary.LittleEndian.Uint32(body)) > uint64(len(body)-4) {
			return t, corrupt("output %.100q: a text beyond its end", v.Name)
		}
		end := 4 + int(binary.LittleEndian.Uint32(body))
		t.Strings, body = append(t.Strings, string(body[4:end])), body[end:]
	}
	if len(body) > 0 {
		return t, corrupt("output %.100q: %d bytes behind its texts", v.Name, len(body))
	}
	return t, nil
}

// pick puts outputs into the signature's order, those that are wanted: all of these must be there.
func pick(out []zarpa.Tensor, sig zarpa.Signature, want []int) ([]zarpa.Tensor, error) {
	picked := make([]zarpa.Tensor, 0, len(want))
	for _, n := range want {
		info := sig.Outputs[n]
		i := slices.IndexFunc(out, func(t zarpa.Tensor) bool { return t.Name == info.Name })
		switch {
		case i >= 0 && out[i].Type != info.Type && info.Type != zarpa.Undefined:
			return nil, zarpa.Errorf(zarpa.ModelError, "the model's output %q: datatype is %s, its signature says %s", info.Name, out[i].Type, info.Type)
		case i >= 0:
			picked = append(picked, out[i])
		case !info.Optional:
			return nil, zarpa.Errorf(zarpa.ModelError, "the model gave no output %q", info.Name)
		}
	}
	return picked, nil
}
