package hubspot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
)

const (
	loginTimeout = 30 * time.Second
	// renewBefore is how long before its end a token is replaced: longer than a call waits for the rate limits.
	renewBefore = time.Minute
	// memoryKey is where the newest refresh token is kept.
	memoryKey = "hubspot/refresh-token"
)

// tokens is one way to get an access token. life is how long it holds; 0 means until HubSpot refuses it.
type tokens interface {
	fetch(ctx context.Context) (token string, life time.Duration, err error)
}

// session hands out the access token. It is renewed by the clock, and when a call says with drop that HubSpot refuses it.
// However many calls wait, one fetch is made for all of them, and a caller that gives up does not end it for the others.
type session struct {
	source tokens

	mu     sync.Mutex
	token  string
	renew  time.Time // zero for never
	flight *flight
}

// flight is one fetch under way; token and err are set before done is closed.
type flight struct {
	done  chan struct{}
	token string
	err   error
}

func newSession(source tokens) *session { return &session{source: source} }

// get returns the token, fetching one if there is none or its time is up.
func (s *session) get(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.mu.Lock()
	if s.token != "" && (s.renew.IsZero() || time.Now().Before(s.renew)) {
		defer s.mu.Unlock()
		return s.token, nil
	}
	if s.flight == nil {
		s.flight = &flight{done: make(chan struct{})}
		go s.fetch(context.WithoutCancel(ctx), s.flight)
	}
	f := s.flight
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return "", fmt.Errorf("get an access token: %w", inLogin(callError(ctx, ctx.Err())))
	}
}

func (s *session) fetch(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	token, life, err := s.source.fetch(ctx)
	if err != nil {
		token, err = "", fmt.Errorf("get an access token: %w", inLogin(err))
	}
	s.mu.Lock()
	f.token, f.err = token, err
	s.token, s.renew, s.flight = token, time.Time{}, nil
	if life > 0 {
		s.renew = time.Now().Add(max(life-renewBefore, life/2))
	}
	s.mu.Unlock()
	close(f.done)
}

// drop forgets a token that HubSpot refused. A newer one is kept: another call may have fetched it meanwhile.
func (s *session) drop(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == token {
		s.token = ""
	}
}

func (c *Connector) newTokens(memory connectors.Memory) tokens {
	if c.cfg.Auth.Flow == FlowOAuth {
		return &refresher{auth: c.cfg.Auth, wire: c.wire, path: "/oauth/" + c.cfg.APIVersion + "/token", memory: memory}
	}
	return static{c.cfg.Auth.Token}
}

// static is a service key or an app's token. It is read anew at each fetch, so that a replaced one needs no restart.
type static struct{ ref secret.Ref }

func (s static) fetch(context.Context) (string, time.Duration, error) {
	token, err := reveal(s.ref)
	return token, 0, err
}

// reveal resolves a secret. A secret that cannot be read is a matter for a person.
func reveal(ref secret.Ref) (string, error) {
	s, err := ref.Resolve()
	if err != nil {
		return "", refuse("%v", err)
	}
	value := strings.TrimSpace(s.RevealString())
	if strings.ContainsAny(value, "\r\n") {
		return "", refuse("%s has more than one line", ref)
	}
	return value, nil
}

// refresher is the OAuth flow. HubSpot may answer with another refresh token and forget the one that was used, so the new
// one is stored before the access token that came with it is used: a crash in between costs one refresh, not the login.
type refresher struct {
	auth   Auth
	wire   *wire
	path   string
	memory connectors.Memory

	// unsaved is an answer whose refresh token could not be stored yet. fetch runs once at a time.
	unsaved *grant
}

// remembered is what Memory keeps. First tells by which configured token the account was first entered: once the
// configuration has another one, the app was installed anew and what is remembered is void.
type remembered struct {
	First string `json:"first"` // SHA-256 of the configured refresh token, hex
	Token string `json:"token"`
}

