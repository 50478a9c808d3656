package main

import (
	"context"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/documents"
)

// When the daemon examines its house: soon after the start, when the rush is over, and then every day; sooner where
// something failed, which may have been a hiccup, and after a reload. What makes sealing impossible has stopped the start,
// or keeps a tenant from polling, before that.
const (
	firstCheckup   = 5 * time.Minute
	everyCheckup   = 24 * time.Hour
	anotherCheckup = 15 * time.Minute
	soonCheckup    = time.Minute // after a reload, when it has settled
)

// checkups remembers the newest examination of the house.
type checkups struct {
	running sync.Mutex    // one at a time
	due     chan struct{} // holds something when the next one is to be made soon

	mu   sync.Mutex
	last *doctor.Report
}

// hasten has the next one made soon.
func (c *checkups) hasten() {
	select {
	case c.due <- struct{}{}:
	default: // it is due already
	}
}

// latest is nil before the first one.
func (c *checkups) latest() *doctor.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (c *checkups) replace(r *doctor.Report) (before *doctor.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, c.last = c.last, r
	return before
}

// findingsDesc is computed at scrape; it is absent until the first check-up.
var findingsDesc = prometheus.NewDesc("dealseal_doctor_findings", "Findings of the newest check-up (see dealseal doctor) by result: pass, warning or failure. The tenant is empty for what all share.",
	[]string{"tenant", "result"}, nil)

// Describe implements prometheus.Collector.
func (c *checkups) Describe(ch chan<- *prometheus.Desc) { ch <- findingsDesc }

// Collect implements prometheus.Collector. Results that nothing has are 0, so that a rule can compare them.
func (c *checkups) Collect(ch chan<- prometheus.Metric) {
	last := c.latest()
	if last == nil {
		return
	}
	byTenant := map[string][]doctor.Finding{"": nil}
	for _, f := range last.Findings {
		byTenant[f.Tenant] = append(byTenant[f.Tenant], f)
	}
	for tenant, found := range byTenant {
		n := doctor.Count(found)
		for result, count := range map[doctor.Result]int{doctor.Pass: n.Pass, doctor.Warning: n.Warning, doctor.Failure: n.Failure} {
			ch <- prometheus.MustNewConstMetric(findingsDesc, prometheus.GaugeValue, float64(count), tenant, string(result))
		}
	}
}

// examineDaily runs until ctx ends.
func (d *service) examineDaily(ctx context.Context) error {
	regularly(ctx, firstCheckup, d.checkups.due, func() time.Duration { return nextCheckup(d.examine(ctx)) })
	return nil
}

func nextCheckup(last *doctor.Report) time.Duration {
	if last.Counts.Failure > 0 {
		return anotherCheckup
	}
	return everyCheckup
}

// regularly does something after a while, and then again and again after the pause that it returns, or soon after it
// became due, until ctx ends.
func regularly(ctx context.Context, first time.Duration, due <-chan struct{}, do func() (pause time.Duration)) {
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-due:
			timer.Reset(soonCheckup)
			continue
		}
		timer.Reset(do())
	}
}

// examine examines the house with what the daemon has open, and logs what has changed since the last time.
func (d *service) examine(ctx context.Context) *doctor.Report {
	d.checkups.running.Lock()
	defer d.checkups.running.Unlock()
	began := time.Now()
	x, findings := d.newExaminer()
	defer x.close()
	findings = append(findings, x.run(ctx)...)
	report := doctor.NewReport(asker(), time.Now(), time.Since(began), findings)
	report.Questions = x.questions(findings)
	if ctx.Err() == nil { // else half of it says that the daemon stops
		d.noteCheckup(d.checkups.replace(report), report)
		d.wake(ctx, report)
	}
	return report
}

// wake lets deals go on that wait for a login or a key that the check-up has found to work.
func (d *service) wake(ctx context.Context, report *doctor.Report) {
	for _, f := range report.Findings {
		switch {
		case f.Result != doctor.Pass:
		case f.Check == checkSignature:
			for _, name := range d.registry.serves(d.registry.group(f.Subject)) { // deals wait under the name that profiles have
				d.engine.Mended(ctx, "", deal.WaitsForKey(name))
				d.engine.Mended(ctx, "", deal.WaitsForSecondKey(name))
			}
		case f.Check == checkLogin:
			d.engine.Mended(ctx, deal.TenantID(f.Tenant), deal.WaitsForLogin)
		}
	}
}

