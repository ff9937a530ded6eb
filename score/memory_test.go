//go:build linux

package score

import (
	"context"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/engine/onnx"
)

// resident is the memory of this process, in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// The test is not parallel: it measures the process.
func TestModelsComeAndGoWhileOthersServe(t *testing.T) {
	path := libraryPath(t)
	e := onnx.New(onnx.Options{Library: path})
	defer e.Close()
	model := func(name, dir, file string) ModelOptions {
		return ModelOptions{Name: name, Load: func(ctx context.Context) (zarpa.Session, error) {
			return e.Load(ctx, dir, zarpa.LoadOptions{File: file, Threads: 1})
		}}
	}
	srv := newServer(t, nil, Options{MaxBatchRows: 16, MaxBatchDelay: time.Millisecond, Models: []ModelOptions{
		model("stays", zoo, "batch_double.onnx"), model("ten_ms", "../bench/models", "ten_ms.onnx"), model("iris", "../examples/iris", "iris.onnx"),
	}})
	if err := srv.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := srv.Handler()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	asked := make([]int, 3)
	for g := range asked {
		wg.Go(func() {
			for ctx.Err() == nil {
				if w := score(h, `{"data":[[1,2]]}`); w.Code != http.StatusOK || w.Body.String() != `{"y":[[2,4]]}`+"\n" {
					t.Errorf("%d %s", w.Code, w.Body)
					return
				}
				asked[g]++
			}
		})
	}
	rounds := func(n int) {
		for range n {
			for _, entry := range srv.entries[1:] {
				if err := srv.unload(t.Context(), entry); err != nil {
					t.Fatal(err)
				}
				if err := srv.load(t.Context(), entry); err != nil {
					t.Fatal(err)
				}
				body := map[string]string{
					"ten_ms": `{"inputs":[{"name":"x","shape":[1,3072],"datatype":"FP32","data":[` + strings.Repeat("0,", 3071) + `0]}]}`,
					"iris":   `{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}`,
				}[entry.Name]
				if w := ask(h, http.MethodPost, "/v2/models/"+entry.Name+"/infer", body); w.Code != http.StatusOK {
					t.Errorf("%s: %d %s", entry.Name, w.Code, w.Body)
				}
			}
		}
	}
	const most = 8 << 20
	rounds(15)
	before := resident(t)
	rounds(50)
	after := resident(t)
	// what is kept stays; what requests hold at this moment, and what is yet to be collected, does not
	for tries := 0; after-before > most && tries < 8; tries++ {
		rounds(3)
		after = min(after, resident(t))
	}
	stop()
	wg.Wait()
	t.Logf("resident before %d KiB, after 100 unloads and loads %d KiB; %d requests to another model", before>>10, after>>10, asked[0]+asked[1]+asked[2])
	if grown := after - before; grown > most {
		t.Errorf("they kept %d KiB", grown>>10)
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
}
