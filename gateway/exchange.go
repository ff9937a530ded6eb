package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// exchange is one request on its way. It is used by the request's goroutine; what the time limit
// or the client's leaving touch meanwhile is under mu.
type exchange struct {
	g        *Gateway
	w        http.ResponseWriter
	r        *http.Request
	start    time.Time
	deadline time.Time
	match    match
	rule     *rule
	who      identity
	// place and allowance are counted, to be given back with leave.
	place     *share
	allowance *allowance
	wait      ask
	replica   *replica // taken, to be given back
	series    *series  // of the deployment; nil before it is known
	status    int      // answered; 0 before
	ending    ending   // as far as it is known; see [exchange.blame]
	cut       bool     // the answer broke off: the client's connection must, too
	upgrade   bool     // to a WebSocket
	mirrored  bool     // it has a copy
	copied    bool     // it is one

	counted counting // stands for w where there is an access log
	trace   trace

	work  *workspace
	body  []byte // what was read of the body; in work's buffer, behind its headRoom
	size  int64  // of the body, as far as it was read
	more  bool   // there may be more of it
	limit *time.Timer
	stop  func() bool // stops watching for the client's leaving

	mu    sync.Mutex
	cause cause
	slow  bool  // the time limit passed while the client's side was waited for
	conn  *conn // in use
	phase phase
}

// cause is why an exchange was broken off from outside.
type cause int

const (
	running cause = iota
	timedOut
	left
	ended // nothing is left to break off
)

// phase is where the client's connection may keep the exchange waiting.
type phase int

const (
	working   phase = iota
	reading         // the body
	writing         // the answer
	finishing       // a small answer, in one write
)

// lastWrite is how long a client may take for a small answer whose time limit passes just then: it gets
// the answer whole, unless it takes nothing.
const lastWrite = time.Second

// headRoom is kept free before a body, so that head and body leave in one write without a copy
// of the body.
const headRoom = 2 << 10

// workspace is the memory of an exchange, used again by later ones.
type workspace struct {
	buffer []byte
	head   []byte
	answer answer
}

// workspaces keeps two sizes: most bodies are small, and many requests may wait at a time.
type workspaces struct{ small, large sync.Pool }

const smallBuffer = 8 << 10

func (p *workspaces) get(bodySize int64) *workspace {
	pool, size := &p.small, smallBuffer
	if bodySize < 0 || bodySize > smallBuffer-headRoom {
		pool, size = &p.large, headRoom+SmallBody+1
	}
	if w, ok := pool.Get().(*workspace); ok {
		return w
	}
	return &workspace{buffer: make([]byte, size)}
}

func (p *workspaces) put(w *workspace) {
	if len(w.buffer) == smallBuffer {
		p.small.Put(w)
		return
	}
	p.large.Put(w)
}

// receive starts the clock and reads a body of up to [SmallBody] bytes. Of a larger one the
// beginning is read, and the rest follows behind the head to the replica.
func (ex *exchange) receive() *zarpa.Error {
	length := ex.r.ContentLength
	if length > ex.rule.maxBody {
		return ex.tooLarge()
	}
	ex.deadline = ex.start.Add(ex.rule.timeout)
	ex.limit = time.AfterFunc(ex.rule.timeout, func() { ex.breakOff(timedOut) })
	ex.stop = context.AfterFunc(ex.r.Context(), func() { ex.breakOff(left) })
	if ex.r.Body == nil || ex.r.Body == http.NoBody {
		length = 0
	}
	ex.work = ex.g.workspaces.get(length)
	room := ex.work.buffer[headRoom:]
	ex.body = room[:0]
	if length == 0 {
		return nil
	}
	if length > 0 && length <= SmallBody {
		room = room[:length]
	} else {
		room = room[:SmallBody]
	}
	ex.setPhase(reading)
	n, err := io.ReadFull(ex.r.Body, room)
	ex.setPhase(working)
	ex.body, ex.size = room[:n], int64(n)
	switch {
	case ex.size > ex.rule.maxBody:
		return ex.tooLarge()
	case err == nil:
		ex.more = length != int64(n)
		return nil
	case length < 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && ex.atEnd()):
		return nil
	}
	return ex.bodyError(err)
}

// atEnd tells the end of a body in chunks from a connection that broke off within: ReadFull calls
// both an unexpected end, a further read does not.
func (ex *exchange) atEnd() bool {
	var one [1]byte
	n, err := ex.r.Body.Read(one[:])
	return n == 0 && err == io.EOF
}

