package python

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// nursery speaks to a process that forks workers: the root, or the zygote. It may be used from many
// goroutines.
type nursery struct {
	conn    *net.UnixConn
	lost    chan struct{} // closed when the process is gone, and no child will be told of any more
	verdict chan event    // what a worker that loads says of itself; one at most
	loading *worker       // that worker, and from its parent
	from    *nursery

	mu       sync.Mutex // guards what follows, and the order of what is written
	children map[int]*worker
	signals  map[int][]chan struct{} // of each worker, the signals on their way, the oldest first
}

// event is a line of a nursery.
type event struct {
	Event  string `json:"event"`
	Worker int    `json:"worker"`
	Status int    `json:"status"`
	Error  string `json:"error"`
	Why    string `json:"why"`
}

// order is a line to a nursery.
type order struct {
	Do       string         `json:"do"`
	Worker   int            `json:"worker"`
	FDs      int            `json:"fds,omitempty"`
	Signal   syscall.Signal `json:"signal,omitempty"`
	Preload  zarpa.Preload  `json:"preload,omitempty"`
	Settings *settings      `json:"settings,omitempty"`
}

// newNursery is the nursery behind a control socket, which its listen is to read.
func newNursery(conn *net.UnixConn) *nursery {
	return &nursery{
		conn: conn, lost: make(chan struct{}), verdict: make(chan event, 1),
		children: map[int]*worker{}, signals: map[int][]chan struct{}{},
	}
}

// listen reads events until the process is gone.
func (n *nursery) listen() {
	defer n.end()
	lines := bufio.NewScanner(n.conn)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			return
		}
		switch e.Event {
		case "exited":
			n.exited(e.Worker, ended{known: true, status: e.Status})
		case "failed":
			n.exited(e.Worker, ended{why: e.Error})
		case "signalled":
			n.signalled(e.Worker)
		case "zygote", "unsafe":
			if e.Event == "zygote" {
				n.takeOver()
			}
			select {
			case n.verdict <- e:
			default: // said before; once is enough
			}
		}
	}
}

func (n *nursery) exited(id int, how ended) {
	n.mu.Lock()
	w := n.children[id]
	delete(n.children, id)
	n.mu.Unlock()
	if w != nil {
		w.exit(how)
	}
}

// signalled closes the channel of the oldest signal on its way to a worker: the nursery tells of each,
// in the order in which it was asked.
func (n *nursery) signalled(id int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting := n.signals[id]
	if len(waiting) == 0 {
		return
	}
	close(waiting[0])
	if n.signals[id] = waiting[1:]; len(waiting) == 1 {
		delete(n.signals, id)
	}
}

// end tells the children that nobody will hear of them any more.
func (n *nursery) end() {
	_ = n.conn.Close() // the process has ended, or is to
	close(n.lost)
	n.mu.Lock()
	children := n.children
	n.children = map[int]*worker{}
	for id, waiting := range n.signals {
		for _, done := range waiting {
			close(done)
		}
		delete(n.signals, id)
	}
	n.mu.Unlock()
	for _, w := range children {
		w.orphaned()
	}
}

// start asks for a fork; files become the child's, in the order that nursery.py says, and stay the
// caller's here. What becomes of it, the worker is told.
func (n *nursery) start(w *worker, o order, files []*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	o.Do, o.Worker, o.FDs = "start", w.id, len(files)
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.lost:
		return net.ErrClosed
	default:
	}
	n.children[w.id] = w
	if err := n.write(o, syscall.UnixRights(fds...)); err != nil {
		delete(n.children, w.id)
		return err
	}
	return nil
}

// signal asks for a worker to be signalled by its parent, which alone knows that its process id is
// still its. The channel is this signal's own: it is closed when that was done, or the worker was gone.
func (n *nursery) signal(w *worker, sig syscall.Signal) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	done := make(chan struct{})
	if n.children[w.id] == nil || n.write(order{Do: "signal", Worker: w.id, Signal: sig}, nil) != nil {
		close(done)
		return done
	}
	n.signals[w.id] = append(n.signals[w.id], done)
	return done
}

// writeLimit bounds the wait for a nursery to read, which is idle but for forks.
const writeLimit = 10 * time.Second

// write sends a line; the caller holds mu. Half a line would be the end of the nursery.
func (n *nursery) write(o order, rights []byte) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if err := n.conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	sent, _, err := n.conn.WriteMsgUnix(text, rights, nil)
	if err == nil && sent < len(text) {
		_, err = n.conn.Write(text[sent:])
	}
	if err != nil {
		_ = n.conn.Close() // listen ends
		return errors.Join(errors.New("the nursery does not read"), err)
	}
	return nil
}

// takeOver makes the worker that loaded a child of this nursery, which has forked it out of itself.
func (n *nursery) takeOver() {
	n.from.mu.Lock()
	_, alive := n.from.children[n.loading.id]
	delete(n.from.children, n.loading.id)
	n.from.mu.Unlock()
	if !alive {
		return // it was told of its end
	}
	n.loading.parent.Store(n)
	n.mu.Lock()
	n.children[n.loading.id] = n.loading
	n.mu.Unlock()
}
