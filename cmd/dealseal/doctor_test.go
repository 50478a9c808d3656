package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/web"
	"github.com/dealseal/dealseal/webhooks"
)

// patientHouse is everything around one configuration, to be spoilt in one place before it is built. Its key is a soft one that
// costs nothing to open.
type patientHouse struct {
	t   *testing.T
	dir string

	authority *pki.Authority
	key       *ecdsa.PrivateKey
	leaf      x509.Certificate // of the key's certificate, filled in before it is issued
	certified crypto.PublicKey // what the certificate is for
	trust     []byte

	kind   deal.Kind
	sales  salesforce.Options
	fields map[string][]salesforce.Field
	hub    hubspot.Options
	org    *salesforce.Org
	portal *hubspot.Portal
	crm    *httptest.Server
	secret string
	config map[string]string // replacements in the main file
	tenant map[string]string // and in the tenant's
}

const patientConfiguration = `state_dir: $DIR/state
master_key: file:$DIR/master-key
templates: $ROOT/templates
renderer: {wasm: $ROOT/build/typst.wasm, children: 1}
signing:
  trust: [root.pem]
  tsa:
    - {url: $TSA, timeout: 1m}
  keys:
    house: {kind: soft, file: seal.key, passphrase: "file:$DIR/passphrase"}
  profiles:
    contract: {key: house, reason: Contract}
    long: {key: house, hash: SHA-512}
`

const patientSalesforce = `tenant: {id: acme, environment: sandbox, time_zone: Europe/Paris, currency: EUR}
crm: {kind: salesforce, with: {my_domain: "$CRM", auth: {flow: client_credentials, consumer_key: app, client_secret: "file:$DIR/secret"}}}
rules:
  - id: order-form
    when: {stage: Closed Won}
    document: {template: order-form@1}
    seal: contract
    write_back: {transaction_id: DealSeal_Transaction_ID__c, status: {field: DealSeal_Status__c}, signed_at: DealSeal_Signed_At__c, url: DealSeal_Document_URL__c, audit: DealSeal_Audit__c}
`

const patientHubSpot = `tenant: {id: acme, environment: sandbox, time_zone: Europe/Paris, currency: EUR}
crm: {kind: hubspot, with: {base_url: "$CRM", auth: {flow: token, token: "file:$DIR/secret"}, rate: 100000, search_rate: 10000}}
rules:
  - id: order-form
    when: {stage: closedwon}
    document: {template: order-form@1}
    seal: contract
    write_back: {transaction_id: dealseal_transaction_id, status: {field: dealseal_status}, signed_at: dealseal_signed_at, url: dealseal_document_url, audit: dealseal_audit}
`

const patientPassphrase = "a passphrase for tests"

// newPatient makes a house that is in order. spoil is asked before anything runs.
func newPatient(t *testing.T, kind deal.Kind, spoil func(*patientHouse)) *patientHouse {
	t.Helper()
	dir, err := os.MkdirTemp("", "dealseal-doctor-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &patientHouse{t: t, dir: dir, kind: kind, secret: "a secret for tests", config: map[string]string{}, tenant: map[string]string{}}
	must(t, os.Mkdir(p.path("state"), 0o700))
	must(t, os.Mkdir(p.path("tenants"), 0o700))
	server := httptest.NewUnstartedServer(nil)
	p.authority, err = pki.New(pki.Options{BaseURL: "http://" + server.Listener.Addr().String(), Hang: time.Hour})
	must(t, err)
	server.Config.Handler = p.authority
	server.Start()
	t.Cleanup(server.Close)
	p.trust = p.authority.RootPEM()
	p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p.certified = p.key.Public()
	p.leaf = x509.Certificate{Subject: pkix.Name{CommonName: "House Seal"}, NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature}
	p.sales = salesforce.Options{Sandbox: true, ConsumerKey: "app", ClientSecret: p.secret, RequestLimit: 1000}
	p.fields = salesforce.DealSealFields()
	p.hub = hubspot.Options{AccountType: "SANDBOX", Tokens: []hubspot.Token{{Value: p.secret, Scopes: enoughScopes()}}}
	if spoil != nil {
		spoil(p)
	}
	p.build()
	return p
}

func (p *patientHouse) path(name string) string { return filepath.Join(p.dir, name) }

func (p *patientHouse) write(name string, content []byte) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.path(name), content, 0o600))
}

func (p *patientHouse) build() {
	t := p.t
	t.Helper()
	chain, err := p.authority.IssueLeaf(p.certified, &p.leaf)
	must(t, err)
	p.write("seal.key", sealKey(t, p.key, chain, patientPassphrase))
	p.write("passphrase", []byte(patientPassphrase))
	p.write("master-key", bytes.Repeat([]byte("m"), minMasterKey))
	p.write("root.pem", p.trust)
	p.write("secret", []byte(p.secret))
	file := patientHubSpot
	switch p.kind {
	case deal.Salesforce:
		file = patientSalesforce
		p.openOrg()
	case deal.HubSpot:
		p.openPortal()
	}
	replace := func(text string, edits map[string]string) []byte {
		for from, to := range edits {
			if strings.Count(text, from) != 1 {
				t.Fatalf("%q stands %d times in\n%s", from, strings.Count(text, from), text)
			}
			text = strings.Replace(text, from, to, 1)
		}
		return []byte(strings.NewReplacer("$DIR", p.dir, "$ROOT", repository(t), "$TSA", p.authority.URL(pki.PathTSA), "$CRM", p.crm.URL).Replace(text))
	}
	p.write("dealseal.yaml", replace(patientConfiguration, p.config))
	p.write("tenants/acme.yaml", replace(file, p.tenant))
}

