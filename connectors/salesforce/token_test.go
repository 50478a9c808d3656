package salesforce

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

const username = "seal@acme.example"

// jwtOrg is an org on the real clock (an assertion expires by it) and a configuration that fits.
func jwtOrg(t *testing.T) (*mock.Org, Config) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	org := mock.New(mock.Options{ConsumerKey: testKey, Username: username, PublicKey: &private.PublicKey, Sandbox: true})
	server := httptest.NewServer(org)
	t.Cleanup(server.Close)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return org, Config{MyDomain: server.URL, Auth: Auth{
		Flow: FlowJWT, ConsumerKey: testKey, Username: username, PrivateKey: secretFile(t, key),
	}}
}

func mustNew(t *testing.T, cfg Config) *Connector {
	t.Helper()
	c, err := New(cfg, Deps{HTTP: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestJWTLoginIsRenewedWhenTheSessionEnds(t *testing.T) {
	org, cfg := jwtOrg(t)
	c := mustNew(t, cfg)
	for range 3 {
		account, err := c.Identity(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if account.ID != org.ID() || account.Kind != deal.Salesforce || !account.Sandbox || account.TimeZone != "Europe/Paris" || account.Clock.IsZero() {
			t.Errorf("account %+v", account)
		}
	}
	if n := org.Counts()[mock.KindToken]; n != 1 {
		t.Errorf("three calls made %d logins", n)
	}
	org.KillSessions()
	if _, err := c.Identity(t.Context()); err != nil {
		t.Fatalf("after the session ended: %v", err)
	}
	if n := org.Counts()[mock.KindToken]; n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

func TestSessionThatEndsTwiceInARowIsNotReplayedAgain(t *testing.T) {
	org, cfg := jwtOrg(t)
	if _, err := org.SetFault(mock.Fault{Kind: mock.KindQuery, Effect: mock.SessionInvalid}); err != nil {
		t.Fatal(err)
	}
	_, err := mustNew(t, cfg).Identity(t.Context())
	if err == nil || deal.IsPermanent(err) {
		t.Errorf("Identity gives %v, want an error that is worth another try", err)
	}
	if n := org.Counts()[mock.KindQuery]; n != 2 {
		t.Errorf("the call was made %d times, want twice", n)
	}
}

func Test401ThatIsNoExpiryIsNotReplayed(t *testing.T) {
	org, cfg := jwtOrg(t)
	fault := mock.Fault{Kind: mock.KindQuery, Effect: mock.SessionInvalid, Message: "This session is not valid for use with the REST API"}
	if _, err := org.SetFault(fault); err != nil {
		t.Fatal(err)
	}
	if _, err := mustNew(t, cfg).Identity(t.Context()); !deal.IsPermanent(err) {
		t.Errorf("Identity gives %v", err)
	}
	if n := org.Counts()[mock.KindQuery]; n != 1 {
		t.Errorf("the call was made %d times", n)
	}
}

func TestLoginErrorsNameTheCure(t *testing.T) {
	for name, tc := range map[string]struct {
		change    func(*testing.T, *Config)
		permanent bool
		want      string
	}{
		"wrong consumer key": {func(_ *testing.T, c *Config) { c.Auth.ConsumerKey = "other" }, true, "consumer_key"},
		"wrong audience":     {func(_ *testing.T, c *Config) { c.Auth.Audience = "https://example.com" }, true, "auth.audience"},
		"wrong key": {func(t *testing.T, c *Config) {
			_, other := jwtOrg(t)
			c.Auth.PrivateKey = other.Auth.PrivateKey
		}, true, "certificate"},
		"no PEM":         {func(t *testing.T, c *Config) { c.Auth.PrivateKey = secretFile(t, "hunter2") }, true, "RSA private key in PEM"},
		"missing secret": {func(t *testing.T, c *Config) { t.Setenv("CREDENTIALS_DIRECTORY", ""); c.Auth.PrivateKey = missing(t) }, true, "auth.private_key"},
		"nobody there":   {func(_ *testing.T, c *Config) { c.MyDomain = "http://127.0.0.1:1" }, false, "connection was refused"},
	} {
		t.Run(name, func(t *testing.T) {
			_, cfg := jwtOrg(t)
			tc.change(t, &cfg)
			_, err := mustNew(t, cfg).Identity(t.Context())
			if err == nil {
				t.Fatal("the login succeeded")
			}
			if deal.IsPermanent(err) != tc.permanent || !connectors.IsLogin(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v (permanent %t, login %t), want %q", err, deal.IsPermanent(err), connectors.IsLogin(err), tc.want)
			}
			if word := connectors.LoginTrouble(err); tc.permanent != (word != "") {
				t.Errorf("%v is called %q", err, word)
			}
			for _, leak := range []string{"hunter2", username, "http://", "assertion="} {
				if strings.Contains(err.Error(), leak) {
					t.Errorf("the error says %q: %v", leak, err)
				}
			}
		})
	}
}

func TestLoginIsSharedAndOutlivesTheCallerThatBeganIt(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := &session{login: func(ctx context.Context) (string, error) {
		close(begun)
		<-finish
		return "token", ctx.Err()
	}}
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.get(ctx); first <- err }()
	<-begun
	go func() { _, err := s.get(t.Context()); second <- err }()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller that gave up got %v", err)
	}
	close(finish)
	if err := <-second; err != nil {
		t.Errorf("the other caller got %v", err)
	}
	s.drop("older")
	if token, err := s.get(t.Context()); token != "token" || err != nil {
		t.Errorf("dropping an older token dropped the newer one: %q, %v", token, err)
	}
}
