package api

import "net/http"

// table is every route.
func (a *API) table() []route {
	const (
		created  = http.StatusCreated
		accepted = http.StatusAccepted
		ok       = http.StatusOK
	)
	var (
		missing  = []int{http.StatusNotFound}
		gone     = []int{http.StatusNotFound, http.StatusGone}
		opposed  = []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}
		decided  = append(opposed, http.StatusGone)
		wrong    = []int{http.StatusNotFound, http.StatusUnprocessableEntity}
		pages    = []param{{name: "limit", doc: "rows, at most 200; 50 when left out"}, {name: "cursor", doc: "the next_cursor of the page before"}}
		filters  = []param{{name: "q", doc: "a transaction ID or its first six characters, a record's ID, or words of a name", most: longQuery, pattern: `^[^\x00-\x1f\x7f-\x9f]*$`}, {name: "tenant"}, {name: "rule"}, {name: "state", one: states}, {name: "day", doc: "in UTC, on which it was noticed", format: "date"}}
		ofState  = []param{{name: "state", one: []string{"pending", "delivered", "failed"}}}
		oneDeal  = "/v1/deals/{tx}"
		oneHook  = "/v1/webhooks/{tenant}/{name}"
		download = []string{"application/pdf", "application/json", "application/octet-stream"}
	)
	return []route{
		{method: "GET", path: "/v1/openapi.json", may: anyone, summary: "this document", status: ok, gives: anything{}, do: a.showOpenAPI},
		{method: "GET", path: "/v1/token", may: see, summary: "what the token is good for", status: ok, gives: Self{}, do: a.showSelf},

		{method: "GET", path: "/v1/deals", may: see, summary: "list and search deals, newest first", params: append(filters, pages...), status: ok, gives: Deals{}, do: a.listDeals},
		{method: "GET", path: oneDeal, may: see, summary: "one deal", status: ok, gives: Deal{}, fails: missing, do: a.showDeal},
		{method: "GET", path: oneDeal + "/explain", may: see, summary: "the story of a deal, from the audit log", status: ok, gives: Story{}, fails: missing, do: a.explainDeal},
		{method: "GET", path: oneDeal + "/values", may: contracts, summary: "what went into a document; the audit log says who has asked", status: ok, gives: Values{}, fails: gone, do: a.showValues},
		{method: "GET", path: oneDeal + "/documents/{name...}", may: contracts, summary: "fetch a file of the archive; the audit log says who has", status: ok, file: download, fails: gone, do: a.fetchDocument},
		{method: "POST", path: oneDeal + "/evidence", may: contracts, summary: "make a bundle of all that proves a contract, signed with its key; the audit log says who has", status: ok, file: []string{"application/zip"}, fails: gone, do: a.makeEvidence},
		{method: "GET", path: oneDeal + "/proof", may: audit, summary: "prove to others what the audit log says of a deal; the log says who has", status: ok, file: []string{"application/json"}, fails: missing, do: a.fetchProof},
		{method: "POST", path: oneDeal + "/retry", may: decide, summary: "let a deal that was given up, or waits for its next attempt, go on at once", takes: Decision{}, status: ok, gives: Deal{}, fails: decided, do: a.decide("retry")},
		{method: "POST", path: oneDeal + "/release", may: decide, summary: "let a held deal go on", takes: Decision{}, status: ok, gives: Deal{}, fails: decided, do: a.decide("release")},
		{method: "POST", path: oneDeal + "/drop", may: decide, summary: "end a deal that waits", takes: Decision{}, status: ok, gives: Deal{}, fails: decided, do: a.decide("drop")},
		{method: "POST", path: oneDeal + "/prepare", may: prepare, summary: "give up the digest that was committed, and make the document anew", takes: Decision{}, status: ok, gives: Deal{}, fails: decided, do: a.decide("prepare")},

		{method: "POST", path: "/v1/signatures", may: ask, summary: "ask for a sealed contract of a record, without waiting for its stage; the audit log says who has", header: &idempotencyKey, takes: NewSignature{}, status: accepted, gives: Signature{}, fails: opposed, do: a.requestSignature},
		{method: "GET", path: "/v1/signatures/{id}", may: see, summary: "what has become of a contract that was asked for, or of any deal", status: ok, gives: Signature{}, fails: missing, do: a.showSignature},

		{method: "GET", path: "/v1/templates", may: see, summary: "templates that rules name", status: ok, gives: Templates{}, do: a.listTemplates},
		{method: "GET", path: "/v1/tenants", may: see, summary: "tenants that the token sees, and whether they are paused", status: ok, gives: Tenants{}, do: a.listTenants},
		{method: "POST", path: "/v1/tenants/{tenant}/pause", may: pause, summary: "have a tenant wait: its entries are noticed, and nothing is made, sealed or written to its CRM; its webhooks and people are told why", takes: Decision{}, status: ok, gives: TenantState{}, fails: opposed, do: a.turn("pause")},
		{method: "POST", path: "/v1/tenants/{tenant}/resume", may: pause, summary: "have a tenant go on; its webhooks are told why", takes: Decision{}, status: ok, gives: TenantState{}, fails: opposed, do: a.turn("resume")},
		{method: "GET", path: "/v1/certificates", may: see, summary: "certificates that contracts of the token's tenants are sealed with", status: ok, gives: Certificates{}, do: a.listCertificates},
		{method: "GET", path: "/v1/audit/checkpoint", may: audit, summary: "the newest signed checkpoint of the audit log", status: ok, gives: Checkpoint{}, fails: missing, do: a.newestCheckpoint},
		{method: "POST", path: "/v1/audit/checkpoint", may: audit, summary: "sign the audit log as it is now", status: ok, gives: Checkpoint{}, do: a.signCheckpoint},

		{method: "GET", path: "/v1/webhooks", may: see, summary: "list webhooks", status: ok, gives: Endpoints{}, do: a.listEndpoints},
		{method: "POST", path: "/v1/webhooks", may: keepHooks, summary: "add a webhook", takes: NewEndpoint{}, status: created, gives: AddedEndpoint{}, fails: opposed, do: a.addEndpoint},
		{method: "POST", path: "/v1/webhooks/test", may: tryHooks, summary: "send an event that never was, signed as all others are", takes: Test{}, status: ok, gives: Tested{}, fails: opposed, do: a.test},
		{method: "GET", path: oneHook, may: see, summary: "one webhook", status: ok, gives: Endpoint{}, fails: missing, do: a.showEndpoint},
		{method: "GET", path: oneHook + "/keys", may: see, summary: "the public keys that deliveries are verified with, as a JSON Web Key Set; none where a secret is shared", status: ok, gives: Keys{}, fails: missing, do: a.listKeys},
		{method: "POST", path: oneHook + "/rotate", may: keepHooks, summary: "give a webhook another secret; the one before counts for a day beside it", takes: Rotation{}, status: ok, gives: Rotated{}, fails: opposed, do: a.rotate},
		{method: "POST", path: oneHook + "/enable", may: keepHooks, summary: "enable a webhook", takes: Decision{}, status: ok, gives: Endpoint{}, fails: opposed, do: a.set("enable")},
		{method: "POST", path: oneHook + "/disable", may: keepHooks, summary: "disable a webhook; its events wait", takes: Decision{}, status: ok, gives: Endpoint{}, fails: wrong, do: a.set("disable")},
		{method: "POST", path: oneHook + "/remove", may: keepHooks, summary: "remove a webhook, with all that was on its way there", takes: Decision{}, status: ok, gives: Endpoint{}, fails: opposed, do: a.set("remove")},
		{method: "POST", path: oneHook + "/redeliver", may: tryHooks, summary: "deliver once more what has failed, or all since a time", takes: Redelivery{}, status: ok, gives: Redelivered{}, fails: wrong, do: a.redeliver},
		{method: "GET", path: oneHook + "/deliveries", may: see, summary: "deliveries to a webhook, newest first", params: append(ofState, pages...), status: ok, gives: Deliveries{}, fails: missing, do: a.listDeliveries},
		{method: "GET", path: oneHook + "/deliveries/{delivery}", may: see, summary: "the attempts of a delivery", status: ok, gives: Attempts{}, fails: missing, do: a.listAttempts},
		{method: "POST", path: oneHook + "/deliveries/{delivery}/redeliver", may: tryHooks, summary: "deliver one once more", takes: Decision{}, status: ok, gives: Redelivered{}, fails: wrong, do: a.redeliverOne},
		{method: "POST", path: "/admin/tenants/{tenant}/webhooks", may: keepHooks, summary: "add a webhook as SDF Server does", takes: CompatibleEndpoint{}, status: created, gives: AddedEndpoint{}, fails: wrong, do: a.addCompatible},
	}
}