func (p *patientHouse) openOrg() {
	p.sales.CustomFields = p.fields
	p.org = salesforce.New(p.sales)
	p.crm = httptest.NewServer(p.org)
	p.t.Cleanup(p.crm.Close)
	id := func(id string, err error) string {
		p.t.Helper()
		must(p.t, err)
		return id
	}
	account := id(p.org.CreateAccount(map[string]any{"Name": hiddenCustomer}))
	record := id(p.org.CreateOpportunity(map[string]any{"Name": hiddenSubject, "AccountId": account}))
	id(p.org.AddLineItem(record, map[string]any{"Quantity": 3, "UnitPrice": 1234.5, "Product2": map[string]any{"Name": hiddenGoods}}))
	id(p.org.AddContactRole(record, map[string]any{"Contact": map[string]any{"LastName": hiddenPerson, "Email": hiddenMail}}))
}

func (p *patientHouse) openPortal() {
	p.portal = hubspot.New(p.hub)
	for _, f := range hubspot.WriteBackProperties() {
		must(p.t, p.portal.AddProperty("deals", f))
	}
	p.crm = httptest.NewServer(p.portal)
	p.t.Cleanup(p.crm.Close)
	record, err := p.portal.CreateDeal(map[string]string{"dealname": hiddenSubject, "pipeline": "default", "dealstage": "closedlost", "amount": "3703.50", "deal_currency_code": "EUR", "closedate": "2026-12-31T00:00:00Z"})
	must(p.t, err)
	_, err = p.portal.AddCompany(record, map[string]string{"name": hiddenCustomer})
	must(p.t, err)
	_, err = p.portal.AddContact(record, map[string]string{"firstname": hiddenPerson, "email": hiddenMail}, "")
	must(p.t, err)
	_, err = p.portal.AddLineItem(record, map[string]string{"name": hiddenGoods, "quantity": "3", "price": "1234.50", "amount": "3703.50"})
	must(p.t, err)
}

// examine runs every check but the rendering of templates, in this process.
func (p *patientHouse) examine() (found []doctor.Finding) {
	p.t.Helper()
	h, err := loadHouse(p.path("dealseal.yaml"))
	must(p.t, err)
	x := h.newExaminer(p.t.Context(), slog.New(slog.DiscardHandler))
	defer x.close()
	all := slices.DeleteFunc(x.examinations(), func(e doctor.Examination) bool { return e.Name == checkRendered })
	found = doctor.Run(p.t.Context(), all)
	for _, a := range x.questions(found) {
		if a.Answer != yes && a.Answer != no && a.Answer != notYet || a.Reason == "" {
			p.t.Errorf("a question is not answered: %+v", a)
		}
	}
	return found
}

// trouble leaves out passes, and what depends on the machine that the tests run on.
func trouble(found []doctor.Finding) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(found), func(f doctor.Finding) bool {
		return f.Result == doctor.Pass || f.Check == checkSync || f.Check == checkFileSystem || f.Check == checkSpace
	})
}

// oneTrouble holds that a house has exactly the one finding, with words of what it says and of its cure.
func oneTrouble(t *testing.T, found []doctor.Finding, check, subject string, result doctor.Result, words ...string) {
	t.Helper()
	for _, f := range found {
		if f.What == "" || (f.Cure == "") != (f.Result == doctor.Pass) {
			t.Errorf("a finding has no name, no cure, or a cure for nothing: %+v", f)
		}
		for _, value := range []string{hiddenCustomer, hiddenSubject, hiddenPerson, hiddenMail, hiddenGoods, "a secret for tests", patientPassphrase} {
			if strings.Contains(f.What+f.Cure, value) {
				t.Errorf("a finding holds a value: %+v", f)
			}
		}
	}
	bad := trouble(found)
	if len(bad) != 1 {
		t.Fatalf("%d findings, want one: %+v", len(bad), bad)
	}
	f := bad[0]
	if f.Check != check || f.Subject != subject || f.Result != result {
		t.Errorf("%s %q is a %s, want %s %q a %s: %s -> %s", f.Check, f.Subject, f.Result, check, subject, result, f.What, f.Cure)
	}
	for _, w := range words {
		if !strings.Contains(f.What+" -> "+f.Cure, w) {
			t.Errorf("the finding lacks %q: %s -> %s", w, f.What, f.Cure)
		}
	}
}

func TestAHouseInOrderHasNoFindings(t *testing.T) {
	t.Parallel()
	for _, kind := range bothCRMs {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			found := newPatient(t, kind, nil).examine()
			if bad := trouble(found); len(bad) > 0 {
				t.Errorf("findings: %+v", bad)
			}
			var asked []string
			for _, f := range found {
				asked = append(asked, f.Check)
			}
			slices.Sort(asked)
			want := []string{"access", "budget", "certificate", "clock", "clock", "environment", "fields", "file_system", "files", "fsync", "key", "login", "master_key", "ocsp",
				"scopes", "signature", "space", "stage", "state_dir", "template", "trust", "tsa", "write_back"}
			if kind == deal.HubSpot && !slices.Contains(asked, "budget") {
				want = slices.DeleteFunc(want, func(s string) bool { return s == "budget" })
			}
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("checks (-want +got):\n%s", diff)
			}
		})
	}
}

// clock is a CRM's clock that is off.
func clock(off time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(off) }
}

// enoughScopes are those that dealseal asks for.
func enoughScopes() []string {
	return slices.DeleteFunc(hubspot.AllScopes(), func(s string) bool {
		return slices.Contains([]string{"crm.schemas.deals.write", "crm.objects.companies.write", "crm.objects.line_items.write", "automation"}, s) || strings.Contains(s, ".quotes.")
	})
}

func without(list []string, one string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == one })
}

