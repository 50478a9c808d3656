package signing

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// How long a key that failed to sign is left alone while another one can stand in for it: doubled with each failure in a
// row.
const (
	firstRest = time.Minute
	maxRest   = time.Hour
)

// Group is a key with those that stand in for it.
type Group struct {
	// Members are names of keys, in the order in which they are preferred. One alone is only watched.
	Members []string
	// SPKI is the SHA-256 of the public key that every member must have. It may be nil for a single member.
	SPKI []byte
}

// Failover has keys stand in for each other: when one fails, the next attempt is made with another one that has the same
// public key. Its names are those of the groups; a key that is in none keeps its own. It implements Keys and is safe for
// concurrent use.
//
// A failed signature is never followed by the use of another key within the same call: whoever signs decides on the next
// attempt, and brings the same digest.
type Failover struct {
	keys   Keys
	groups map[string]Group
	now    func() time.Time
	log    *slog.Logger

	mu     sync.Mutex
	health map[string]*health // by member
}

// health is what is known of one key.
type health struct {
	tried    time.Time // used, opened or touched, the last time; zero: never
	why      string    // it could not be reached then, or not sign; empty: it could
	away     bool      // it could not be reached
	failures int       // signatures that failed, in a row
	rests    time.Time // until then others are preferred
}

// Health is what is known of one key, for those who watch it.
type Health struct {
	Tried time.Time // when it was used or touched the last time; zero: never
	Why   string    // it failed then; empty: it did not
}

// NewFailover returns the groups over keys. A nil log discards.
func NewFailover(keys Keys, groups map[string]Group, now func() time.Time, log *slog.Logger) *Failover {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Failover{keys: keys, groups: groups, now: now, log: log, health: map[string]*health{}}
	for _, g := range groups {
		for _, m := range g.Members {
			f.health[m] = &health{}
		}
	}
	return f
}

// Open returns the member of a group whose turn it is. One that cannot be opened leaves it to the next. When none can, the
// error is permanent only if each of them needs a person.
func (f *Failover) Open(ctx context.Context, name string) (Key, error) {
	return f.get(ctx, name, f.keys.Open)
}

// Bare is Open for keys without certificates, of keys that have them so.
func (f *Failover) Bare(ctx context.Context, name string) (Key, error) {
	return f.get(ctx, name, f.bare)
}

// bare opens a key as little as is needed to know whether it could be used.
func (f *Failover) bare(ctx context.Context, name string) (Key, error) {
	if keys, able := f.keys.(BareKeys); able {
		return keys.Bare(ctx, name)
	}
	return f.keys.Open(ctx, name)
}

type opener func(ctx context.Context, name string) (Key, error)

