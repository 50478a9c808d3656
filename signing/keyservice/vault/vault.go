// Package vault signs with the transit engine of HashiCorp Vault or OpenBao, over its HTTP API.
//
// The token is read anew for each call, from where an agent keeps it fresh, and is kept nowhere. Redirections are not
// followed: they would carry it elsewhere.
package vault

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/pades"
)

// maxAnswer bounds an answer. A key with a hundred versions has 50 kB.
const maxAnswer = 1 << 20

// Config is one key of a transit engine.
type Config struct {
	// Address is that of the server, https: http only on this machine, for an agent's listener.
	Address string
	// Mount is where the engine is; default transit.
	Mount string
	// Key is the name of the key and Version the one that the certificate was issued for: a key that is rotated signs with a
	// new one, which the certificate does not verify.
	Key     string
	Version int
	// Token is read for each call: file: or credential:. Without one there is a Login.
	Token secret.Ref
	Login *Login
	// Namespace is that of Vault Enterprise and OpenBao; empty is the root.
	Namespace string
	// CA is a PEM file with the roots of the server; empty trusts the system's.
	CA string
}

// Service is one key of a transit engine. It implements keyservice.Service.
type Service struct {
	config Config
	base   string // of the engine
	logins string // where logins are made
	kept   keyservice.Logins[string]
	http   *http.Client
}

var _ keyservice.Service = (*Service)(nil)

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	pathPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)
)

// New checks a configuration and asks nothing. What is wrong is a *keyservice.ConfigError.
func New(c Config) (*Service, error) {
	if c.Mount == "" {
		c.Mount = "transit"
	}
	bad := func(field, reason string) error { return &keyservice.ConfigError{Field: field, Reason: reason} }
	u, err := url.Parse(c.Address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "":
		return nil, bad("address", "must be that of the server alone, such as https://vault.example.com:8200")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLocal(u.Hostname())):
		return nil, bad("address", "must begin with https://, or name an agent on this machine, such as http://127.0.0.1:8100")
	case !pathPattern.MatchString(c.Mount) || strings.Contains(c.Mount, ".."):
		return nil, bad("mount", "must be the path of a transit engine, such as transit")
	case !namePattern.MatchString(c.Key):
		return nil, bad("key", "must be the name of a key of the engine: letters, digits, '.', '_' and '-'")
	case c.Version < 1:
		return nil, bad("version", "must be the number of the version that the certificate was issued for, 1 or above: a key that is rotated would sign with another one")
	}
	if err := c.checkLogin(); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if c.CA != "" {
		if transport.TLSClientConfig, err = trusting(c.CA); err != nil {
			return nil, bad("ca", err.Error())
		}
	}
	server := u.Scheme + "://" + u.Host + "/v1/"
	return &Service{config: c, base: server + c.Mount, logins: server + "auth/", http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// trusting trusts the roots of a file only.
func trusting(file string) (*tls.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// Place names server, key and version.
func (s *Service) Place() string {
	u, _ := url.Parse(s.base) // New has parsed it
	return fmt.Sprintf("vault %s, %s/%s version %d", u.Host, s.config.Mount, s.config.Key, s.config.Version)
}

// Public asks for the public key of the configured version.
func (s *Service) Public(ctx context.Context) (crypto.PublicKey, error) {
	var answer struct {
		Keys    map[string]json.RawMessage `json:"keys"`
		Signing *bool                      `json:"supports_signing"`
	}
	if err := s.ask(ctx, http.MethodGet, "/keys/"+s.config.Key, nil, &answer); err != nil {
		return nil, err
	}
	version := strconv.Itoa(s.config.Version)
	raw, there := answer.Keys[version]
	switch {
	case answer.Signing != nil && !*answer.Signing:
		return nil, s.lasting("the key is not for signing", "make one of a type that signs: ecdsa-p256, ecdsa-p384, ecdsa-p521, rsa-2048, rsa-3072 or rsa-4096")
	case !there:
		return nil, s.lasting("the key has no version "+version, "correct the version, or restore it: one below min_decryption_version is not given out")
	}
	var key struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal(raw, &key); err != nil { // of a symmetric key it is a number
		return nil, s.lasting("the key has no public half", "make one of a type that signs, such as ecdsa-p256 or rsa-3072")
	}
	return s.parse(key.PublicKey)
}

func (s *Service) parse(text string) (crypto.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, s.lasting("the public key is not in PEM form", "make one of a type that signs, such as ecdsa-p256 or rsa-3072")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, s.lasting("the public key cannot be read", "use an RSA or ECDSA key")
	}
	return public, nil
}

// hashNames are those of the API.
var hashNames = map[crypto.Hash]string{crypto.SHA256: "sha2-256", crypto.SHA384: "sha2-384", crypto.SHA512: "sha2-512"}

// request is the body of a call to sign.
type request struct {
	Input              []byte `json:"input"`
	Prehashed          bool   `json:"prehashed"`
	HashAlgorithm      string `json:"hash_algorithm"`
	SignatureAlgorithm string `json:"signature_algorithm,omitempty"`
	SaltLength         string `json:"salt_length,omitempty"`
	Marshaling         string `json:"marshaling_algorithm,omitempty"`
	KeyVersion         int    `json:"key_version"`
}

// Sign has the configured version sign digest.
func (s *Service) Sign(ctx context.Context, digest []byte, a pades.Algorithm) ([]byte, error) {
	r := request{Input: digest, Prehashed: true, HashAlgorithm: hashNames[a.Hash], KeyVersion: s.config.Version}
	switch a.Scheme {
	case pades.RSAPKCS1:
		r.SignatureAlgorithm = "pkcs1v15"
	case pades.RSAPSS:
		r.SignatureAlgorithm, r.SaltLength = "pss", "hash"
	case pades.ECDSA:
		r.Marshaling = "asn1"
	}
	var answer struct {
		Signature string `json:"signature"`
	}
	if err := s.ask(ctx, http.MethodPost, "/sign/"+s.config.Key, r, &answer); err != nil {
		return nil, err
	}
	return s.decode(answer.Signature)
}

// decode reads vault:v3:BASE64. The prefix is configurable at the server; the version must be ours.
func (s *Service) decode(text string) ([]byte, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil, s.passing("the signature is not of the form vault:v1:…")
	}
	if parts[1] != "v"+strconv.Itoa(s.config.Version) {
		return nil, s.passing(fmt.Sprintf("version %q of the key signed, and not version %d", keyservice.Printable(parts[1]), s.config.Version))
	}
	value, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, s.passing("the signature is not base64")
	}
	return value, nil
}

