package oip

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"strings"
)

func transportChecks() []check {
	of := func(id string, l Level, says, section string) Check {
		return Check{ID: id, Group: REST, Level: l, Says: says, Section: section}
	}
	const clients = "what clients send"
	accepts := of("rest.http.accept-gzip", Should, "with Accept-Encoding: gzip the answer is the same, packed as its header says or not at all", "RFC 9110, 12.5.3")
	accepts.Choices = "packed or plain"
	acceptsDeflate := accepts
	acceptsDeflate.ID, acceptsDeflate.Says = "rest.http.accept-deflate", "the same with deflate"
	return []check{
		{Check: of("rest.http.content-type", Should, "answers to inference come as application/json", "REST: HTTP/REST"), needs: needJSON, ask: inferType},
		{Check: of("rest.http.no-content-type", Should, "a request needs no Content-Type: clients send none", clients), needs: needJSON | needSame, ask: withHeader()},
		{
			Check: of("rest.http.form-content-type", Should, "a JSON body with the Content-Type that curl -d sends is JSON", clients), needs: needJSON | needSame,
			ask: withHeader("Content-Type", "application/x-www-form-urlencoded"),
		},
		{Check: of("rest.http.header-case", Must, "the names of headers may be written in any case", "RFC 9110, 5.1"), needs: needJSON | needSame, ask: withHeader("cOnTeNt-tYpE", "application/json")},
		{
			Check: of("rest.http.charset", Should, "a Content-Type with a charset is understood", "RFC 9110, 8.3"), needs: needJSON | needSame,
			ask: withHeader("Content-Type", "application/json; charset=utf-8"),
		},
		{Check: of("rest.http.chunked", Must, "a body may come in chunks", "RFC 9112, 7.1"), needs: needJSON | needSame, ask: inChunks},
		{Check: of("rest.http.keep-alive", Should, "a connection takes one request after another", "RFC 9112, 9.3"), needs: needJSON | needSame, ask: keepAlive},
		{Check: of("rest.http.expect", Should, "Expect: 100-continue, which curl sends with larger bodies, is no hindrance", "RFC 9110, 10.1.1"), needs: needJSON | needSame, ask: withHeader("Content-Type", "application/json", "Expect", "100-continue")},
		{Check: of("rest.http.gzip", Should, "a request may be packed with gzip", clients), needs: needJSON | needSame, ask: packedRequest("gzip")},
		{Check: of("rest.http.deflate", Should, "a request may be packed with deflate", clients), needs: needJSON | needSame, ask: packedRequest("deflate")},
		{Check: accepts, needs: needJSON | needSame, ask: packedAnswer("gzip")},
		{Check: acceptsDeflate, needs: needJSON | needSame, ask: packedAnswer("deflate")},
	}
}

func inferType(ctx context.Context, p *probe) (string, error) {
	r, err := p.send(ctx, p.plain())
	if err != nil {
		return "", err
	}
	return isJSON(r.answer)
}

// withHeader sends the sample with these headers alone.
func withHeader(header ...string) func(context.Context, *probe) (string, error) {
	return func(ctx context.Context, p *probe) (string, error) {
		body, _ := p.plain().encode()
		return p.sendsSame(ctx, request{path: modelPath(p.name) + "/infer", header: header, body: body})
	}
}

func inChunks(ctx context.Context, p *probe) (string, error) {
	body, header := p.plain().encode()
	return p.sendsSame(ctx, request{path: modelPath(p.name) + "/infer", header: header, body: body, framing: chunked})
}

func keepAlive(ctx context.Context, p *probe) (string, error) {
	body, _ := p.plain().encode()
	r := p.inferPath(body)
	list, err := p.run.wire.doAll(ctx, []request{r, r})
	if err != nil {
		return "", err
	}
	got, err := readReply(list[1])
	if err != nil {
		return "", err
	}
	return p.sameIn(got)
}

// packedRequest sends the sample's body packed.
func packedRequest(encoding string) func(context.Context, *probe) (string, error) {
	return func(ctx context.Context, p *probe) (string, error) {
		body, header := p.plain().encode()
		return p.sendsSame(ctx, request{
			path: modelPath(p.name) + "/infer", header: append(header, "Content-Encoding", encoding), body: packed(encoding, body),
		})
	}
}

