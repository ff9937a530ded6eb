package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// grpcConnections is how many connections the clients of a gRPC load share at most: a real client
// sends many calls over one connection, a fleet of them has some.
const grpcConnections = 4

// prepared is a codec that sends a message which is encoded already, and counts the bytes of the
// answer without decoding them: the load shall cost little.
type prepared struct{}

func (prepared) Name() string { return "proto" }

func (prepared) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is no prepared message", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(message)}, nil
}

func (prepared) Unmarshal(data mem.BufferSlice, v any) error {
	size, ok := v.(*int)
	if !ok {
		return fmt.Errorf("%T holds no size", v)
	}
	*size = data.Len()
	return nil
}

// dialGRPC connects to unix:PATH or HOST:PORT, without encryption.
func dialGRPC(address string) (*grpc.ClientConn, error) {
	if !strings.HasPrefix(address, "unix:") {
		address = "passthrough:///" + address
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(prepared{})))
}

var errEmpty = errors.New("the answer is empty")

// inferOnce sends one prepared ModelInfer and waits for the answer.
func inferOnce(ctx context.Context, conn *grpc.ClientConn, message []byte) error {
	size := 0
	err := conn.Invoke(ctx, inferencepb.GRPCInferenceService_ModelInfer_FullMethodName, message, &size)
	if err == nil && size == 0 {
		return errEmpty
	}
	return err
}

// generateGRPC is generate for a load over gRPC, which is a closed loop.
func generateGRPC(ctx context.Context, spec loadSpec) (loadResult, error) {
	conns := make([]*grpc.ClientConn, min(spec.Clients, grpcConnections))
	for i := range conns {
		conn, err := dialGRPC(spec.Address)
		if err != nil {
			return loadResult{}, err
		}
		defer conn.Close()
		if err := inferOnce(ctx, conn, spec.Request); err != nil { // connect before the time runs
			return loadResult{}, err
		}
		conns[i] = conn
	}
	senders := make([]*sender, spec.Clients)
	for i := range senders {
		conn := conns[i%len(conns)]
		senders[i] = newSender(spec, i, func() error { return inferOnce(ctx, conn, spec.Request) })
	}
	return runSenders(ctx, senders, spec)
}