func TestASpoiltSalesforceGivesItsFindingAndTheCure(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spoil, after   func(*patientHouse)
		check, subject string
		result         doctor.Result
		words          []string
	}{
		"login refused":       {spoil: func(p *patientHouse) { p.sales.ClientSecret = "another" }, check: "login", result: doctor.Failure, words: []string{"invalid_client", "check auth"}},
		"nobody there":        {after: func(p *patientHouse) { p.crm.Close() }, check: "login", result: doctor.Failure, words: []string{"no answer", "see that this machine reaches the CRM"}},
		"history hidden":      {after: func(p *patientHouse) { p.org.Hide("OpportunityHistory") }, check: "stage", result: doctor.Failure, words: []string{"stage history", "read access to opportunities"}},
		"production":          {spoil: func(p *patientHouse) { p.sales.Sandbox = false }, check: "environment", result: doctor.Failure, words: []string{"configured as environment: sandbox", "production account", "tenant.environment"}},
		"clock a little off":  {spoil: func(p *patientHouse) { p.sales.Now = clock(10 * time.Second) }, check: "clock", result: doctor.Warning, words: []string{"ahead of", "ms", "NTP"}},
		"clock far off":       {spoil: func(p *patientHouse) { p.sales.Now = clock(-5 * time.Minute) }, check: "clock", result: doctor.Failure, words: []string{"behind", "NTP"}},
		"stage misspelt":      {spoil: func(p *patientHouse) { p.tenant["Closed Won"] = "Closed Wonn" }, check: "stage", subject: "order-form", result: doctor.Failure, words: []string{"Closed Wonn", `did you mean "Closed Won"?`}},
		"stage of a move":     {spoil: func(p *patientHouse) { p.tenant["    when:"] = "    move: {signed: Closed Lots}\n    when:" }, check: "move", subject: "order-form", result: doctor.Failure, words: []string{"move.signed", "Closed Lots", `did you mean "Closed Lost" or`}},
		"stage hidden":        {spoil: func(p *patientHouse) { p.tenant["    when:"] = "    move: {signed: Closed Lost}\n    when:" }, after: func(p *patientHouse) { p.org.DenyEdit("Opportunity.StageName") }, check: "move", subject: "order-form", result: doctor.Failure, words: []string{"StageName cannot be written", "edit access"}},
		"field hidden":        {after: func(p *patientHouse) { p.org.Hide("Account.Name") }, check: "fields", result: doctor.Failure, words: []string{"Account.Name", "read access"}},
		"field not writable":  {after: func(p *patientHouse) { p.org.DenyEdit("Opportunity.DealSeal_Audit__c") }, check: "write_back", result: doctor.Failure, words: []string{"write_back.audit", "edit access"}},
		"field too short":     {spoil: func(p *patientHouse) { p.fields["Opportunity"][0].Length = 20 }, check: "write_back", result: doctor.Failure, words: []string{"write_back.transaction_id", "holds 20 characters, 26 are needed", "longer"}},
		"field of wrong type": {spoil: func(p *patientHouse) { p.fields["Opportunity"][2].Type = salesforce.TypeDate }, check: "write_back", result: doctor.Failure, words: []string{"write_back.signed_at", "type date", "date/time"}},
		"picklist lacks word": {spoil: func(p *patientHouse) { p.fields["Opportunity"][1].Picklist = p.fields["Opportunity"][1].Picklist[:6] }, check: "write_back", result: doctor.Failure, words: []string{"write_back.status", `"Held"`, "write_back.status.values"}},
		"may do too much":     {after: func(p *patientHouse) { p.org.Permit("ModifyAllData") }, check: "scopes", result: doctor.Warning, words: []string{"more than dealseal needs: Modify All Data", "permission set"}},
		"records hidden":      {after: func(p *patientHouse) { p.org.SetSharing(salesforce.Private) }, check: "access", result: doctor.Warning, words: []string{"sees no opportunity of another owner", "View All Records"}},
		"records read-only":   {after: func(p *patientHouse) { p.org.SetSharing(salesforce.SharedForReading) }, check: "access", result: doctor.Warning, words: []string{"may not edit 1 of the 1", "Modify All Records"}},
		"no files":            {after: func(p *patientHouse) { p.org.DenyEdit("ContentVersion.VersionData") }, check: "files", result: doctor.Failure, words: []string{"VersionData", "right to create files"}},
		"calls running out":   {after: func(p *patientHouse) { p.org.SetUsage(850) }, check: "budget", result: doctor.Warning, words: []string{"of 1000 API calls", "slowed down", "crm.with.poll"}},
		"calls used up":       {after: func(p *patientHouse) { p.org.SetUsage(960) }, check: "budget", result: doctor.Failure, words: []string{"no new deals", "buy more"}},
		"no customer":         {after: (*patientHouse).takeCustomersAway, check: "template", subject: "order-form", result: doctor.Warning, words: []string{"order-form@1 fits none of the latest 1 record", `field "customer" is missing or blank`, "will be held"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, deal.Salesforce, tc.spoil)
			if tc.after != nil {
				tc.after(p)
			}
			oneTrouble(t, p.examine(), tc.check, tc.subject, tc.result, tc.words...)
		})
	}
}

func (p *patientHouse) takeCustomersAway() {
	for _, id := range p.org.Records("Opportunity") {
		must(p.t, p.org.Update(id, map[string]any{"AccountId": nil}))
	}
}

