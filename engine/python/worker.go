package python

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zarpa-dev/zarpa"
)

// reason is why a worker is not used any more; the metrics have it as a label.
type reason string

// The reasons.
const (
	reasonCrashed  reason = "crashed"  // it ended by itself, or somebody else killed it
	reasonTimeout  reason = "timeout"  // it ran past the grace after a request's time
	reasonCorrupt  reason = "corrupt"  // what it answered was no answer
	reasonRequests reason = "requests" // it answered as many as it may
	reasonMemory   reason = "memory"   // it held more than it may
	reasonAsked    reason = "asked"    // it said that it wants to be replaced
	reasonOrphaned reason = "orphaned" // its parent died
	reasonClosed   reason = "closed"   // the session ends
)

// ended is how a process ended.
type ended struct {
	known  bool // its status is
	status int  // of its exit, or the negative number of the signal that killed it
	why    string
}

// String says it as the end of a sentence about the process.
func (e ended) String() string {
	switch {
	case e.why != "":
		return "could not be started: " + e.why
	case !e.known:
		return "ended, nobody knows how"
	case e.status >= 0:
		return "exited with status " + strconv.Itoa(e.status)
	}
	sig := syscall.Signal(-e.status)
	text := "was killed by signal " + unix.SignalName(sig) + " (" + sig.String() + ")"
	if sig == syscall.SIGKILL {
		text += ", as when memory ran out"
	}
	return text
}

// worker is one Python process. Whoever took it from the pool may ask it; all else may be called from
// many goroutines.
type worker struct {
	id     int
	limits *Options
	conn   *net.UnixConn
	in     *bufio.Reader
	out    *output
	hello  hello
	// process is the worker where its parent can no more signal it; set with hello.
	process    atomic.Pointer[os.Process]
	onOrphaned func(*worker)
	parent     atomic.Pointer[nursery]

	asked    uint32 // the id of the last frame; belongs to who asks
	answered atomic.Int64
	stale    atomic.Bool // its parent has died, and it is to be replaced when it is free
	gone     sync.Once   // the exit of an orphan

	exited chan struct{} // closed after how was set
	how    ended
	done   chan struct{} // closed after why was set
	losing sync.Once
	why    reason
}

// question is a frame to a worker.
type question struct {
	kind    kind
	parts   net.Buffers       // the payload
	request string            // the id of the request that it belongs to
	items   []string          // the ids of the requests in a batch
	sent    func()            // called when the payload is not needed any more; may be nil
	stream  func(frame) error // gets the frames of a streamed answer, but for the end
	check   func(frame) error // reads the answer, or its end; what it cannot read is the end of the worker
}

// errUnasked is a question that did not reach the worker, which is gone: another may be asked.
var errUnasked = errors.New("the worker was gone before it was asked")

// lost says that the worker is not to be used any more; the first reason counts.
func (w *worker) lost(why reason) {
	w.losing.Do(func() {
		w.why = why
		close(w.done)
	})
}

// isLost says whether it was lost.
func (w *worker) isLost() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// linger is how long what a worker sent before it ended may take to be read.
const linger = time.Second

// exit takes note of the process's end. Who waits for an answer reads to the end of the socket, which
// a process that the worker started may hold open: that is why it is closed in the end.
func (w *worker) exit(how ended) {
	w.how = how
	w.lost(reasonCrashed) // before anybody acts on the exit
	close(w.exited)
	time.AfterFunc(linger, func() { _ = w.conn.Close() })
}

// orphaned is the end of the parent: nobody will tell of the worker's own end. It may finish the
// request that it works on.
func (w *worker) orphaned() {
	if w.process.Load() == nil { // it never answered
		w.exit(ended{})
		return
	}
	w.stale.Store(true)
	go w.watchOrphan() // it ends with the process, which end waits for
	w.onOrphaned(w)
}

// orphanCheck is how often an orphan is looked at: nobody tells of its end.
const orphanCheck = 20 * time.Millisecond

func (w *worker) watchOrphan() {
	tick := time.NewTicker(orphanCheck)
	defer tick.Stop()
	for {
		select {
		case <-w.exited:
			return
		case <-tick.C:
			w.signal(0)
		}
	}
}

// kill ends the process now.
func (w *worker) kill(why reason) {
	w.lost(why)
	w.signal(syscall.SIGKILL)
	_ = w.conn.Close() // nothing that comes now counts
}

