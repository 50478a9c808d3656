package salesforce

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
)

// Run with -race this proves that calls and control methods may overlap; without
// it, that no change is lost when they do.
func TestOrgIsSafeForConcurrentUse(t *testing.T) {
	w := newWire(t, Options{})
	id := w.opportunity(nil)
	const rounds = 20
	jobs := map[string]func(i int) error{
		"upload": func(i int) error {
			_, err := w.org.AddFile(id, fmt.Sprintf("%d.pdf", i), []byte("x"))
			return err
		},
		"stage": func(i int) error { return w.org.Update(id, map[string]any{"Probability": i + 1}) },
		"permissions": func(int) error {
			w.org.Hide("Opportunity.NextStep")
			w.org.Show("Opportunity.NextStep")
			return nil
		},
		"composite": func(int) error {
			body := `{"allOrNone":true,"compositeRequest":[{"method":"PATCH","url":"` + base + `/sobjects/Opportunity/` + id + `","referenceId":"a","body":{"Description":"x"}},
				{"method":"POST","url":"` + base + `/sobjects/Account","referenceId":"b","body":{}}]}`
			return w.status("POST", "/composite", body, 200)
		},
		"query":    func(int) error { return w.status("GET", "/query?q=SELECT+Id+FROM+OpportunityHistory", "", 200) },
		"describe": func(int) error { return w.status("GET", "/sobjects/Opportunity/describe", "", 200) },
	}
	var wg sync.WaitGroup
	for name, job := range jobs {
		wg.Go(func() {
			for i := range rounds {
				if err := job(i); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := len(w.org.Files(id)); n != rounds {
		t.Errorf("%d files, want %d", n, rounds)
	}
	if n := len(w.org.Records("OpportunityHistory")); n != rounds+1 {
		t.Errorf("%d history rows, want one for the creation and %d for the changes", n, rounds)
	}
	if r, _ := w.org.Record(id); r["Description"] != nil || fmt.Sprint(r["Probability"]) != "20.0" {
		t.Errorf("record = %v", r)
	}
}

// status is call for goroutines other than the test's own.
func (w *wire) status(method, path, body string, want int) error {
	req, err := http.NewRequest(method, w.url+base+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	res, err := w.send(req)
	if err == nil && res.status != want {
		err = fmt.Errorf("status %d: %s", res.status, res.body)
	}
	return err
}

func FuzzRequest(f *testing.F) {
	for _, s := range []struct{ method, target, contentType, body string }{
		{"POST", "/services/oauth2/token", "application/x-www-form-urlencoded", "grant_type=" + bearerGrant + "&assertion=e30.e30.e30"},
		{"PATCH", base + "/sobjects/Opportunity/006000000000001", "application/json", `{"Amount":1e15,"AccountId":"001000000000000AAA"}`},
		{"PATCH", base + "/sobjects/Opportunity/DealSeal_Transaction_ID__c/a%2Fb", "application/json", `{"Name":"n","StageName":"s","CloseDate":"2026-01-01"}`},
		{"POST", base + "/sobjects/ContentVersion", `multipart/form-data; boundary="B"`, "--B\r\nContent-Disposition: form-data; name=\"entity_content\"\r\n\r\n{\"PathOnClient\":\"a\"}\r\n--B\r\nContent-Disposition: form-data; name=\"VersionData\"; filename=\"a\"\r\n\r\nx\r\n--B--"},
		{"POST", base + "/composite", "application/json", `{"allOrNone":true,"compositeRequest":[{"method":"POST","url":"` + base + `/sobjects/Account","referenceId":"a","body":{"Name":"@{a.x[0].y}"}}]}`},
		{"PATCH", base + "/composite/sobjects", "application/json", `{"records":[{"attributes":{"type":"Account"},"id":"x"}]}`},
		{"DELETE", base + "/composite/sobjects?ids=x,001000000000000AAA", "", ""},
		{"GET", base + "/sobjects/Opportunity/updated?start=2026-11-20T20:00:00%2B00:00&end=2026-11-20T21:00:00Z", "", ""},
		{"GET", base + "/query/0r8Ws0000000001IAA-2000", "", ""},
	} {
		f.Add(s.method, s.target, s.contentType, s.body)
	}
	f.Fuzz(func(t *testing.T, method, target, contentType, body string) {
		hostile.Budget(t)
		req, err := http.NewRequest(method, "http://org"+target, strings.NewReader(body))
		if err != nil {
			return
		}
		org := New(Options{MaxUpload: 1 << 16})
		org.sessions["token"] = &session{user: org.integration, used: org.now()}
		req.Header.Set("Authorization", "Bearer token")
		req.Header.Set("Content-Type", contentType)
		res := httptest.NewRecorder()
		org.ServeHTTP(res, req)
		if res.Code < 200 || res.Code > 599 {
			t.Fatalf("status %d", res.Code)
		}
	})
}
