package webhooks

import (
	"crypto/rand"
	"strings"
	"time"
)

// Event is something that became true and that others are told.
type Event struct {
	// ID is the same each time that the event is told, also by a daemon that was restored: the key to drop repeats by.
	ID string
	// Type is the name in the catalogue.
	Type   string
	Tenant string
	// Transaction is the deal that it is about, and Sequence its place among the events of that deal, from 1.
	Transaction string
	Sequence    int64
	At          time.Time
	// Object and Record name the CRM's record, Rule and Document what was asked for: IDs, no values.
	Object, Record, Rule, Document string
	// Created is when the deal was noticed.
	Created time.Time
	// Title is the name of the contract's file. It may hold names of people, and is empty but for endpoints that ask for it.
	Title string
	// Subject is what an event is about that is about no deal: a certificate, an endpoint. Such a one has no transaction.
	Subject string
	// Data are the fields of the catalogue. Nothing in it is a value of the record. It is empty when the deal was erased.
	Data map[string]string
}

// EventType is an entry of the catalogue.
type EventType struct {
	Name    string
	Summary string
	Data    []Field
	// House means that it is about no deal: it has a subject and no transaction, record or rule.
	House bool
	// Operator means that it is for the people who run dealseal, and no endpoint is told.
	Operator bool
}

// Field is one that an event may have in its data.
type Field struct {
	Name, Summary string
	// OneOf are the only values; none: any text.
	OneOf []string
}

var (
	fieldSHA256    = Field{Name: "sha256", Summary: "SHA-256 of the contract's file, in hexadecimal"}
	fieldReason    = Field{Name: "reason", Summary: "why, for people; no values of the record"}
	fieldAlgorithm = Field{Name: "algorithm", Summary: "of the seal's key, such as ECDSA-P256 or RSA-3072"}
	fieldLevel     = Field{Name: "level", Summary: "what the verifier found", OneOf: []string{"B-B", "B-T", "B-LT", "B-LTA"}}
	fieldVerdict   = Field{Name: "verdict", Summary: "of the verifier", OneOf: []string{"VALID", "INDETERMINATE", "INVALID"}}
	fieldVendor    = Field{Name: "vendor", Summary: "who has it signed, by its name in the configuration", OneOf: []string{"certyneo", "sdf"}}
	fieldEnvelope  = Field{Name: "envelope", Summary: "the vendor's ID of the envelope"}
	fieldThen      = Field{Name: "at", Summary: "when, in UTC and by the vendor's clock"}
	fieldURL       = Field{Name: "url", Summary: "the CRM's own page of the file: whoever opens it logs in there"}
)

func ofDeal(name, summary string, data ...Field) EventType {
	return EventType{Name: name, Summary: summary, Data: data}
}

func ofHouse(name, summary string, data ...Field) EventType {
	return EventType{Name: name, Summary: summary, Data: data, House: true}
}

func forOperators(name, summary string, data ...Field) EventType {
	return EventType{Name: name, Summary: summary, Data: data, House: true, Operator: true}
}

var (
	fieldCertificate = Field{Name: "certificate", Summary: "SHA-256 of the certificate, in hexadecimal"}
	fieldKey         = Field{Name: "key", Summary: "the key's name in the configuration"}
	fieldTemplate    = Field{Name: "template", Summary: "id@version"}
	fieldEndpoint    = Field{Name: "endpoint", Summary: "tenant/name"}
	fieldEvent       = Field{Name: "event", Summary: "the type of the event that was to be delivered"}
	fieldTransaction = Field{Name: "transaction", Summary: "the transaction ID that it was about; empty: none"}
	fieldAttempts    = Field{Name: "attempts", Summary: "how many have failed"}
	fieldProblem     = Field{Name: "problem", Summary: "why the last one has failed"}
)

