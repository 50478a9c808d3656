package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/web"
	"github.com/dealseal/dealseal/webhooks"
)

// endpointsOf reads the webhooks of a tenant's file, without their secrets.
func endpointsOf(file *config.Tenant) (all []webhooks.Endpoint, err error) {
	var errs []error
	for i, w := range file.Webhooks {
		e := webhooks.Endpoint{
			ID: file.Tenant.ID + "/" + w.ID, Tenant: file.Tenant.ID, URL: w.URL, Dialect: w.Dialect, Format: w.Format, Events: w.Events, Title: w.Title, Callbacks: w.Callbacks, Asymmetric: w.Asymmetric,
			Headers: w.Headers, Signed: w.Signed, Encoding: w.Encoding, Waits: w.Retry, Timeout: w.Timeout, Concurrency: w.Concurrency, AlarmAt: w.AlarmAt, DisableThen: w.DisableBroken,
			ClientCert: file.RelativeTo(w.ClientCert), ClientKey: file.RelativeTo(w.ClientKey), Pins: w.Pins,
		}
		e.Defaults()
		if e.URL == "" {
			e.URL = "https://known-later.invalid" // it is read with the secrets
		}
		if err := e.Check(); err != nil {
			errs = append(errs, atFields(file, i, err))
		}
		e.URL = w.URL
		all = append(all, e)
	}
	return all, errors.Join(errs...)
}

// atFields puts what is wrong with an endpoint at its lines.
func atFields(file *config.Tenant, i int, err error) error {
	var errs []error
	for _, one := range flatten(err) {
		var field *webhooks.FieldError
		if errors.As(one, &field) {
			one = file.At(fmt.Sprintf("webhooks.%d.%s", i, field.Field), "%s: %s", field.Field, field.Msg)
		}
		errs = append(errs, one)
	}
	return errors.Join(errs...)
}

// endpointsWithSecrets reads the secrets of all configured webhooks, as they are now.
func (h *house) endpointsWithSecrets() (all []webhooks.Endpoint, err error) {
	var errs []error
	for _, t := range h.tenants {
		for i, e := range t.endpoints {
			w := t.file.Webhooks[i]
			read := func(field string, from secret.Ref) secret.Secret {
				s, err := from.Resolve()
				if err != nil {
					errs = append(errs, t.file.At(fmt.Sprintf("webhooks.%d.%s", i, field), "%s: %v", field, err))
				}
				return s
			}
			if !w.URLFrom.IsZero() {
				e.URL = string(read("url_from", w.URLFrom).Reveal())
			}
			e.Secrets = []webhooks.Secret{{Value: read("secret", w.Secret)}}
			if len(errs) == 0 {
				if err := e.Check(); err != nil {
					errs = append(errs, atFields(t.file, i, err))
				}
			}
			all = append(all, e)
		}
	}
	return all, errors.Join(errs...)
}

func (h *house) checkWebhooks() error {
	_, err := h.endpointsWithSecrets()
	if err != nil {
		return err
	}
	_, err = h.newDeliverer(nil, slog.New(slog.DiscardHandler))
	return err
}

// newDeliverer makes what calls the receivers of webhooks. Without a store it can only try.
func (h *house) newDeliverer(s *store.Store, log *slog.Logger) (*webhooks.Deliverer, error) {
	return newDeliverer(h.cfg, s, log)
}

func newDeliverer(cfg *config.Config, s *store.Store, log *slog.Logger) (*webhooks.Deliverer, error) {
	networks, err := cfg.Outbound.Networks()
	if err != nil {
		return nil, cfg.At("outbound.allow", "outbound.allow: %v", err)
	}
	d := &webhooks.Deliverer{Guard: webhooks.NewGuard(networks), Log: log, Version: version}
	if s != nil {
		d.Ledger, d.Bell = s, s.Bell()
	}
	if cfg.Outbound.CA == "" {
		return d, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a bare machine has none
	}
	extra, err := readCertificates(relativeTo(cfg.File, cfg.Outbound.CA))
	if err != nil {
		return nil, cfg.At("outbound.ca", "outbound.ca: %v", err)
	}
	for _, c := range extra {
		roots.AddCert(c)
	}
	d.Trust = &tls.Config{RootCAs: roots}
	return d, nil
}

// forgetDeliveries forgets what became of deliveries long ago.
func (d *service) forgetDeliveries(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		n, err := d.store.PruneDeliveries(ctx)
		if err != nil && ctx.Err() == nil {
			d.log.Error("old deliveries of webhooks could not be forgotten", "err", err)
		}
		if n > 0 && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// hookWatch tells Prometheus how webhooks are doing, of each configured tenant.
type hookWatch struct {
	store *store.Store
	house func() *house
}

var (
	deliveriesDesc = prometheus.NewDesc("dealseal_webhook_deliveries", "Deliveries of events that are pending, or failed for good; up to 100,000 are counted of an endpoint.", []string{"tenant", "state"}, nil)
	documentsDesc  = prometheus.NewDesc("dealseal_webhook_documents_failing", "Documents with an event that has failed at least three times and is tried again.", []string{"tenant"}, nil)
	brokenDesc     = prometheus.NewDesc("dealseal_webhook_endpoints_broken", "Endpoints that are disabled, or whose last three attempts have failed.", []string{"tenant"}, nil)
)

// Describe implements prometheus.Collector.
func (w hookWatch) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{deliveriesDesc, documentsDesc, brokenDesc} {
		ch <- d
	}
}

// hookMeter counts attempts, and how long events take to arrive.
type hookMeter struct {
	attempts *prometheus.CounterVec
	delay    *prometheus.HistogramVec
}

