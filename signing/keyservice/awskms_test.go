package keyservice_test

import (
	"errors"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/kms"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/keyservice/awskms"
)

// awsCredentials is what a helper would write.
func awsCredentials(secret string) string {
	return "[default]\naws_access_key_id = " + kms.AWSAccessKey + "\naws_secret_access_key = " + secret + "\naws_session_token = session\n"
}

func serveAWS(t *testing.T, store *kms.Store) string {
	t.Helper()
	server := httptest.NewServer(store.AWS())
	t.Cleanup(server.Close)
	return server.URL
}

func TestAWSCredentialsAreReadAnewAndNeverRepeated(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "elsewhere")
	}
	store := kms.NewStore()
	store.Add("seal", newP256())
	ref, path := tokenFile(t, awsCredentials("the secret of yesterday"))
	s, err := awskms.New(awskms.Config{Region: "eu-central-1", Key: kms.AWSKeyID, Credentials: ref, Endpoint: serveAWS(t, store)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Public(t.Context())
	if !isPermanent(err) || !strings.Contains(err.Error(), "are refused") || strings.Contains(err.Error(), "yesterday") || strings.Contains(err.Error(), "KeyId") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, []byte(awsCredentials(kms.Token)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Public(t.Context()); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"[other]\n", ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Public(t.Context()); !isPermanent(err) {
			t.Errorf("with %q: %v", text, err)
		}
	}
	calls := store.Calls()
	if n := len(calls); n != 2 || calls[1].Header.Get("X-Amz-Security-Token") != "session" {
		t.Errorf("%d requests, want 2, the last with the token of the session", n)
	}
}

func TestConfigurationsOfAWSThatCannotWork(t *testing.T) {
	ref, _ := tokenFile(t, "x")
	env, err := secret.ParseRef("env:AWS_SECRET")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		field  string
		change func(*awskms.Config)
	}{
		{"region", func(c *awskms.Config) { c.Region = "" }},
		{"region", func(c *awskms.Config) { c.Region = "evil.example/" }},
		{"key", func(c *awskms.Config) { c.Key = "alias/seal" }},
		{"key", func(c *awskms.Config) { c.Key = "" }},
		{"credentials", func(c *awskms.Config) { c.Credentials = secret.Ref{} }},
		{"credentials", func(c *awskms.Config) { c.Credentials = env }},
		{"endpoint", func(c *awskms.Config) { c.Endpoint = "http://kms.example.com" }},
	} {
		c := awskms.Config{Region: "eu-central-1", Key: "arn:aws:kms:eu-central-1:111122223333:key/" + kms.AWSKeyID, Credentials: ref}
		if _, err := awskms.New(c); err != nil {
			t.Fatal(err)
		}
		tc.change(&c)
		_, err := awskms.New(c)
		var bad *keyservice.ConfigError
		if !errors.As(err, &bad) || bad.Field != tc.field || !isPermanent(err) {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
}
