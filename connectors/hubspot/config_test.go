package hubspot

import (
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/secret"
)

func ref(t *testing.T, text string) secret.Ref {
	t.Helper()
	r, err := secret.ParseRef(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConfigNamesTheKeyAndTheCure(t *testing.T) {
	token := Auth{Flow: FlowToken, Token: ref(t, "env:T")}
	oauth := Auth{Flow: FlowOAuth, ClientID: "c", ClientSecret: ref(t, "env:S"), RefreshToken: ref(t, "env:R")}
	with := func(c Config, auth Auth) Config { c.Auth = auth; return c }
	for name, c := range map[string]struct {
		cfg  Config
		want []string // parts of the error; none for a valid configuration
	}{
		"token":                     {with(Config{}, token), nil},
		"oauth":                     {with(Config{}, oauth), nil},
		"loopback polls fast":       {with(Config{BaseURL: "http://127.0.0.1:8202", Poll: time.Second}, token), nil},
		"no flow":                   {Config{}, []string{"auth.flow", FlowToken, FlowOAuth}},
		"no token":                  {with(Config{}, Auth{Flow: FlowToken}), []string{"auth.token: is missing"}},
		"token with oauth's keys":   {with(Config{}, Auth{Flow: FlowToken, Token: token.Token, ClientID: "c"}), []string{"auth: client_id"}},
		"oauth without anything":    {with(Config{}, Auth{Flow: FlowOAuth}), []string{"auth.client_id", "auth.client_secret", "auth.refresh_token"}},
		"oauth with a static token": {with(Config{}, Auth{FlowOAuth, token.Token, "c", oauth.ClientSecret, oauth.RefreshToken}), []string{"auth.token: is not used"}},
		"http to the world":         {with(Config{BaseURL: "http://api.hubapi.com"}, token), []string{"base_url", "use https"}},
		"URL with a path":           {with(Config{BaseURL: "https://api.hubapi.com/crm"}, token), []string{"base_url", "more than scheme and host"}},
		"no URL":                    {with(Config{BaseURL: "api.hubapi.com"}, token), []string{"base_url", "is no URL"}},
		"numeric version":           {with(Config{APIVersion: "v3"}, token), []string{"api_version", "2026-03"}},
		"poll too short":            {with(Config{Poll: time.Second}, token), []string{"poll", "15s"}},
		"look-back out of range":    {with(Config{LookBack: time.Second}, token), []string{"look_back", "1m"}},
		"timeout too short":         {with(Config{Timeout: time.Millisecond}, token), []string{"timeout: 1ms is out of range", "1s"}},
		"transfer too long":         {with(Config{TransferTimeout: time.Hour}, token), []string{"transfer_timeout", "10m"}},
		"folder that climbs":        {with(Config{Folder: "/a/../b"}, token), []string{"folder"}},
		"folder without a slash":    {with(Config{Folder: "dealseal"}, token), []string{"folder", "/dealseal"}},
		"rate above every tier":     {with(Config{Rate: 1000}, token), []string{"rate", "250"}},
		"search rate of another":    {with(Config{SearchRate: 6}, token), []string{"search_rate", "1 to 5"}},
		"several at once":           {Config{Poll: 1, APIVersion: "x"}, []string{"auth.flow", "poll", "api_version"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.cfg.Validate()
			if len(c.want) == 0 && err != nil {
				t.Fatalf("refused: %v", err)
			}
			for _, part := range c.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("the error is %v, want one with %q", err, part)
				}
			}
		})
	}
}

func TestConfigHasDefaults(t *testing.T) {
	c := Config{Auth: Auth{Flow: FlowToken, Token: ref(t, "env:T")}}
	if c.PollInterval() != time.Minute {
		t.Errorf("PollInterval = %s", c.PollInterval())
	}
	if got := c.AccountHint(); got != "https://api.hubapi.com env:T" {
		t.Errorf("AccountHint = %q", got)
	}
	if _, err := New(Config{Auth: Auth{FlowOAuth, secret.Ref{}, "c", ref(t, "env:S"), ref(t, "env:R")}}, Deps{}); err == nil {
		t.Error("oauth was accepted without a memory for replaced refresh tokens")
	}
}

func TestAccountHintsTellLoginsApart(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []Config{
		{Auth: Auth{Flow: FlowToken, Token: ref(t, "env:A")}},
		{Auth: Auth{Flow: FlowToken, Token: ref(t, "env:B")}},
		{BaseURL: "http://127.0.0.1:1", Auth: Auth{Flow: FlowToken, Token: ref(t, "env:A")}},
		{Auth: Auth{Flow: FlowOAuth, ClientID: "c", RefreshToken: ref(t, "env:A")}},
		{Auth: Auth{Flow: FlowOAuth, ClientID: "c", RefreshToken: ref(t, "env:B")}},
	} {
		hint := c.AccountHint()
		if seen[hint] {
			t.Errorf("two logins have the hint %q", hint)
		}
		seen[hint] = true
	}
}
