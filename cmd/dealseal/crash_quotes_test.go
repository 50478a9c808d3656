package main

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// ofQuotes are the calls that differ from those of deals: what names quotes, and notes, whose association with them is asked of the
// account. Definitions of properties are read before anything is done for a quote.
var ofQuotes = regexp.MustCompile(`/(objects|associations)/.*quotes|POST .*/notes`)

// crashedQuotes kills the daemon before and after each of those calls, once each: what it does itself, and all other calls, are in
// the chain of deals.
func crashedQuotes(t *testing.T, binary string) {
	calm := newQuotesCrashWorld(t, binary).calmly(t)
	calm.calls = slices.DeleteFunc(calm.calls, func(p string) bool { return !ofQuotes.MatchString(p) })
	calm.mustHave(t, "http/contoso/POST /crm/objects/2026-03/quotes/search", "http/contoso/GET /crm/objects/2026-03/quotes/{id}",
		"http/contoso/PATCH /crm/objects/2026-03/quotes/{id}", "http/contoso/GET /crm/associations/2026-03/notes/quotes/labels",
		"http/contoso/POST /crm/objects/2026-03/notes/", "http/contoso/POST /crm/objects/2026-03/notes timeline")
	c := &chain{world: newQuotesCrashWorld(t, binary), calm: calm, rules: map[string]string{}, waiting: map[string]bool{}}
	for _, p := range calm.calls {
		c.plunge(t, plunge{point: p, reach: func(_ *testing.T, d *process) {
			// A quote that shares its calls with one that a crash has left behind may not pass the point: then another does.
			for range 4 {
				c.add(calm.rules[p])
				select {
				case <-d.ended:
					return
				case <-time.After(20 * time.Second):
				}
			}
		}})
	}
	c.settles(t)
	d := c.start(t)
	ops := c.control(t, c.stateDir)
	c.finish(t, ops)
	auditIsWhole(t, ops, nil)
	d.stop(t)
	c.compare(t)
}

// newQuotesCrashWorld is a HubSpot account whose records are quotes; memos are noted on their timelines.
func newQuotesCrashWorld(t *testing.T, binary string) *world {
	t.Helper()
	w := newWorld(t, worldOptions{binary: binary, tenants: []tenantOptions{{id: "contoso", kind: deal.HubSpot, quotes: true}}})
	w.rewrite(t, "tenants/contoso.yaml", "seal: normal, audit_trail: none, write_back: {", "seal: normal, audit_trail: none, write_back: {timeline: [signed], ")
	return w
}
