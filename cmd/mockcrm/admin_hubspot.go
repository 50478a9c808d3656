package main

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"time"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func hubspotRoutes(mux *http.ServeMux, p *hubspot.Portal) {
	a := hubspotAdmin{p}
	for pattern, f := range map[string]answer{
		"POST /hubspot/deals":                  a.createDeals,
		"GET /hubspot/deals":                   a.list,
		"POST /hubspot/deals/stage":            a.moveStages,
		"GET /hubspot/deals/{id}":              a.read,
		"PATCH /hubspot/deals/{id}":            a.update,
		"DELETE /hubspot/deals/{id}":           a.delete,
		"POST /hubspot/deals/{id}/stage":       a.moveStage,
		"POST /hubspot/deals/{id}/merge":       a.merge,
		"GET /hubspot/deals/{id}/notes":        a.notes,
		"GET /hubspot/deals/{id}/files":        a.files,
		"GET /hubspot/deals/{id}/files/{file}": a.content,
		"POST /hubspot/deals/{id}/files":       a.addFile,
		"POST /hubspot/deals/{id}/index":       a.hold,
		"POST /hubspot/deals/{id}/history":     a.spoil,
		"POST /hubspot/owners":                 a.addOwner,
		"POST /hubspot/rules":                  a.addRule,
		"POST /hubspot/tokens/expire":          a.expireTokens,
		"POST /hubspot/tokens/revoke":          a.revokeApp,
		"GET /hubspot/webhooks":                a.deliveries,
		"PUT /hubspot/webhooks":                a.setWebhooks,
		"PUT /hubspot/index":                   a.setIndexDelay,
		"PUT /hubspot/limits":                  a.setLimits,
	} {
		mux.Handle(pattern, f)
	}
	faults[hubspot.Fault]{p.SetFault, p.Faults, p.ClearFault, p.ClearFaults}.routes(mux, "/hubspot")
	requestRoutes(mux, "/hubspot", p.Counts, p.Requests, p.ResetRequests)
}

// hubspotAdmin is the admin endpoint of the portal.
type hubspotAdmin struct{ p *hubspot.Portal }

// maxDeals is how many deals one call makes.
const maxDeals = 20_000

type dealInput struct {
	Properties map[string]string   `json:"properties"`
	LineItems  []map[string]string `json:"lineItems"`
	Companies  []map[string]string `json:"companies"`
	Contacts   []struct {
		Properties map[string]string `json:"properties"`
		Label      string            `json:"label"`
	} `json:"contacts"`
	Count int `json:"count"`
}

func (a hubspotAdmin) createDeals(r *http.Request) (any, error) {
	in := dealInput{Count: 1}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Count < 1 || in.Count > maxDeals {
		return nil, fmt.Errorf("count is %d; it must be between 1 and %d", in.Count, maxDeals)
	}
	ids, err := a.p.CreateDeals(in.Count, func(int) map[string]string { return in.Properties })
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := a.complete(id, in); err != nil {
			return nil, err
		}
	}
	return map[string]any{"ids": ids}, nil
}

// complete gives a deal the records that belong to it.
func (a hubspotAdmin) complete(id string, in dealInput) error {
	for i, props := range in.LineItems {
		if _, err := a.p.AddLineItem(id, props); err != nil {
			return fmt.Errorf("lineItems[%d] of %s: %w", i, id, err)
		}
	}
	for i, props := range in.Companies {
		if _, err := a.p.AddCompany(id, props); err != nil {
			return fmt.Errorf("companies[%d] of %s: %w", i, id, err)
		}
	}
	for i, c := range in.Contacts {
		if _, err := a.p.AddContact(id, c.Properties, c.Label); err != nil {
			return fmt.Errorf("contacts[%d] of %s: %w", i, id, err)
		}
	}
	return nil
}

func (a hubspotAdmin) list(*http.Request) (any, error) {
	ids, err := a.p.IDs("deals")
	return map[string]any{"ids": append([]string{}, ids...)}, err
}

