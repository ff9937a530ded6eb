package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// form is a way to put a row into a request.
type form string

const (
	formScore  form = "JSON"      // {"data": …}, the plain form of the field
	formV2     form = "v2 JSON"   // Open Inference Protocol, data as numbers
	formBinary form = "v2 binary" // the same with the tensors behind the JSON, as tritonclient sends them
	formGRPC   form = "gRPC"      // the same as messages, raw_input_contents
	// formGRPCOwn is gRPC at an address where nothing else is spoken.
	formGRPCOwn form = "gRPC, own address"
	formNone    form = "–" // the raw loop
)

func (f form) isGRPC() bool { return f == formGRPC || f == formGRPCOwn }

// v2Path is where the Open Inference Protocol expects predictions.
func (m *model) v2Path() string { return "/v2/models/" + m.name + "/infer" }

// request is the bytes of a whole request: of HTTP, or for gRPC of the message.
func (m *model) request(f form) ([]byte, error) {
	switch f {
	case formV2:
		body, err := json.Marshal(v2Request{Inputs: []v2Input{{Name: m.input, Datatype: "FP32", Shape: m.shape, Data: m.row}}})
		return requestText(m.v2Path(), benchKey, body), err
	case formBinary:
		return m.binaryRequest()
	case formGRPC, formGRPCOwn:
		return proto.Marshal(&inferencepb.ModelInferRequest{
			ModelName:        m.name,
			Inputs:           []*inferencepb.ModelInferRequest_InferInputTensor{{Name: m.input, Datatype: "FP32", Shape: m.shape}},
			RawInputContents: [][]byte{m.raw()},
		})
	default:
		body, err := json.Marshal(map[string]any{"data": nested(m.row, m.shape)})
		return requestText("/score", benchKey, body), err
	}
}

type v2Request struct {
	Inputs     []v2Input      `json:"inputs"`
	Parameters map[string]any `json:"parameters,omitempty"`
}

type v2Input struct {
	Name       string         `json:"name"`
	Shape      []int64        `json:"shape"`
	Datatype   string         `json:"datatype"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Data       []float64      `json:"data,omitempty"`
}

// binaryRequest has what tritonclient puts on the wire: no Content-Type, the length of the JSON in
// a field of the head, and an answer wanted in the same form.
func (m *model) binaryRequest() ([]byte, error) {
	raw := m.raw()
	head, err := json.Marshal(v2Request{
		Inputs:     []v2Input{{Name: m.input, Shape: m.shape, Datatype: "FP32", Parameters: map[string]any{"binary_data_size": len(raw)}}},
		Parameters: map[string]any{"binary_data_output": true},
	})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: zarpa-bench\r\nAuthorization: Bearer %s\r\n", m.v2Path(), benchKey)
	fmt.Fprintf(&b, "Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n%s", len(head), len(head)+len(raw), head)
	b.Write(raw)
	return b.Bytes(), nil
}
