// Replica is the program in the image of the driver's tests: a replica that says what it sees, and whose mode
// (the variable REPLICA) tells what is wrong with it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/target/targettest"
)

func main() { os.Exit(run(os.Getenv("REPLICA"))) }

func run(mode string) int {
	switch mode {
	case "broken":
		fmt.Fprintln(os.Stderr, "loading")
		fmt.Fprintln(os.Stderr, "error: iris.onnx: not an ONNX file")
		return zarpa.ExitLoadFailed
	case "mute":
		select {}
	case "look":
		look()
	case "long":
		fmt.Println(strings.Repeat("x", 40_000) + "end")
	case "greedy":
		kept := [][]byte{}
		for {
			b := make([]byte, 4<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
			runtime.KeepAlive(kept)
		}
	}
	s := &targettest.Server{Label: os.Args[slices.Index(os.Args, "--label")+1], Log: os.Stdout}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	drained := make(chan error, 1)
	go func() {
		<-ctx.Done()
		if mode != "stubborn" {
			drained <- s.Shutdown(context.Background())
		}
	}()
	if err := s.Serve("0.0.0.0:5001", nil); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	if err := <-drained; err != nil {
		return 1
	}
	return 0
}

// look prints what the container may do.
func look() {
	fmt.Println("user", os.Getuid(), os.Getgid())
	fmt.Println("args", strings.Join(os.Args[1:], " "))
	for _, path := range []string{"/root.txt", "/tmp/a.txt", "/work/1.txt", "/run/secrets/new"} {
		err := os.WriteFile(path, []byte("x"), 0o600)
		fmt.Println("write", path, err == nil)
	}
	files, _ := filepath.Glob(os.Getenv("ZARPA_SECRETS") + "/*")
	for _, path := range files {
		b, err := os.ReadFile(path)
		info, _ := os.Stat(path)
		fmt.Println("secret", filepath.Base(path), info.Mode(), len(b), err == nil)
		if err == nil && strings.HasPrefix(string(b), "s3cr3t") {
			fmt.Println("it is the right one")
		}
	}
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "CapEff") || strings.HasPrefix(line, "NoNewPrivs") {
			fmt.Print(strings.Join(strings.Fields(line), " "), "\n")
		}
	}
}
