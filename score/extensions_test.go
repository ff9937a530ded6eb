package score

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

func TestStatisticsRoutes(t *testing.T) {
	t.Parallel()
	h := newServer(t, iris(), Options{}).Handler()
	for _, rows := range []string{oneRow, `{"data":[[1,2,3,4],[1,2,3,4]]}`, oneRow, `{"data":3}`} {
		ask(h, http.MethodPost, "/score", rows)
	}
	for path, name := range map[string]string{"/v2/models/stats": "iris", "/v2/models/iris/stats": "iris", "/v2/models/flowers/versions/3/stats": "flowers"} {
		w := ask(h, http.MethodGet, path, "")
		var got struct {
			Stats []struct {
				Name           string
				Version        string
				LastInference  int64                                 `json:"last_inference"`
				InferenceCount int                                   `json:"inference_count"`
				ExecutionCount int                                   `json:"execution_count"`
				InferenceStats map[string]struct{ Count, NS uint64 } `json:"inference_stats"`
				BatchStats     []struct {
					Size  int `json:"batch_size"`
					Infer struct {
						Count int
						NS    uint64
					} `json:"compute_infer"`
				} `json:"batch_stats"`
			} `json:"model_stats"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || len(got.Stats) != 1 {
			t.Fatalf("%s: %d %s %v", path, w.Code, w.Body, err)
		}
		s := got.Stats[0]
		if s.Name != name || s.Version != "3" || s.InferenceCount != 4 || s.ExecutionCount != 3 || time.Since(time.UnixMilli(s.LastInference)) > time.Minute {
			t.Errorf("%s: %+v", path, s)
		}
		for key, want := range map[string]uint64{"success": 3, "fail": 1, "queue": 3, "compute_input": 3, "compute_infer": 3, "compute_output": 3, "cache_hit": 0, "cache_miss": 0} {
			if d, ok := s.InferenceStats[key]; !ok || d.Count != want || (d.NS == 0) != (want == 0 || key == "queue" && d.NS == 0) {
				t.Errorf("%s: %s is %+v", path, key, d)
			}
		}
		if len(s.BatchStats) != 2 || s.BatchStats[0].Size != 1 || s.BatchStats[0].Infer.Count != 2 || s.BatchStats[1].Size != 2 || s.BatchStats[1].Infer.Count != 1 {
			t.Errorf("%s: %+v", path, s.BatchStats)
		}
	}
}

func TestConfigRoute(t *testing.T) {
	t.Parallel()
	y := zarpa.Tensor{Name: "y", Type: zarpa.BFloat16, Shape: []int64{-1, 2}}
	batched := newServer(t, constant(y), Options{MaxBatchRows: 8, MaxBatchDelay: 3 * time.Millisecond}).Handler()
	for _, c := range []struct {
		h    http.Handler
		path string
		want string
	}{
		{newServer(t, iris(), Options{}).Handler(), "iris", `{"name":"iris","platform":"onnx_onnxv1","version_policy":{"specific":{"versions":[3]}},"max_batch_size":0,` +
			`"input":[{"name":"input","data_type":"TYPE_FP32","dims":[-1,4],"optional":false}],` +
			`"output":[{"name":"label","data_type":"TYPE_INT64","dims":[-1],"label_filename":""},{"name":"probabilities","data_type":"TYPE_STRING","dims":[-1],"label_filename":""}],` +
			`"parameters":{},"backend":"onnxruntime","model_transaction_policy":{"decoupled":false}}`},
		{newServer(t, iris(), Options{MaxBatchRows: 8}).Handler(), "iris", `"max_batch_size":8,"input":[{"name":"input","data_type":"TYPE_FP32","dims":[4],`},
		{batched, "flowers/versions/3", `"max_batch_size":8,"input":[{"name":"x","data_type":"TYPE_FP32","dims":[],"optional":false}],"output":[{"name":"y","data_type":"TYPE_BF16","dims":[2],"label_filename":""}],` +
			`"dynamic_batching":{"preferred_batch_size":[],"max_queue_delay_microseconds":3000}`},
		{both(t, storyteller("a"), Options{MaxBatchRows: 8}).Handler(), "teller", `"model_transaction_policy":{"decoupled":true}`},
	} {
		w := ask(c.h, http.MethodGet, "/v2/models/"+c.path+"/config", "")
		if w.Code != 200 || !json.Valid(w.Body.Bytes()) || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %s", c.path, w.Code, w.Body, c.want)
		}
	}
}

func TestExtensionRoutes(t *testing.T) {
	t.Parallel()
	fails := errors.New("no")
	srv := newServer(t, nil, Options{ModelControl: zarpa.ModelControlExplicit, Models: []ModelOptions{
		{Name: "a/b", Version: "1", Load: func(context.Context) (zarpa.Session, error) { return iris(), nil }},
		{Name: "broken", Load: func(context.Context) (zarpa.Session, error) {
			return nil, zarpa.Errorf(zarpa.Invalid, "not a model").Because(fails)
		}},
	}})
	h := srv.Handler()
	fixed := newServer(t, iris(), Options{}).Handler()
	for _, c := range []struct {
		h                  http.Handler
		method, path, body string
		status             int
		want               string
	}{
		{h, "POST", "/v2/repository/index", "", 200, `[{"name":"a/b","version":"1","state":"UNAVAILABLE","reason":"not loaded yet"},{"name":"broken","version":"",`},
		{h, "POST", "/v2/repository/index", `{"ready":true}`, 200, `[]`},
		{h, "POST", "/v2/repository/models/a/b/load", `{}`, 200, ""},
		{h, "POST", "/v2/repository/models/a/b/load", "", 200, ""},
		{h, "POST", "/v2/repository/index", `{"ready":true}`, 200, `[{"name":"a/b","version":"1","state":"READY","reason":""}]`},
		{h, "POST", "/v2/repository/index", `{"raedy":true}`, 400, "did you mean ready?"},
		{h, "POST", "/v2/repository/index", strings.Repeat("[", 5000), 400, "error"},
		{h, "GET", "/v2/repository/index", "", 405, "error"},
		{h, "GET", "/v2/models/a/b/ready", "", 200, `"ready":true`},
		{h, "POST", "/v2/repository/models/broken/load", "", 400, `{"error":"not a model"}`},
		{h, "POST", "/v2/repository/index", "{}", 200, `{"name":"broken","version":"","state":"UNAVAILABLE","reason":"not a model"}`},
		{h, "POST", "/v2/repository/models/rose/load", "", 404, "Request for unknown model: 'rose'"},
		{h, "POST", "/v2/repository/models/a/b/load", `{"parameters":{"config":"{}"}}`, 400, `\"config\": not supported`},
		{h, "POST", "/v2/repository/models/a/b/load", `{"parameters":{"file:1/model.onnx":"eA=="}}`, 400, `file:1/model.onnx`},
		{h, "POST", "/v2/repository/models/a/b/unload", `{"parameters":{"unload_dependents":false}}`, 200, ""},
		{h, "POST", "/v2/repository/models/a/b/unload", `{"parameters":{"unload":false}}`, 400, "unload_dependents"},
		{h, "GET", "/v2/models/a/b", "", 503, "is not loaded: unloaded"},
		{h, "POST", "/v2/models/a/b/infer", "{}", 503, "Request for unknown model: 'a/b' is not loaded"},
		{h, "GET", "/v2/models/a/b/stats", "", 200, `"name":"a/b"`},
		{h, "DELETE", "/v2/repository/models/a/b/load", "", 405, "error"},
		{h, "POST", "/v2/repository/models/a/b", "", 404, "error"},
		{fixed, "POST", "/v2/repository/models/iris/unload", "", 400, "explicit model load / unload is not allowed"},
		{fixed, "GET", "/v2/systemsharedmemory/status", "", 200, "[]"},
		{fixed, "GET", "/v2/systemsharedmemory/region/r/status", "", 404, `region \"r\"`},
		{fixed, "POST", "/v2/systemsharedmemory/region/r/register", `{"key":"/k"}`, 501, "not supported"},
		{fixed, "POST", "/v2/systemsharedmemory/region/r/unregister", "", 200, ""},
		{fixed, "POST", "/v2/cudasharedmemory/unregister", "", 200, ""},
		{fixed, "POST", "/v2/cudasharedmemory/region/r/register", "", 501, "CUDA shared memory"},
		{fixed, "GET", "/v2/cudasharedmemory/region/r/register", "", 405, "error"},
		{fixed, "GET", "/v2/cudasharedmemory/region/r", "", 404, "error"},
		{fixed, "GET", "/v2/trace/setting", "", 200, "{}"},
		{fixed, "POST", "/v2/trace/setting", `{"trace_level":["OFF"]}`, 501, `\"trace_level\": not supported`},
		{fixed, "GET", "/v2/models/iris/trace/setting", "", 200, "{}"},
		{fixed, "POST", "/v2/models/iris/trace/setting", `{"trace_level":null}`, 501, "trace_level"},
		{fixed, "GET", "/v2/logging", "", 200, "{}"},
		{fixed, "POST", "/v2/logging", "", 200, "{}"},
		{fixed, "POST", "/v2/logging", `{"log_verbose_level":1}`, 501, "log_verbose_level"},
		{fixed, "DELETE", "/v2/logging", "", 405, "error"},
	} {
		w := ask(c.h, c.method, c.path, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s %s: %d %s, want %d %s", c.method, c.path, c.body, w.Code, w.Body, c.status, c.want)
		}
	}
}

func FuzzGenerate(f *testing.F) {
	fuzz(f, "/v2/models/iris/generate", `{"x":[1,2],"n":3,"s":"a","id":"1","parameters":{"k":[1]}}`,
		`{"x":[[1,2],[3,4]],"n":[3,4],"s":[["a"],["b"]],"stream":false}`, `{"x":[],"n":[],"s":[]}`, `{"s":{},"parameters":{"allow_nan":true}}`, `{"id":1}`, `{"n":[[[[1]]]]}`)
}