func (f *Failover) get(ctx context.Context, name string, open opener) (Key, error) {
	g, known := f.groups[name]
	if !known {
		return open(ctx, name)
	}
	var first error
	for _, member := range f.order(g) {
		key, err := f.open(ctx, g, member, open)
		if err == nil {
			return f.watched(key, g, member), nil
		}
		if first == nil || isPermanent(first) && !isPermanent(err) {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, f.explain(g, first)
}

// open opens one key, and proves that it is the group's.
func (f *Failover) open(ctx context.Context, g Group, name string, open opener) (Key, error) {
	key, err := open(ctx, name)
	if err == nil {
		err = g.Admits(name, key)
	}
	if err != nil {
		f.lost(name, err)
		return nil, err
	}
	return key, nil
}

// Admits refuses a key that is not the group's.
func (g Group) Admits(name string, key Key) error {
	if g.SPKI == nil {
		return nil
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return &KeyError{Key: name, Reason: err.Error()}
	}
	if chain := key.Chain(); len(chain) > 0 {
		spki = chain[0].RawSubjectPublicKeyInfo
	}
	if own := digest(spki); !bytes.Equal(own, g.SPKI) {
		return &KeyError{Key: name, Reason: fmt.Sprintf("it is not the key pair of %q, as fall_back promises: its SPKI SHA-256 is %x, and not %x", g.Members[0], own, g.SPKI)}
	}
	return nil
}

// order is that in which the members of a group are tried: those that failed come last, and of them first the one whose
// failure is the oldest.
func (f *Failover) order(g Group) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	var well, ill []string
	for _, m := range g.Members {
		if f.health[m].well(now) {
			well = append(well, m)
		} else {
			ill = append(ill, m)
		}
	}
	slices.SortStableFunc(ill, func(a, b string) int { return f.health[a].tried.Compare(f.health[b].tried) })
	return append(well, ill...)
}

func (h *health) well(now time.Time) bool { return !h.away && !h.rests.After(now) }

// Serving is the member of a group that the next attempt is made with.
func (f *Failover) Serving(name string) string {
	g, known := f.groups[name]
	if !known {
		return name
	}
	return f.order(g)[0]
}

// Health tells what is known of a key that belongs to a group.
func (f *Failover) Health(member string) (h Health, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own, known := f.health[member]
	if !known {
		return h, false
	}
	return Health{Tried: own.tried, Why: own.why}, true
}

// Touch finds out whether a member of a group could be used now, unless something younger than age is known of it. One that
// failed to sign keeps its rest: what can be reached may still not sign.
func (f *Failover) Touch(ctx context.Context, group, member string, age time.Duration) error {
	if h, known := f.Health(member); !known || f.now().Sub(h.Tried) < age {
		return nil
	}
	key, err := f.open(ctx, f.groups[group], member, f.bare)
	if err != nil {
		return err
	}
	if t, able := Ability[Toucher](key); able {
		if err := t.Touch(ctx); err != nil {
			f.lost(member, err)
			return err
		}
	}
	f.change(member, func(h *health) { h.away, h.why = false, "" })
	return nil
}

// lost notes that a key cannot be reached.
func (f *Failover) lost(member string, err error) {
	if !errors.Is(err, context.Canceled) { // else nobody waited for the answer
		f.change(member, func(h *health) { h.away, h.why = true, err.Error() })
	}
}

func (f *Failover) change(member string, do func(*health)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.health[member]
	h.tried = f.now()
	do(h)
}

// signed notes what became of a signature.
func (f *Failover) signed(member string, err error) {
	switch {
	case err == nil:
		f.change(member, func(h *health) { *h = health{tried: h.tried} })
	case !errors.Is(err, context.Canceled):
		f.change(member, func(h *health) {
			h.rests = h.tried.Add(min(firstRest<<min(h.failures, 10), maxRest))
			h.failures++
			h.why = err.Error()
		})
	}
}

// Close closes the keys.
func (f *Failover) Close() error { return f.keys.Close() }

// explain says of a failure that another key is next. Such a failure needs no person, whatever the first key said.
func (f *Failover) explain(g Group, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	next := f.order(g)[0]
	f.mu.Lock()
	well := f.health[next].well(f.now())
	f.mu.Unlock()
	if !well {
		return err
	}
	f.log.Warn("a key failed, another one stands in", "next", next, "err", err)
	return &StandInError{Next: next, text: err.Error()}
}

// StandInError says that a key failed and that the next attempt is made with another one. It is not permanent.
type StandInError struct {
	Next string
	text string
}

func (e *StandInError) Error() string {
	return fmt.Sprintf("%s (the next attempt is made with key %q)", e.text, e.Next)
}

// watched notes what becomes of the signatures of a member.
func (f *Failover) watched(key Key, g Group, name string) Key {
	m := member{Key: key, name: name, note: func(err error) error {
		f.signed(name, err)
		return f.explain(g, err)
	}}
	if s, able := Ability[ContextSigner](key); able {
		return interruptibleMember{m, s}
	}
	return m
}

// member is a key of a group, opened.
type member struct {
	Key
	name string
	note func(error) error
}

// Unwrap gives the abilities of the key itself.
func (k member) Unwrap() Key { return k.Key }

// Name is that of the key itself if it has one.
func (k member) Name() string {
	if n, named := Ability[Named](k.Key); named {
		return n.Name()
	}
	return k.name
}

func (k member) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	value, err := k.Key.Sign(random, digest, opts)
	return value, k.note(err)
}

// interruptibleMember keeps the ability of a key to be stopped.
type interruptibleMember struct {
	member
	signer ContextSigner
}

func (k interruptibleMember) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	value, err := k.signer.SignContext(ctx, digest, opts)
	return value, k.note(err)
}

// nameOf is what the audit log calls a key.
func nameOf(configured string, key Key) string {
	if n, named := Ability[Named](key); named {
		return cmp.Or(n.Name(), configured)
	}
	return configured
}
