package salesforce

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
)

func TestFailureIsJudgedByItsCode(t *testing.T) {
	one := func(code, message string) string { return `[{"message":"` + message + `","errorCode":"` + code + `"}]` }
	for name, tc := range map[string]struct {
		status    int
		body      string
		permanent bool
		after     time.Duration
		expired   bool
		text      string
	}{
		"session":            {status: 401, body: one("INVALID_SESSION_ID", "Session expired or invalid"), expired: true},
		"session, no body":   {status: 401, expired: true},
		"app not attached":   {status: 401, body: one("INVALID_SESSION_ID", "Connected app is not attached to Agent"), permanent: true},
		"no REST":            {status: 401, body: one("INVALID_SESSION_ID", "This session is not valid for use with the REST API"), permanent: true},
		"daily limit":        {status: 403, body: one("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), after: 30 * time.Minute},
		"concurrent limit":   {status: 403, body: one("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."), after: 15 * time.Second},
		"no API":             {status: 403, body: one("API_DISABLED_FOR_ORG", ""), permanent: true},
		"row lock":           {status: 400, body: one("UNABLE_TO_LOCK_ROW", ""), after: 2 * time.Second},
		"validation rule":    {status: 400, body: one("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Amount 4711 is wrong"), permanent: true, text: "rule of the org"},
		"flow, lock":         {status: 400, body: one("CANNOT_EXECUTE_FLOW_TRIGGER", "UNABLE_TO_LOCK_ROW, unable"), after: 2 * time.Second},
		"trigger, rule":      {status: 400, body: one("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "FIELD_CUSTOM_VALIDATION_EXCEPTION, no"), permanent: true},
		"unknown field":      {status: 400, body: one("INVALID_FIELD", `SELECT Id, Secret__c\\nERROR at Row:1:Column:8\\nNo such column 'Secret__c' on entity 'Opportunity'.`), permanent: true, text: "(Secret__c)"},
		"named fields":       {status: 400, body: `[{"errorCode":"STRING_TOO_LONG","message":"x","fields":["A__c","B' OR"]}]`, permanent: true, text: "(A__c)"},
		"storage":            {status: 400, body: one("STORAGE_LIMIT_EXCEEDED", ""), after: time.Hour},
		"unknown code":       {status: 400, body: one("SOMETHING_NEW", ""), after: 30 * time.Second},
		"changed":            {status: 412, after: 2 * time.Second},
		"retired":            {status: 410, body: one("UNSUPPORTED_API_VERSION", ""), permanent: true},
		"method":             {status: 405, permanent: true},
		"too large":          {status: 413, permanent: true, text: "larger than what Salesforce takes"},
		"edge":               {status: 420, after: 30 * time.Second},
		"web page":           {status: 503, body: "<html><body>Down for maintenance</body></html>", after: 30 * time.Second},
		"empty list":         {status: 500, body: "[]", after: 30 * time.Second},
		"nothing":            {status: 500, after: 30 * time.Second},
		"null":               {status: 500, body: "[null]", after: 30 * time.Second},
		"code with a secret": {status: 400, body: one("pass: 4711 word", ""), after: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			e := failure(tc.status, http.Header{}, []byte(tc.body))
			if e.Permanent() != tc.permanent || e.RetryAfter() != tc.after || (e.class == expired) != tc.expired {
				t.Errorf("permanent %t, after %s, expired %t; want %t, %s, %t",
					e.Permanent(), e.RetryAfter(), e.class == expired, tc.permanent, tc.after, tc.expired)
			}
			if !strings.Contains(e.Error(), tc.text) {
				t.Errorf("%q lacks %q", e, tc.text)
			}
			for _, leak := range []string{"4711", "SELECT", "maintenance", "OR"} {
				if strings.Contains(e.Error(), leak) && !strings.Contains(e.Code, leak) {
					t.Errorf("the text repeats the reply: %v", e)
				}
			}
		})
	}
}

func TestTroubleWithTheLoginIsToldFromTroubleWithARecord(t *testing.T) {
	for code, tc := range map[string]struct {
		status int
		login  bool
	}{
		"INVALID_SESSION_ID":                {401, true},
		"API_DISABLED_FOR_ORG":              {403, true},
		"API_CURRENTLY_DISABLED":            {403, true},
		"INSUFFICIENT_ACCESS":               {403, false},
		"REQUEST_LIMIT_EXCEEDED":            {403, false},
		"NOT_FOUND":                         {404, false},
		"FIELD_CUSTOM_VALIDATION_EXCEPTION": {400, false},
	} {
		if err := failure(tc.status, http.Header{}, []byte(`[{"errorCode":"`+code+`"}]`)); connectors.IsLogin(err) != tc.login {
			t.Errorf("%s: login %t, want %t", code, !tc.login, tc.login)
		}
	}
}

func TestRetryAfterHeaderIsHonoured(t *testing.T) {
	if e := failure(503, http.Header{"Retry-After": {"120"}}, nil); deal.RetryAfter(e) != 2*time.Minute {
		t.Errorf("retry after %s, the header says 120 seconds", e.RetryAfter())
	}
}

func TestOAuthFailureNamesTheCure(t *testing.T) {
	for description, cure := range map[string]string{
		"user hasn't approved this consumer":   "pre-authorise",
		"Audience validation failed":           "auth.audience",
		"audience is invalid":                  "auth.audience",
		"invalid assertion":                    "clock",
		"no client credentials user enabled":   "run-as user",
		"something about seal@acme.example 17": "check auth",
	} {
		e := oauthFailure(400, http.Header{}, []byte(`{"error":"invalid_grant","error_description":"`+description+`"}`))
		if !e.Permanent() || !strings.Contains(e.Error(), cure) || strings.Contains(e.Error(), "acme") {
			t.Errorf("%q gives %v, want a permanent error about %q", description, e, cure)
		}
	}
	for _, status := range []int{429, 500, 503} {
		if e := oauthFailure(status, http.Header{}, []byte(`{"error":"invalid_grant"}`)); e.Permanent() {
			t.Errorf("a login answered with %d is given up for good", status)
		}
	}
}

func FuzzErrorBody(f *testing.F) {
	for _, seed := range []string{"", "[]", "[null]", "{}", `[{"errorCode":"X","message":"y","fields":["Z"]}]`, "<html>", `{"error":"invalid_grant","error_description":"z"}`, `[[[`} {
		f.Add(400, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		hostile.Budget(t)
		for _, e := range []*Error{failure(status, http.Header{}, body), oauthFailure(status, http.Header{}, body)} {
			if e.Code != "" && !codeForm.MatchString(e.Code) {
				t.Errorf("code %q", e.Code)
			}
			for _, name := range e.Fields {
				if !fieldPath.MatchString(name) {
					t.Errorf("field %q", name)
				}
			}
			if e.Error() == "" || e.RetryAfter() < 0 {
				t.Errorf("%#v", e)
			}
		}
	})
}
