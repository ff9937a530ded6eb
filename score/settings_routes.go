package score

import (
	"context"
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
	"github.com/zarpa-dev/zarpa/internal/tensorjson"
)

// Shared memory, trace and log settings are in the protocol's extensions and not here. Clients ask
// for them all the same, to begin with or to clean up: there is nothing registered and nothing set,
// which is answered, and only what would change that is refused.

const (
	systemMemory = "system shared memory"
	cudaMemory   = "CUDA shared memory"
)

// sharedMemory answers …/status, …/register and …/unregister of one kind; path is what follows
// /v2/systemsharedmemory or /v2/cudasharedmemory.
func (s *Server) sharedMemory(w http.ResponseWriter, r *http.Request, kind, path string) error {
	region, verb := "", path
	if rest, ok := strings.CutPrefix(path, "/region/"); ok {
		if i := strings.LastIndexByte(rest, '/'); i > 0 {
			region, verb = rest[:i], rest[i:]
		}
	}
	switch {
	case verb == "/status":
		if err := getOnly(w, r); err != nil {
			return err
		}
		if err := noRegion(kind, region); err != nil {
			return err
		}
		return answer(w, jsonType, []byte("[]"))
	case verb == "/unregister":
		return postOnly(w, r, func(w http.ResponseWriter, _ *http.Request) error { return answer(w, jsonType, nil) })
	case verb == "/register" && region != "":
		return postOnly(w, r, func(http.ResponseWriter, *http.Request) error { return noRegister(kind) })
	}
	return noPage(r.URL.Path)
}

// noRegion is not_found for the status of one region.
func noRegion(kind, region string) error {
	if region == "" {
		return nil
	}
	return zarpa.Errorf(zarpa.NotFound, "region %.100q: not found in %s", region, kind).WithHint("this server registers none")
}

func noRegister(kind string) error {
	return unsupported("%s", kind).WithHint("send and take tensors in the message")
}

// settings answers GET with an empty object, and refuses to change what.
func (s *Server) settings(w http.ResponseWriter, r *http.Request, what string) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return answer(w, jsonType, []byte("{}"))
	case http.MethodPost:
		err := s.control(w, r, func(_ *tensorjson.Decoder, key []byte) error { return noSetting(what, string(key)) })
		if err != nil {
			return err
		}
		return answer(w, jsonType, []byte("{}"))
	}
	return notAllowed(w, r, "GET, HEAD, POST")
}

func noSetting(what, key string) error {
	return unsupported("%s: %.60q", what, key).WithHint("set it where the replica is started")
}

// modelTrace answers /v2/models/M/trace/setting.
func (s *Server) modelTrace(w http.ResponseWriter, r *http.Request, _ place) error {
	return s.settings(w, r, "trace setting")
}

func (s *Server) traceSetting(_ context.Context, in *pb.TraceSettingRequest) (*pb.TraceSettingResponse, error) {
	if in.GetModelName() != "" {
		if _, err := s.find(in.GetModelName()); err != nil {
			return nil, err
		}
	}
	for key := range in.GetSettings() {
		return nil, noSetting("trace setting", key)
	}
	return &pb.TraceSettingResponse{}, nil
}

func (s *Server) logSettings(_ context.Context, in *pb.LogSettingsRequest) (*pb.LogSettingsResponse, error) {
	for key := range in.GetSettings() {
		return nil, noSetting("log setting", key)
	}
	return &pb.LogSettingsResponse{}, nil
}

func (s *Server) systemMemoryStatus(_ context.Context, in *pb.SystemSharedMemoryStatusRequest) (*pb.SystemSharedMemoryStatusResponse, error) {
	return &pb.SystemSharedMemoryStatusResponse{}, noRegion(systemMemory, in.GetName())
}

func (s *Server) systemMemoryRegister(context.Context, *pb.SystemSharedMemoryRegisterRequest) (*pb.SystemSharedMemoryRegisterResponse, error) {
	return nil, noRegister(systemMemory)
}

func (s *Server) systemMemoryUnregister(context.Context, *pb.SystemSharedMemoryUnregisterRequest) (*pb.SystemSharedMemoryUnregisterResponse, error) {
	return &pb.SystemSharedMemoryUnregisterResponse{}, nil
}

func (s *Server) cudaMemoryStatus(_ context.Context, in *pb.CudaSharedMemoryStatusRequest) (*pb.CudaSharedMemoryStatusResponse, error) {
	return &pb.CudaSharedMemoryStatusResponse{}, noRegion(cudaMemory, in.GetName())
}

func (s *Server) cudaMemoryRegister(context.Context, *pb.CudaSharedMemoryRegisterRequest) (*pb.CudaSharedMemoryRegisterResponse, error) {
	return nil, noRegister(cudaMemory)
}

func (s *Server) cudaMemoryUnregister(context.Context, *pb.CudaSharedMemoryUnregisterRequest) (*pb.CudaSharedMemoryUnregisterResponse, error) {
	return &pb.CudaSharedMemoryUnregisterResponse{}, nil
}
