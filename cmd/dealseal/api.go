package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/web"
	"github.com/dealseal/dealseal/web/api"
	"github.com/dealseal/dealseal/webhooks"
)

// apiListener is where programs ask; nil when it is not configured.
type apiListener struct {
	net.Listener
	certificate *certificate // nil on a loopback interface
}

func (h *house) listenAPI(log *slog.Logger) (*apiListener, error) {
	at := h.cfg.API.Listen
	if at == "" {
		return nil, nil
	}
	a := &apiListener{}
	if t := h.cfg.API.TLS; t != nil {
		a.certificate = newCertificate(h.cfg, *t)
		if _, err := a.certificate.get(nil); err != nil {
			return nil, h.cfg.At("api.tls", "api.tls: %v", err)
		}
		a.certificate.log = func(err error) {
			log.Error("the certificate of the API has changed and cannot be read: the old one stays in use", "err", err)
		}
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, h.cfg.At("api.listen", "api.listen: %v", err)
	}
	a.Listener = l
	return a, nil
}

// readProxies reads the certificates of those that are believed when they name a caller's.
func readProxies(cfg *config.Config) (*api.Proxies, error) {
	p := cfg.API.Proxies
	if p == nil {
		return nil, nil
	}
	networks, _ := p.Networks() // which config has checked
	out := &api.Proxies{Addresses: networks, Header: p.Header, Roots: x509.NewCertPool()}
	roots, err := readCertificates(relativeTo(cfg.File, p.ClientCA))
	if err != nil {
		return nil, cfg.At("api.proxies.client_ca", "api.proxies.client_ca: %v", err)
	}
	for _, c := range roots {
		out.Roots.AddCert(c)
	}
	for i, name := range p.Certificates {
		at := fmt.Sprintf("api.proxies.certificates.%d", i)
		own, err := readCertificates(relativeTo(cfg.File, name))
		if err != nil {
			return nil, cfg.At(at, "api.proxies.certificates: %v", err)
		}
		if own[0].IsCA {
			return nil, cfg.At(at, "api.proxies.certificates: the first certificate in %s is that of a CA: name the one that the proxy shows", name)
		}
		out.Certificates = append(out.Certificates, api.Fingerprint(own[0].Raw))
	}
	return out, nil
}

// newAPI puts the API before the same house that the page shows.
func (d *service) newAPI(page *pageHouse) *api.API {
	c := d.house.cfg.API
	return api.New(api.Options{House: &apiHouse{pageHouse: page, ops: d.operations(), bundles: d.bundles(), engine: d.engine}, Tokens: d.store,
		PerToken: c.PerToken, PerAddress: c.PerAddress, Proxies: d.house.proxies, Version: version, Now: time.Now, Log: d.log})
}

// serveAPI answers programs until ctx ends.
func (d *service) serveAPI(ctx context.Context) error {
	if d.asks == nil {
		return nil
	}
	l := netutil.LimitListener(d.asks.Listener, mostConnections)
	if d.asks.certificate != nil {
		c := listenerTLS(d.asks.certificate, *d.house.cfg.API.TLS)
		c.ClientAuth = tls.RequestClientCert // which ones are good is known by their fingerprints
		l = tls.NewListener(l, c)
	}
	s := &http.Server{Handler: d.api, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)} // strangers cause most of what it would say
	var auditor sync.WaitGroup
	auditing, stop := context.WithCancel(ctx)
	auditor.Go(func() { d.api.Audit(auditing) })
	err := serveUntil(ctx, s, l)
	stop()
	auditor.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverGrace)
	defer cancel()
	d.api.AuditCalls(last)
	return err
}

func isLive(t config.Tenant) bool { return t.Tenant.Environment == "production" }

// certificateToken lets a client certificate in until it ends, or before.
func certificateToken(t deal.Token, der []byte) (deal.Token, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return t, fmt.Errorf("the certificate: %w", err)
	}
	if c.IsCA {
		return t, errors.New("the certificate is that of a CA: name the one that the caller shows")
	}
	if c.NotAfter.Before(t.Until) {
		t.Until = c.NotAfter.UTC()
	}
	t.Kind, t.Fingerprint = deal.ClientCertificate, api.Fingerprint(c.Raw)
	return t, nil
}