func TestASpoiltHubSpotGivesItsFindingAndTheCure(t *testing.T) {
	t.Parallel()
	scopes := func(lacking string) func(*patientHouse) {
		return func(p *patientHouse) { p.hub.Tokens[0].Scopes = without(enoughScopes(), lacking) }
	}
	for name, tc := range map[string]struct {
		spoil          func(*patientHouse)
		check, subject string
		result         doctor.Result
		words          []string
	}{
		"token refused":       {func(p *patientHouse) { p.hub.Tokens[0].Value = "another" }, "login", "", doctor.Failure, []string{"401", "token"}},
		"production":          {func(p *patientHouse) { p.hub.AccountType = "STANDARD" }, "environment", "", doctor.Failure, []string{"production account", "tenant.environment"}},
		"label for a stage":   {func(p *patientHouse) { p.tenant["stage: closedwon"] = "stage: Qualified To Buy" }, "stage", "order-form", doctor.Warning, []string{`the stage has the ID "qualifiedtobuy"`, `write when.stage: "qualifiedtobuy"`}},
		"ambiguous label":     {func(p *patientHouse) { p.tenant["stage: closedwon"] = "stage: Closed Won" }, "stage", "order-form", doctor.Failure, []string{`has the ID "closedwon"`, `has the ID "940013"`}},
		"label for a move":    {func(p *patientHouse) { p.tenant["    when:"] = "    move: {held: Qualified To Buy}\n    when:" }, "move", "order-form", doctor.Warning, []string{`the stage has the ID "qualifiedtobuy"`, `write move.held: "qualifiedtobuy"`}},
		"no such property":    {func(p *patientHouse) { p.tenant["audit: dealseal_audit"] = "audit: dealseal_audt" }, "write_back", "", doctor.Failure, []string{"dealseal_audt", `did you mean "dealseal_audit"?`}},
		"property for others": {func(p *patientHouse) { p.tenant["audit: dealseal_audit"] = "audit: hs_object_id" }, "write_back", "", doctor.Failure, []string{"cannot be written"}},
		"may not write deals": {scopes("crm.objects.deals.write"), "access", "", doctor.Failure, []string{"fields cannot be written to deals", "crm.objects.deals.write", "scope"}},
		"may do too much":     {func(p *patientHouse) { p.hub.Tokens[0].Scopes = append(enoughScopes(), "crm.schemas.deals.write") }, "scopes", "", doctor.Warning, []string{"more than dealseal needs: crm.schemas.deals.write", "dealseal provision"}},
		"may not make notes":  {scopes("crm.objects.contacts.write"), "files", "", doctor.Failure, []string{"notes that carry files cannot be made", "crm.objects.contacts.write"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			oneTrouble(t, newPatient(t, deal.HubSpot, tc.spoil).examine(), tc.check, tc.subject, tc.result, tc.words...)
		})
	}
}

func TestSpoiltSigningGivesItsFindingAndTheCure(t *testing.T) {
	t.Parallel()
	tsaFault := func(f pki.Fault) func(*patientHouse) {
		return func(p *patientHouse) { p.authority.SetFault(pki.ServiceTSA, f, -1) }
	}
	silent := func(p *patientHouse) {
		tsaFault(pki.Slow)(p)
		p.config["timeout: 1m"] = "timeout: 1s"
	}
	days := func(n int) func(*patientHouse) {
		return func(p *patientHouse) { p.leaf.NotAfter = time.Now().Add(time.Duration(n)*24*time.Hour + time.Hour) }
	}
	const house, tsa = "house", "TSA" // stands for its address
	for name, tc := range map[string]struct {
		spoil          func(*patientHouse)
		check, subject string
		result         doctor.Result
		words          []string
	}{
		"passphrase wrong":       {func(p *patientHouse) { p.config["$DIR/passphrase"] = "$DIR/master-key" }, "key", house, doctor.Failure, []string{"the passphrase is not the one", "signing.keys.house"}},
		"certificate nearly out": {days(30), "certificate", house, doctor.Warning, []string{"30 days left", "order the next certificate"}},
		"certificate out":        {days(-1), "certificate", house, doctor.Failure, []string{"ended at", "signing.keys.house.certificates"}},
		"another's certificate":  {func(p *patientHouse) { p.certified = p.authority.Signer.Key.Public() }, "key", house, doctor.Failure, []string{"certificate", "signing.keys.house"}},
		"certificate for keys":   {func(p *patientHouse) { p.leaf.KeyUsage = x509.KeyUsageKeyEncipherment }, "certificate", house, doctor.Failure, []string{"not for digital signatures"}},
		"certificate for servers": {func(p *patientHouse) { p.leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "trust", house, doctor.Failure,
			[]string{"extended key usage", "for signing documents"}},
		"responder down":       {func(p *patientHouse) { p.authority.SetFault(pki.ServiceOCSP, pki.Down, -1) }, "ocsp", house, doctor.Warning, []string{"no profile of this key puts it into documents"}},
		"responder talks":      {func(p *patientHouse) { p.authority.SetFault(pki.ServiceOCSP, pki.Garbage, -1) }, "ocsp", house, doctor.Warning, []string{"the OCSP response cannot be used"}},
		"responder endless":    {func(p *patientHouse) { p.authority.SetFault(pki.ServiceOCSP, pki.Endless, -1) }, "ocsp", house, doctor.Warning, []string{"larger than"}},
		"TSA down":             {tsaFault(pki.Down), "tsa", tsa, doctor.Failure, []string{"see that this machine may reach signing.tsa[0].url"}},
		"TSA unavailable":      {tsaFault(pki.Unavailable), "tsa", tsa, doctor.Failure, []string{"HTTP status 503"}},
		"TSA silent":           {silent, "tsa", tsa, doctor.Failure, []string{"no answer", "see that this machine may reach"}},
		"TSA refuses":          {tsaFault(pki.Rejection), "tsa", tsa, doctor.Failure, []string{"the TSA refused", "ask the operator"}},
		"TSA's clock off":      {tsaFault(pki.ClockOff), "clock", tsa, doctor.Failure, []string{"ahead of", "NTP"}},
		"TSA with another use": {tsaFault(pki.WrongEKU), "tsa", tsa, doctor.Failure, []string{"time-stamping alone", "operator"}},
		"TSA of other policy":  {func(p *patientHouse) { p.config["timeout: 1m"] = "timeout: 1m, policy: 1.2.3.4" }, "tsa", tsa, doctor.Failure, []string{"policy", "signing.tsa[0].policy"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, deal.Salesforce, tc.spoil)
			if tc.subject == tsa {
				tc.subject = hostOf(p.authority.URL(""))
			}
			oneTrouble(t, p.examine(), tc.check, tc.subject, tc.result, tc.words...)
		})
	}
}

