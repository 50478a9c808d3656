package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Ledger keeps what is to be delivered. It is the authority: what it holds as due is delivered at least once, whatever
// crashes, and nothing that it does not hold.
type Ledger interface {
	// Endpoints returns those that are delivered to, with their secrets.
	Endpoints(ctx context.Context) ([]Endpoint, error)
	// Take commits that attempts of at most n due deliveries of an endpoint are about to be made, and returns these. They are
	// not due again before the lease is over, or another process has opened the ledger. next is when another one is due;
	// the zero time: none is waiting.
	Take(ctx context.Context, endpoint string, n int, lease time.Duration) (due []Delivery, next time.Time, err error)
	// Settle commits what came of an attempt.
	Settle(ctx context.Context, o Outcome) error
}

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID    int64
	Event Event
	// Attempt counts all attempts, from 1; Failures those that failed since the delivery was last begun.
	Attempt, Failures int
	// URL is where it goes, of an endpoint for callbacks; empty: that is not known any more.
	URL string
}

// Fate is what becomes of a delivery.
type Fate int

const (
	// Delivered: the receiver has taken it.
	Delivered Fate = iota
	// Again: it is tried again later.
	Again
	// Failed: all attempts are used up; it waits for a person.
	Failed
	// Held: the endpoint is disabled with this attempt, and the delivery waits until it is enabled.
	Held
)

// Outcome is what came of an attempt.
type Outcome struct {
	Delivery int64
	Attempt  int
	Endpoint string
	Fate     Fate
	// Status is 0 if there was no answer; Problem then says why.
	Status  int
	Problem string
	Took    time.Duration
	// Answer is the beginning of the answer's body.
	Answer []byte
	// Next is when it is tried again (Again).
	Next time.Time
	// InARow is how many failed attempts in a row have the endpoint count as broken, and Disable whether it is disabled then.
	InARow  int
	Disable bool
}

const (
	// maxBody is the largest event that is sent, and the most of an answer that is read.
	maxBody = 64 << 10
	// keptAnswer is how much of an answer is kept.
	keptAnswer = 1 << 10
	// restAfter is after how many failed attempts in a row an endpoint is left in peace for a while, and then asked with one
	// event at a time.
	restAfter = 5
	maxRest   = time.Minute
	// longest is the most that a receiver may ask for with Retry-After.
	longest = day
)

// Bell is rung by whoever has put something into the ledger. The zero value is not ready: use NewBell.
type Bell struct {
	mu      sync.Mutex
	ringing map[string]bool
	c       chan struct{}
}

// NewBell returns one that is silent.
func NewBell() *Bell { return &Bell{ringing: map[string]bool{}, c: make(chan struct{}, 1)} }

// AllEndpoints rings for those themselves: they are to be read anew.
const AllEndpoints = ""

// Ring says that an endpoint has something due. It never waits.
func (b *Bell) Ring(endpoints ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range endpoints {
		b.ringing[e] = true
	}
	select {
	case b.c <- struct{}{}:
	default:
	}
}

func (b *Bell) heard() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.ringing
	b.ringing = map[string]bool{}
	return all
}

// Deliverer delivers. Each endpoint has a goroutine, connections and limits of its own, so that none waits for another.
type Deliverer struct {
	Ledger Ledger
	Bell   *Bell
	Guard  Guard
	Log    *slog.Logger
	// Trust are roots beside the system's; nil for none.
	Trust *tls.Config
	// Version is told to receivers.
	Version string
	// Attempted is told of each attempt, and of the time since its event became true; nil tells nobody.
	Attempted func(e Endpoint, o Outcome, since time.Duration)
}

// Run delivers until ctx ends, and then lets attempts under way end.
func (d *Deliverer) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	running := map[string]*runner{}
	anew := true
	for {
		if anew {
			anew = !d.arrange(ctx, running, &all)
		}
		var again <-chan time.Time
		if anew {
			again = time.After(5 * time.Second)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
		case <-d.Bell.c:
			for endpoint := range d.Bell.heard() {
				if endpoint == AllEndpoints {
					anew = true
				} else if r := running[endpoint]; r != nil {
					r.wake()
				}
			}
		}
	}
}

// arrange starts and ends runners so that there is one per endpoint, as it is configured now.
func (d *Deliverer) arrange(ctx context.Context, running map[string]*runner, all *sync.WaitGroup) (done bool) {
	endpoints, err := d.Ledger.Endpoints(ctx)
	if err != nil {
		if ctx.Err() == nil {
			d.Log.Error("the endpoints of webhooks cannot be read", "err", err)
		}
		return false
	}
	wanted := map[string]bool{}
	for _, e := range endpoints {
		wanted[e.ID] = true
		if r := running[e.ID]; r != nil {
			if Same(r.endpoint, e) {
				r.wake()
				continue
			}
			r.end()
		}
		r := d.newRunner(ctx, e)
		running[e.ID] = r
		all.Go(r.run)
	}
	for id, r := range running {
		if !wanted[id] {
			r.end()
			delete(running, id)
		}
	}
	return true
}

