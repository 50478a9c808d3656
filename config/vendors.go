package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// Vendor has people sign documents in the place of dealseal. It tells what becomes of them at
// {listen.url}/webhooks/{tenant.id}/{name}, and what it tells there is believed, unlike a push.
type Vendor struct {
	// Name is certyneo or sdf. Required.
	Name string `yaml:"name"`
	// Dialect is how it signs its events: certyneo or x-certyneo, and sdf. Default: certyneo, and sdf.
	Dialect string `yaml:"dialect"`
	// Secrets are those that sign its events, all of them good: during a rotation the old and the new one. They are read again
	// every few seconds. Required.
	Secrets []secret.Ref `yaml:"secrets"`
	// Documents is where signed documents are fetched from, and from nowhere else. For certyneo, whose events name the address,
	// one below which they all are, with a slash at its end, such as https://api.example.com/v1/; for sdf one with {id} in the
	// place of the document's ID. https only; http for one on this machine. Networks inside need outbound.allow. Required.
	Documents string `yaml:"documents"`
	// Token is shown to the vendor when a document is fetched: in Authorization, as a Bearer token, or as it is in the header
	// that Header names, such as X-API-Key. Read anew for each document. Default: none is shown.
	Token  secret.Ref `yaml:"token"`
	Header string     `yaml:"header"`
	// Trust are PEM files with the roots of those who sign there; those of signing.trust count as well. Default: none.
	Trust []string `yaml:"trust"`
}

// Delegated says which vendor does the signing for a rule. Nothing is made or sealed here, and no key of dealseal is used:
// whoever starts the vendor's envelope, usually its own integration with the CRM, writes its ID into a field of the record.
type Delegated struct {
	// Vendor is a name under vendors. Required.
	Vendor string `yaml:"vendor"`
	// Envelope is that field. Required.
	Envelope string `yaml:"envelope"`
	// Level is what our own verification of the signed document must find: B-B, B-T, B-LT or B-LTA, the levels of PAdES, or "any"
	// for a signature that is valid and reaches none of them, as those of form adbe.pkcs7.detached. A document that reaches less
	// holds its deal. Whatever is asked for, what is shown is what was found. Default B-B.
	Level string `yaml:"level"`
	// Patience is how long the vendor may say nothing decisive before the deal is held for a person. 1h to 365d, default 30d.
	Patience time.Duration `yaml:"patience"`
}

// AnyLevel is Delegated.Level where none is asked for.
const AnyLevel = "any"

const (
	usualPatience = 30 * 24 * time.Hour
	leastPatience = time.Hour
	mostPatience  = 365 * 24 * time.Hour
)

func (t *Tenant) vendorNames() (names []string) {
	for _, v := range t.Vendors {
		names = append(names, v.Name)
	}
	return names
}

func (c *Config) checkVendors(t *Tenant) (errs []error) {
	lines := map[string]int{}
	for i, v := range t.Vendors {
		path := fmt.Sprintf("vendors.%d", i)
		fail := func(key, format string, args ...any) {
			errs = append(errs, t.At(strings.TrimSuffix(path+"."+key, "."), format, args...))
		}
		if c.Listen.Public == "" {
			fail("", "vendors need listen.public and listen.url in dealseal.yaml, and a restart: what they tell would reach nobody")
		}
		if line, twice := lines[v.Name]; twice {
			fail("name", "vendor %q is already in line %d: it may have several secrets", v.Name, line)
		}
		lines[v.Name] = lineOf(t.root, path+".name")
		if len(v.Secrets) == 0 {
			fail("secrets", "secrets is missing: nothing is believed that is not signed")
		}
		if v.Documents == "" {
			fail("documents", "documents is missing: say where signed documents are fetched from")
		}
		if v.Header != "" && v.Token.IsZero() {
			fail("header", "header is for a token, and token is missing")
		}
	}
	return errs
}

// checkDelegated looks at a rule whose signing is a vendor's.
func checkDelegated(t *Tenant, path string, r Rule) (errs []error) {
	fail := func(key, format string, args ...any) { errs = append(errs, t.At(path+"."+key, format, args...)) }
	d := r.Delegated
	switch names := t.vendorNames(); {
	case d.Vendor == "":
		fail("delegated.vendor", "delegated.vendor is missing: name one under vendors")
	case !slices.Contains(names, d.Vendor):
		fail("delegated.vendor", "vendor %q is not under vendors%s", d.Vendor, Nearest(d.Vendor, names))
	}
	if d.Envelope == "" {
		fail("delegated.envelope", "delegated.envelope is missing: name the field of the record that holds the vendor's ID of the envelope")
	}
	if slices.Contains(r.WriteBack.Names(), d.Envelope) {
		fail("delegated.envelope", "delegated.envelope is %s, which write_back overwrites: the vendor's ID needs a field of its own", d.Envelope)
	}
	if !slices.Contains([]string{AnyLevel, "B-B", "B-T", "B-LT", "B-LTA"}, d.Level) {
		fail("delegated.level", "delegated.level is %q: it must be B-B, B-T, B-LT, B-LTA or any", d.Level)
	}
	if d.Patience < leastPatience || d.Patience > mostPatience {
		fail("delegated.patience", "delegated.patience is %s: it must be 1h to 365d (8760h)", d.Patience)
	}
	if !reflect.DeepEqual(r.Document, Document{}) {
		fail("document", "document is for what is made or sealed here: a rule that is delegated has none")
	}
	if r.Seal != "" {
		fail("seal", "seal is for what is sealed here: no key is used for a rule that is delegated")
	}
	if r.IfLeft != "" {
		fail("if_left", "if_left is asked before a seal: a rule that is delegated has none")
	}
	if r.WriteBack.Drift.Field != "" {
		fail("write_back.drift", "write_back.drift compares values that a document was made of: that of a rule that is delegated was made elsewhere")
	}
	return errs
}
