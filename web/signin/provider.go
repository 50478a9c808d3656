package signin

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	// callLimit is how long one call may take, maxAnswer the longest answer in bytes.
	callLimit = 5 * time.Second
	maxAnswer = 256 << 10
	// knownLasts is how long a discovery document counts.
	knownLasts = time.Hour
)

// signatures are those that only the provider can make, whatever others it names.
var signatures = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

// DownError means that the provider cannot be asked, or answers what it should not. Its text is for the log and the check-up.
type DownError struct{ What string }

func (e *DownError) Error() string { return "the OpenID provider cannot be asked: " + e.What }

// RefusedError means that somebody was not let in. Its text is for the log.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "not let in: " + e.Why }

func refused(why string) error { return &RefusedError{Why: why} }

// provider is what the discovery document says (OpenID Connect Discovery 1.0, 3).
type provider struct {
	at       time.Time
	endpoint oauth2.Endpoint
	keys     oidc.KeySet
	verifier *oidc.IDTokenVerifier

	KeysURL     string   `json:"jwks_uri"`
	EndSession  string   `json:"end_session_endpoint"`
	Login       []string `json:"token_endpoint_auth_methods_supported"`
	Challenges  []string `json:"code_challenge_methods_supported"`
	NamesItself bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207, 3
}

// discover returns what is known of the provider, and asks it from time to time.
func (p *Provider) discover(ctx context.Context) (*provider, error) {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if known != nil && p.o.Now().Sub(known.at) < knownLasts {
		return known, nil
	}
	ctx = oidc.ClientContext(ctx, p.client)
	found, err := oidc.NewProvider(ctx, p.o.Issuer)
	if err != nil {
		return nil, discoveryTrouble(err)
	}
	known = &provider{at: p.o.Now(), endpoint: found.Endpoint()}
	if err := found.Claims(known); err != nil {
		return nil, &DownError{"its discovery document is none"}
	}
	known.endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if len(known.Login) > 0 && !slices.Contains(known.Login, "client_secret_basic") {
		known.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	for what, address := range map[string]string{"authorization_endpoint": known.endpoint.AuthURL, "token_endpoint": known.endpoint.TokenURL, "jwks_uri": known.KeysURL} {
		if !private(address) {
			return nil, &DownError{"the " + what + " of its discovery document does not begin with https://"}
		}
	}
	known.keys = oidc.NewRemoteKeySet(oidc.ClientContext(context.Background(), p.client), known.KeysURL)
	known.verifier = oidc.NewVerifier(p.o.Issuer, known.keys, &oidc.Config{ClientID: p.o.ClientID, Now: p.o.Now, SupportedSigningAlgs: signatures})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = known
	return known, nil
}

// private reports whether nobody between us and an address reads along: https, or a server on this machine.
func private(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return false
	}
	at, _ := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || at.IsLoopback())
}

func discoveryTrouble(err error) error {
	var other *oidc.IssuerMismatchError
	if errors.As(err, &other) {
		return &DownError{fmt.Sprintf("it calls itself %s: correct sign_in.issuer, to the letter", clip(other.Discovered))}
	}
	return trouble(err, "its answer is no discovery document")
}

// trouble tells what the network says. What a provider says may hold anything and is told to nobody.
func trouble(err error, otherwise string) error {
	var call *url.Error
	if errors.As(err, &call) {
		return &DownError{clip(call.Err.Error())}
	}
	return &DownError{otherwise}
}

// exchange gives the code for an ID token.
func (p *Provider) exchange(ctx context.Context, known *provider, code, verifier string) (idToken string, err error) {
	secret, err := p.o.Secret()
	if err != nil {
		return "", &DownError{"sign_in.client_secret: " + err.Error()}
	}
	token, err := p.flow(known, secret).Exchange(oidc.ClientContext(ctx, p.client), code, oauth2.VerifierOption(verifier))
	var answer *oauth2.RetrieveError
	switch {
	case errors.As(err, &answer):
		if status := answer.Response.StatusCode; status >= 500 || status == http.StatusTooManyRequests {
			return "", &DownError{"its token endpoint answers " + strconv.Itoa(status)}
		}
		why := "the provider does not take the code: " + word(answer.ErrorCode)
		if answer.ErrorCode == "invalid_client" || answer.ErrorCode == "unauthorized_client" {
			why += ": correct sign_in.client_id and client_secret"
		}
		return "", refused(why)
	case err != nil:
		return "", trouble(err, "the answer of its token endpoint is none")
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return "", refused("the provider gives no ID token for the code: is the scope openid allowed to the client?")
	}
	return raw, nil
}

