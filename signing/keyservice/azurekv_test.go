package keyservice_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/kms"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/keyservice/azurekv"
)

// newAzure is the service with the file of an application's secret.
func newAzure(t *testing.T, store *kms.Store, version int) (s *azurekv.Service, file string) {
	t.Helper()
	server := httptest.NewServer(store.Azure())
	t.Cleanup(server.Close)
	ref, file := tokenFile(t, kms.AzureSecret)
	s, err := azurekv.New(azurekv.Config{Key: server.URL + kms.AzureVersion(version), Tenant: kms.AzureTenant, Client: kms.AzureClient, Secret: ref, Authority: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return s, file
}

func TestAzureLogsInOnceAndAgainWhenTheTokenIsOverOrTheSecretIsAnother(t *testing.T) {
	store := kms.NewStore()
	store.Add("seal", newP256())
	s, file := newAzure(t, store, 1)
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
	const wrong = "a-secret-of-another"
	if err := os.WriteFile(file, []byte(wrong+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(); !isPermanent(err) || strings.Contains(err.Error(), wrong) || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("with another secret: %v", err)
	}
	if err := os.WriteFile(file, []byte(kms.AzureSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Errorf("with the right secret again: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := ask(); !isPermanent(err) {
		t.Errorf("without a secret: %v", err)
	}
}

func TestAzureTakesTheIdentityOfTheMachine(t *testing.T) {
	store := kms.NewStore()
	store.Add("seal", newP256())
	server := httptest.NewServer(store.Azure())
	t.Cleanup(server.Close)
	for client, works := range map[string]bool{"": true, kms.AzureClient: true, "an-identity-that-it-lacks": false} {
		s, err := azurekv.New(azurekv.Config{Key: server.URL + kms.AzureVersion(1), Managed: true, Client: client, Metadata: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Public(t.Context()); (err == nil) != works || err != nil && (!isPermanent(err) || !strings.Contains(err.Error(), "managed identity")) {
			t.Errorf("identity %q: %v", client, err)
		}
	}
}

// TestAnswersOfAzureAreBelievedAsFarAsTheyCanBe has answers that no key vault gives.
func TestAnswersOfAzureAreBelievedAsFarAsTheyCanBe(t *testing.T) {
	var answer any
	mux := http.NewServeMux()
	mux.Handle("/", kms.NewStore().Azure())
	mux.HandleFunc("/keys/", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(answer) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s, err := azurekv.New(azurekv.Config{Key: server.URL + kms.AzureVersion(1), Managed: true, Metadata: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	type m = map[string]any
	for name, tc := range map[string]struct {
		answer any
		says   string
	}{
		"a key that is no point":  {m{"key": m{"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}}, ""},
		"a coordinate too long":   {m{"key": m{"kty": "EC", "crv": "P-256", "x": strings.Repeat("AAAA", 20), "y": "AQ"}}, "not a point"},
		"another curve":           {m{"key": m{"kty": "EC-HSM", "crv": "P-256K", "x": "AQ", "y": "AQ"}}, "P-256K"},
		"a symmetric key":         {m{"key": m{"kty": "oct-HSM"}}, "oct-HSM"},
		"an exponent too large":   {m{"key": m{"kty": "RSA", "n": strings.Repeat("A", 342), "e": "AQIDBAUG"}}, "cannot be one of RSA"},
		"a key that may not sign": {m{"key": m{"kty": "RSA", "key_ops": []string{"encrypt"}}}, "not for signing"},
		"a version that is off":   {m{"key": m{"kty": "RSA"}, "attributes": m{"enabled": false}}, "disabled"},
		"no base64":               {m{"key": m{"kty": "RSA", "n": "*"}}, "not one of Key Vault"},
	} {
		answer = tc.answer
		if _, err := s.Public(t.Context()); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigurationsOfAzureThatCannotWork(t *testing.T) {
	ref, _ := tokenFile(t, "x")
	env, err := secret.ParseRef("env:AZURE_CLIENT_SECRET")
	if err != nil {
		t.Fatal(err)
	}
	key := "https://acme.vault.azure.net" + kms.AzureVersion(3)
	for _, tc := range []struct {
		field  string
		change func(*azurekv.Config)
	}{
		{"key", func(c *azurekv.Config) { c.Key = "https://acme.vault.azure.net/keys/seal" }},
		{"key", func(c *azurekv.Config) { c.Key = "http://acme.vault.azure.net" + kms.AzureVersion(3) }},
		{"key", func(c *azurekv.Config) { c.Key = key + "?x=1" }},
		{"key", func(c *azurekv.Config) { c.Key = "https://acme.vault.azure.net/keys/../" + kms.AzureVersion(3) }},
		{"tenant", func(c *azurekv.Config) { c.Tenant = "" }},
		{"tenant", func(c *azurekv.Config) { c.Tenant = "a/../b" }},
		{"client_id", func(c *azurekv.Config) { c.Client = "" }},
		{"client_secret", func(c *azurekv.Config) { c.Secret = secret.Ref{} }},
		{"client_secret", func(c *azurekv.Config) { c.Secret = env }},
		{"managed_identity", func(c *azurekv.Config) { c.Managed = true }},
		{"client_id", func(c *azurekv.Config) { *c = azurekv.Config{Key: key, Managed: true, Client: "a b"} }},
		{"authority", func(c *azurekv.Config) { c.Authority = "http://login.example.com" }},
		{"authority", func(c *azurekv.Config) { c.Authority = "https://login.example.com/tenant" }},
	} {
		c := azurekv.Config{Key: key, Tenant: kms.AzureTenant, Client: kms.AzureClient, Secret: ref}
		if _, err := azurekv.New(c); err != nil {
			t.Fatal(err)
		}
		tc.change(&c)
		_, err := azurekv.New(c)
		var bad *keyservice.ConfigError
		if !errors.As(err, &bad) || bad.Field != tc.field || !isPermanent(err) {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
}

func TestAzureAsksForTimeAndGetsIt(t *testing.T) {
	h := newHouse(t, services["azure"], newP256(), 0)
	h.store.SetFault(kms.Busy, -1)
	_, err := h.keys.Open(t.Context(), "house")
	var later interface{ RetryAfter() time.Duration }
	if !errors.As(err, &later) || later.RetryAfter() != 7*time.Second {
		t.Errorf("%v", err)
	}
}
