package webhooks

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Format is how an event is written, and what it is called: as ours, or as others call it, so that receivers that were
// written for them work unchanged.
type Format struct {
	Name string
	// names are what the format calls events; nil: what we do. An event without a name is not told.
	names map[string]string
	body  func(e Event, name string) any
}

// Formats are those that there are.
var Formats = []Format{
	{Name: "native", body: nativeBody},
	{Name: "sdf", body: sdfBody, names: map[string]string{
		"envelope.created": "document.uploaded", "document.signed": "document.signed", "document.validated": "document.validated", "document.deleted": "document.deleted",
	}},
	{Name: "certyneo", body: certyneoBody, names: map[string]string{
		"envelope.created": "envelope.created", "envelope.sent": "envelope.sent", "envelope.completed": "envelope.completed", "envelope.declined": "envelope.declined",
		"envelope.voided": "envelope.voided", "envelope.expired": "envelope.expired", "recipient.signed": "recipient.signed", "recipient.viewed": "recipient.viewed",
	}},
	{Name: "certyneo-crm", body: certyneoBody, names: map[string]string{
		"envelope.sent": "document.sent", "recipient.viewed": "document.viewed", "recipient.signed": "document.signed", "document.signed": "document.signed",
		"envelope.completed": "document.completed", "envelope.declined": "document.refused", "envelope.expired": "document.expired",
	}},
}

func formatOf(name string) (Format, error) {
	var known []string
	for _, f := range Formats {
		if f.Name == name {
			return f, nil
		}
		known = append(known, f.Name)
	}
	return Format{}, fmt.Errorf("format is %q: it must be one of %s", name, strings.Join(known, ", "))
}

// Names are the events that an endpoint with this format can ask for.
func (f Format) Names() (names []string) {
	if f.names == nil {
		for _, t := range Catalogue {
			if !t.Operator {
				names = append(names, t.Name)
			}
		}
		return names
	}
	names = slices.Collect(maps.Values(f.names))
	slices.Sort(names)
	return slices.Compact(names)
}

// name is what the format calls an event, "" if nothing.
func (f Format) name(native string) string {
	if f.names == nil {
		return native
	}
	return f.names[native]
}

// Body is an event as the format writes it.
func (f Format) Body(e Event) ([]byte, error) {
	name := f.name(e.Type)
	if name == "" {
		return nil, fmt.Errorf("format %s has no event %s", f.Name, e.Type)
	}
	return json.Marshal(f.body(e, name))
}

type recordName struct {
	Object string `json:"object"`
	ID     string `json:"id"`
}

// written is a time as JSON Schema's date-time has it, always with milliseconds.
func written(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func dataOf(e Event) map[string]string {
	if e.Data == nil {
		return map[string]string{} // an object, not null
	}
	return e.Data
}

func nativeBody(e Event, name string) any {
	if e.Transaction == "" {
		return struct {
			ID      string            `json:"id"`
			Type    string            `json:"type"`
			At      string            `json:"occurred_at"`
			Tenant  string            `json:"tenant"`
			Subject string            `json:"subject,omitempty"`
			Data    map[string]string `json:"data"`
		}{e.ID, name, written(e.At), e.Tenant, e.Subject, dataOf(e)}
	}
	return struct {
		ID          string            `json:"id"`
		Type        string            `json:"type"`
		At          string            `json:"occurred_at"`
		Tenant      string            `json:"tenant"`
		Transaction string            `json:"transaction"`
		Sequence    int64             `json:"sequence"`
		Record      recordName        `json:"record"`
		Rule        string            `json:"rule"`
		Document    string            `json:"document,omitempty"`
		Title       string            `json:"title,omitempty"`
		Data        map[string]string `json:"data"`
	}{e.ID, name, written(e.At), e.Tenant, e.Transaction, e.Sequence, recordName{e.Object, e.Record}, e.Rule, e.Document, e.Title, dataOf(e)}
}

// sdfBody is what SDF Server sends, and the id, which is the better key to drop repeats by: its document_id would drop every
// later event of the document.
func sdfBody(e Event, name string) any {
	type data struct {
		DocumentID   string `json:"document_id"`
		DocumentType string `json:"document_type"`
		Status       string `json:"status"`
		Algorithm    string `json:"algorithm,omitempty"`
		SHA256       string `json:"sha256,omitempty"`
	}
	_, status, _ := strings.Cut(name, ".")
	if e.Type == "document.validated" {
		status = map[bool]string{true: "success", false: "failure"}[e.Data["verdict"] == "VALID"]
	}
	kind := e.Document
	if kind == "" {
		kind = "attachment"
	}
	return struct {
		Event     string `json:"event"`
		ID        string `json:"id"`
		Timestamp string `json:"timestamp"`
		TenantID  string `json:"tenant_id"`
		Data      data   `json:"data"`
	}{name, e.ID, written(e.At), e.Tenant, data{e.Transaction, kind, status, e.Data["algorithm"], e.Data["sha256"]}}
}

// certyneoBody is what Certyneo sends, and the id: envelope_id and event together would drop the second recipient.signed of
// two signers. A contract that the house alone has sealed has no signers.
func certyneoBody(e Event, name string) any {
	_, status, _ := strings.Cut(name, ".")
	data := map[string]any{"status": status, "created_at": written(e.Created), "sequence": e.Sequence}
	for key, value := range e.Data {
		data[key] = value
	}
	if e.Title != "" {
		data["title"] = e.Title
	}
	switch e.Type {
	case "envelope.declined":
		data["decline_reason"] = e.Data["reason"]
	case "envelope.expired": // the vendor's list has addresses of people, and is not kept
		data["missing_signers"] = []string{}
	case "envelope.completed":
		data["completed_at"], data["signers"], data["proof_pdf_url"] = written(e.At), []string{}, e.Data["url"]
		delete(data, "url")
	}
	return struct {
		Event      string         `json:"event"`
		ID         string         `json:"id"`
		EnvelopeID string         `json:"envelope_id"`
		OccurredAt string         `json:"occurred_at"`
		Data       map[string]any `json:"data"`
	}{name, e.ID, e.Transaction, written(e.At), data}
}