func newHookMeter() hookMeter {
	return hookMeter{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dealseal_webhook_attempts_total", Help: "Attempts to deliver an event, by what became of the delivery: delivered, again, failed or held."}, []string{"tenant", "result"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dealseal_webhook_delay_seconds", Help: "Time from the moment that an event became true to the answer of a receiver that took it.",
			Buckets: []float64{.01, .025, .05, .1, .2, .5, 1, 2, 5, 10, 60, 600, 3600}}, []string{"tenant"}),
	}
}

var fateWords = map[webhooks.Fate]string{webhooks.Delivered: "delivered", webhooks.Again: "again", webhooks.Failed: "failed", webhooks.Held: "held"}

func (m hookMeter) attempted(e webhooks.Endpoint, o webhooks.Outcome, since time.Duration) {
	m.attempts.WithLabelValues(e.Tenant, fateWords[o.Fate]).Inc()
	if o.Fate == webhooks.Delivered {
		m.delay.WithLabelValues(e.Tenant).Observe(since.Seconds())
	}
}

// hookFigures are those of a tenant.
type hookFigures struct{ pending, failed, documents, broken int64 }

// Collect implements prometheus.Collector.
func (w hookWatch) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := w.store.EndpointStates(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(deliveriesDesc, err)
		return
	}
	tenants := map[deal.TenantID]*hookFigures{}
	for _, t := range w.house().tenants {
		tenants[deal.TenantID(t.file.Tenant.ID)] = &hookFigures{}
	}
	for _, e := range all {
		f := tenants[e.Tenant]
		if f == nil {
			f = &hookFigures{}
			tenants[e.Tenant] = f
		}
		f.pending, f.failed, f.documents = f.pending+e.Pending, f.failed+e.Failed, f.documents+e.Documents
		if brokenEndpoint(e) {
			f.broken++
		}
	}
	for id, f := range tenants {
		gauge := func(d *prometheus.Desc, value int64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
		}
		gauge(deliveriesDesc, f.pending, string(id), "pending")
		gauge(deliveriesDesc, f.failed, string(id), "failed")
		gauge(documentsDesc, f.documents, string(id))
		gauge(brokenDesc, f.broken, string(id))
	}
}

// brokenEndpoint reports whether a person should look.
func brokenEndpoint(e store.EndpointState) bool {
	return e.State != store.EndpointActive || e.Failures >= store.FailingAfter
}

const checkWebhook = "webhook"

// examineWebhooks looks at what became of the newest attempts; it sends nothing.
func (x *examiner) examineWebhooks(t tenant) doctor.Examination {
	id := t.file.Tenant.ID
	return examination(doctor.TenantGroup(id), checkWebhook, id, tenantLimit, func(ctx context.Context, report func(doctor.Finding)) {
		all, err := x.endpoints(ctx)
		if err != nil {
			report(failed(checkWebhook, err, "look at the database"))
			return
		}
		for _, e := range all {
			if string(e.Tenant) == id {
				report(endpointFinding(e))
			}
		}
	})
}

func endpointFinding(e store.EndpointState) (f doctor.Finding) {
	switch {
	case e.State != store.EndpointActive:
		f = doctor.Failed(checkWebhook, "once that is mended: dealseal webhooks enable "+e.ID+" --why \"…\"", "disabled, and its %d events wait: %s", e.Pending, e.Reason)
	case brokenEndpoint(e):
		f = doctor.Failed(checkWebhook, "dealseal webhooks deliveries "+e.ID+" says what it answers", "the last %d attempts have failed; %d events wait", e.Failures, e.Pending)
	case e.Failed > 0:
		f = doctor.Warned(checkWebhook, "dealseal webhooks redeliver "+e.ID+" --failed --why \"…\"", "%d deliveries were given up", e.Failed)
	default:
		f = doctor.Passed(checkWebhook, "it takes events, or there were none; %d wait", e.Pending)
	}
	f.Subject = e.ID
	return f
}

// pageHooks answers the page's questions about webhooks.
type pageHooks struct{ store *store.Store }

func (p pageHooks) Endpoints(ctx context.Context) (out []web.Endpoint, err error) {
	all, err := p.store.EndpointStates(ctx)
	for _, e := range all {
		out = append(out, web.Endpoint{ID: e.ID, Host: e.Host, Dialect: e.Dialect, Events: e.Events, Disabled: e.State != store.EndpointActive, Reason: e.Reason,
			Failures: e.Failures, Pending: e.Pending, Failed: e.Failed, Oldest: e.Oldest, Succeeded: e.Succeeded})
	}
	return out, err
}

func (p pageHooks) Deliveries(ctx context.Context, endpoint, state string, limit int) (out []web.Delivery, err error) {
	all, err := p.store.Deliveries(ctx, endpoint, state, limit)
	for _, d := range all {
		out = append(out, web.Delivery{ID: d.ID, Endpoint: d.Endpoint, Type: d.Type, Tx: d.Tx, At: d.At, Due: d.Due, Ended: d.Ended, State: d.State, Attempts: d.Attempts, Problem: d.Problem})
	}
	return out, err
}

func (p pageHooks) Attempts(ctx context.Context, delivery int64) (out []web.Attempt, err error) {
	all, err := p.store.Attempts(ctx, delivery)
	var missing *store.NoDeliveryError
	if errors.As(err, &missing) {
		return nil, web.ErrNotFound
	}
	for _, a := range all {
		out = append(out, web.Attempt{N: a.N, At: a.At, Took: a.Took, Status: a.Status, Problem: a.Problem})
	}
	return out, err
}