func TestProfilesThatLastNeedEvidenceAboutKeyAndTSA(t *testing.T) {
	t.Parallel()
	p := newPatient(t, deal.Salesforce, func(p *patientHouse) { p.config["reason: Contract"] = "reason: Contract, level: B-LT" })
	p.authority.SetFault(pki.ServiceOCSP, pki.Down, -1)
	p.authority.SetFault(pki.ServiceCRL, pki.Down, -1)
	subjects := map[string]bool{}
	for _, f := range trouble(p.examine()) {
		subjects[f.Subject] = true
		if f.Check != checkEvidence || f.Result != doctor.Failure || !strings.Contains(f.Cure, "puts their answers into its documents") {
			t.Errorf("%+v", f)
		}
	}
	if len(subjects) != 2 || !subjects["house"] || !subjects[hostOf(p.authority.URL(""))] {
		t.Errorf("found of %v, want the key and the TSA", subjects)
	}
}

func TestARevokedCertificateFails(t *testing.T) {
	t.Parallel()
	p := newPatient(t, deal.Salesforce, nil)
	h, err := loadHouse(p.path("dealseal.yaml"))
	must(t, err)
	x := h.newExaminer(t.Context(), slog.New(slog.DiscardHandler))
	defer x.close()
	r, err := x.registry(t.Context(), "house")
	must(t, err)
	key, err := r.alone("house").Open(t.Context(), "house")
	must(t, err)
	p.authority.Revoke(key.Chain()[0], time.Now().Add(-time.Hour), 1)
	oneTrouble(t, p.examine(), "ocsp", "house", doctor.Failure, "revoked at", "stop sealing with this key")
}

func TestCheckUpsAreMadeSoonAfterTheStartAndThenDailyOrSoonerAfterAFailureOrAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		c := checkups{due: make(chan struct{}, 1)}
		var at []time.Duration
		go regularly(ctx, firstCheckup, c.due, func() time.Duration {
			at = append(at, time.Since(began))
			time.Sleep(time.Minute) // that it takes
			var r doctor.Report
			if len(at) == 2 {
				r.Counts.Failure = 1
			}
			return nextCheckup(&r)
		})
		time.Sleep(26 * time.Hour)
		c.hasten()
		c.hasten()
		time.Sleep(23 * time.Hour)
		cancel()
		synctest.Wait()
		if diff := cmp.Diff([]time.Duration{5 * time.Minute, 24*time.Hour + 6*time.Minute, 24*time.Hour + 22*time.Minute, 26*time.Hour + time.Minute}, at); diff != "" {
			t.Errorf("check-ups (-want +got):\n%s", diff)
		}
	})
}

func TestATimestampServerThatFailsBesideAGoodOneIsAWarning(t *testing.T) {
	stamp := func(r doctor.Result) doctor.Finding {
		return doctor.Finding{Group: doctor.Signing, Check: checkTSA, Result: r}
	}
	key := doctor.Finding{Group: doctor.Signing, Check: checkOpened, Result: doctor.Failure}
	for name, tc := range map[string]struct{ found, want []doctor.Finding }{
		"another is good":    {[]doctor.Finding{stamp(doctor.Failure), stamp(doctor.Pass), key}, []doctor.Finding{stamp(doctor.Warning), stamp(doctor.Pass), key}},
		"there is no other":  {[]doctor.Finding{stamp(doctor.Failure), key}, []doctor.Finding{stamp(doctor.Failure), key}},
		"all of them failed": {[]doctor.Finding{stamp(doctor.Failure), stamp(doctor.Failure)}, []doctor.Finding{stamp(doctor.Failure), stamp(doctor.Failure)}},
	} {
		spareStamps(tc.found)
		if diff := cmp.Diff(tc.want, tc.found); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A tenant whose tokens are replaced needs the store, where the newest is kept: it is opened for that if nobody else has it,
// and not otherwise.
func TestATenantWithOAuthIsAskedThroughTheStore(t *testing.T) {
	t.Parallel()
	p := newPatient(t, deal.HubSpot, func(p *patientHouse) {
		p.hub.OAuth = &hubspot.OAuthApp{ClientID: "client", ClientSecret: p.secret, RefreshToken: p.secret, RotateRefreshTokens: true, Scopes: enoughScopes()}
		p.tenant[`{flow: token, token: "file:$DIR/secret"}`] = `{flow: oauth, client_id: client, client_secret: "file:$DIR/secret", refresh_token: "file:$DIR/secret"}`
	})
	for range 2 { // the second finds what the first has kept
		if bad := trouble(p.examine()); len(bad) > 0 {
			t.Errorf("findings: %+v", bad)
		}
	}
	h, err := loadHouse(p.path("dealseal.yaml"))
	must(t, err)
	other, err := openStore(t.Context(), h.cfg, slog.New(slog.DiscardHandler))
	must(t, err)
	defer other.Close()
	oneTrouble(t, p.examine(), "login", "", doctor.Failure, "is in use by process", "does not answer")
}

// What a template makes of a field is compared with the field's type, and tried with a real record.
func TestAFieldOfTheWrongTypeIsNamed(t *testing.T) {
	t.Parallel()
	bad := trouble(newPatient(t, deal.Salesforce, func(p *patientHouse) {
		p.tenant["{template: order-form@1}"] = "{template: order-form@1, fields: {effective_date: {date: IsWon}}}"
	}).examine())
	if len(bad) != 2 || bad[0].Check != "fields" || bad[0].Result != doctor.Failure || !strings.Contains(bad[0].What, `"IsWon" leads to a field of type boolean`) ||
		bad[1].Check != checkTemplate || !strings.Contains(bad[1].What, `"effective_date"`) {
		t.Errorf("findings %+v", bad)
	}
}

// A PIN that was refused once is not tried again, however often somebody asks.
func TestDoctorNeverTriesARefusedPINAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{hsm: true, crms: []deal.Kind{deal.HubSpot}})
	must(t, os.WriteFile(w.path("pin"), []byte("00000000"), 0o600))
	for _, words := range []string{"PIN", "refused"} {
		stdout, stderr, code := w.run(t, "check", "--online", "--json")
		var r doctor.Report
		must(t, json.Unmarshal([]byte(stdout), &r))
		bad := slices.DeleteFunc(trouble(r.Findings), func(f doctor.Finding) bool { return f.Result != doctor.Failure })
		if code != exitFailed || len(bad) != 1 || bad[0].Check != checkOpened || !strings.Contains(bad[0].What, words) {
			t.Errorf("exit code %d, findings %+v\n%s", code, bad, stderr)
		}
		if strings.Contains(stdout+stderr, "00000000") {
			t.Error("the PIN is shown")
		}
	}
	counter, err := filepath.Glob(w.path("state/hsm/*/refused-pins-*"))
	if more, _ := filepath.Glob(w.path("state/hsm/refused-pins-*")); err != nil || len(counter)+len(more) != 1 {
		t.Errorf("the refusal is remembered in %q %q", counter, more)
	}
}

