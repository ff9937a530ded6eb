package gateway

import (
	"context"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/internal/httpx"
)

// The keys of metadata that the gateway reads.
const (
	metaEndpoint  = "zarpa-endpoint"
	metaKey       = "authorization"
	metaRequest   = "x-request-id"
	metaServer    = "x-ms-request-id"
	metaClient    = "x-ms-client-request-id"
	metaForwarded = "x-forwarded-for"
)

// maxMetaID is the longest id that a client may send, in bytes; as over HTTP.
const maxMetaID = 100

// ids are a call's ids, by the table of [httpx.RequestID].
type ids struct{ request, server, client string }

func readIDs(in metadata.MD) (ids, *zarpa.Error) {
	var out ids
	for _, id := range []struct {
		key  string
		into *string
	}{{metaRequest, &out.request}, {metaServer, &out.server}, {metaClient, &out.client}} {
		value := strings.Join(in[id.key], ",")
		if len(value) > maxMetaID {
			return ids{}, zarpa.Errorf(zarpa.Invalid, "metadata %s: more than %d characters", id.key, maxMetaID).WithHint("send a shorter id")
		}
		*id.into = value
	}
	if out.request == "" {
		out.request = httpx.NewID()
	}
	switch {
	case out.server == "" && out.client == "":
		out.server = out.request
	case out.server == "":
		out.server = out.client
	case out.client == "":
		out.client = out.server
	}
	return out, nil
}

func (i ids) set(md metadata.MD) {
	md.Set(metaRequest, i.request)
	md.Set(metaServer, i.server)
	if i.client != "" {
		md.Set(metaClient, i.client)
	}
}

// private reports whether metadata is about one connection, is made anew on the other side, or is
// the client's secret.
func private(key string) bool {
	switch key {
	case metaEndpoint, metaKey, metaRequest, metaServer, metaClient, metaForwarded, "x-forwarded-proto", "x-forwarded-host",
		"content-type", "content-length", "user-agent", "te", "trailer", "connection", "host", "expect", "date", "zarpa-timeout-ms", "zarpa-mirror":
		return true
	}
	return strings.HasPrefix(key, ":") || strings.HasPrefix(key, "grpc-") || strings.HasPrefix(key, "proxy-")
}

// public is the metadata that goes on from one side to the other.
func public(from metadata.MD) metadata.MD {
	out := make(metadata.MD, len(from)+4)
	for key, values := range from {
		if !private(key) {
			out[key] = values
		}
	}
	return out
}

// outgoing is the context of a call to a replica: its deadline goes with it as grpc-timeout.
func (c *call) outgoing(ctx context.Context) context.Context {
	md := public(c.in)
	c.ids.set(md)
	address, proto := "unknown", "http"
	if p, ok := peer.FromContext(ctx); ok {
		if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
			address = host
		}
		if p.AuthInfo != nil {
			proto = "https"
		}
	}
	md.Set(metaForwarded, strings.Join(append(slices.Clip(c.in[metaForwarded]), address), ", "))
	md.Set("x-forwarded-proto", proto)
	if host := c.in[":authority"]; len(host) > 0 {
		md.Set("x-forwarded-host", host[0])
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// remote is the client's address.
func (c *call) remote() string {
	if p, ok := peer.FromContext(c.stream.Context()); ok {
		return p.Addr.String()
	}
	return ""
}

// one is the value of metadata that may be given once; the first counts.
func one(md metadata.MD, key string) string {
	if v := md[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}
