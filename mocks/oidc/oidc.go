// Package oidc is an OpenID provider for tests: it speaks the wire (discovery, authorization code flow with PKCE, keys), is
// as strict with its client as the real ones, and misbehaves on demand.
package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is how the provider goes wrong.
type Fault string

// What goes wrong.
const (
	Down        Fault = "down"         // 503 from everything
	Hang        Fault = "hang"         // no answer, until the client goes away
	Huge        Fault = "huge"         // answers without an end
	Redirect    Fault = "redirect"     // elsewhere
	Garbage     Fault = "garbage"      // answers that are none
	NoKeys      Fault = "no-keys"      // 503 from the keys alone
	OtherKey    Fault = "other-key"    // tokens are signed with a key that is not among the provider's
	Unsigned    Fault = "unsigned"     // tokens with alg none
	SharedKey   Fault = "shared-key"   // tokens signed with HS256 and the client's secret
	OtherState  Fault = "other-state"  // people come back with another state
	OtherIssuer Fault = "other-issuer" // they come back in the name of another provider (RFC 9207)
	Denied      Fault = "denied"       // they come back with an error
	OtherName   Fault = "other-name"   // the discovery document is that of another provider
	PlainOnly   Fault = "plain-only"   // no S256 among the methods of PKCE
	Elsewhere   Fault = "elsewhere"    // the token endpoint is reached in plain text
)

// Canary stands in every token and in what goes wrong, so that a log that tells of one is seen.
const Canary = "canary-7f3b91"

// Provider is one with one client. Its fields may be set before it is used; the methods are safe for concurrent use.
type Provider struct {
	// Issuer is the address that it is served at.
	Issuer string
	// ClientID, ClientSecret and RedirectURI are those of its client.
	ClientID, ClientSecret, RedirectURI string
	// PostOnly has the client show its secret in the body instead of the header.
	PostOnly bool
	// EndSession is where people log out, if it says so.
	EndSession string
	// Now is its clock; time.Now when nil.
	Now func() time.Time

	once sync.Once
	key  *ecdsa.PrivateKey

	mu     sync.Mutex
	fault  Fault
	claims map[string]any
	codes  map[string]*grant
	calls  map[string]int
}

// grant is what a code is good for.
type grant struct {
	challenge, nonce string
	used             bool
}

// Say has a person with these claims at the browser from now on. What stands in them replaces what the provider would
// say itself; nil takes it out.
func (p *Provider) Say(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims = maps.Clone(claims)
}

// Break has it go wrong from now on; an empty fault mends it.
func (p *Provider) Break(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Calls is how often a path was asked.
func (p *Provider) Calls(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[path]
}

func (p *Provider) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

// signer is made when it is first needed.
func (p *Provider) signer() *ecdsa.PrivateKey {
	p.once.Do(func() { p.key = newKey() })
	return p.key
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // the system has no random numbers
	}
	return key
}

func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	if p.calls == nil {
		p.calls, p.codes = map[string]int{}, map[string]*grant{}
	}
	p.calls[r.URL.Path]++
	fault := p.fault
	p.mu.Unlock()
	switch fault {
	case Down:
		http.Error(w, Canary+" is away", http.StatusServiceUnavailable)
		return
	case Hang:
		<-r.Context().Done()
		return
	case Redirect:
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		return
	case Garbage:
		_, _ = w.Write([]byte("<html>" + Canary))
		return
	case Huge:
		huge(w)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		p.discovery(w, fault)
	case "/keys":
		p.keys(w, fault)
	case "/authorize":
		p.authorize(w, r, fault)
	case "/token":
		p.token(w, r, fault)
	default:
		http.NotFound(w, r)
	}
}