// Whoever asks as another user, or before the daemon has ever run, leaves nothing behind that the daemon could not use, and
// tries no PIN whose refusal could not be remembered.
func TestAStateDirectoryThatIsNotOursIsLeftAlone(t *testing.T) {
	t.Parallel()
	hsm := func(p *patientHouse) {
		p.config[`{kind: soft, file: seal.key, passphrase: "file:$DIR/passphrase"}`] = `{kind: pkcs11, module: $DIR/seal.key, token: t, label: l, pin: "file:$DIR/passphrase"}`
	}
	summary := func(found []doctor.Finding) (list []string) {
		for _, f := range trouble(found) {
			list = append(list, f.Check+" "+string(f.Result)+" -> "+f.Cure)
		}
		return list
	}
	t.Run("before the first start", func(t *testing.T) {
		t.Parallel()
		p := newPatient(t, deal.Salesforce, hsm)
		must(t, os.Remove(p.path("state")))
		want := []string{"key warning -> start the daemon, which makes the directory, and ask again", "state_dir warning -> start the daemon once; if that was done, correct state_dir"}
		if diff := cmp.Diff(want, summary(p.examine())); diff != "" {
			t.Errorf("findings (-want +got):\n%s", diff)
		}
		if _, err := os.Stat(p.path("state")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory is there now: %v", err)
		}
	})
	t.Run("of another user", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("LEFT OUT: only root can give a folder away")
		}
		p := newPatient(t, deal.Salesforce, hsm)
		const nobody = 65534
		must(t, os.Chown(p.path("state"), nobody, nobody))
		const cure = "run the command as the daemon's user, or while the daemon runs"
		if diff := cmp.Diff([]string{"key warning -> " + cure, "state_dir failure -> " + cure}, summary(p.examine())); diff != "" {
			t.Errorf("findings (-want +got):\n%s", diff)
		}
		left, err := os.ReadDir(p.path("state"))
		must(t, err)
		if len(left) > 0 {
			t.Errorf("it holds %v", left)
		}
	})
}

// Neither the key nor the TSA leads to a root that is trusted: each says so.
func TestAStrangersRootIsNotTrusted(t *testing.T) {
	t.Parallel()
	other, err := pki.New(pki.Options{})
	must(t, err)
	bad := trouble(newPatient(t, deal.Salesforce, func(p *patientHouse) { p.trust = other.RootPEM() }).examine())
	var got []string
	for _, f := range bad {
		got = append(got, f.Check)
		if !strings.Contains(f.Cure, "signing.trust") && f.Check != "ocsp" {
			t.Errorf("the cure of %s is %q", f.Check, f.Cure)
		}
	}
	if diff := cmp.Diff([]string{"trust", "tsa"}, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestASpoiltStateDirectoryGivesItsFindingAndTheCure(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spoil, after func(*patientHouse)
		check        string
		result       doctor.Result
		words        []string
	}{
		"others may write":   {nil, func(p *patientHouse) { must(p.t, os.Chmod(p.path("state"), 0o770)) }, "state_dir", doctor.Failure, []string{"mode 0770", "chmod 700"}},
		"others may look":    {nil, func(p *patientHouse) { must(p.t, os.Chmod(p.path("state"), 0o755)) }, "state_dir", doctor.Warning, []string{"mode 0755", "chmod 700"}},
		"not there":          {nil, func(p *patientHouse) { must(p.t, os.Remove(p.path("state"))) }, "state_dir", doctor.Warning, []string{"does not exist yet", "start the daemon"}},
		"a file":             {nil, (*patientHouse).putFileForState, "state_dir", doctor.Failure, []string{"is no folder"}},
		"socket for all":     {nil, (*patientHouse).openSocket, "socket", doctor.Failure, []string{"mode 0666", "chmod 600"}},
		"master key in it":   {func(p *patientHouse) { p.config["$DIR/master-key"] = "$DIR/state/master-key" }, func(p *patientHouse) { p.write("state/master-key", bytes.Repeat([]byte("m"), minMasterKey)) }, "master_key", doctor.Warning, []string{"inside the state directory", "systemd credential"}},
		"master key missing": {nil, func(p *patientHouse) { must(p.t, os.Remove(p.path("master-key"))) }, "master_key", doctor.Failure, []string{"no such file", "dealseal keygen master"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, deal.Salesforce, tc.spoil)
			if tc.after != nil {
				tc.after(p)
			}
			oneTrouble(t, p.examine(), tc.check, "", tc.result, tc.words...)
		})
	}
}

