package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

const defaultDataHelp = "$XDG_DATA_HOME/zarpa or ~/.local/share/zarpa"

// The files of a data directory that clients read.
const (
	serverFile = "server.json"
	tokenFile  = "admin-token"
)

// serverInfo is what a running server writes for the clients on its machine.
type serverInfo struct {
	API string `json:"api"`
	// CA is the file of the certificate that signed the API's, empty for plain HTTP.
	CA  string `json:"ca,omitempty"`
	PID int    `json:"pid"`
}

// dataDir is the data directory that flags and environment name.
func (c *cli) dataDir() (string, error) {
	dir := c.data
	if dir == "" {
		dir = c.getenv("ZARPA_DATA")
	}
	if dir == "" {
		if base := c.getenv("XDG_DATA_HOME"); base != "" {
			dir = filepath.Join(base, "zarpa")
		} else if home := c.getenv("HOME"); home != "" {
			dir = filepath.Join(home, ".local", "share", "zarpa")
		}
	}
	if dir == "" {
		return "", zarpa.Errorf(zarpa.Invalid, "no data directory: HOME is not set").WithHint("name one with --data or ZARPA_DATA")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", zarpa.Errorf(zarpa.Invalid, "data directory %q: %w", dir, err)
	}
	return abs, nil
}

// online runs a verb with a client of the server.
func (c *cli) online(verb func(cmd *cobra.Command, args []string, api *client.Client) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		api, err := c.connect()
		if err != nil {
			return err
		}
		return verb(cmd, args, api)
	}
}

// connect makes a client of the server that flags, environment or the data directory name. The
// data directory's token goes to the data directory's server and to no other.
func (c *cli) connect() (*client.Client, error) {
	server, token := c.server, c.token
	if server == "" {
		server = c.getenv("ZARPA_SERVER")
	}
	if token == "" {
		token = c.getenv("ZARPA_TOKEN")
	}
	if server != "" && token != "" {
		return client.New(client.Options{Server: server, Token: token})
	}
	dir, err := c.dataDir()
	if err != nil {
		return nil, err
	}
	var transport *http.Client
	if server == "" {
		info, err := readServerInfo(dir)
		if err != nil {
			return nil, err
		}
		server = info.API
		if transport, err = trusting(info.CA); err != nil {
			return nil, err
		}
	}
	if token == "" {
		if info, err := readServerInfo(dir); err != nil || info.API != server {
			return nil, noToken(server) // the file's token is for its own server alone
		}
		b, err := os.ReadFile(filepath.Join(dir, tokenFile))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, noToken(server)
		case err != nil:
			return nil, zarpa.Errorf(zarpa.Denied, "the token cannot be read: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	return client.New(client.Options{Server: server, Token: token, HTTP: transport})
}

// predictor is an HTTP client for the gateway of the server that connect speaks to.
func (c *cli) predictor() (*http.Client, error) {
	if c.server != "" || c.getenv("ZARPA_SERVER") != "" {
		return &http.Client{}, nil
	}
	dir, err := c.dataDir()
	if err != nil {
		return nil, err
	}
	info, err := readServerInfo(dir)
	if err != nil {
		return nil, err
	}
	hc, err := trusting(info.CA)
	if hc == nil {
		hc = &http.Client{}
	}
	return hc, err
}

// trusting is an HTTP client that believes a server's own certificate; nil, the usual client, for
// an empty file name.
func trusting(file string) (*http.Client, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // the usual client is spelled nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, zarpa.Errorf(zarpa.Denied, "the server's certificate cannot be read: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pool.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}, nil
}

func noToken(server string) error {
	return zarpa.Errorf(zarpa.Unauthenticated, "no token for %s", server).
		WithHint("pass --token or ZARPA_TOKEN; the server keeps it in the file %s of its data directory", tokenFile)
}

func readServerInfo(dir string) (serverInfo, error) {
	var info serverInfo
	b, err := os.ReadFile(filepath.Join(dir, serverFile))
	if errors.Is(err, fs.ErrNotExist) {
		return info, zarpa.Errorf(zarpa.Unavailable, "no server runs on the data directory %s", dir).
			WithHint("start one with zarpa up, or name another with --server or --data")
	}
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		return info, zarpa.Errorf(zarpa.Denied, "the data directory's %s cannot be read: %w", serverFile, err)
	}
	return info, nil
}
