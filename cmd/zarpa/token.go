package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/client"
)

func (c *cli) tokenCommand() *cobra.Command {
	var lifetime time.Duration
	var rotate, keys bool
	cmd := &cobra.Command{
		Use: "token NAME", Short: "Print a short-lived token that opens an endpoint, or change the key that signs such tokens",
		Long: `A token opens one endpoint until it expires, and is sent as a key is: Authorization: Bearer TOKEN. The gateway
verifies it by itself. Ask for the next one at refresh_by, which is when 80 % of its life are over.

With --rotate new tokens are signed by a new key. Those of the key before stay valid until they expire; those of the
one before that end at once: rotate twice to end all tokens.`,
		Example: "  zarpa token iris\n  zarpa token iris --lifetime 15m -o json\n  zarpa token --keys\n  zarpa token --rotate",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case (rotate || keys) && len(args) > 0:
				return zarpa.Errorf(zarpa.Invalid, "the signing keys are those of all endpoints").WithHint("leave the name out: zarpa token --rotate")
			case !rotate && !keys && len(args) != 1:
				return zarpa.Errorf(zarpa.Invalid, "which endpoint?").WithHint("write zarpa token NAME")
			}
			return nil
		},
		RunE: c.online(func(cmd *cobra.Command, args []string, api *client.Client) error {
			if rotate || keys {
				act := api.SigningKeys
				if rotate {
					act = api.RotateSigningKey
				}
				list, err := act(cmd.Context())
				if err != nil {
					return err
				}
				return c.show(list, func(w io.Writer) { signingTable(w, list) })
			}
			if cmd.Flags().Changed("lifetime") && lifetime <= 0 {
				return zarpa.Errorf(zarpa.Invalid, "--lifetime: %v is not between 1m and 24h", lifetime)
			}
			t, err := api.CreateToken(cmd.Context(), args[0], zarpa.TokenSpec{Lifetime: zarpa.Duration(lifetime)})
			if err != nil {
				return err
			}
			return c.show(t, func(w io.Writer) { row(w, t.Token) }) // alone, so that a script can take it
		}),
	}
	cmd.Flags().DurationVar(&lifetime, "lifetime", time.Duration(zarpa.DefaultTokenLifetime), "how long it is valid, 1m to 24h")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "sign with a new key from now on")
	cmd.Flags().BoolVar(&keys, "keys", false, "show which keys make tokens valid")
	cmd.MarkFlagsMutuallyExclusive("rotate", "keys")
	cmd.MarkFlagsMutuallyExclusive("rotate", "lifetime")
	return cmd
}

func signingTable(w io.Writer, list []zarpa.SigningKey) {
	row(w, "KEY", "STATE", "AGE")
	for _, k := range list {
		state := "verifies what it signed"
		if k.Current {
			state = "signs"
		}
		row(w, k.ID, state, ago(k.Created, time.Now()))
	}
}

// ownKey is what --set WHICH=VALUE says; the value - is read from standard input, so that it stands in no
// history and no list of processes.
func (c *cli) ownKey(set string) (which string, spec zarpa.KeySpec, err error) {
	which, spec.Value, _ = strings.Cut(set, "=")
	if which != "primary" && which != "secondary" || spec.Value == "" {
		return "", spec, zarpa.Errorf(zarpa.Invalid, "--set: a key is given as primary=VALUE or secondary=VALUE").
			WithHint("write --set primary=- and give the value on standard input")
	}
	if spec.Value == "-" {
		b, err := io.ReadAll(io.LimitReader(c.stdin, maxOwnKey))
		if err != nil {
			return "", spec, fmt.Errorf("read the key: %w", err)
		}
		spec.Value = strings.TrimRight(string(b), "\r\n")
	}
	return which, spec, spec.Validate()
}

// maxOwnKey is more than a key may have: the check of its length says so.
const maxOwnKey = 4096
