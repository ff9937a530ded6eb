package score

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// repository answers POST /v2/repository/index and …/models/M/{load,unload}; path is what follows
// /v2/repository. Clients leave a slash in a name as it is.
func (s *Server) repository(w http.ResponseWriter, r *http.Request, path string) error {
	if path == "/index" {
		return postOnly(w, r, s.repositoryIndex)
	}
	rest, ok := strings.CutPrefix(path, "/models/")
	if name, is := strings.CutSuffix(rest, "/load"); ok && is {
		return postOnly(w, r, func(w http.ResponseWriter, r *http.Request) error { return s.repositoryLoad(w, r, name) })
	}
	if name, is := strings.CutSuffix(rest, "/unload"); ok && is {
		return postOnly(w, r, func(w http.ResponseWriter, r *http.Request) error { return s.repositoryUnload(w, r, name) })
	}
	return noPage("/v2/repository" + path)
}

func postOnly(w http.ResponseWriter, r *http.Request, answer func(http.ResponseWriter, *http.Request) error) error {
	if r.Method != http.MethodPost {
		return notAllowed(w, r, http.MethodPost)
	}
	return answer(w, r)
}

// control reads the small JSON object that these routes take, giving each field to take. No body
// and an empty one are an empty object.
func (s *Server) control(w http.ResponseWriter, r *http.Request, take func(d *tensorjson.Decoder, key []byte) error) error {
	body, err := httpx.ReadBody(w, r, int64(s.opts.MaxBody), nil)
	if err != nil {
		return err
	}
	var d tensorjson.Decoder
	d.Reset(body)
	if d.Peek() == 0 {
		return d.End()
	}
	if err := object(&d, func(key []byte) error { return take(&d, key) }); err != nil {
		return err
	}
	return d.End()
}

func (s *Server) repositoryIndex(w http.ResponseWriter, r *http.Request) error {
	ready := false
	err := s.control(w, r, func(d *tensorjson.Decoder, key []byte) (err error) {
		if string(key) != "ready" {
			return unknown("field", key, []string{"ready"})
		}
		ready, err = d.Bool()
		return err
	})
	if err != nil {
		return err
	}
	out := []byte{'['}
	for i, m := range s.index(ready) {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendMessage(out, m)
	}
	return answer(w, jsonType, append(out, ']'))
}

// index lists the models, or those that are ready.
func (s *Server) index(ready bool) []*pb.RepositoryIndexResponse_ModelIndex {
	var out []*pb.RepositoryIndexResponse_ModelIndex
	for _, e := range s.entries {
		state, reason := e.look()
		if ready && state != stateReady {
			continue
		}
		out = append(out, &pb.RepositoryIndexResponse_ModelIndex{Name: e.Name, Version: e.Version, State: string(state), Reason: reason})
	}
	return out
}

func (s *Server) repositoryLoad(w http.ResponseWriter, r *http.Request, name string) error {
	err := s.control(w, r, func(d *tensorjson.Decoder, key []byte) error {
		if string(key) != "parameters" {
			return unknown("field", key, []string{"parameters"})
		}
		return object(d, loadParameter)
	})
	if err != nil {
		return err
	}
	patient(w)
	if err := s.controlLoad(r.Context(), name); err != nil {
		return err
	}
	return answer(w, jsonType, nil)
}

// patient takes the time limit of the request's arrival away: its body is there, and its work may
// take longer.
func patient(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // what cannot has none
}

// loadParameter refuses the parameters of a load: what the model is made of does not change here.
func loadParameter(key []byte) error {
	return zarpa.Errorf(zarpa.Invalid, "parameters: %.60q: not supported by this server", key).
		WithHint("a model is loaded as it was deployed; deploy another version to change it")
}

func (s *Server) repositoryUnload(w http.ResponseWriter, r *http.Request, name string) error {
	err := s.control(w, r, func(d *tensorjson.Decoder, key []byte) error {
		if string(key) != "parameters" {
			return unknown("field", key, []string{"parameters"})
		}
		return object(d, func(key []byte) error {
			if err := unloadParameter(key); err != nil {
				return err
			}
			_, err := d.Bool()
			return err
		})
	})
	if err != nil {
		return err
	}
	patient(w)
	if err := s.controlUnload(r.Context(), name); err != nil {
		return err
	}
	return answer(w, jsonType, nil)
}

// unloadParameter takes unload_dependents, which says nothing here: no model depends on another.
func unloadParameter(key []byte) error {
	if string(key) != "unload_dependents" {
		return unknown("parameter", key, []string{"unload_dependents"})
	}
	return nil
}

// controlLoad loads a model because a client says so.
func (s *Server) controlLoad(ctx context.Context, name string) error {
	if err := s.controlled(); err != nil {
		return err
	}
	e, err := s.find(name)
	if err != nil {
		return err
	}
	return s.load(ctx, e)
}

func (s *Server) controlUnload(ctx context.Context, name string) error {
	if err := s.controlled(); err != nil {
		return err
	}
	e, err := s.find(name)
	if err != nil {
		return err
	}
	return s.unload(ctx, e)
}

func (s *Server) grpcIndex(_ context.Context, in *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	return &pb.RepositoryIndexResponse{Models: s.index(in.GetReady())}, nil
}

func (s *Server) grpcLoad(ctx context.Context, in *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	for key := range in.GetParameters() {
		return nil, loadParameter([]byte(key))
	}
	return &pb.RepositoryModelLoadResponse{}, s.controlLoad(ctx, in.GetModelName())
}

func (s *Server) grpcUnload(ctx context.Context, in *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	for key := range in.GetParameters() {
		if err := unloadParameter([]byte(key)); err != nil {
			return nil, err
		}
	}
	return &pb.RepositoryModelUnloadResponse{}, s.controlUnload(ctx, in.GetModelName())
}
