package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// Push is one sender.
type Push struct {
	// Source is what sends, and the last part of its address, {listen.url}/webhooks/{tenant.id}/{source}:
	//
	//	hubspot              the webhooks of a HubSpot app
	//	hubspot-workflow     a HubSpot workflow's "Send a webhook"
	//	hubspot-action       a HubSpot workflow's custom action, which waits for the sealed contract
	//	salesforce-outbound  an Outbound Message
	//	salesforce-flow      an HTTP callout of a Flow
	//	opportunity          {"opportunityId": …, "data": …}, also at {listen.url}/webhook/opportunity, and with client_ca at /ingest
	Source string `yaml:"source"`
	// Dialect is how requests are signed ("dealseal check" lists those that there are). Default: hubspot for HubSpot's sources,
	// x-signature for opportunity. An Outbound Message is never signed.
	Dialect string `yaml:"dialect"`
	// Secrets are those that sign, all of them good: during a rotation the old and the new one. They are read again every few
	// seconds.
	Secrets []secret.Ref `yaml:"secrets"`
	// PublicKeys are PEM files of keys (RSA, ECDSA, Ed25519) that sign, for dialects that take them. Default: none.
	PublicKeys []string `yaml:"public_keys"`
	// Addresses are where requests may come from, such as 13.108.0.0/14. Default: anywhere, but an Outbound Message needs this
	// or client_ca. The address is that of the connection: behind a proxy it is the proxy's.
	Addresses []netip.Prefix `yaml:"addresses"`
	// ClientCA is a PEM file with the roots of client certificates, ClientNames whom they must be for. Default: none is asked for.
	ClientCA    string   `yaml:"client_ca"`
	ClientNames []string `yaml:"client_names"`
	// Block is how long the workflow of a hubspot-action stands still at most: whole hours, 1h to 30d. Default 7d. Shortly
	// before that it is told how the deal stands. It is for workflows that come from then on.
	Block time.Duration `yaml:"block"`
}

// UsualBlock is the default of Push.Block.
const UsualBlock = 7 * 24 * time.Hour

// Sources of pushes.
const (
	PushHubSpot         = "hubspot"
	PushHubSpotWorkflow = "hubspot-workflow"
	PushHubSpotAction   = "hubspot-action"
	PushOutbound        = "salesforce-outbound"
	PushFlow            = "salesforce-flow"
	PushOpportunity     = "opportunity"
)

var pushSources = []string{PushHubSpot, PushHubSpotWorkflow, PushHubSpotAction, PushOutbound, PushFlow, PushOpportunity}

// checkListen looks at the public listener.
func (c *Config) checkListen() (errs []error) {
	fail := func(path, format string, args ...any) {
		errs = append(errs, c.At("listen."+path, "listen."+path+format, args...))
	}
	l := c.Listen
	if l.Public == "" {
		if l.TLS != nil || l.URL != "" {
			fail("public", " is missing: url and tls are those of the public listener")
		}
		return errs
	}
	host, port, err := net.SplitHostPort(l.Public)
	if err != nil || port == "" {
		fail("public", " is %q: it must be an address with a port, such as :8443", l.Public)
	}
	at, _ := netip.ParseAddr(host)
	switch {
	case l.TLS == nil && host != "localhost" && !at.IsLoopback():
		fail("tls", " is missing: without it the public listener must be on a loopback interface, such as 127.0.0.1:8443, behind a proxy that speaks TLS")
	case l.TLS != nil:
		errs = append(errs, c.checkTLS("listen.tls", *l.TLS)...)
	}
	if u, err := url.Parse(l.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.HasSuffix(l.URL, "/") {
		fail("url", " is %q: it must be the address that senders are told, without a slash at its end, such as https://seal.example.com", l.URL)
	}
	return errs
}

// checkTLS looks at the certificate of a listener, which stands at a dotted path.
func (c *Config) checkTLS(path string, t TLS) (errs []error) {
	fail := func(key, format string, args ...any) {
		errs = append(errs, c.At(path+"."+key, path+"."+key+format, args...))
	}
	switch {
	case t.Certificate == "":
		fail("certificate", " is missing: name a PEM file with the listener's certificate and those above it")
	case t.Key.IsZero():
		fail("key", " is missing: name the private key, such as credential:tls-key")
	case !slices.Contains([]string{"1.2", "1.3"}, t.MinVersion):
		fail("min_version", " is %q: it must be \"1.3\" or \"1.2\"", t.MinVersion)
	}
	return errs
}

func (c *Config) checkPushes(t *Tenant) (errs []error) {
	lines := map[string]int{}
	for i, p := range t.Push {
		path := fmt.Sprintf("push.%d", i)
		fail := func(key, format string, args ...any) {
			errs = append(errs, t.At(strings.TrimSuffix(path+"."+key, "."), format, args...))
		}
		if c.Listen.Public == "" {
			fail("", "push needs listen.public and listen.url in dealseal.yaml, and a restart: nobody can reach the daemon without")
		}
		if line, twice := lines[p.Source]; twice {
			fail("source", "source %q is already in line %d: a sender may have several secrets", p.Source, line)
		}
		lines[p.Source] = lineOf(t.root, path+".source")
		kind, _, _ := strings.Cut(p.Source, "-")
		switch {
		case !slices.Contains(pushSources, p.Source):
			fail("source", "source %q is not known%s", p.Source, Nearest(p.Source, slices.Clone(pushSources)))
		case p.Source != PushOpportunity && kind != t.CRM.Kind:
			fail("source", "source %q is for tenants of kind %s, and this one is %s", p.Source, kind, t.CRM.Kind)
		case p.Source == PushOutbound && (p.Dialect != "" || p.Secrets != nil || p.PublicKeys != nil):
			fail("source", "an Outbound Message bears no signature: say with addresses or client_ca where it comes from")
		case p.Source == PushOutbound && p.Addresses == nil && p.ClientCA == "":
			fail("source", "an Outbound Message bears no signature: it needs addresses or client_ca, or anybody could send one")
		case p.Source == PushFlow && p.Dialect == "":
			fail("dialect", "dialect is missing: say how the callout is signed, such as standard-webhooks")
		case p.Source != PushOutbound && len(p.Secrets)+len(p.PublicKeys) == 0:
			fail("secrets", "secrets is missing: nothing is taken that is not signed")
		}
		switch {
		case p.Block == 0:
		case p.Source != PushHubSpotAction:
			fail("block", "block is for source hubspot-action only: no other sender waits")
		case p.Block < time.Hour || p.Block > 720*time.Hour || p.Block%time.Hour != 0:
			fail("block", "block is %s: it must be whole hours, 1h to 30d (720h)", p.Block)
		}
		if (p.ClientCA == "") != (len(p.ClientNames) == 0) {
			fail("client_ca", "client_ca and client_names belong together: many have a certificate of a public authority")
		}
		if p.ClientCA != "" && c.Listen.TLS == nil {
			fail("client_ca", "client_ca needs listen.tls: a client certificate is seen by whoever speaks TLS, and that is the proxy")
		}
	}
	return errs
}