func (p *patientHouse) putFileForState() {
	must(p.t, os.Remove(p.path("state")))
	p.write("state", nil)
}

// openSocket leaves a socket that nobody answers on, as after a crash.
func (p *patientHouse) openSocket() {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: controlSocket(p.path("state")), Net: "unix"})
	must(p.t, err)
	l.SetUnlinkOnClose(false)
	must(p.t, os.Chmod(controlSocket(p.path("state")), 0o666))
	must(p.t, l.Close())
}

// TestACommandCountsItsTimeStampsWithTheDaemons asks three times of a server that may be asked twice a day.
func TestACommandCountsItsTimeStampsWithTheDaemons(t *testing.T) {
	t.Parallel()
	notAtMidnight(t)
	p := newPatient(t, deal.HubSpot, func(p *patientHouse) { p.config["timeout: 1m"] = "timeout: 1m, quota: 2" })
	for i, want := range []doctor.Finding{
		{Result: doctor.Pass, What: "0 of the 2 requests"},
		{Result: doctor.Pass, What: "1 of the 2 requests"},
		{Result: doctor.Failure, What: "all 2 requests"},
	} {
		var got []doctor.Finding
		asked := false
		for _, f := range p.examine() {
			if f.Check == checkQuota {
				got = append(got, f)
			}
			asked = asked || f.Check == checkTSA
		}
		if len(got) != 1 || got[0].Result != want.Result || !strings.HasPrefix(got[0].What, want.What) || asked != (want.Result == doctor.Pass) {
			t.Errorf("time %d: %+v, want %+v; asked: %v", i+1, got, want, asked)
		}
	}
}

func TestDisksAreJudged(t *testing.T) {
	const mib = 1 << 20
	ms := func(list ...int) (d []time.Duration) {
		for _, n := range list {
			d = append(d, time.Duration(n)*time.Millisecond)
		}
		return d
	}
	for name, tc := range map[string]struct {
		got    doctor.Finding
		result doctor.Result
		words  string
	}{
		"NFS":           {judgeFileSystem(unix.NFS_SUPER_MAGIC, 0), doctor.Warning, "NFS"},
		"ext4":          {judgeFileSystem(unix.EXT4_SUPER_MAGIC, 0), doctor.Pass, "local"},
		"memory":        {judgeFileSystem(unix.TMPFS_MAGIC, 0), doctor.Warning, "in memory"},
		"read-only":     {judgeFileSystem(unix.EXT4_SUPER_MAGIC, unix.ST_RDONLY), doctor.Failure, "read-only"},
		"full":          {judgeSpace(100*mib, 256*mib), doctor.Failure, "100 MiB are free: below disk_floor (256 MiB)"},
		"nearly full":   {judgeSpace(300*mib, 256*mib), doctor.Warning, "300 MiB are free"},
		"room":          {judgeSpace(5000*mib, 256*mib), doctor.Pass, "5000 MiB"},
		"quick disk":    {judgeSync(ms(1, 2, 3, 900, 2)), doctor.Pass, "p50 2.0 ms, at most 900.0 ms"},
		"slow disk":     {judgeSync(ms(30, 25, 21)), doctor.Warning, "p50 25.0 ms"},
		"clock agrees":  {clockFinding("it", time.Unix(1000, 0), time.Unix(995, 0), time.Unix(1001, 0), 0), doctor.Pass, "2000 ms ahead of this machine's (within 3000 ms)"},
		"clock is late": {clockFinding("it", time.Unix(900, 0), time.Unix(1000, 0), time.Unix(1000, 0), 0), doctor.Failure, "100000 ms behind"},
	} {
		if tc.got.Result != tc.result || !strings.Contains(tc.got.What, tc.words) {
			t.Errorf("%s: %+v", name, tc.got)
		}
	}
}

