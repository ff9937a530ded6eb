package gateway

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// relay hands the answer to the client. A small one is read whole first: then the replica is free
// before the client has taken it, and one that breaks off is a clean 502. All others go on as
// they come; if such a one breaks off, so does the client's connection: a client never takes a
// part for the whole.
func (ex *exchange) relay(c *conn, in *bufio.Reader) error {
	a := &ex.work.answer
	a.shared = ex.rule.cors != nil
	h := ex.w.Header()
	status := answerStatus(ex.statuses(), a, h)
	h["Azureml-Model-Deployment"] = ex.series.named
	if a.status >= http.StatusInternalServerError || a.status == http.StatusFailedDependency {
		ex.ending = faulty
	}
	switch {
	case a.status == http.StatusSwitchingProtocols:
		return ex.tunnel(c, in)
	case a.bodyless(ex.r.Method):
		a.copyFields(h, a.status)
		if a.length >= 0 && a.status != http.StatusNoContent {
			h["Content-Length"] = []string{strconv.FormatInt(a.length, 10)}
		}
		ex.settle(c, in)
		ex.status = status
		ex.w.WriteHeader(status)
		return nil
	case a.length >= 0 && a.length <= SmallBody:
		return ex.relayWhole(c, in, status)
	}
	if broken := ex.beginAnswer(writing); broken != nil {
		return broken
	}
	defer ex.setPhase(working)
	a.copyFields(h, a.status)
	if a.length >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(a.length, 10)}
	}
	ex.status = status
	ex.w.WriteHeader(status)
	if err := ex.relayStream(in); err != nil {
		// The status has left: the end of the connection is all that can be said to the client.
		ex.cut = true
		if ex.r.Context().Err() != nil {
			ex.status = statusLeft
		} else if broken := ex.broken(); broken != nil {
			ex.status = broken.Code.HTTPStatus()
			ex.blame(broken.Code)
		} else {
			ex.status = http.StatusBadGateway
			ex.blame(zarpa.ModelError)
		}
		return nil
	}
	ex.settle(c, in)
	return nil
}

// relayWhole reads a small body to its end, frees the replica and answers in one write.
func (ex *exchange) relayWhole(c *conn, in *bufio.Reader, status int) error {
	a := &ex.work.answer
	n := int(a.length)
	var body []byte
	var err error
	if n <= in.Buffered() {
		body, err = in.Peek(n)
		_, _ = in.Discard(n)
	} else {
		if n > len(ex.work.buffer) {
			ex.g.workspaces.put(&workspace{buffer: ex.work.buffer})
			large := ex.g.workspaces.get(-1)
			ex.work.buffer, ex.body = large.buffer, nil
		}
		body = ex.work.buffer[:n]
		_, err = io.ReadFull(in, body)
	}
	if err != nil {
		if broken := ex.broken(); broken != nil {
			return broken
		}
		return brokenReplica(errors.Join(errHeadBegun, err))
	}
	ex.settle(c, in)
	if broken := ex.beginAnswer(finishing); broken != nil {
		return broken
	}
	h := ex.w.Header()
	a.copyFields(h, a.status)
	h["Content-Length"] = []string{strconv.Itoa(n)}
	ex.status = status
	ex.w.WriteHeader(status)
	_, err = ex.w.Write(body)
	ex.endAnswer(err)
	if err != nil {
		ex.status, ex.cut = statusLeft, true
	}
	return nil
}

// settle ends the talk with a replica whose answer was read to its end: the connection is kept for
// the next request where it may be, and the place is given back.
func (ex *exchange) settle(c *conn, in *bufio.Reader) {
	whole := in.Buffered() == 0 && !ex.work.answer.last
	if ex.detach() && whole {
		ex.replica.conns.put(c, time.Now())
	} else {
		_ = c.Close()
	}
	ex.giveBack()
}

// relayStream copies a body as it comes. Where its length is not known somebody may wait for each
// piece, so each is flushed.
func (ex *exchange) relayStream(in *bufio.Reader) error {
	a := &ex.work.answer
	var body io.Reader = in
	flush := a.length < 0
	switch {
	case a.chunked:
		body = httputil.NewChunkedReader(in)
	case a.length >= 0:
		body = io.LimitReader(in, a.length)
	default:
		a.last = true // the body ends with the connection
	}
	room := ex.work.buffer
	var copied int64
	rc := http.NewResponseController(ex.w)
	for {
		n, err := body.Read(room)
		if n > 0 {
			if _, err := ex.w.Write(room[:n]); err != nil {
				return ex.stuck(err)
			}
			copied += int64(n)
			if flush {
				if err := rc.Flush(); err != nil {
					return ex.stuck(err)
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if a.length >= 0 && copied != a.length {
		return io.ErrUnexpectedEOF
	}
	if a.chunked {
		return ex.relayTrailer(in)
	}
	return nil
}

// stuck notes that it is the client who takes nothing more.
func (ex *exchange) stuck(err error) error {
	ex.mu.Lock()
	ex.slow = true
	ex.mu.Unlock()
	return err
}

// maxTrailer is how many trailer fields an answer may have.
const maxTrailer = 64

// relayTrailer hands on the fields behind a body in chunks.
func (ex *exchange) relayTrailer(in *bufio.Reader) error {
	for range maxTrailer {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		text, ok := strings.CutSuffix(string(line), "\r\n")
		if !ok {
			return errHead
		}
		if text == "" {
			return nil
		}
		f, ok := parseField(text)
		if !ok {
			return errHead
		}
		if !hop(f.name) && !ours(f.name) {
			ex.w.Header().Add(http.TrailerPrefix+f.name, f.value)
		}
	}
	return errHead
}
