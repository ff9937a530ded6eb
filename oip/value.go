package oip

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

func valueChecks() []check {
	of := func(id string, l Level, says string) Check {
		return Check{ID: id, Group: REST, Level: l, Says: says, Section: "REST: Tensor Data", PerModel: true}
	}
	nan := of("rest.value.nan", Should, "NaN and infinities, which JSON cannot say, are never answered as null")
	nan.Choices = "bare NaN refused, or taken and answered"
	empty := of("rest.value.empty", Should, "a tensor without elements, its first dimension 0, is answered with whole outputs or refused with 400 to 499")
	empty.Choices = "answered or refused"
	zero := of("rest.value.negative-zero", Should, "negative zero is written with a fraction: many readers take -0 for an integer, which has no sign")
	zero.Section = "what clients read"
	return []check{
		{Check: zero, needs: needJSON | needSame, ask: negativeZero},
		{Check: of("rest.value.number-forms", Should, "2, 2.0 and 0.2e1 are one number"), needs: needJSON | needSame, ask: numberForms},
		{Check: of("rest.value.extremes", Must, "the largest and smallest elements of a datatype survive JSON: the answer is that of the same bits in binary"), needs: needJSON | needSame, ask: extremes},
		{Check: of("rest.value.text", Must, "a BYTES element is the text of a JSON string, however it is escaped"), needs: needJSON | needSame, ask: texts},
		{Check: nan, needs: needJSON, ask: notFinite},
		{Check: empty, needs: needJSON, ask: emptyTensor},
	}
}

func numberForms(ctx context.Context, p *probe) (string, error) {
	one := slices.Clone(p.sample)
	found := false
	for i, t := range one {
		if !isFloat(t.Type) || count(t) == 0 {
			continue
		}
		found = true
		t.Data = slices.Repeat(number2(t.Type), count(t))
		one[i] = t
	}
	if !found {
		return "", skip("no input of floats")
	}
	want, err := p.infer(ctx, p.plainForm(), one)
	if err != nil {
		return "", err
	}
	for _, form := range []string{"2.0", "0.2e1", "20E-1", "2e+0"} {
		body := newRequest(p.plainForm(), one)
		for i, t := range one {
			if isFloat(t.Type) {
				body.Inputs[i].Data = []byte(strings.ReplaceAll(string(body.Inputs[i].Data), "2", form))
			}
		}
		r, err := p.send(ctx, body)
		if err != nil {
			return "", err
		}
		got, err := r.tensors()
		if err != nil {
			return "", err
		}
		if d := sameTensors(want, got); d != "" {
			return "", differs("the answer of 2", "%s as %s", d, form)
		}
	}
	return "one number", nil
}

// number2 is 2 as the bytes of a float type that JSON has.
func number2(t zarpa.ElementType) []byte {
	b, _ := number(t, "2") // FP32 and FP64 alone come here
	return b
}

// plainForm is the JSON form that the sample is sent in.
func (p *probe) plainForm() form {
	if p.form == nestedJSON {
		return nestedJSON
	}
	return flatJSON
}

// exact is a form without JSON, when there is one.
func (p *probe) exact() (form, bool) {
	switch {
	case p.run.offers("binary_tensor_data"):
		return binaryREST, true
	case p.run.rpc != nil:
		return rawGRPC, true
	}
	return 0, false
}

func extremes(ctx context.Context, p *probe) (string, error) {
	f, ok := p.exact()
	if !ok {
		return "", skip("neither binary tensors nor gRPC to compare with")
	}
	tensors := slices.Clone(p.sample)
	found := false
	for i, t := range tensors {
		words := edges(t.Type)
		if words == nil || count(t) == 0 {
			continue
		}
		found = true
		size := t.Type.Bits() / 8
		t.Data = slices.Clone(t.Data)
		for k := range count(t) {
			copy(t.Data[k*size:], binary.LittleEndian.AppendUint64(nil, words[k%len(words)])[:size])
		}
		tensors[i] = t
	}
	if !found {
		return "", skip("no input of numbers")
	}
	want, err := p.infer(ctx, f, tensors)
	if err != nil {
		return "", skip("the model does not take extremes: %v", err)
	}
	if !finite(want) {
		return "", skip("the answer to extremes is beyond JSON's numbers")
	}
	got, err := p.infer(ctx, p.plainForm(), tensors)
	if err != nil {
		return "", err
	}
	if d := sameTensors(want, got); d != "" {
		return "", differs("the same bits as by "+f.String(), "%s", d)
	}
	return "the same bits", nil
}

// finite says whether tensors are free of NaN and infinities.
func finite(list []zarpa.Tensor) bool {
	for _, t := range list {
		for i := range count(t) {
			f := 0.0
			switch t.Type {
			case zarpa.Float32:
				f = float64(math.Float32frombits(uint32(bits(t, i)))) //nolint:gosec // four bytes
			case zarpa.Float64:
				f = math.Float64frombits(bits(t, i))
			default: // integers are finite, halves never come here
			}
			if math.IsNaN(f) || math.IsInf(f, 0) {
				return false
			}
		}
	}
	return true
}

