package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/dealseal/dealseal/mocks/pki"
)

// writeConfiguration writes what an administrator would: dealseal.yaml and one file per tenant.
func (w *world) writeConfiguration() error {
	if _, err := tool(context.Background(), nil, w.dealseal, "keygen", "master", w.path("config/master-key")); err != nil {
		return err
	}
	main := fmt.Sprintf(`# Made by the demo.
state_dir: %q
master_key: %q
templates: %q
listen: {admin: "127.0.0.1:0"}
renderer: {wasm: %q}
signing:
  keys:
    house: %s
  tsa:
    - {url: %q}
  trust: [%q]
  profiles:
    contract: {key: house, level: B-LTA, name: Northwind Systems, reason: "Contract of transaction {tx}", on_downgrade: hold}
`, w.path("state"), "file:"+w.path("config/master-key"), absolute(w.templates), absolute(w.renderer), w.keyConfig, w.authority.URL(pki.PathTSA), w.path("trust/root.pem"))
	if err := os.WriteFile(w.path("config/dealseal.yaml"), []byte(main), 0o600); err != nil {
		return err
	}
	for _, c := range w.crms {
		if err := os.WriteFile(w.path("config/tenants/"+c.tenant+".yaml"), []byte(w.tenantFile(c)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) tenantFile(c *crm) string {
	const form = `# Made by the demo.
tenant:
  id: %s
  name: Northwind Systems
  environment: sandbox
  time_zone: Europe/London
  currency: EUR
  seller: {address: "1 Harbour Street, Bristol BS1 5DB, United Kingdom", registration: "Company no. 01234567"}
crm:
  kind: %s
  with: %s
rules:
  - id: order-form
    when: {stage: %q}
    start_from: now
    document: {template: order-form@1}
    seal: contract
    write_back: %s
`
	with, stage := fmt.Sprintf("{my_domain: %q, auth: {flow: jwt, consumer_key: %q, username: integration@acme.example, audience: %q, private_key: %q}, tx_marker: DealSeal_Key__c, poll: 1s}",
		c.url, w.consumerKey, c.url, "file:"+w.path("config/salesforce-login.pem")), "Closed Won"
	back := "{transaction_id: DealSeal_Transaction_ID__c, status: {field: DealSeal_Status__c}, signed_at: DealSeal_Signed_At__c, url: DealSeal_Document_URL__c, audit: DealSeal_Audit__c}"
	if c.kind == "hubspot" {
		with, stage = fmt.Sprintf("{base_url: %q, auth: {flow: token, token: %q}, poll: 1s}", c.url, "file:"+w.path("config/hubspot-token")), "contractsent"
		back = "{transaction_id: dealseal_transaction_id, status: {field: dealseal_status}, signed_at: dealseal_signed_at, url: dealseal_document_url, audit: dealseal_audit}"
	}
	return fmt.Sprintf(form, c.tenant, c.kind, with, stage, back)
}

// dealsealFields picks the fields that dealseal writes from a record.
func dealsealFields(record map[string]any) map[string]string {
	out := map[string]string{}
	for name, value := range record {
		if strings.HasPrefix(strings.ToLower(name), "dealseal_") && value != nil && value != "" {
			out[name] = fmt.Sprint(value)
		}
	}
	return out
}

func isTrail(name string) bool { return strings.Contains(name, "audit trail") }
