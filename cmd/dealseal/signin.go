package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/web/signin"
)

// checkSignIn is the name of the check of the provider at which people sign in.
const checkSignIn = "sign_in"

// signIn makes the provider that sign_in names, nil without one. Nothing is asked of it yet: a daemon starts without it.
func (h *house) signIn() (*signin.Provider, error) {
	c := h.cfg.SignIn
	if c == nil {
		return nil, nil
	}
	o := signin.Options{Issuer: c.Issuer, ClientID: c.ClientID, Page: c.Page, Scopes: c.Scopes, Claim: c.Claim, Who: c.Who,
		Secret: func() (string, error) { return reveal("client_secret", c.ClientSecret) }}
	var errs []error
	for i, r := range c.Roles {
		if !slices.Contains(deal.TokenRoles, deal.TokenRole(r.Role)) {
			path := fmt.Sprintf("sign_in.roles.%d", i)
			errs = append(errs, h.cfg.At(path, "%s: there is no role %q: it must be one of %q", path, r.Role, deal.TokenRoles))
		}
		o.Roles = append(o.Roles, signin.Grant{Value: r.Value, Role: deal.TokenRole(r.Role)})
	}
	var err error
	if o.Roots, err = h.rootsWith("sign_in.ca", c.CA); err != nil {
		errs = append(errs, err)
	}
	return signin.New(o), errors.Join(errs...)
}

// signInLasts is how long sessions last that begin there.
func (d *service) signInLasts() time.Duration {
	if d.house.cfg.SignIn == nil {
		return 0
	}
	return d.house.cfg.SignIn.Lasts
}

// rootsWith are the system's roots and those of a file that is named at a path; nil without a file.
func (h *house) rootsWith(path, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a bare machine has none
	}
	extra, err := readCertificates(relativeTo(h.cfg.File, file))
	if err != nil {
		return nil, h.cfg.At(path, "%s: %v", path, err)
	}
	for _, c := range extra {
		roots.AddCert(c)
	}
	return roots, nil
}

// examineSignIn asks the provider as somebody who signs in would have it asked. Nothing that it finds keeps a document from
// being sealed, and the link still logs in.
func (x *examiner) examineSignIn(p *signin.Provider) doctor.Examination {
	c := x.cfg.SignIn
	return examination(doctor.Machine, checkSignIn, c.Issuer, machineLimit, func(ctx context.Context, report func(doctor.Finding)) {
		const cure = "mend it; people are logged in by \"dealseal admin login\" meanwhile"
		if _, err := reveal("client_secret", c.ClientSecret); err != nil {
			report(doctor.Warned(checkSignIn, cure, "nobody can sign in: %v", err).On(c.Issuer))
		}
		found, err := p.Examine(ctx)
		switch {
		case err != nil:
			report(doctor.Warned(checkSignIn, cure, "nobody can sign in: %v", err).On(c.Issuer))
		case found.NoChallenge:
			report(doctor.Warned(checkSignIn, "have the provider take S256", "the provider does not say that it takes PKCE with S256, by which a stolen code is of no use").On(c.Issuer))
		default:
			report(doctor.Passed(checkSignIn, "it answers, with %s", plural(found.Keys, "key")).On(c.Issuer))
		}
	})
}
