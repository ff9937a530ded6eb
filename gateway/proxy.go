package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// What is tried again, and why nothing is ever executed twice:
//
//   - A connection could not be made. The replica got nothing. It is kept out of the choice for
//     benchTime, and the request goes back to the head of the queue within its QueueWait.
//   - No byte of the request was accepted by the kernel (the write failed with 0 bytes written).
//     The replica got nothing.
//   - The request was written to a connection that was used before, and the read of the answer,
//     of which no byte came, says ECONNRESET on a Unix socket of Linux. The kernel says that when the
//     peer closed with bytes of ours unread, and this request is all that was on the connection. A
//     replica works on a request when it has read it to its end; this one was not.
//   - The same with any error, for GET, HEAD and OPTIONS without a body: HTTP lets them be repeated
//     (RFC 9110, section 9.2.2).
//
// The last three are tried once more, within the endpoint's retry budget, at another replica if one is free, else at the same one, on a
// fresh connection. A request that was written to a fresh connection is never sent again, nor is
// one whose body was streamed, nor one of whose answer a byte was read.

// outcome is how one try ended.
type outcome int

const (
	answered  outcome = iota // or failed for good
	unreached                // no connection could be made
	unread                   // the replica has read nothing, or not all
)

// forward sends the request to the replica and its answer to the client.
func (ex *exchange) forward() *zarpa.Error {
	for fresh := false; ; {
		out, err := ex.try(fresh)
		switch {
		case out == unreached:
			r := ex.replica
			ex.rule.pool.bench(r)
			ex.giveBack()
			ex.series.retries.Inc()
			ex.wait.again = !ex.copied
			if queued := ex.acquire(); queued != nil {
				return queued.Because(err)
			}
		case out == unread && !fresh && !ex.copied && ex.rule.mayRetry(ex.series):
			fresh = true
			ex.replica = ex.rule.pool.another(ex.replica)
		default:
			return zarpa.AsError(err)
		}
	}
}

// try sends the request once. With fresh set it makes a new connection.
func (ex *exchange) try(fresh bool) (outcome, error) {
	ex.trace.tries++
	ex.trace.replica = ex.replica.id
	var c *conn
	if !fresh {
		c = ex.replica.conns.get()
	}
	if c == nil {
		var err error
		if c, err = ex.g.dial.dial(ex.r.Context(), &ex.replica.conns, ex.deadline); err != nil {
			return ex.undialed(err)
		}
	}
	if !ex.attach(c) {
		_ = c.Close()
		return answered, ex.broken()
	}
	began := time.Now()
	in := ex.g.readers.get(c)
	r := ex.replica // which talk gives back
	out, err := ex.talk(c, in)
	ex.rule.pool.judge(ex.r.Context(), r, ex.verdict(out, fresh, err))
	// The connection is kept where the answer was read to its end and nobody broke it off.
	if c != nil && ex.conn != nil {
		ex.detach()
		_ = c.Close()
	}
	ex.g.readers.put(in)
	took := time.Since(began)
	ex.trace.upstream += took
	if out == answered {
		ex.series.upstream.Observe(took.Seconds())
	}
	return out, err
}

// undialed tells a replica that could not be reached from a request whose time to reach one was over,
// which may be seen here before its timer is: that is no replica's fault.
func (ex *exchange) undialed(err error) (outcome, error) {
	if broken := ex.broken(); broken != nil {
		return answered, broken
	}
	if !time.Now().Before(ex.deadline) {
		return answered, ex.rule.timeoutError()
	}
	return unreached, err
}

// talk writes the request, reads the head of the answer and hands the answer on.
func (ex *exchange) talk(c *conn, in *bufio.Reader) (outcome, error) {
	sent, err := ex.send(c)
	if err != nil {
		if broken := ex.broken(); broken != nil {
			return answered, broken
		}
		if clientSide, ok := errors.AsType[*zarpa.Error](err); ok {
			return answered, clientSide
		}
		if sent == 0 && !ex.more {
			return unread, brokenReplica(err)
		}
		// A replica may answer before it has read all, and close: its answer counts.
	}
	if err := ex.readHead(in); err != nil {
		if broken := ex.broken(); broken != nil {
			return answered, broken
		}
		if ex.mayRepeat(c, err) {
			return unread, brokenReplica(err)
		}
		return answered, brokenReplica(err)
	}
	ex.work.answer.last = ex.work.answer.last || err != nil
	return answered, ex.relay(c, in)
}

