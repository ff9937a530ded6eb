package tensorjson

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/zarpa-dev/zarpa"
)

func int64s(v ...int64) zarpa.Tensor {
	t := zarpa.Tensor{Type: zarpa.Int64, Shape: []int64{int64(len(v))}}
	for _, n := range v {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(n))
	}
	return t
}

func float32s(v ...float32) zarpa.Tensor {
	t := zarpa.Tensor{Type: zarpa.Float32, Shape: []int64{int64(len(v))}}
	for _, f := range v {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(f))
	}
	return t
}

func TestSequencesAndMapsAreJSON(t *testing.T) {
	t.Parallel()
	m := zarpa.Tensor{Type: zarpa.Map, Items: []zarpa.Tensor{int64s(0, 1), float32s(0.9, 0.1)}}
	names := zarpa.Tensor{Type: zarpa.Map, Items: []zarpa.Tensor{{Type: zarpa.String, Shape: []int64{1}, Strings: []string{`a"b`}}, int64s(3)}}
	matrix := float32s(1, 2, 3, 4)
	matrix.Shape = []int64{2, 2}
	for want, v := range map[string]zarpa.Tensor{
		`[{"0":0.9,"1":0.1},{"a\"b":3}]`: {Type: zarpa.Sequence, Items: []zarpa.Tensor{m, names}},
		`[[1,2],[[1,2],[3,4]],null,[]]`:  {Type: zarpa.Sequence, Items: []zarpa.Tensor{int64s(1, 2), matrix, {}, {Type: zarpa.Sequence}}},
		`{"0":[1,2],"1":[3,4]}`:          {Type: zarpa.Map, Items: []zarpa.Tensor{int64s(0, 1), matrix}},
		`{"5":[7]}`:                      {Type: zarpa.Map, Items: []zarpa.Tensor{int64s(5), {Type: zarpa.Sequence, Items: []zarpa.Tensor{int64s(7)}}}},
		`{}`:                             {Type: zarpa.Map, Items: []zarpa.Tensor{int64s(), float32s()}},
	} {
		out, err := Format{}.AppendNested(nil, &v)
		if err != nil || string(out) != want {
			t.Errorf("%s, %v, want %s", out, err, want)
		}
	}
}

func TestWhatJSONCannotCarryIsAModelError(t *testing.T) {
	t.Parallel()
	short := int64s(1, 2)
	short.Shape = []int64{3}
	for want, v := range map[string]zarpa.Tensor{
		"element 1 is NaN":        float32s(1, float32(math.NaN())),
		"not valid UTF-8":         {Type: zarpa.String, Shape: []int64{1}, Strings: []string{"\xff"}},
		"cannot be written":       {Type: zarpa.Complex64, Shape: []int64{1}, Data: make([]byte, 8)},
		"16 bytes or strings":     short,
		"is negative":             {Type: zarpa.Int8, Shape: []int64{-1}},
		"2 keys and 1 values":     {Type: zarpa.Map, Items: []zarpa.Tensor{int64s(1, 2), int64s(1)}},
		"a map of 1 parts":        {Type: zarpa.Map, Items: []zarpa.Tensor{int64s(1)}},
		"a map with keys of FP32": {Type: zarpa.Map, Items: []zarpa.Tensor{float32s(1), int64s(1)}},
	} {
		_, err := Format{}.AppendNested(nil, &v)
		if e := zarpa.AsError(err); err == nil || e.Code != zarpa.ModelError || !strings.Contains(e.Message, want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