// Same reports whether two endpoints are delivered to in the same way.
func Same(a, b Endpoint) bool {
	secrets := slices.EqualFunc(a.Secrets, b.Secrets, func(x, y Secret) bool {
		return bytes.Equal(x.Value.Reveal(), y.Value.Reveal()) && x.Until.Equal(y.Until)
	})
	a.Secrets, b.Secrets = nil, nil
	return secrets && reflect.DeepEqual(a, b)
}

// runner delivers to one endpoint.
type runner struct {
	*Deliverer
	endpoint Endpoint
	client   *http.Client
	unfit    error // why no attempt can be made
	ctx      context.Context
	end      context.CancelFunc
	bell     chan struct{}
	ended    chan Fate // of attempts under way
	busy     int
	failed   int       // in a row
	rest     time.Time // nothing is sent before
}

func (d *Deliverer) newRunner(ctx context.Context, e Endpoint) *runner {
	r := &runner{Deliverer: d, endpoint: e, bell: make(chan struct{}, 1), ended: make(chan Fate)}
	r.ctx, r.end = context.WithCancel(ctx)
	r.client, r.unfit = d.client(e)
	return r
}

func (d *Deliverer) client(e Endpoint) (*http.Client, error) {
	var certificate clientCertificate
	if e.ClientCert != "" {
		certificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // for each connection: it is renewed once in a while
			c, err := tls.LoadX509KeyPair(e.ClientCert, e.ClientKey)
			if err != nil {
				return nil, &forbiddenError{"the client certificate cannot be read: look at client_cert and client_key"}
			}
			return &c, nil
		}
		if _, err := certificate(nil); err != nil {
			return nil, err
		}
	}
	c := d.Guard.client(strings.HasPrefix(e.URL, "https:"), e.Concurrency, certificate, d.Trust)
	if e.Pins != nil {
		c.Transport.(*http.Transport).TLSClientConfig.VerifyConnection = e.Pins.Verify(e.Host(), "the pins of this endpoint")
	}
	return c, nil
}

func (r *runner) wake() {
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

func (r *runner) run() {
	defer func() {
		for ; r.busy > 0; r.busy-- {
			<-r.ended
		}
		if r.client != nil {
			r.client.CloseIdleConnections()
		}
	}()
	for r.ctx.Err() == nil {
		timer := time.NewTimer(r.send())
		select {
		case <-r.ctx.Done():
		case <-r.bell:
		case <-timer.C:
		case fate := <-r.ended:
			r.note(fate)
		}
		timer.Stop()
	}
}

const (
	idle    = time.Hour       // nothing is due: the bell rings when something is
	trouble = 5 * time.Second // the ledger did not answer
)

// send begins as many attempts as there is room for, and returns when to look again.
func (r *runner) send() time.Duration {
	free := r.endpoint.Concurrency - r.busy
	if r.failed >= restAfter {
		free = 1 - r.busy
		if wait := time.Until(r.rest); wait > 0 {
			return wait
		}
	}
	if free <= 0 {
		return idle // an attempt that ends makes room
	}
	due, next, err := r.Ledger.Take(r.ctx, r.endpoint.ID, free, r.endpoint.Timeout+time.Minute)
	if err != nil {
		if r.ctx.Err() == nil {
			r.Log.Error("what is to be delivered cannot be read", "endpoint", r.endpoint.ID, "err", err)
		}
		return trouble
	}
	if r.unfit != nil && len(due) > 0 { // what it lacked may be there now
		r.client, r.unfit = r.Deliverer.client(r.endpoint)
	}
	client, unfit := r.client, r.unfit
	for _, d := range due {
		r.busy++
		go func() { r.ended <- r.attempt(d, client, unfit) }()
	}
	switch {
	case len(due) == free:
		return idle
	case next.IsZero():
		return idle
	}
	return max(time.Until(next), time.Millisecond)
}

// note takes in what came of an attempt.
func (r *runner) note(fate Fate) {
	r.busy--
	switch fate {
	case Delivered:
		r.failed, r.rest = 0, time.Time{}
	case Again, Failed:
		r.failed++
		if over := r.failed - restAfter; over >= 0 {
			wait := min(time.Second<<min(over, 10), maxRest)
			r.rest = time.Now().Add(wait + jitter(wait))
		}
	}
}

// jitter is up to a tenth of a wait.
func jitter(wait time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(wait)/10 + 1)) }

// attempt makes an attempt that the ledger knows of, and tells it what came of it. A stop lets it end.
func (r *runner) attempt(d Delivery, client *http.Client, unfit error) Fate {
	ctx := context.WithoutCancel(r.ctx)
	o := r.try(ctx, client, unfit, r.endpoint, d, time.Now())
	if err := r.Ledger.Settle(ctx, o); err != nil {
		r.Log.Error("what came of a delivery could not be written down: it is made again", "endpoint", r.endpoint.ID, "event", d.Event.ID, "err", err)
	}
	if r.Attempted != nil {
		r.Attempted(r.endpoint, o, time.Since(d.Event.At))
	}
	r.tell(d, o)
	return o.Fate
}

