package signing

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// pair is two key stores with the same key pair, and a third with another one.
type pair struct {
	ring
	first, second *softKey
	clock         time.Time
	failover      *Failover
}

func newPair(t *testing.T) *pair {
	t.Helper()
	signer := newEC(elliptic.P256())
	p := &pair{first: newKey(signer, nil), clock: now}
	p.second = &softKey{Signer: signer, chain: p.first.chain}
	p.keys = map[string]Key{"first": p.first, "second": p.second, "foreign": newKey(newEC(elliptic.P256()), nil)}
	spki := digest(p.first.chain[0].RawSubjectPublicKeyInfo)
	p.failover = NewFailover(p, map[string]Group{
		"first": {Members: []string{"first", "second"}, SPKI: spki},
		"mixed": {Members: []string{"foreign", "second"}, SPKI: spki},
		"alone": {Members: []string{"foreign"}},
	}, func() time.Time { return p.clock }, nil)
	return p
}

// Open makes a key that is gone an error of its own.
func (p *pair) Open(ctx context.Context, name string) (Key, error) {
	if k, ok := p.keys[name].(*gone); ok {
		return nil, k.err
	}
	return p.ring.Open(ctx, name)
}

// gone is a key that cannot be opened.
type gone struct {
	Key
	err error
}

func (p *pair) seal(t *testing.T, name, text string) (by string, err error) {
	t.Helper()
	key, err := p.failover.Open(t.Context(), name)
	if err != nil {
		return "", err
	}
	_, _, err = signContext(t.Context(), key, digest([]byte(text)), crypto.SHA256)
	return nameOf(name, key), err
}

func (p *pair) mustSeal(t *testing.T, text, want string) {
	t.Helper()
	if by, err := p.seal(t, "first", text); err != nil || by != want {
		t.Errorf("%s: by %q, want %q: %v", text, by, want, err)
	}
}

func TestTheNextAttemptIsMadeWithTheOtherKeyAndNoOtherDigest(t *testing.T) {
	p := newPair(t)
	p.mustSeal(t, "one", "first")
	for name, trouble := range map[string]error{
		"passing":   errors.New("the device is gone"),
		"permanent": &KeyError{Key: "first", Reason: "its PIN is refused"},
		"late":      fmt.Errorf("hangs: %w", context.DeadlineExceeded),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.first.sign = func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, trouble }
			_, err := p.seal(t, "first", "two")
			var next *StandInError
			if !errors.As(err, &next) || next.Next != "second" || isPermanent(err) || IsUnusable(err) || !strings.Contains(err.Error(), trouble.Error()) {
				t.Fatalf("%v", err)
			}
			if len(p.second.signed) != 0 {
				t.Fatal("the other key was used within the same attempt")
			}
			p.mustSeal(t, "two", "second")
			for _, d := range append(p.first.signed, p.second.signed...) {
				if string(d) != string(digest([]byte("two"))) {
					t.Errorf("the digest %x was given to a key", d)
				}
			}
		})
	}
}

func TestAKeyThatFailedIsTriedAgainWhenItHasRestedAndThenLater(t *testing.T) {
	p := newPair(t)
	p.first.sign = func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, errors.New("device error") }
	for _, rest := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		if by, err := p.seal(t, "first", "x"); err == nil {
			t.Fatal("sealed by ", by)
		}
		p.clock = p.clock.Add(rest - time.Second)
		if err := p.failover.Touch(t.Context(), "first", "first", 0); err != nil { // it can be reached, and still does not sign
			t.Fatal(err)
		}
		p.mustSeal(t, "x", "second")
		p.clock = p.clock.Add(time.Second)
	}
	p.first.sign = nil
	p.mustSeal(t, "x", "first")
	p.clock = p.clock.Add(time.Hour)
	p.first.sign = func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, errors.New("device error") }
	p.seal(t, "first", "x")
	p.clock = p.clock.Add(time.Minute)
	if got := p.failover.Serving("first"); got != "first" {
		t.Errorf("after a success in between it rests as after the first failure, yet %q serves", got)
	}
}

func TestAKeyThatCannotBeReachedLeavesItToTheOtherUntilItAnswers(t *testing.T) {
	p := newPair(t)
	p.keys["first"] = &gone{err: errors.New("no token")}
	p.mustSeal(t, "x", "second") // opening uses nothing: the same attempt goes on
	p.clock = p.clock.Add(time.Hour)
	if err := p.failover.Touch(t.Context(), "first", "first", time.Minute); err == nil {
		t.Error("a touch reaches what is gone")
	}
	p.keys["first"] = p.first
	p.mustSeal(t, "x", "second")
	if err := p.failover.Touch(t.Context(), "first", "first", time.Minute); err != nil {
		t.Fatal(err) // what was known was from this minute
	}
	p.mustSeal(t, "x", "second")
	p.clock = p.clock.Add(time.Minute)
	if err := p.failover.Touch(t.Context(), "first", "first", time.Minute); err != nil {
		t.Fatal(err)
	}
	p.mustSeal(t, "x", "first")
	if h, _ := p.failover.Health("first"); h.Why != "" || !h.Tried.Equal(p.clock) {
		t.Errorf("%+v", h)
	}
}

func TestAKeyWithAnotherKeyPairNeverStandsIn(t *testing.T) {
	p := newPair(t)
	if by, err := p.seal(t, "mixed", "x"); err != nil || by != "second" {
		t.Errorf("by %q: %v", by, err)
	}
	p.keys["second"] = &gone{err: errors.New("no token")}
	_, err := p.seal(t, "mixed", "x")
	if err == nil || isPermanent(err) {
		t.Errorf("one key can come back, yet: %v", err)
	}
	p.keys["second"] = &gone{err: &KeyError{Key: "second", Reason: "its PIN is refused"}}
	if _, err := p.seal(t, "mixed", "x"); !isPermanent(err) || !strings.Contains(err.Error(), "not the key pair") {
		t.Errorf("%v", err)
	}
	if foreign := p.keys["foreign"].(*softKey); len(foreign.signed) != 0 {
		t.Error("a key of another pair was used")
	}
}

func TestAKeyAloneFailsAsItSays(t *testing.T) {
	p := newPair(t)
	p.keys["foreign"].(*softKey).sign = func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, &KeyError{Key: "foreign", Reason: "no"} }
	if _, err := p.seal(t, "alone", "x"); !isPermanent(err) {
		t.Errorf("%v", err)
	}
	if _, err := p.failover.Open(t.Context(), "unknown"); err == nil {
		t.Error("an unknown key was opened")
	}
}

func TestGivingUpIsNoFailureOfTheKey(t *testing.T) {
	p := newPair(t)
	p.first.sign = func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, context.Canceled }
	if _, err := p.seal(t, "first", "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := p.failover.Serving("first"); got != "first" {
		t.Errorf("%q serves", got)
	}
}
