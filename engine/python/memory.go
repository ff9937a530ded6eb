package python

import (
	"bytes"
	"os"
	"strconv"

	"github.com/zarpa-dev/zarpa"
)

// residentMemory is what a process holds, pages that it shares included; 0 where the system does not
// say, as elsewhere than on Linux.
func residentMemory(pid int) zarpa.Bytes {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return zarpa.Bytes(pages) * zarpa.Bytes(os.Getpagesize())
}
