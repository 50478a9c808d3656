package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
)

// dealLines is how many lines an order form of two pages has.
const dealLines = 24

// linePrice is what a line costs, in cents.
const linePrice = 18990

// lineAmount is linePrice as the CRMs write it.
const lineAmount = "189.90"

// quote is the ready PDF that is on the records of ruleReady.
func quote() []byte { return filler(50_000) }

func (w *world) startSalesforce(ctx context.Context, tenant string) (*crm, error) {
	login, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(login)
	if err != nil {
		return nil, err
	}
	key := w.path(tenant + "-login.pem")
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	org := salesforce.New(salesforce.Options{OrgID: fmt.Sprintf("00DWs0000000%03d", len(w.crms)), OrgName: tenant, Sandbox: true, ConsumerKey: "bench", PublicKey: &login.PublicKey, RequestLimit: 1 << 30})
	c := &crm{
		stages: map[string]string{ruleOrderForm: "Closed Won", ruleAlone: "Proposal/Price Quote", ruleReady: "Value Proposition"},
		back:   "{transaction_id: DealSeal_Transaction_ID__c, status: {field: DealSeal_Status__c}, signed_at: DealSeal_Signed_At__c, url: DealSeal_Document_URL__c, audit: DealSeal_Audit__c}",
		calls:  func() map[string]int { return salesforceCalls(org.Requests()) },
		forget: org.ResetRequests,
	}
	if c.url, err = serveHTTP(ctx, w.slowly(mortal(&c.dead, org))); err != nil {
		return nil, err
	}
	c.with = fmt.Sprintf("{my_domain: %q, auth: {flow: jwt, consumer_key: bench, username: integration@acme.example, private_key: %q}, tx_marker: DealSeal_Key__c, poll: %s}", c.url, "file:"+key, w.pollOf(tenant))
	c.open = func(rule string, lines int) (string, error) { return openOpportunity(org, rule, lines) }
	c.close = func(record, rule string) error { return org.MoveStage(record, c.stages[rule]) }
	return c, nil
}

func openOpportunity(org *salesforce.Org, rule string, lines int) (string, error) {
	account, err := org.CreateAccount(map[string]any{"Name": "Brightwater Logistics GmbH", "BillingStreet": "Speicherstraße 8", "BillingPostalCode": "20457", "BillingCity": "Hamburg", "BillingCountry": "Germany"})
	if err != nil {
		return "", err
	}
	id, err := org.CreateOpportunity(map[string]any{"Name": "Cold chain monitoring, full roll-out", "AccountId": account, "StageName": "Negotiation/Review"})
	if err != nil {
		return "", err
	}
	if rule == ruleReady {
		_, err := org.AddFile(id, "Quote.pdf", quote())
		return id, err
	}
	items := make([]map[string]any, lines)
	for i := range items {
		items[i] = map[string]any{"Quantity": json.Number("1"), "UnitPrice": json.Number(lineAmount),
			"Product2": map[string]any{"Name": fmt.Sprintf("Temperature probe, stainless steel, lot %d", i+1), "ProductCode": fmt.Sprintf("TP-%d", 1000+i)}}
	}
	if err := org.AddLineItems(id, items); err != nil {
		return "", err
	}
	_, err = org.AddContactRole(id, map[string]any{"Role": "Decision Maker", "IsPrimary": true, "Contact": map[string]any{"LastName": "Jürgen Weiß", "Email": "purchasing@example.com"}})
	return id, err
}