// apiHouse answers what the API asks.
type apiHouse struct {
	*pageHouse
	ops     *local
	bundles *bundleMaker
	engine  *engine.Engine
}

func (h *apiHouse) Tenants() (all []api.Tenant) {
	for _, t := range h.house().tenants {
		all = append(all, api.Tenant{ID: deal.TenantID(t.file.Tenant.ID), Name: t.file.Tenant.Name, Live: isLive(*t.file)})
	}
	return all
}

func (h *apiHouse) TenantOf(ctx context.Context, tx deal.TxID) (deal.TenantID, error) {
	tenant, err := h.Store.TenantOf(ctx, tx)
	return tenant, said(err)
}

func (h *apiHouse) Evidence(ctx context.Context, tx deal.TxID, who string) (func(context.Context, io.Writer) error, error) {
	b, err := h.bundles.prepare(ctx, tx, who)
	if err = said(err); err != nil && !errors.Is(err, web.ErrNotFound) && !errors.Is(err, web.ErrErased) && !errors.Is(err, web.ErrDamaged) {
		return nil, fmt.Errorf("%w: %w", api.ErrBusy, err) // what is left is the key: an HSM that is away comes back
	}
	if err != nil {
		return nil, err
	}
	h.log.Info("an evidence bundle was fetched", "tx", tx, "who", who)
	return b.write, nil
}

func (h *apiHouse) Decide(ctx context.Context, tx deal.TxID, verb, who, why string) error {
	return said(h.ops.Decide(ctx, decision{Verb: verb, Tx: tx, Who: who, Why: why}))
}

func (h *apiHouse) Turn(ctx context.Context, verb string, tenant deal.TenantID, who, why string) error {
	return said(h.ops.TurnTenant(ctx, turn{Verb: verb, Tenant: tenant, Who: who, Why: why}))
}

func (h *apiHouse) Request(ctx context.Context, q api.SignatureRequest) (deal.TxID, error) {
	tx, err := h.requested(ctx, q)
	if err != nil || tx != "" {
		return tx, err
	}
	tenant, rule, err := h.ruleOf(q)
	if err != nil {
		return "", err
	}
	tx, err = h.engine.Request(ctx, tenant, rule.Watch.Rule, q.Record, q.Request)
	var refused *deal.RequestError
	switch {
	case errors.As(err, &refused) && refused.Conflict:
		return "", &api.Refusal{Status: http.StatusConflict, Reason: refused.Reason}
	case errors.As(err, &refused):
		return "", &api.Refusal{Status: http.StatusUnprocessableEntity, Reason: refused.Reason}
	case err != nil: // what is left is the CRM, or room on the disk: it comes back
		return "", fmt.Errorf("%w: %w", api.ErrBusy, err)
	}
	return tx, nil
}

// requested finds a request that was taken in before, whatever rules there are by now: its key names it for ever. One of
// several tenants may have had the key for something else.
func (h *apiHouse) requested(ctx context.Context, q api.SignatureRequest) (deal.TxID, error) {
	for _, id := range q.Tenants {
		if q.Tenant != "" && q.Tenant != id {
			continue
		}
		tx, err := h.Store.Requested(ctx, id, q.Request)
		var other *deal.RequestError
		switch {
		case tx != "":
			return tx, nil
		case err != nil && !errors.As(err, &other):
			return "", fmt.Errorf("%w: %w", api.ErrBusy, err)
		}
	}
	return "", nil
}