// ask makes one call and reads the data of its answer.
func (s *Service) ask(ctx context.Context, method, path string, body, data any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	q, err := http.NewRequestWithContext(ctx, method, s.base+path, content)
	if err != nil {
		return err
	}
	token, fresh, err := s.token(ctx)
	if err != nil {
		return err
	}
	q.Header.Set("X-Vault-Token", token)
	s.mark(q)
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(q)
	if err != nil {
		return s.unreached(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return s.unreached(err)
	case len(text) > maxAnswer:
		return s.passing(fmt.Sprintf("the answer has more than %d bytes", maxAnswer))
	case resp.StatusCode == http.StatusForbidden && s.config.Login != nil && !fresh:
		s.kept.Forget()
		return &keyservice.Error{Service: s.Place(), Status: resp.StatusCode, Cure: "the token of the last login is not taken any more: the next attempt logs in anew"}
	case resp.StatusCode != http.StatusOK:
		return s.refused(resp, text)
	}
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(text, &envelope); err != nil || len(envelope.Data) == 0 || json.Unmarshal(envelope.Data, data) != nil {
		return s.passing("the answer is not one of a transit engine: is something else listening at the address?")
	}
	return nil
}

// unreached leaves out the address of the request, which the error of net/http repeats; the deadline stays recognisable.
func (s *Service) unreached(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("%s cannot be reached: %w", s.Place(), err)
}

// refused says what a status means (Vault's API documentation, "HTTP status codes").
func (s *Service) refused(resp *http.Response, text []byte) error {
	var said struct {
		Errors []string `json:"errors"`
	}
	_ = json.Unmarshal(text, &said) // a proxy says it otherwise
	e := &keyservice.Error{Service: s.Place(), Status: resp.StatusCode, Message: keyservice.Printable(strings.Join(said.Errors, "; ")),
		Lasting: !keyservice.Passing(resp.StatusCode), After: keyservice.RetryAfter(resp.Header, time.Now())}
	switch {
	case resp.StatusCode == http.StatusForbidden:
		e.Cure = fmt.Sprintf("the token of %s is over, or its policy lacks \"read\" on %s/keys/%s and \"update\" on %s/sign/%s", s.whose(), s.config.Mount, s.config.Key, s.config.Mount, s.config.Key)
	case resp.StatusCode == http.StatusNotFound:
		e.Cure = "there is no such engine, key or namespace: correct mount, key and namespace"
	case resp.StatusCode == http.StatusBadRequest:
		e.Cure = "see that key and version exist, that the version is not below min_encryption_version, and that the key is of a type that signs"
	case resp.StatusCode == http.StatusServiceUnavailable:
		e.Cure = "the server is sealed or in maintenance: unseal it"
	case resp.StatusCode/100 == 3:
		e.Cure = "it redirects, which is not followed since the token would go along: name the active server, or one that forwards"
	case resp.StatusCode == 472 || resp.StatusCode == 473:
		e.Cure = "it is a standby that does not forward: name the active server"
	}
	return e
}

func (s *Service) lasting(message, cure string) error {
	return &keyservice.Error{Service: s.Place(), Message: message, Cure: cure, Lasting: true}
}

func (s *Service) passing(message string) error {
	return &keyservice.Error{Service: s.Place(), Message: message}
}
