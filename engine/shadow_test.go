package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/signing/pades"
)

// rehearse replays two days of the world's org.
func (w *world) rehearse(change func(*Rehearsal), plan ...func(*deal.Plan)) Shadow {
	w.t.Helper()
	h := Rehearsal{Days: 2, Calls: 100, Bundles: shelf{}, Tenant: Tenant{ID: acme, CRM: w.connector(), Poll: time.Minute, Rules: []Rule{w.rule(plan...)}}}
	h.Tenant.Rules[0].StartFrom = time.Time{}
	if change != nil {
		change(&h)
	}
	s, err := h.Run(w.t.Context())
	must(w.t, err)
	return s
}

func TestARehearsalSaysWhatGuardAndKeyWouldHaveHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 4 {
		w.won()
	}
	s := w.rehearse(func(h *Rehearsal) {
		h.Tenant.Guard = deal.Guard{Rules: map[string]deal.RuleGuard{"memo": {Caps: deal.Caps{Day: 3}}}}
		h.Limits = map[string]deal.KeyLimits{"house": {Day: 2}}
	}, atLevel(pades.BLTA))
	if len(s.Deals) != 4 || s.Deals[2].Guard != "" || !strings.Contains(s.Deals[3].Guard, "per_day") || s.Rules[0].Guarded != 1 {
		t.Errorf("the guard would have held %+v", s.Deals)
	}
	if s.Deals[1].Outcome != ShadowMade || s.Deals[2].Outcome != ShadowHeld || !strings.Contains(s.Deals[2].Why, "[spent]") || s.Rules[0].Of[ShadowHeld] != 2 {
		t.Errorf("the key's limit would have held %+v", s.Deals)
	}
	if s.Total.Documents != 2 || s.Total.Timestamps != 4 || s.Total.Evidence != 2 || s.Total.CRM < 2*6-1 || s.Peak != s.Total {
		t.Errorf("the costs are %+v, on the busiest day %+v", s.Total, s.Peak)
	}
	if w.updates() != 0 {
		t.Error("a record was written")
	}
}

func TestARehearsalLooksNoFurtherThanItMayAndSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 40 {
		w.won()
	}
	old := w.org.Counts()[mock.KindQuery]
	s := w.rehearse(func(h *Rehearsal) { h.Calls = 8 })
	unread := s.Rules[0].Of[ShadowUnknown]
	if s.Cut == "" || unread == 0 || unread == 40 || s.Deals[39].Outcome != ShadowMade || s.Calls > 8+shadowReaders || w.org.Counts()[mock.KindQuery]-old > 8+shadowReaders {
		t.Errorf("with few calls it has made %d, %d records are unread, cut %q", s.Calls, unread, s.Cut)
	}
	// What entered before the rule began, or before these days, is left alone.
	w.clock.advance(72 * time.Hour)
	record := w.won()
	s = w.rehearse(nil)
	if len(s.Deals) != 1 || s.Deals[0].Ref.ID != record || s.Cut != "" {
		t.Errorf("of three days later there are %+v", s.Deals)
	}
	s = w.rehearse(func(h *Rehearsal) { h.Tenant.Rules[0].StartFrom = w.now().Add(time.Hour) })
	if len(s.Deals) != 0 {
		t.Errorf("of a rule that begins later there are %+v", s.Deals)
	}
	// A rule that does not fit is said, and so is an account of the other environment.
	if s = w.rehearse(nil, func(p *deal.Plan) { p.Stage = "Closed Wonn" }); len(s.Problems) == 0 || !strings.Contains(s.Problems[0], "Closed Won") {
		t.Errorf("the problems are %q", s.Problems)
	}
	h := Rehearsal{Days: 2, Calls: 100, Tenant: Tenant{ID: acme, CRM: w.connector(), Production: true, Rules: []Rule{w.rule()}}}
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "sandbox") {
		t.Errorf("an account of the other environment is rehearsed: %v", err)
	}
}
