package hubspot_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/hostile"
)

// fuzzed is a portal with a little of everything and no rate limits.
func fuzzed(f *testing.F) *hubspot.Portal {
	f.Helper()
	p := hubspot.New(hubspot.Options{
		Tokens: []hubspot.Token{{Value: testToken}}, MaxFileSize: 1 << 16,
		Limits: hubspot.Limits{TenSecondly: -1, Daily: -1, SearchSecondly: -1, Associations: -1},
	})
	id, err := p.CreateDeal(map[string]string{"dealname": "x", "dealstage": "contractsent"})
	if err == nil {
		_, err = p.AddContact(id, map[string]string{"email": "s@example.com"}, "Signer")
	}
	if err == nil {
		_, err = p.AddFile(id, "Quote.pdf", []byte("quote"))
	}
	if err != nil {
		f.Fatal(err)
	}
	return p
}

// FuzzRequest looks for panics, for answers that are not JSON and for server
// errors: whatever a client sends, the fault is the client's.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"PATCH", "/crm/objects/2026-03/deals/7891001", `{"properties":{"amount":1,"closedate":"1763640000000","dealname":null}}`},
		{"POST", "/crm/v3/objects/deals/batch/read", `{"inputs":[{"id":"7891001"}],"propertiesWithHistory":["dealstage"]}`},
		{"POST", "/crm/objects/2026-09/contacts/batch/upsert", `{"inputs":[{"id":"a@b","idProperty":"email","properties":{"email":"a@b"}}]}`},
		{"POST", "/crm/objects/2026-03/notes", `{"properties":{"hs_timestamp":"0"},"associations":[{"to":{"id":"7891001"},"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":214}]}]}`},
		{"POST", "/crm/v4/associations/deals/contacts/batch/archive", `{"inputs":[{"from":{"id":"7891001"},"to":[{"id":201}]}]}`},
		{"PUT", "/crm/v4/objects/deals/7891001/associations/contacts/201", `[{"associationCategory":"USER_DEFINED","associationTypeId":37}]`},
		{"POST", "/crm/properties/2026-03/deals", `{"groupName":"dealinformation","name":"x","label":"X","type":"enumeration","fieldType":"checkbox","options":[{"value":"a"}]}`},
		{"POST", "/crm/v3/objects/deals/merge", `{"primaryObjectId":"7891001","objectIdToMerge":7891002}`},
		{"GET", "/crm/v3/objects/deals/7891001?associations=contacts&propertiesWithHistory=dealstage", ""},
		{"GET", "/files/v3/files/stat/uploads%2F..%2FQuote.pdf", ""},
		{"GET", "/signed-content/file/1?expires=1&signature=x", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	p := fuzzed(f)
	f.Fuzz(func(t *testing.T, method, path, body string) {
		hostile.Budget(t)
		w := call(p, method, path, body)
		if w == nil {
			return
		}
		if w.Code >= 500 {
			t.Errorf("%s %s: status %d", method, path, w.Code)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: %s", method, path, w.Body)
		}
	})
}

// FuzzUpload feeds the multipart reader.
func FuzzUpload(f *testing.F) {
	const part = "--b\r\nContent-Disposition: form-data; name=%\r\n\r\n"
	f.Add("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.pdf\"\r\nContent-Type: application/pdf\r\n\r\nx\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"folderPath\"\r\n\r\n/f\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"options\"\r\n\r\n{\"access\":\"PRIVATE\",\"ttl\":\"P1M\"}\r\n--b--\r\n")
	f.Add(strings.ReplaceAll(part, "%", "\"file\"") + "x")
	f.Add("--b--")
	p := fuzzed(f)
	f.Fuzz(func(t *testing.T, body string) {
		hostile.Budget(t)
		r := httptest.NewRequest("POST", "/files/2026-03/files", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+testToken)
		r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
