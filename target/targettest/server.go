package targettest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Server is the smallest replica: it answers the health paths, GET /-/self, and POST /score with
// "ok" after the time in the query parameter hold. Drivers are tested with it where no scoring
// server is at hand.
type Server struct {
	// Label is told at GET /-/self.
	Label string
	// Log takes one line per event, the same first one in every run.
	Log io.Writer

	server http.Server
	once   sync.Once
	mu     sync.Mutex
	sick   bool
}

// Serve answers at "unix:/path" or "host:port" until Shutdown or a failure; listening, when not
// nil, is called with the address that replicas report.
func (s *Server) Serve(listen string, listening func(address string)) error {
	fmt.Fprintln(s.Log, "replica starts")
	network, address := "tcp", listen
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		network, address = "unix", path
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), network, address)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Log, "listening on %s\n", listen)
	s.server.Handler = s.handler()
	s.server.ReadHeaderTimeout = 10 * time.Second
	if listening != nil {
		if network == "tcp" {
			listen = "http://" + l.Addr().String()
		}
		listening(listen)
	}
	if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown lets requests end and then ends Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	s.once.Do(func() { fmt.Fprintln(s.Log, "draining") })
	err := s.server.Shutdown(ctx)
	if err != nil {
		_ = s.server.Close()
	}
	return err
}

// Close ends Serve and every request at once.
func (s *Server) Close() error { return s.server.Close() }

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/health/live", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v2/health/ready", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.sick {
			http.Error(w, "told to be unready", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /ready/{state}", func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sick = r.PathValue("state") != "yes"
	})
	mux.HandleFunc("GET /-/self", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"label": s.Label, "pid": os.Getpid()})
	})
	mux.HandleFunc("POST /score", func(w http.ResponseWriter, r *http.Request) {
		hold, _ := time.ParseDuration(r.URL.Query().Get("hold"))
		timer := time.NewTimer(hold)
		defer timer.Stop()
		select {
		case <-timer.C:
			_, _ = io.WriteString(w, "ok")
		case <-r.Context().Done():
		}
	})
	return mux
}

// Post sends a request to a [Server], on a connection of its own, and returns an error for any
// answer but 200.
func Post(ctx context.Context, address, path string) error {
	t := &http.Transport{DisableKeepAlives: true}
	base := address
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		base = "http://replica"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %d %s", path, resp.StatusCode, body)
	}
	return err
}

// Call predicts with a [Server]; the answer takes hold. It fits [Config].Call.
func Call(ctx context.Context, address string, hold time.Duration) error {
	return Post(ctx, address, "/score?hold="+hold.String())
}