func (r *runner) tell(d Delivery, o Outcome) {
	log := r.Log.With("endpoint", o.Endpoint, "event", d.Event.ID, "type", d.Event.Type, "tx", d.Event.Transaction, "attempt", o.Attempt, "status", o.Status, "took", o.Took.Round(time.Millisecond))
	switch o.Fate {
	case Delivered:
		log.Debug("delivered")
	case Again:
		log.Warn("not delivered, it is tried again", "problem", o.Problem, "in", time.Until(o.Next).Round(time.Millisecond))
	case Failed:
		log.Error("not delivered, and not tried again: \"dealseal webhooks redeliver\" does", "problem", o.Problem)
	case Held:
		log.Error("the endpoint says that it is gone, and is disabled; its events wait", "problem", o.Problem)
	}
}

// Try makes one attempt that no ledger knows of, for somebody who waits for what comes of it.
func (d *Deliverer) Try(ctx context.Context, e Endpoint, event Event) (Outcome, error) {
	client, err := d.client(e)
	if err != nil {
		return Outcome{}, err
	}
	defer client.CloseIdleConnections()
	return d.try(ctx, client, nil, e, Delivery{Event: event, Attempt: 1}, time.Now()), nil
}

// try makes an attempt and decides what becomes of the delivery.
func (d *Deliverer) try(ctx context.Context, client *http.Client, unfit error, e Endpoint, delivery Delivery, now time.Time) Outcome {
	o := Outcome{Delivery: delivery.ID, Attempt: delivery.Attempt, Endpoint: e.ID, InARow: e.AlarmAt, Disable: e.DisableThen}
	var asked time.Duration
	request, err := e.request(ctx, delivery, now)
	if err == nil {
		err = unfit
	}
	if err != nil {
		o.Problem = err.Error()
	} else {
		request.Header.Set("User-Agent", "dealseal/"+d.Version)
		asked = o.call(client, request, e.Timeout)
		o.Took = time.Since(now)
	}
	o.decide(e, delivery.Failures, asked, time.Now())
	return o
}

// call sends a request and notes the answer. It returns how long the receiver asked to be left alone.
func (o *Outcome) call(client *http.Client, request *http.Request, limit time.Duration) (asked time.Duration) {
	ctx, cancel := context.WithTimeout(request.Context(), limit)
	defer cancel()
	resp, err := client.Do(request.WithContext(ctx))
	if err != nil {
		o.Problem = reasonOf(err)
		return 0
	}
	defer resp.Body.Close()
	o.Status = resp.StatusCode
	o.Answer, err = io.ReadAll(io.LimitReader(resp.Body, keptAnswer))
	if err == nil { // the connection can be used again if the rest is short
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody))
	}
	if !o.taken() {
		o.Problem = "it answered " + strconv.Itoa(resp.StatusCode)
	}
	return retryAfter(resp.Header.Get("Retry-After"), time.Now())
}

func (o *Outcome) taken() bool { return o.Status >= 200 && o.Status < 300 }

// decide says what becomes of the delivery after so many failed attempts before this one.
func (o *Outcome) decide(e Endpoint, failures int, asked time.Duration, now time.Time) {
	waits := e.waits()
	switch {
	case o.taken():
		o.Fate = Delivered
	case o.Status == http.StatusGone && e.Callbacks: // one caller's address says nothing of those of others
		o.Fate = Failed
	case o.Status == http.StatusGone:
		o.Fate = Held
	case failures >= len(waits):
		o.Fate = Failed
	default:
		o.Fate = Again
		wait := waits[failures]
		o.Next = now.Add(max(wait+jitter(wait), asked))
	}
}

// retryAfter reads seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, longest)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), longest)
	}
	return 0
}

// request makes the request of an attempt, signed anew.
func (e *Endpoint) request(ctx context.Context, delivery Delivery, now time.Time) (*http.Request, error) {
	f, err := formatOf(e.Format)
	if err != nil {
		return nil, err
	}
	body, err := f.Body(delivery.Event)
	if err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("the event has %d bytes: at most %d are sent", len(body), maxBody)
	}
	d, err := dialectOf(e.Dialect)
	if err != nil {
		return nil, err
	}
	secrets := e.live(now)
	if len(secrets) == 0 {
		return nil, errors.New("the endpoint has no secret")
	}
	headers, err := d.sign(e, message{id: delivery.Event.ID, event: f.name(delivery.Event.Type), at: now, body: body, secrets: secrets, attempt: delivery.Failures + 1})
	if err != nil {
		return nil, errors.New("it cannot be signed: its secret is damaged")
	}
	to := e.URL
	if e.Callbacks && delivery.ID != 0 { // a test goes to the endpoint's own
		if to = delivery.URL; to == "" {
			return nil, errors.New("where it was to be called back is not known any more: its deal was erased, or the endpoint has another address now")
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("its URL is no address")
	}
	request.Header = headers
	request.Header.Set("Content-Type", "application/json")
	return request, nil
}
