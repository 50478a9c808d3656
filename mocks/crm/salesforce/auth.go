package salesforce

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// assertionLife is how far ahead the expiry of a JWT assertion may lie.
const assertionLife = 5 * time.Minute

// maxForm is the size of a token request that is read.
const maxForm = 64 << 10

// session is an access token's state.
type session struct {
	user   string
	issued time.Time
	used   time.Time
	family string // of the refresh token that it came from
	scope  string
}

// grant is a refresh token. With rotation a spent one is kept, so that its
// second use is recognised.
type grant struct {
	family string
	spent  bool
}

// code is an authorization code that waits for its exchange.
type code struct{ redirect, challenge string }

func (o *Org) oauthEndpoint(c *call, name string) (endpoint, string) {
	switch name {
	case "token":
		return pick(c, methods{"POST": {KindToken, true, (*call).token}})
	case "authorize":
		return pick(c, methods{"GET": {KindAuthorize, true, (*call).authorize}})
	case "introspect":
		return pick(c, methods{"POST": {KindIntrospect, true, (*call).introspect}})
	case "revoke":
		return pick(c, methods{"POST": {KindRevoke, true, (*call).revoke}, "GET": {KindRevoke, true, (*call).revoke}})
	case "userinfo":
		return pick(c, methods{"GET": {KindUserInfo, true, (*call).userInfo}, "POST": {KindUserInfo, true, (*call).userInfo}})
	}
	return endpoint{kind: KindUnknown}, ""
}

func oauthError(status int, name, description string) reply {
	return jsonReply(status, ordered{{"error", name}, {"error_description", description}})
}

// form reads the parameters of a request from its body and its address.
func (c *call) form() (url.Values, bool) {
	v := c.r.URL.Query()
	if c.r.Body == nil {
		return v, true
	}
	b, err := io.ReadAll(http.MaxBytesReader(nil, c.r.Body, maxForm))
	if err != nil {
		return nil, false
	}
	body, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, false
	}
	for k := range body {
		v[k] = body[k]
	}
	return v, true
}

func (c *call) token() reply {
	v, ok := c.form()
	if !ok {
		return oauthError(400, "invalid_request", "malformed request")
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	switch v.Get("grant_type") {
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		return c.jwtBearer(v)
	case "client_credentials":
		return c.clientCredentials(v)
	case "refresh_token":
		return c.refresh(v)
	case "authorization_code":
		return c.exchangeCode(v)
	case "":
		return oauthError(400, "invalid_request", "missing required parameter: grant_type")
	}
	return oauthError(400, "unsupported_grant_type", "grant type not supported")
}

func (c *call) jwtBearer(v url.Values) reply {
	claims, ok := c.o.verifyAssertion(v.Get("assertion"))
	switch {
	case !ok:
		return oauthError(400, "invalid_grant", "invalid assertion")
	case claims.Issuer != c.o.opt.ConsumerKey:
		return oauthError(400, "invalid_client_id", "client identifier invalid")
	case !c.audienceValid(claims.Audience):
		return oauthError(400, "invalid_grant", "audience is invalid")
	case claims.Subject != c.o.opt.Username:
		return oauthError(400, "invalid_grant", "user hasn't approved this consumer")
	case !c.o.expiryValid(claims.Expiry):
		return oauthError(400, "invalid_grant", "invalid assertion")
	}
	return jsonReply(200, c.grantToken("", "api id"))
}

// claims of an assertion. Clients write the expiry as a number or a string.
type claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Expiry   any    `json:"exp"`
}

