package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// started is a running mockcrm.
type started struct {
	credentials
	t    *testing.T
	stop context.CancelFunc
	code chan int
}

func start(t *testing.T, args ...string) *started {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &started{t: t, stop: stop, code: make(chan int, 1)}
	r, w := io.Pipe()
	args = append([]string{"-salesforce", "127.0.0.1:0", "-pubsub", "127.0.0.1:0", "-hubspot", "localhost:0", "-admin", "127.0.0.1:0"}, args...)
	var stderr bytes.Buffer
	go func() {
		s.code <- run(ctx, args, w, &stderr)
		w.Close()
	}()
	if err := json.NewDecoder(bufio.NewReader(r)).Decode(&s.credentials); err != nil {
		stop()
		t.Fatalf("no credentials: %v; exit code %d, %s", err, <-s.code, &stderr)
	}
	go io.Copy(io.Discard, r)
	t.Cleanup(func() { stop(); http.DefaultClient.CloseIdleConnections() })
	return s
}

// admin does one call of the admin endpoint and decodes its answer.
func (s *started) admin(status int, method, path, body string) map[string]any {
	s.t.Helper()
	got, raw := s.send(method, s.Admin+path, body, "")
	if got != status {
		s.t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, raw)
	}
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
	}
	return v
}

func (s *started) send(method, url, body, token string) (int, []byte) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, raw
}

func first(v map[string]any, key string) map[string]any {
	list, _ := v[key].([]any)
	if len(list) == 0 {
		return nil
	}
	m, _ := list[0].(map[string]any)
	return m
}

func TestMockcrmEndsWhenItIsTold(t *testing.T) {
	s := start(t)
	s.admin(200, "GET", "/credentials", "")
	s.stop()
	if code := <-s.code; code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestHelpIsTheManual(t *testing.T) {
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"-h"}, io.Discard, &stderr); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"/hubspot/deals/{id}/merge", "-sf-public-key", "127.0.0.1:8203", "SIGTERM"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("the manual does not mention %s", want)
		}
	}
}

func TestWrongCommandLinesAreRefused(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(garbage, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		say  string
	}{
		"every address":     {[]string{"-salesforce", "0.0.0.0:0"}, exitUsage, "loopback"},
		"no host":           {[]string{"-hubspot", ":8202"}, exitUsage, "loopback"},
		"another machine":   {[]string{"-admin", "192.0.2.1:0"}, exitUsage, "loopback"},
		"a name":            {[]string{"-admin", "example.com:0"}, exitUsage, "loopback"},
		"no port":           {[]string{"-admin", "127.0.0.1"}, exitUsage, "127.0.0.1:8201"},
		"an argument":       {[]string{"serve"}, exitUsage, "serve"},
		"unknown flag":      {[]string{"-nosuch"}, exitUsage, "nosuch"},
		"a key without PEM": {[]string{"-sf-public-key", garbage}, exitError, "PEM"},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), tc.args, io.Discard, &stderr); code != tc.code || !strings.Contains(stderr.String(), tc.say) {
			t.Errorf("%s: exit code %d, %s", name, code, &stderr)
		}
	}
}

func TestAGivenPublicKeyIsUsedAndNoPrivateOneIsPrinted(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "-sf-public-key", file, "-sf-consumer-key", "ck", "-hs-token", "tok")
	if s.Salesforce.PrivateKey != "" || s.Salesforce.ConsumerKey != "ck" || s.HubSpot.Token != "tok" {
		t.Errorf("%+v", s.credentials)
	}
}

