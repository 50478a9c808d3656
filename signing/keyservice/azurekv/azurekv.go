// Package azurekv signs with keys of Azure Key Vault and Managed HSM, over their REST API: two calls and a login, for which
// the vendor's libraries would be a dozen modules.
package azurekv

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/pades"
)

// maxAnswer bounds an answer, which has some 2 kB.
const maxAnswer = 64 << 10

// apiVersion is the one that the calls are written for.
const apiVersion = "7.4"

// DefaultAuthority is where logins are checked in the public cloud.
const DefaultAuthority = "https://login.microsoftonline.com"

// defaultMetadata is where a machine in the cloud asks who it is.
const defaultMetadata = "http://169.254.169.254"

// Config is one version of a key. Either Tenant, Client and Secret are given, or Managed.
type Config struct {
	// Key is the identifier of a version, https://NAME.vault.azure.net/keys/KEY/VERSION.
	Key string
	// Tenant and Client name an application, and Secret is its secret: file: or credential:.
	Tenant, Client string
	Secret         secret.Ref
	// Managed logs in with the identity of the machine; Client then chooses one of several.
	Managed bool
	// Authority is in the place of DefaultAuthority; https, or http on this machine.
	Authority string
	// Metadata is in the place of the address at which a machine in the cloud asks who it is.
	Metadata string
}

// Service is one version of a key. It implements keyservice.Service.
type Service struct {
	key   string
	http  *http.Client
	login *login
}

var _ keyservice.Service = (*Service)(nil)

var (
	pathPattern = regexp.MustCompile(`^/keys/[0-9A-Za-z-]{1,127}/[0-9a-f]{32}$`)
	namePattern = regexp.MustCompile(`^[0-9A-Za-z.-]{1,255}$`)
)

