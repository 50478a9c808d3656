package keyservice_test

import (
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/kms"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/keyservice/vault"
)

// tokenFile is where an agent would keep the token.
func tokenFile(t testing.TB, token string) (ref secret.Ref, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := secret.ParseRef("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	return ref, path
}

func serveVault(t testing.TB, store *kms.Store) string {
	t.Helper()
	server := httptest.NewServer(store.Vault())
	t.Cleanup(server.Close)
	return server.URL
}

func TestATokenThatIsRenewedIsReadAnew(t *testing.T) {
	store := kms.NewStore()
	store.Add("seal", newP256())
	token, path := tokenFile(t, "the token of yesterday")
	s, err := vault.New(vault.Config{Address: serveVault(t, store), Key: "seal", Version: 1, Token: token, Namespace: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Public(t.Context())
	if !isPermanent(err) || !strings.Contains(err.Error(), `"update" on transit/sign/seal`) || strings.Contains(err.Error(), "yesterday") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, []byte(kms.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Public(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Public(t.Context()); !isPermanent(err) {
		t.Errorf("without a token: %v", err)
	}
	calls := store.Calls()
	if got := calls[len(calls)-1].Header.Get("X-Vault-Namespace"); got != "acme" {
		t.Errorf("the namespace is %q", got)
	}
}

func TestTheServersCertificateIsProven(t *testing.T) {
	store := kms.NewStore()
	store.Add("seal", newP256())
	server := httptest.NewTLSServer(store.Vault())
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	token, _ := tokenFile(t, kms.Token)
	for file, good := range map[string]bool{"": false, ca: true} {
		s, err := vault.New(vault.Config{Address: server.URL, Key: "seal", Version: 1, Token: token, CA: file})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Public(t.Context()); (err == nil) != good {
			t.Errorf("with roots %q: %v", file, err)
		}
	}
	if n := len(store.Calls()); n != 1 {
		t.Errorf("%d requests with the token reached a server, want the one that was proven", n)
	}
}

func TestConfigurationsOfAVaultThatCannotWork(t *testing.T) {
	token, _ := tokenFile(t, kms.Token)
	env, err := secret.ParseRef("env:VAULT_TOKEN")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		field  string
		change func(*vault.Config)
	}{
		{"address", func(c *vault.Config) { c.Address = "http://vault.example.com:8200" }},
		{"address", func(c *vault.Config) { c.Address = "https://vault.example.com/v1" }},
		{"address", func(c *vault.Config) { c.Address = "https://u:p@vault.example.com" }},
		{"address", func(c *vault.Config) { c.Address = "vault.example.com" }},
		{"mount", func(c *vault.Config) { c.Mount = "transit/../sys" }},
		{"key", func(c *vault.Config) { c.Key = "" }},
		{"key", func(c *vault.Config) { c.Key = "../sys/seal" }},
		{"version", func(c *vault.Config) { c.Version = 0 }},
		{"token", func(c *vault.Config) { c.Token = secret.Ref{} }},
		{"token", func(c *vault.Config) { c.Token = env }},
		{"ca", func(c *vault.Config) { c.CA = "/nonexistent" }},
	} {
		c := vault.Config{Address: "https://vault.example.com:8200", Key: "seal", Version: 3, Token: token}
		if _, err := vault.New(c); err != nil {
			t.Fatal(err)
		}
		tc.change(&c)
		_, err := vault.New(c)
		var bad *keyservice.ConfigError
		if !errors.As(err, &bad) || bad.Field != tc.field || !isPermanent(err) {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
}
