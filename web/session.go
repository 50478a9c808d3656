package web

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// How long things last.
const (
	inviteLasts  = 5 * time.Minute
	sessionLasts = 12 * time.Hour
	idleLasts    = 2 * time.Hour
)

// At most so many are kept: whoever may ask for them could ask for ever.
const (
	maxInvites  = 64
	maxSessions = 256
)

// Sessions are the people who may read the pages. They are kept in memory, by the hashes of their secrets only: a restart
// of the daemon ends them all. It is safe for concurrent use.
type Sessions struct {
	now func() time.Time

	mu      sync.Mutex
	invites map[secretHash]*Session // Seen is when the invitation was made
	open    map[secretHash]*Session
}

type secretHash [sha256.Size]byte

// Session is one person's reading.
type Session struct {
	// ID tells sessions apart for people; it opens nothing.
	ID  string `json:"id"`
	Who string `json:"who"`
	// Role says what the person may see and do.
	Role deal.TokenRole `json:"role"`
	// Since is when it began, Seen when the person last opened a page. Until is when it ends if nothing more is opened.
	Since time.Time `json:"since"`
	Seen  time.Time `json:"seen"`
	Until time.Time `json:"until"`

	ends     time.Time // however much is opened
	provider bool      // the person has signed in at the provider
}

// NewSessions returns an empty set. now is the clock; time.Now when nil.
func NewSessions(now func() time.Time) *Sessions {
	if now == nil {
		now = time.Now
	}
	return &Sessions{now: now, invites: map[secretHash]*Session{}, open: map[secretHash]*Session{}}
}

// Invite returns the path of a page on which the person can begin a session, once, within five minutes. Whoever calls it
// knows for sure who asks.
func (s *Sessions) Invite(who string, role deal.TokenRole) (path string, err error) {
	if who == "" {
		return "", errors.New("a session needs to know whose it is")
	}
	if !slices.Contains(deal.TokenRoles, role) {
		return "", fmt.Errorf("there is no role %q: it must be one of %q", role, deal.TokenRoles)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	makeRoom(s.invites, maxInvites)
	return "/login?token=" + s.add(s.invites, who, role, inviteLasts), nil
}

// add makes a secret; the caller holds the lock.
func (s *Sessions) add(to map[secretHash]*Session, who string, role deal.TokenRole, lasts time.Duration) string {
	b := make([]byte, 32)
	rand.Read(b)
	token := base64.RawURLEncoding.EncodeToString(b)
	h := hashOf(token)
	now := s.now()
	to[h] = &Session{ID: hex.EncodeToString(h[:4]), Who: who, Role: role, Since: now, Seen: now, ends: now.Add(lasts)}
	return token
}

func hashOf(token string) secretHash { return sha256.Sum256([]byte(token)) }

// invited reports who an invitation is for, without using it up.
func (s *Sessions) invited(token string) (who Session, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	in, ok := s.invites[hashOf(token)]
	if !ok {
		return Session{}, false
	}
	return *in, true
}

// redeem uses an invitation up and begins its session.
func (s *Sessions) redeem(token string) (secret string, begun Session, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	in, ok := s.invites[hashOf(token)]
	if !ok {
		return "", Session{}, false
	}
	delete(s.invites, hashOf(token))
	secret, begun = s.enter(in.Who, in.Role, sessionLasts)
	return secret, begun, true
}

// begin begins the session of somebody whom the provider knows for sure. It lasts no longer than others.
func (s *Sessions) begin(who string, role deal.TokenRole, lasts time.Duration) (secret string, begun Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	secret, begun = s.enter(who, role, min(lasts, sessionLasts))
	s.open[hashOf(secret)].provider = true
	return secret, begun
}

// enter makes a session; the caller holds the lock.
func (s *Sessions) enter(who string, role deal.TokenRole, lasts time.Duration) (secret string, begun Session) {
	makeRoom(s.open, maxSessions)
	secret = s.add(s.open, who, role, lasts)
	return secret, *s.open[hashOf(secret)]
}

// find returns the session of a secret. Only what a person does keeps it from ending, not a page that keeps itself current.
func (s *Sessions) find(secret string, byPerson bool) (Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	o, ok := s.open[hashOf(secret)]
	if !ok {
		return Session{}, false
	}
	if byPerson {
		o.Seen = s.now()
	}
	return *o, true
}

// end ends the session of a secret.
func (s *Sessions) end(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, hashOf(secret))
}

