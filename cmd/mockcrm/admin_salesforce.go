package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func salesforceRoutes(mux *http.ServeMux, org *salesforce.Org) {
	a := salesforceAdmin{org}
	for pattern, f := range map[string]answer{
		"POST /salesforce/opportunities":            a.createOpportunity,
		"POST /salesforce/opportunities/{id}/stage": a.moveStage,
		"POST /salesforce/objects/{object}":         a.create,
		"GET /salesforce/objects/{object}":          a.list,
		"GET /salesforce/records/{id}":              a.read,
		"PATCH /salesforce/records/{id}":            a.update,
		"DELETE /salesforce/records/{id}":           a.delete,
		"GET /salesforce/records/{id}/files":        a.files,
		"GET /salesforce/records/{id}/files/{v}":    a.content,
		"POST /salesforce/records/{id}/files":       a.addFile,
		"POST /salesforce/sessions/kill":            a.killSessions,
		"PUT /salesforce/state":                     a.setState,
		"GET /salesforce/events":                    a.events,
		"POST /salesforce/events":                   a.spoilEvents,
		"GET /salesforce/outbound":                  a.outbound,
		"PUT /salesforce/outbound":                  a.setOutbound,
	} {
		mux.Handle(pattern, f)
	}
	faults[salesforce.Fault]{org.SetFault, org.Faults, org.ClearFault, org.ClearFaults}.routes(mux, "/salesforce")
	requestRoutes(mux, "/salesforce", org.Counts, org.Requests, org.ResetRequests)
}

// salesforceAdmin is the admin endpoint of the org.
type salesforceAdmin struct{ org *salesforce.Org }

