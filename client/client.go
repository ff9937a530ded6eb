// Package client speaks the control API from Go. The requests are generated from
// api/openapi.yaml; this file gives them the module's own nouns and errors.
package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/zarpa-dev/zarpa"
)

// Options say which server to speak to.
type Options struct {
	// Server is the base URL: "http://127.0.0.1:7070".
	Server string
	Token  string
	// HTTP sends the requests; nil makes a client without a time limit of its own, because logs
	// and uploads may be long: bound calls by their context.
	HTTP *http.Client
}

// Client speaks to one server. It may be used from many goroutines. Its methods return
// zarpa.Error: the server's own, or unavailable when the server cannot be reached.
type Client struct {
	wire   *wire
	server string
}

// dialTimeout bounds the wait for a connection: a server on the same network answers sooner.
const dialTimeout = 10 * time.Second

// New makes a client; it does not connect yet.
func New(o Options) (*Client, error) {
	if !strings.HasPrefix(o.Server, "http://") && !strings.HasPrefix(o.Server, "https://") {
		return nil, zarpa.Errorf(zarpa.Invalid, "server %q: not a URL", o.Server).WithHint("write http://HOST:PORT or https://HOST:PORT")
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		}}
	}
	w, err := NewClient(o.Server, WithHTTPClient(o.HTTP), WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		if o.Token != "" {
			r.Header.Set("Authorization", "Bearer "+o.Token)
		}
		r.Header.Set("User-Agent", "zarpa")
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return &Client{wire: w, server: o.Server}, nil
}

// check turns a failed call or an answer of 400 or more into an error. It closes the body then.
func (c *Client) check(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		var e *zarpa.Error
		if errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		hint := "start it with zarpa up, or name another one with --server"
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			hint = "have this machine trust its certificate (on Linux SSL_CERT_FILE=FILE does), or try again in 3s if it was just exchanged"
		}
		return nil, zarpa.Errorf(zarpa.Unavailable, "cannot reach the server at %s", c.server).WithHint("%s", hint).Because(err)
	}
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	e := &zarpa.Error{}
	if json.Unmarshal(b, e) != nil || e.Code == "" {
		e = zarpa.Errorf(zarpa.CodeFromAnswer(resp.StatusCode, resp.Header), "the server at %s answered %s: %.200s", c.server, resp.Status, b)
	}
	return nil, e
}

// read decodes the answer of a call.
func read[T any](c *Client, call func() (*http.Response, error)) (T, error) {
	var v T
	resp, err := c.check(call())
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return v, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("read the answer of %s: %w", c.server, err)
	}
	return v, nil
}

// Server describes the server.
func (c *Client) Server(ctx context.Context) (zarpa.Server, error) {
	return read[zarpa.Server](c, func() (*http.Response, error) { return c.wire.GetServer(ctx) })
}

// PutContent stores the files of a tar archive.
func (c *Client) PutContent(ctx context.Context, tar io.Reader) (zarpa.Content, error) {
	return read[zarpa.Content](c, func() (*http.Response, error) {
		return c.wire.PutContentWithBody(ctx, "application/x-tar", tar)
	})
}

// RegisterModel registers stored content.
func (c *Client) RegisterModel(ctx context.Context, r zarpa.Registration) (zarpa.Model, error) {
	return read[zarpa.Model](c, func() (*http.Response, error) { return c.wire.RegisterModel(ctx, r) })
}

// ListModels lists the versions of a name, of all names when it is empty.
func (c *Client) ListModels(ctx context.Context, name string) ([]zarpa.Model, error) {
	params := &ListModelsParams{}
	if name != "" {
		params.Name = &name
	}
	return read[[]zarpa.Model](c, func() (*http.Response, error) { return c.wire.ListModels(ctx, params) })
}

// GetModel returns one version, the newest for a bare name.
func (c *Client) GetModel(ctx context.Context, ref string) (zarpa.Model, error) {
	return read[zarpa.Model](c, func() (*http.Response, error) { return c.wire.GetModel(ctx, ref) })
}

// UpdateModel changes tags and description.
func (c *Client) UpdateModel(ctx context.Context, ref string, p zarpa.ModelPatch) (zarpa.Model, error) {
	return read[zarpa.Model](c, func() (*http.Response, error) { return c.wire.UpdateModel(ctx, ref, p) })
}

// DeleteModel deletes one version.
func (c *Client) DeleteModel(ctx context.Context, ref string) error {
	_, err := read[struct{}](c, func() (*http.Response, error) { return c.wire.DeleteModel(ctx, ref) })
	return err
}

