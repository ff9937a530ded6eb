package grpcx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/grpcx"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

func TestEveryCodeHasOneOfTheOtherSide(t *testing.T) {
	t.Parallel()
	for _, c := range zarpa.Codes() {
		back := grpcx.FromCode(grpcx.Code(c))
		if want := c; back != want && (c != zarpa.Overloaded || back != zarpa.Unavailable) {
			t.Errorf("%s → %v → %s", c, grpcx.Code(c), back)
		}
	}
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		if grpcx.FromCode(c) == "" || grpcx.Name(c) == "" {
			t.Errorf("%v has no class or no name", c)
		}
	}
	if grpcx.FromCode(codes.Unimplemented) != zarpa.Invalid || grpcx.Name(99) != "UNKNOWN" || grpcx.Name(codes.NotFound) != "NOT_FOUND" {
		t.Error("wrong rows")
	}
}

func TestStatusShowsMessageAndHintAlone(t *testing.T) {
	t.Parallel()
	cases := []struct {
		err  error
		code codes.Code
		text string
	}{
		{nil, codes.OK, ""},
		{zarpa.Errorf(zarpa.Invalid, "inputs: none").WithHint("send one"), codes.InvalidArgument, "inputs: none (send one)"},
		{fmt.Errorf("run: %w", zarpa.Errorf(zarpa.ModelError, "it failed").Because(errors.New("secret"))), codes.Unknown, "it failed"},
		{errors.New("secret"), codes.Internal, "an internal error happened (see the server's log for the request id)"},
		{context.Canceled, codes.Canceled, "the request was canceled"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "the time limit passed"},
		{fmt.Errorf("recv: %w", status.Error(codes.DataLoss, "torn")), codes.DataLoss, "torn"},
	}
	for _, c := range cases {
		got := grpcx.Status(c.err)
		if s := status.Convert(got); s.Code() != c.code || s.Message() != c.text {
			t.Errorf("%v: %v", c.err, got)
		}
	}
	e := grpcx.FromStatus(status.Error(codes.NotFound, "none such"))
	if e.Code != zarpa.NotFound || e.Message != "none such" || grpcx.FromStatus(nil) != nil {
		t.Errorf("%+v", e)
	}
	if e := grpcx.FromStatus(errors.New("secret")); e.Code != zarpa.Internal {
		t.Errorf("%+v", e)
	}
}

func TestFramesPassUnparsed(t *testing.T) {
	t.Parallel()
	var codec grpcx.Codec
	wire, err := codec.Marshal(&inferencepb.ModelReadyRequest{Name: "iris"})
	if err != nil {
		t.Fatal(err)
	}
	var f grpcx.Frame
	if err := codec.Unmarshal(wire, &f); err != nil {
		t.Fatal(err)
	}
	wire.Free()
	out, err := codec.Marshal(&f)
	if err != nil {
		t.Fatal(err)
	}
	var back inferencepb.ModelReadyRequest
	if err := codec.Unmarshal(out, &back); err != nil || back.GetName() != "iris" || f.Len() != len(f.Bytes()) {
		t.Errorf("%v, %v", &back, err)
	}
	out.Free()
	f.Free()
	f.Free()
	if f.Len() != 0 || f.Bytes() != nil {
		t.Error("a freed frame holds bytes")
	}
}

func TestBytesOfSeveralPieces(t *testing.T) {
	t.Parallel()
	var f grpcx.Frame
	parts := mem.BufferSlice{mem.SliceBuffer("ab"), mem.SliceBuffer("cd")}
	if err := (grpcx.Codec{}).Unmarshal(parts, &f); err != nil {
		t.Fatal(err)
	}
	var seen [][]byte
	for b := range f.Chunks {
		seen = append(seen, b)
	}
	if len(seen) != 2 || string(bytes.Join(seen, []byte("|"))) != "ab|cd" || string(f.Bytes()) != "abcd" || f.Len() != 4 {
		t.Errorf("%q %q", seen, f.Bytes())
	}
	if string(grpcx.NewFrame([]byte("x")).Bytes()) != "x" {
		t.Error("NewFrame")
	}
}