func (w *world) startHubSpot(ctx context.Context, tenant string) (*crm, error) {
	access := "pat-eu1-" + rand.Text()
	file := w.path(tenant + "-token")
	if err := os.WriteFile(file, []byte(access), 0o600); err != nil {
		return nil, err
	}
	wide := hubspot.Limits{TenSecondly: 1 << 30, Daily: 1 << 30, SearchSecondly: 1 << 30, Associations: 1 << 30}
	portal := hubspot.New(hubspot.Options{AccountType: "SANDBOX", Tokens: []hubspot.Token{{Value: access}}, Limits: wide})
	for _, f := range hubspot.WriteBackProperties() {
		if err := portal.AddProperty("deals", f); err != nil {
			return nil, err
		}
	}
	c := &crm{
		stages: map[string]string{ruleOrderForm: "contractsent", ruleAlone: "presentationscheduled", ruleReady: "closedwon"},
		back:   "{transaction_id: dealseal_transaction_id, status: {field: dealseal_status}, signed_at: dealseal_signed_at, url: dealseal_document_url, audit: dealseal_audit}",
		calls:  func() map[string]int { return hubspotCalls(portal.Requests()) },
		forget: portal.ResetRequests,
	}
	var err error
	if c.url, err = serveHTTP(ctx, w.slowly(mortal(&c.dead, portal))); err != nil {
		return nil, err
	}
	c.with = fmt.Sprintf("{base_url: %q, auth: {flow: token, token: %q}, poll: %s, rate: 100000, search_rate: 10000}", c.url, "file:"+file, w.pollOf(tenant))
	n := 0
	c.open = func(rule string, lines int) (string, error) { n++; return openDealRecord(portal, rule, lines, n) }
	c.close = func(record, rule string) error { return portal.MoveStage(record, c.stages[rule]) }
	return c, nil
}

func openDealRecord(portal *hubspot.Portal, rule string, lines, n int) (string, error) {
	id, err := portal.CreateDeal(map[string]string{"dealname": "Cold chain monitoring, full roll-out", "pipeline": "default", "dealstage": "appointmentscheduled",
		"amount": fmt.Sprintf("%d.%02d", lines*linePrice/100, lines*linePrice%100), "deal_currency_code": "EUR", "closedate": "2026-12-31T00:00:00Z"})
	if err != nil {
		return "", err
	}
	if rule == ruleReady {
		_, err := portal.AddFile(id, "Quote.pdf", quote())
		return id, err
	}
	if _, err := portal.AddCompany(id, map[string]string{"name": "Brightwater Logistics GmbH", "address": "Speicherstraße 8", "zip": "20457", "city": "Hamburg", "country": "Germany"}); err != nil {
		return "", err
	}
	if _, err := portal.AddContact(id, map[string]string{"firstname": "Jürgen", "lastname": "Weiß", "email": fmt.Sprintf("purchasing-%d@example.com", n)}, "Signer"); err != nil {
		return "", err
	}
	for i := range lines {
		if _, err := portal.AddLineItem(id, map[string]string{"name": fmt.Sprintf("Temperature probe, stainless steel, lot %d", i+1), "hs_sku": fmt.Sprintf("TP-%d", 1000+i),
			"quantity": "1", "price": lineAmount, "amount": lineAmount, "hs_position_on_quote": fmt.Sprint(i)}); err != nil {
			return "", err
		}
	}
	return id, nil
}

func sum[K comparable](counts map[K]int) (n int) {
	for _, v := range counts {
		n += v
	}
	return n
}

// pollCall is the call by which a connector asks what has happened.
const pollCall = "poll"

var fromWhere = regexp.MustCompile(`FROM (\w+) WHERE (\w+)`)

// salesforceCalls counts the calls of a log by what they are for. Parts of a composite call are none of their own.
func salesforceCalls(log []salesforce.Request) map[string]int {
	calls := map[string]int{}
	var part salesforce.Kind
	for _, r := range log {
		name := string(r.Kind)
		switch r.Kind {
		case salesforce.KindQuery:
			if of := fromWhere.FindAllStringSubmatch(r.Query, -1); len(of) > 0 {
				name = "query " + of[len(of)-1][1]
				if of[0][1] == "OpportunityHistory" && of[0][2] == "CreatedDate" {
					name = pollCall
				}
			}
		case salesforce.KindComposite:
			name = "composite " + string(part)
		}
		if r.Sub {
			if r.Kind != salesforce.KindQuery { // with which a composite upload ends
				part = r.Kind
			}
			continue
		}
		calls[name]++
	}
	return calls
}

// hubspotCalls counts the calls of a log by what they are for.
func hubspotCalls(log []hubspot.Request) map[string]int {
	calls := map[string]int{}
	for _, r := range log {
		parts := strings.Split(strings.Trim(r.Path, "/"), "/") // crm/objects/2026-03/deals/1
		name := string(r.Kind)
		switch {
		case r.Kind == hubspot.KindSearch:
			name = pollCall
		case len(parts) > 4 && parts[1] == "associations":
			name += " " + parts[4]
		case len(parts) > 3 && parts[0] == "crm":
			name += " " + parts[3]
		}
		calls[name]++
	}
	return calls
}