// ruleOf finds the one rule that a request means.
func (h *apiHouse) ruleOf(q api.SignatureRequest) (tenant deal.TenantID, rule engine.Rule, err error) {
	var found []string
	for _, t := range h.house().tenants {
		id := deal.TenantID(t.file.Tenant.ID)
		if !slices.Contains(q.Tenants, id) || q.Tenant != "" && q.Tenant != id {
			continue
		}
		for _, r := range t.rules {
			name, _, _ := strings.Cut(r.Plan.Template, "@")
			if (q.Rule == "" || q.Rule == r.Watch.Rule) && (q.Template == "" || q.Template == r.Plan.Template || q.Template == name) {
				tenant, rule = id, r
				found = append(found, string(id)+"/"+r.Watch.Rule)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", rule, &api.Refusal{Status: http.StatusUnprocessableEntity, Reason: "no rule that this token sees is meant by tenant, rule and template_id"}
	case 1:
		return tenant, rule, checkOptions(rule, q)
	}
	return "", rule, &api.Refusal{Status: http.StatusUnprocessableEntity, Reason: "more than one rule is meant: name one of " + strings.Join(found, ", ") + " with tenant and rule"}
}

// checkOptions refuses a seal that the rule's profile does not make: what a seal is, is decided where rules are.
func checkOptions(rule engine.Rule, q api.SignatureRequest) error {
	var p signing.Profile
	if err := json.Unmarshal(rule.Plan.Profile, &p); err != nil {
		return fmt.Errorf("rule %q: its profile: %w", rule.Watch.Rule, err)
	}
	if q.Timestamp != nil && *q.Timestamp != p.Level.AtLeast(pades.BT) {
		return &api.Refusal{Status: http.StatusUnprocessableEntity, Reason: fmt.Sprintf("options.timestamp: rule %q seals at %s", rule.Watch.Rule, p.Level)}
	}
	return nil
}

func (h *apiHouse) KeyTenants() map[string][]deal.TenantID {
	keys, _ := h.house().audience()
	return keys
}

func (h *apiHouse) Templates() (all []api.TemplateOf) {
	for _, t := range h.house().tenants {
		for _, r := range t.rules {
			if r.Plan.Template != "" {
				all = append(all, api.TemplateOf{Name: r.Plan.Template, SHA256: r.Plan.Bundle, Tenant: deal.TenantID(t.file.Tenant.ID), Rule: r.Plan.Rule, Stage: r.Plan.Stage})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b api.TemplateOf) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (h *apiHouse) Endpoints(ctx context.Context) (out []api.Endpoint, err error) {
	all, err := h.EndpointStates(ctx)
	for _, e := range all {
		out = append(out, apiEndpoint(e))
	}
	return out, said(err)
}

func (h *apiHouse) Endpoint(ctx context.Context, id string) (api.Endpoint, error) {
	e, err := h.EndpointState(ctx, id)
	return apiEndpoint(e), said(err)
}

func (h *apiHouse) EndpointKeys(ctx context.Context, id string) ([]webhooks.PublicKey, error) {
	e, err := h.Store.Endpoint(ctx, id)
	if err != nil {
		return nil, said(err)
	}
	return e.PublicKeys(time.Now())
}

func apiEndpoint(e store.EndpointState) api.Endpoint {
	return api.Endpoint{ID: e.ID, Tenant: e.Tenant, Host: e.Host, Dialect: e.Dialect, Format: e.Format, Events: append([]string{}, e.Events...), Callbacks: e.Callbacks, Configured: e.Configured, State: e.State, Reason: e.Reason,
		Since: e.Since, Failures: e.Failures, Pending: e.Pending, Failed: e.Failed, Succeeded: e.Succeeded, Tried: e.Tried}
}

func (h *apiHouse) EndpointAt(ctx context.Context, tenants []deal.TenantID, url string) (string, error) {
	all, err := h.EndpointStates(ctx)
	if err != nil {
		return "", said(err)
	}
	for _, e := range all {
		if !slices.Contains(tenants, e.Tenant) {
			continue
		}
		one, err := h.Store.Endpoint(ctx, e.ID)
		if err != nil {
			return "", said(err)
		}
		if one.URL == url {
			return e.ID, nil
		}
	}
	return "", &api.Refusal{Status: http.StatusUnprocessableEntity, Reason: "no webhook that this token sees has that url: only what is an endpoint already is sent anything to"}
}

func (h *apiHouse) Deliveries(ctx context.Context, endpoint, state string, before int64, limit int) (out []api.Delivery, err error) {
	all, err := h.DeliveriesBefore(ctx, endpoint, state, before, limit)
	for _, d := range all {
		out = append(out, api.Delivery{ID: d.ID, Event: d.Event, Type: d.Type, Tx: d.Tx, At: d.At, State: d.State, Due: d.Due, Ended: d.Ended, Attempts: d.Attempts, Status: d.Status, Problem: d.Problem})
	}
	return out, said(err)
}

func (h *apiHouse) Attempts(ctx context.Context, endpoint string, delivery int64) (out []api.Attempt, err error) {
	id, err := h.EndpointOf(ctx, delivery)
	if err == nil && id != endpoint {
		err = &store.NoDeliveryError{ID: delivery}
	}
	if err != nil {
		return nil, said(err)
	}
	all, err := h.Store.Attempts(ctx, delivery)
	for _, a := range all {
		out = append(out, api.Attempt{N: a.N, At: a.At, TookMS: a.Took.Milliseconds(), Status: a.Status, Problem: a.Problem})
	}
	return out, said(err)
}

func (h *apiHouse) ChangeEndpoint(ctx context.Context, c api.EndpointChange) (api.EndpointOutcome, error) {
	change := hookChange{Verb: c.Verb, ID: c.ID, Secret: []byte(c.Secret), Event: c.Event, Why: c.Why, Who: c.Who}
	switch c.Verb {
	case "add":
		change.Endpoint = &webhooks.Endpoint{ID: c.ID, Tenant: string(c.Tenant), URL: c.URL, Dialect: c.Dialect, Format: c.Format, Events: c.Events, Asymmetric: c.Asymmetric, Title: c.Title, Callbacks: c.Callbacks}
	case "redeliver":
		change.Again = store.Redelivery{Endpoint: c.ID, Delivery: c.Delivery, Failed: c.Failed, Since: c.Since}
	}
	a, err := h.ops.ChangeWebhook(ctx, change)
	return api.EndpointOutcome{Secret: a.Secret, Deliveries: a.Deliveries, Status: a.Status, Problem: a.Problem, Took: a.Took}, said(err)
}

// said turns an error into what the API understands; what it cannot place is for the log alone.
func said(err error) error {
	if err = missing(err); err == nil {
		return nil
	}
	var refused *store.RefusedError
	var pause *store.PauseError
	var endpoint *store.EndpointError
	var delivery *store.NoDeliveryError
	var field *webhooks.FieldError
	var busy *store.BusyError
	var full *store.DiskFullError
	switch {
	case errors.As(err, &refused):
		return &api.Refusal{Status: http.StatusConflict, Reason: refused.Reason}
	case errors.As(err, &pause):
		return &api.Refusal{Status: http.StatusConflict, Reason: pause.Reason}
	case errors.Is(err, deal.ErrStale):
		return &api.Refusal{Status: http.StatusConflict, Reason: "a step of this deal is under way, or somebody has just decided about it: look at it again"}
	case errors.As(err, &endpoint) && endpoint.Missing, errors.As(err, &delivery):
		return web.ErrNotFound
	case errors.As(err, &endpoint):
		return &api.Refusal{Status: http.StatusConflict, Reason: endpoint.Error()}
	case errors.As(err, &field):
		return &api.Refusal{Status: http.StatusUnprocessableEntity, Reason: joinedFields(err)}
	case errors.As(err, &busy), errors.As(err, &full), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", api.ErrBusy, err)
	}
	return err
}

// joinedFields is all that is wrong with an endpoint; no message holds its URL or a secret.
func joinedFields(err error) string {
	var all []string
	for _, one := range flatten(err) {
		var field *webhooks.FieldError
		if errors.As(one, &field) {
			all = append(all, field.Error())
		}
	}
	return strings.Join(all, "; ")
}