// packedAnswer asks for a packed answer. The body is padded, because small answers are often left as they are.
func packedAnswer(encoding string) func(context.Context, *probe) (string, error) {
	return func(ctx context.Context, p *probe) (string, error) {
		r := p.plain()
		r.ID = strings.Repeat("padding ", 512)
		body, header := r.encode()
		got, err := p.post(ctx, request{path: modelPath(p.name) + "/infer", header: append(header, "Accept-Encoding", encoding), body: body})
		if err != nil {
			return "", err
		}
		if e := got.answer.encoding; e != "" && strings.TrimPrefix(e, "x-") != encoding {
			return "", differs(encoding+" or no encoding", "%s", e)
		}
		if _, err := p.sameIn(got); err != nil {
			return "", err
		}
		if got.answer.encoding == "" {
			return "plain", nil
		}
		return "packed", nil
	}
}

// lastingChecks come last: they look at what all the others, and calls that are broken off, did to the server.
func lastingChecks() []check {
	call := func(id, says string) Check {
		return Check{ID: id, Group: GRPC, Level: Must, Says: says, Section: "gRPC"}
	}
	const called = needGRPC | needSample | needSame
	return []check{
		{Check: call("grpc.cancel", "calls that are cancelled leave the server as it was"), needs: called, ask: grpcCancel},
		{Check: call("grpc.deadline", "calls whose deadline passes leave the server as it was"), needs: called, ask: grpcDeadline},
		{
			Check: Check{ID: "errors.lasting", Group: Errors, Level: Must, Says: "after all the wrong requests the server answers as before", Section: "REST: Inference"},
			needs: needSample | needSame, ask: lasting,
		},
		{
			Check: Check{ID: "errors.harsh-nesting", Group: Errors, Level: Must, Says: "JSON nested a hundred thousand deep is refused, and the server lives", Section: "robustness"},
			needs: needHarsh | needModel, ask: deepNesting,
		},
		{
			Check: Check{ID: "errors.harsh-unpacking", Group: Errors, Level: Must, Says: "a body that unpacks to a gigabyte is refused, and the server lives", Section: "robustness"},
			needs: needHarsh | needModel, ask: unpacking,
		},
	}
}

func lasting(ctx context.Context, p *probe) (string, error) {
	if _, err := getOK("/v2/health/live")(ctx, p); err != nil {
		return "", err
	}
	return p.equals(ctx, p.form)
}

func deepNesting(ctx context.Context, p *probe) (string, error) {
	const depth = 100_000
	in := p.inputs[0]
	body := `{"inputs":[{"name":` + quote(in.Name) + `,"datatype":"` + in.Datatype + `","shape":[1],"data":` +
		strings.Repeat("[", depth) + "1" + strings.Repeat("]", depth) + `}]}`
	return p.refusedAndAlive(ctx, p.inferPath([]byte(body)))
}

func unpacking(ctx context.Context, p *probe) (string, error) {
	const gibibyte = 1 << 10
	r := p.inferPath(packedSpaces(gibibyte))
	r.header = append(r.header, "Content-Encoding", "gzip")
	return p.refusedAndAlive(ctx, r)
}

// packedSpaces is n mebibytes of spaces, packed; n is 2 or more. All but the first are the same bytes when packed, so
// that they are packed once.
func packedSpaces(n int) []byte {
	piece := bytes.Repeat([]byte{' '}, 1<<20)
	var b bytes.Buffer
	out, _ := flate.NewWriter(&b, flate.BestSpeed) // the level is a good one
	pack := func() []byte {
		b.Reset()
		_, _ = out.Write(piece) // to memory, as all here
		_ = out.Flush()
		return bytes.Clone(b.Bytes())
	}
	body := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, pack()...)
	body = append(body, bytes.Repeat(pack(), n-1)...)
	b.Reset()
	_ = out.Close()
	body = append(body, b.Bytes()...)
	sum := uint32(0)
	for range n {
		sum = crc32.Update(sum, crc32.IEEETable, piece)
	}
	body = binary.LittleEndian.AppendUint32(body, sum)
	return binary.LittleEndian.AppendUint32(body, uint32(n)<<20) //nolint:gosec // gzip's size is modulo 2^32
}

// refusedAndAlive wants an error, and a server that lives after it.
func (p *probe) refusedAndAlive(ctx context.Context, r request) (string, error) {
	a, err := p.run.wire.do(ctx, r)
	if err == nil && a.status < http.StatusBadRequest {
		return "", differs("an error", "%s", a.said())
	}
	if _, alive := getOK("/v2/health/live")(ctx, p); alive != nil {
		return "", differs("a server that lives", "%v", alive)
	}
	if err != nil {
		return "", err
	}
	return a.said(), nil
}
