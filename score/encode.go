package score

import (
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Shared by all answers; nobody writes to them.
var (
	jsonType   = []string{"application/json"}
	binaryType = []string{"application/octet-stream"}
	textType   = []string{"text/plain; charset=utf-8"}
	failedNo   = []string{"False"}
	failedYes  = []string{"True"}
)

// Sizes of bodies, in bytes.
const (
	smallBody = 2048 // net/http gives it a Content-Length by itself
	// minCompress is where compressing begins: what fits into one packet gains nothing.
	minCompress = 1400
)

// encode writes the outputs as the form says, in one piece or, for the binary extension, the JSON
// and then the tensors. Nothing is written when it fails.
func encode(w http.ResponseWriter, r *http.Request, c *call, form codec) error {
	if err := form.encode(c); err != nil {
		return err
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	if original(form) {
		h["X-Ms-Run-Function-Failed"] = failedNo
		h["X-Ms-Run-Fn-Exec-Ms"] = []string{milliseconds(c.spent.infer)}
	}
	size := len(c.out)
	if len(c.pieces) > 0 {
		h["Content-Type"] = binaryType
		h[headerLength] = []string{strconv.Itoa(size)}
		for _, piece := range c.pieces {
			size += len(piece)
		}
	}
	if accepted := r.Header["Accept-Encoding"]; size >= minCompress && len(accepted) > 0 {
		if how := chooseEncoding(strings.Join(accepted, ",")); how != "" {
			h["Content-Encoding"], h["Vary"] = []string{how}, []string{"Accept-Encoding"}
			compress(w, c, how)
			return nil
		}
	}
	if size > smallBody {
		h["Content-Length"] = []string{strconv.Itoa(size)}
	}
	c.writeTo(w)
	return nil
}

// writeTo writes the answer. A client that has left does not get it, and nothing can be done
// about it.
func (c *call) writeTo(w io.Writer) {
	_, err := w.Write(c.out)
	for _, piece := range c.pieces {
		if err != nil {
			return
		}
		_, err = w.Write(piece)
	}
}

// original tells the forms of the original service, MLflow's among them, whose answers have
// headers of their own.
func original(form codec) bool {
	switch form.(type) {
	case dataForm, invocationForm:
		return true
	}
	return false
}

// chooseEncoding says how to compress by an Accept-Encoding; "" is not at all. Of what is accepted
// alike, gzip is taken.
func chooseEncoding(accept string) string {
	best, chosen := 0.0, ""
	for item := range strings.SplitSeq(accept, ",") {
		name, parameters, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if name != "gzip" && name != "deflate" {
			continue
		}
		quality := 1.0
		if q, ok := strings.CutPrefix(strings.ReplaceAll(parameters, " ", ""), "q="); ok {
			quality, _ = strconv.ParseFloat(q, 64) // what cannot be read is 0: not wanted
		}
		if quality > best || quality == best && quality > 0 && name == "gzip" {
			best, chosen = quality, name
		}
	}
	return chosen
}

// compressor is a gzip or zlib writer, which is dear to make.
type compressor interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// compressors keeps them by their encoding. The fastest level: a model's numbers hardly shrink
// more, and the client waits.
var compressors = map[string]*sync.Pool{
	"gzip": {New: func() any {
		w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // a level that exists
		return w
	}},
	"deflate": {New: func() any { // zlib, as the standard says
		w, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed)
		return w
	}},
}

func compress(w io.Writer, c *call, how string) {
	z, _ := compressors[how].Get().(compressor)
	z.Reset(w)
	c.writeTo(z)
	_ = z.Close() // as in writeTo
	z.Reset(nil)
	compressors[how].Put(z)
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 3, 64)
}