func (a salesforceAdmin) createOpportunity(r *http.Request) (any, error) {
	var in struct {
		Fields       map[string]any   `json:"fields"`
		LineItems    []map[string]any `json:"lineItems"`
		ContactRoles []map[string]any `json:"contactRoles"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	id, err := a.org.CreateOpportunity(in.Fields)
	if err != nil {
		return nil, err
	}
	for i, item := range in.LineItems {
		if _, err := a.org.AddLineItem(id, item); err != nil {
			return nil, fmt.Errorf("lineItems[%d] of %s: %w", i, id, err)
		}
	}
	for i, role := range in.ContactRoles {
		if _, err := a.org.AddContactRole(id, role); err != nil {
			return nil, fmt.Errorf("contactRoles[%d] of %s: %w", i, id, err)
		}
	}
	return map[string]string{"id": id}, nil
}

func (a salesforceAdmin) moveStage(r *http.Request) (any, error) {
	var in struct {
		Stage string `json:"stage"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return nil, a.org.MoveStage(r.PathValue("id"), in.Stage)
}

// fieldsOf reads {"fields": {}}.
func fieldsOf(r *http.Request) (map[string]any, error) {
	var in struct {
		Fields map[string]any `json:"fields"`
	}
	err := decode(r, &in)
	return in.Fields, err
}

func (a salesforceAdmin) create(r *http.Request) (any, error) {
	fields, err := fieldsOf(r)
	if err != nil {
		return nil, err
	}
	id, err := a.org.Create(r.PathValue("object"), fields)
	return map[string]string{"id": id}, err
}

func (a salesforceAdmin) list(r *http.Request) (any, error) {
	return map[string]any{"ids": append([]string{}, a.org.Records(r.PathValue("object"))...)}, nil
}

func (a salesforceAdmin) read(r *http.Request) (any, error) {
	fields, ok := a.org.Record(r.PathValue("id"))
	if !ok {
		return nil, missing{fmt.Errorf("there is no record %q", r.PathValue("id"))}
	}
	return fields, nil
}

func (a salesforceAdmin) update(r *http.Request) (any, error) {
	fields, err := fieldsOf(r)
	if err != nil {
		return nil, err
	}
	return nil, a.org.Update(r.PathValue("id"), fields)
}

func (a salesforceAdmin) delete(r *http.Request) (any, error) {
	return nil, a.org.Delete(r.PathValue("id"))
}

// salesforceFile is one version of a file in a listing.
type salesforceFile struct {
	DocumentID string         `json:"documentId"`
	VersionID  string         `json:"versionId"`
	Title      string         `json:"title"`
	Name       string         `json:"name"`
	MD5        string         `json:"md5"`
	Size       int            `json:"size"`
	Content    string         `json:"content"` // path of the content
	Fields     map[string]any `json:"fields"`
}

func (a salesforceAdmin) files(r *http.Request) (any, error) {
	id, out := r.PathValue("id"), []salesforceFile{}
	for _, f := range a.org.Files(id) {
		for _, v := range f.Versions {
			out = append(out, salesforceFile{
				DocumentID: f.DocumentID, VersionID: v.ID, Title: f.Title, Name: v.Name, MD5: v.Checksum, Size: len(v.Content),
				Content: "/salesforce/records/" + id + "/files/" + v.ID, Fields: v.Fields,
			})
		}
	}
	return map[string]any{"files": out}, nil
}

func (a salesforceAdmin) content(r *http.Request) (any, error) {
	for _, f := range a.org.Files(r.PathValue("id")) {
		for _, v := range f.Versions {
			if v.ID == r.PathValue("v") {
				return download{v.Name, v.Content}, nil
			}
		}
	}
	return nil, missing{fmt.Errorf("record %q has no file version %q", r.PathValue("id"), r.PathValue("v"))}
}

func (a salesforceAdmin) addFile(r *http.Request) (any, error) {
	name, content, err := upload(r)
	if err != nil {
		return nil, err
	}
	id, err := a.org.AddFile(r.PathValue("id"), name, content)
	return map[string]string{"id": id}, err
}

func (a salesforceAdmin) killSessions(*http.Request) (any, error) {
	a.org.KillSessions()
	return nil, nil
}

func (a salesforceAdmin) outbound(*http.Request) (any, error) {
	return map[string]any{"attempts": append([]salesforce.OutboundAttempt{}, a.org.OutboundAttempts()...)}, nil
}

func (a salesforceAdmin) setOutbound(r *http.Request) (any, error) {
	var m salesforce.Outbound
	if err := decode(r, &m); err != nil {
		return nil, err
	}
	a.org.SetOutbound(m)
	return nil, nil
}

func (a salesforceAdmin) events(*http.Request) (any, error) {
	return map[string]any{"events": a.org.Events(), "streams": a.org.EventStreams()}, nil
}

func (a salesforceAdmin) spoilEvents(r *http.Request) (any, error) {
	var f salesforce.EventFaults
	if err := decode(r, &f); err != nil {
		return nil, err
	}
	a.org.SpoilEvents(f)
	return nil, nil
}

func (a salesforceAdmin) setState(r *http.Request) (any, error) {
	var in struct {
		Usage       *int      `json:"usage"`
		CommitDelay *duration `json:"commitDelay"`
		Freeze      *string   `json:"freeze"`
		Hide        []string  `json:"hide"`
		Show        []string  `json:"show"`
		Lock        []string  `json:"lock"`
		Unlock      []string  `json:"unlock"`
		Track       []string  `json:"track"`
		Untrack     []string  `json:"untrack"`
		Permit      []string  `json:"permit"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Freeze != nil {
		var at time.Time
		if *in.Freeze != "" {
			var err error
			if at, err = time.Parse(time.RFC3339, *in.Freeze); err != nil {
				return nil, fmt.Errorf("freeze: %w", err)
			}
		}
		a.org.FreezeStamp(at)
	}
	if in.Usage != nil {
		a.org.SetUsage(*in.Usage)
	}
	if in.CommitDelay != nil {
		a.org.SetCommitDelay(time.Duration(*in.CommitDelay))
	}
	each(in.Hide, a.org.Hide)
	each(in.Show, a.org.Show)
	each(in.Lock, a.org.Lock)
	each(in.Unlock, a.org.Unlock)
	each(in.Track, func(field string) { a.org.Track(field, true) })
	each(in.Untrack, func(field string) { a.org.Track(field, false) })
	a.org.Permit(in.Permit...)
	return nil, nil
}

func each(names []string, do func(string)) {
	for _, name := range names {
		do(name)
	}
}
