package python

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// aFrame is a frame as a worker sends it.
func aFrame(k kind, id uint32, payload []byte) []byte {
	return append(appendHead(nil, k, id, len(payload)), payload...)
}

// aResult is the payload of a RESULT.
func aResult(status, flags uint16, headers, body string) []byte {
	b := binary.LittleEndian.AppendUint16(nil, status)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(headers)))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(1.5))
	return append(b, headers+body...)
}

func TestFramesAreReadBackOrRefused(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	large := bytes.Repeat([]byte("x"), limit)
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"empty": {aFrame(kindEnd, 7, nil), ""}, "large": {aFrame(kindChunk, 1, large), ""},
		"nothing": {nil, "EOF"}, "half a head": {[]byte{1, 2, 3}, "head"},
		"half a payload": {aFrame(kindEnd, 7, []byte("{}"))[:13], "1 of 2 bytes"}, "too large": {aFrame(kindEnd, 7, append(large, 0)), "limit"},
		"absurd": {append([]byte{255, 255, 255, 255, byte(kindEnd)}, make([]byte, 7)...), "limit"},
		"kind":   {aFrame(99, 7, nil), "kind 99"}, "padding": {[]byte{0, 0, 0, 0, byte(kindEnd), 1, 0, 0, 0, 0, 0, 0}, "padding"},
	} {
		f, err := readFrame(bytes.NewReader(c.in), limit)
		switch {
		case c.want == "" && (err != nil || !bytes.Equal(aFrame(f.kind, f.id, f.payload), c.in)):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		case c.want != "" && errors.Is(err, errCorrupt) == errors.Is(err, io.EOF):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResultsAreReadBackOrRefused(t *testing.T) {
	t.Parallel()
	payload := aResult(201, flagExecTime, "A: b\r\n", "body")
	r, err := parseResult(payload)
	want := result{201, flagExecTime, 1.5, []byte("A: b\r\n"), []byte("body")}
	if err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, %v", r, err)
	}
	for n := range resultHead + len("A: b\r\n") {
		if _, err := parseResult(payload[:n]); !errors.Is(err, errCorrupt) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	one := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 1), uint32(len(payload)))
	one = append(one, payload...)
	if rs, err := parseBatched(one, 1); err != nil || !reflect.DeepEqual(rs, []result{want}) {
		t.Errorf("%+v, %v", rs, err)
	}
	for _, bad := range [][]byte{nil, one[:7], one[:len(one)-1], append(one, 0)} {
		if _, err := parseBatched(bad, 1); !errors.Is(err, errCorrupt) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if _, err := parseBatched(one, 2); !errors.Is(err, errCorrupt) {
		t.Errorf("one answer where two are wanted: %v", err)
	}
}

func TestTheNextStartWaitsLongerEachTime(t *testing.T) {
	t.Parallel()
	var waits []time.Duration
	for n := range 12 {
		waits = append(waits, delay(n))
	}
	if waits[0] != 0 || waits[1] != 0 || waits[2] != firstDelay || waits[3] != 2*firstDelay || waits[11] != maxDelay || delay(1<<20) != maxDelay {
		t.Errorf("%v", waits)
	}
}

func TestAUsersVariableGoesBefore(t *testing.T) {
	t.Parallel()
	env := environment(&Options{Workers: 1, Threads: 3, Env: []string{"OMP_NUM_THREADS=7", "A=b=c"}})
	text := "\n" + strings.Join(env, "\n") + "\n"
	for _, want := range []string{"OMP_NUM_THREADS=7", "A=b=c", "MKL_NUM_THREADS=3"} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %s in %q", want, env)
		}
	}
	if strings.Contains(text, "\nOMP_NUM_THREADS=3\n") {
		t.Error("OMP_NUM_THREADS stands there twice")
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"é\tß \x1b[1mbold": "é\tß \x1b[1mbold", "a\xffb": `a\xffb`, "a\x00\r\x7f": `a\x00\r\x7f`, "\uFFFD": "\uFFFD", "": "",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzFrames reads whatever a broken worker may send: it is refused, or within what was sent.
func FuzzFrames(f *testing.F) {
	f.Add(aFrame(kindResult, 1, aResult(200, flagStreamed, "A: b\r\n", "{}")))
	f.Add(aFrame(kindBatched, 2, append([]byte{1, 0, 0, 0, 22, 0, 0, 0}, aResult(200, 0, "", "answer")...)))
	parts, err := appendRun([]zarpa.Tensor{
		{Name: "x", Type: zarpa.Float32, Shape: []int64{2}, Data: make([]byte, 8)},
		{Name: "s", Type: zarpa.String, Shape: []int64{1}, Strings: []string{"é"}},
	}, nil)
	if err != nil {
		f.Fatal(err)
	}
	run := bytes.ReplaceAll(bytes.Join(parts, nil), []byte(`"inputs"`), []byte(`"outputs"`))
	binary.LittleEndian.PutUint32(run, binary.LittleEndian.Uint32(run)+1)
	f.Add(aFrame(kindTensors, 3, run))
	f.Add(aFrame(kindFailed, 4, []byte(`{"code":"invalid","message":"x"}`)))
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 1 << 16
		rest := bytes.NewReader(in)
		for {
			fr, err := readFrame(rest, limit)
			if err != nil {
				return
			}
			if len(fr.payload) > limit || len(fr.payload) > len(in) {
				t.Fatalf("%d bytes out of %d", len(fr.payload), len(in))
			}
			if !bytes.Contains(in, fr.payload) {
				t.Fatal("a payload that was not sent")
			}
			_, _ = parseResult(fr.payload)
			_, _ = parseBatched(fr.payload, 1)
			var said failed
			if decodeJSON(fr.payload, &said) == nil {
				_, _ = said.loadError(), said.runError()
			}
			out, err := parseTensors(fr.payload)
			for _, v := range out {
				if n, sizeErr := zarpa.Elements(v.Shape); err == nil && v.Type == zarpa.String && (sizeErr != nil || n != int64(len(v.Strings))) {
					t.Fatalf("%d texts of shape %v", len(v.Strings), v.Shape)
				}
			}
		}
	})
}

// FuzzLines writes whatever a script may print: nothing is lost, and no record is too long.
func FuzzLines(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n\xff"), 2)
	f.Add(bytes.Repeat([]byte("x"), maxLine+1), maxLine)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var log bytes.Buffer
		o := &output{log: slog.New(slog.NewJSONHandler(&log, nil))}
		cut = min(max(cut, 0), len(in))
		o.take(0, in[:cut])
		o.take(0, in[cut:])
		if len(o.part[0]) > maxLine {
			t.Errorf("%d bytes are kept", len(o.part[0]))
		}
		lines := bytes.Count(in, []byte{'\n'})
		if got := bytes.Count(log.Bytes(), []byte{'\n'}); got < lines || got > lines+len(in)/maxLine {
			t.Errorf("%d records for %d lines", got, lines)
		}
	})
}