func (o *Org) verifyAssertion(assertion string) (claims, bool) {
	var cl claims
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 || o.opt.PublicKey == nil {
		return cl, false
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	if !decodePart(parts[0], &header) || header.Algorithm != "RS256" {
		return cl, false
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return cl, false
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(o.opt.PublicKey, crypto.SHA256, digest[:], sig) != nil {
		return cl, false
	}
	return cl, decodePart(parts[1], &cl)
}

func decodePart(part string, v any) bool {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
	if err != nil {
		return false
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	return d.Decode(v) == nil
}

// audienceValid accepts the login hosts and this org's own address.
func (c *call) audienceValid(aud string) bool {
	aud = strings.TrimSuffix(aud, "/")
	valid := []string{"https://login.salesforce.com", "https://test.salesforce.com", c.instanceURL(), "https://" + c.r.Host, "http://" + c.r.Host}
	return slices.Contains(valid, aud)
}

// expiryValid takes seconds, or the milliseconds that some clients send and
// the real service puts up with.
func (o *Org) expiryValid(exp any) bool {
	n, err := strconv.ParseFloat(fmt.Sprint(exp), 64)
	if err != nil {
		return false
	}
	now := o.now()
	earliest := now
	if n > 1e11 {
		// Salesforce's own CLI adds 300 to them, for which it means seconds: a third of a second, which no network keeps.
		n, earliest = n/1000, now.Add(-assertionLife)
	}
	if n <= 0 || n > 1e11 {
		return false
	}
	at := time.Unix(int64(n), 0)
	return at.After(earliest) && !at.After(now.Add(assertionLife))
}

// clientValid checks client_id and client_secret from the form or HTTP Basic.
func (c *call) clientValid(v url.Values, needSecret bool) bool {
	id, secret := v.Get("client_id"), v.Get("client_secret")
	if user, pass, ok := c.r.BasicAuth(); ok {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(pass)
	}
	if id == "" || id != c.o.opt.ConsumerKey {
		return false
	}
	if secret == "" && !needSecret {
		return true
	}
	want := c.o.opt.ClientSecret
	return want != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1
}

func (c *call) clientCredentials(v url.Values) reply {
	if c.o.opt.ClientSecret == "" {
		return oauthError(400, "invalid_request", "no client credentials user enabled")
	}
	if !c.clientValid(v, true) {
		return oauthError(400, "invalid_client", "invalid client credentials")
	}
	return jsonReply(200, append(c.grantToken("", "api id"), c.issued()...))
}

func (c *call) refresh(v url.Values) reply {
	if !c.clientValid(v, false) {
		return oauthError(400, "invalid_client", "invalid client credentials")
	}
	g := c.o.grants[v.Get("refresh_token")]
	if g == nil {
		return oauthError(400, "invalid_grant", "expired access/refresh token")
	}
	if g.spent {
		c.o.revokeFamily(g.family)
		return oauthError(400, "invalid_grant", "expired access/refresh token")
	}
	body := append(c.grantToken(g.family, "api refresh_token id"), c.issued()...)
	if c.o.opt.RotateRefreshTokens {
		g.spent = true
		body = append(body, member{"refresh_token", c.o.newGrant(g.family)})
	}
	return jsonReply(200, body)
}

// newGrant makes a refresh token; an empty family starts one.
func (o *Org) newGrant(family string) string {
	token := "5Aep861" + randomText(72)
	if family == "" {
		family = token
	}
	o.grants[token] = &grant{family: family}
	return token
}

// revokeFamily ends all that one user's approval has led to.
func (o *Org) revokeFamily(family string) {
	for token, g := range o.grants {
		if g.family == family {
			delete(o.grants, token)
		}
	}
	for token, s := range o.sessions {
		if s.family == family {
			delete(o.sessions, token)
		}
	}
}

func (c *call) authorize() reply {
	v, _ := c.form()
	redirect, err := url.Parse(v.Get("redirect_uri"))
	if err != nil || redirect.Host == "" || v.Get("client_id") != c.o.opt.ConsumerKey || v.Get("response_type") != "code" {
		return oauthError(400, "invalid_request", "invalid client, response type or redirect address")
	}
	c.o.mu.Lock()
	name := "aPrx" + randomText(40)
	c.o.codes[name] = code{redirect: v.Get("redirect_uri"), challenge: v.Get("code_challenge")}
	c.o.mu.Unlock()
	q := redirect.Query()
	q.Set("code", name)
	if s := v.Get("state"); s != "" {
		q.Set("state", s)
	}
	redirect.RawQuery = q.Encode()
	return reply{status: http.StatusFound}.with("Location", redirect.String())
}

func (c *call) exchangeCode(v url.Values) reply {
	if !c.clientValid(v, false) {
		return oauthError(400, "invalid_client", "invalid client credentials")
	}
	given, ok := c.o.codes[v.Get("code")]
	delete(c.o.codes, v.Get("code"))
	if !ok {
		return oauthError(400, "invalid_grant", "invalid authorization code")
	}
	if given.redirect != v.Get("redirect_uri") {
		return oauthError(400, "redirect_uri_mismatch", "redirect_uri must match configuration")
	}
	sum := sha256.Sum256([]byte(v.Get("code_verifier")))
	if given.challenge != "" && base64.RawURLEncoding.EncodeToString(sum[:]) != given.challenge {
		return oauthError(400, "invalid_grant", "invalid code verifier")
	}
	token := c.o.newGrant("")
	body := append(c.grantToken(token, "api refresh_token id"), c.issued()...)
	return jsonReply(200, append(body, member{"refresh_token", token}))
}

// grantToken opens a session and returns the members common to all flows.
func (c *call) grantToken(family, scope string) ordered {
	token := c.o.orgID[:15] + "!AQ" + randomText(94)
	now := c.o.now()
	c.o.sessions[token] = &session{user: c.o.integration, issued: now, used: now, family: family, scope: scope}
	return ordered{{"access_token", token}, {"scope", scope}, {"instance_url", c.instanceURL()}, {"id", c.identityURL()}, {"token_type", "Bearer"}}
}

// issued are the members that prove to the client where the token comes from.
func (c *call) issued() ordered {
	at := strconv.FormatInt(c.o.now().UnixMilli(), 10)
	mac := hmac.New(sha256.New, []byte(c.o.opt.ClientSecret))
	mac.Write([]byte(c.identityURL() + at))
	return ordered{{"issued_at", at}, {"signature", base64.StdEncoding.EncodeToString(mac.Sum(nil))}}
}

func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	for i := range b {
		b[i] = base62[int(b[i])%62]
	}
	return string(b)
}

// instanceURL is the org's address as this caller sees it.
func (c *call) instanceURL() string {
	if c.o.opt.InstanceURL != "" {
		return strings.TrimSuffix(c.o.opt.InstanceURL, "/")
	}
	scheme := "http"
	if c.r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + c.r.Host
}

func (c *call) identityURL() string {
	return c.instanceURL() + "/id/" + c.o.orgID + "/" + c.o.integration
}

// authenticate finds the session of a request and keeps it alive.
func (o *Org) authenticate(r *http.Request) (user string, ok bool) {
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return o.useToken(token)
}

func (o *Org) useToken(token string) (user string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.sessions[token]
	if s == nil {
		return "", false
	}
	now := o.now()
	if now.Sub(s.used) > o.opt.SessionTimeout {
		delete(o.sessions, token)
		return "", false
	}
	s.used = now
	return s.user, true
}

func (c *call) introspect() reply {
	v, ok := c.form()
	if !ok || !c.clientValid(v, true) {
		return oauthError(401, "invalid_client", "invalid client credentials")
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	s := c.o.sessions[v.Get("token")]
	if s == nil || c.o.now().Sub(s.used) > c.o.opt.SessionTimeout {
		return jsonReply(200, ordered{{"active", false}})
	}
	return jsonReply(200, ordered{
		{"active", true}, {"scope", s.scope}, {"client_id", c.o.opt.ConsumerKey}, {"username", c.o.opt.Username},
		{"sub", c.identityURL()}, {"token_type", "access_token"}, {"exp", s.used.Add(c.o.opt.SessionTimeout).Unix()},
		{"iat", s.issued.Unix()}, {"nbf", s.issued.Unix()},
	})
}

func (c *call) revoke() reply {
	v, ok := c.form()
	if !ok {
		return reply{status: 400, body: []byte("error=invalid_request&error_description=malformed+request")}.with("Content-Type", "application/x-www-form-urlencoded")
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	token := v.Get("token")
	if g := c.o.grants[token]; g != nil {
		c.o.revokeFamily(g.family)
		return reply{status: 200}
	}
	if _, live := c.o.sessions[token]; live {
		delete(c.o.sessions, token)
		return reply{status: 200}
	}
	return reply{status: 400, body: []byte("error=unsupported_token_type&error_description=this+token+type+is+not+supported")}.with("Content-Type", "application/x-www-form-urlencoded")
}

// identified runs an identity endpoint, whose refusals are plain text.
func (c *call) identified(do func(name, email string) any) reply {
	_, ok := c.o.authenticate(c.r)
	if v := c.r.URL.Query().Get("oauth_token"); !ok && v != "" {
		_, ok = c.o.useToken(v)
	}
	if !ok {
		return reply{status: 403, body: []byte("Bad_OAuth_Token")}.with("Content-Type", "text/html;charset=UTF-8")
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	u := c.o.tables["User"].byID[c.o.integration].latest()
	name, _ := u["Name"].(string)
	email, _ := u["Email"].(string)
	return jsonReply(200, do(name, email))
}

func (c *call) userInfo() reply {
	return c.identified(func(name, email string) any {
		return ordered{
			{"sub", c.identityURL()}, {"user_id", c.o.integration}, {"organization_id", c.o.orgID},
			{"preferred_username", c.o.opt.Username}, {"nickname", name}, {"name", name}, {"email", email},
			{"email_verified", true}, {"zoneinfo", c.o.opt.TimeZone}, {"active", true}, {"user_type", "STANDARD"},
			{"language", "en_US"}, {"locale", "en_GB"}, {"urls", c.urls()},
		}
	})
}

func (c *call) identity() reply {
	if id, ok := canonicalID(c.segs[1]); !ok || id != c.o.orgID {
		return reply{status: 403, body: []byte("Wrong_Org")}.with("Content-Type", "text/html;charset=UTF-8")
	}
	return c.identified(func(name, email string) any {
		return ordered{
			{"id", c.identityURL()}, {"asserted_user", true}, {"user_id", c.o.integration}, {"organization_id", c.o.orgID},
			{"username", c.o.opt.Username}, {"nick_name", name}, {"display_name", name}, {"email", email},
			{"email_verified", true}, {"timezone", c.o.opt.TimeZone}, {"active", true}, {"user_type", "STANDARD"},
			{"language", "en_US"}, {"locale", "en_GB"}, {"urls", c.urls()},
		}
	})
}

func (c *call) urls() ordered {
	base := c.instanceURL()
	return ordered{{"custom_domain", base}, {"rest", base + "/services/data/v{version}/"},
		{"sobjects", base + "/services/data/v{version}/sobjects/"}, {"query", base + "/services/data/v{version}/query/"}}
}
