package salesforce

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const bearerGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"

func TestJWTBearerAnswersWithTheDocumentedMembers(t *testing.T) {
	w := newWire(t, Options{})
	res := w.form("/services/oauth2/token", url.Values{"grant_type": {bearerGrant}, "assertion": {w.assertion("RS256", nil)}, "unknown": {"x"}}).want(200, "")
	body := res.object()
	want := []string{"access_token", "id", "instance_url", "scope", "token_type"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(body))); diff != "" {
		t.Error(diff)
	}
	if body["instance_url"] != w.url || body["id"] != w.url+"/id/"+w.org.ID()+"/"+w.org.integration {
		t.Errorf("body = %v", body)
	}
}

func TestJWTBearerAssertionIsChecked(t *testing.T) {
	w := newWire(t, Options{})
	now := w.clock.now()
	for _, tc := range []struct {
		name    string
		alg     string
		changes map[string]any
		want    string // error and description; empty: accepted
	}{
		{"test audience", "RS256", map[string]any{"aud": "https://test.salesforce.com"}, ""},
		{"own address with a slash", "RS256", map[string]any{"aud": w.url + "/"}, ""},
		{"expiry as text", "RS256", map[string]any{"exp": fmt.Sprint(now.Add(time.Minute).Unix())}, ""},
		{"expiry in milliseconds", "RS256", map[string]any{"exp": now.Add(time.Minute).UnixMilli()}, ""},
		{"expired", "RS256", map[string]any{"exp": now.Add(-time.Second).Unix()}, "invalid_grant invalid assertion"},
		{"expiry too far", "RS256", map[string]any{"exp": now.Add(time.Hour).Unix()}, "invalid_grant invalid assertion"},
		{"no expiry", "RS256", map[string]any{"exp": nil}, "invalid_grant invalid assertion"},
		{"other audience", "RS256", map[string]any{"aud": "https://example.com"}, "invalid_grant audience is invalid"},
		{"other user", "RS256", map[string]any{"sub": "x@y.z"}, "invalid_grant user hasn't approved this consumer"},
		{"other consumer", "RS256", map[string]any{"iss": "other"}, "invalid_client_id client identifier invalid"},
		{"other algorithm", "none", nil, "invalid_grant invalid assertion"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res := w.form("/services/oauth2/token", url.Values{"grant_type": {bearerGrant}, "assertion": {w.assertion(tc.alg, tc.changes)}})
			body := res.object()
			if tc.want == "" {
				if res.status != 200 {
					t.Errorf("refused: %s", res.body)
				}
				return
			}
			if got := line(body["error"], body["error_description"]); res.status != 400 || got != tc.want {
				t.Errorf("status %d %q, want 400 %q", res.status, got, tc.want)
			}
		})
	}
	tampered := w.assertion("RS256", nil)
	tampered = tampered[:len(tampered)-8] + "AAAAAAAA"
	w.form("/services/oauth2/token", url.Values{"grant_type": {bearerGrant}, "assertion": {tampered}}).want(400, "")
}