// Catalogue are all events: in the order of a deal's way, then what is about no deal, then what only operators are told.
var Catalogue = []EventType{
	ofDeal("envelope.created", "a record entered the stage of a rule and was taken in"),
	ofDeal("envelope.sent", "the vendor that is to have it signed has sent it to those who sign", fieldVendor, fieldEnvelope, fieldThen),
	ofDeal("recipient.viewed", "one of those who are to sign at the vendor has opened it", fieldVendor, fieldEnvelope, fieldThen),
	ofDeal("recipient.signed", "one of those who are to sign at the vendor has signed", fieldVendor, fieldEnvelope, fieldThen),
	ofDeal("crm.drift_detected", "the record was edited before it was sealed: it is read anew"),
	ofDeal("document.signed", "the contract has its seal", fieldSHA256, fieldAlgorithm),
	ofDeal("document.validated", "the sealed contract was verified, before anybody is given it", fieldVerdict, fieldLevel),
	ofDeal("document.attached", "the contract is on the record", Field{Name: "file", Summary: "the CRM's ID of the file"}, Field{Name: "role", Summary: "what the file is, where it was put back later", OneOf: []string{"contract", "audit-trail"}}),
	ofDeal("envelope.completed", "all is done: the record shows it, and the archive has it", fieldSHA256, fieldLevel, fieldURL),
	ofDeal("document.held", "a person has to decide", fieldReason),
	ofDeal("envelope.follow_up_due", "it has had no outcome for as long as its rule waits (write_back.follow_up)", Field{Name: "since", Summary: "when the wait began"}, Field{Name: "status", Summary: "what the record shows", OneOf: []string{"queued", "awaiting_signature", "held"}}),
	ofDeal("document.failed", "it was given up, until a person tries again", fieldReason),
	ofDeal("document.resumed", "a person has let it go on"),
	ofDeal("envelope.voided", "it ended without a contract: it left its stage, a person dropped it, or its sender cancelled it at the vendor that was to have it signed", fieldReason),
	ofDeal("envelope.declined", "somebody has declined to sign at the vendor that was to have it signed", fieldReason),
	ofDeal("envelope.expired", "not everybody has signed in time at the vendor that was to have it signed", fieldReason),
	ofDeal("document.differs", "the record does not say any more what its contract says", Field{Name: "fields", Summary: "names of fields, with commas between them; no values"}),
	ofDeal("document.agrees", "the record says what its contract says again"),
	ofDeal("document.deleted", "its documents and data were erased"),
	ofDeal("crm.writeback_failed", "the CRM does not take what the record should show; it is tried again", fieldReason),
	ofHouse("crm.login_refused", "the CRM refuses the daemon's login, or a permission was taken away", Field{Name: "trouble", Summary: "what is wrong with the login", OneOf: []string{"expired", "revoked", "misconfigured", "no permission", "refused"}}),
	ofHouse("crm.login_restored", "the CRM lets the daemon in again"),
	ofHouse("guard.held", "so many deals came at once that they are all held", Field{Name: "rule", Summary: "the id of the rule; empty: all of the tenant"}, fieldReason),
	ofHouse("tenant.paused", "a person has the tenant wait: its deals are noticed, and nothing is sealed or told to its CRM", Field{Name: "reason", Summary: "why, in that person's words"}),
	ofHouse("tenant.resumed", "a person has the tenant go on", Field{Name: "reason", Summary: "why, in that person's words"}),
	ofHouse("certificate.expiring", "a certificate that seals this tenant's deals ends soon", fieldCertificate, fieldKey, Field{Name: "until", Summary: "its last day"}, Field{Name: "days", Summary: "so many or less are left", OneOf: []string{"60", "30", "14", "7", "1"}}),
	ofHouse("certificate.renewed", "another certificate seals this tenant's deals from now on", fieldCertificate, fieldKey, Field{Name: "until", Summary: "when it ends"}, Field{Name: "previous", Summary: "SHA-256 of the one before; empty: none"}),
	ofHouse("certificate.revoked", "a certificate that seals this tenant's deals was revoked: nothing is sealed with it any more", fieldCertificate, fieldKey, fieldReason),
	ofHouse("key.limit_reached", "a key has sealed as many documents as it may", Field{Name: "spki", Summary: "SHA-256 of the public key, in hexadecimal"}, Field{Name: "limit", Summary: "how many"}, Field{Name: "period", Summary: "of what", OneOf: []string{"in all", "for this day"}}),
	ofHouse("template.published", "a template that this tenant uses is new, or has other content", fieldTemplate, Field{Name: "sha256", Summary: "of its content, in hexadecimal"}),
	ofHouse("template.retired", "a template that this tenant has used is gone", fieldTemplate),
	forOperators("webhook.document_failing", "an event about a document has failed three times and is tried again", fieldEndpoint, fieldEvent, fieldTransaction, fieldAttempts, fieldProblem),
	forOperators("webhook.delivery_failed", "an event was given up", fieldEndpoint, fieldEvent, fieldTransaction, fieldAttempts, fieldProblem),
	forOperators("webhook.endpoint_failing", "so many attempts in a row have failed", fieldEndpoint, fieldAttempts, Field{Name: "percent", Summary: "of what makes it count as broken", OneOf: []string{"50", "70", "90", "100"}}, fieldProblem),
	forOperators("webhook.endpoint_disabled", "an endpoint was disabled, and its events wait", fieldEndpoint, fieldReason),
	forOperators("house.summary", "how the week was",
		Field{Name: "from", Summary: "the first day"}, Field{Name: "until", Summary: "the last day"}, Field{Name: "noticed", Summary: "deals that came"}, Field{Name: "sealed", Summary: "of them, or of earlier ones"},
		Field{Name: "done", Summary: "that ended well"}, Field{Name: "held", Summary: "times that one was held"}, Field{Name: "dead", Summary: "times that one was given up"},
		Field{Name: "success", Summary: "of calls to CRMs"}, Field{Name: "p50", Summary: "half of the deals took so long or less"}, Field{Name: "p95", Summary: "95 % of the deals took so long or less"},
		Field{Name: "tenants", Summary: "what became of the deals of each tenant, in a line of its own"}),
}