// New checks a configuration and asks nothing. What is wrong is a *keyservice.ConfigError.
func New(c Config) (*Service, error) {
	bad := func(field, reason string) error { return &keyservice.ConfigError{Field: field, Reason: reason} }
	u, err := url.Parse(c.Key)
	if err != nil || !safe(u) || !pathPattern.MatchString(u.Path) {
		return nil, bad("key", "must be the identifier of a version, https://NAME.vault.azure.net/keys/KEY/VERSION: a key without a version would sign with its newest one, which the certificate is not for")
	}
	l := &login{config: c, resource: resourceOf(u.Hostname())}
	switch {
	case c.Managed && (c.Tenant != "" || !c.Secret.IsZero()):
		return nil, bad("managed_identity", "is the login of the machine: leave tenant and client_secret out, or managed_identity")
	case c.Managed:
		if c.Client != "" && !namePattern.MatchString(c.Client) {
			return nil, bad("client_id", "must be the client ID of an identity that the machine has")
		}
	case !namePattern.MatchString(c.Tenant):
		return nil, bad("tenant", "must be the ID of a tenant (directory), or say managed_identity: true")
	case !namePattern.MatchString(c.Client):
		return nil, bad("client_id", "must be the client ID of an application in the tenant")
	default:
		if err := keyservice.CheckLogin("client_secret", c.Secret); err != nil {
			return nil, err
		}
	}
	if l.config.Authority == "" {
		l.config.Authority = DefaultAuthority
	}
	if a, err := url.Parse(l.config.Authority); err != nil || !safe(a) || a.Path != "" {
		return nil, bad("authority", "must be an https address without a path, such as "+DefaultAuthority)
	}
	if l.config.Metadata == "" {
		l.config.Metadata = defaultMetadata
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	l.http = &http.Client{Transport: transport, CheckRedirect: stay}
	if c.Managed {
		l.http = keyservice.Machine()
	}
	return &Service{key: c.Key, http: &http.Client{Transport: transport, CheckRedirect: stay}, login: l}, nil
}

// safe reports whether an address may be given a login: over TLS, or on this machine.
func safe(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	return u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "" && (u.Scheme == "https" || u.Scheme == "http" && local)
}

// resourceOf is what a login is asked for: the service that a vault belongs to, which differs between clouds.
func resourceOf(host string) string {
	_, service, found := strings.Cut(host, ".")
	if !found || net.ParseIP(host) != nil {
		service = "vault.azure.net"
	}
	return "https://" + service
}

// Place names the version.
func (s *Service) Place() string { return "Azure Key Vault " + s.key }

// Public asks for the public key.
func (s *Service) Public(ctx context.Context) (crypto.PublicKey, error) {
	var answer struct {
		Key        jwk `json:"key"`
		Attributes struct {
			Enabled *bool `json:"enabled"`
		} `json:"attributes"`
	}
	if err := s.ask(ctx, http.MethodGet, "", nil, &answer); err != nil {
		return nil, err
	}
	switch {
	case answer.Attributes.Enabled != nil && !*answer.Attributes.Enabled:
		return nil, s.lasting("the version is disabled", "enable it, or name another one with a certificate of its own")
	case answer.Key.Ops != nil && !slices.Contains(answer.Key.Ops, "sign"):
		return nil, s.lasting("the key is not for signing", "make one whose permitted operations have sign")
	}
	public, err := answer.Key.public()
	if err != nil {
		return nil, s.lasting(err.Error(), "use a key of type RSA-HSM or EC-HSM (RSA or EC in software), P-256, P-384 or P-521")
	}
	return public, nil
}

// jwk is a public key as the service has it (RFC 7517, with kinds of its own).
type jwk struct {
	Kind  string   `json:"kty"`
	Curve string   `json:"crv"`
	X     bytesURL `json:"x"`
	Y     bytesURL `json:"y"`
	N     bytesURL `json:"n"`
	E     bytesURL `json:"e"`
	Ops   []string `json:"key_ops"`
}

// bytesURL is base64url without padding.
type bytesURL []byte

func (b *bytesURL) UnmarshalText(text []byte) (err error) {
	*b, err = base64.RawURLEncoding.DecodeString(string(text))
	return err
}

func (b bytesURL) MarshalText() ([]byte, error) {
	return []byte(base64.RawURLEncoding.EncodeToString(b)), nil
}

var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// maxRSABytes bounds a modulus: the service has 4096 bits at most.
const maxRSABytes = 1024

func (k jwk) public() (crypto.PublicKey, error) {
	switch strings.TrimSuffix(k.Kind, "-HSM") {
	case "EC":
		curve, known := curves[k.Curve]
		if !known {
			return nil, fmt.Errorf("the key is on the curve %q", keyservice.Printable(k.Curve))
		}
		size := (curve.Params().BitSize + 7) / 8
		if len(k.X) > size || len(k.Y) > size {
			return nil, errors.New("the public key is not a point of its curve")
		}
		point := make([]byte, 1+2*size)
		point[0] = 4 // not compressed
		copy(point[1+size-len(k.X):], k.X)
		copy(point[1+2*size-len(k.Y):], k.Y)
		return ecdsa.ParseUncompressedPublicKey(curve, point)
	case "RSA":
		e := new(big.Int).SetBytes(k.E)
		if len(k.N) > maxRSABytes || len(k.E) > 4 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return nil, errors.New("the public key cannot be one of RSA")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(k.N), E: int(e.Int64())}, nil
	}
	return nil, fmt.Errorf("the key is of type %q", keyservice.Printable(k.Kind))
}

// algorithms are the service's names. One for ECDSA stands for a curve as well, and takes only the hash of its length.
var algorithms = map[pades.Scheme]map[crypto.Hash]string{
	pades.RSAPKCS1: {crypto.SHA256: "RS256", crypto.SHA384: "RS384", crypto.SHA512: "RS512"},
	pades.RSAPSS:   {crypto.SHA256: "PS256", crypto.SHA384: "PS384", crypto.SHA512: "PS512"},
	pades.ECDSA:    {crypto.SHA256: "ES256", crypto.SHA384: "ES384", crypto.SHA512: "ES512"},
}

// Sign has the version sign digest.
func (s *Service) Sign(ctx context.Context, digest []byte, a pades.Algorithm) ([]byte, error) {
	name, known := algorithms[a.Scheme][a.Hash]
	if !known {
		return nil, s.lasting(fmt.Sprintf("it has no %s", a), "choose SHA-256, SHA-384 or SHA-512 in signing.profiles")
	}
	var answer struct {
		Key   string   `json:"kid"`
		Value bytesURL `json:"value"`
	}
	if err := s.ask(ctx, http.MethodPost, "/sign", map[string]any{"alg": name, "value": bytesURL(digest)}, &answer); err != nil {
		return nil, err
	}
	if !strings.EqualFold(pathOf(answer.Key), pathOf(s.key)) {
		return nil, s.passing("another version of the key signed")
	}
	if a.Scheme != pades.ECDSA {
		return answer.Value, nil
	}
	return s.derOf(answer.Value)
}

