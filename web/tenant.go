package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/role"
)

// pausedView says since when and why a tenant waits.
type pausedView struct {
	Since    *moment
	Who, Why string
}

func viewPause(p *deal.Pause, now time.Time) *pausedView {
	if p == nil {
		return nil
	}
	return &pausedView{Since: at(p.Since, now), Who: p.Who, Why: short(p.Why, maxWhy)}
}

// tenantPage is where a tenant is paused, and goes on.
type tenantPage struct {
	tenantView
	Deed *deedForm
}

// turns are the buttons of a tenant, by their verbs.
var turns = map[string]button{
	"pause":  {"pause", "Pause", "what enters its stages is noticed, and nothing is made, sealed or written to its CRM"},
	"resume": {"resume", "Go on", "with all that has waited"},
}

func (s *server) tenant(ctx context.Context, r *http.Request) (*frame, error) {
	all, err := s.House.Tenants(ctx)
	if err != nil {
		return nil, fmt.Errorf("tenants: %w", err)
	}
	i := slices.IndexFunc(all, func(t Tenant) bool { return string(t.ID) == r.PathValue("tenant") })
	if i < 0 {
		return nil, &problem{status: http.StatusNotFound, Title: "There is no such tenant", What: "No configured tenant has this id.", Do: "The status page lists those that there are."}
	}
	v := &tenantPage{tenantView: viewTenant(all[i], s.Now())}
	if who, _ := reader(ctx); s.Deeds != nil && role.May(who.Role, role.Pause) {
		verb := "pause"
		if v.Paused != nil {
			verb = "resume"
		}
		v.Deed = &deedForm{Action: "/tenants/" + v.ID + "/turn", Buttons: []button{turns[verb]}, Told: true}
	}
	return &frame{Title: v.Name, Here: "status", Tenant: v}, nil
}

// turn pauses a tenant, or has it go on.
func (s *server) turn(w http.ResponseWriter, r *http.Request) {
	s.deed(w, r, func(ctx context.Context, who Session, why string) (back string, err error) {
		f, err := s.tenant(ctx, r)
		if err != nil {
			return "", err
		}
		one, known := turns[r.PostFormValue("verb")]
		if !known {
			return "", &problem{status: http.StatusBadRequest, Title: "That cannot be decided", What: "A tenant is paused, or goes on.", Do: "Go back and use the button."}
		}
		if err := s.Deeds.Turn(ctx, one.Verb, deal.TenantID(f.Tenant.ID), who.Who, why); err != nil {
			return "", err
		}
		s.Log.Info("decided by a person on the page", "tenant", f.Tenant.ID, "verb", one.Verb, "who", who.Who, "session", who.ID)
		return "/tenants/" + f.Tenant.ID, nil
	})
}
