package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// SignIn is an OpenID provider (docs/signin.md). All of it takes a restart.
type SignIn struct {
	// Page is the address of the status page as browsers know it, that of the proxy in front of it, without a path, such as
	// https://seal.example.com. The provider is told to send people back to PAGE/sign-in/back. Required.
	Page string `yaml:"page"`
	// Issuer is the provider's address, to the letter as it calls itself. Required.
	Issuer string `yaml:"issuer"`
	// ClientID and ClientSecret are what the provider knows the daemon by; the secret is read for each sign-in. Required.
	ClientID     string     `yaml:"client_id"`
	ClientSecret secret.Ref `yaml:"client_secret"`
	// Claim is the claim of the ID token that says what a person may do: its name, or a path with dots, such as
	// realm_access.roles. Required.
	Claim string `yaml:"claim"`
	// Roles are for those whose claim has a value. They are looked through in this order, and who has none is not let in.
	// Required.
	Roles []ClaimRole `yaml:"roles"`
	// Who is the claim that people are called by in the audit log, beside their subject. An email is taken only if the provider
	// says that it is verified. Default email.
	Who string `yaml:"who"`
	// Scopes are asked for beside openid. Default email and profile.
	Scopes []string `yaml:"scopes"`
	// Lasts is how long a session lasts, 5m to 12h: the provider is not asked again meanwhile. Default 12h.
	Lasts time.Duration `yaml:"lasts"`
	// CA is a PEM file with further roots that the provider's certificate may lead to. Default: the system's roots alone.
	CA string `yaml:"ca"`
}

// ClaimRole gives those whose claim has a value a role: viewer, operator, signer-admin, auditor or admin.
type ClaimRole struct {
	Value string `yaml:"value"`
	Role  string `yaml:"role"`
}

func (s *SignIn) defaults() {
	if s == nil {
		return
	}
	orDefault(&s.Who, "email")
	orDefault(&s.Lasts, 12*time.Hour)
	if s.Scopes == nil {
		s.Scopes = []string{"email", "profile"}
	}
}

// checkSignIn looks at what does not depend on which roles there are.
func (c *Config) checkSignIn() (errs []error) {
	s := c.SignIn
	if s == nil {
		return nil
	}
	fail := func(path, format string, args ...any) {
		errs = append(errs, c.At("sign_in."+path, "sign_in."+path+format, args...))
	}
	if !isAddress(s.Page) || !private(s.Page) || strings.Count(s.Page, "/") != 2 {
		fail("page", " is %q: it must be the address of the status page for browsers, such as https://seal.example.com, without a path; http:// is for this machine alone", s.Page)
	}
	if !isAddress(strings.TrimSuffix(s.Issuer, "/")) || !private(s.Issuer) {
		fail("issuer", " is %q: it must be the address that the provider calls itself, such as https://login.example.com/realms/acme; http:// is for this machine alone", s.Issuer)
	}
	for key, value := range map[string]string{"client_id": s.ClientID, "claim": s.Claim} {
		if value == "" || strings.TrimSpace(value) != value {
			fail(key, " is %q: say what it is called at the provider", value)
		}
	}
	if s.ClientSecret.IsZero() {
		fail("client_secret", " is missing: name where it is, such as credential:sign-in")
	}
	if s.Lasts < 5*time.Minute || s.Lasts > 12*time.Hour {
		fail("lasts", " is %s: it must be 5m to 12h", s.Lasts)
	}
	for i, scope := range s.Scopes {
		if scope == "" || strings.ContainsAny(scope, " \"\\") {
			fail(fmt.Sprintf("scopes.%d", i), " is %q: a scope is one word", scope)
		}
	}
	return append(errs, c.checkClaimRoles()...)
}

func (c *Config) checkClaimRoles() (errs []error) {
	if len(c.SignIn.Roles) == 0 {
		return []error{c.At("sign_in.roles", "sign_in.roles is missing: say which value of the claim has which role, or nobody is let in")}
	}
	lines := map[string]int{}
	for i, r := range c.SignIn.Roles {
		path := fmt.Sprintf("sign_in.roles.%d", i)
		if r.Value == "" || r.Role == "" {
			errs = append(errs, c.At(path, "%s: both value and role are needed", path))
		} else if line, twice := lines[r.Value]; twice {
			errs = append(errs, c.At(path, "%s: the value %q already has a role in line %d", path, r.Value, line))
		}
		lines[r.Value] = lineOf(c.root, path)
	}
	return errs
}

// private reports whether an address is https, or that of a server on this machine.
func private(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	at, _ := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Hostname() == "localhost" || at.IsLoopback()
}
