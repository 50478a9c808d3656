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

// Metrics is what the daemon tells Prometheus. States are read from the House at each scrape, so they are right after a
// restart; only calls are counted in memory. It is a prometheus.Collector and safe for concurrent use.
type Metrics struct {
	house   House
	now     func() time.Time
	started time.Time

	calls  *prometheus.HistogramVec
	errors *prometheus.CounterVec
	build  prometheus.Gauge
}

// The families that are computed at scrape.
var (
	sealingsDesc = prometheus.NewDesc("dealseal_sealings", "Deals by step and condition.", []string{"tenant", "step", "condition"}, nil)
	oldestDesc   = prometheus.NewDesc("dealseal_queue_oldest_seconds", "Time since the deal that has waited longest in the queue last moved; 0 when the queue is empty. Deals that wait for a person do not count.", []string{"tenant"}, nil)
	pollDesc     = prometheus.NewDesc("dealseal_poll_age_seconds", "Time since the last poll that succeeded, or since the start of the daemon when none has.", []string{"tenant"}, nil)
	budgetDesc   = prometheus.NewDesc("dealseal_crm_budget_used_ratio", "Used share of the CRM's API allowance, 0 to 1; absent until the CRM has said it.", []string{"tenant"}, nil)
	untoldDesc   = prometheus.NewDesc("dealseal_records_untold", "Records in a CRM that have been showing something older than what is true for more than a minute.", nil, nil)
	oddDesc      = prometheus.NewDesc("dealseal_quarantined_rows", "Rows of CRMs that could not be understood; behind each a deal may be waiting. Counted up to 1000.", nil, nil)
	notAfterDesc = prometheus.NewDesc("dealseal_certificate_not_after_seconds", "Unix time at which the certificate of a sealing key ends.", []string{"key"}, nil)
)

// NewMetrics returns the metrics of a daemon, to be registered by the caller. now is the clock that ages are counted
// with; time.Now when nil.
func NewMetrics(house House, version string, now func() time.Time) *Metrics {
	if now == nil {
		now = time.Now
	}
	m := &Metrics{house: house, now: now, started: now(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dealseal_call_seconds", Help: "Duration of calls to CRMs, the renderer, the key, time-stamp servers and the verifier.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}, []string{"call"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dealseal_call_errors_total", Help: "Calls that failed."}, []string{"call"}),
		build: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dealseal_build_info", Help: "Always 1; the labels name the build.",
			ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}}),
	}
	m.build.Set(1)
	return m
}

// Seen counts one call. The names of calls are a fixed, short list. A call that was given up because the daemon stops is
// no error.
func (m *Metrics) Seen(call string, took time.Duration, err error) {
	m.calls.WithLabelValues(call).Observe(took.Seconds())
	failed := m.errors.WithLabelValues(call) // exists from the first call on, so that its rate is right
	if err != nil && !errors.Is(err, context.Canceled) {
		failed.Inc()
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sealingsDesc, oldestDesc, pollDesc, budgetDesc, untoldDesc, oddDesc, notAfterDesc} {
		ch <- d
	}
	m.calls.Describe(ch)
	m.errors.Describe(ch)
	m.build.Describe(ch)
}

// Collect implements prometheus.Collector. What the House cannot answer is reported as an invalid metric.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	m.calls.Collect(ch)
	m.errors.Collect(ch)
	m.build.Collect(ch)
	m.collectDeals(ctx, ch)
	m.collectLoose(ctx, ch)
	m.collectKeys(ctx, ch)
}

func (m *Metrics) collectDeals(ctx context.Context, ch chan<- prometheus.Metric) {
	tenants, err := m.house.Tenants(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(pollDesc, err)
		return
	}
	oldest := map[deal.TenantID]float64{}
	for _, t := range tenants {
		oldest[t.ID] = 0
		m.collectPoll(t, ch)
	}
	counts, err := m.house.Counts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(sealingsDesc, err)
		return
	}
	for _, c := range counts {
		ch <- gauge(sealingsDesc, float64(c.N), string(c.Tenant), string(c.Step), string(c.Condition))
		if queued(c.Step, c.Condition) {
			oldest[c.Tenant] = max(oldest[c.Tenant], m.since(c.Oldest))
		}
	}
	for tenant, age := range oldest {
		ch <- gauge(oldestDesc, age, string(tenant))
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
}

func (m *Metrics) collectPoll(t Tenant, ch chan<- prometheus.Metric) {
	last := t.Poll.At
	if last.IsZero() {
		last = m.started
	}
	ch <- gauge(pollDesc, m.since(last), string(t.ID))
	if t.Poll.Budget.Max > 0 {
		ch <- gauge(budgetDesc, t.Poll.Budget.Share(), string(t.ID))
	}
}

func (m *Metrics) collectKeys(ctx context.Context, ch chan<- prometheus.Metric) {
	keys, err := m.house.Keys(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(notAfterDesc, err)
		return
	}
	for _, k := range keys {
		ch <- gauge(notAfterDesc, float64(k.NotAfter.Unix()), k.Name)
	}
}

func (m *Metrics) since(t time.Time) float64 { return max(m.now().Sub(t).Seconds(), 0) }

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	metric, err := prometheus.NewConstMetric(d, prometheus.GaugeValue, v, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(d, err)
	}
	return metric
}

// queued reports whether the daemon itself will go on with a deal in this state.
func queued(s deal.Step, c deal.Condition) bool { return s != deal.Done && !c.Waiting() }