// verify returns the claims of an ID token that is for us, of now, and of this journey (Core 3.1.3.7).
func (p *Provider) verify(ctx context.Context, known *provider, raw, nonce string) (claims, error) {
	payload, err := known.keys.VerifySignature(ctx, raw)
	if err != nil {
		var call *url.Error
		if errors.As(err, &call) {
			return nil, trouble(err, "")
		}
		return nil, refused("no key of the provider verifies the ID token")
	}
	token, err := known.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, refused(p.misfit(payload, err))
	}
	var c claims
	switch err := token.Claims(&c); {
	case err != nil:
		return nil, refused("the claims of the ID token are none")
	case subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1:
		return nil, refused("the nonce of the ID token is not that of the ticket")
	case c["azp"] != nil && c.text("azp") != p.o.ClientID, c["azp"] == nil && len(token.Audience) > 1:
		return nil, refused("the ID token was made for another client")
	}
	return c, nil
}

// misfit says why an ID token does not count, without what it says: that may be another's, and longer than a log should be.
func (p *Provider) misfit(payload []byte, err error) string {
	var c claims
	var over *oidc.TokenExpiredError
	switch {
	case errors.As(err, &over):
		return "the ID token is expired, or has no end: do the clocks agree?"
	case json.Unmarshal(payload, &c) != nil:
		return "the ID token is none"
	case c.text("iss") != p.o.Issuer:
		return "the ID token is of a different provider than sign_in.issuer"
	case !slices.Contains(c.list("aud"), p.o.ClientID):
		return "the audience of the ID token is not sign_in.client_id"
	case c["nbf"] != nil:
		return "the ID token counts only later (nbf): do the clocks agree?"
	}
	return "the ID token does not count"
}

// LogOut is where people log out at the provider, as far as it was asked and says so (OpenID Connect RP-Initiated Logout 1.0,
// 2.1); empty otherwise. No token is kept that could be shown as a hint, and no address to come back to is named: a provider that
// has not registered it would refuse.
func (p *Provider) LogOut() string {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if known == nil || !private(known.EndSession) {
		return ""
	}
	u, err := url.Parse(known.EndSession)
	if err != nil {
		return ""
	}
	q := u.Query()
	q.Set("client_id", p.o.ClientID)
	u.RawQuery = q.Encode()
	return u.String()
}

// Report is what an examination finds.
type Report struct {
	// Keys is how many keys the provider signs with.
	Keys int
	// NoChallenge is set where it names the methods of PKCE that it takes, and ours is not among them.
	NoChallenge bool
}

// Examine asks the provider for what everybody may see of it, and nobody is signed in.
func (p *Provider) Examine(ctx context.Context) (r Report, err error) {
	release, err := p.place(ctx)
	if err != nil {
		return r, err
	}
	defer release()
	p.mu.Lock()
	p.known = nil // it may have changed
	p.mu.Unlock()
	known, err := p.discover(ctx)
	if err != nil {
		return r, err
	}
	r.NoChallenge = known.Challenges != nil && !slices.Contains(known.Challenges, "S256")
	r.Keys, err = p.countKeys(ctx, known.KeysURL)
	return r, err
}

func (p *Provider) countKeys(ctx context.Context, address string) (int, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, &DownError{"its jwks_uri is no address"}
	}
	resp, err := p.client.Do(ask)
	if err != nil {
		return 0, trouble(err, "")
	}
	defer resp.Body.Close()
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || len(set.Keys) == 0 {
		return 0, &DownError{"there are no keys at its jwks_uri"}
	}
	return len(set.Keys), nil
}

// newClient calls the provider and nobody else.
func newClient(roots *x509.CertPool) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	t.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{Transport: bounded{t}, Timeout: callLimit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// bounded reads each answer to its end, which must come, so that whatever is wrong with one is an error of the call.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && r.Method == http.MethodGet || resp.StatusCode/100 == 3 {
		return nil, errors.New(r.URL.Path + " answers " + strconv.Itoa(resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("%s answers with more than %d KiB", r.URL.Path, maxAnswer>>10)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// word is an error code as RFC 6749 has them, or something that says that it is none.
func word(code string) string {
	odd := func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }
	if code == "" || len(code) > 40 || strings.ContainsFunc(code, odd) {
		return "something that is no error code"
	}
	return code
}