// Known finds an event in the catalogue.
func Known(name string) (EventType, bool) {
	for _, t := range Catalogue {
		if t.Name == name {
			return t, true
		}
	}
	return EventType{}, false
}

// Schema is the JSON Schema (2020-12) of an event's body in the native format.
func (t EventType) Schema() map[string]any {
	data := map[string]any{}
	for _, f := range t.Data {
		data[f.Name] = text(f.Summary)
		if f.OneOf != nil {
			data[f.Name] = map[string]any{"enum": f.OneOf, "description": f.Summary}
		}
	}
	if t.House {
		return t.houseSchema(data)
	}
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": t.Name, "description": t.Summary, "type": "object",
		"required": []string{"id", "type", "occurred_at", "tenant", "transaction", "sequence", "record", "rule", "data"},
		"properties": map[string]any{
			"id":          text("the same each time that this event is told: drop what you have seen"),
			"type":        map[string]any{"const": t.Name},
			"occurred_at": map[string]any{"type": "string", "format": "date-time", "description": "when it became true, in UTC"},
			"tenant":      text("the tenant's id"),
			"transaction": text("the transaction ID, which is also on the record"),
			"sequence":    map[string]any{"type": "integer", "minimum": 1, "description": "its place among the events of the transaction; they may arrive in another order"},
			"record": map[string]any{"type": "object", "required": []string{"object", "id"}, "additionalProperties": false,
				"properties": map[string]any{"object": text("the CRM's kind of record"), "id": text("the CRM's ID of the record")}},
			"rule":     text("the id of the rule"),
			"document": text("the template, as id@version; absent where an attachment is sealed"),
			"title":    text("the name of the contract's file; only for endpoints that are to have it"),
			"data":     map[string]any{"type": "object", "properties": data, "additionalProperties": false},
		},
		"additionalProperties": false,
	}
}

func text(about string) map[string]any {
	return map[string]any{"type": "string", "description": about}
}

// houseSchema is that of an event that is about no deal.
func (t EventType) houseSchema(data map[string]any) map[string]any {
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": t.Name, "description": t.Summary, "type": "object",
		"required": []string{"id", "type", "occurred_at", "tenant", "data"},
		"properties": map[string]any{
			"id":          text("the same each time that this event is told: drop what you have seen"),
			"type":        map[string]any{"const": t.Name},
			"occurred_at": map[string]any{"type": "string", "format": "date-time", "description": "when it became true, in UTC"},
			"tenant":      text("the tenant's id"),
			"subject":     text("what it is about, such as the SHA-256 of a certificate"),
			"data":        map[string]any{"type": "object", "properties": data, "additionalProperties": false},
		},
		"additionalProperties": false,
	}
}

// Matches reports whether a pattern such as document.signed, document.* or * means a name.
func Matches(pattern, name string) bool {
	if head, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, head)
	}
	return pattern == name
}

// Sample is an event that never was, as a receiver would be told it.
func Sample(t EventType, tenant string, now time.Time) Event {
	e := Event{ID: "test-" + strings.ToLower(rand.Text()), Type: t.Name, Tenant: tenant, Transaction: "test", Sequence: 1, At: now, Object: "test", Record: "test", Rule: "test",
		Document: "test@1", Created: now, Data: map[string]string{}}
	if t.House {
		e.Transaction, e.Sequence, e.Object, e.Record, e.Rule, e.Document, e.Subject = "", 1, "", "", "", "", "test"
	}
	for _, f := range t.Data {
		e.Data[f.Name] = "test"
		if f.OneOf != nil {
			e.Data[f.Name] = f.OneOf[0]
		}
	}
	return e
}
