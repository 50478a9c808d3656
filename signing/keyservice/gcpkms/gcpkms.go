// Package gcpkms signs with asymmetric keys of Google Cloud KMS, over its REST API: the client library, which brings gRPC,
// would weigh half as much as all of dealseal, for two calls.
package gcpkms

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/oauth2"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/pades"
)

// maxAnswer bounds an answer, which has some 3 kB.
const maxAnswer = 64 << 10

// DefaultEndpoint is the service's own address.
const DefaultEndpoint = "https://cloudkms.googleapis.com"

// Config is one version of a key.
type Config struct {
	// Version is the resource name of the key's version, projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1:
	// its algorithm is one for signing, with the profile's scheme and hash.
	Version string
	// Credentials is the JSON file of a service account's key: file: or credential:.
	Credentials secret.Ref
	// Attached logs in with the service account that is attached to the machine, instead.
	Attached bool
	// Metadata is in the place of the address at which a machine in the cloud asks who it is.
	Metadata string
	// Endpoint is in the place of DefaultEndpoint; https, or http on this machine.
	Endpoint string
}

// Service is one version of a key. It implements keyservice.Service.
type Service struct {
	config Config
	base   string
	http   *http.Client
	login  login
}

var _ keyservice.Service = (*Service)(nil)

var versionPattern = regexp.MustCompile(`^projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+/cryptoKeyVersions/[0-9]+$`)

// New checks a configuration and asks nothing. What is wrong is a *keyservice.ConfigError.
func New(c Config) (*Service, error) {
	if c.Endpoint == "" {
		c.Endpoint = DefaultEndpoint
	}
	switch {
	case !versionPattern.MatchString(c.Version):
		return nil, &keyservice.ConfigError{Field: "version", Reason: "must be the resource name of a version, projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1"}
	case !safe(c.Endpoint):
		return nil, &keyservice.ConfigError{Field: "endpoint", Reason: "must be an https address without a path, such as " + DefaultEndpoint}
	}
	if c.Attached && !c.Credentials.IsZero() {
		return nil, &keyservice.ConfigError{Field: "attached_account", Reason: "is the login of the machine: take credentials out, or attached_account"}
	}
	if !c.Attached {
		if err := keyservice.CheckLogin("credentials", c.Credentials); err != nil {
			return nil, err
		}
	}
	if c.Metadata == "" {
		c.Metadata = defaultMetadata
	}
	client := &http.Client{
		Transport:     http.DefaultTransport.(*http.Transport).Clone(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Service{config: c, base: c.Endpoint + "/v1/" + c.Version, http: client, login: login{ref: c.Credentials, http: client, attached: c.Attached, metadata: c.Metadata, machine: keyservice.Machine()}}, nil
}

// safe reports whether an address may be given a login: over TLS, or on this machine.
func safe(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// Place names the version.
func (s *Service) Place() string { return "Google Cloud KMS " + s.config.Version }

// castagnoli is the polynomial of the checksums that the API has beside each value.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) string { return strconv.FormatUint(uint64(crc32.Checksum(b, castagnoli)), 10) }

// Public asks for the public key.
func (s *Service) Public(ctx context.Context) (crypto.PublicKey, error) {
	var answer struct {
		PEM string `json:"pem"`
	}
	if err := s.ask(ctx, http.MethodGet, "/publicKey", nil, &answer); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(answer.PEM))
	if block == nil {
		return nil, s.lasting("the version has no public key in PEM form", "use a key of purpose ASYMMETRIC_SIGN")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, s.lasting("the public key cannot be read", "use an algorithm RSA_SIGN_… or EC_SIGN_P256_…, P384")
	}
	return public, nil
}

// Sign has the version sign digest. Its scheme is fixed at the service: what another one makes does not verify.
func (s *Service) Sign(ctx context.Context, digest []byte, a pades.Algorithm) ([]byte, error) {
	name, known := map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}[a.Hash]
	if !known {
		return nil, s.lasting(fmt.Sprintf("it has no %s", a), "choose SHA-256, SHA-384 or SHA-512 in signing.profiles")
	}
	request := map[string]any{"digest": map[string][]byte{name: digest}, "digestCrc32c": checksum(digest)}
	var answer struct {
		Name                 string `json:"name"`
		Signature            []byte `json:"signature"`
		SignatureCRC32C      string `json:"signatureCrc32c"`
		VerifiedDigestCRC32C bool   `json:"verifiedDigestCrc32c"`
	}
	if err := s.ask(ctx, http.MethodPost, ":asymmetricSign", request, &answer); err != nil {
		return nil, err
	}
	switch {
	case answer.Name != s.config.Version:
		return nil, s.passing("another version of the key signed")
	case !answer.VerifiedDigestCRC32C:
		return nil, s.passing("the digest did not arrive as it was sent")
	case answer.SignatureCRC32C != checksum(answer.Signature):
		return nil, s.passing("the signature did not arrive as it was sent")
	}
	return answer.Signature, nil
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
	q, err := http.NewRequestWithContext(ctx, method, s.base+path, content)
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
		s.login.forget()
		return &keyservice.Error{Service: s.Place(), Status: resp.StatusCode, Cure: "the access token is not taken any more: the next attempt logs in anew"}
	case resp.StatusCode != http.StatusOK:
		return s.refused(resp, text)
	case len(text) > maxAnswer || json.Unmarshal(text, data) != nil:
		return s.passing("the answer is not one of Cloud KMS: does a proxy answer in its place?")
	}
	return nil
}

// refused says what a status means (google.rpc.Code, and the errors that Cloud KMS documents).
func (s *Service) refused(resp *http.Response, text []byte) error {
	var said struct {
		Error struct {
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(text, &said) // a proxy says it otherwise
	e := &keyservice.Error{Service: s.Place(), Status: resp.StatusCode, Message: keyservice.Printable(said.Error.Status + " " + said.Error.Message),
		Lasting: !keyservice.Passing(resp.StatusCode), After: keyservice.RetryAfter(resp.Header, time.Now())}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		e.Message, e.Cure = "", fmt.Sprintf("the login of %s is refused: the service account or its key was deleted or disabled, or this machine's clock is wrong", s.whose())
	case http.StatusForbidden:
		e.Cure = "give the service account the role roles/cloudkms.signerVerifier on the key, and see that the API is enabled"
	case http.StatusNotFound:
		e.Cure = "there is no such version: correct it"
	case http.StatusBadRequest:
		e.Cure = "see that the version is enabled, and that its algorithm has the profile's scheme and hash"
	}
	return e
}

// whose says in a message which login is meant.
func (s *Service) whose() string {
	if s.config.Attached {
		return "the machine's service account"
	}
	return s.config.Credentials.String()
}

// refusedLogin is about the token that the calls need.
func (s *Service) refusedLogin(err error) error {
	var machine *machineError
	var file *fileError
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &machine):
		return &keyservice.Error{Service: s.Place() + ", its login,", Status: machine.status, Lasting: !keyservice.Passing(machine.status), Cure: "attach a service account to the machine, with the scope cloud-platform or cloudkms"}
	case errors.As(err, &file):
		return s.lasting(file.Error(), "name the JSON file of a service account's key that the daemon may read")
	case errors.As(err, &refused) && refused.Response != nil:
		return &keyservice.Error{Service: s.Place() + ", its login,", Status: refused.Response.StatusCode, Message: keyservice.Printable(refused.ErrorCode),
			Cure: fmt.Sprintf("see that the service account of %s and its key are there and enabled, and that this machine's clock is right", s.config.Credentials), Lasting: !keyservice.Passing(refused.Response.StatusCode)}
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
