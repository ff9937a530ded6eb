package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

// maxAnswer and maxInput bound what invoke reads, in bytes; no endpoint takes a larger body.
const (
	maxAnswer = 1 << 30
	maxInput  = 4 << 30
)

func (c *cli) invokeCommand() *cobra.Command {
	var data string
	var in invocation
	cmd := &cobra.Command{
		Use: "invoke NAME -d DATA|@FILE|-", Short: "Call an endpoint with its key",
		Example: `  zarpa invoke iris -d '{"data": [[5.1, 3.5, 1.4, 0.2]]}'
  zarpa invoke iris -d @rows.json --deployment green
  zarpa invoke iris --path v2/models/iris/infer -d @infer.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if in.body, err = c.readData(data); err != nil {
				return err
			}
			return c.invoke(cmd, args[0], in)
		},
	}
	cmd.Flags().StringVarP(&data, "data-body", "d", "", "the body: text, @FILE, or - for standard input")
	cmd.Flags().StringVar(&in.path, "path", "score", "path below the endpoint")
	cmd.Flags().StringVar(&in.key, "key", "", "key or scoring token to send; by default the one that the server knows")
	cmd.Flags().StringVar(&in.deployment, "deployment", "", "deployment that answers, whatever its share; by default the shares decide")
	return cmd
}

// invocation is what invoke sends.
type invocation struct {
	path       string
	key        string // empty for the server's
	deployment string // empty for that of the shares
	body       []byte
}

func (c *cli) readData(data string) ([]byte, error) {
	switch {
	case data == "":
		return nil, zarpa.Errorf(zarpa.Invalid, "-d: not given").WithHint("write the body, @FILE, or - for standard input")
	case data == "-":
		b, err := io.ReadAll(io.LimitReader(c.stdin, maxInput+1))
		if err == nil && len(b) > maxInput {
			err = zarpa.Errorf(zarpa.TooLarge, "-d: more than %v on standard input", zarpa.Bytes(maxInput))
		}
		return b, err
	case strings.HasPrefix(data, "@"):
		b, err := os.ReadFile(data[1:])
		if err != nil {
			return nil, zarpa.Errorf(zarpa.Invalid, "-d: %w", err)
		}
		return b, nil
	}
	return []byte(data), nil
}

func (c *cli) invoke(cmd *cobra.Command, name string, in invocation) error {
	ctx := cmd.Context()
	api, err := c.connect()
	if err != nil {
		return err
	}
	report, err := api.GetEndpoint(ctx, name)
	if err != nil {
		return err
	}
	base, err := gatewayPath(ctx, api, report)
	if err != nil {
		return err
	}
	url := base + strings.TrimPrefix(in.path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(in.body))
	if err != nil {
		return zarpa.Errorf(zarpa.Invalid, "--path: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if in.deployment != "" {
		req.Header.Set("Zarpa-Deployment", in.deployment)
	}
	if in.key == "" {
		if in.key, err = credential(ctx, api, report); err != nil {
			return err
		}
	}
	if in.key != "" {
		req.Header.Set("Authorization", "Bearer "+in.key)
	}
	gateway, err := c.predictor()
	if err != nil {
		return err
	}
	resp, err := gateway.Do(req) // bounded by the endpoint's own time limit
	if err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "cannot reach the gateway at %s", url).
			WithHint("zarpa endpoint show %s shows what runs", name).Because(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return zarpa.Errorf(zarpa.Unavailable, "the answer broke off").Because(err)
	}
	if len(answer) > maxAnswer {
		return zarpa.Errorf(zarpa.TooLarge, "the answer has more than %v", zarpa.Bytes(maxAnswer)).WithHint("call the endpoint with another client")
	}
	if resp.StatusCode >= 400 {
		e := zarpa.Errorf(zarpa.CodeFromAnswer(resp.StatusCode, resp.Header), "%s answered %s: %s", name, resp.Status, answerMessage(answer))
		if resp.StatusCode < 424 { // the request's own fault: no log knows more
			return e
		}
		return e.WithHint("zarpa logs %s tells more under request id %s", name, resp.Header.Get("X-Request-Id"))
	}
	_, err = c.stdout.Write(answer)
	if !bytes.HasSuffix(answer, []byte("\n")) {
		_, newline := fmt.Fprintln(c.stdout)
		err = errors.Join(err, newline)
	}
	return err
}

// credential is what opens an endpoint: its key, a scoring token, or nothing.
func credential(ctx context.Context, api *client.Client, r zarpa.EndpointReport) (string, error) {
	switch r.Effective.Auth {
	case zarpa.AuthKey:
		keys, err := api.Keys(ctx, r.Endpoint.Name)
		return keys.Primary, err
	case zarpa.AuthToken:
		t, err := api.CreateToken(ctx, r.Endpoint.Name, zarpa.TokenSpec{Lifetime: zarpa.Duration(invokeToken)})
		return t.Token, err
	default: // anybody may call it
		return "", nil
	}
}

// invokeToken is the life of a token that invoke gets for one request: longer than it waits in a queue.
const invokeToken = 5 * time.Minute

// answerMessage is what a failed prediction's body says.
func answerMessage(body []byte) string {
	var said struct{ Message, Error string }
	if json.Unmarshal(body, &said) == nil && said.Message+said.Error != "" {
		return said.Message + said.Error
	}
	return strings.TrimSpace(string(body))
}

// gatewayPath is where an endpoint's paths begin. At an endpoint's own name this command need not know where the name
// leads: it asks the gateway itself.
func gatewayPath(ctx context.Context, api *client.Client, report zarpa.EndpointReport) (string, error) {
	if report.Endpoint.Spec.Hostname == "" {
		return strings.TrimSuffix(report.URLs.Score, "score"), nil
	}
	server, err := api.Server(ctx)
	return server.GatewayURL + "/endpoints/" + report.Endpoint.Name + "/", err
}