func TestClientCredentialsTakeSecretFromFormOrBasic(t *testing.T) {
	w := newWire(t, Options{})
	basic := base64.StdEncoding.EncodeToString([]byte("3MVG9consumer:s3cret"))
	res := w.form("/services/oauth2/token", url.Values{"grant_type": {"client_credentials"}}, "Authorization", "Basic "+basic).want(200, "")
	if body := res.object(); body["issued_at"] == nil || body["signature"] == nil {
		t.Errorf("body = %v", body)
	}
	res = w.form("/services/oauth2/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"3MVG9consumer"}, "client_secret": {"wrong"}}).want(400, "")
	if res.object()["error"] != "invalid_client" {
		t.Errorf("body = %s", res.body)
	}
	if res := w.form("/services/oauth2/token", url.Values{"grant_type": {"password"}}).want(400, ""); res.object()["error"] != "unsupported_grant_type" {
		t.Errorf("body = %s", res.body)
	}
}

func TestSpentRefreshTokenRevokesItsSuccessors(t *testing.T) {
	w := newWire(t, Options{RotateRefreshTokens: true, RefreshToken: "first"})
	refresh := func(token string) response {
		return w.form("/services/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"3MVG9consumer"}, "client_secret": {"s3cret"}})
	}
	body := refresh("first").want(200, "").object()
	second := body["refresh_token"].(string)
	w.token = body["access_token"].(string)
	w.ask("SELECT Id FROM Account").want(200, "")

	refresh("first").want(400, "")
	refresh(second).want(400, "")
	w.ask("SELECT Id FROM Account").want(401, "INVALID_SESSION_ID")
}

func TestRefreshTokenStaysWithoutRotation(t *testing.T) {
	w := newWire(t, Options{RefreshToken: "first"})
	for range 2 {
		body := w.form("/services/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"first"}, "client_id": {"3MVG9consumer"}}).want(200, "").object()
		if body["refresh_token"] != nil {
			t.Errorf("a refresh token was returned")
		}
	}
}

func TestAuthorizationCodeNeedsItsVerifier(t *testing.T) {
	w := newWire(t, Options{})
	sum := sha256.Sum256([]byte("verifier"))
	get := func() string {
		q := url.Values{"response_type": {"code"}, "client_id": {"3MVG9consumer"}, "redirect_uri": {"http://localhost/cb"}, "state": {"s"},
			"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}}
		c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		res, err := c.Get(w.url + "/services/oauth2/authorize?" + q.Encode())
		w.ok(err)
		defer res.Body.Close()
		to, err := res.Location()
		w.ok(err)
		if to.Query().Get("state") != "s" {
			t.Errorf("redirected to %s", to)
		}
		return to.Query().Get("code")
	}
	exchange := func(verifier string) response {
		return w.form("/services/oauth2/token", url.Values{"grant_type": {"authorization_code"}, "code": {get()}, "client_id": {"3MVG9consumer"},
			"redirect_uri": {"http://localhost/cb"}, "code_verifier": {verifier}})
	}
	if exchange("verifier").want(200, "").object()["refresh_token"] == nil {
		t.Error("no refresh token")
	}
	exchange("other").want(400, "")
}

func TestSessionEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*wire)
	}{
		{"killed", func(w *wire) { w.org.KillSessions() }},
		{"idle", func(w *wire) { w.clock.advance(2*time.Hour + time.Second) }},
		{"revoked", func(w *wire) { w.form("/services/oauth2/revoke", url.Values{"token": {w.token}}).want(200, "") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWire(t, Options{})
			w.clock.advance(90 * time.Minute)
			w.ask("SELECT Id FROM Account").want(200, "")
			w.clock.advance(90 * time.Minute) // use has prolonged it
			w.ask("SELECT Id FROM Account").want(200, "")
			tc.end(w)
			res := w.ask("SELECT Id FROM Account").want(401, "INVALID_SESSION_ID")
			if got, want := string(res.body), `[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]`; got != want {
				t.Errorf("body = %s", got)
			}
			w.login()
			w.ask("SELECT Id FROM Account").want(200, "")
		})
	}
}

func TestIdentityAndIntrospection(t *testing.T) {
	w := newWire(t, Options{})
	info := w.must(w.request("GET", "/services/oauth2/userinfo", nil)).want(200, "").object()
	id := w.must(w.request("GET", "/id/"+w.org.ID()+"/"+w.org.integration, nil)).want(200, "").object()
	if info["organization_id"] != w.org.ID() || id["organization_id"] != w.org.ID() || info["preferred_username"] != id["username"] {
		t.Errorf("userinfo %v\nidentity %v", info, id)
	}
	form := url.Values{"token": {w.token}, "client_id": {"3MVG9consumer"}, "client_secret": {"s3cret"}}
	if got := w.form("/services/oauth2/introspect", form).object()["active"]; got != true {
		t.Errorf("active = %v", got)
	}
	w.org.KillSessions()
	if got := w.form("/services/oauth2/introspect", form).object()["active"]; got != false {
		t.Errorf("active after the end = %v", got)
	}
	if res := w.must(w.request("GET", "/services/oauth2/userinfo", nil)); res.status != 403 || string(res.body) != "Bad_OAuth_Token" {
		t.Errorf("userinfo = %d %s", res.status, res.body)
	}
}
