package web

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/webhooks"
)

// Sender is one that may post, at a path of its own or at one that it shares with those of other tenants.
type Sender struct {
	Tenant deal.TenantID
	// Source is what it is, for the log.
	Source string
	Path   string
	// Dialects are the ways in which it may sign; the first whose headers are there counts. Without any, Origin has to prove
	// who it is.
	Dialects []*webhooks.Dialect
	// Keys are those that are live now.
	Keys   func() (webhooks.Keys, error)
	Origin Origin
	// MaxBody is the most bytes that it posts.
	MaxBody int64
	// Read says what a body tells. The account is the tenant's, zero while it is not known. An error names no part of the body.
	Read   func(body []byte, account deal.Account) (Pushed, error)
	Answer Answer
	// Block is how long its workflows stand still, as Answer tells them.
	Block time.Duration
	// Repeats: it may send the very same request again when it got no answer, and is answered as before.
	Repeats bool
}

// Pushed is what a push tells.
type Pushed struct {
	Events []deal.PushedEvent
	// Callbacks are workflows that wait for what it leads to.
	Callbacks []deal.Callback
	// Told is what a vendor tells that signs.
	Told []deal.VendorEvent
}

// Answer is how a sender expects to be answered.
type Answer struct {
	Status      int
	ContentType string
	Body        string
	// Failed is the body when the push could not be kept.
	Failed string
}

// Origin says where an unsigned push may come from: any of what is set must hold.
type Origin struct {
	// Addresses are those of the connection. What a proxy says of its own is not believed.
	Addresses []netip.Prefix
	// Roots are those of client certificates, Names whom such a certificate must be for.
	Roots *x509.CertPool
	Names []string
}

// Inbox keeps what was pushed. store.Store is one.
type Inbox interface {
	// Receive is durable when it returns.
	Receive(ctx context.Context, a deal.Arrival) (wake []deal.Ref, replayed bool, err error)
	LogPushes(ctx context.Context, rows []deal.Push) error
}

// Ingress answers those who push. It is safe for concurrent use. Run must run beside it.
type Ingress struct {
	// Senders returns those that are configured now, by path.
	Senders func() map[string][]*Sender
	// URL is the address before the path, as senders were told.
	URL   string
	Inbox Inbox
	// Account is whom a tenant's CRM has shown itself to be, if it has.
	Account func(deal.TenantID) (deal.Account, bool)
	// Wake is told of records to look at, after the push is durable. It must not block.
	Wake func(tenant deal.TenantID, refs ...deal.Ref) bool
	Now  func() time.Time
	Log  *slog.Logger

	once    sync.Once
	places  chan struct{}       // one for each request that is worked on
	room    *semaphore.Weighted // bytes of bodies that are worked on
	pushes  *prometheus.CounterVec
	seconds prometheus.Histogram
	refused refusals
}

const (
	// mostRequests are worked on at the same time; more are asked to come back, so that no flood takes the memory.
	mostRequests = 256
	// mostBytes is the most that their bodies have together: a stranger may send as much as a sender, to be refused only then.
	mostBytes = 64 << 20
	// ingressLimit is how long keeping a push may take: senders wait for a few seconds only.
	ingressLimit = 4 * time.Second
)

func (in *Ingress) init() {
	in.once.Do(func() {
		in.places, in.room = make(chan struct{}, mostRequests), semaphore.NewWeighted(mostBytes)
		in.pushes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dealseal_pushes_total",
			Help: "Requests of senders that want a tenant's CRM to be looked at, by what became of them."}, []string{"tenant", "source", "result"})
		in.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "dealseal_push_seconds", Buckets: durations,
			Help: "Time from the last byte of a push of a sender that is known to its answer, when it is durable and its records wait to be looked at."})
		in.refused.rows = map[refusal]int{}
	})
}

// Describe and Collect make its counters a prometheus.Collector.
func (in *Ingress) Describe(ch chan<- *prometheus.Desc) {
	in.init()
	in.pushes.Describe(ch)
	in.seconds.Describe(ch)
}

// Collect implements prometheus.Collector.
func (in *Ingress) Collect(ch chan<- prometheus.Metric) {
	in.init()
	in.pushes.Collect(ch)
	in.seconds.Collect(ch)
}

// hsts is for every answer over TLS; see RFC 6797.
const hsts = "max-age=63072000; includeSubDomains; preload"

// ServeHTTP implements http.Handler.
func (in *Ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in.init()
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", hsts)
	}
	senders := in.Senders()[r.URL.Path]
	switch {
	case len(senders) == 0:
		w.WriteHeader(http.StatusNotFound)
		return
	case r.Method != http.MethodPost:
		h.Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	select {
	case in.places <- struct{}{}:
		defer func() { <-in.places }()
	default:
		askBack(w)
		return
	}
	size := bodySize(r, senders)
	if !in.room.TryAcquire(size) {
		askBack(w)
		return
	}
	defer in.room.Release(size)
	body, status := readBody(w, r, senders)
	if status != 0 {
		in.refuse(senders[0], webhooks.Malformed, len(senders) > 1)
		w.WriteHeader(status)
		return
	}
	in.take(w, r, senders, body)
}