// signal has the worker signalled by its parent, or, where that has died, by its handle. The channel is
// closed when that was done.
func (w *worker) signal(sig syscall.Signal) <-chan struct{} {
	if !w.stale.Load() {
		return w.parent.Load().signal(w, sig)
	}
	done := make(chan struct{})
	close(done)
	err := w.process.Load().Signal(sig)
	if sig == syscall.SIGKILL || errors.Is(err, os.ErrProcessDone) {
		w.gone.Do(func() { w.exit(ended{}) })
	}
	return done
}

// end lets the process end, and makes it: the end of its socket, then SIGTERM, then SIGKILL, each with
// the grace. It returns when the process is gone.
func (w *worker) end() {
	steps := []syscall.Signal{0, syscall.SIGTERM, syscall.SIGKILL}
	select {
	case <-w.exited: // conn is closed after the linger
		steps = nil
	default:
		_ = w.conn.Close()
	}
	timer := time.NewTimer(w.limits.Grace)
	defer timer.Stop()
	for _, sig := range steps {
		if sig != 0 {
			w.signal(sig)
		}
		timer.Reset(w.limits.Grace)
		select {
		case <-w.exited:
		case <-timer.C:
			continue
		}
		break
	}
	w.out.close()
	if p := w.process.Load(); p != nil {
		_ = p.Release() // its handle; nobody waits for it
	}
}

// ask sends a question and waits for its answer, which it returns; parts of a streamed answer go to
// q.stream. Errors: that of ctx when it ended before the answer came, model_error when the worker died
// or answered nonsense, those of a FAILED frame, errUnasked, and those of q.stream, after which the
// worker was told to stop. After an error, done tells whether the worker may be used again.
func (w *worker) ask(ctx context.Context, q question) (frame, error) {
	stop := w.watch(ctx)
	w.out.attribute(q.request)
	defer w.out.attribute("")
	if ctx.Err() != nil { // while what was printed before was read: the worker has not begun
		stop()
		return frame{}, zarpa.AsError(ctx.Err())
	}
	returned := false
	defer func() {
		if !returned { // q.stream panicked in the middle of an answer
			w.kill(reasonCorrupt)
		}
	}()
	answer, err := w.exchange(q)
	returned = true
	if interrupted := stop(); interrupted {
		return frame{}, w.overtime(ctx)
	}
	return answer, err
}

// watch interrupts the worker when ctx ends, and kills it after the grace. The function that it
// returns ends that, and says whether ctx had ended; then it has waited until no interrupt is on its
// way to the worker any more, which would hit the next request.
func (w *worker) watch(ctx context.Context) func() bool {
	if ctx.Done() == nil {
		return func() bool { return false }
	}
	begun := make(chan struct{})
	var delivered <-chan struct{}
	var killer *time.Timer
	stop := context.AfterFunc(ctx, func() {
		defer close(begun)
		delivered = w.signal(syscall.SIGALRM)
		killer = time.AfterFunc(w.limits.Grace, func() { w.kill(reasonTimeout) })
	})
	return func() bool {
		if stop() {
			return false
		}
		<-begun
		select { // the killer bounds it: the nursery may not answer any more
		case <-delivered:
		case <-w.done:
		}
		if !killer.Stop() {
			<-w.done // it is being killed
		}
		return true
	}
}

// overtime is the error of a request whose context ended before its answer came.
func (w *worker) overtime(ctx context.Context) error {
	what := "was interrupted"
	if w.isLost() {
		what = "its worker was replaced"
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return zarpa.Errorf(zarpa.Timeout, "the model ran past the request's time and %s", what).Because(ctx.Err())
	}
	return zarpa.Errorf(zarpa.Canceled, "the request was canceled while the model ran, which %s", what).Because(ctx.Err())
}

