package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/secret"
)

// Outbound is what calls to addresses may reach that tenants have named: webhooks and alerts.
type Outbound struct {
	// Allow are networks beside the public internet, such as 10.1.2.0/24 for receivers of your own, or 127.0.0.0/8 for those
	// on this machine. Default: none.
	Allow []string `yaml:"allow"`
	// CA is a PEM file with further roots that receivers' certificates may chain to. Default: the system's roots alone.
	CA string `yaml:"ca"`
}

// Networks are those of Allow.
func (o Outbound) Networks() (out []netip.Prefix, err error) {
	for _, text := range o.Allow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network such as 10.1.2.0/24", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Webhook is an endpoint that a tenant's events are delivered to. "dealseal webhooks add" makes others without a file.
type Webhook struct {
	// ID names it within the tenant. Lower-case letters, digits, hyphens. Required.
	ID string `yaml:"id"`
	// URL begins with https://; with http:// for a receiver on this machine. Exactly one of URL and URLFrom, for an address
	// that holds a token and is a secret itself.
	URL     string     `yaml:"url"`
	URLFrom secret.Ref `yaml:"url_from"`
	// Dialect is how deliveries are signed and repeated: standard-webhooks, sdf, certyneo or custom. Default
	// standard-webhooks.
	Dialect string `yaml:"dialect"`
	// Format is how events are called and written: native, sdf, certyneo, or certyneo-crm. Default: that of the dialect;
	// native for standard-webhooks and custom.
	Format string `yaml:"format"`
	// Secret is what deliveries are signed with: "whsec_" and base64 for standard-webhooks ("whsk_" with Asymmetric), any
	// text of at least 16 characters for the others. Required. When it changes, the one before counts beside it for a day.
	Secret secret.Ref `yaml:"secret"`
	// Events are those that are delivered, by their names in the format; * stands for any end, as in document.*. Default: all.
	Events []string `yaml:"events"`
	// Callbacks has the endpoint told only of contracts that a program has asked for with a callback_url at URL or below it, and
	// there (docs/api.md). Default false.
	Callbacks bool `yaml:"callbacks"`
	// Title has the contract's file name in events. It may hold names of people. Default false.
	Title bool `yaml:"title"`
	// Asymmetric signs with Ed25519 (v1a) instead of a shared secret; standard-webhooks only. Default false.
	Asymmetric bool `yaml:"asymmetric"`
	// Headers, Signed and Encoding are for custom: headers with {signature}, {id}, {event}, {timestamp} (seconds) and
	// {timestamp_ms}; what HMAC-SHA256 is over, such as "{timestamp}.{body}", default {body}; and hex (the default) or base64.
	Headers  map[string]string `yaml:"headers"`
	Signed   string            `yaml:"signed"`
	Encoding string            `yaml:"encoding"`
	// Retry are the waits before each further attempt. Default: those of the dialect (docs/webhooks.md).
	Retry []time.Duration `yaml:"retry"`
	// Timeout ends an attempt, 1s to 30s. Default 10s.
	Timeout time.Duration `yaml:"timeout"`
	// Concurrency is how many attempts are made at the same time. Default 4.
	Concurrency int `yaml:"concurrency"`
	// AlarmAt is after how many failed attempts in a row the endpoint counts as broken. Default 20. DisableBroken disables it
	// then; its events wait until "dealseal webhooks enable". Default false.
	AlarmAt       int  `yaml:"alarm_at"`
	DisableBroken bool `yaml:"disable_broken"`
	// ClientCert and ClientKey are PEM files that show the receiver who we are. Default: none.
	ClientCert string `yaml:"client_cert"`
	ClientKey  string `yaml:"client_key"`
	// Pins are keys one of which has to be in the chain of certificates that the receiver presents, sha256/BASE64 of their public
	// key (RFC 7469). Default: any key that is trusted.
	Pins pins.Set `yaml:"pins"`
}

func (c *Config) checkOutbound() (errs []error) {
	for i, text := range c.Outbound.Allow {
		if _, err := (Outbound{Allow: []string{text}}).Networks(); err != nil {
			errs = append(errs, c.At(fmt.Sprintf("outbound.allow.%d", i), "outbound.allow: %v", err))
		}
	}
	return errs
}

// checkWebhooks looks at what does not depend on what dialects mean.
func (t *Tenant) checkWebhooks() (errs []error) {
	lines := map[string]int{}
	for i, w := range t.Webhooks {
		path := fmt.Sprintf("webhooks.%d", i)
		fail := func(key, format string, args ...any) { errs = append(errs, t.At(path+"."+key, format, args...)) }
		if line, twice := lines[w.ID]; twice {
			fail("id", "webhook id %q is already that of the one in line %d", w.ID, line)
		}
		lines[w.ID] = lineOf(t.root, path+".id")
		if (w.URL == "") == w.URLFrom.IsZero() {
			fail("url", "a webhook needs exactly one of url and url_from")
		}
		if w.Secret.IsZero() {
			fail("secret", "secret is missing: name where it is, such as credential:hooks; \"dealseal webhooks secret\" makes one")
		}
	}
	return errs
}

// RelativeTo resolves a path of a tenant's file against its folder.
func (t *Tenant) RelativeTo(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(t.File), path)
}