// mayRepeat decides, for a request that was written and got no answer; see the top of this file.
func (ex *exchange) mayRepeat(c *conn, err error) bool {
	if !c.reused || ex.more || errors.Is(err, errHead) || errors.Is(err, errHeadTooLong) || errors.Is(err, errHeadBegun) {
		return false
	}
	if len(ex.body) == 0 {
		switch ex.r.Method {
		case http.MethodGet, http.MethodHead, http.MethodOptions:
			return true
		}
	}
	return c.unix && runtime.GOOS == "linux" && errors.Is(err, syscall.ECONNRESET)
}

func brokenReplica(err error) *zarpa.Error {
	message := "Replica closed connection before replying"
	if errors.Is(err, errHead) || errors.Is(err, errHeadTooLong) || errors.Is(err, errHeadBegun) {
		message = "Replica gave an answer that cannot be read"
	}
	return zarpa.Errorf(zarpa.ModelError, "%s", message).
		WithHint("zarpa logs shows what it printed last, zarpa explain why it ended").Because(err)
}

// send writes head and body. A body that is all there leaves with the head in one write.
func (ex *exchange) send(c *conn) (written int, err error) {
	length := ex.size
	if ex.more {
		length = ex.r.ContentLength
	}
	ex.work.head = ex.appendHead(ex.work.head[:0], length, time.Now())
	head := ex.work.head
	var message []byte
	if len(head) <= headRoom {
		from := headRoom - len(head)
		copy(ex.work.buffer[from:], head)
		message = ex.work.buffer[from : headRoom+len(ex.body)]
	} else {
		message = append(bytes.Clone(head), ex.body...)
	}
	if !ex.more {
		return c.Write(message)
	}
	if length >= 0 {
		if written, err = c.Write(message); err != nil {
			return written, err
		}
		return written, ex.stream(func(b []byte) error {
			_, err := c.Write(b)
			return err
		})
	}
	return len(head), ex.sendChunks(c, head)
}

// sendChunks writes a body of unknown length.
func (ex *exchange) sendChunks(c *conn, head []byte) error {
	w := bufio.NewWriterSize(c, 4<<10)
	_, _ = w.Write(head) // errors stay until Flush
	chunk := func(b []byte) error {
		_, _ = w.WriteString(strconv.FormatInt(int64(len(b)), 16) + "\r\n")
		_, _ = w.Write(b)
		_, _ = w.WriteString("\r\n")
		return w.Flush()
	}
	if err := chunk(ex.body); err != nil {
		return err
	}
	if err := ex.stream(chunk); err != nil {
		return err
	}
	_, _ = w.WriteString("0\r\n\r\n")
	return w.Flush()
}

// stream reads the rest of the client's body and hands it on piece by piece. Errors of the client's
// side are *zarpa.Error, those of the replica's are not.
func (ex *exchange) stream(write func([]byte) error) error {
	room := ex.work.buffer[headRoom : headRoom+SmallBody]
	ex.setPhase(reading)
	defer ex.setPhase(working)
	for {
		n, err := ex.r.Body.Read(room)
		if ex.size += int64(n); ex.size > ex.rule.maxBody {
			return ex.tooLarge()
		}
		if n > 0 {
			if err := write(room[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return ex.bodyError(err)
		}
	}
}

// errHeadBegun is an answer that broke off within its head.
var errHeadBegun = errors.New("the connection ended within the head of the answer")

// maxInterim is how many 1xx answers are skipped before the answer itself.
const maxInterim = 8

// readHead reads the head of the answer; interim ones (1xx) are left aside.
func (ex *exchange) readHead(in *bufio.Reader) error {
	a := &ex.work.answer
	for range maxInterim {
		text, err := readHeadText(in)
		if err != nil {
			return err
		}
		if err := parseHead(text, a); err != nil {
			return err
		}
		if a.status >= 200 || a.status == http.StatusSwitchingProtocols {
			return nil
		}
	}
	return errHead
}

// readHeadText reads up to and with the empty line.
func readHeadText(in *bufio.Reader) (string, error) {
	for want := 1; ; {
		b, err := in.Peek(want)
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				return "", errHeadTooLong
			}
			if len(b) > 0 {
				return "", errors.Join(errHeadBegun, err)
			}
			return "", err
		}
		b, _ = in.Peek(in.Buffered())
		if end := bytes.Index(b, []byte("\r\n\r\n")); end >= 0 {
			text := string(b[:end+4])
			_, _ = in.Discard(end + 4)
			return text, nil
		}
		want = len(b) + 1
	}
}