// exchange is ask without the limit of time.
func (w *worker) exchange(q question) (frame, error) {
	w.asked++
	err := w.send(q)
	if q.sent != nil && (err == nil || !w.dying()) {
		q.sent()
	}
	if err != nil {
		if w.dying() {
			return frame{}, errors.Join(errUnasked, err)
		}
		return frame{}, w.broken(err)
	}
	streamed, left := false, error(nil)
	for {
		f, err := readFrame(w.in, int64(w.limits.MaxAnswer))
		if err == nil && f.id != w.asked {
			err = corrupt("id %d, not %d", f.id, w.asked)
		}
		if err == nil {
			err = mayFollow(f, q.kind, streamed)
		}
		if err != nil {
			return frame{}, w.broken(err)
		}
		switch {
		case f.kind == kindTrace:
			w.trace(f.payload, q)
			continue
		case f.kind == kindFailed:
			return frame{}, w.failed(f.payload)
		case f.kind == kindEnd || !streamed && !isStreamed(f):
			if err := q.check(f); errors.Is(err, errCorrupt) {
				return frame{}, w.broken(err)
			} else if left == nil {
				left = err
			}
			w.answered.Add(max(1, int64(len(q.items))))
			return f, left
		}
		streamed = true
		if left != nil {
			continue // until the worker has stopped
		}
		if left = q.stream(f); errors.Is(left, errCorrupt) {
			return frame{}, w.broken(left)
		} else if left != nil {
			defer w.watch(canceled())()
		}
	}
}

// canceled is a context that has ended: to watch it is to interrupt.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// mayFollow checks that a frame may follow: results to calls, tensors to runs, parts to a streamed result.
func mayFollow(f frame, asked kind, streamed bool) error {
	ok := false
	switch f.kind {
	case kindTrace:
		ok = true
	case kindFailed:
		ok = !streamed
	case kindResult:
		ok = asked == kindScore && !streamed
	case kindChunk, kindEnd:
		ok = streamed
	case kindTensors:
		ok = asked == kindRun
	case kindBatched:
		ok = asked == kindBatch
	default:
	}
	if !ok {
		return corrupt("kind %d in answer to kind %d", f.kind, asked)
	}
	return nil
}

// isStreamed says whether a frame is a result whose body follows in parts.
func isStreamed(f frame) bool {
	return f.kind == kindResult && len(f.payload) >= resultHead && f.payload[2]&flagStreamed != 0
}

// small is up to where a payload is copied behind its head: cheaper than a vector.
const small = 32 << 10

func (w *worker) send(q question) error {
	size := 0
	for _, p := range q.parts {
		size += len(p)
	}
	if size <= small {
		b := appendHead(make([]byte, 0, frameHead+size), q.kind, w.asked, size)
		for _, p := range q.parts {
			b = append(b, p...)
		}
		_, err := w.conn.Write(b)
		return err
	}
	head := appendHead(make([]byte, 0, frameHead), q.kind, w.asked, size)
	parts := append(net.Buffers{head}, q.parts...)
	_, err := parts.WriteTo(w.conn)
	return err
}

// dying waits a little for the process's end: its socket has ended already.
func (w *worker) dying() bool {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-w.exited:
		return true
	case <-w.done: // killed, or replaced, or about to have exited
		if w.why == reasonCrashed {
			<-w.exited
		}
		return true
	case <-timer.C:
		return false
	}
}

// broken is the error of a request whose worker has died, or is beside itself and killed for it.
func (w *worker) broken(err error) error {
	if !errors.Is(err, errCorrupt) && w.dying() {
		select {
		case <-w.exited:
			e := zarpa.Errorf(zarpa.ModelError, "the worker %v while it ran the request, and was replaced", w.how)
			w.out.close() // reads what is left
			if last := w.out.last(); last != "" {
				return e.Because(pythonError("the last lines of its stderr:\n" + last))
			}
			return e
		default:
		}
		return zarpa.Errorf(zarpa.ModelError, "the worker was replaced while it ran the request").Because(err)
	}
	w.kill(reasonCorrupt)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return zarpa.Errorf(zarpa.ModelError, "the worker closed its socket while it ran the request, and was replaced").Because(err)
	}
	return zarpa.Errorf(zarpa.ModelError, "the worker's answer was damaged, and it was replaced").Because(err).
		WithHint("the script, or a library, writes to descriptors or memory that are not its own")
}

func (w *worker) failed(payload []byte) error {
	var f failed
	if err := decodeJSON(payload, &f); err != nil {
		return w.broken(err)
	}
	w.answered.Add(1)
	return f.runError()
}

// trace logs the traceback of a script's error, which its client gets an answer of its own for.
func (w *worker) trace(payload []byte, q question) {
	var f failed
	if decodeJSON(payload, &f) != nil {
		return
	}
	id := q.request
	if f.Item >= 0 && f.Item < len(q.items) {
		id = q.items[f.Item]
	}
	w.limits.Log.Warn("the script failed", "worker", w.id, "request_id", id, "message", bounded(f.Message), "traceback", f.Traceback)
}
