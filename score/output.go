package score

import (
	"encoding/base64"
	"strconv"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// Content types of outputs of BYTES whose elements are more than bytes.
const (
	jsonItems   = "application/json"
	base64Items = "base64"
)

// appendOutput writes one output of the answer: what it is, and its data or how many bytes of them
// follow the JSON.
func (c *call) appendOutput(out []byte, t *zarpa.Tensor) ([]byte, error) {
	how := c.how(t.Name)
	shown, contentType, err := c.shown(t, how)
	if err != nil {
		return out, err
	}
	out, _ = tensorjson.AppendString(append(out, `{"name":`...), t.Name)
	out = append(out, `,"datatype":"`...)
	out = append(out, shown.Type.String()...)
	out = append(out, `","shape":[`...)
	for i, n := range shown.Shape {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, n, 10)
	}
	out = append(out, ']')
	if how.binary {
		return c.appendBinary(out, &shown, contentType), nil
	}
	if shown.Type == zarpa.Float16 || shown.Type == zarpa.BFloat16 {
		return out, noJSONForm("output", t.Name, shown.Type)
	}
	if contentType != "" {
		out = append(out, `,"parameters":{"content_type":"`...)
		out = append(append(out, contentType...), `"}`...)
	}
	format := tensorjson.Format{NonFinite: c.allow}
	out, err = format.AppendFlat(append(out, `,"data":`...), &shown)
	return append(out, '}'), err
}

// appendBinary ends an output whose bytes follow the JSON. Numbers are sent from where they are.
func (c *call) appendBinary(out []byte, t *zarpa.Tensor, contentType string) []byte {
	piece := t.Data
	if t.Type == zarpa.String {
		piece = rawStrings(t.Strings)
	}
	c.pieces = append(c.pieces, piece)
	out = append(out, `,"parameters":{`...)
	if contentType != "" {
		out = append(out, `"content_type":"`...)
		out = append(append(out, contentType...), `",`...)
	}
	out = append(out, `"binary_data_size":`...)
	return append(strconv.AppendInt(out, int64(len(piece)), 10), "}}"...)
}

// shown is what is answered for an output, and its content type where it has one: the output
// itself, its largest classes, its text in base64, or the JSON texts of its items where it is no
// tensor.
func (c *call) shown(t *zarpa.Tensor, how requested) (out zarpa.Tensor, contentType string, err error) {
	switch {
	case how.classes > 0:
		out, err = classify(t, how.classes)
		return out, "", err
	case t.Type == zarpa.Sequence:
		out, err = c.itemTexts(t.Items)
		return out, jsonItems, err
	case t.Type == zarpa.Map:
		out, err = c.itemTexts([]zarpa.Tensor{*t})
		return out, jsonItems, err
	case t.Type == zarpa.String && how.base64 && !how.binary:
		return encodeBase64(t), base64Items, nil
	}
	return *t, "", nil
}

// itemTexts makes values that are no tensors a vector of JSON texts.
func (c *call) itemTexts(items []zarpa.Tensor) (zarpa.Tensor, error) {
	format := tensorjson.Format{NonFinite: c.allow}
	texts := zarpa.Tensor{Type: zarpa.String, Shape: []int64{int64(len(items))}, Strings: make([]string, len(items))}
	for i := range items {
		var err error
		if c.item, err = format.AppendNested(c.item[:0], &items[i]); err != nil {
			return texts, err
		}
		texts.Strings[i] = string(c.item)
	}
	return texts, nil
}

func encodeBase64(t *zarpa.Tensor) zarpa.Tensor {
	out := zarpa.Tensor{Type: zarpa.String, Shape: t.Shape, Strings: make([]string, len(t.Strings))}
	for i, s := range t.Strings {
		out.Strings[i] = base64.StdEncoding.EncodeToString([]byte(s))
	}
	return out
}