// pathOf is what tells the version: a vault may be reached under several names.
func pathOf(id string) string {
	u, err := url.Parse(id)
	if err != nil {
		return ""
	}
	return u.Path
}

// derOf makes ASN.1 of the two numbers that the service puts one behind the other.
func (s *Service) derOf(value []byte) ([]byte, error) {
	if len(value) == 0 || len(value)%2 != 0 || len(value) > 2*66 {
		return nil, s.passing(fmt.Sprintf("the signature has %d bytes, which is not two numbers", len(value)))
	}
	half := len(value) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(value[:half]), new(big.Int).SetBytes(value[half:])})
}

func (s *Service) ask(ctx context.Context, method, path string, body, data any) error {
	token, fresh, err := s.login.token(ctx)
	if err != nil {
		return s.refusedLogin(err)
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	q, err := http.NewRequestWithContext(ctx, method, s.key+path+"?api-version="+apiVersion, content)
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.http.Do(q)
	if err != nil {
		return s.unreached(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return s.unreached(err)
	case resp.StatusCode == http.StatusUnauthorized && !fresh:
		s.login.kept.Forget()
		return &keyservice.Error{Service: s.Place(), Status: resp.StatusCode, Cure: "the access token is not taken any more: the next attempt logs in anew"}
	case resp.StatusCode != http.StatusOK:
		return s.refused(resp, text)
	case len(text) > maxAnswer || json.Unmarshal(text, data) != nil:
		return s.passing("the answer is not one of Key Vault: does a proxy answer in its place?")
	}
	return nil
}

// refused says what a status means (the errors that Key Vault documents).
func (s *Service) refused(resp *http.Response, text []byte) error {
	var said struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	_ = json.Unmarshal(text, &said) // a proxy says it otherwise
	e := &keyservice.Error{Service: s.Place(), Status: resp.StatusCode, Message: keyservice.Printable(said.Error.Code + " " + said.Error.Inner.Code + " " + said.Error.Message),
		Lasting: !keyservice.Passing(resp.StatusCode), After: keyservice.RetryAfter(resp.Header, time.Now())}
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		e.Message, e.Cure = "", "the login is for another tenant or another cloud than the vault's: correct tenant, client_id or authority"
	case resp.StatusCode == http.StatusForbidden && said.Error.Inner.Code == "KeyDisabled":
		e.Cure = "enable the version, or name another one with a certificate of its own"
	case resp.StatusCode == http.StatusForbidden:
		e.Cure = "give the identity the role Key Vault Crypto User (keys/read and keys/sign) on the key, and see that the vault's firewall lets this machine through"
	case resp.StatusCode == http.StatusNotFound:
		e.Cure = "there is no such version: correct it"
	case resp.StatusCode == http.StatusBadRequest:
		e.Cure = "see that the key has the type and curve of the certificate, and that the profile's hash is that of the curve"
	}
	return e
}

// refusedLogin is about the token that the calls need.
func (s *Service) refusedLogin(err error) error {
	var file *fileError
	var refused *loginError
	switch {
	case errors.As(err, &file):
		return s.lasting(file.Error(), "name the file with the application's secret, which the daemon may read")
	case errors.As(err, &refused):
		return &keyservice.Error{Service: s.Place() + ", its login,", Status: refused.status, Message: keyservice.Printable(refused.code), Cure: s.login.cure(), Lasting: !keyservice.Passing(refused.status), After: refused.after}
	}
	return s.unreached(err)
}

func (s *Service) unreached(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("%s cannot be reached: %w", s.Place(), err)
}

func (s *Service) lasting(message, cure string) error {
	return &keyservice.Error{Service: s.Place(), Message: message, Cure: cure, Lasting: true}
}

func (s *Service) passing(message string) error {
	return &keyservice.Error{Service: s.Place(), Message: message}
}
