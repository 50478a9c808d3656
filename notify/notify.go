// Package notify tells people: by mail, or by a call to what pages them. It makes nothing up: what is told are events of the
// catalogue of webhooks, which the ledger gathers into incidents in the transaction that made them true. Each incident is
// told once to each channel, and what is added to it later in digests, so that a thousand deals that fail together are one
// message and not a thousand.
//
// A message has IDs, counts, times and reasons. It has no value of a record and no name of a document unless the channel is
// configured to have names.
//
// Sending is at least once: an incident counts as told once the server has taken the message. What is sent twice bears the
// same Message-ID or dedup key.
package notify

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/webhooks"
)

// Kind is what an incident is about.
type Kind string

// The kinds of incidents.
const (
	Failure     Kind = "failure"     // deals were given up
	Hold        Kind = "hold"        // deals wait for a person
	Guard       Kind = "guard"       // so many deals came that nothing is sealed
	DeadLetter  Kind = "dead-letter" // events were given up
	Endpoint    Kind = "endpoint"    // a receiver of webhooks fails
	WriteBack   Kind = "write-back"  // a record does not show what is true
	Login       Kind = "login"       // a CRM refuses the login, or a permission was taken away
	Pause       Kind = "pause"       // a person has a tenant wait
	Certificate Kind = "certificate" // one ends, or was revoked
	Key         Kind = "key"         // a key has sealed as much as it may
	Summary     Kind = "summary"     // how the week was
)

// Kinds are all of them.
var Kinds = []Kind{Failure, Hold, Guard, DeadLetter, Endpoint, WriteBack, Login, Pause, Certificate, Key, Summary}

// opened are the events that open an incident, or are added to one.
var opened = map[string]Kind{
	"document.failed": Failure, "document.held": Hold, "guard.held": Guard, "webhook.delivery_failed": DeadLetter,
	"webhook.document_failing": Endpoint, "webhook.endpoint_failing": Endpoint, "webhook.endpoint_disabled": Endpoint, "crm.writeback_failed": WriteBack,
	"crm.login_refused": Login, "tenant.paused": Pause, "certificate.expiring": Certificate, "certificate.revoked": Certificate, "key.limit_reached": Key,
	"house.summary": Summary,
}

// Opens reports whether people are told of an event of this type, as an incident of a kind.
func Opens(event string) (Kind, bool) {
	k, ok := opened[event]
	return k, ok
}

// Incident is something that people are told of.
type Incident struct {
	ID   int64
	Kind Kind
	// Tenant is empty for what concerns the house. Subject is what else there can be only one incident of: an endpoint, a
	// certificate.
	Tenant, Subject string
	Opened, Latest  time.Time
	// Closed is when it was over; zero while it is not.
	Closed time.Time
	// Events are all of it, and New those that the channel was not told of.
	Events, New int
	// Newest are the newest of those that are new, newest first, at most MostListed.
	Newest []webhooks.Event
}

// MostListed is how many events of an incident a message names.
const MostListed = 20

// Filter is what a channel is told of.
type Filter struct {
	Channel string
	// Kinds and Tenants are those that it wants; none: all. What concerns the house goes to channels of all tenants.
	Kinds   []Kind
	Tenants []string
	// Ends is set for a channel that is told when an incident is over.
	Ends bool
	// Names has the contract's file name in the events.
	Names bool
	// Gather is how long an incident is left to grow before it is told, Again how long after a message what is new of the same
	// is told.
	Gather, Again time.Duration
}

// Wants reports whether an incident is for the channel.
func (f Filter) Wants(k Kind, tenant string) bool {
	return (len(f.Kinds) == 0 || slices.Contains(f.Kinds, k)) && (len(f.Tenants) == 0 || slices.Contains(f.Tenants, tenant))
}

// Ledger keeps what is to be told. It is the authority.
type Ledger interface {
	// Alerts returns the incidents that the channel has to be told of now, and when to look again; zero: nothing is known yet.
	Alerts(ctx context.Context, f Filter) (due []Incident, next time.Time, err error)
	// Alerted commits that the channel was told of incidents, as far as they are given.
	Alerted(ctx context.Context, channel string, told []Incident) error
	// AlertFailed commits that a message was not taken, and that there is no other attempt before the wait after so many failed
	// ones in a row is over.
	AlertFailed(ctx context.Context, channel, problem string, wait func(tries int) time.Duration) error
}

// Sender tells one channel.
type Sender interface {
	// Send tells of incidents. An error means that not all were taken.
	Send(ctx context.Context, m Message) error
	// Probe connects as Send does, as far as that tells nobody anything.
	Probe(ctx context.Context) error
	// Digest is how many incidents fit into one message; 0 for any number.
	Digest() int
}

