package hubspot

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Token is a static bearer token: a service key or the token of a private app.
type Token struct {
	Value  string
	Name   string   // of the key or app, shown in histories; default "Private app"
	AppID  string   // shown in histories; default 1160452
	Scopes []string // nil means every scope of AllScopes
}

// OAuthApp is an OAuth app that somebody has installed in the portal.
type OAuthApp struct {
	ClientID, ClientSecret string
	RefreshToken           string
	AppID                  string   // default 2260563
	Scopes                 []string // nil means every scope of AllScopes
	// RotateRefreshTokens answers each refresh with a new refresh token and
	// forgets the one that was used.
	RotateRefreshTokens bool
}

// AllScopes lists the scopes that the portal's routes ask for.
func AllScopes() []string {
	out := []string{"oauth", "crm.objects.owners.read", "crm.schemas.deals.read", "crm.schemas.deals.write", "crm.schemas.quotes.read", "crm.schemas.quotes.write", "files", "automation"}
	for _, name := range []string{"deals", "quotes", "contacts", "companies", "line_items"} {
		out = append(out, "crm.objects."+name+".read", "crm.objects."+name+".write")
	}
	return out
}

// tokenLifetime is that of an OAuth access token.
const tokenLifetime = 30 * time.Minute

// accessToken is what a bearer token stands for.
type accessToken struct {
	app, name string
	scopes    []string
	oauth     bool
	expires   time.Time // of OAuth tokens
}

type authority struct {
	app     *OAuthApp
	refresh string // the refresh token that is valid now, empty when revoked
	tokens  map[string]*accessToken
}

func newAuthority(o Options) authority {
	a := authority{tokens: map[string]*accessToken{}}
	for _, t := range o.Tokens {
		scopes := t.Scopes
		if scopes == nil {
			scopes = AllScopes()
		}
		a.tokens[t.Value] = &accessToken{app: orDefault(t.AppID, "1160452"), name: orDefault(t.Name, "Private app"), scopes: scopes}
	}
	if o.OAuth != nil {
		app := *o.OAuth
		if app.Scopes == nil {
			app.Scopes = AllScopes()
		}
		app.AppID = orDefault(app.AppID, "2260563")
		a.app, a.refresh = &app, app.RefreshToken
	}
	return a
}

// authorise finds out who calls and whether the token may do it.
func (c *call) authorise(need access) *reply {
	if need == public {
		return nil
	}
	value, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	t := c.p.auth.tokens[value]
	if !ok || t == nil {
		return unauthenticated()
	}
	if now := c.p.now(); t.oauth && !now.Before(t.expires) {
		return tokenExpired(int(now.Sub(t.expires) / time.Minute))
	}
	c.token = t
	var missing []string
	for _, alternatives := range c.scopes(need) {
		if !slices.ContainsFunc(alternatives, func(s string) bool { return slices.Contains(t.scopes, s) }) {
			missing = append(missing, alternatives[0])
		}
	}
	if missing != nil {
		return missingScopes(missing)
	}
	return nil
}

// scopes lists what a call needs: one scope of every element.
func (c *call) scopes(need access) [][]string {
	switch need {
	case objectRead, objectWrite:
		return c.objectScopes(need)
	case schemaRead:
		return [][]string{{c.schemaScope() + ".read", "crm.objects." + strings.TrimPrefix(c.schemaScope(), "crm.schemas.") + ".read"}}
	case schemaWrite:
		return [][]string{{c.schemaScope() + ".write"}}
	case ownersRead:
		return [][]string{{"crm.objects.owners.read"}}
	case filesRead:
		return [][]string{{"files", "files.read"}}
	case filesWrite:
		return [][]string{{"files", "files.write"}}
	case automation:
		return [][]string{{"automation"}}
	}
	return nil
}

// schemaScope is what lets an app see and make properties: quotes have one of their own, all else is asked for as of deals.
func (c *call) schemaScope() string {
	if t := c.p.objects[c.r.PathValue("type")]; t != nil && t.plural == "quotes" {
		return "crm.schemas.quotes"
	}
	return "crm.schemas.deals"
}

func (c *call) objectScopes(need access) [][]string {
	verb := ".read"
	if need == objectWrite {
		verb = ".write"
	}
	var out [][]string
	names := append([]string{c.r.PathValue("type"), c.r.PathValue("to")}, c.params("associations")...)
	for _, name := range names {
		if t := c.p.objects[name]; t != nil {
			out = append(out, []string{"crm.objects." + t.scope + verb})
		}
	}
	return out
}

func oauthError(code, description, status string) *reply {
	return respond(http.StatusBadRequest, map[string]string{
		"error": code, "error_description": description, "status": status, "message": description,
	})
}

