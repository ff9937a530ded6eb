package gateway_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/gateway"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func TestLimitsOfMessagesFollowTheRoutes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, g *served, c client) {
		in := &pb.ModelInferRequest{ModelName: "iris", RawInputContents: [][]byte{make([]byte, 6<<20)}}
		infer := func(ctx ...string) error {
			_, err := c.ModelInfer(with(t.Context(), ctx...), in)
			return err
		}
		wantCode(t, infer(), codes.ResourceExhausted, "larger than")
		r := g.Routes().Endpoints[0]
		r.MaxBody = 10 << 20
		g.set(r)
		eventually(t, "clients are on connections with the new limit", func() bool { return infer() == nil })
		r.MaxBody = 1 << 20
		g.set(r)
		wantCode(t, infer(), codes.ResourceExhausted, "max_body")
		// Without a key that opens something, nothing of a message is read.
		_, err := c.ModelInfer(t.Context(), in)
		wantCode(t, err, codes.Unauthenticated, "key")
	}, speaks(&speaker{}))
}

// What needs no key must cost no memory: a message is as large as the largest max_body.
func TestNothingIsReadWithoutAKey(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, _ *served, c client) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for method, answer := range map[string]proto.Message{
			pb.GRPCInferenceService_ServerLive_FullMethodName:      &pb.ServerLiveResponse{Live: true},
			pb.GRPCInferenceService_ServerReady_FullMethodName:     &pb.ServerReadyResponse{Ready: true},
			pb.GRPCInferenceService_RepositoryIndex_FullMethodName: &pb.RepositoryIndexResponse{},
			pb.GRPCInferenceService_LogSettings_FullMethodName:     &pb.LogSettingsResponse{},
			healthpb.Health_Check_FullMethodName:                   &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING},
			healthpb.Health_Watch_FullMethodName:                   &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING},
		} {
			stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
			if err != nil {
				t.Fatal(err)
			}
			got := answer.ProtoReflect().New().Interface()
			if err := stream.RecvMsg(got); err != nil || !proto.Equal(got, answer) { // nothing was sent
				t.Errorf("%s: %v %v", method, got, err)
			}
		}
		stream, err := reflectionpb.NewServerReflectionClient(c.conn).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantCode(t, err, codes.Unauthenticated, "key")
	}, speaks(&speaker{}))
}

func TestOwnAddressSpeaksTLS(t *testing.T) {
	t.Parallel()
	l, certificate := certified(t)
	a, _ := (&speaker{}).address(t)
	g := gateway.New(gateway.Options{})
	if err := g.SetRoutes(t.Context(), zarpa.Routes{Revision: 1, Endpoints: []zarpa.Route{route(a)}}); err != nil {
		t.Fatal(err)
	}
	own, public := listenLocal(t), listenLocal(t)
	l.GRPC, l.Public = own, []net.Listener{public}
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(t.Context(), l) }()
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	for _, address := range []string{own.Addr().String(), public.Addr().String()} {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := pb.NewGRPCInferenceServiceClient(conn).ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"}); err != nil || out.GetModelName() != "iris" {
			t.Errorf("%v %v", out, err)
		}
		_ = conn.Close()
	}
}

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// drip is what slow clients begin and never end.
func drip() map[string][]byte {
	var head []byte
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":authority", "x"},
		{":path", "/inference.GRPCInferenceService/ModelInfer"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
		{"authorization", "Bearer " + key},
	} { // literals without an index, RFC 7541, section 6.2.2
		head = append(head, 0, byte(len(f[0])))
		head = append(append(head, f[0]...), byte(len(f[1])))
		head = append(head, f[1]...)
	}
	frame := func(kind, flags byte, stream byte, payload []byte) []byte { // RFC 9113, section 4.1
		return append([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, stream}, payload...)
	}
	const preface, settings, headers, data, endHeaders = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 4, 1, 0, 4
	begun := func(flags byte, payload []byte) []byte {
		out := append([]byte(preface), frame(settings, 0, 0, nil)...)
		out = append(out, frame(headers, flags, 1, head)...)
		if payload != nil {
			out = append(out, frame(data, 0, 1, payload)...)
		}
		return out
	}
	return map[string][]byte{
		"half a head":              []byte("POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nAuthoriz"),
		"half a body":              []byte("POST /endpoints/iris/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nContent-Length: 10\r\n\r\nhalf"),
		"half a preface":           []byte(preface[:9]),
		"a preface alone":          []byte(preface),
		"half a head of HTTP/2":    begun(0, nil),
		"a call without a message": begun(endHeaders, nil),
		"half a length":            begun(endHeaders, []byte{0, 0}),
		"half a message":           begun(endHeaders, []byte{0, 0, 0, 1, 0, 10, 4, 'i', 'r', 'i', 's'}),
	}
}

