package main

import (
	"github.com/spf13/pflag"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/api"
	"github.com/zarpa-dev/zarpa/internal/oidc"
)

// oidcFlags are the flags of up that let the control API take an issuer's tokens.
type oidcFlags struct {
	issuer, audience string
	roles            []string
}

func (f *oidcFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&f.issuer, "oidc-issuer", "", "URL of an OpenID Connect issuer whose tokens the control API takes")
	fl.StringVar(&f.audience, "oidc-audience", "", "what its tokens must have as their audience (aud)")
	fl.StringArrayVar(&f.roles, "oidc-roles", nil, "CLAIM=VALUE:ROLE, such as groups=ml-admins:admin; may be repeated, the highest role counts")
}

func (f oidcFlags) validate() error {
	_, err := f.identifier()
	return err
}

// identifier is nil without an issuer.
func (f oidcFlags) identifier() (api.Identifier, error) {
	if f.issuer == "" {
		if f.audience != "" || len(f.roles) > 0 {
			return nil, zarpa.Errorf(zarpa.Invalid, "--oidc-issuer: not given").WithHint("name the issuer of the tokens, as their iss has it")
		}
		return nil, nil //nolint:nilnil // none is wanted
	}
	o := oidc.Options{Issuer: f.issuer, Audience: f.audience}
	for _, text := range f.roles {
		r, err := oidc.ParseRule(text)
		if err != nil {
			return nil, err
		}
		o.Rules = append(o.Rules, r)
	}
	id, err := oidc.New(o)
	if err != nil {
		return nil, err
	}
	return id, nil
}
