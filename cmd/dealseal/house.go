package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/hubspot"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/documents/typst"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/web"
	"github.com/dealseal/dealseal/web/api"
	"github.com/dealseal/dealseal/webhooks"
)

// house is the configuration with everything that it names looked up and compared, before anything runs.
type house struct {
	cfg     *config.Config
	bundles map[string]*documents.Bundle // by id@version
	roots   []*x509.Certificate
	tenants []tenant
	senders map[string][]*web.Sender // by path
	meter   meter
	logins  *loginKeys
	proxies *api.Proxies // before the API; nil: none
	// stampWire carries requests to time-stamp servers in the daemon; see stampTransport.
	stampWire *pins.Transport
}

// tenant is one tenant file, understood.
type tenant struct {
	file  *config.Tenant
	rules []engine.Rule
	poll  time.Duration
	guard deal.Guard
	// account tells apart what the files call accounts: two tenants with the same may not share a rule id.
	account string
	// senders are those that may push, live the keys of each.
	senders []*web.Sender
	live    []*liveKeys
	// vendors are those that have people sign in our place, by name.
	vendors map[string]*vendor
	// with is the connector's own configuration, to be compared, as are the pins of what it calls.
	with any
	// addresses are those that the connector calls.
	addresses []string
	// remembers is set when the connector must keep something over restarts.
	remembers bool
	// endpoints are its webhooks, without their secrets.
	endpoints []webhooks.Endpoint
	connect   func(log *slog.Logger, memory connectors.Memory) (connectors.CRM, error)
}

// loadHouse reads and compares everything that needs no network. All complaints are returned, joined.
func loadHouse(path string) (*house, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	h := &house{cfg: cfg, logins: newLoginKeys(cfg), stampWire: newStampTransport(cfg)}
	var errs []error
	if h.roots, err = loadRoots(cfg); err != nil {
		errs = append(errs, err)
	}
	if h.proxies, err = readProxies(cfg); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, checkKeyFiles(cfg)...)
	if errs = append(errs, h.understandAll()...); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return h, nil
}

// reload reads what a running daemon can take anew; see config.Config.Reload.
func (h *house) reload() (next *house, restart []string, err error) {
	cfg, restart, err := h.cfg.Reload()
	if err != nil {
		return nil, nil, err
	}
	next = &house{cfg: cfg, roots: h.roots, logins: h.logins, proxies: h.proxies, stampWire: h.stampWire}
	return next, restart, errors.Join(next.understandAll()...)
}