func TestSlowClientsCostTheirConnectionAlone(t *testing.T) {
	t.Parallel()
	a, _ := (&speaker{}).address(t)
	r := route(a)
	r.Deployments[0].MaxConcurrency = 1
	g := serve(t, r)
	for what, text := range drip() {
		for _, address := range []string{g.public, g.native} {
			for range 3 {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				for _, b := range text { // byte by byte
					if _, err := c.Write([]byte{b}); err != nil {
						break // gRPC's own address does not take all of them
					}
				}
			}
		}
		g.want(call{method: "GET"}, 200, "")
		for _, address := range []string{g.public, g.native} {
			if _, err := dial(t, address).ModelInfer(with(t.Context()), &pb.ModelInferRequest{ModelName: "iris"}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	g.metric(t, `zarpa_gateway_in_flight{deployment="blue",endpoint="iris"} 0`)
}

func TestHalfAMessageEndsWithTheTimeLimit(t *testing.T) {
	t.Parallel()
	a, _ := (&speaker{}).address(t)
	r := route(a)
	r.RequestTimeout = zarpa.Duration(100 * time.Millisecond)
	g := serve(t, r)
	c := dial(t, g.native)
	stream, err := c.ModelStreamInfer(with(t.Context(), "zarpa-endpoint", "iris"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv() // nothing was sent
	wantCode(t, err, codes.DeadlineExceeded, "no message came within 100ms")
}

func TestServerSentEventsArriveOneByOne(t *testing.T) {
	t.Parallel()
	next := make(chan int)
	g := serve(t, route(replica(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range next {
			if n < 0 {
				return
			}
			_, _ = fmt.Fprintf(w, "data: %d\n\n", n)
			w.(http.Flusher).Flush()
		}
	})))
	for _, client := range []*http.Client{g.http, {Transport: &http.Transport{}}} {
		req := mustRequest("POST", g.url+"/v2/models/iris/generate_stream")
		req.Header.Set("Authorization", "Bearer "+key)
		go func() { next <- 0 }()
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(res.Body)
		for n := range 3 { // the next is written after this one was read
			if n > 0 {
				next <- n
			}
			line, err := in.ReadString('\n')
			if err != nil || strings.TrimSpace(line) != fmt.Sprintf("data: %d", n) {
				t.Fatalf("%q %v", line, err)
			}
			_, _ = in.ReadString('\n')
		}
		next <- -1
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
		_ = res.Body.Close()
		client.CloseIdleConnections()
	}
}

// A replica that answers as the time limit passes: the client gets the answer or hears of the limit, and
// never just the end of its connection.
func TestAnswersAtTheTimeLimitAreAnswers(t *testing.T) {
	t.Parallel()
	const limit = 20 * time.Millisecond
	answer := strings.Repeat("done", 8<<10) // more than net/http gathers
	r := route(replica(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(limit - time.Millisecond): // the gateway's clock began before
		case <-r.Context().Done():
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = io.WriteString(w, answer)
	}))
	r.RequestTimeout, r.Deployments[0].MaxConcurrency = zarpa.Duration(limit), 64
	for name, g := range map[string]*running{"HTTP/1.1": start(t, r), "HTTP/2": serve(t, r).running} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var clients sync.WaitGroup
			for range 32 {
				clients.Go(func() {
					for range 40 {
						rep := g.do(context.Background(), call{body: "x"})
						if rep.err != nil || rep.status != 504 && (rep.status != 200 || rep.body != answer) {
							t.Errorf("%d, %d bytes, %v", rep.status, len(rep.body), rep.err)
						}
					}
				})
			}
			clients.Wait()
		})
	}
}
