package child

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zarpa-dev/zarpa"
)

const (
	tailLines = 20
	// crashBytes is how far back the head of a crash is looked for: a Go trace of some hundred
	// goroutines.
	crashBytes = 256 << 10
	maxReason  = 500
)

func exitOf(status syscall.WaitStatus, known bool) zarpa.Exit {
	switch {
	case !known:
		return zarpa.Exit{Code: -1, Unknown: true}
	case status.Signaled():
		return zarpa.Exit{Code: -1, Signal: unix.SignalName(status.Signal())}
	default:
		return zarpa.Exit{Code: status.ExitStatus()}
	}
}

// Reason says in one sentence how a run ended; text is the end of what it printed, where the head of a crash
// is looked for. e.Log holds its last lines.
func Reason(e zarpa.Exit, text string, limits Limits) string {
	return reason(e, crashLine(text), limits)
}

// reason says in one sentence how a process ended. crash is the head of a crash in its log.
func reason(e zarpa.Exit, crash string, limits Limits) string {
	last, hint := "", ""
	for i := len(e.Log) - 1; i >= 0 && last == ""; i-- {
		last = Sentence(e.Log[i])
		if way, ok := strings.CutPrefix(last, "→ "); ok && i > 0 { // below the failure that it is the way out of
			last, hint = "", " ("+way+")"
		}
	}
	last += hint
	switch {
	case e.OutOfMemory:
		return fmt.Sprintf("it used more than its memory limit of %v and the kernel ended it", limits.Memory)
	case e.Code == zarpa.ExitLoadFailed && last != "":
		return "the model could not be loaded: " + strings.TrimPrefix(last, "the model could not be loaded: ")
	case e.Code == zarpa.ExitLoadFailed:
		return "the model could not be loaded, and the replica printed no reason"
	case crash != "" && e.Code != 0:
		return "it crashed: " + crash
	case e.Unknown:
		return "it ended while nobody watched" + behind(last)
	case e.Signal != "":
		return "signal " + e.Signal + " ended it" + behind(last)
	case e.Code == 0:
		return "it ended by itself"
	}
	return fmt.Sprintf("it ended with exit code %d%s", e.Code, behind(last))
}

func behind(last string) string {
	if last == "" {
		return ""
	}
	return "; its last line: " + last
}

// Sentence takes the message for a person out of a log line: message and error of a structured
// line (slog as text or JSON), anything else as it is.
func Sentence(line string) string {
	line = strings.TrimSpace(line)
	fields := map[string]string{}
	switch {
	case strings.HasPrefix(line, "{"):
		var raw map[string]any
		if json.Unmarshal([]byte(line), &raw) == nil {
			for k, v := range raw {
				if s, ok := v.(string); ok {
					fields[k] = s
				}
			}
		}
	case strings.Contains(line, "msg="):
		fields = logfmt(line)
	}
	msg, cause := fields["msg"], fields["err"]
	if cause == "" {
		cause = fields["error"]
	}
	switch {
	case msg != "" && cause != "":
		line = msg + ": " + cause
	case msg != "":
		line = msg
	case cause != "":
		line = cause
	default:
		line = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "Error: "), "error: "), "zarpa: ")
	}
	return clip(line, maxReason)
}

// logfmt reads key=value and key="quoted value" pairs, as slog's text handler writes them.
func logfmt(line string) map[string]string {
	out := map[string]string{}
	for line != "" {
		key, rest, ok := strings.Cut(strings.TrimLeft(line, " "), "=")
		if !ok {
			break
		}
		if !strings.HasPrefix(rest, `"`) {
			out[key], line, _ = strings.Cut(rest, " ")
			continue
		}
		end := 1
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) {
			break
		}
		var value string
		if json.Unmarshal([]byte(rest[:end+1]), &value) != nil {
			value = rest[1:end]
		}
		out[key], line = value, rest[end+1:]
	}
	return out
}

// crashLine is the last line in the text that begins a crash report of Go, the C library or C++,
// or "".
func crashLine(text string) string {
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, head := range []string{
			"panic: ", "fatal error: ", "SIGSEGV: ", "SIGABRT: ", "SIGBUS: ", "SIGILL: ", "SIGFPE: ",
			"terminate called", "free(): ", "malloc(): ", "malloc_consolidate(): ", "double free", "corrupted ",
			"munmap_chunk(): ", "*** ", "Segmentation fault", "Illegal instruction", "std::bad_alloc",
		} {
			if strings.HasPrefix(line, head) {
				last = clip(line, maxReason)
			}
		}
	}
	return last
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