// askBack has a sender come again soon.
func askBack(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
}

// largest is the most bytes that any of the senders posts.
func largest(senders []*Sender) (most int64) {
	for _, s := range senders {
		most = max(most, s.MaxBody)
	}
	return most
}

// bodySize is how many bytes of a body will be read at most.
func bodySize(r *http.Request, senders []*Sender) int64 {
	if r.ContentLength >= 0 {
		return min(r.ContentLength, largest(senders))
	}
	return largest(senders)
}

// readBody returns the status of a refusal if there is no body that could be taken.
func readBody(w http.ResponseWriter, r *http.Request, senders []*Sender) (body []byte, status int) {
	most := largest(senders)
	if r.Header.Get("Content-Encoding") != "" {
		return nil, http.StatusUnsupportedMediaType // nothing is unpacked before its sender is known
	}
	if r.ContentLength > most {
		w.Header().Set("Connection", "close") // what is on its way is not read
		return nil, http.StatusRequestEntityTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, http.StatusRequestEntityTooLarge
	case err != nil:
		return nil, http.StatusBadRequest
	}
	return body, 0
}

// take finds out who it is from, keeps it, wakes the poller and answers.
func (in *Ingress) take(w http.ResponseWriter, r *http.Request, senders []*Sender, body []byte) {
	ctx, cancel := context.WithTimeout(r.Context(), ingressLimit)
	defer cancel()
	came := time.Now()
	s, verified, err := in.recognise(r, senders, body)
	if err != nil {
		in.turnAway(w, s, err, len(senders) > 1)
		return
	}
	defer func() { in.seconds.Observe(time.Since(came).Seconds()) }()
	account, _ := in.Account(s.Tenant)
	pushed, err := s.Read(body, account)
	if err != nil {
		in.Log.WarnContext(ctx, "a push of a sender that we know could not be understood", "tenant", s.Tenant, "source", s.Source, "err", err)
		if refused := (*webhooks.RefusedError)(nil); !errors.As(err, &refused) {
			err = webhooks.Refuse(webhooks.Malformed, "%v", err)
		}
		in.turnAway(w, s, err, false)
		return
	}
	a := deal.Arrival{Tenant: s.Tenant, Source: s.Source, Until: verified.Until, Events: pushed.Events, Callbacks: pushed.Callbacks, Block: s.Block, Told: pushed.Told}
	if len(s.Dialects) > 0 {
		a.Nonce = verified.Nonce[:]
	}
	for i := range a.Events {
		if e := &a.Events[i]; e.Key == "" && verified.ID != "" {
			e.Key = verified.ID + " " + strconv.Itoa(i)
		}
	}
	wake, replayed, err := in.Inbox.Receive(ctx, a)
	if err != nil {
		in.Log.ErrorContext(ctx, "a push could not be kept: its sender is to send it again", "tenant", s.Tenant, "source", s.Source, "err", err)
		in.fail(w, s, "5")
		return
	}
	if replayed && verified.Timed && !s.Repeats {
		in.pushes.WithLabelValues(string(s.Tenant), s.Source, string(deal.PushReplayed)).Inc()
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	// A second one that proves no time may be of a sender that got no answer to the first.
	in.pushes.WithLabelValues(string(s.Tenant), s.Source, result(len(wake)+len(pushed.Told), replayed)).Inc()
	if len(wake) > 0 {
		in.Wake(s.Tenant, wake...)
	}
	respond(w, s.Answer.Status, s.Answer.ContentType, s.Answer.Body)
}

// fail has the sender come again: the trouble is ours.
func (in *Ingress) fail(w http.ResponseWriter, s *Sender, seconds string) {
	in.pushes.WithLabelValues(string(s.Tenant), s.Source, "failed").Inc()
	w.Header().Set("Retry-After", seconds)
	status := http.StatusServiceUnavailable
	if s.Answer.Failed != "" {
		status = http.StatusInternalServerError
	}
	respond(w, status, s.Answer.ContentType, s.Answer.Failed)
}

func result(told int, replayed bool) string {
	switch {
	case replayed:
		return string(deal.PushReplayed)
	case told == 0:
		return string(deal.PushIgnored)
	}
	return string(deal.PushTaken)
}

func respond(w http.ResponseWriter, status int, contentType, body string) {
	if body != "" {
		w.Header().Set("Content-Type", contentType)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	io.WriteString(w, body) // whoever sent it may be gone
}

// recognise finds the sender whose key has signed the request, among those that share the path: what one of them refuses, or
// cannot judge because its own secret cannot be read, may be another's.
func (in *Ingress) recognise(r *http.Request, senders []*Sender, body []byte) (s *Sender, v webhooks.Verified, err error) {
	for _, candidate := range senders {
		v, refused := in.verify(r, candidate, body)
		if refused == nil {
			return candidate, v, nil
		}
		if err == nil || gravity(refused) > gravity(err) {
			s, err = candidate, refused
		}
	}
	return s, v, err
}

// gravities say which of several refusals tells most about a request.
var gravities = []webhooks.Refusal{webhooks.Stranger, webhooks.Another, webhooks.Unsigned, webhooks.Malformed, webhooks.Stale, webhooks.Forged}

// gravity is the highest for what is our own trouble: then its sender is to come again.
func gravity(err error) int {
	var refused *webhooks.RefusedError
	if !errors.As(err, &refused) {
		return len(gravities)
	}
	return slices.Index(gravities, refused.Refusal)
}

func (in *Ingress) verify(r *http.Request, s *Sender, body []byte) (v webhooks.Verified, err error) {
	if err := s.Origin.admits(r); err != nil {
		return v, err
	}
	if len(s.Dialects) == 0 {
		return v, nil
	}
	keys, err := s.Keys()
	if err != nil {
		return v, err
	}
	if !strings.HasPrefix(r.RequestURI, "/") {
		return v, webhooks.Refuse(webhooks.Malformed, "the request names more than a path")
	}
	request := webhooks.Request{Method: r.Method, URL: in.URL + r.RequestURI, Header: r.Header, Body: body}
	for _, d := range s.Dialects {
		v, err = d.Verify(request, keys, in.Now())
		var refused *webhooks.RefusedError
		if err == nil || !errors.As(err, &refused) || refused.Refusal != webhooks.Unsigned {
			break
		}
	}
	return v, err
}

// admits reports a stranger. An origin that asks for nothing admits everybody.
func (o Origin) admits(r *http.Request) error {
	if o.Addresses != nil {
		at, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !slices.ContainsFunc(o.Addresses, func(p netip.Prefix) bool { return p.Contains(at.Addr().Unmap()) }) {
			return webhooks.Refuse(webhooks.Stranger, "it does not come from a listed address")
		}
	}
	if o.Roots == nil {
		return nil
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return webhooks.Refuse(webhooks.Stranger, "it came without a client certificate")
	}
	own, between := r.TLS.PeerCertificates[0], x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := own.Verify(x509.VerifyOptions{Roots: o.Roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return webhooks.Refuse(webhooks.Stranger, "its client certificate is none that is trusted here")
	}
	for _, name := range o.Names {
		if own.VerifyHostname(name) == nil || own.Subject.CommonName == name {
			return nil
		}
	}
	return webhooks.Refuse(webhooks.Another, "its client certificate is for somebody else")
}

// turnAway answers without saying why.
func (in *Ingress) turnAway(w http.ResponseWriter, s *Sender, err error, shared bool) {
	var refused *webhooks.RefusedError
	if !errors.As(err, &refused) {
		in.Log.Error("a push cannot be judged", "tenant", s.Tenant, "source", s.Source, "err", err)
		in.fail(w, s, "60")
		return
	}
	in.refuse(s, refused.Refusal, shared)
	status := http.StatusUnauthorized
	switch refused.Refusal {
	case webhooks.Malformed, webhooks.Stale:
		status = http.StatusBadRequest
	case webhooks.Another:
		status = http.StatusForbidden
	}
	w.WriteHeader(status)
}

// refusal is what refused pushes are counted by.
type refusal struct {
	tenant deal.TenantID
	source string
	why    webhooks.Refusal
}

// refusals are those that the log does not have yet. Strangers may send as many as they like: they are written together,
// every few seconds.
type refusals struct {
	mu   sync.Mutex
	rows map[refusal]int
}

func (in *Ingress) refuse(s *Sender, why webhooks.Refusal, shared bool) {
	tenant := s.Tenant
	if shared {
		tenant = "" // it is not known whom it was for
	}
	in.pushes.WithLabelValues(string(tenant), s.Source, string(deal.PushRefused)).Inc()
	in.refused.mu.Lock()
	defer in.refused.mu.Unlock()
	in.refused.rows[refusal{tenant, s.Source, why}]++
}

// refusedEvery is how often refused pushes go into the log.
const refusedEvery = 2 * time.Second

// Run writes refused pushes into the log until ctx ends, and those that are left then.
func (in *Ingress) Run(ctx context.Context) error {
	in.init()
	tick := time.NewTicker(refusedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			in.logRefused(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
			in.logRefused(ctx)
		}
	}
}

func (in *Ingress) logRefused(ctx context.Context) {
	in.refused.mu.Lock()
	counts := in.refused.rows
	in.refused.rows = map[refusal]int{}
	in.refused.mu.Unlock()
	var rows []deal.Push
	for r, n := range counts {
		in.Log.WarnContext(ctx, "pushes were refused", "tenant", r.tenant, "source", r.source, "why", string(r.why), "n", n)
		rows = append(rows, deal.Push{Tenant: r.tenant, Source: r.source, Verdict: deal.PushVerdict(fmt.Sprintf("%s: %s", deal.PushRefused, r.why)), N: n})
	}
	if rows == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, ingressLimit)
	defer cancel()
	if err := in.Inbox.LogPushes(ctx, rows); err != nil {
		in.Log.ErrorContext(ctx, "refused pushes could not be logged", "err", err)
	}
}
