// Package inferencepb is the Open Inference Protocol v2 over gRPC as Go code: messages, server and
// client. It is generated from inference.proto; score, gateway and oip speak through it.
package inferencepb

//go:generate go -C ../../tools/proto run . ../../internal/inferencepb inference.proto
