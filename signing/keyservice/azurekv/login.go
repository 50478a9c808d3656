package azurekv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/signing/keyservice"
)

// login gets access tokens. It is safe for concurrent use.
type login struct {
	config   Config
	resource string // what the tokens are for
	http     *http.Client
	kept     keyservice.Logins[string]
}

// fileError is about the file of the secret. It repeats nothing of it.
type fileError struct{ error }

// loginError is what was answered in the place of a token. Its code is one word.
type loginError struct {
	status int
	code   string
	after  time.Duration
}

func (e *loginError) Error() string {
	return fmt.Sprintf("the login is answered %d %s", e.status, e.code)
}

func (l *login) cure() string {
	if l.config.Managed {
		return "see that the machine has a managed identity (and the one of client_id, if that is given)"
	}
	return fmt.Sprintf("see that tenant and client_id are right, and that the secret in %s is the application's and not over", l.config.Secret)
}

// token returns an access token, and whether it was got just now.
func (l *login) token(ctx context.Context) (token string, fresh bool, err error) {
	var secret string
	if !l.config.Managed {
		text, err := l.config.Secret.Resolve()
		if err != nil {
			return "", false, &fileError{err}
		}
		secret = strings.TrimSpace(text.RevealString())
	}
	return l.kept.Get(ctx, []byte(secret), func(ctx context.Context) (string, time.Duration, error) {
		q, err := l.request(ctx, secret)
		if err != nil {
			return "", 0, err
		}
		return l.ask(q)
	})
}

// request asks for a token: an application with its secret, a machine with nothing but its being there.
func (l *login) request(ctx context.Context, secret string) (*http.Request, error) {
	if l.config.Managed {
		values := url.Values{"api-version": {"2018-02-01"}, "resource": {l.resource}}
		if l.config.Client != "" {
			values.Set("client_id", l.config.Client)
		}
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, l.config.Metadata+"/metadata/identity/oauth2/token?"+values.Encode(), nil)
		if err == nil {
			q.Header.Set("Metadata", "true")
		}
		return q, err
	}
	values := url.Values{"grant_type": {"client_credentials"}, "client_id": {l.config.Client}, "client_secret": {secret}, "scope": {l.resource + "/.default"}}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, l.config.Authority+"/"+l.config.Tenant+"/oauth2/v2.0/token", strings.NewReader(values.Encode()))
	if err == nil {
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return q, err
}

func (l *login) ask(q *http.Request) (token string, life time.Duration, err error) {
	resp, err := l.http.Do(q)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", 0, err
	}
	var answer struct {
		Token   string          `json:"access_token"`
		Expires json.RawMessage `json:"expires_in"` // a number, or a number in quotes
		Error   string          `json:"error"`      // the description beside it may repeat what was sent
	}
	bad := json.Unmarshal(text, &answer)
	if resp.StatusCode != http.StatusOK {
		return "", 0, &loginError{resp.StatusCode, answer.Error, keyservice.RetryAfter(resp.Header, time.Now())}
	}
	seconds, err := strconv.ParseInt(strings.Trim(string(answer.Expires), `"`), 10, 32)
	if bad != nil || err != nil || answer.Token == "" {
		return "", 0, errors.New("the login is answered by something that is no token")
	}
	return answer.Token, time.Duration(seconds) * time.Second, nil
}
