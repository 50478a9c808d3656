package salesforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"
)

const (
	// assertionLife is how far ahead an assertion may expire at most.
	assertionLife = 3 * time.Minute
	loginTimeout  = 30 * time.Second
	maxTokenReply = 64 << 10
)

// session hands out the access token. Salesforce never says when a token ends, so it is used until a call finds it dead
// and says so with drop. However many calls wait, one login is made for all of them, and a caller that gives up does not
// end it for the others.
type session struct {
	login func(context.Context) (string, error)

	mu     sync.Mutex
	token  string
	flight *login
}

// login is one login under way; token and err are set before done is closed.
type login struct {
	done  chan struct{}
	token string
	err   error
}

// get returns the token, logging in if there is none.
func (s *session) get(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.mu.Lock()
	if s.token != "" {
		defer s.mu.Unlock()
		return s.token, nil
	}
	if s.flight == nil {
		s.flight = &login{done: make(chan struct{})}
		go s.fetch(context.WithoutCancel(ctx), s.flight)
	}
	flight := s.flight
	s.mu.Unlock()
	select {
	case <-flight.done:
		return flight.token, flight.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (s *session) fetch(ctx context.Context, flight *login) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	flight.token, flight.err = s.login(ctx)
	s.mu.Lock()
	s.token, s.flight = flight.token, nil
	s.mu.Unlock()
	close(flight.done)
}

// drop forgets a token that a call found dead. A newer one is kept: another call may have logged in meanwhile.
func (s *session) drop(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == token {
		s.token = ""
	}
}

// newLogin returns the configured flow. The secrets are read at each login, so that a changed one needs no restart.
func newLogin(cfg Config, transport http.RoundTripper) func(context.Context) (string, error) {
	tokenURL := cfg.MyDomain + "/services/oauth2/token"
	flow := func(ctx context.Context) (oauth2.TokenSource, error) {
		if cfg.Auth.Flow == FlowClientCredentials {
			return clientCredentials(ctx, cfg.Auth, tokenURL)
		}
		return jwtBearer(ctx, cfg.Auth, tokenURL)
	}
	return func(ctx context.Context) (string, error) {
		// x/oauth2 builds the jwt flow's request without a context, so the transport brings it.
		client := &http.Client{Transport: loginTransport{ctx, transport}, CheckRedirect: noRedirect}
		source, err := flow(context.WithValue(ctx, oauth2.HTTPClient, client))
		if err != nil {
			return "", fmt.Errorf("log in: %w", &Error{class: permanent, cause: err})
		}
		token, err := source.Token()
		if err != nil {
			return "", fmt.Errorf("log in: %w", loginError(ctx, err))
		}
		if token.AccessToken == "" {
			return "", fmt.Errorf("log in: %w", malformed("it has no access token"))
		}
		return token.AccessToken, nil
	}
}

func jwtBearer(ctx context.Context, a Auth, tokenURL string) (oauth2.TokenSource, error) {
	key, err := a.PrivateKey.Resolve()
	if err != nil {
		return nil, fmt.Errorf("auth.private_key: %w", err)
	}
	conf := &jwt.Config{
		Email: a.ConsumerKey, Subject: a.Username, Audience: a.Audience,
		PrivateKey: key.Reveal(), TokenURL: tokenURL, Expires: assertionLife,
	}
	return conf.TokenSource(ctx), nil
}

func clientCredentials(ctx context.Context, a Auth, tokenURL string) (oauth2.TokenSource, error) {
	pass, err := a.ClientSecret.Resolve()
	if err != nil {
		return nil, fmt.Errorf("auth.client_secret: %w", err)
	}
	conf := &clientcredentials.Config{
		ClientID: a.ConsumerKey, ClientSecret: pass.RevealString(), TokenURL: tokenURL,
		AuthStyle: oauth2.AuthStyleInParams, // finding it out by trial costs a failed login
	}
	return conf.TokenSource(ctx), nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// loginTransport binds a request to the login's context and bounds the reply.
type loginTransport struct {
	ctx  context.Context
	base http.RoundTripper
}

func (t loginTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req.Clone(t.ctx))
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxTokenReply)
	}
	return resp, err
}

// loginError judges a failed login. Nothing of the reply's free text is repeated except phrases that are known.
func loginError(ctx context.Context, err error) error {
	var retrieve *oauth2.RetrieveError
	switch {
	case ctx.Err() != nil:
		return &Error{cause: ctx.Err()}
	case errors.As(err, &retrieve) && retrieve.Response != nil:
		return oauthFailure(retrieve.Response.StatusCode, retrieve.Response.Header, retrieve.Body)
	}
	// What is left is a key that cannot be used, a reply that is no JSON, or no reply. Their texts may quote the reply.
	var netErr interface{ Timeout() bool }
	if errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{cause: errors.New("the connection failed")}
	}
	if strings.Contains(err.Error(), "private key") {
		return refuse("auth.private_key is no RSA private key in PEM without a passphrase")
	}
	return &Error{cause: errors.New("the reply to the login cannot be used")}
}

// oauthCures are the descriptions that Salesforce gives and what they ask for.
var oauthCures = []struct{ phrase, cure string }{
	{"user hasn't approved this consumer", "pre-authorise the integration user: set the app's policy to admin-approved users and assign its permission set"},
	{"audience", "auth.audience is wrong: https://login.salesforce.com for production, https://test.salesforce.com for a sandbox"},
	{"invalid assertion", "the key does not fit the certificate uploaded to the app, or this machine's clock is wrong"},
	{"user is inactive", "activate the integration user, or check auth.username"},
	{"no client credentials user enabled", "name a run-as user in the app's client-credentials flow"},
	{"app must be installed into org", "install the app in the org, or use an External Client App"},
	{"rate", "too many logins in an hour"},
}

func oauthFailure(status int, header http.Header, body []byte) *Error {
	e := failure(status, header, body)
	if status >= 500 || status == http.StatusTooManyRequests {
		return e
	}
	var said struct {
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &said) != nil || e.Code == "" {
		return &Error{Status: status, class: passing, after: edgePause, cure: "Salesforce refuses the login without saying why"}
	}
	if r, known := codes[e.Code]; known && r.class == passing {
		return e
	}
	e.class, e.after, e.cure = permanent, 0, "check auth: consumer_key, username, the key or secret, and the app's policies in Salesforce"
	for _, c := range oauthCures {
		if strings.Contains(said.Description, c.phrase) {
			e.cure = c.cure
			break
		}
	}
	if strings.Contains(e.cure, "too many logins") {
		e.class, e.after = passing, loginPause
	}
	return e
}
