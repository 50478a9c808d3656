package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/store/archive"
	"github.com/dealseal/dealseal/web"
)

// newPage puts the status page before the store, and has the engine's calls measured.
func (d *service) newPage() http.Handler {
	house := &pageHouse{Store: d.store, house: d.residents.house, keys: d.registry, log: d.log, checkup: d.checkups.latest, known: map[string]web.Key{}, spki: map[string]string{}, standIns: d.standIns, stamps: d.stamps, listening: d.engine.Listening}
	d.sessions = web.NewSessions(time.Now)
	metrics := web.NewMetrics(house, machine{d}, version, time.Now)
	d.measure(metrics)
	d.api = d.newAPI(house)
	checks := []web.Check{
		{Name: "database", Run: d.databaseMoves},
		{Name: "disk", Run: func(context.Context) error { return d.disk.check() }},
		{Name: "configuration", Advisory: true, Run: func(context.Context) error { return d.reloads.failure() }},
		{Name: "notify", Advisory: true, Run: d.channelsAnswer},
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(d.reloads.metrics()...)
	hooks := newHookMeter()
	d.deliverer.Attempted = hooks.attempted
	registry.MustRegister(hooks.attempts, hooks.delay, d.messages, notifyWatch{d.store})
	registry.MustRegister(metrics, web.Readiness(checks), &d.checkups, keyWatch{d.keys.groups, d.standIns}, hookWatch{d.store, d.residents.house}, tokenWatch{d.store}, d.ingress, d.api, &d.secrets, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return web.New(web.Options{House: house, Hooks: pageHooks{d.store}, Deeds: pageDeeds{d.operations()}, Sessions: d.sessions, SignIn: d.signIn, SignInLasts: d.signInLasts(), Hosts: d.hosts(), Metrics: registry, Version: version, Log: d.log, Checks: checks})
}

// databaseMoves reports why the database cannot be read or written.
func (d *service) databaseMoves(ctx context.Context) error {
	if _, err := d.store.TreeHead(ctx); err != nil {
		return err
	}
	err := d.store.Writable(ctx)
	if err != nil && ctx.Err() != nil {
		return errors.New("no write has got through for seconds: another program holds the database locked, or the disk stands still; the log says more")
	}
	return err
}

// hosts are the names under which the page may be opened: those configured, the name that it listens on, and where people sign in.
func (d *service) hosts() []string {
	listen := d.house.cfg.Listen
	hosts := slices.Clone(listen.Hosts)
	if name, _, err := net.SplitHostPort(listen.Admin); err == nil && name != "" {
		hosts = append(hosts, name)
	}
	if d.signIn != nil {
		hosts = append(hosts, d.signIn.Host())
	}
	return hosts
}

// pageHouse answers the page's questions from the store and the configuration.
type pageHouse struct {
	*store.Store
	house    func() *house // as of the last reload
	keys     *registry
	standIns *signing.Failover
	stamps   *tsa.Client // nil without a time-stamp server
	log      *slog.Logger
	// listening is how a tenant's CRM is listened to, if it is.
	listening func(deal.TenantID) (deal.Listening, bool)
	// checkup returns the newest one, nil before the first.
	checkup func() *doctor.Report

	mu    sync.Mutex
	known map[string]web.Key // what was last known of each key
	spki  map[string]string
}

// Checkup leaves out what passed.
func (p *pageHouse) Checkup(context.Context) (c web.Checkup, err error) {
	r := p.checkup()
	if r == nil {
		return c, nil
	}
	c.At, c.Passes = r.At, r.Counts.Pass
	for _, f := range r.Findings {
		if f.Result != doctor.Pass {
			c.Trouble = append(c.Trouble, web.Trouble{Group: f.Group, Check: strings.TrimSpace(f.Check + " " + f.Subject), Fails: f.Result == doctor.Failure, What: f.What, Cure: f.Cure})
		}
	}
	return c, nil
}

func (p *pageHouse) Tenants(ctx context.Context) (out []web.Tenant, err error) {
	polls, err := p.Polls(ctx)
	if err != nil {
		return nil, err
	}
	byTenant := map[deal.TenantID]deal.PollState{}
	for _, s := range polls {
		byTenant[s.Tenant] = s
	}
	workflows, err := p.CallbackFigures(ctx)
	if err != nil {
		return nil, err
	}
	errands, err := p.ErrandFigures(ctx)
	if err != nil {
		return nil, err
	}
	pauses, err := p.Pauses(ctx)
	if err != nil {
		return nil, err
	}
	paused := map[deal.TenantID]*deal.Pause{}
	for _, one := range pauses {
		paused[one.Tenant] = &one
	}
	for _, t := range p.house().tenants {
		id := deal.TenantID(t.file.Tenant.ID)
		var rules, inferring []string
		for _, r := range t.rules {
			if rules = append(rules, r.Plan.Rule); r.Watch.Snapshot {
				inferring = append(inferring, r.Plan.Rule)
			}
		}
		var heard *deal.Listening
		if l, listens := p.listening(id); listens {
			heard = &l
		}
		out = append(out, web.Tenant{Paused: paused[id], Listening: heard, Workflows: web.Workflows(workflows[id]), Errands: web.Errands(errands[id]), Rules: rules, Inferring: inferring, ID: id, Name: t.file.Tenant.Name, Kind: deal.Kind(t.file.CRM.Kind), Environment: t.file.Tenant.Environment,
			Nightly: t.file.Reconcile.At != config.Never, Every: t.poll, Poll: byTenant[id]})
	}
	return out, nil
}

func (p *pageHouse) Counts(ctx context.Context) (out []web.Count, err error) {
	counts, err := p.Store.Counts(ctx)
	for _, c := range counts {
		out = append(out, web.Count(c))
	}
	return out, err
}

func (p *pageHouse) Find(ctx context.Context, q web.Search) (out web.Found, err error) {
	asked := store.Query{Text: q.Text, Tenant: q.Tenant, Tenants: q.Tenants, State: q.State, Rule: q.Rule, Day: q.Day, Before: q.Before, Limit: q.Limit}
	if id, err := salesforce.CanonicalID(q.Text); err == nil {
		asked.Records = append(asked.Records, id)
	}
	found, err := p.Store.Find(ctx, asked)
	for _, m := range found.Sealings {
		out.Rows = append(out.Rows, web.Row{Tx: m.Tx, Tenant: m.Tenant, Account: m.Account, Ref: m.Ref, RecordURL: m.RecordURL, Rule: m.Rule, Step: m.Step,
			Condition: m.Condition, Reason: m.Reason, Attempts: m.Attempts, Next: m.Next, At: m.At, Updated: m.Updated})
	}
	out.By, out.Next = found.By, found.Next
	return out, err
}

func (p *pageHouse) Deal(ctx context.Context, tx deal.TxID) (*web.Deal, error) {
	s, err := p.Story(ctx, tx)
	if err != nil {
		return nil, missing(err)
	}
	d := &web.Deal{Sealing: s.Sealing, Receipt: s.Receipt, Trail: s.Trail, Earlier: s.Earlier, Errands: s.Errands, Erased: s.Erased}
	var profile signing.Profile
	if err := json.Unmarshal(s.Sealing.Plan.Profile, &profile); err == nil {
		d.Asked = string(profile.Level)
	}
	if folder := s.Sealing.Facts.Archive; folder != "" && !s.Erased {
		d.Kept, err = p.KeptFiles(folder)
		if err = missing(err); errors.Is(err, web.ErrDamaged) {
			p.log.Error("a folder of the archive is damaged: restore it from a backup", "tx", tx, "err", err)
			d.Damaged, err = true, nil
		}
	}
	return d, err
}

// missing turns what the store says of a deal that is not there, or not as it was, into what the page understands.
func missing(err error) error {
	var unknown *store.NotFoundError
	var absent *store.NotKeptError
	var other *store.MismatchError
	var damaged *archive.DamagedError
	var erased *store.ErasedError
	switch {
	case errors.As(err, &unknown), errors.As(err, &absent), errors.As(err, &other) && other.Unlisted:
		return web.ErrNotFound
	case errors.As(err, &other), errors.As(err, &damaged), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", web.ErrDamaged, err)
	case errors.As(err, &erased):
		return web.ErrErased
	}
	return err
}

func (p *pageHouse) Values(ctx context.Context, tx deal.TxID, who string) (*web.Values, error) {
	private, err := p.Store.Values(ctx, tx, who)
	if err != nil {
		return nil, missing(err)
	}
	return &web.Values{Document: private.Document, Record: private.Values, FileName: private.FileName, Differences: private.Differences}, nil
}

func (p *pageHouse) Fetch(ctx context.Context, tx deal.TxID, name, who string) (deal.File, io.Closer, error) {
	f, err := p.Store.Fetch(ctx, tx, name, who)
	if err != nil {
		return deal.File{}, nil, missing(err)
	}
	return f.File, f, nil
}

func (p *pageHouse) Proof(ctx context.Context, tx deal.TxID, who string) ([]byte, error) {
	proof, err := p.Store.Proof(ctx, tx, who)
	return proof, missing(err)
}

// keyPatience is how long a page waits for a key: an HSM that hangs is told, not waited for.
const keyPatience = 500 * time.Millisecond

// Keys says of a key that cannot be reached what the registry has of it, or what was last known.
func (p *pageHouse) Keys(ctx context.Context) (out []web.Key, err error) {
	uses, err := p.KeyUses(ctx)
	if err != nil {
		return nil, err
	}
	entries := p.keys.entries()
	keys := p.house().cfg.Signing.Keys
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		main := p.key(ctx, name)
		u := uses[p.spkiOf(name)]
		main.Uses, main.UsesToday, main.MaxUses, main.MaxUsesPerDay = u.Total, u.Today, keys[name].MaxUses, keys[name].MaxUsesPerDay
		if serving := p.standIns.Serving(name); serving != name {
			main.StandIn = serving
		}
		out = append(out, main)
		for _, e := range entries {
			if e.Signer() == name && e.SHA256 != main.SHA256 && e.Until.After(time.Now()) {
				out = append(out, p.keyWith(name, e.Certificate))
			}
		}
	}
	return out, ctx.Err()
}

// Stampers joins what this process knows with what the database counts.
func (p *pageHouse) Stampers(ctx context.Context) (out []web.Stamper, err error) {
	if p.stamps == nil {
		return nil, nil
	}
	sent, err := p.Stamps(ctx, time.Now().UTC().Format(time.DateOnly))
	for _, h := range p.stamps.Health() {
		out = append(out, web.Stamper{Server: h.Server, Quota: int64(h.Quota), Used: sent[h.Server], Asked: h.Asked, Why: h.Why, Rests: h.Rests})
	}
	return out, err
}

// spkiOf is the SHA-256 of a key's public key in hexadecimal, empty until it is known.
func (p *pageHouse) spkiOf(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spki[name]
}

func (p *pageHouse) keyWith(name string, c deal.Certificate) web.Key {
	k := web.Key{Name: name, Subject: c.Subject, Issuer: c.Issuer, SHA256: c.SHA256, NotAfter: c.Until, State: c.State, ActivateAt: c.ActivateAt, BesideUntil: c.BesideUntil, Answer: c.Answer, Answered: c.Answered}
	if c.Key != name {
		k.For = c.Key
	}
	if active, found := p.keys.active(c.Key); found && active.Signer() != name {
		k.FollowedBy = active.Signer()
	}
	return k
}

// key is a key with what it seals with, or with what it was last to.
func (p *pageHouse) key(ctx context.Context, name string) web.Key {
	ctx, cancel := context.WithTimeout(ctx, keyPatience)
	defer cancel()
	group := p.keys.group(name)
	key, err := p.keys.alone(name).Open(ctx, name)
	known, found := p.keys.part(group)
	if !found {
		known, found = p.keys.newestOf(group)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil && len(key.Chain()) > 0:
		chain := key.Chain()
		p.spki[name] = hex.EncodeToString(digestOf(chain[0].RawSubjectPublicKeyInfo))
		p.known[name] = p.keyWith(name, describe(name, chain, ""))
		if found && known.chain[0].Equal(chain[0]) {
			p.known[name] = p.keyWith(name, known.Certificate)
		}
		return p.known[name]
	case found:
		last := p.keyWith(name, known.Certificate)
		p.spki[name] = known.SPKI
		last.Silent = last.State == deal.CertActive || last.FollowedBy != ""
		last.Idle = !last.Silent && (last.State == deal.CertNext || last.State == deal.CertRetiring)
		return last
	}
	last := p.known[name]
	last.Name, last.Silent = name, true
	return last
}

// pageDeeds does what people decide on the pages, as the commands do it.
type pageDeeds struct{ ops *local }

func (p pageDeeds) Decide(ctx context.Context, verb string, tx deal.TxID, who, why string) error {
	return refusedOnPage(p.ops.Decide(ctx, decision{Verb: verb, Tx: tx, Who: who, Why: why}))
}

func (p pageDeeds) Redeliver(ctx context.Context, delivery int64, who, why string) error {
	_, err := p.ops.Redeliver(ctx, store.Redelivery{Delivery: delivery}, who, why)
	return refusedOnPage(err)
}

func (p pageDeeds) Turn(ctx context.Context, verb string, tenant deal.TenantID, who, why string) error {
	return refusedOnPage(p.ops.TurnTenant(ctx, turn{Verb: verb, Tenant: tenant, Who: who, Why: why}))
}

// DecideGuarded is not cut off when the person goes: thousands of deals may take longer than a browser waits.
func (p pageDeeds) DecideGuarded(ctx context.Context, verb string, scope deal.GuardScope, who, why string) (int, error) {
	n, err := p.ops.DecideGuarded(context.WithoutCancel(ctx), guardDecision{GuardScope: scope, Verb: verb, Who: who, Why: why})
	return n, refusedOnPage(err)
}

// refusedOnPage turns what the store refuses into what the page understands.
func refusedOnPage(err error) error {
	var refused *store.RefusedError
	var gone *store.NoDeliveryError
	var endpoint *store.EndpointError
	var pause *store.PauseError
	var none *store.NothingGuardedError
	switch {
	case errors.As(err, &none):
		return &web.RefusedError{Why: none.Error()}
	case errors.As(err, &pause):
		return &web.RefusedError{Why: pause.Reason}
	case errors.As(err, &refused):
		return &web.RefusedError{Why: refused.Reason}
	case errors.Is(err, deal.ErrStale):
		return &web.RefusedError{Why: "a step of it is under way"}
	case errors.As(err, &endpoint):
		return &web.RefusedError{Why: endpoint.Error()}
	case errors.As(err, &gone):
		return web.ErrNotFound
	}
	return missing(err)
}
