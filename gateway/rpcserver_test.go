package gateway

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
)

func TestServersThatWereDrainedTakeNoListener(t *testing.T) {
	t.Parallel()
	s := newRPCServers(smallMessage, func(int) *grpc.Server { return grpc.NewServer() })
	s.drain(time.Second) // the gateway was told to end before its goroutine got here
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ln) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for connections")
	}
	if ln.Close() == nil {
		t.Error("the listener was left open")
	}
}
