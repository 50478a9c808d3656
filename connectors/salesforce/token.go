package salesforce

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"github.com/dealseal/dealseal/deal"
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
	flight *flight
}

// flight is one login under way; token and err are set before done is closed.
type flight struct {
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
		s.flight = &flight{done: make(chan struct{})}
		go s.fetch(context.WithoutCancel(ctx), s.flight)
	}
	f := s.flight
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return "", fmt.Errorf("log in: %w", inLogin(noAnswer(ctx, ctx.Err())))
	}
}

func (s *session) fetch(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	f.token, f.err = s.login(ctx)
	s.mu.Lock()
	s.token, s.flight = f.token, nil
	s.mu.Unlock()
	close(f.done)
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
func newLogin(cfg Config, transport http.RoundTripper, sign signer) func(context.Context) (string, error) {
	tokenURL := cfg.MyDomain + "/services/oauth2/token"
	flow := func(ctx context.Context) (oauth2.TokenSource, error) {
		if cfg.Auth.Flow == FlowClientCredentials {
			return clientCredentials(ctx, cfg.Auth, tokenURL)
		}
		if cfg.Auth.HSMKey != "" {
			return jwtFromHSM(ctx, cfg.Auth, tokenURL, sign)
		}
		return jwtBearer(ctx, cfg.Auth, tokenURL)
	}
	login := func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
		defer cancel()
		// x/oauth2 builds the jwt flow's request without a context, so the transport brings it.
		bound := &loginTransport{ctx: ctx, base: transport}
		client := &http.Client{Transport: bound, CheckRedirect: noRedirect}
		source, err := flow(context.WithValue(ctx, oauth2.HTTPClient, client))
		if err != nil {
			if known := (*Error)(nil); errors.As(err, &known) {
				return "", known
			}
			return "", &Error{class: permanent, cause: err}
		}
		token, err := source.Token()
		if err != nil {
			return "", loginError(bound.failed, err)
		}
		if token.AccessToken == "" {
			return "", malformed("it has no access token")
		}
		return token.AccessToken, nil
	}
	return func(ctx context.Context) (string, error) {
		token, err := login(ctx)
		if err != nil {
			return "", fmt.Errorf("log in: %w", inLogin(err))
		}
		return token, nil
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

// signer signs a digest with a key that it knows by its name.
type signer func(ctx context.Context, key string, digest []byte) ([]byte, error)

// jwtFromHSM is jwtBearer with a key that only signs. x/oauth2 takes the key's bytes for that flow, so the assertion (RFC
// 7523, section 2.1) is made here.
func jwtFromHSM(ctx context.Context, a Auth, tokenURL string, sign signer) (oauth2.TokenSource, error) {
	text, err := a.unsigned(time.Now())
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte(text))
	value, err := sign(ctx, a.HSMKey, digest[:])
	if err != nil {
		e := &Error{class: passing, after: edgePause, cause: fmt.Errorf("auth.hsm_key: %w", err), cure: "see that the HSM is there, and check login_keys." + a.HSMKey + " in dealseal.yaml"}
		if deal.IsPermanent(err) {
			e.class, e.after = permanent, 0
		}
		return nil, e
	}
	conf := &clientcredentials.Config{
		TokenURL: tokenURL, AuthStyle: oauth2.AuthStyleInParams,
		EndpointParams: url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {text + "." + base64.RawURLEncoding.EncodeToString(value)}},
	}
	return conf.TokenSource(ctx), nil
}

// unsigned is the assertion without its signature.
func (a Auth) unsigned(now time.Time) (string, error) {
	claims, err := json.Marshal(map[string]any{"iss": a.ConsumerKey, "sub": a.Username, "aud": a.Audience, "exp": now.Add(assertionLife).Unix()})
	if err != nil {
		return "", err
	}
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part(claims), nil
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

// loginTransport binds the one request of a login to the login's context and bounds the reply. It keeps the network's
// error, which x/oauth2 flattens into a text with the URL.
type loginTransport struct {
	ctx    context.Context
	base   http.RoundTripper
	failed error
}

func (t *loginTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req.Clone(t.ctx))
	if err != nil {
		t.failed = noAnswer(t.ctx, err)
		return nil, t.failed
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxTokenReply)
	return resp, nil
}

// loginError judges a failed login. The reply's own words may quote anything and are not repeated.
func loginError(failed, err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case failed != nil:
		return failed
	case errors.As(err, &refused) && refused.Response != nil:
		return oauthFailure(refused.Response.StatusCode, refused.Response.Header, refused.Body)
	case strings.Contains(err.Error(), "private key"):
		return refuse("auth.private_key is no RSA private key in PEM without a passphrase")
	default:
		return malformed("it is no answer to a login")
	}
}

// oauthRules are phrases of descriptions that Salesforce gives, and what they ask for.
var oauthRules = []struct {
	phrase string
	rule   rule
}{
	{"user hasn't approved this consumer", rule{permanent, 0, "pre-authorise the integration user: set the app's policy to admin-approved users and assign its permission set"}},
	{"udience", rule{permanent, 0, "auth.audience is wrong: https://login.salesforce.com for production, https://test.salesforce.com for a sandbox"}},
	{"invalid assertion", rule{permanent, 0, "the key does not fit the certificate uploaded to the app, or this machine's clock is wrong"}},
	{"user is inactive", rule{permanent, 0, "activate the integration user, or check auth.username"}},
	{"no client credentials user enabled", rule{permanent, 0, "name a run-as user in the app's client-credentials flow"}},
	{"app must be installed into org", rule{permanent, 0, "install the app in the org, or use an External Client App"}},
	{"login rate exceeded", rule{passing, loginPause, "too many logins in an hour"}},
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
	if r, known := codes[e.Code]; known && r.class == passing || e.Code == "REQUEST_LIMIT_EXCEEDED" {
		return e
	}
	r := rule{permanent, 0, "check auth: consumer_key, username, the key or secret, and the app's policies in Salesforce"}
	for _, known := range oauthRules {
		if strings.Contains(said.Description, known.phrase) {
			r = known.rule
			break
		}
	}
	e.class, e.after, e.cure = r.class, r.after, r.cure
	e.revoked = strings.Contains(said.Description, "user is inactive") || strings.Contains(said.Description, "app must be installed into org") ||
		strings.Contains(said.Description, "expired access/refresh token")
	return e
}
