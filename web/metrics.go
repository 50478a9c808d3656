package web

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/prometheus/client_golang/prometheus"
)

// scrapeLimit is how long the House may take to answer one scrape.
const scrapeLimit = 5 * time.Second

// Machine is what the metrics need to know beside the House. It is safe for concurrent use and returns when ctx ends.
type Machine interface {
	Vitals(ctx context.Context) (Vitals, error)
}

// Vitals are figures of the daemon as a whole.
type Vitals struct {
	Database, WAL       int64 // bytes
	DiskFree, DiskFloor int64 // bytes
	// Backup is the moment that the newest backup with the archive is of, BackupDatabase that of the newest with or without
	// it; the zero time if there is none.
	Backup, BackupDatabase time.Time
	// Outcomes count, since the beginning, what became of deals.
	Outcomes []Outcome
	// Failing counts deals, by tenant, whose step has failed at least three times in a row.
	Failing map[deal.TenantID]int64
	// Due is, by tenant, the earliest moment at which something should have happened to a deal that waits for no person.
	Due map[deal.TenantID]time.Time
}

// Outcome is how often something became of a tenant's deals: noticed, done, held, dead or ended.
type Outcome struct {
	Tenant deal.TenantID
	Name   string
	N      int64
}

// Metrics is what the daemon tells Prometheus. States are read from the House at each scrape, so they are right after a
// restart; only calls and steps are counted in memory. It is a prometheus.Collector and safe for concurrent use.
type Metrics struct {
	house   House
	machine Machine
	now     func() time.Time
	started time.Time

	counted []prometheus.Collector
	volume  volumeFound
	calls   timed
	steps   *prometheus.HistogramVec
	crm     *prometheus.CounterVec
	keys    timed
	stamps  timed
}

// timed are the duration of something, and how often it failed, by one label.
type timed struct {
	seconds *prometheus.HistogramVec
	errors  *prometheus.CounterVec
}

// durations reach from a signature in an HSM to the deadline of a call, in seconds.
var durations = []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

func newTimed(name, label, what string) timed {
	return timed{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name + "_seconds", Help: "Duration of " + what + ".", Buckets: durations}, []string{label}),
		errors:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "_errors_total", Help: "How often there failed " + what + "."}, []string{label}),
	}
}

// seen counts one. What was given up because the daemon stops is no error.
func (t timed) seen(label string, took time.Duration, err error) {
	t.seconds.WithLabelValues(label).Observe(took.Seconds())
	failed := t.errors.WithLabelValues(label) // exists from the first on, so that its rate is right
	if err != nil && !errors.Is(err, context.Canceled) {
		failed.Inc()
	}
}

