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
	// Data are the fields of the catalogue. Nothing in it is a value of the record. It is empty when the deal was erased.
	Data map[string]string
}

// EventType is an entry of the catalogue.
type EventType struct {
	Name    string
	Summary string
	Data    []Field
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
	fieldURL       = Field{Name: "url", Summary: "the CRM's own page of the file: whoever opens it logs in there"}
)

// Catalogue are all events, in the order of a deal's way.
var Catalogue = []EventType{
	{"envelope.created", "a record entered the stage of a rule and was taken in", nil},
	{"crm.drift_detected", "the record was edited before it was sealed: it is read anew", nil},
	{"document.signed", "the contract has its seal", []Field{fieldSHA256, fieldAlgorithm}},
	{"document.validated", "the sealed contract was verified, before anybody is given it", []Field{fieldVerdict, fieldLevel}},
	{"document.attached", "the contract is on the record", []Field{{Name: "file", Summary: "the CRM's ID of the file"}, {Name: "role", Summary: "what the file is, where it was put back later", OneOf: []string{"contract", "audit-trail"}}}},
	{"envelope.completed", "all is done: the record shows it, and the archive has it", []Field{fieldSHA256, fieldLevel, fieldURL}},
	{"document.held", "a person has to decide", []Field{fieldReason}},
	{"document.failed", "it was given up, until a person tries again", []Field{fieldReason}},
	{"document.resumed", "a person has let it go on", nil},
	{"envelope.voided", "it ended without a contract: it left its stage, or a person dropped it", []Field{fieldReason}},
	{"document.differs", "the record does not say any more what its contract says", []Field{{Name: "fields", Summary: "names of fields, with commas between them; no values"}}},
	{"document.agrees", "the record says what its contract says again", nil},
	{"document.deleted", "its documents and data were erased", nil},
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
	text := func(about string) map[string]any { return map[string]any{"type": "string", "description": about} }
	data := map[string]any{}
	for _, f := range t.Data {
		data[f.Name] = text(f.Summary)
		if f.OneOf != nil {
			data[f.Name] = map[string]any{"enum": f.OneOf, "description": f.Summary}
		}
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
	for _, f := range t.Data {
		e.Data[f.Name] = "test"
		if f.OneOf != nil {
			e.Data[f.Name] = f.OneOf[0]
		}
	}
	return e
}
