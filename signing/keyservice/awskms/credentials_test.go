package awskms

import (
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
)

func TestCredentialsAreThoseOfTheDefaultSection(t *testing.T) {
	c, err := parseCredentials("# by a helper\n[other]\naws_access_key_id=X\naws_secret_access_key=Y\n[default]\nAWS_ACCESS_KEY_ID = A\r\naws_secret_access_key = B=\naws_session_token=C\nregion = x\n")
	if err != nil || c.AccessKeyID != "A" || c.SecretAccessKey != "B=" || c.SessionToken != "C" {
		t.Errorf("%v", err)
	}
	for _, text := range []string{"", "[other]\naws_access_key_id=hunter\naws_secret_access_key=hunter\n", "aws_access_key_id=hunter", "{\"hunter\": 1}"} {
		if _, err := parseCredentials(text); err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add("[default]\naws_access_key_id=A\naws_secret_access_key=B\n")
	f.Add("[\n=\n")
	f.Fuzz(func(t *testing.T, text string) {
		hostile.Budget(t)
		c, err := parseCredentials(text)
		if err == nil && (c.AccessKeyID == "" || c.SecretAccessKey == "" || strings.ContainsAny(c.AccessKeyID+c.SecretAccessKey+c.SessionToken, "\n")) {
			t.Fatalf("%q", text)
		}
	})
}
