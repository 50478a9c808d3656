package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/delegates"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/web"
	"github.com/dealseal/dealseal/webhooks"
)

// vendor is one of a tenant's that has people sign documents in our place.
type vendor struct {
	source *delegates.Source
	roots  []*x509.Certificate // of whoever signs there
}

// understandVendors turns a tenant's vendors into what the listener and the engine ask.
func (h *house) understandVendors(t *tenant) error {
	t.vendors = map[string]*vendor{}
	for i, c := range t.file.Vendors {
		path := fmt.Sprintf("vendors.%d", i)
		kind, known := delegates.Find(c.Name)
		if !known {
			return t.file.At(path+".name", "vendor %q is not known%s", c.Name, config.Nearest(c.Name, delegates.Names()))
		}
		v, err := h.newVendor(t.file, path, kind, c)
		if err != nil {
			return err
		}
		t.vendors[c.Name] = v
		name := kind.Dialects[0]
		if c.Dialect != "" {
			name = c.Dialect
		}
		if !slices.Contains(kind.Dialects, name) {
			return t.file.At(path+".dialect", "%s does not sign in the dialect %q%s", c.Name, name, config.Nearest(name, slices.Clone(kind.Dialects)))
		}
		live := &liveKeys{refs: c.Secrets}
		t.senders = append(t.senders, &web.Sender{Tenant: deal.TenantID(t.file.Tenant.ID), Source: c.Name, Path: "/webhooks/" + t.file.Tenant.ID + "/" + c.Name,
			Dialects: []*webhooks.Dialect{webhooks.Find(name)}, Keys: live.get, MaxBody: jsonBody, Repeats: true, Answer: web.Answer{Status: http.StatusOK},
			Read: func(body []byte, _ deal.Account) (web.Pushed, error) {
				told, err := kind.Read(body)
				return web.Pushed{Told: told}, err
			}})
		t.live = append(t.live, live)
	}
	return nil
}

func (h *house) newVendor(file *config.Tenant, path string, kind delegates.Vendor, c config.Vendor) (*vendor, error) {
	source, err := delegates.NewSource(kind, c.Documents)
	if err != nil {
		return nil, file.At(path+".documents", "documents is %q: %v", c.Documents, err)
	}
	source.Token = c.Token
	if c.Header != "" {
		source.Header = c.Header
	}
	guard, trust, err := outboundGuard(h.cfg)
	if err != nil {
		return nil, err
	}
	source.Client = guard.Client(source.Encrypted(), trust)
	v := &vendor{source: source, roots: slices.Clone(h.roots)}
	for i, name := range c.Trust {
		roots, err := readCertificates(relativeTo(file.File, name))
		if err != nil {
			return nil, file.At(fmt.Sprintf("%s.trust.%d", path, i), "%v", err)
		}
		v.roots = append(v.roots, roots...)
	}
	return v, nil
}

// outboundGuard is what calls to addresses may reach that tenants have named, and the roots of those who answer; nil for the
// system's.
func outboundGuard(cfg *config.Config) (guard webhooks.Guard, trust *tls.Config, err error) {
	d, err := newDeliverer(cfg, nil, nil)
	if err != nil {
		return guard, nil, err
	}
	return d.Guard, d.Trust, nil
}

// planDelegated makes the plan of a rule whose signing is a vendor's.
func planDelegated(r config.Rule, p *deal.Plan) map[string]deal.ValueType {
	d := r.Delegated
	p.Delegated = &deal.Delegated{Vendor: d.Vendor, Field: d.Envelope, Patience: d.Patience}
	p.Fields = []string{d.Envelope}
	return map[string]deal.ValueType{d.Envelope: deal.TextValue}
}

// profileOf is the profile of a rule: of one that is delegated there is no more to it than the level that is asked for.
func (h *house) profileOf(r config.Rule) (signing.Profile, error) {
	switch {
	case r.Delegated == nil:
		return h.profile(r.Seal)
	case r.Delegated.Level == config.AnyLevel:
		return signing.Profile{OnDowngrade: signing.Hold}, nil
	}
	level, err := pades.ParseLevel(r.Delegated.Level)
	return signing.Profile{Level: level, OnDowngrade: signing.Hold}, err
}

// keyOf is the key that a rule uses, "" for none.
func (h *house) keyOf(r config.Rule) string { return h.cfg.Signing.Profiles[r.Seal].Key }

// delegate is a vendor with those who read its documents.
type delegate struct {
	*vendor
	checker *checker
}

func (d delegate) Fetch(ctx context.Context, envelope, url string, to io.Writer, limit int64) error {
	return d.source.Fetch(ctx, envelope, url, to, limit)
}

func (d delegate) Check(ctx context.Context, doc pades.Document) (*verify.Report, error) {
	return d.checker.Checker.Check(ctx, doc, verify.Options{Roots: d.roots})
}

// vendorsOf finds vendors among the tenants that are configured now.
func vendorsOf(now func() *house, checker *checker) func(deal.TenantID, string) (engine.Vendor, bool) {
	return func(id deal.TenantID, name string) (engine.Vendor, bool) {
		for _, t := range now().tenants {
			if v := t.vendors[name]; v != nil && t.file.Tenant.ID == string(id) {
				return delegate{v, checker}, true
			}
		}
		return nil, false
	}
}
