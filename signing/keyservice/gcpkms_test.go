package keyservice_test

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/kms"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/keyservice/gcpkms"
)

// serveGoogle is the service with the file of an account that may use it.
func serveGoogle(t *testing.T, store *kms.Store, pss bool) (address, credentials string) {
	t.Helper()
	server := httptest.NewServer(store.Google(pss))
	t.Cleanup(server.Close)
	return server.URL, kms.GoogleCredentials(server.URL)
}

func newGoogle(t *testing.T, store *kms.Store, version int, pss bool) (s *gcpkms.Service, file string) {
	t.Helper()
	address, credentials := serveGoogle(t, store, pss)
	ref, file := tokenFile(t, credentials)
	s, err := gcpkms.New(gcpkms.Config{Version: kms.GoogleVersion(version), Credentials: ref, Endpoint: address})
	if err != nil {
		t.Fatal(err)
	}
	return s, file
}

func TestGoogleLogsInOnceAndAgainWhenTheTokenIsOver(t *testing.T) {
	store := kms.NewStore()
	store.Add("seal", newP256())
	s, file := newGoogle(t, store, 1, false)
	ask := func() error { _, err := s.Public(t.Context()); return err }
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	store.SetToken("the next token")
	if err := ask(); err == nil || isPermanent(err) || strings.Contains(err.Error(), kms.Token) || !strings.Contains(err.Error(), "logs in anew") {
		t.Errorf("with a token that is over: %v", err)
	}
	if err := ask(); err != nil {
		t.Errorf("after another login: %v", err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{}", strings.Replace(string(good), "sealer@", "other@", 1), strings.Replace(string(good), "BEGIN", "BEGUN", 1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(); !isPermanent(err) || strings.Contains(err.Error(), "PRIVATE KEY") || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%v", err)
		}
	}
}

func TestTheSchemeOfAGoogleKeyMustBeTheProfiles(t *testing.T) {
	store := kms.NewStore()
	store.Add("seal", rsaKey())
	s, _ := newGoogle(t, store, 1, true)
	keys := keyservice.New(map[string]keyservice.Config{"house": {Service: s, Certificates: certify(t, rsaKey().Public())}})
	key, err := keys.Open(t.Context(), "house")
	if err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, 32)
	if _, err := key.Sign(nil, digest, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthEqualsHash}); err != nil {
		t.Error(err)
	}
	if _, err := key.Sign(nil, digest, crypto.SHA256); err == nil || !strings.Contains(err.Error(), "another scheme") {
		t.Errorf("%v", err)
	}
}

func TestConfigurationsOfGoogleThatCannotWork(t *testing.T) {
	ref, _ := tokenFile(t, "x")
	env, err := secret.ParseRef("env:GOOGLE_APPLICATION_CREDENTIALS")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		field  string
		change func(*gcpkms.Config)
	}{
		{"version", func(c *gcpkms.Config) { c.Version = kms.GoogleKey }},
		{"version", func(c *gcpkms.Config) { c.Version = "projects/../locations" }},
		{"credentials", func(c *gcpkms.Config) { c.Credentials = secret.Ref{} }},
		{"credentials", func(c *gcpkms.Config) { c.Credentials = env }},
		{"endpoint", func(c *gcpkms.Config) { c.Endpoint = "http://cloudkms.example.com" }},
		{"endpoint", func(c *gcpkms.Config) { c.Endpoint = "https://cloudkms.example.com/v1" }},
	} {
		c := gcpkms.Config{Version: kms.GoogleVersion(3), Credentials: ref}
		if _, err := gcpkms.New(c); err != nil {
			t.Fatal(err)
		}
		tc.change(&c)
		_, err := gcpkms.New(c)
		var bad *keyservice.ConfigError
		if !errors.As(err, &bad) || bad.Field != tc.field || !isPermanent(err) {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
}
