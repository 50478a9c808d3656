package gcpkms

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
)

// login gets access tokens for a service account, and uses each until it is over or the file has changed. It is safe for
// concurrent use.
type login struct {
	ref  secret.Ref
	http *http.Client

	attached bool
	metadata string
	machine  *http.Client
	kept     keyservice.Logins[string] // of the machine

	mu   sync.Mutex
	file [sha256.Size]byte // what the token was got with
	got  *oauth2.Token
}

// fileError is about the file of the service account. It repeats nothing of it.
type fileError struct{ error }

// token returns an access token, and whether it was got just now.
func (l *login) token(ctx context.Context) (token string, fresh bool, err error) {
	if l.attached {
		return l.kept.Get(ctx, nil, l.ofMachine)
	}
	text, err := l.ref.Resolve()
	if err != nil {
		return "", false, &fileError{err}
	}
	sum := sha256.Sum256(text.Reveal())
	l.mu.Lock()
	got, file := l.got, l.file
	l.mu.Unlock()
	if got.Valid() && file == sum {
		return got.AccessToken, false, nil
	}
	account, err := parseAccount(text.Reveal())
	if err != nil {
		return "", false, &fileError{fmt.Errorf("%s %w", l.ref, err)}
	}
	made, err := account.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, l.http)).Token()
	if err != nil {
		return "", false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got, l.file = made, sum
	return made.AccessToken, true, nil
}

// forget makes the next call log in again.
func (l *login) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = nil
	l.kept.Forget()
}

// defaultMetadata is where a machine in the cloud asks who it is.
const defaultMetadata = "http://metadata.google.internal"

// machineError is what was answered in the place of the machine's token.
type machineError struct{ status int }

func (e *machineError) Error() string {
	return fmt.Sprintf("the machine's login is answered %d", e.status)
}

// ofMachine asks for a token of the service account that is attached to the machine.
func (l *login) ofMachine(ctx context.Context) (token string, life time.Duration, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, l.metadata+"/computeMetadata/v1/instance/service-accounts/default/token", nil)
	if err != nil {
		return "", 0, err
	}
	q.Header.Set("Metadata-Flavor", "Google")
	resp, err := l.machine.Do(q)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", 0, err
	}
	var answer struct {
		Token   string `json:"access_token"`
		Seconds int64  `json:"expires_in"`
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return "", 0, &machineError{resp.StatusCode}
	case resp.Header.Get("Metadata-Flavor") != "Google" || json.Unmarshal(text, &answer) != nil || answer.Token == "":
		return "", 0, errors.New("the machine's login is answered by something that is no metadata server")
	}
	return answer.Token, time.Duration(min(max(answer.Seconds, 0), 1<<31)) * time.Second, nil
}

// isKey reports whether the library that signs the login can read a key.
func isKey(text []byte) bool {
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	_, isRSA := key.(*rsa.PrivateKey)
	return err == nil && isRSA
}

// parseAccount reads the JSON file of a service account's key.
func parseAccount(text []byte) (*jwt.Config, error) {
	var f struct {
		Type     string `json:"type"`
		Email    string `json:"client_email"`
		Key      string `json:"private_key"`
		KeyID    string `json:"private_key_id"`
		TokenURI string `json:"token_uri"`
	}
	if err := json.Unmarshal(text, &f); err != nil || f.Type != "service_account" {
		return nil, errors.New("is not the JSON file of a service account's key")
	}
	u, err := url.Parse(f.TokenURI)
	if err != nil || !safe(strings.TrimSuffix(f.TokenURI, u.Path)) {
		return nil, errors.New("has a token_uri that is no https address")
	}
	if f.Email == "" || !isKey([]byte(f.Key)) {
		return nil, errors.New("has no client_email, or no RSA private_key")
	}
	return &jwt.Config{Email: f.Email, PrivateKey: []byte(f.Key), PrivateKeyID: f.KeyID, TokenURL: f.TokenURI, Scopes: []string{"https://www.googleapis.com/auth/cloudkms"}}, nil
}
