package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
)

// Login is how a token is got, where no agent keeps one.
type Login struct {
	// Method is approle or kubernetes; Mount is where that is, by default under its own name.
	Method, Mount string
	// Role is the ID of the role (approle), or its name (kubernetes).
	Role string
	// Secret is the secret ID of the role, or the token of the pod's service account: file: or credential:, read for each call.
	Secret secret.Ref
}

// methods are what a login of each kind sends.
var methods = map[string]func(role, secret string) map[string]string{
	"approle": func(role, secret string) map[string]string {
		return map[string]string{"role_id": role, "secret_id": secret}
	},
	"kubernetes": func(role, secret string) map[string]string { return map[string]string{"role": role, "jwt": secret} },
}

// endless is how long the token of a login is used that has no end of its own.
const endless = time.Hour

func (c *Config) checkLogin() error {
	if c.Login == nil {
		return keyservice.CheckLogin("token", c.Token)
	}
	bad := func(field, reason string) error { return &keyservice.ConfigError{Field: field, Reason: reason} }
	l := *c.Login
	if l.Mount == "" {
		l.Mount = l.Method
	}
	c.Login = &l
	switch {
	case !c.Token.IsZero():
		return bad("login", "is in the place of a token: take one of them out")
	case methods[l.Method] == nil:
		return bad("login.method", "must be approle or kubernetes")
	case !pathPattern.MatchString(l.Mount) || strings.Contains(l.Mount, ".."):
		return bad("login.mount", "must be the path of an auth method, such as approle")
	case l.Role == "":
		return bad("login.role", "is missing: it is the ID of the role for approle, its name for kubernetes")
	}
	return keyservice.CheckLogin("login.secret", l.Secret)
}

// whose says in a message which token is meant.
func (s *Service) whose() string {
	if l := s.config.Login; l != nil {
		return fmt.Sprintf("the role %q (%s)", keyservice.Printable(l.Role), l.Method)
	}
	return s.config.Token.String()
}

// mark has a request belong to the namespace, and be no one's from a browser.
func (s *Service) mark(q *http.Request) {
	q.Header.Set("X-Vault-Request", "true")
	if s.config.Namespace != "" {
		q.Header.Set("X-Vault-Namespace", s.config.Namespace)
	}
}

// token is the one that an agent keeps, or that of a login, and whether it was got just now.
func (s *Service) token(ctx context.Context) (token string, fresh bool, err error) {
	ref, cure := s.config.Token, "see that the agent writes the token, and that the daemon may read it"
	if s.config.Login != nil {
		ref, cure = s.config.Login.Secret, "see that the secret of the login is there, and that the daemon may read it"
	}
	text, err := ref.Resolve()
	if err != nil {
		return "", false, s.lasting(err.Error(), cure)
	}
	secret := strings.TrimSpace(text.RevealString())
	if s.config.Login == nil {
		return secret, true, nil
	}
	return s.kept.Get(ctx, []byte(secret), func(ctx context.Context) (string, time.Duration, error) { return s.logIn(ctx, secret) })
}

func (s *Service) logIn(ctx context.Context, secret string) (token string, life time.Duration, err error) {
	l := s.config.Login
	body, err := json.Marshal(methods[l.Method](l.Role, secret))
	if err != nil {
		return "", 0, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, s.logins+l.Mount+"/login", bytes.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	q.Header.Set("Content-Type", "application/json")
	s.mark(q)
	resp, err := s.http.Do(q)
	if err != nil {
		return "", 0, s.unreached(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", 0, s.unreached(err)
	}
	var answer struct {
		Auth struct {
			Token string `json:"client_token"`
			Lease int64  `json:"lease_duration"` // seconds; 0: it does not end
		} `json:"auth"`
	}
	switch {
	case resp.StatusCode != http.StatusOK: // what is said beside it may repeat what was sent
		return "", 0, &keyservice.Error{Service: s.Place() + ", its login,", Status: resp.StatusCode, Lasting: !keyservice.Passing(resp.StatusCode), After: keyservice.RetryAfter(resp.Header, time.Now()),
			Cure: fmt.Sprintf("see that %s may log in at auth/%s, and that %s holds its secret and that this is not over", s.whose(), l.Mount, l.Secret)}
	case json.Unmarshal(text, &answer) != nil || answer.Auth.Token == "":
		return "", 0, s.passing("the login is answered by something that is no token")
	case answer.Auth.Lease <= 0:
		return answer.Auth.Token, endless, nil
	}
	return answer.Auth.Token, time.Duration(min(answer.Auth.Lease, 1<<31)) * time.Second, nil
}
