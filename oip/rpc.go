package oip

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	pb "github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// rpc calls the gRPC service.
type rpc struct {
	conn    *grpc.ClientConn
	client  pb.GRPCInferenceServiceClient
	header  metadata.MD
	timeout time.Duration
}

func newRPC(t Target, options ...grpc.DialOption) (*rpc, error) {
	creds, address := insecure.NewCredentials(), t.GRPC
	if rest, secure := strings.CutPrefix(t.GRPC, "https://"); secure {
		config := t.TLS.Clone()
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		creds, address = credentials.NewTLS(config), rest
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "grpc: %q is no address", t.GRPC).WithHint("write HOST:PORT, or https://HOST:PORT with TLS")
	}
	// Messages larger than the default may be sent, to see how they are refused.
	options = append(options, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.MaxCallSendMsgSize(maxAnswer)))
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Invalid, "grpc: %w", err)
	}
	md := metadata.MD{}
	for name, list := range t.Header {
		md.Append(strings.ToLower(name), list...)
	}
	return &rpc{conn: conn, client: pb.NewGRPCInferenceServiceClient(conn), header: md, timeout: t.Timeout}, nil
}

func (c *rpc) close() { _ = c.conn.Close() } // nothing is on its way any more

// limit gives a call its metadata and its time.
func (c *rpc) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(metadata.NewOutgoingContext(ctx, c.header), c.timeout)
}

func (c *rpc) infer(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.client.ModelInfer(ctx, r)
}

// call makes one call of a method and gives its response.
func call[Q, R any](ctx context.Context, c *rpc, method func(context.Context, Q, ...grpc.CallOption) (R, error), q Q) (R, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	resp, err := method(ctx, q)
	if err != nil {
		return resp, differs("OK", "%s", failed(err))
	}
	return resp, nil
}

// failed is a call's failure in one line.
func failed(err error) string {
	s := status.Convert(err)
	return clip(s.Code().String() + ": " + s.Message())
}

// rawRequest is a request of tensors in raw contents.
func (p *probe) rawRequest(tensors []zarpa.Tensor) *pb.ModelInferRequest {
	r := &pb.ModelInferRequest{ModelName: p.name}
	for _, t := range tensors {
		r.Inputs = append(r.Inputs, &pb.ModelInferRequest_InferInputTensor{Name: t.Name, Datatype: t.Type.String(), Shape: t.Shape})
		r.RawInputContents = append(r.RawInputContents, raw(t))
	}
	return r
}

// typedRequest is a request of tensors in typed contents.
func (p *probe) typedRequest(tensors []zarpa.Tensor) *pb.ModelInferRequest {
	r := p.rawRequest(tensors)
	r.RawInputContents = nil
	for i, t := range tensors {
		r.Inputs[i].Contents = contents(t)
	}
	return r
}

// contents are the elements in the field of their type.
func contents(t zarpa.Tensor) *pb.InferTensorContents {
	c := &pb.InferTensorContents{}
	for i := range count(t) {
		switch {
		case t.Type == zarpa.String:
			c.BytesContents = append(c.BytesContents, []byte(t.Strings[i]))
		case t.Type == zarpa.Bool:
			c.BoolContents = append(c.BoolContents, t.Data[i] != 0)
		case t.Type == zarpa.Float32:
			c.Fp32Contents = append(c.Fp32Contents, math.Float32frombits(uint32(bits(t, i)))) //nolint:gosec // four bytes
		case t.Type == zarpa.Float64:
			c.Fp64Contents = append(c.Fp64Contents, math.Float64frombits(bits(t, i)))
		case t.Type == zarpa.Int64:
			c.Int64Contents = append(c.Int64Contents, integer(t, i))
		case t.Type == zarpa.Uint64:
			c.Uint64Contents = append(c.Uint64Contents, bits(t, i))
		case signed(t.Type):
			c.IntContents = append(c.IntContents, int32(integer(t, i))) //nolint:gosec // at most four bytes
		default:
			c.UintContents = append(c.UintContents, uint32(bits(t, i))) //nolint:gosec // at most four bytes
		}
	}
	return c
}

// grpcTensors are the outputs of an answer, raw or typed.
func grpcTensors(r *pb.ModelInferResponse) ([]zarpa.Tensor, error) {
	var list []zarpa.Tensor
	isRaw := len(r.GetRawOutputContents()) > 0
	if isRaw && len(r.GetRawOutputContents()) != len(r.GetOutputs()) {
		return nil, differs("raw contents for each output", "%d for %d outputs", len(r.GetRawOutputContents()), len(r.GetOutputs()))
	}
	for i, o := range r.GetOutputs() {
		t := zarpa.Tensor{Name: o.GetName(), Shape: o.GetShape()}
		if err := t.Type.UnmarshalText([]byte(o.GetDatatype())); err != nil {
			return nil, differs("a datatype of the protocol", "output %q: %q", t.Name, o.GetDatatype())
		}
		content := fromContents(t.Type, o.GetContents())
		if isRaw {
			content = r.GetRawOutputContents()[i]
		}
		t, err := fromRaw(t, content)
		if err != nil {
			return nil, differs("elements of the datatype, as many as the shape tells", "%v", err)
		}
		list = append(list, t)
	}
	return list, nil
}

// fromContents is typed contents as raw ones.
func fromContents(t zarpa.ElementType, c *pb.InferTensorContents) []byte {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // to memory
	put(c.GetBoolContents())
	for _, n := range c.GetIntContents() {
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(n))[:min(4, max(1, t.Bits()/8))]) //nolint:gosec // two's complement is meant
	}
	for _, n := range c.GetUintContents() {
		b.Write(binary.LittleEndian.AppendUint32(nil, n)[:min(4, max(1, t.Bits()/8))])
	}
	put(c.GetInt64Contents())
	put(c.GetUint64Contents())
	put(c.GetFp32Contents())
	put(c.GetFp64Contents())
	for _, s := range c.GetBytesContents() {
		put(uint32(len(s))) //nolint:gosec // within a message
		b.Write(s)
	}
	return b.Bytes()
}

// typeable says whether every input has typed contents.
func (p *probe) typeable() error {
	for _, t := range p.sample {
		if !hasJSON(t.Type) {
			return skip("%v has no typed contents", t.Type)
		}
	}
	return nil
}

// code is a failure's code.
func code(err error) codes.Code { return status.Code(err) }

// want wants something of an answer to be what it should be.
func want(what, expected, observed string) (string, error) {
	if expected != observed {
		return "", differs(what+" "+expected, "%q", observed)
	}
	return observed, nil
}

// declaredText is inputs or outputs in one line, to compare.
func declaredText(list []*pb.ModelMetadataResponse_TensorMetadata) string {
	var out []string
	for _, t := range list {
		out = append(out, fmt.Sprintf("%s %s %v", t.GetName(), t.GetDatatype(), t.GetShape()))
	}
	return strings.Join(out, ", ")
}
