package main_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zarpa-dev/zarpa/engine/onnx"
	"github.com/zarpa-dev/zarpa/internal/inferencepb"
)

// bin is the folder with the binary under test: the real one, because it starts itself as
// gateway and as replicas.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "zarpa-script-")
	if err == nil {
		bin = dir
		build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), ".", "../zarpa-score")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the binary under test:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// library is the path of ONNX Runtime's library, "" when it is not there.
func library() string {
	path := os.Getenv("ZARPA_ONNXRUNTIME")
	if path == "" {
		path, _ = filepath.Abs(filepath.Join("..", "..", "bin", "libonnxruntime.so."+onnx.Version))
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// TestScripts runs every command line of the documentation.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("ZARPA_ONNXRUNTIME", library())
			e.Setenv("DOCKER", os.Getenv("ZARPA_TEST_DOCKER"))
			e.Setenv("ZARPA_DATA", filepath.Join(e.WorkDir, "data"))
			e.Setenv("ARCH", runtime.GOARCH)
			e.Setenv("EXAMPLES", filepath.Join(root, "examples"))
			e.Setenv("ZOO", filepath.Join(root, "engine", "enginetest", "testdata"))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "onnx" {
				return library() != "", nil
			}
			if cond == "docker" {
				return os.Getenv("ZARPA_TEST_DOCKER") != "", nil
			}
			if cond == "python" {
				_, err := exec.LookPath("python3")
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"up": up, "stopup": stopUp, "fails": fails, "await": await, "cert": cert, "serverready": serverReady, "shown": shown, "names": names, "registry": ociRegistry},
	})
}

// up starts "zarpa up" with the arguments on the script's data directory, and waits until it
// answers. It is stopped, with all that it started, at the script's end.
func up(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command(filepath.Join(bin, "zarpa"), append([]string{"up", "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "ZARPA_DATA", "ZARPA_ONNXRUNTIME"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	log, err := os.Create(ts.MkAbs("up.log"))
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = log, log
	ts.Check(cmd.Start())
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	end := sync.OnceFunc(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-done
		log.Close()
	})
	ts.Defer(end)
	ends.Store(ts, end)
	ts.Setenv("UP_PID", strconv.Itoa(cmd.Process.Pid))
	until(ts, func() bool {
		select {
		case <-done:
			text, _ := os.ReadFile(log.Name())
			ts.Fatalf("zarpa up ended:\n%s", text)
		default:
		}
		_, err := os.Stat(filepath.Join(ts.Getenv("ZARPA_DATA"), "server.json"))
		return err == nil
	})
}

// ends holds what stops the last server that each script started.
var ends sync.Map

// stopUp stops that server.
func stopUp(ts *testscript.TestScript, _ bool, _ []string) {
	if end, ok := ends.LoadAndDelete(ts); ok {
		end.(func())() //nolint:forcetypeassert // up puts nothing else there
	}
}

// cert writes a certificate of this machine's loopback address that signs itself: cert CERT KEY.
func cert(ts *testscript.TestScript, _ bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: args[2:], KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}

// serverReady asks the gateway at the address in a file by gRPC whether it is ready: serverready FILE.
func serverReady(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := grpc.NewClient(strings.TrimSpace(ts.ReadFile(args[0])), grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	until(ts, func() bool {
		answer, err := inferencepb.NewGRPCInferenceServiceClient(conn).ServerReady(context.Background(), &inferencepb.ServerReadyRequest{})
		return err == nil && answer.GetReady()
	})
}

// ociRegistry starts a registry, empty, and puts its address into a variable: registry NAME.
func ociRegistry(ts *testscript.TestScript, _ bool, args []string) {
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	ts.Defer(server.Close)
	ts.Setenv(args[0], strings.TrimPrefix(server.URL, "http://"))
}

// fails runs a command that must end with an exit code: fails CODE COMMAND ARG...
func fails(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: fails CODE COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("ended with %v, want exit code %d", err, want)
	}
}

// await runs a command until it succeeds: for what takes effect a moment later.
func await(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, func() bool { return ts.Exec(args[0], args[1:]...) == nil })
}

func until(ts *testscript.TestScript, ok func() bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("it did not come about in 30 s")
		}
	}
}