// The families that are computed at scrape.
var (
	sealingsDesc   = desc("dealseal_sealings", "Deals by step and condition.", "tenant", "step", "condition")
	dealsDesc      = desc("dealseal_deals_total", "Deals that were noticed, and how often one came to be done, held, dead or ended; counted in the database, so that a restart loses none.", "tenant", "outcome")
	depthDesc      = desc("dealseal_queue_depth", "Deals that the daemon itself will go on with.", "tenant")
	oldestDesc     = desc("dealseal_queue_oldest_seconds", "Time since the deal that has waited longest in the queue last moved; 0 when the queue is empty. Deals that wait for a person do not count.", "tenant")
	overdueDesc    = desc("dealseal_queue_overdue_seconds", "Time since a deal that waits for no person should have moved, the longest: since it last moved or, later, since its next attempt was due; 0 when none should have.", "tenant")
	waitingDesc    = desc("dealseal_waiting_deals", "Deals that wait for a person, held or dead.", "tenant", "condition")
	patienceDesc   = desc("dealseal_waiting_oldest_seconds", "Time for which a held or dead deal has waited for a person, the longest; 0 when there is none.", "tenant", "condition")
	pausedDesc     = desc("dealseal_tenant_paused_seconds", "For how long a person has had a tenant wait; 0 when it goes on.", "tenant")
	guardDesc      = desc("dealseal_guard_held_deals", "Deals that the guard holds until a person decides about all of them, because they came in unusual numbers.", "tenant")
	failingDesc    = desc("dealseal_deals_failing", "Deals whose current step has failed at least three times in a row, or waits for a login or key that a person has to mend, and is tried again.", "tenant")
	pollDesc       = desc("dealseal_poll_age_seconds", "Time since the last poll that succeeded, or since the start of the daemon when none has.", "tenant")
	intervalDesc   = desc("dealseal_poll_interval_seconds", "Configured time between two polls.", "tenant")
	budgetDesc     = desc("dealseal_crm_budget_used_ratio", "Used share of the CRM's API allowance, 0 to 1; absent until the CRM has said it.", "tenant")
	heardDesc      = desc("dealseal_listening_connected", "1 while a CRM tells of changes over a connection of ours, else 0; absent for a tenant whose CRM is only polled.", "tenant")
	quietDesc      = desc("dealseal_listening_silent_seconds", "Time since a CRM that is listened to last said anything, and be it that it is there, or since listening began.", "tenant")
	heardLagDesc   = desc("dealseal_listening_lag_seconds", "From the commit of the last change that a CRM has told of, by its clock, until it was heard.", "tenant")
	workflowsDesc  = desc("dealseal_workflows", "Workflows of a CRM that wait for a deal; of these, those that could not be told three times; and those of the last 24 hours that were not told.", "tenant", "state")
	errandsDesc    = desc("dealseal_errands", "What is to be done in a CRM because of what became of deals, beside telling their records (open); of this, what could not be done in three tries (failing); and what the CRM has refused in the last 24 hours (refused).", "tenant", "state")
	heardEvents    = desc("dealseal_listening_events_total", "Changes that a CRM has told of since listening began, of whatever kind.", "tenant")
	untoldDesc     = desc("dealseal_records_untold", "Records in a CRM that have been showing something older than what is true for more than a minute.")
	oddDesc        = desc("dealseal_quarantined_rows", "Rows of CRMs that could not be understood and that nobody has dealt with; behind each a deal may be waiting. Counted up to 1000.")
	notAfterDesc   = desc("dealseal_certificate_not_after_seconds", "Unix time at which the certificate of a sealing key ends; absent once another key pair has followed it.", "key")
	usesDesc       = desc("dealseal_key_documents_total", "Documents that a key has sealed, counted in the database when its use begins; absent until its certificate is known.", "key")
	spentDesc      = desc("dealseal_key_limit_used_ratio", "Used share of max_uses or max_uses_per_day of a key, whichever is nearer; 0 where it has neither.", "key")
	revokedDesc    = desc("dealseal_certificate_revoked", "1 if the newest certificate of a sealing key was revoked and no other one is active, so that it seals nothing; else 0.", "key")
	followsDesc    = desc("dealseal_certificate_activates_timestamp_seconds", "Unix time at which the next certificate of a sealing key becomes active by itself; absent when none does.", "key")
	besideDesc     = desc("dealseal_certificate_two_seals_until_timestamp_seconds", "Unix time until which documents get a second seal, with the certificate that was followed; absent when they get one seal.", "key")
	answeredDesc   = desc("dealseal_certificate_answered_timestamp_seconds", "Unix time at which its issuers last said that the certificate of a sealing key is not revoked; 0 when they never did, absent when it names nobody who could be asked.", "key")
	stampUpDesc    = desc("dealseal_tsa_up", "1 when the newest request to a time-stamp server gave a good token, 0 when it did not; absent before the first one of this process.", "server")
	quotaDesc      = desc("dealseal_tsa_quota_used_ratio", "Used share of the requests that a time-stamp server may be sent on this day in UTC, counted in the database; 0 where it has no quota.", "server")
	volumeDesc     = desc("dealseal_volume_unusual", "1 if more contracts were sealed today or yesterday (UTC) than is usual on that weekday, or fewer yesterday; 0 otherwise, and before four weeks are known. Looked at every five minutes.", "than")
	auditDesc      = desc("dealseal_audit_entries", "Entries of the audit log.")
	databaseDesc   = desc("dealseal_database_bytes", "Size of the database's file.")
	walDesc        = desc("dealseal_database_wal_bytes", "Size of the database's write-ahead log.")
	freeDesc       = desc("dealseal_disk_free_bytes", "Free space in the state directory.")
	floorDesc      = desc("dealseal_disk_floor_bytes", "Free space below which no new deals are noticed.")
	backupDesc     = desc("dealseal_backup_timestamp_seconds", "Unix time of the moment that the newest backup with the archive is of; 0 when there is none.")
	backupDBDesc   = desc("dealseal_backup_database_timestamp_seconds", "Unix time of the moment that the newest backup, with or without the archive, is of; 0 when there is none.")
	discrepantDesc = desc("dealseal_discrepancies", "What a CRM does not show as the ledger has it, by kind, as of the last look, and nobody has dealt with.", "tenant", "kind")
	passDesc       = desc("dealseal_reconcile_age_seconds", "Time since the newest comparison of a CRM with the ledger began, or since the start of the daemon when there was none; absent for a tenant that has none at night.", "tenant")
	mendedDesc     = desc("dealseal_reconcile_mended", "Discrepancies that the newest comparison of a CRM with the ledger has mended, by kind.", "tenant", "kind")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// NewMetrics returns the metrics of a daemon, to be registered by the caller. now is the clock that ages are counted
// with; time.Now when nil.
func NewMetrics(house House, machine Machine, version string, now func() time.Time) *Metrics {
	if now == nil {
		now = time.Now
	}
	m := &Metrics{house: house, machine: machine, now: now, started: now(),
		calls:  newTimed("dealseal_call", "call", "calls of a step to CRMs, the renderer, the key, time-stamp servers and the verifier"),
		steps:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dealseal_step_seconds", Help: "Duration of the steps of deals, by what became of them.", Buckets: durations}, []string{"step", "result"}),
		crm:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dealseal_crm_calls_total", Help: "HTTP calls to CRMs, logins included, by kind and result."}, []string{"tenant", "endpoint", "result"}),
		keys:   newTimed("dealseal_key", "key", "uses of a sealing key: signatures, and attempts to open it that failed"),
		stamps: newTimed("dealseal_tsa", "server", "requests to a time-stamp server"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dealseal_build_info", Help: "Always 1; the labels name the build.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	build.Set(1)
	m.counted = []prometheus.Collector{build, m.steps, m.crm, m.calls.seconds, m.calls.errors, m.keys.seconds, m.keys.errors, m.stamps.seconds, m.stamps.errors}
	return m
}

// Seen counts one call of a step. The names of calls are a fixed, short list.
func (m *Metrics) Seen(call string, took time.Duration, err error) { m.calls.seen(call, took, err) }

// Stepped counts one step of a deal. Names and results are fixed, short lists.
func (m *Metrics) Stepped(step, result string, took time.Duration) {
	m.steps.WithLabelValues(step, result).Observe(took.Seconds())
}

// Asked counts one HTTP call to a tenant's CRM. Endpoints and results are fixed, short lists.
func (m *Metrics) Asked(tenant deal.TenantID, endpoint, result string) {
	m.crm.WithLabelValues(string(tenant), endpoint, result).Inc()
}

// Signed counts one use of a key, by its configured name.
func (m *Metrics) Signed(key string, took time.Duration, err error) { m.keys.seen(key, took, err) }

// Stamped counts one request to a time-stamp server. The name holds no secret.
func (m *Metrics) Stamped(server string, took time.Duration, err error) {
	m.stamps.seen(server, took, err)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sealingsDesc, dealsDesc, depthDesc, oldestDesc, overdueDesc, waitingDesc, patienceDesc, pausedDesc, guardDesc, failingDesc, pollDesc, intervalDesc, budgetDesc, workflowsDesc, errandsDesc, heardDesc, quietDesc, heardLagDesc, heardEvents, untoldDesc, oddDesc, discrepantDesc, passDesc, mendedDesc,
		notAfterDesc, revokedDesc, followsDesc, besideDesc, answeredDesc, usesDesc, spentDesc, stampUpDesc, quotaDesc, volumeDesc, auditDesc, databaseDesc, walDesc, freeDesc, floorDesc, backupDesc, backupDBDesc} {
		ch <- d
	}
	for _, c := range m.counted {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector. What the House cannot answer is reported as an invalid metric.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	for _, c := range m.counted {
		c.Collect(ch)
	}
	tenants, err := m.house.Tenants(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(pollDesc, err)
	} else {
		m.collectDeals(ctx, tenants, ch)
		m.collectGuards(ctx, tenants, ch)
	}
	m.collectLoose(ctx, ch)
	m.collectReconciled(ctx, tenants, ch)
	m.collectKeys(ctx, ch)
	m.collectStampers(ctx, ch)
	m.collectVitals(ctx, tenants, ch)
	m.collectVolume(ctx, ch)
}

func (m *Metrics) collectDeals(ctx context.Context, tenants []Tenant, ch chan<- prometheus.Metric) {
	queues := map[deal.TenantID]*queueFigures{}
	for _, t := range tenants {
		queues[t.ID] = newQueueFigures()
		m.collectPoll(t, ch)
		paused := 0.0
		if t.Paused != nil {
			paused = m.since(t.Paused.Since)
		}
		ch <- gauge(pausedDesc, paused, string(t.ID))
	}
	counts, err := m.house.Counts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(sealingsDesc, err)
		return
	}
	for _, c := range counts {
		ch <- gauge(sealingsDesc, float64(c.N), string(c.Tenant), string(c.Step), string(c.Condition))
		if queues[c.Tenant] == nil {
			queues[c.Tenant] = newQueueFigures() // it is not configured any more, but not finished with
		}
		queues[c.Tenant].add(c, m.since(c.Oldest))
	}
	for tenant, q := range queues {
		q.collect(tenant, ch)
	}
}

func (m *Metrics) collectGuards(ctx context.Context, tenants []Tenant, ch chan<- prometheus.Metric) {
	holds, err := m.house.Guards(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(guardDesc, err)
		return
	}
	held := map[deal.TenantID]int{}
	for _, t := range tenants {
		held[t.ID] = 0
	}
	whole := map[deal.TenantID]bool{}
	for _, h := range holds { // the tenant's own comes before those of its rules, and counts theirs
		if !whole[h.Tenant] {
			held[h.Tenant] += h.Held
		}
		whole[h.Tenant] = whole[h.Tenant] || h.Rule == ""
	}
	for tenant, n := range held {
		ch <- gauge(guardDesc, float64(n), string(tenant))
	}
}

// queueFigures sum up one tenant's states.
type queueFigures struct {
	depth, oldest     float64
	waiting, patience map[deal.Condition]float64
}

func newQueueFigures() *queueFigures {
	return &queueFigures{waiting: map[deal.Condition]float64{deal.Held: 0, deal.Dead: 0}, patience: map[deal.Condition]float64{}}
}

func (q *queueFigures) add(c Count, age float64) {
	switch {
	case queued(c.Step, c.Condition):
		q.depth += float64(c.N)
		q.oldest = max(q.oldest, age)
	case c.Condition == deal.Held || c.Condition == deal.Dead:
		q.waiting[c.Condition] += float64(c.N)
		q.patience[c.Condition] = max(q.patience[c.Condition], age)
	}
}

func (q *queueFigures) collect(tenant deal.TenantID, ch chan<- prometheus.Metric) {
	ch <- gauge(depthDesc, q.depth, string(tenant))
	ch <- gauge(oldestDesc, q.oldest, string(tenant))
	for condition, n := range q.waiting {
		ch <- gauge(waitingDesc, n, string(tenant), string(condition))
		ch <- gauge(patienceDesc, q.patience[condition], string(tenant), string(condition))
	}
}

// collectLoose reports what no deal's state shows.
func (m *Metrics) collectLoose(ctx context.Context, ch chan<- prometheus.Metric) {
	if n, _, err := m.house.Untold(ctx); err != nil {
		ch <- prometheus.NewInvalidMetric(untoldDesc, err)
	} else {
		ch <- gauge(untoldDesc, float64(n))
	}
	if rows, err := m.house.Quarantined(ctx, 1000); err != nil {
		ch <- prometheus.NewInvalidMetric(oddDesc, err)
	} else {
		ch <- gauge(oddDesc, float64(len(rows)))
	}
	if head, err := m.house.TreeHead(ctx); err != nil {
		ch <- prometheus.NewInvalidMetric(auditDesc, err)
	} else {
		ch <- gauge(auditDesc, float64(head.Size))
	}
}

// collectReconciled reports kinds that there are none of as 0, so that the first counts.
func (m *Metrics) collectReconciled(ctx context.Context, tenants []Tenant, ch chan<- prometheus.Metric) {
	counts, err := m.house.DiscrepancyCounts(ctx)
	passes, err2 := m.house.Passes(ctx)
	if err := errors.Join(err, err2); err != nil {
		ch <- prometheus.NewInvalidMetric(discrepantDesc, err)
		return
	}
	type key struct {
		tenant deal.TenantID
		kind   deal.DiscrepancyKind
	}
	open := map[key]float64{}
	for _, t := range tenants {
		for _, kind := range deal.DiscrepancyKinds {
			open[key{t.ID, kind}] = 0
		}
	}
	for _, c := range counts {
		open[key{c.Tenant, c.Kind}] = float64(c.N)
	}
	for k, n := range open {
		ch <- gauge(discrepantDesc, n, string(k.tenant), string(k.kind))
	}
	newest := map[deal.TenantID]deal.Pass{}
	for _, p := range passes {
		newest[p.Tenant] = p
	}
	for _, t := range tenants {
		p := newest[t.ID]
		if t.Nightly {
			began := p.Began
			if began.IsZero() {
				began = m.started
			}
			ch <- gauge(passDesc, m.since(began), string(t.ID))
		}
		for _, kind := range deal.DiscrepancyKinds {
			ch <- gauge(mendedDesc, float64(p.Mended[kind]), string(t.ID), string(kind))
		}
	}
}

func (m *Metrics) collectPoll(t Tenant, ch chan<- prometheus.Metric) {
	last := t.Poll.At
	if last.IsZero() {
		last = m.started
	}
	ch <- gauge(pollDesc, m.since(last), string(t.ID))
	ch <- gauge(intervalDesc, t.Every.Seconds(), string(t.ID))
	if t.Poll.Budget.Max > 0 {
		ch <- gauge(budgetDesc, t.Poll.Budget.Share(), string(t.ID))
	}
	for state, n := range map[string]int64{"waiting": t.Workflows.Waiting, "failing": t.Workflows.Failing, "lost": t.Workflows.Lost} {
		ch <- gauge(workflowsDesc, float64(n), string(t.ID), state)
	}
	for state, n := range map[string]int64{"open": t.Errands.Open, "failing": t.Errands.Failing, "refused": t.Errands.Refused} {
		ch <- gauge(errandsDesc, float64(n), string(t.ID), state)
	}
	if l := t.Listening; l != nil {
		last := l.At
		if last.IsZero() {
			last = l.Since
		}
		ch <- gauge(heardDesc, oneIf(l.Connected), string(t.ID))
		ch <- gauge(quietDesc, m.since(last), string(t.ID))
		ch <- gauge(heardLagDesc, l.Lag.Seconds(), string(t.ID))
		ch <- metric(heardEvents, prometheus.CounterValue, float64(l.N), string(t.ID))
	}
}

func (m *Metrics) collectKeys(ctx context.Context, ch chan<- prometheus.Metric) {
	keys, err := m.house.Keys(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(notAfterDesc, err)
		return
	}
	m.collectRollovers(keys, ch)
	seen := map[string]bool{}
	for _, k := range keys {
		if seen[k.Name] {
			continue // not what it seals with
		}
		seen[k.Name] = true
		if !k.NotAfter.IsZero() {
			if !k.followed() { // else nobody has to order another one
				ch <- gauge(notAfterDesc, float64(k.NotAfter.Unix()), k.Name)
			}
			ch <- metric(usesDesc, prometheus.CounterValue, float64(k.Uses), k.Name)
			ch <- gauge(revokedDesc, oneIf(k.State == deal.CertRevoked && !k.followed()), k.Name)
		}
		if k.State == deal.CertActive && k.Answer != deal.AnswerNobody {
			ch <- gauge(answeredDesc, unixOrZero(k.Answered), k.Name)
		}
		ch <- gauge(spentDesc, k.Spent(), k.Name)
	}
}

// collectRollovers tells of each key which moment comes first.
func (m *Metrics) collectRollovers(keys []Key, ch chan<- prometheus.Metric) {
	follows, beside := map[string]time.Time{}, map[string]time.Time{}
	for _, k := range keys {
		if at, known := follows[k.Name]; k.State == deal.CertNext && !k.ActivateAt.IsZero() && (!known || k.ActivateAt.Before(at)) {
			follows[k.Name] = k.ActivateAt
		}
		if k.State == deal.CertRetiring && k.BesideUntil.After(m.now()) {
			beside[k.Name] = k.BesideUntil
		}
	}
	for name, at := range follows {
		ch <- gauge(followsDesc, float64(at.Unix()), name)
	}
	for name, at := range beside {
		ch <- gauge(besideDesc, float64(at.Unix()), name)
	}
}

func (m *Metrics) collectStampers(ctx context.Context, ch chan<- prometheus.Metric) {
	all, err := m.house.Stampers(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(quotaDesc, err)
		return
	}
	for _, s := range all {
		ch <- gauge(quotaDesc, s.Spent(), s.Server)
		if !s.Asked.IsZero() {
			ch <- gauge(stampUpDesc, oneIf(s.Why == ""), s.Server)
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *Metrics) collectVitals(ctx context.Context, tenants []Tenant, ch chan<- prometheus.Metric) {
	v, err := m.machine.Vitals(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(freeDesc, err)
		return
	}
	ch <- gauge(databaseDesc, float64(v.Database))
	ch <- gauge(walDesc, float64(v.WAL))
	ch <- gauge(freeDesc, float64(v.DiskFree))
	ch <- gauge(floorDesc, float64(v.DiskFloor))
	ch <- gauge(backupDesc, unixOrZero(v.Backup))
	ch <- gauge(backupDBDesc, unixOrZero(v.BackupDatabase))
	for o, n := range totals(tenants, v.Outcomes) {
		ch <- metric(dealsDesc, prometheus.CounterValue, n, o[0], o[1])
	}
	for _, t := range tenants {
		ch <- gauge(failingDesc, float64(v.Failing[t.ID]), string(t.ID))
		if _, waits := v.Due[t.ID]; !waits {
			ch <- gauge(overdueDesc, 0, string(t.ID))
		}
	}
	for tenant, due := range v.Due {
		ch <- gauge(overdueDesc, m.since(due), string(tenant))
	}
}

func unixOrZero(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return float64(at.Unix())
}

// totals are the outcomes by tenant and name. Those that never were are 0 and not missing, so that the first counts.
func totals(tenants []Tenant, outcomes []Outcome) map[[2]string]float64 {
	all := map[[2]string]float64{}
	for _, t := range tenants {
		for _, name := range []string{"noticed", "done", "held", "dead", "ended"} {
			all[[2]string{string(t.ID), name}] = 0
		}
	}
	for _, o := range outcomes {
		all[[2]string{string(o.Tenant), o.Name}] = float64(o.N)
	}
	return all
}

func (m *Metrics) since(t time.Time) float64 { return max(m.now().Sub(t).Seconds(), 0) }

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return metric(d, prometheus.GaugeValue, v, labels...)
}

func metric(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) prometheus.Metric {
	m, err := prometheus.NewConstMetric(d, kind, v, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(d, err)
	}
	return m
}

// queued reports whether the daemon itself will go on with a deal in this state.
func queued(s deal.Step, c deal.Condition) bool { return s != deal.Done && !c.Waiting() }
