package hubspot

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// rotatingWorld is an account that replaces the refresh token at each refresh and forgets the old one.
func rotatingWorld(t *testing.T) *world {
	w := newWorld(t, FlowOAuth)
	w.portal = mock.New(mock.Options{Now: w.Now, OAuth: &mock.OAuthApp{
		ClientID: testClientID, ClientSecret: testSecret, RefreshToken: testRefresh, RotateRefreshTokens: true,
	}})
	return w
}

func identify(t *testing.T, c *Connector) error {
	t.Helper()
	_, err := c.Identity(t.Context())
	return err
}

func TestReplacedRefreshTokenOutlivesTheConnector(t *testing.T) {
	w := rotatingWorld(t)
	for range 3 {
		if err := identify(t, w.connector(quiet())); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.Requests("login"); n != 3 {
		t.Errorf("%d logins, want one for each connector", n)
	}
}

// TestAccessTokenIsNotUsedBeforeTheRefreshTokenIsStored holds the order that makes a crash in between harmless.
func TestAccessTokenIsNotUsedBeforeTheRefreshTokenIsStored(t *testing.T) {
	w := rotatingWorld(t)
	c := w.connector(quiet())
	w.memory.fail = errors.New("disk full")
	err := identify(t, c)
	if err == nil || deal.IsPermanent(err) || !errors.Is(err, w.memory.fail) {
		t.Fatalf("the new refresh token cannot be stored: %v, want a passing error that says so", err)
	}
	if n := len(w.bearers); n != 0 {
		t.Errorf("%d access tokens were used", n)
	}
	// The same process still has what HubSpot gave it.
	w.memory.fail = nil
	if err := identify(t, c); err != nil {
		t.Errorf("after the disk has room again: %v", err)
	}
	if n := w.Requests("login"); n != 1 {
		t.Errorf("%d logins, want 1: the answer was kept", n)
	}
	// A crash right after storing: the next process goes on with the stored one.
	if err := identify(t, w.connector(quiet())); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestRefreshTokenStoredByAnotherProcessIsUsed(t *testing.T) {
	w := rotatingWorld(t)
	a, b := w.connector(quiet()), w.connector(quiet())
	if err := errors.Join(identify(t, a), identify(t, b)); err != nil {
		t.Fatal(err)
	}
	w.portal.ExpireTokens()
	if err := errors.Join(identify(t, a), identify(t, b), identify(t, a)); err != nil {
		t.Errorf("two processes with one login: %v", err)
	}
}

// TestRefreshTokenUsedByAnotherProcessMeanwhileIsReplacedByItsSuccessor: the other one is quicker by a moment.
func TestRefreshTokenUsedByAnotherProcessMeanwhileIsReplacedByItsSuccessor(t *testing.T) {
	w := rotatingWorld(t)
	other := w.connector(quiet())
	overtaken := false
	c := w.connectorOver(roundTrip(func(r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.URL.Path, "/oauth/") && !overtaken {
			overtaken = true
			if err := identify(t, other); err != nil {
				t.Errorf("the other process: %v", err)
			}
		}
		return http.DefaultTransport.RoundTrip(r)
	}), quiet())
	if err := identify(t, c); err != nil || !overtaken {
		t.Errorf("after another process has used the refresh token: %v", err)
	}
}

func TestNewlyConfiguredRefreshTokenReplacesTheRememberedOne(t *testing.T) {
	w := rotatingWorld(t)
	if err := identify(t, w.connector(quiet())); err != nil {
		t.Fatal(err)
	}
	const again = "na1-refresh-token-of-the-second-installation"
	w.portal = mock.New(mock.Options{Now: w.Now, OAuth: &mock.OAuthApp{ClientID: testClientID, ClientSecret: testSecret, RefreshToken: again}})
	err := identify(t, w.connector(quiet()))
	if !deal.IsPermanent(err) || !strings.Contains(err.Error(), "invalid_grant") || !strings.Contains(err.Error(), "install the app") {
		t.Errorf("a revoked refresh token gives %v, want a permanent error with the cure", err)
	}
	path, err := w.config.Auth.RefreshToken.Path()
	w.must(err)
	w.must(os.WriteFile(path, []byte(again), 0o600))
	if err := identify(t, w.connector(quiet())); err != nil {
		t.Errorf("with the refresh token of the new installation: %v", err)
	}
}

func TestWrongSecretIsPermanentAndNotRepeated(t *testing.T) {
	w := newWorld(t, FlowOAuth)
	const wrong = "some-other-secret"
	w.config.Auth.ClientSecret = secretFile(t, wrong)
	err := identify(t, w.connector(quiet()))
	if !deal.IsPermanent(err) || !connectors.IsLogin(err) || !strings.Contains(err.Error(), "client_secret") || strings.Contains(err.Error(), wrong) {
		t.Errorf("a wrong client secret gives %v, want a permanent error that names the key and not the secret", err)
	}
}

func TestRevokedStaticTokenIsReadAgainOnceAndThenPermanent(t *testing.T) {
	w := newWorld(t, FlowToken)
	c := w.connector(quiet())
	path, err := w.config.Auth.Token.Path()
	w.must(err)
	w.must(os.WriteFile(path, []byte("pat-na1-revoked"), 0o600))
	if err := identify(t, c); !deal.IsPermanent(err) || !connectors.IsLogin(err) {
		t.Errorf("a revoked token gives %v, want a permanent error of the login", err)
	}
	w.must(os.WriteFile(path, []byte(testToken+"\n"), 0o600))
	if err := identify(t, c); err != nil {
		t.Errorf("after the token was replaced: %v", err)
	}
}

// issuer is a token endpoint that counts.
type issuer struct{ n int }

func (i *issuer) fetch(context.Context) (string, time.Duration, error) {
	i.n++
	return "token", 30 * time.Minute, nil
}

func TestAccessTokenIsRenewedByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &issuer{}
		s := newSession(source)
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 1}, {28 * time.Minute, 1}, {90 * time.Second, 2}, {time.Hour, 3}} {
			time.Sleep(step.wait)
			if _, err := s.get(t.Context()); err != nil {
				t.Fatal(err)
			}
			if source.n != step.want {
				t.Errorf("after %s more: %d fetches, want %d", step.wait, source.n, step.want)
			}
		}
	})
}

// never is a transport that is not reached.
type never struct{ t *testing.T }

func (n never) RoundTrip(*http.Request) (*http.Response, error) {
	n.t.Error("a call was made")
	return nil, errors.New("unreachable")
}

func TestMissingSecretNamesTheReferenceOnly(t *testing.T) {
	w := newWorld(t, FlowToken)
	w.config.Auth.Token = ref(t, "env:DEALSEAL_TEST_NO_SUCH_VARIABLE")
	err := identify(t, w.connectorOver(never{t}, quiet()))
	if !deal.IsPermanent(err) || !connectors.IsLogin(err) || !strings.Contains(err.Error(), "env:DEALSEAL_TEST_NO_SUCH_VARIABLE") {
		t.Errorf("a secret that is not there gives %v, want a permanent error that names the reference", err)
	}
}