// edges are the largest and the smallest elements of a type, of those that JSON has.
func edges(t zarpa.ElementType) []uint64 {
	width := t.Bits()
	top := uint64(1) << (max(1, width) - 1)
	switch {
	case t == zarpa.Float32:
		return words32(math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, 0.1, 16777217, float32(math.Copysign(0, -1)))
	case t == zarpa.Float64:
		return words64(math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 0.1, 9007199254740993, math.Copysign(0, -1))
	case signed(t):
		return []uint64{top - 1, top, math.MaxUint64, 0}
	case t >= zarpa.Uint8 && t <= zarpa.Uint64:
		return []uint64{top | (top - 1), top, 0}
	}
	return nil
}

func words32(list ...float32) []uint64 {
	var out []uint64
	for _, f := range list {
		out = append(out, uint64(math.Float32bits(f)))
	}
	return out
}

func words64(list ...float64) []uint64 {
	var out []uint64
	for _, f := range list {
		out = append(out, math.Float64bits(f))
	}
	return out
}

func negativeZero(ctx context.Context, p *probe) (string, error) {
	tensors := slices.Clone(p.sample)
	found := false
	for i, t := range tensors {
		if !isFloat(t.Type) || count(t) == 0 {
			continue
		}
		found = true
		b, _ := number(t.Type, "-0") // FP32 and FP64 alone come here
		t.Data = slices.Repeat(b, count(t))
		tensors[i] = t
	}
	if !found {
		return "", skip("no input of floats")
	}
	r, err := p.send(ctx, newRequest(p.plainForm(), tensors))
	if err != nil {
		return "", skip("the model does not take zeros: %v", err)
	}
	for _, o := range r.outputs {
		text := strings.NewReplacer("[", ",", "]", ",", " ", "", "\n", "").Replace(string(o.Data))
		if isFloat(elementOf(o.Datatype)) && strings.Contains(","+text+",", ",-0,") {
			return "", differs("-0.0", "output %q: -0", o.name())
		}
	}
	return "no -0", nil
}

// elementOf is the element type of a datatype, Undefined when there is none.
func elementOf(datatype string) zarpa.ElementType { return declared{Datatype: datatype}.element() }

func texts(ctx context.Context, p *probe) (string, error) {
	awkward := []string{"ñ ☃ \U0001f6a2", "", "a\"b\\c/\t\n", "\u0000\u2028"}
	tensors := slices.Clone(p.sample)
	plain, escaped := p.plain(), p.plain()
	found := false
	for i, t := range tensors {
		if t.Type != zarpa.String || count(t) == 0 {
			continue
		}
		found = true
		t.Strings = slices.Clone(t.Strings)
		for k := range t.Strings {
			t.Strings[k] = awkward[k%len(awkward)]
		}
		plain.Inputs[i].Data = flat(t)
		escaped.Inputs[i].Data = []byte(asciiOnly(string(flat(t))))
	}
	if !found {
		return "", skip("no input of BYTES")
	}
	want, err := p.send(ctx, plain)
	if err != nil {
		return "", skip("the model does not take such texts: %v", err)
	}
	got, err := p.send(ctx, escaped)
	if err != nil {
		return "", err
	}
	a, err := want.tensors()
	if err != nil {
		return "", err
	}
	b, err := got.tensors()
	if err != nil {
		return "", err
	}
	if d := sameTensors(a, b); d != "" {
		return "", differs("the same for escaped and bare characters", "%s", d)
	}
	return "the same", nil
}

// asciiOnly writes what is beyond ASCII, and the slash, as JSON's escapes.
func asciiOnly(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '/':
			b.WriteString(`\/`)
		case r < 0x80:
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04X`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		}
	}
	return b.String()
}

func notFinite(ctx context.Context, p *probe) (string, error) {
	body := p.plain()
	found := false
	for i, t := range p.sample {
		if isFloat(t.Type) && count(t) > 0 {
			found = true
			list := slices.Repeat([]string{"NaN"}, count(t))
			body.Inputs[i].Data = []byte(`"[` + strings.Join(list, ",") + `]"`)
		}
	}
	if !found {
		return "", skip("no input of floats")
	}
	text, header := body.encode()
	text = []byte(strings.NewReplacer(`"[NaN`, `[NaN`, `NaN]"`, `NaN]`).Replace(string(text)))
	a, err := p.run.wire.do(ctx, request{method: http.MethodPost, path: modelPath(p.name) + "/infer", header: header, body: text})
	if err != nil {
		return "", err
	}
	if a.status == http.StatusOK && strings.Contains(strings.ReplaceAll(string(a.body), `"parameters":null`, ""), "null") {
		return "", differs("no null among the elements", "%s", a.said())
	}
	return a.said(), nil
}

func emptyTensor(ctx context.Context, p *probe) (string, error) {
	for _, d := range p.inputs {
		if len(d.Shape) == 0 || d.Shape[0] != -1 {
			return "", skip("the first dimension of %q is fixed", d.Name)
		}
	}
	tensors, err := p.madeUp(2)
	if err != nil {
		return "", skip("%v", err)
	}
	for i := range tensors {
		tensors[i].Shape[0] = 0
		tensors[i] = fill(zarpa.Tensor{Name: tensors[i].Name, Type: tensors[i].Type, Shape: tensors[i].Shape}, 0)
	}
	body, header := newRequest(flatJSON, tensors).encode()
	a, err := p.run.wire.do(ctx, request{method: http.MethodPost, path: modelPath(p.name) + "/infer", header: header, body: body})
	if err != nil {
		return "", err
	}
	if a.status >= 400 && a.status < 500 {
		return "refused: " + a.said(), nil
	}
	r, err := readReply(a)
	if err == nil {
		_, err = r.tensors()
	}
	return "answered", err
}