// grant is an answer of the token endpoint.
type grant struct {
	access  string
	life    time.Duration
	got     time.Time
	refresh remembered
}

func (r *refresher) fetch(ctx context.Context) (string, time.Duration, error) {
	if g := r.unsaved; g != nil {
		if err := r.save(ctx, g.refresh); err != nil {
			return "", 0, err
		}
		r.unsaved = nil
		if life := g.life - time.Since(g.got); life > renewBefore {
			return g.access, life, nil
		}
	}
	used, err := r.current(ctx)
	if err != nil {
		return "", 0, err
	}
	g, err := r.refresh(ctx, used)
	if isInvalidGrant(err) {
		// Another process of ours may have used the token in the meantime and stored its successor.
		if newer, readErr := r.current(ctx); readErr == nil && newer != used {
			used = newer
			g, err = r.refresh(ctx, used)
		}
	}
	if err != nil {
		return "", 0, err
	}
	if g.refresh.Token != used.Token {
		if err := r.save(ctx, g.refresh); err != nil {
			r.unsaved = g
			return "", 0, err
		}
	}
	return g.access, g.life, nil
}

// current is the refresh token to use: the remembered one, unless the configuration has another one by now.
func (r *refresher) current(ctx context.Context) (remembered, error) {
	first, err := reveal(r.auth.RefreshToken)
	if err != nil {
		return remembered{}, err
	}
	sum := sha256.Sum256([]byte(first))
	configured := remembered{First: hex.EncodeToString(sum[:]), Token: first}
	stored, _, err := r.read(ctx)
	if err != nil {
		return remembered{}, err
	}
	if stored.First == configured.First && stored.Token != "" {
		return stored, nil
	}
	return configured, nil
}

func (r *refresher) read(ctx context.Context) (remembered, int64, error) {
	b, version, err := r.memory.Get(ctx, memoryKey)
	if err != nil {
		return remembered{}, 0, fmt.Errorf("read the remembered refresh token: %w", err)
	}
	var m remembered
	if b != nil && json.Unmarshal(b, &m) != nil {
		return remembered{}, version, nil // damaged: the configured one is the only hope
	}
	return m, version, nil
}

// save stores a refresh token that HubSpot has just given. When another process stores at the same time ours is still the
// newest: HubSpot gives a new token only to who shows one that is valid.
func (r *refresher) save(ctx context.Context, m remembered) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	const attempts = 5
	for range attempts {
		var version int64
		if _, version, err = r.read(ctx); err != nil {
			return err
		}
		if err = r.memory.Put(ctx, memoryKey, b, version); !errors.Is(err, deal.ErrStale) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("store the new refresh token: %w", err)
	}
	return nil
}

func (r *refresher) refresh(ctx context.Context, used remembered) (*grant, error) {
	clientSecret, err := reveal(r.auth.ClientSecret)
	if err != nil {
		return nil, err
	}
	form := url.Values{
		"grant_type": {"refresh_token"}, "client_id": {r.auth.ClientID}, "client_secret": {clientSecret}, "refresh_token": {used.Token},
	}.Encode()
	got := time.Now()
	reply, err := r.wire.fetch(ctx, exchange{
		method: http.MethodPost, url: r.wire.base + r.path, access: noToken,
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		open:   func() io.Reader { return strings.NewReader(form) }, length: int64(len(form)),
	})
	if err != nil {
		return nil, err
	}
	var said struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int64  `json:"expires_in"`
	}
	if json.Unmarshal(reply.body, &said) != nil || said.AccessToken == "" || said.ExpiresIn < 0 || said.ExpiresIn > 1<<30 {
		return nil, malformed("it has no access token")
	}
	next := used
	if said.RefreshToken != "" {
		next.Token = said.RefreshToken
	}
	return &grant{access: said.AccessToken, life: time.Duration(said.ExpiresIn) * time.Second, got: got, refresh: next}, nil
}

func isInvalidGrant(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Category == "invalid_grant"
}