func (ex *exchange) tooLarge() *zarpa.Error {
	return zarpa.Errorf(zarpa.TooLarge, "the request body is larger than %v", zarpa.Bytes(ex.rule.maxBody)).
		WithHint("the endpoint's max_body sets the limit")
}

// bodyError says why a body could not be read.
func (ex *exchange) bodyError(err error) *zarpa.Error {
	if broken := ex.broken(); broken != nil {
		return broken
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(interface{ Timeout() bool })) {
		return errLeft()
	}
	return zarpa.Errorf(zarpa.Invalid, "the request body could not be read: it is not framed as HTTP says")
}

// breakOff ends whatever the exchange waits for: the replica, the client's body or the client's
// taking of the answer. The work at the replica ends with its connection.
func (ex *exchange) breakOff(c cause) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.cause != running {
		return
	}
	ex.cause, ex.slow = c, ex.phase == reading
	past := time.Unix(1, 0)
	if ex.conn != nil {
		_ = ex.conn.SetDeadline(past)
	}
	switch ex.phase {
	case reading:
		_ = http.NewResponseController(ex.w).SetReadDeadline(past)
	case writing:
		_ = http.NewResponseController(ex.w).SetWriteDeadline(past)
	case finishing:
		until := past
		if c == timedOut {
			until = time.Now().Add(lastWrite)
		}
		_ = http.NewResponseController(ex.w).SetWriteDeadline(until)
	case working:
	}
}

func (ex *exchange) setPhase(p phase) {
	ex.mu.Lock()
	ex.phase = p
	if p == reading && ex.cause == timedOut {
		_ = http.NewResponseController(ex.w).SetReadDeadline(time.Unix(1, 0))
	}
	ex.mu.Unlock()
}

// beginAnswer turns to writing the answer, in the phase that is given. Where the exchange was broken off just before, its error is
// the answer: a client hears why, and not just the end of its connection.
func (ex *exchange) beginAnswer(p phase) *zarpa.Error {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if err := ex.why(); err != nil {
		return err
	}
	ex.phase = p
	return nil
}

// endAnswer ends the writing of a whole answer. One that was taken is the client's, though the time
// limit passed meanwhile: net/http may still hold its end, and keeps the connection for the next request.
func (ex *exchange) endAnswer(err error) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	ex.phase = working
	if err == nil && ex.cause == timedOut {
		_ = http.NewResponseController(ex.w).SetWriteDeadline(time.Time{}) // as in breakOff
	}
}

// broken is the error of an exchange that was broken off; nil while it runs.
func (ex *exchange) broken() *zarpa.Error {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	return ex.why()
}

// why is broken with ex.mu held.
func (ex *exchange) why() *zarpa.Error {
	switch ex.cause {
	case timedOut:
		return ex.rule.timeoutError()
	case left:
		return errLeft()
	case running, ended:
	}
	return nil
}

// blame notes an error after a replica was taken: is the deployment to blame for it?
func (ex *exchange) blame(code zarpa.Code) {
	ex.mu.Lock()
	slow := ex.slow
	ex.mu.Unlock()
	switch {
	case ex.series == nil || ex.ending == refused:
	case (code == zarpa.ModelError || code == zarpa.Timeout) && !slow:
		ex.ending = faulty
	}
}

// attach makes c the connection that breakOff ends; false when it is too late.
func (ex *exchange) attach(c *conn) bool {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.cause != running {
		return false
	}
	ex.conn = c
	return true
}

// detach takes the connection back; false when breakOff has touched it.
func (ex *exchange) detach() bool {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	ex.conn = nil
	return ex.cause == running
}

// giveBack frees the replica for the next request.
func (ex *exchange) giveBack() {
	if ex.replica != nil {
		ex.rule.pool.release(ex.replica)
		ex.replica = nil
	}
}

// release gives back all that an exchange holds, at its end.
func (ex *exchange) release() {
	ex.giveBack()
	ex.leave()
	if ex.limit == nil {
		return
	}
	ex.limit.Stop()
	ex.stop()
	ex.mu.Lock()
	ex.cause = ended // a call of breakOff that is late must not touch the client's next request
	c := ex.conn
	ex.mu.Unlock()
	if c != nil {
		_ = c.Close() // a panic is on its way
	}
	if ex.work != nil {
		ex.g.workspaces.put(ex.work)
		ex.work, ex.body = nil, nil
	}
}
