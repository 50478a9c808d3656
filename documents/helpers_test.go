package documents

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"
)

const goodManifest = `id: offer
version: 2
title: Offer
schema: schema.json
locale: en-GB
signers:
  - {name: house, role: seal}
signature: {level: AES, justification: "no particular form is required"}
approval: {state: approved, by: Legal, on: 2026-11-02}
retention: contract
file_name: "Offer {customer.name} {tx}.pdf"
amount_check: exact
fields:
  salesforce:
    currency: CurrencyIsoCode
    customer.name: Account.Name
    start: {date: CloseDate}
    lines:
      from: OpportunityLineItems
      each:
        description: Product2.Name
        quantity: {number: Quantity}
        unit_price: {money: UnitPrice}
        amount: {money: TotalPrice}
    total: {sum: lines.amount, equals: Amount}
`

const goodSchema = `{
  "type": "object",
  "required": ["customer", "start", "total"],
  "properties": {
    "customer": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 60}}},
    "lines": {"type": "array", "items": {"type": "object", "required": ["description", "amount"]}}
  }
}`

// bundleFiles is a sound bundle with one file exchanged for every pair of name and content; "" removes it.
func bundleFiles(changes ...string) map[string][]byte {
	files := map[string][]byte{
		ManifestFile: []byte(goodManifest), "schema.json": []byte(goodSchema), ContractFile: []byte("Hello"),
		"samples/one.json": []byte(`{}`), "assets/logo.svg": []byte(`<svg/>`), "README.md": []byte("read me"),
	}
	for i := 0; i+1 < len(changes); i += 2 {
		files[changes[i]] = []byte(changes[i+1])
		if changes[i+1] == "" {
			delete(files, changes[i])
		}
	}
	return files
}

func manifestWith(old, replacement string) string {
	return strings.Replace(goodManifest, old, replacement, 1)
}

func mustBundle(t testing.TB, changes ...string) *Bundle {
	t.Helper()
	b, err := newBundle(bundleFiles(changes...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// opportunity is what the Salesforce connector returns, with members set or, for nil, removed.
func opportunity(changes map[string]any) map[string]any {
	values := map[string]any{
		"Account": map[string]any{"Name": "Zażółć Sp. z o.o."}, "CloseDate": "2026-12-01", "CurrencyIsoCode": "EUR",
		"Amount": json.Number("1250.50"),
		"OpportunityLineItems": []any{
			map[string]any{"Product2": map[string]any{"Name": "Gateway"}, "Quantity": json.Number("2.0"), "UnitPrice": json.Number("500.25"), "TotalPrice": json.Number("1000.50")},
			map[string]any{"Product2": map[string]any{"Name": "Set-up"}, "Quantity": json.Number("1.0"), "UnitPrice": json.Number("250"), "TotalPrice": json.Number("2.5E2")},
		},
	}
	maps.Copy(values, changes)
	maps.DeleteFunc(values, func(_ string, v any) bool { return v == nil })
	return values
}

func testMeta() Meta {
	return Meta{
		TxID: "k7q2m5x4n6h3j8w9r2b5c7d4e6", Tenant: "Acme Ltd", Seller: map[string]string{"address": "1 High Street"},
		Date: time.Date(2026, 11, 20, 23, 30, 0, 0, time.UTC), TimeZone: time.FixedZone("CET", 3600),
	}
}