// understandAll reads the bundles and turns the tenant files into rules.
func (h *house) understandAll() (errs []error) {
	var err error
	if h.bundles, err = loadBundles(h.cfg); err != nil {
		return []error{err} // without the templates nothing can be said of the rules that name them
	}
	for i := range h.cfg.Loaded {
		t, err := h.understand(&h.cfg.Loaded[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		h.tenants = append(h.tenants, t)
	}
	h.senders = bySenderPath(h.tenants)
	return append(append(errs, h.sharedRules()...), h.movesIntoRules()...)
}

func loadBundles(cfg *config.Config) (map[string]*documents.Bundle, error) {
	bundles, err := documents.LoadAll(cfg.Templates)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, cfg.At("templates", "%v", err)
	}
	return bundles, err
}

// loadRoots reads the PEM files of signing.trust.
func loadRoots(cfg *config.Config) (roots []*x509.Certificate, err error) {
	for i, file := range cfg.Signing.Trust {
		certs, err := readCertificates(relativeTo(cfg.File, file))
		if err != nil {
			return nil, cfg.At(fmt.Sprintf("signing.trust.%d", i), "%v", err)
		}
		roots = append(roots, certs...)
	}
	return roots, nil
}

func readCertificates(file string) (certs []*x509.Certificate, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s holds a %s: only certificates belong there", file, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", file, len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return certs, nil
}

// relativeTo resolves a path of a configuration file against its folder.
func relativeTo(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

func checkKeyFiles(cfg *config.Config) (errs []error) {
	for name, k := range cfg.LoginKeys {
		if _, err := os.Stat(k.Module); err != nil {
			errs = append(errs, cfg.At("login_keys."+name+".module", "login_keys.%s.module: %v", name, err))
		}
	}
	for name, k := range cfg.Signing.Keys {
		for key, file := range map[string]string{"module": k.Module, "certificates": k.Certificates, "file": k.File} {
			if file == "" {
				continue
			}
			if _, err := os.Stat(relativeTo(cfg.File, file)); err != nil {
				errs = append(errs, cfg.At("signing.keys."+name+"."+key, "signing.keys.%s.%s: %v", name, key, err))
			}
		}
	}
	return errs
}

// understand turns a tenant file into rules with plans.
func (h *house) understand(file *config.Tenant) (tenant, error) {
	t := tenant{file: file, guard: guardOf(file)}
	if err := t.decodeConnector(h.logins); err != nil {
		return t, err
	}
	var errs []error
	if err := checkPinnedHosts(file.CRM.Pins, t.addresses); err != nil {
		errs = append(errs, file.At("crm.pins", "%v", err))
	}
	if t.poll == 0 {
		t.poll = time.Minute
	}
	for i := range file.Rules {
		r, err := h.rule(file, i)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t.rules = append(t.rules, r)
	}
	var err error
	if t.endpoints, err = endpointsOf(file); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, h.understandPushes(&t), h.understandVendors(&t))
	return t, errors.Join(errs...)
}

func (t *tenant) decodeConnector(logins *loginKeys) error {
	switch deal.Kind(t.file.CRM.Kind) {
	case deal.Salesforce:
		var c salesforce.Config
		if err := t.file.DecodeWith(&c); err != nil {
			return err
		}
		if _, err := salesforce.New(c, salesforce.Deps{}); err != nil {
			return t.file.At("crm.with", "%v", err)
		}
		if err := logins.check(c.Auth.HSMKey); err != nil {
			return t.file.At("crm.with.auth.hsm_key", "%v", err)
		}
		t.poll, t.account, t.with, t.addresses = c.Poll, "salesforce "+c.MyDomain, c, c.Addresses()
		t.connect = func(log *slog.Logger, memory connectors.Memory) (connectors.CRM, error) {
			return salesforce.New(c, salesforce.Deps{Log: log, HTTP: crashTransport(t.file.Tenant.ID, pinnedTo(t.file, salesforce.NewTransport)), Streams: pinnedTo(t.file, salesforce.NewStreamTransport), Memory: memory, SignLogin: logins.signer(log)})
		}
	case deal.HubSpot:
		var c hubspot.Config
		if err := t.file.DecodeWith(&c); err != nil {
			return err
		}
		if err := c.Validate(); err != nil {
			return t.file.At("crm.with", "%v", err)
		}
		t.poll, t.account, t.with, t.addresses = c.PollInterval(), "hubspot "+c.AccountHint(), c, c.Addresses()
		t.remembers = c.Auth.Flow == hubspot.FlowOAuth
		t.connect = func(log *slog.Logger, memory connectors.Memory) (connectors.CRM, error) {
			return hubspot.New(c, hubspot.Deps{Log: log, Memory: memory, Transport: crashTransport(t.file.Tenant.ID, pinnedTo(t.file, hubspot.NewTransport))})
		}
	}
	return nil
}

// rule makes the plan that every deal of the rule takes with it.
func (h *house) rule(file *config.Tenant, i int) (engine.Rule, error) {
	r := file.Rules[i]
	path := fmt.Sprintf("rules.%d", i)
	start, err := r.StartTime()
	if err != nil {
		return engine.Rule{}, file.At(path+".start_from", "%v", err)
	}
	if known := objectsOf(deal.Kind(file.CRM.Kind)); !slices.Contains(known, r.Object) {
		return engine.Rule{}, file.At(path+".object", "object %q cannot be watched%s; those that can are %s", r.Object, config.Nearest(r.Object, known), strings.Join(known, ", "))
	}
	if deal.Kind(file.CRM.Kind) == deal.HubSpot && !hubspot.Movable(r.Object) {
		if r.When.Pipeline != "" {
			return engine.Rule{}, file.At(path+".when.pipeline", "%s are in no pipeline: leave when.pipeline out", r.Object)
		}
		if len(r.Move) > 0 {
			return engine.Rule{}, file.At(path+".move", "dealseal moves no %s, since that would publish or recall them: leave move out, and have a workflow of HubSpot act on the status that dealseal writes", r.Object)
		}
	}
	profile, err := h.profileOf(r)
	if err != nil {
		return engine.Rule{}, file.At(path+".seal", "%v", err)
	}
	encoded, err := json.Marshal(profile)
	if err != nil {
		return engine.Rule{}, err
	}
	words := statusWords(file.CRM.Kind, r.WriteBack.Status.Values)
	p := deal.Plan{
		TenantName: file.Tenant.Name, TimeZone: file.Tenant.TimeZone, Seller: file.Tenant.Seller, Currency: file.Tenant.Currency,
		Production: file.Tenant.Environment == "production",
		Rule:       r.ID, Stage: r.When.Stage, Profile: encoded, IfLeft: r.IfLeft, ReEntry: r.ReEntry, Attachment: r.Document.Attachment,
		WriteBack: deal.WriteBack{TransactionID: r.WriteBack.TransactionID, Status: r.WriteBack.Status.Field, Words: words,
			SignedAt: r.WriteBack.SignedAt, URL: r.WriteBack.URL, Audit: r.WriteBack.Audit, Drift: r.WriteBack.Drift.Field, DriftText: r.WriteBack.Drift.Text},
	}
	if r.Delegated == nil || r.AuditTrail != "none" {
		p.Mark = file.Tenant.Mark()
	}
	if p.Attachment != "" && p.Mark != "" {
		if err := pades.CheckMark(p.Mark); err != nil {
			return engine.Rule{}, file.At("tenant.test_mark", "tenant.test_mark cannot be written across attachments, as rule %q needs it (%v): take other words, or set it to %q", r.ID, err, config.Unmarked)
		}
	}
	for status, stage := range r.Move {
		if p.Moves == nil {
			p.Moves = map[deal.Status]string{}
		}
		p.Moves[deal.Status(status)] = stage
	}
	if f := r.WriteBack.FollowUp; f != nil {
		p.FollowUp, p.WriteBack.FollowUp = f.After, f.Field
	}
	for _, status := range r.WriteBack.Timeline {
		p.Timeline = append(p.Timeline, deal.Status(status))
	}
	if w := file.Tasks; w.Owner {
		p.WriteBack.Task = &deal.TaskWords{Subject: w.Subject, Days: w.Due}
	}
	var filter *deal.Filter
	if r.When.Filter != "" {
		if filter, err = deal.ParseFilter(r.When.Filter); err != nil {
			return engine.Rule{}, file.At(path+".when.filter", "when.filter, %v (docs/filters.md)", err)
		}
		p.Filter = filter.String()
	}
	types, err := h.useTemplate(file, path, r, &p)
	if err != nil {
		return engine.Rule{}, err
	}
	if r.AuditTrail != "none" {
		b, err := h.bundle(file, path+".audit_trail", r.AuditTrail)
		if err != nil {
			return engine.Rule{}, err
		}
		if err := markable(file, path+".audit_trail", b, p.Mark); err != nil {
			return engine.Rule{}, err
		}
		p.AuditTrail = b.Hash()
	}
	var signatory *deal.Signatory
	if r.Signer.Email != "" {
		signatory = &deal.Signatory{Email: r.Signer.Email, Name: r.Signer.Name}
	}
	return engine.Rule{StartFrom: start, Plan: p, Types: types, Filter: filter, Signatory: signatory,
		Watch: deal.Watch{Rule: r.ID, Object: r.Object, Pipeline: r.When.Pipeline, Stage: r.When.Stage, Snapshot: r.Detect == "snapshot"}}, nil
}

// objectsOf are the objects that rules may watch.
func objectsOf(crm deal.Kind) []string {
	if crm == deal.Salesforce {
		return salesforce.Objects()
	}
	return hubspot.Objects()
}

// guardOf is how many deals are let through unasked. The defaults are those that config.Guard names.
func guardOf(file *config.Tenant) deal.Guard {
	g := deal.Guard{Tenant: deal.Caps{Hour: file.Guard.PerHour.Or(500), Day: file.Guard.PerDay.Or(2000)}, Rules: map[string]deal.RuleGuard{}}
	for _, r := range file.Rules {
		l := r.Guard
		g.Rules[r.ID] = deal.RuleGuard{Caps: deal.Caps{Hour: l.PerHour.Or(200), Day: l.PerDay.Or(1000)},
			Learned: l.Learned.Or(10), Second: l.SameSecond.Or(50), User: l.SameUser.Or(100), FirstRun: l.FirstRun.Or(20)}
	}
	return g
}

// statusWords are those that differ from deal.Statuses: HubSpot's options are written by their internal values, which are
// the keys unless the tenant says otherwise.
func statusWords(kind string, configured map[string]string) map[deal.Status]string {
	words := map[deal.Status]string{}
	if deal.Kind(kind) == deal.HubSpot {
		for _, s := range deal.Statuses {
			words[s.Status] = string(s.Status)
		}
	}
	for key, word := range configured {
		words[deal.Status(key)] = word
	}
	return words
}

// markable refuses a template that could not be marked as a test: it would be found out by the first deal.
func markable(file *config.Tenant, path string, b *documents.Bundle, mark string) error {
	if mark == "" {
		return nil
	}
	if source, line, found := typst.OwnForeground(b); found {
		return file.At(path, "%s sets a page foreground of its own (%s, line %d), which would hide %q on documents of a sandbox: use background or place there, or set tenant.test_mark to %q", b.Name(), source, line, mark, config.Unmarked)
	}
	return nil
}

// useTemplate adds what the rule's template needs to the plan, and returns what it makes of the fields.
func (h *house) useTemplate(file *config.Tenant, path string, r config.Rule, p *deal.Plan) (map[string]deal.ValueType, error) {
	switch {
	case r.Delegated != nil:
		return planDelegated(r, p), nil
	case r.Document.Template == "":
		return nil, nil
	}
	b, err := h.bundle(file, path+".document.template", r.Document.Template)
	if err != nil {
		return nil, err
	}
	if p.Production {
		if err := b.RequireApproved(); err != nil {
			return nil, file.At(path+".document.template", "%v", err)
		}
	}
	if err := markable(file, path+".document.template", b, p.Mark); err != nil {
		return nil, err
	}
	types, err := b.ValueTypes(file.CRM.Kind, r.Document.Fields)
	if err != nil {
		return nil, file.At(path+".document.fields", "%v", err)
	}
	p.Fields = slices.Sorted(maps.Keys(types))
	p.Template, p.Bundle, p.Retention = b.Name(), b.Hash(), b.Retention
	if len(r.Document.Fields) > 0 {
		p.Overrides, err = json.Marshal(r.Document.Fields)
	}
	return types, err
}

func (h *house) bundle(file *config.Tenant, path, name string) (*documents.Bundle, error) {
	b, ok := h.bundles[name]
	if !ok {
		var names []string
		for n := range h.bundles {
			names = append(names, n)
		}
		return nil, file.At(path, "template %q is not in %s%s", name, h.cfg.Templates, config.Nearest(name, names))
	}
	return b, nil
}

// profile turns a configured profile into the signing core's.
func (h *house) profile(name string) (signing.Profile, error) {
	c, ok := h.cfg.Signing.Profiles[name]
	if !ok {
		return signing.Profile{}, fmt.Errorf("profile %q is not under signing.profiles", name)
	}
	level, err := pades.ParseLevel(c.Level)
	if err != nil {
		return signing.Profile{}, err
	}
	p := signing.Profile{Name: name, Key: c.Key, Level: level, OnDowngrade: signing.Downgrade(c.OnDowngrade), Reason: c.Reason, Location: c.Location,
		SignerName: c.Name, Hash: hashes[c.Hash], PSS: c.PSS, Certify: c.Certify, VRI: c.VRI, Dual: c.DualSeal,
		MinValidity: c.MinValidity, Floor: signing.Floor{RSA: c.MinRSA, EC: c.MinCurve, Hash: hashes[c.MinHash]}}
	return p, p.Check()
}

// sharedRules finds tenants that would make the same transaction IDs.
func (h *house) sharedRules() (errs []error) {
	seen := map[string]*config.Tenant{}
	for _, t := range h.tenants {
		for i, r := range t.rules {
			key := t.account + " " + r.Watch.Rule
			if other, twice := seen[key]; twice {
				errs = append(errs, t.file.At(fmt.Sprintf("rules.%d.id", i), "rule %q of the same CRM account is already in %s: one account and rule id make one set of transactions",
					r.Watch.Rule, other.File))
			}
			seen[key] = t.file
		}
	}
	return errs
}

// movesIntoRules finds moves that lead into a stage that a rule of the same account watches, as far as the files tell: each
// record that is moved there would be a new deal. A stage that is named by its label is compared when the account is asked.
func (h *house) movesIntoRules() (errs []error) {
	watched := map[string]string{}
	for _, t := range h.tenants {
		for _, r := range t.rules {
			watched[t.account+" "+r.Watch.Object+" "+r.Watch.Stage] = t.file.Tenant.ID + "/" + r.Watch.Rule
		}
	}
	for _, t := range h.tenants {
		for i, r := range t.rules {
			for status, stage := range r.Plan.Moves {
				if rule, is := watched[t.account+" "+r.Watch.Object+" "+stage]; is {
					errs = append(errs, t.file.At(fmt.Sprintf("rules.%d.move.%s", i, status), "stage %q is that of rule %s: each record that is moved there would be a new deal; name a stage that no rule watches", stage, rule))
				}
			}
		}
	}
	return errs
}