func (a hubspotAdmin) moveStages(r *http.Request) (any, error) {
	var in struct {
		IDs   []string `json:"ids"`
		Stage string   `json:"stage"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return nil, a.p.MoveStages(in.IDs, in.Stage)
}

func (a hubspotAdmin) read(r *http.Request) (any, error) {
	rec, err := a.p.Record(r.PathValue("id"))
	if err != nil {
		return nil, missing{err}
	}
	return rec, nil
}

func (a hubspotAdmin) update(r *http.Request) (any, error) {
	var in struct {
		Properties map[string]string `json:"properties"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return nil, a.p.Update("deals", r.PathValue("id"), in.Properties)
}

func (a hubspotAdmin) delete(r *http.Request) (any, error) {
	return nil, a.p.Delete(r.PathValue("id"))
}

func (a hubspotAdmin) moveStage(r *http.Request) (any, error) {
	var in struct {
		Stage string `json:"stage"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return nil, a.p.MoveStage(r.PathValue("id"), in.Stage)
}

func (a hubspotAdmin) merge(r *http.Request) (any, error) {
	var in struct {
		With string `json:"with"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	id, err := a.p.Merge(r.PathValue("id"), in.With)
	return map[string]string{"id": id}, err
}

func (a hubspotAdmin) notes(r *http.Request) (any, error) {
	notes, err := a.p.Notes(r.PathValue("id"))
	return map[string]any{"notes": append([]hubspot.Note{}, notes...)}, err
}

// hubspotFile is a file in a listing.
type hubspotFile struct {
	hubspot.File
	Content string `json:"content"` // path of the content
}

func (a hubspotAdmin) files(r *http.Request) (any, error) {
	id := r.PathValue("id")
	files, err := a.p.Files(id)
	if err != nil {
		return nil, missing{err}
	}
	out := []hubspotFile{}
	for _, f := range files {
		out = append(out, hubspotFile{f, "/hubspot/deals/" + id + "/files/" + f.ID})
	}
	return map[string]any{"files": out}, nil
}

func (a hubspotAdmin) content(r *http.Request) (any, error) {
	files, err := a.p.Files(r.PathValue("id"))
	if err != nil {
		return nil, missing{err}
	}
	for _, f := range files {
		if f.ID == r.PathValue("file") {
			return download{path.Base(f.Path), f.Content}, nil
		}
	}
	return nil, missing{fmt.Errorf("deal %q carries no file %q", r.PathValue("id"), r.PathValue("file"))}
}

func (a hubspotAdmin) addFile(r *http.Request) (any, error) {
	name, content, err := upload(r)
	if err != nil {
		return nil, err
	}
	id, err := a.p.AddFile(r.PathValue("id"), name, content)
	return map[string]string{"id": id}, err
}

func (a hubspotAdmin) hold(r *http.Request) (any, error) {
	var in struct {
		Hold bool `json:"hold"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return nil, a.p.HoldIndex(r.PathValue("id"), in.Hold)
}

func (a hubspotAdmin) spoil(r *http.Request) (any, error) {
	var in struct {
		Property string `json:"property"`
		Spoilt   bool   `json:"spoilt"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return nil, a.p.SpoilHistory(r.PathValue("id"), in.Property, in.Spoilt)
}

func (a hubspotAdmin) addOwner(r *http.Request) (any, error) {
	var in struct {
		Email     string `json:"email"`
		FirstName string `json:"firstName"`
		LastName  string `json:"lastName"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return map[string]string{"id": a.p.AddOwner(hubspot.Owner{Email: in.Email, FirstName: in.FirstName, LastName: in.LastName})}, nil
}

func (a hubspotAdmin) addRule(r *http.Request) (any, error) {
	var rule hubspot.ConditionalRule
	if err := decode(r, &rule); err != nil {
		return nil, err
	}
	return nil, a.p.RequireWhen(rule)
}

func (a hubspotAdmin) expireTokens(*http.Request) (any, error) {
	a.p.ExpireTokens()
	return nil, nil
}

func (a hubspotAdmin) revokeApp(*http.Request) (any, error) {
	a.p.RevokeApp()
	return nil, nil
}

func (a hubspotAdmin) deliveries(*http.Request) (any, error) {
	return map[string]any{"deliveries": append([]hubspot.Delivery{}, a.p.Deliveries()...)}, nil
}

func (a hubspotAdmin) setWebhooks(r *http.Request) (any, error) {
	var w hubspot.Webhooks
	if err := decode(r, &w); err != nil {
		return nil, err
	}
	return nil, a.p.SetWebhooks(w)
}

func (a hubspotAdmin) setIndexDelay(r *http.Request) (any, error) {
	var in struct {
		Min duration `json:"min"`
		Max duration `json:"max"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Min < 0 || in.Max < 0 {
		return nil, errors.New("min and max must not be negative")
	}
	a.p.SetIndexDelay(hubspot.Delay{Min: time.Duration(in.Min), Max: time.Duration(in.Max)})
	return nil, nil
}

func (a hubspotAdmin) setLimits(r *http.Request) (any, error) {
	var l hubspot.Limits
	if err := decode(r, &l); err != nil {
		return nil, err
	}
	a.p.SetLimits(l)
	return nil, nil
}