// Channel is somebody who is told.
type Channel struct {
	Filter Filter
	Sender Sender
}

// Notifier tells all channels. New makes one.
type Notifier struct {
	Ledger Ledger
	Log    *slog.Logger
	// Sent is told of each attempt; nil tells nobody.
	Sent func(channel string, ok bool)

	mu       sync.Mutex
	house    House
	channels []Channel
	changed  chan struct{} // closed by the next Set
}

// New returns one that tells nobody yet.
func New(l Ledger, log *slog.Logger) *Notifier {
	return &Notifier{Ledger: l, Log: log, changed: make(chan struct{})}
}

// Set says who is told from now on, and in whose name.
func (n *Notifier) Set(house House, channels []Channel) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.house, n.channels = house, channels
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Notifier) now() (House, []Channel, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.house, n.channels, n.changed
}

const (
	look      = 5 * time.Second // between two looks
	firstWait = 30 * time.Second
	maxWait   = time.Hour
	sendLimit = time.Minute
)

// Run tells until ctx ends, and lets a message that is under way end.
func (n *Notifier) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		n.runAsSet(ctx)
	}
	return ctx.Err()
}

// runAsSet tells those who are to be told now, until others are. So a channel is never told by two at once.
func (n *Notifier) runAsSet(ctx context.Context) {
	house, channels, changed := n.now()
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, c := range channels {
		all.Go(func() { n.serve(ctx, house, c) })
	}
	select {
	case <-ctx.Done():
	case <-changed:
	}
	cancel()
	all.Wait()
}

func (n *Notifier) serve(ctx context.Context, house House, c Channel) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(n.round(ctx, house, c))
	}
}

// round tells a channel what is due, and returns after how long to look again.
func (n *Notifier) round(ctx context.Context, house House, c Channel) time.Duration {
	due, next, err := n.Ledger.Alerts(ctx, c.Filter)
	if err != nil {
		if ctx.Err() == nil {
			n.Log.Error("what people are to be told cannot be read", "channel", c.Filter.Channel, "err", err)
		}
		return look
	}
	for len(due) > 0 && ctx.Err() == nil {
		some := due
		if d := c.Sender.Digest(); d > 0 {
			some = due[:min(d, len(due))]
		}
		if !n.tell(ctx, house, c, some) {
			return look
		}
		due = due[len(some):]
	}
	if next.IsZero() {
		return look
	}
	return min(look, max(time.Until(next), 10*time.Millisecond))
}

// tell sends one message. A stop lets it end.
func (n *Notifier) tell(ctx context.Context, house House, c Channel, some []Incident) (ok bool) {
	ctx = context.WithoutCancel(ctx)
	name := c.Filter.Channel
	limited, cancel := context.WithTimeout(ctx, sendLimit)
	err := c.Sender.Send(limited, house.Message(some))
	cancel()
	if n.Sent != nil {
		n.Sent(name, err == nil)
	}
	if err == nil {
		if err := n.Ledger.Alerted(ctx, name, some); err != nil {
			n.Log.Error("it could not be written down that people were told: they are told once more", "channel", name, "err", err)
			return false
		}
		n.Log.Info("people were told", "channel", name, "incidents", len(some))
		return true
	}
	var asks interface{ RetryAfter() time.Duration }
	asked := time.Duration(0)
	if errors.As(err, &asks) {
		asked = min(asks.RetryAfter(), maxWait)
	}
	problem := Problem(err)
	err = n.Ledger.AlertFailed(ctx, name, problem, func(tries int) time.Duration {
		wait := max(backoff(tries), asked)
		n.Log.Error("people could not be told, it is tried again", "channel", name, "problem", problem, "attempt", tries, "in", wait.Round(time.Second))
		return wait
	})
	if err != nil {
		n.Log.Error("it could not be written down that people were not told", "channel", name, "err", err)
	}
	return false
}

// backoff is how long to wait after so many failed attempts: doubled each time, up to an hour, for ever.
func backoff(tries int) time.Duration {
	wait := min(firstWait<<min(max(tries-1, 0), 10), maxWait)
	return wait + time.Duration(rand.Int64N(int64(wait)/10+1))
}

// problemError has words that may be shown: no address, no secret.
type problemError struct {
	words string
	after time.Duration
}

func (e *problemError) Error() string             { return e.words }
func (e *problemError) RetryAfter() time.Duration { return e.after }

// Problem is why sending came to nothing, in words that may be shown and stored.
func Problem(err error) string {
	var p *problemError
	if errors.As(err, &p) {
		return shorten(p.words)
	}
	return webhooks.Reason(err)
}

func shorten(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	if r := []rune(text); len(r) > 300 {
		return string(r[:300]) + "…"
	}
	return text
}
