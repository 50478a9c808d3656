package keyservice

import (
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

// early is how long before its end a login is not used any more.
const early = time.Minute

// Logins keeps what a login gave, an access token or the like, until a minute before its end, or until what it was got with
// has changed. The zero value is ready; it is safe for concurrent use.
type Logins[T any] struct {
	mu   sync.Mutex
	with [sha256.Size]byte
	got  T
	over time.Time // zero: there is none
}

// Get returns what is kept, or what login gives, and whether it was got just now. with is the secret that the login is made
// with, if there is one; it is not kept.
func (l *Logins[T]) Get(ctx context.Context, with []byte, login func(context.Context) (got T, life time.Duration, err error)) (got T, fresh bool, err error) {
	sum := sha256.Sum256(with)
	l.mu.Lock()
	kept, good := l.got, l.with == sum && time.Now().Before(l.over)
	l.mu.Unlock()
	if good {
		return kept, false, nil
	}
	got, life, err := login(ctx)
	if err != nil {
		return got, false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got, l.with, l.over = got, sum, time.Now().Add(min(life, maxLife)-early)
	return got, true, nil
}

// maxLife bounds what an answer may claim.
const maxLife = 24 * time.Hour

// Forget makes the next Get log in again.
func (l *Logins[T]) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = time.Time{}
}

// Machine is an HTTP client for the address at which a machine in a cloud asks who it is: no proxy stands before that, and
// what it is told is for nobody else.
func Machine() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