func TestAnAnswerSaysOnlyWhatWasFound(t *testing.T) {
	t.Parallel()
	p := newPatient(t, deal.Salesforce, nil)
	p.build()
	h, err := loadHouse(p.path("dealseal.yaml"))
	must(t, err)
	x := &examiner{house: h}
	answer := func(i int, spoil func([]doctor.Finding) []doctor.Finding) doctor.Answer {
		found := []doctor.Finding{doctor.Passed(checkOpened, "opened").On("house"), doctor.Passed(checkOCSP, "not revoked").On("house")}
		for i := range found {
			found[i].Group = doctor.Signing
		}
		for _, check := range []string{"login", "environment", "write_back", "access", "files"} {
			f := doctor.Passed(check, "fine")
			f.Group, f.Tenant = doctor.TenantGroup("acme"), "acme"
			found = append(found, f)
		}
		return x.questions(spoil(found))[i]
	}
	lacking := func(check string) func([]doctor.Finding) []doctor.Finding {
		return func(found []doctor.Finding) []doctor.Finding {
			return slices.DeleteFunc(found, func(f doctor.Finding) bool { return f.Check == check })
		}
	}
	const hooks, revocation, attached = 1, 2, 3
	for dialect, want := range map[string]string{"hubspot": yes, "hubspot-v2": no, "x-signature": no, "": no} {
		x.tenants[0].senders = []*web.Sender{{Tenant: "acme", Source: "it"}}
		if dialect != "" {
			x.tenants[0].senders[0].Dialects = []*webhooks.Dialect{webhooks.Find(dialect)}
		}
		if a := answer(hooks, slices.Clone); a.Answer != want || (want == no) != strings.Contains(a.Reason, `"it" of tenant "acme"`) {
			t.Errorf("a sender of dialect %q: %+v", dialect, a)
		}
	}
	x.tenants[0].senders = nil
	for dialect, want := range map[string]string{"standard-webhooks": yes, "sdf": no, "custom": no} {
		x.tenants[0].file.Webhooks = []config.Webhook{{ID: "erp", Dialect: dialect}}
		if a := answer(hooks, slices.Clone); a.Answer != want {
			t.Errorf("deliveries of dialect %q: %+v", dialect, a)
		}
	}
	x.tenants[0].file.Webhooks = nil
	if a := answer(revocation, slices.Clone); a.Answer != notYet || !strings.Contains(a.Reason, "the responder was asked") {
		t.Errorf("%+v", a)
	}
	for _, check := range []string{checkOCSP, ""} {
		spoil := lacking(check)
		if check == "" {
			spoil = func([]doctor.Finding) []doctor.Finding { return nil }
		}
		if a := answer(revocation, spoil); a.Answer != notYet || !strings.Contains(a.Reason, `"house" is revoked could not be asked`) {
			t.Errorf("nobody has asked the responder: %+v", a)
		}
	}
	if a := answer(attached, slices.Clone); a.Answer != yes {
		t.Errorf("%+v", a)
	}
	for _, check := range []string{"login", "environment", "write_back", "access", "files"} {
		if a := answer(attached, lacking(check)); a.Answer != no || !strings.Contains(a.Reason, `"acme"`) {
			t.Errorf("without an answer to %s: %+v", check, a)
		}
	}
}

// One examination is as good as another, whoever makes it: without a daemon the command asks, with one the daemon does,
// and the keys stay where they are.
func TestDoctorWithAndWithoutADaemon(t *testing.T) {
	t.Parallel()
	thrifty := usualTenant(deal.HubSpot)
	thrifty.scopes = enoughScopes()
	w := newWorld(t, worldOptions{hsm: true, tenants: []tenantOptions{usualTenant(deal.Salesforce), thrifty}})
	for _, c := range w.crms {
		c.open(sale{})
	}
	ask := func(by string) *doctor.Report {
		t.Helper()
		stdout, stderr, code := w.run(t, "doctor", "--json")
		var r doctor.Report
		if err := json.Unmarshal([]byte(stdout), &r); err != nil {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		if bad := trouble(r.Findings); len(bad) > 0 || code != 0 || !strings.HasPrefix(r.By, by) || len(r.Questions) != 5 {
			t.Errorf("exit code %d, asked by %s, %d questions, findings %+v\n%s", code, r.By, len(r.Questions), bad, stderr)
		}
		var answers []string
		for _, a := range r.Questions {
			answers = append(answers, a.Answer)
		}
		if diff := cmp.Diff([]string{yes, yes, notYet, yes, notYet}, answers); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		return &r
	}
	before := ask("this command")
	d := w.start(t)
	after := ask(fmt.Sprintf("the running daemon (process %d)", d.cmd.Process.Pid))
	names := func(r *doctor.Report) (list []string) {
		for _, f := range r.Findings {
			if f.Check != checkSocket {
				list = append(list, f.Group+" "+f.Check+" "+f.Subject)
			}
		}
		return list
	}
	if diff := cmp.Diff(names(before), names(after)); diff != "" {
		t.Errorf("checks without and with a daemon (-without +with):\n%s", diff)
	}

	// An edit is tried before it is loaded, and a broken one does not keep the rest from being asked.
	file := w.path("tenants/" + w.crms[0].tenant() + ".yaml")
	good, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, bytes.Replace(good, []byte("Closed Won"), []byte("Closed Wonn"), 1), 0o600))
	check := func() (text string, code int) {
		stdout, _, code := w.run(t, "check", "--online")
		return strings.Join(strings.Fields(stdout), " "), code // without the breaks of lines
	}
	stdout, code := check()
	if code != exitFailed || !strings.Contains(stdout, "the files were edited") || !strings.Contains(stdout, `did you mean "Closed Won"?`) || strings.Contains(stdout, "1. Are") {
		t.Errorf("exit code %d after an edit:\n%s", code, stdout)
	}
	must(t, os.WriteFile(file, append(good, "nonsense: 1\n"...), 0o600))
	stdout, code = check()
	if code != exitFailed || !strings.Contains(stdout, `unknown key "nonsense"`) || !strings.Contains(stdout, "signature house") {
		t.Errorf("exit code %d after a bad edit:\n%s", code, stdout)
	}
	for _, line := range []string{`dealseal_doctor_findings{result="failure",tenant=""} 1`, `dealseal_doctor_findings{result="failure",tenant="acme"} 0`} {
		if text := d.get(t, "/metrics"); !strings.Contains(text, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	if log := d.log(); !strings.Contains(log, "the check-up found something") || !strings.Contains(log, "what the last check-up found is mended") {
		t.Errorf("the daemon does not log what its check-ups find:\n%s", log)
	}
}