func (d *service) noteCheckup(before, now *doctor.Report) {
	var was []doctor.Finding
	if before != nil {
		was = before.Findings
	}
	raised, mended := doctor.Changes(was, now.Findings)
	for _, f := range raised {
		d.log.Warn("the check-up found something", "group", f.Group, "check", f.Check, "subject", f.Subject, "result", f.Result, "what", f.What, "cure", f.Cure)
	}
	for _, f := range mended {
		d.log.Info("what the last check-up found is mended", "group", f.Group, "check", f.Check, "subject", f.Subject)
	}
	d.log.Info("check-up", "failures", now.Counts.Failure, "warnings", now.Counts.Warning, "passes", now.Counts.Pass, "took", time.Duration(now.Took))
}

// newExaminer examines the files as they are now, so that an edit can be tried before it is loaded. What the daemon has
// open is used for whatever the edit leaves alone: a second login would cost, and a PIN that was edited is tried here only
// once. Files that cannot be understood are a finding, and the running configuration is examined instead.
func (d *service) newExaminer() (*examiner, []doctor.Finding) {
	now := d.residents.house()
	h, err := loadHouse(now.cfg.File)
	var findings []doctor.Finding
	switch {
	case err != nil:
		for _, f := range misconfigured(err) {
			f.Cure = "correct the files; what follows is about the configuration that the daemon has loaded"
			findings = append(findings, f)
		}
		h = now
	case !reflect.DeepEqual(h.cfg, now.cfg):
		f := doctor.Warned("files", "load them with dealseal reload; some keys of dealseal.yaml take a restart", "the files were edited since the daemon read them; what follows is about the edited ones")
		f.Group = doctor.Configuration
		findings = append(findings, f)
	default:
		findings = append(findings, h.wellConfigured())
	}
	var edited *loginKeys // of the files, for as long as the examination takes
	if h != now {
		edited = h.logins
	}
	if reflect.DeepEqual(h.cfg.LoginKeys, now.cfg.LoginKeys) {
		h.logins = now.logins
	}
	x := &examiner{house: h, log: d.log, http: &http.Client{}, endpoints: d.store.EndpointStates, tokens: d.store.Tokens, serving: true}
	keys := &lazy[*keyring]{make: func() (*keyring, error) { return h.newKeys(d.log) }}
	x.registry = func(_ context.Context, name string) (*registry, error) {
		if reflect.DeepEqual(h.cfg.Signing.Keys[name], d.house.cfg.Signing.Keys[name]) {
			return d.registry, nil
		}
		k, err := keys.get()
		if err != nil {
			return nil, err
		}
		return h.lookAtRegistry(k, certificatesOf(d.registry.entries()), d.log)
	}
	x.stamps = func() (stampCounter, error) { return d.store, nil }
	x.guards, x.pauses, x.callbacks, x.secretsSince = d.store.Guards, d.store.Pauses, d.store.CallbackFigures, d.store.SecretsSince
	var own passing
	x.connect = func(_ context.Context, t tenant) (connectors.CRM, error) {
		if crm, runs := d.residents.connector(t); runs {
			return crm, nil
		}
		crm, err := t.connect(d.log.With("tenant", t.file.Tenant.ID), d.store.Memory(deal.TenantID(t.file.Tenant.ID)))
		own.add(crm)
		return crm, err
	}
	x.renderer = func() (documents.Renderer, error) { return d.engine.Documents, nil }
	x.closers = []func() error{func() error { return keys.close((*keyring).Close) }, own.retire}
	if edited != nil {
		x.closers = append(x.closers, edited.Close)
	}
	return x, findings
}

// passing are connectors that were made for one examination. It is safe for concurrent use.
type passing struct {
	mu   sync.Mutex
	list []connectors.Retirer
}

func (p *passing) add(crm connectors.CRM) {
	if r, ok := crm.(connectors.Retirer); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.list = append(p.list, r)
	}
}

// retire keeps none of their connections open.
func (p *passing) retire() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.list {
		r.Retire()
	}
	return nil
}
