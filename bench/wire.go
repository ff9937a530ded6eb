package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
)

// The load and the replica speak HTTP/1.1 in prepared bytes, with next to no work between, so that
// what is measured is what stands between them.

var (
	errFraming = errors.New("the message has neither a Content-Length nor proper chunks")
	errEnded   = errors.New("the connection ended within a message")
)

// messageEnd is the length of the whole message at the start of b; 0 while more must be read.
// A message has a Content-Length or comes in chunks.
func messageEnd(b []byte) (int, error) {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return 0, nil
	}
	length := field(b[:head+2], "content-length")
	if length == nil {
		if !bytes.EqualFold(field(b[:head+2], "transfer-encoding"), []byte("chunked")) {
			return 0, errFraming
		}
		return chunksEnd(b, head+4)
	}
	n, err := strconv.Atoi(string(length))
	if err != nil || n < 0 {
		return 0, errFraming
	}
	if whole := head + 4 + n; whole <= len(b) {
		return whole, nil
	}
	return 0, nil
}

// chunksEnd is where the chunks that begin at an offset of b end; 0 while more must be read.
// Trailers are refused: no server that is measured sends any.
func chunksEnd(b []byte, at int) (int, error) {
	for {
		line, _, ok := bytes.Cut(b[at:], []byte("\r\n"))
		if !ok {
			return 0, nil
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return 0, errFraming
		}
		at += len(line) + 2 + int(size) + 2
		switch {
		case at > len(b):
			return 0, nil
		case b[at-2] != '\r':
			return 0, errFraming
		case size == 0:
			return at, nil
		}
	}
}

// closes tells whether the server closes the connection behind this answer.
func closes(answer []byte) bool {
	head := bytes.Index(answer, []byte("\r\n\r\n")) // it is there: the message was read
	return bytes.EqualFold(field(answer[:head+2], "connection"), []byte("close"))
}

// field is the value of a field in a head whose lines all end; name is in lower case.
func field(head []byte, name string) []byte {
	for {
		_, rest, ok := bytes.Cut(head, []byte("\r\n"))
		if !ok || len(rest) == 0 {
			return nil
		}
		head = rest
		if len(head) > len(name) && head[len(name)] == ':' && bytes.EqualFold(head[:len(name)], []byte(name)) {
			value, _, _ := bytes.Cut(head[len(name)+1:], []byte("\r\n"))
			return bytes.TrimSpace(value)
		}
	}
}

// statusOf is the status of an answer; 0 when it has none.
func statusOf(b []byte) int {
	if len(b) < 12 || !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) {
		return 0
	}
	n, _ := strconv.Atoi(string(b[9:12]))
	return n
}

// link is a connection that messages go over.
type link struct {
	io.ReadWriteCloser
	room []byte
}

// maxMessage is the longest message that a link reads.
const maxMessage = 256 << 10

// polled is a link whose waiting costs no thread: many of them on one thread take what has come
// for all at a time, which is the cheapest way to keep a server busy.
func polled(c net.Conn) *link { return &link{c, make([]byte, maxMessage)} }

// blocking is a link whose waiting blocks a thread of its own: it wakes up soonest.
func blocking(c net.Conn) (*link, error) {
	defer c.Close()
	source, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%T has no file", c)
	}
	f, err := source.File()
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &link{f, make([]byte, maxMessage)}, nil
}

// read reads one message; io.EOF is the end of the connection between two.
func (l *link) read() ([]byte, error) {
	for have := 0; ; {
		n, err := l.Read(l.room[have:])
		if err != nil && have > 0 {
			return nil, errors.Join(errEnded, err)
		}
		if err != nil {
			return nil, err
		}
		have += n
		end, err := messageEnd(l.room[:have])
		if err != nil {
			return nil, err
		}
		if end > 0 {
			return l.room[:end], nil // nobody sends two at a time
		}
		if have == len(l.room) {
			return nil, errFraming
		}
	}
}

// requestText is a request with the fields that real clients send.
func requestText(path, key string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: zarpa-bench\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n", path)
	fmt.Fprintf(&b, "Content-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", key, len(body))
	b.Write(body)
	return b.Bytes()
}