func huge(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	for {
		if _, err := w.Write([]byte(strings.Repeat(" ", 32<<10))); err != nil {
			return
		}
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client has gone
}

func (p *Provider) discovery(w http.ResponseWriter, fault Fault) {
	auth, pkce, issuer, token := []string{"client_secret_basic", "client_secret_post"}, []string{"plain", "S256"}, p.Issuer, p.Issuer+"/token"
	if p.PostOnly {
		auth = auth[1:]
	}
	switch fault {
	case PlainOnly:
		pkce = pkce[:1]
	case OtherName:
		issuer = "https://other.example"
	case Elsewhere:
		token = "http://token.example/token"
	}
	said := map[string]any{"issuer": issuer, "authorization_endpoint": p.Issuer + "/authorize", "token_endpoint": token, "jwks_uri": p.Issuer + "/keys",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"},
		"token_endpoint_auth_methods_supported": auth, "code_challenge_methods_supported": pkce, "authorization_response_iss_parameter_supported": true}
	if p.EndSession != "" {
		said["end_session_endpoint"] = p.EndSession
	}
	answer(w, http.StatusOK, said)
}

func (p *Provider) keys(w http.ResponseWriter, fault Fault) {
	if fault == NoKeys {
		http.Error(w, Canary, http.StatusServiceUnavailable)
		return
	}
	point, err := p.signer().PublicKey.Bytes()
	if err != nil {
		panic(err) // the key was made here
	}
	answer(w, http.StatusOK, map[string]any{"keys": []map[string]string{{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "one", "alg": "ES256", "x": encode(point[1:33]), "y": encode(point[33:])}}})
}

// authorize lets the person at the browser in at once.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request, fault Fault) {
	q := r.URL.Query()
	if q.Get("client_id") != p.ClientID || q.Get("redirect_uri") != p.RedirectURI || q.Get("response_type") != "code" || !slices.Contains(strings.Fields(q.Get("scope")), "openid") {
		http.Error(w, "this client is not known, or asks for something else", http.StatusBadRequest)
		return
	}
	back := url.Values{"state": {q.Get("state")}, "iss": {p.Issuer}}
	switch {
	case fault == Denied || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("state") == "" || q.Get("nonce") == "":
		back.Set("error", "access_denied")
		back.Set("error_description", Canary)
	default:
		code := rand.Text() + Canary
		p.mu.Lock()
		p.codes[code] = &grant{challenge: q.Get("code_challenge"), nonce: q.Get("nonce")}
		p.mu.Unlock()
		back.Set("code", code)
	}
	switch fault {
	case OtherState:
		back.Set("state", rand.Text())
	case OtherIssuer:
		back.Set("iss", "https://other.example")
	}
	http.Redirect(w, r, p.RedirectURI+"?"+back.Encode(), http.StatusFound)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request, fault Fault) {
	refuse := func(status int, code string) {
		answer(w, status, map[string]string{"error": code, "error_description": Canary})
	}
	if r.ParseForm() != nil || r.Method != http.MethodPost {
		refuse(http.StatusBadRequest, "invalid_request")
		return
	}
	id, secret, basic := r.BasicAuth()
	if p.PostOnly == basic {
		refuse(http.StatusUnauthorized, "invalid_client")
		return
	}
	if !basic {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	if basic { // RFC 6749, 2.3.1: what stands in the header is encoded as in a form
		id, secret = unescape(id), unescape(secret)
	}
	if id != p.ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(p.ClientSecret)) != 1 {
		refuse(http.StatusUnauthorized, "invalid_client")
		return
	}
	challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	p.mu.Lock()
	g := p.codes[r.PostForm.Get("code")]
	good := g != nil && !g.used && g.challenge == encode(challenge[:]) && r.PostForm.Get("redirect_uri") == p.RedirectURI && r.PostForm.Get("grant_type") == "authorization_code"
	if good {
		g.used = true
	}
	p.mu.Unlock()
	if !good {
		refuse(http.StatusBadRequest, "invalid_grant")
		return
	}
	answer(w, http.StatusOK, map[string]any{"access_token": "access-" + Canary, "refresh_token": "refresh-" + Canary, "token_type": "Bearer", "expires_in": 300, "id_token": p.mint(g.nonce, fault)})
}

func unescape(text string) string {
	text, _ = url.QueryUnescape(text)
	return text
}

// mint makes the ID token of the person at the browser.
func (p *Provider) mint(nonce string, fault Fault) string {
	now := p.now()
	claims := map[string]any{"iss": p.Issuer, "aud": p.ClientID, "sub": "24400320", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": nonce, "note": Canary}
	p.mu.Lock()
	for name, value := range p.claims {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	p.mu.Unlock()
	key, alg := p.signer(), "ES256"
	switch fault {
	case OtherKey:
		key = newKey()
	case Unsigned:
		alg = "none"
	case SharedKey:
		alg = "HS256"
	}
	return sign(key, alg, p.ClientSecret, claims)
}

// sign makes a compact JWS (RFC 7515).
func sign(key *ecdsa.PrivateKey, alg, shared string, claims map[string]any) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // the test has put in what is no JSON
		}
		return encode(b)
	}
	signed := part(map[string]string{"alg": alg, "kid": "one", "typ": "JWT"}) + "." + part(claims)
	switch alg {
	case "none":
		return signed + "."
	case "HS256":
		return signed + "." + encode(hmacOf(shared, signed))
	}
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		panic(err) // the system has no random numbers
	}
	return signed + "." + encode(append(fixed(r), fixed(s)...))
}

func hmacOf(key, text string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(text))
	return h.Sum(nil)
}

func fixed(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) }

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
