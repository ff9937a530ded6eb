package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// held is one example: its model, and a request whose answer its own framework gave.
type held struct {
	file  string
	body  string
	right func([]byte) bool
}

// example reads one of the examples with its held-out rows.
func example(t *testing.T, name string) held {
	t.Helper()
	var rows struct {
		Inputs       []json.RawMessage `json:"inputs"`
		Label, Digit []int
	}
	b, err := os.ReadFile(filepath.Join("..", "examples", name, "heldout.json"))
	if err == nil {
		err = json.Unmarshal(b, &rows)
	}
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"data": rows.Inputs[:4]})
	if err != nil {
		t.Fatal(err)
	}
	wanted := append(rows.Label, rows.Digit...)[:4] // an example has one of them
	return held{filepath.Join("..", "examples", name, name+".onnx"), string(body), func(b []byte) bool {
		var answer struct{ Label, Digit []int }
		return json.Unmarshal(b, &answer) == nil && slices.Equal(append(answer.Label, answer.Digit...), wanted)
	}}
}
