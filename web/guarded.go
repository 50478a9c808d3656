package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/role"
)

// guardView is what the guard holds of a tenant or a rule.
type guardView struct {
	Tenant, Rule string
	Held, Cause  string
	Since        *moment
	Command      string
	Path         string // of its page
}

func viewGuard(h deal.GuardHold, now time.Time) guardView {
	path := "/guard/" + string(h.Tenant)
	if h.Rule != "" {
		path += "/" + h.Rule
	}
	return guardView{Tenant: string(h.Tenant), Rule: h.Rule, Held: plural(int64(h.Held), "deal", "deals"), Cause: short(h.Cause, 300),
		Since: at(h.Since, now), Command: "dealseal jobs release --guard " + h.String() + ` --why "…"`, Path: path}
}

// guardedPage is where a person decides about all that the guard holds of a tenant or a rule.
type guardedPage struct {
	guardView
	Deed *deedForm
}

// guardVerbs are the buttons of what the guard holds.
var guardVerbs = []button{
	{"release", "Release all", "they go on"},
	{"drop", "Drop all", "they end without contracts, for ever"},
}

func (s *server) guarded(ctx context.Context, r *http.Request) (*frame, error) {
	h, err := s.guardHold(ctx, r)
	if err != nil {
		return nil, err
	}
	v := &guardedPage{guardView: viewGuard(h, s.Now())}
	if who, _ := reader(ctx); s.Deeds != nil && role.May(who.Role, role.Decide) {
		v.Deed = &deedForm{Action: v.Path, Buttons: guardVerbs, Episode: episode(h)}
	}
	return &frame{Title: v.Held + " held by the guard", Here: "status", Guarded: v}, nil
}

// guardHold finds what a request is about.
func (s *server) guardHold(ctx context.Context, r *http.Request) (deal.GuardHold, error) {
	holds, err := s.House.Guards(ctx)
	if err != nil {
		return deal.GuardHold{}, fmt.Errorf("guard: %w", err)
	}
	scope := deal.GuardScope{Tenant: deal.TenantID(r.PathValue("tenant")), Rule: r.PathValue("rule")}
	i := slices.IndexFunc(holds, func(h deal.GuardHold) bool { return h.GuardScope == scope })
	if i < 0 {
		return deal.GuardHold{}, &problem{status: http.StatusNotFound, Title: "The guard holds nothing here", What: "Of this tenant or rule nothing waits, or it was decided about.", Do: "The status page lists all that the guard holds."}
	}
	return holds[i], nil
}

// episode tells what is held now from what is held the next time.
func episode(h deal.GuardHold) string { return strconv.FormatInt(h.Since.UnixMilli(), 10) }

// decideGuarded carries out what a person has decided about all of it. What the guard began to hold after the person had
// loaded the page is another matter, which has to be looked at.
func (s *server) decideGuarded(w http.ResponseWriter, r *http.Request) {
	s.deed(w, r, func(ctx context.Context, who Session, why string) (back string, err error) {
		h, err := s.guardHold(ctx, r)
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(guardVerbs, func(b button) bool { return b.Verb == r.PostFormValue("verb") })
		switch {
		case i < 0:
			return "", &problem{status: http.StatusBadRequest, Title: "That cannot be decided", What: "What the guard holds is released or dropped.", Do: "Go back and use one of the buttons."}
		case r.PostFormValue("episode") != episode(h):
			return "", &RefusedError{"what was held when the page was loaded has been decided about, and the guard holds others now"}
		}
		n, err := s.Deeds.DecideGuarded(ctx, guardVerbs[i].Verb, h.GuardScope, who.Who, why)
		if err != nil {
			return "", err
		}
		s.Log.Info("decided by a person on the page about all that the guard holds", "of", h.String(), "verb", guardVerbs[i].Verb, "deals", n, "who", who.Who, "session", who.ID)
		return "/", nil
	})
}