func TestThePrintedPrivateKeySignsAnAssertionThatSalesforceTakes(t *testing.T) {
	s := start(t)
	block, _ := pem.Decode([]byte(s.Salesforce.PrivateKey))
	if block == nil {
		t.Fatalf("no PEM in %q", s.Salesforce.PrivateKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	login := func(subject string) int {
		claims, err := json.Marshal(map[string]any{
			"iss": s.Salesforce.ConsumerKey, "sub": subject, "aud": "https://login.salesforce.com", "exp": time.Now().Add(time.Minute).Unix(),
		})
		if err != nil {
			t.Fatal(err)
		}
		enc := base64.RawURLEncoding
		text := enc.EncodeToString([]byte(`{"alg":"RS256"}`)) + "." + enc.EncodeToString(claims)
		digest := sha256.Sum256([]byte(text))
		signature, err := rsa.SignPKCS1v15(nil, key.(*rsa.PrivateKey), crypto.SHA256, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.PostForm(s.Salesforce.URL+"/services/oauth2/token", url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {text + "." + enc.EncodeToString(signature)},
		})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if status := login(s.Salesforce.Username); status != 200 {
		t.Errorf("status %d", status)
	}
	if status := login("somebody@else.example"); status != 400 {
		t.Errorf("another user: status %d", status)
	}
}

func TestADealIsLedThroughHubSpot(t *testing.T) {
	s := start(t)
	ids := s.admin(200, "POST", "/hubspot/deals", `{"properties":{"dealname":"Acme","dealstage":"contractsent"},"lineItems":[{"name":"Seat"}],
		"companies":[{"name":"Acme"}],"contacts":[{"properties":{"email":"s@example.com"},"label":"Signer"}]}`)["ids"].([]any)
	deal := "/hubspot/deals/" + ids[0].(string)
	s.admin(200, "POST", deal+"/stage", `{"stage":"closedwon"}`)
	s.admin(200, "PATCH", deal, `{"properties":{"amount":"12"}}`)
	s.admin(200, "POST", deal+"/files?name=Quote.pdf", "%PDF quote")
	if file := first(s.admin(200, "GET", deal+"/files", ""), "files"); file["path"] != "/uploads/Quote.pdf" {
		t.Errorf("file %v", file)
	} else if _, raw := s.send("GET", s.Admin+file["content"].(string), "", ""); string(raw) != "%PDF quote" {
		t.Errorf("content %q", raw)
	}
	status, raw := s.send("GET", s.HubSpot.URL+"/crm/v3/objects/deals/"+ids[0].(string)+"?associations=contacts,companies,line_items", "", s.HubSpot.Token)
	for _, want := range []string{`"dealstage":"closedwon"`, `"amount":"12"`, `"contacts":`, `"companies":`, `"line items":`} {
		if status != 200 || !strings.Contains(string(raw), want) {
			t.Errorf("status %d, no %s in %s", status, want, raw)
		}
	}
	other := s.admin(200, "POST", "/hubspot/deals", `{"properties":{"dealname":"Twin"}}`)["ids"].([]any)[0].(string)
	merged := s.admin(200, "POST", deal+"/merge", `{"with":"`+other+`"}`)["id"]
	if got := s.admin(200, "GET", deal, "")["id"]; got != merged {
		t.Errorf("the old ID leads to %v, want %v", got, merged)
	}
	s.admin(404, "GET", "/hubspot/deals/1", "")
	s.admin(400, "PATCH", "/hubspot/deals/"+merged.(string), `{"properties":{"nosuch":"1"}}`)
	s.admin(400, "PATCH", "/hubspot/deals/"+merged.(string), `{"fields":{}}`)
}

func TestADealIsLedThroughSalesforce(t *testing.T) {
	s := start(t)
	id := s.admin(200, "POST", "/salesforce/opportunities", `{"fields":{"Name":"Acme"},
		"lineItems":[{"Product2":{"Name":"Seat"},"Quantity":2,"UnitPrice":100}],"contactRoles":[{"Contact":{"LastName":"Lovelace"}}]}`)["id"].(string)
	s.admin(200, "POST", "/salesforce/opportunities/"+id+"/stage", `{"stage":"Closed Won"}`)
	s.admin(200, "PATCH", "/salesforce/records/"+id, `{"fields":{"Name":"Acme 2"}}`)
	if got := s.admin(200, "GET", "/salesforce/records/"+id, ""); got["StageName"] != "Closed Won" || got["Name"] != "Acme 2" {
		t.Errorf("%v", got)
	}
	s.admin(200, "POST", "/salesforce/records/"+id+"/files?name=Quote.pdf", "%PDF quote")
	if file := first(s.admin(200, "GET", "/salesforce/records/"+id+"/files", ""), "files"); file["name"] != "Quote.pdf" {
		t.Errorf("file %v", file)
	} else if _, raw := s.send("GET", s.Admin+file["content"].(string), "", ""); string(raw) != "%PDF quote" {
		t.Errorf("content %q", raw)
	}
	resp, err := http.PostForm(s.Salesforce.URL+"/services/oauth2/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {s.Salesforce.ConsumerKey}, "client_secret": {s.Salesforce.ClientSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("token: status %d", resp.StatusCode)
	}
	s.admin(200, "PUT", "/salesforce/state", `{"usage":14000,"commitDelay":"5s","freeze":"2026-11-20T10:00:00Z","hide":["Opportunity.Amount"]}`)
	s.admin(400, "PUT", "/salesforce/state", `{"commitDelay":5}`)
	s.admin(200, "PUT", "/salesforce/state", `{"commitDelay":"0s","track":["Order.Status"],"permit":["EditActivatedOrders"]}`)
	account := s.admin(200, "POST", "/salesforce/objects/Account", `{"fields":{"Name":"Acme"}}`)["id"].(string)
	order := s.admin(200, "POST", "/salesforce/objects/Order", `{"fields":{"AccountId":"`+account+`","Status":"Draft","EffectiveDate":"2026-12-01"}}`)["id"].(string)
	s.admin(200, "POST", "/salesforce/objects/OrderItem", `{"fields":{"OrderId":"`+order+`","Quantity":2,"UnitPrice":100}}`)
	s.admin(200, "PATCH", "/salesforce/records/"+order, `{"fields":{"Status":"Activated"}}`)
	if got := s.admin(200, "GET", "/salesforce/records/"+order, ""); got["TotalAmount"] != 200.0 {
		t.Errorf("the order's total is %v", got["TotalAmount"])
	}
	if rows := s.admin(200, "GET", "/salesforce/objects/OrderHistory", "")["ids"].([]any); len(rows) != 2 {
		t.Errorf("the order has %d rows of history, want one that it was made and one that it was activated", len(rows))
	}
	s.admin(404, "GET", "/salesforce/records/006000000000001", "")
}

func TestFaultsAndCountersAreReachedThroughTheAdminEndpoint(t *testing.T) {
	s := start(t)
	for crm, effect := range map[string]string{"hubspot": "423", "salesforce": "lock_row"} {
		path := "/" + crm + "/faults"
		id := s.admin(200, "POST", path, `{"effect":"`+effect+`","times":1,"delay":"1ms"}`)["id"].(float64)
		if f := first(s.admin(200, "GET", path, ""), "faults"); f["id"] != id || f["effect"] != effect || f["delay"] != 1e6 {
			t.Errorf("%s: %v", crm, f)
		}
		s.admin(400, "POST", path, `{"effect":"nosuch"}`)
		s.admin(400, "POST", path, `{"effect":"`+effect+`","kinds":"get"}`)
		s.admin(404, "DELETE", path+"/99", "")
	}
	const owners = "/crm/v3/owners"
	if status, _ := s.send("GET", s.HubSpot.URL+owners, "", s.HubSpot.Token); status != 423 {
		t.Errorf("status %d with the fault", status)
	}
	if status, _ := s.send("GET", s.HubSpot.URL+owners, "", s.HubSpot.Token); status != 200 {
		t.Errorf("status %d without the fault", status)
	}
	counts := s.admin(200, "GET", "/hubspot/requests", "")["counts"].(map[string]any)
	if counts["owners"] != 2. {
		t.Errorf("%v", counts)
	}
	s.admin(200, "DELETE", "/hubspot/requests", "")
	if counts := s.admin(200, "GET", "/hubspot/requests", "")["counts"].(map[string]any); len(counts) != 0 {
		t.Errorf("%v", counts)
	}
}