// ModelContent opens the model's files as a tar archive. The caller closes it.
func (c *Client) ModelContent(ctx context.Context, ref string) (io.ReadCloser, error) {
	resp, err := c.check(c.wire.GetModelContent(ctx, ref))
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ListEndpoints reports all endpoints.
func (c *Client) ListEndpoints(ctx context.Context) ([]zarpa.EndpointReport, error) {
	return read[[]zarpa.EndpointReport](c, func() (*http.Response, error) { return c.wire.ListEndpoints(ctx) })
}

// GetEndpoint reports one endpoint.
func (c *Client) GetEndpoint(ctx context.Context, name string) (zarpa.EndpointReport, error) {
	return read[zarpa.EndpointReport](c, func() (*http.Response, error) { return c.wire.GetEndpoint(ctx, name) })
}

// PutEndpoint makes an endpoint be as described. See the API for the parameters; nil has none.
func (c *Client) PutEndpoint(ctx context.Context, name string, spec zarpa.EndpointSpec, p *PutEndpointParams) (zarpa.ChangeSet, error) {
	return read[zarpa.ChangeSet](c, func() (*http.Response, error) { return c.wire.PutEndpoint(ctx, name, p, spec) })
}

// DeleteEndpoint begins the end of an endpoint.
func (c *Client) DeleteEndpoint(ctx context.Context, name string) (zarpa.ChangeSet, error) {
	return read[zarpa.ChangeSet](c, func() (*http.Response, error) { return c.wire.DeleteEndpoint(ctx, name) })
}

// UndoEndpoint goes back to what was before the last change.
func (c *Client) UndoEndpoint(ctx context.Context, name string) (zarpa.ChangeSet, error) {
	return read[zarpa.ChangeSet](c, func() (*http.Response, error) { return c.wire.UndoEndpoint(ctx, name) })
}

// ReplaceReplica has one replica replaced, which serves until another one is ready.
func (c *Client) ReplaceReplica(ctx context.Context, name, replica string) error {
	resp, err := c.check(c.wire.ReplaceReplica(ctx, name, replica))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// ListRollouts lists the last rollouts of an endpoint, newest first.
func (c *Client) ListRollouts(ctx context.Context, name string, limit int) ([]zarpa.Rollout, error) {
	return read[[]zarpa.Rollout](c, func() (*http.Response, error) {
		return c.wire.ListRollouts(ctx, name, &ListRolloutsParams{Limit: &limit})
	})
}

// StartRollout begins to move the traffic to one deployment.
func (c *Client) StartRollout(ctx context.Context, name string, spec zarpa.RolloutSpec) (zarpa.Rollout, error) {
	return read[zarpa.Rollout](c, func() (*http.Response, error) { return c.wire.StartRollout(ctx, name, spec) })
}

// SteerRollout does to the rollout that is under way what action says: pause, resume or abort.
func (c *Client) SteerRollout(ctx context.Context, name, action string) (zarpa.Rollout, error) {
	return read[zarpa.Rollout](c, func() (*http.Response, error) { return c.wire.SteerRollout(ctx, name, action) })
}

// Scaling tells what the autoscaler knows of an endpoint's deployments.
func (c *Client) Scaling(ctx context.Context, name string) ([]zarpa.Scaling, error) {
	return read[[]zarpa.Scaling](c, func() (*http.Response, error) { return c.wire.GetScaling(ctx, name) })
}

// Keys returns both keys of an endpoint.
func (c *Client) Keys(ctx context.Context, name string) (zarpa.KeyPair, error) {
	return read[zarpa.KeyPair](c, func() (*http.Response, error) { return c.wire.GetKeys(ctx, name) })
}

// RegenerateKey makes the primary or secondary key anew.
func (c *Client) RegenerateKey(ctx context.Context, name, which string) (zarpa.KeyPair, error) {
	return read[zarpa.KeyPair](c, func() (*http.Response, error) { return c.wire.RegenerateKey(ctx, name, which) })
}

// Logs opens what replicas printed. The caller closes it.
func (c *Client) Logs(ctx context.Context, name string, p GetLogsParams) (io.ReadCloser, error) {
	resp, err := c.check(c.wire.GetLogs(ctx, name, &p))
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ListOperations lists the last operations of an endpoint, newest first.
func (c *Client) ListOperations(ctx context.Context, endpoint string, limit int) ([]zarpa.Operation, error) {
	params := &ListOperationsParams{Limit: &limit}
	if endpoint != "" {
		params.Endpoint = &endpoint
	}
	return read[[]zarpa.Operation](c, func() (*http.Response, error) { return c.wire.ListOperations(ctx, params) })
}

// waitStep is how long one call waits for an operation to change before it asks again.
const waitStep = "30s"

// Wait follows an operation until it ends and calls each, which may be nil, with every state that
// was seen. The operation's own failure is in the result, not in the error.
func (c *Client) Wait(ctx context.Context, op zarpa.Operation, each func(zarpa.Operation)) (zarpa.Operation, error) {
	step := waitStep
	for {
		if each != nil {
			each(op)
		}
		if op.State != zarpa.OperationRunning {
			return op, nil
		}
		after := op.Revision
		next, err := read[zarpa.Operation](c, func() (*http.Response, error) {
			return c.wire.GetOperation(ctx, op.ID, &GetOperationParams{After: &after, Wait: &step})
		})
		if err != nil {
			return op, err
		}
		op = next
	}
}

// Load tells what the gateway has counted; see [zarpa.Loader].
func (c *Client) Load(ctx context.Context, wake int64, wait time.Duration) (zarpa.Load, error) {
	text := zarpa.Duration(wait).String()
	return read[zarpa.Load](c, func() (*http.Response, error) {
		return c.wire.GetLoad(ctx, &GetLoadParams{Wake: &wake, Wait: &text})
	})
}

var _ zarpa.Loader = (*Client)(nil)

// ListTargets lists where replicas can run.
func (c *Client) ListTargets(ctx context.Context) ([]zarpa.Target, error) {
	return read[[]zarpa.Target](c, func() (*http.Response, error) { return c.wire.ListTargets(ctx) })
}

// GetTarget shows one target.
func (c *Client) GetTarget(ctx context.Context, name string) (zarpa.Target, error) {
	return read[zarpa.Target](c, func() (*http.Response, error) { return c.wire.GetTarget(ctx, name) })
}

// GetTargetStatus asks a target.
func (c *Client) GetTargetStatus(ctx context.Context, name string) (zarpa.TargetStatus, error) {
	return read[zarpa.TargetStatus](c, func() (*http.Response, error) { return c.wire.GetTargetStatus(ctx, name) })
}

// CreateTarget makes a new target known.
func (c *Client) CreateTarget(ctx context.Context, spec zarpa.TargetSpec) (zarpa.Target, error) {
	return read[zarpa.Target](c, func() (*http.Response, error) { return c.wire.CreateTarget(ctx, spec) })
}

// UpdateTarget changes a target's options.
func (c *Client) UpdateTarget(ctx context.Context, spec zarpa.TargetSpec) (zarpa.Target, error) {
	return read[zarpa.Target](c, func() (*http.Response, error) { return c.wire.UpdateTarget(ctx, spec.Name, spec) })
}

// DeleteTarget forgets a target that nothing is on.
func (c *Client) DeleteTarget(ctx context.Context, name string) error {
	_, err := read[struct{}](c, func() (*http.Response, error) { return c.wire.DeleteTarget(ctx, name, &DeleteTargetParams{}) })
	return err
}

// AbandonTarget forgets a target that is gone for good, with the deployments that are being removed from it; what
// runs of them is left where it is.
func (c *Client) AbandonTarget(ctx context.Context, name string) error {
	force := true
	_, err := read[struct{}](c, func() (*http.Response, error) {
		return c.wire.DeleteTarget(ctx, name, &DeleteTargetParams{Force: &force})
	})
	return err
}

// ListEnvironments lists the Python environments of the server's machine.
func (c *Client) ListEnvironments(ctx context.Context) ([]zarpa.Environment, error) {
	return read[[]zarpa.Environment](c, func() (*http.Response, error) { return c.wire.ListEnvironments(ctx) })
}

// GetEnvironment shows one, with its packages.
func (c *Client) GetEnvironment(ctx context.Context, id string) (zarpa.Environment, error) {
	return read[zarpa.Environment](c, func() (*http.Response, error) { return c.wire.GetEnvironment(ctx, id) })
}

// DeleteEnvironment removes one that no deployment uses.
func (c *Client) DeleteEnvironment(ctx context.Context, id string) error {
	_, err := read[struct{}](c, func() (*http.Response, error) { return c.wire.DeleteEnvironment(ctx, id) })
	return err
}

// EnvironmentLog opens what a build printed. The caller closes it.
func (c *Client) EnvironmentLog(ctx context.Context, id string) (io.ReadCloser, error) {
	resp, err := c.check(c.wire.GetEnvironmentLog(ctx, id))
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// ConvertModel brings a model into ONNX and gives each line of what is done to progress.
func (c *Client) ConvertModel(ctx context.Context, ref string, spec zarpa.ConversionSpec, progress func(line string)) (zarpa.Conversion, error) {
	resp, err := c.check(c.wire.ConvertModel(ctx, ref, spec))
	if err != nil {
		return zarpa.Conversion{}, err
	}
	defer resp.Body.Close()
	for events := json.NewDecoder(resp.Body); ; {
		var e zarpa.ConversionEvent
		if err := events.Decode(&e); err != nil {
			return zarpa.Conversion{}, zarpa.Errorf(zarpa.Unavailable, "the answer broke off").Because(err).WithHint("see whether the server runs, and try again")
		}
		switch {
		case e.Error != nil:
			return zarpa.Conversion{}, e.Error
		case e.Conversion != nil:
			return *e.Conversion, nil
		}
		progress(e.Line)
	}
}
