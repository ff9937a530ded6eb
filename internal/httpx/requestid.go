package httpx

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/zarpa-dev/zarpa"
)

// The headers of request ids, as net/http writes them.
const (
	headerRequest = "X-Request-Id"
	headerServer  = "X-Ms-Request-Id"
	headerClient  = "X-Ms-Client-Request-Id"
	headerTrace   = "Traceid"
)

// maxID is the longest id that a client may send, in bytes.
const maxID = 100

type identityKey struct{}

// identity is a request's context with its ids, in one allocation.
type identity struct {
	context.Context //nolint:containedctx // it is a context
	log             *slog.Logger
	request         [1]string
	server          [1]string
	client          [1]string
}

// Value gives the identity itself, and what the context beneath has.
func (c *identity) Value(key any) any {
	if key == (identityKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// ID is the id of the request whose context this is, "" outside of [RequestID].
func ID(ctx context.Context) string {
	if c, ok := ctx.Value(identityKey{}).(*identity); ok {
		return c.request[0]
	}
	return ""
}

func logger(ctx context.Context) *slog.Logger {
	if c, ok := ctx.Value(identityKey{}).(*identity); ok {
		return c.log
	}
	return nil
}

// RequestID gives every request an id, taken from x-request-id or made, and every answer the
// headers of the original's table:
//
//	the request has                  x-request-id  x-ms-request-id  x-ms-client-request-id
//	nothing                          new A         A                –
//	x-request-id A                   A             A                –
//	x-ms-request-id B                new A         B                B
//	x-ms-client-request-id C         new A         C                C
//	both B and C                     new A         B                C
//
// An empty header counts as none. A header sent twice is joined by a comma. An id of more than
// 100 bytes is refused with 431; bytes outside printable ASCII come back percent-encoded. TraceId
// is echoed. [WriteError] writes causes to log, which may be nil.
func RequestID(style Style, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if trace := r.Header[headerTrace]; len(trace) > 0 && len(trace[0]) <= maxID {
			h[headerTrace] = trace[:1]
		}
		c := &identity{Context: r.Context(), log: log}
		if name := c.read(r.Header); name != "" {
			WriteError(w, r, style, WithStatus(zarpa.Errorf(zarpa.Invalid, "header %s: more than %d characters", name, maxID).
				WithHint("send a shorter id"), http.StatusRequestHeaderFieldsTooLarge))
			return
		}
		c.fill()
		h[headerRequest], h[headerServer] = c.request[:], c.server[:]
		if c.client[0] != "" {
			h[headerClient] = c.client[:]
		}
		next.ServeHTTP(w, r.WithContext(c))
	})
}

// read takes the ids that the client sent; it returns the name of a header that is too long.
func (c *identity) read(h http.Header) string {
	var ok bool
	if c.request[0], ok = sent(h[headerRequest]); !ok {
		return "x-request-id"
	}
	if c.server[0], ok = sent(h[headerServer]); !ok {
		return "x-ms-request-id"
	}
	if c.client[0], ok = sent(h[headerClient]); !ok {
		return "x-ms-client-request-id"
	}
	return ""
}

// fill completes the ids as the table says.
func (c *identity) fill() {
	if c.request[0] == "" {
		c.request[0] = NewID()
	}
	switch server, client := c.server[0], c.client[0]; {
	case server == "" && client == "":
		c.server[0] = c.request[0]
	case server == "":
		c.server[0] = client
	case client == "":
		c.client[0] = server
	}
}

func sent(values []string) (id string, ok bool) {
	switch len(values) {
	case 0:
		return "", true
	case 1:
		id = values[0]
	default:
		id = strings.Join(values, ",")
	}
	if len(id) > maxID {
		return "", false
	}
	for i := range len(id) {
		if id[i] < ' ' || id[i] > '~' {
			return escape(id), true
		}
	}
	return id, true
}

func escape(id string) string {
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; c < ' ' || c > '~' {
			b.WriteByte('%')
			b.WriteString(strings.ToUpper(hex.EncodeToString([]byte{c})))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// NewID is a random UUID (version 4). It tells requests apart and is no secret.
func NewID() string {
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(raw[8:], rand.Uint64())
	raw[6] = raw[6]&0x0F | 0x40
	raw[8] = raw[8]&0x3F | 0x80
	var text [36]byte
	hex.Encode(text[:8], raw[:4])
	hex.Encode(text[9:13], raw[4:6])
	hex.Encode(text[14:18], raw[6:8])
	hex.Encode(text[19:23], raw[8:10])
	hex.Encode(text[24:], raw[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
