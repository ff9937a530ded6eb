package container

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/zarpa-dev/zarpa"
)

// unreachable tells whether err is of the way to the engine, and not an answer of it.
func unreachable(err error) bool {
	if err == nil {
		return false
	}
	_, ssh := sshSaid(err)
	_, op := errors.AsType[*net.OpError](err)
	return ssh || op || client.IsErrConnectionFailed(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrPermission)
}

func gone(err error) bool { return errdefs.IsNotFound(err) }

// failure is an error of the engine in words for the user; doing is what was tried ("start the container").
func (r *runner) failure(doing string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*zarpa.Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if unreachable(err) {
		return notReached(r.host, err)
	}
	return r.answered(doing, err)
}

// notReached says why there is no engine.
func notReached(h host, err error) *zarpa.Error {
	if dialing := h.why.get(); dialing != nil && (client.IsErrConnectionFailed(err) || h.url.Scheme == "ssh") {
		err = dialing
	}
	said, ssh := sshSaid(err)
	text := err.Error()
	switch {
	case ssh:
		text = said
	case errors.Is(err, os.ErrPermission):
		text = "permission denied"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "nobody listens"
	case errors.Is(err, syscall.ENOENT):
		text = "the socket does not exist"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		text = "it did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = "it closed the connection"
	}
	e := zarpa.Errorf(zarpa.Unavailable, "the container engine at %v cannot be reached: %s", h, text).Because(err)
	switch {
	case errors.Is(err, os.ErrPermission):
		return e.WithHint("let the user of zarpa use the socket: for Docker, add it to the group docker and log in again")
	case h.url.Scheme == "ssh":
		return e.WithHint("see that `ssh %s` works without asking, and that Docker or Podman is installed there and open to that user", h.url.Hostname())
	case h.local():
		return e.WithHint("see that it runs (Docker: systemctl start docker; Podman: systemctl start podman.socket) and that the target's host is right")
	}
	return e.WithHint("see that it runs there, that no firewall is in the way, and that the target's host and certificates are right")
}

// cause is one thing that engines say, and what to do about it.
type cause struct {
	says []string // parts of the text, in lower case; one is enough. "a…b" is a, and b somewhere behind it
	code zarpa.Code
	hint string
}

func (c cause) fits(text string) bool {
	return slices.ContainsFunc(c.says, func(says string) bool {
		rest := text
		for part := range strings.SplitSeq(says, "…") {
			_, behind, found := strings.Cut(rest, part)
			if !found {
				return false
			}
			rest = behind
		}
		return true
	})
}

// causes are looked through in order.
var causes = []cause{
	{[]string{"exec format error"}, zarpa.Invalid, "the image is of another architecture than the engine's machine: make it for that one"},
	{
		[]string{"no space left on device", "disk quota exceeded"},
		zarpa.Unavailable,
		"the disk of the engine is full: free some space, for example with `docker system prune`",
	},
	{[]string{"port is already allocated", "address already in use"}, zarpa.Unavailable, "another program holds the port on the engine's machine; it is tried again with another one"},
	{[]string{"cannot assign requested address"}, zarpa.Invalid, "the target's publish address is none of the engine's machine: name one that is"},
	{
		[]string{"could not find network", "network …not found", "unable to find network", "no such network"},
		zarpa.Invalid,
		"make the target's network with `docker network create`, or name one that is there",
	},
	{[]string{"minimum memory limit"}, zarpa.Invalid, "ask for more memory"},
	{[]string{"range of cpus", "cpus is more than available"}, zarpa.Invalid, "ask for less cpu, or use another target"},
	{[]string{`exec: "/bin/sh"`}, zarpa.Invalid, "the base image has no shell, which installing the environment needs: name one that has, and Python"},
	{[]string{"executable file not found", "exec: …no such file or directory", "stat /…no such file or directory", "starting container process caused…no such file"}, zarpa.Invalid, "the image does not hold the program that it names as its entrypoint: make it again"},
	{[]string{"cannot allocate memory"}, zarpa.Unavailable, "the engine's machine has no memory left: stop something there, or use another target"},
	{[]string{"client version", "minimum supported api version", "requires api version"}, zarpa.Invalid, "Docker 19.03 or Podman 4 or newer is needed"},
	{[]string{"no basic auth", "unauthorized", "authentication required"}, zarpa.Denied, "log in to the registry with `docker login`"},
	{[]string{"toomanyrequests", "too many requests"}, zarpa.Overloaded, "the registry limits how much is pulled: wait, log in, or use another one"},
}

// answered is an error that the engine answered with.
func (r *runner) answered(doing string, err error) error {
	text := plain(err)
	for _, c := range causes {
		if c.fits(strings.ToLower(text)) {
			return zarpa.Errorf(c.code, "the engine could not %s: %s", doing, text).Because(err).WithHint("%s", c.hint)
		}
	}
	return zarpa.Errorf(zarpa.Unavailable, "the engine could not %s: %s", doing, text).Because(err)
}

// plain is the engine's text without what the client leads it with.
func plain(err error) string {
	return strings.TrimSpace(strings.TrimPrefix(err.Error(), "Error response from daemon: "))
}

// taken is what engines say of a port or name that another container has.
var taken = cause{says: []string{"port is already allocated", "address already in use", "is already in use by", "name is already in use"}}

// retryable tells whether a start that failed may do better with another name or port.
func retryable(err error) bool { return err != nil && taken.fits(strings.ToLower(err.Error())) }