// EndAll ends every session and takes back every invitation. It returns how many sessions ended.
func (s *Sessions) EndAll() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	n := len(s.open)
	clear(s.open)
	clear(s.invites)
	return n
}

// List returns the sessions that are open, oldest first.
func (s *Sessions) List() (list []Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	for _, o := range s.open {
		one := *o
		one.Until = o.Seen.Add(idleLasts)
		if o.ends.Before(one.Until) {
			one.Until = o.ends
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b Session) int { return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.ID, b.ID)) })
	return list
}

// sweep forgets what is over; the caller holds the lock.
func (s *Sessions) sweep() {
	now := s.now()
	for h, i := range s.invites {
		if !now.Before(i.ends) {
			delete(s.invites, h)
		}
	}
	for h, o := range s.open {
		if !now.Before(o.ends) || now.Sub(o.Seen) >= idleLasts {
			delete(s.open, h)
		}
	}
}

// makeRoom forgets the one that was not seen for the longest time.
func makeRoom(from map[secretHash]*Session, most int) {
	for len(from) >= most {
		var oldest secretHash
		found := false
		for h, o := range from {
			if !found || o.Seen.Before(from[oldest].Seen) {
				oldest, found = h, true
			}
		}
		delete(from, oldest)
	}
}

// cookieName is that of the session's secret, hostOnly what stands before it where the page is known to be opened by https:
// browsers take such a cookie from this host alone, over https alone, so that no sibling of its name can plant one.
const (
	cookieName = "dealseal_session"
	hostOnly   = "__Host-"
)

// refreshHeader is sent by a page that keeps itself current.
const refreshHeader = "Dealseal-Refresh"

type readerKey struct{}

// reader returns whose session a request belongs to; ok is false without one.
func reader(ctx context.Context) (who Session, ok bool) {
	who, ok = ctx.Value(readerKey{}).(Session)
	return who, ok
}

// recognise finds the session of each request.
func (s *server) recognise(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, secret := range sessionSecrets(r) {
			if who, ok := s.Sessions.find(secret, r.Header.Get(refreshHeader) == ""); ok {
				r = r.WithContext(context.WithValue(r.Context(), readerKey{}, who))
				break
			}
		}
		next.ServeHTTP(w, r)
	})
}

// encrypted reports whether a browser has sent a request by https: behind a proxy the header says so. If it lies, it harms
// whoever sent it.
func encrypted(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// sessionSecrets are what the browser has kept, which may be of a session that is over. By https only a cookie counts that nobody
// else can have set. A proxy that does not say that it was https lets both through: one of the provider, whose address tells, and
// one of a link.
func sessionSecrets(r *http.Request) (secrets []string) {
	for _, name := range []string{hostOnly + cookieName, cookieName} {
		if c, err := r.Cookie(name); err == nil && (name != cookieName || !encrypted(r)) {
			secrets = append(secrets, c.Value)
		}
	}
	return secrets
}

// endThose ends the sessions that a browser has, before another one begins or none does.
func (s *server) endThose(r *http.Request) {
	for _, secret := range sessionSecrets(r) {
		s.Sessions.end(secret)
	}
}

// sessionCookie is what the browser keeps; maxAge below 0 has it forget.
func sessionCookie(secure bool, secret string, maxAge int) *http.Cookie {
	name := cookieName
	if secure {
		name = hostOnly + name
	}
	return &http.Cookie{Name: name, Value: secret, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode}
}