// tokenForm reads the form of a token endpoint and checks the client. Only the
// oldest version takes it from the query string.
func (c *call) tokenForm() (url.Values, *reply) {
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return nil, oauthError("invalid_request", "the body is not a form", "BAD_REQUEST")
	}
	if c.version == "v1" {
		for name, v := range c.r.URL.Query() {
			if !form.Has(name) {
				form[name] = v
			}
		}
	}
	a := c.p.auth.app
	if a == nil || form.Get("client_id") != a.ClientID {
		return nil, oauthError("invalid_client", "missing or unknown client id", "BAD_CLIENT_ID")
	}
	if subtle.ConstantTimeCompare([]byte(form.Get("client_secret")), []byte(a.ClientSecret)) == 0 {
		return nil, oauthError("invalid_client", "missing or invalid client secret", "BAD_CLIENT_SECRET")
	}
	return form, nil
}

func (c *call) issueToken() *reply {
	form, bad := c.tokenForm()
	if bad != nil {
		return bad
	}
	if grant := form.Get("grant_type"); grant != "refresh_token" {
		return oauthError("unsupported_grant_type", "the grant type is not supported", "BAD_GRANT_TYPE")
	}
	a := &c.p.auth
	if a.refresh == "" || form.Get("refresh_token") != a.refresh {
		return oauthError("invalid_grant", "refresh token is invalid, expired or revoked", "BAD_REFRESH_TOKEN")
	}
	if a.app.RotateRefreshTokens {
		a.refresh = "na1-" + uuid()
	}
	value := "C" + strings.ReplaceAll(uuid(), "-", "")
	a.tokens[value] = &accessToken{app: a.app.AppID, name: "OAuth app", scopes: a.app.Scopes, oauth: true, expires: c.p.now().Add(tokenLifetime)}
	return respond(200, map[string]any{
		"token_type": "bearer", "refresh_token": a.refresh, "access_token": value, "hub_id": c.p.opt.PortalID,
		"scopes": a.app.Scopes, "expires_in": int(tokenLifetime / time.Second),
	})
}

func (c *call) introspect() *reply {
	form, bad := c.tokenForm()
	if bad != nil {
		return bad
	}
	value := orDefault(form.Get("token"), orDefault(form.Get("access_token"), form.Get("refresh_token")))
	a := &c.p.auth
	out := map[string]any{"active": false}
	if t := a.tokens[value]; t != nil && t.oauth && c.p.now().Before(t.expires) {
		out = c.p.describe(t, value)
		out["active"], out["token_use"], out["token_type"] = true, "access_token", "Bearer"
		out["client_id"], out["is_private_distribution"] = a.app.ClientID, true
	} else if value != "" && value == a.refresh {
		out = map[string]any{
			"active": true, "token": value, "hub_id": c.p.opt.PortalID, "client_id": a.app.ClientID, "scopes": a.app.Scopes,
			"token_use": "refresh_token", "token_type": "Bearer",
		}
	}
	return respond(200, out)
}

func (p *Portal) describe(t *accessToken, value string) map[string]any {
	return map[string]any{
		"token": value, "user": "admin@example.com", "user_id": 12345, "hub_domain": "example.com", "hub_id": p.opt.PortalID,
		"app_id": json.Number(t.app), "scopes": t.scopes, "expires_in": int(t.expires.Sub(p.now()) / time.Second),
	}
}

func (c *call) describeToken() *reply {
	value := c.r.PathValue("token")
	t := c.p.auth.tokens[value]
	if t == nil || !t.oauth || !c.p.now().Before(t.expires) {
		return fail(404, envelope{Message: "The access token is invalid or expired."})
	}
	out := c.p.describe(t, value)
	out["token_type"] = "access"
	return respond(200, out)
}

// tokenInfo tells of the token of a private app, whose body names it once more. Of keys of services it knows nothing.
func (c *call) tokenInfo() *reply {
	var in struct {
		TokenKey string `json:"tokenKey"`
	}
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	t := c.p.auth.tokens[in.TokenKey]
	if t == nil || t.oauth {
		return fail(404, envelope{Message: "The token is not that of a private app."})
	}
	return respond(200, map[string]any{"userId": 12345, "hubId": c.p.opt.PortalID, "appId": json.Number(t.app), "scopes": t.scopes})
}

func (c *call) revoke() *reply {
	form, bad := c.tokenForm()
	if bad != nil {
		return bad
	}
	a, value := &c.p.auth, form.Get("token")
	if t := a.tokens[value]; t != nil && t.oauth {
		delete(a.tokens, value)
	}
	if value != "" && value == a.refresh {
		a.refresh = ""
	}
	return respond(200, map[string]any{})
}
