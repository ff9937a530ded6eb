//go:build cgo

package onnx_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The binding's module carries the published header: every place of the API's table that native.c
// names must be the place the header gives it.
func TestNativePlacesAreThoseOfTheHeader(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	header, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "onnxruntime_c_api.h"))
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("native.c")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(header), "\nstruct OrtApi {")
	table, _, _ = strings.Cut(table, "\n};")
	comment := regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`)
	member := regexp.MustCompile(`ORT_API2_STATUS\(\s*(\w+)|ORT_CLASS_RELEASE\((\w+)|ORT_API_T\([^,]+,\s*(\w+)|ORT_API_CALL\s*\*\s*(\w+)\s*\)`)
	places := map[string]int{}
	for i, m := range member.FindAllStringSubmatch(comment.ReplaceAllString(table, ""), -1) {
		name := m[1] + m[3] + m[4]
		if m[2] != "" {
			name = "Release" + m[2]
		}
		places[name] = i
	}
	_, named, _ := strings.Cut(string(code), "// Places in the table.")
	named, _, _ = strings.Cut(named, "};")
	found := regexp.MustCompile(`(\w+) = (\d+),`).FindAllStringSubmatch(named, -1)
	if len(found) < 40 {
		t.Fatalf("only %d places read from native.c", len(found))
	}
	for _, m := range found {
		want, ok := places[m[1]]
		if got, _ := strconv.Atoi(m[2]); !ok || got != want {
			t.Errorf("%s: native.c says %s, the header %d (found %v)", m[1], m[2], want, ok)
		}
	}
}
