package score

import (
	"net/http"
	"strconv"
	"time"
)

// Shared by all answers; nobody writes to them.
var (
	jsonType  = []string{"application/json"}
	textType  = []string{"text/plain; charset=utf-8"}
	failedNo  = []string{"False"}
	failedYes = []string{"True"}
)

// smallBody is what net/http gives a Content-Length by itself.
const smallBody = 2048

// encode writes the outputs as the form says. Nothing is written when it fails.
func encode(w http.ResponseWriter, c *call, form codec) error {
	if err := form.encode(c); err != nil {
		return err
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	if _, ok := form.(dataForm); ok {
		h["X-Ms-Run-Function-Failed"] = failedNo
		h["X-Ms-Run-Fn-Exec-Ms"] = []string{milliseconds(c.took)}
	}
	if len(c.out) > smallBody {
		h["Content-Length"] = []string{strconv.Itoa(len(c.out))}
	}
	// a client that has left does not get the answer, and nothing can be done about it
	_, _ = w.Write(c.out)
	return nil
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 3, 64)
}
