package main

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/mocks/esign"
)

// delegated kills the daemon at each point of the step in which a deal follows its vendor, one after the other with the same deal:
// its events have all come before it.
func delegated(t *testing.T, binary string) {
	d := newDelegating(t, deal.HubSpot, esign.Certyneo, binary)
	var points []string
	for _, p := range []string{"begin.follow", "call.record", "advance.told", "begin.fetch", "call.document", "advance.fetched"} { // as they are passed
		points = append(points, "follow."+p+"/before", "follow."+p+"/after")
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(engine.DelegatedPoints())), slices.Sorted(slices.Values(points))); diff != "" {
		t.Fatalf("the points of the step are others (-they +here):\n%s", diff)
	}
	d.begin(t, "DEALSEAL_CRASH_AT="+points[0])
	d.vendor.Send("env_1", "Order of "+hiddenCustomer)
	must(t, d.vendor.Sign("env_1", quotation(1)))
	for _, what := range []string{"sent", "signed", "completed"} {
		d.tell(t, "env_1", what, "")
	}
	record := d.enterWith("env_1")
	for i, point := range points {
		if i > 0 {
			d.daemon = d.launch(t, d.config, "DEALSEAL_CRASH_AT="+point)
		}
		select {
		case <-d.daemon.ended:
		case <-time.After(patience):
			d.daemon.kill()
			t.Fatalf("point %s was never reached:\n%s", point, tail(d.daemon.log()))
		}
		mustBeKilled(t, point, d.daemon.cmd, d.daemon.log)
	}
	d.begin(t)
	var told []string
	for _, e := range d.mustBeDelegated(t, record, "env_1", "B-T").Outbox {
		told = append(told, e.Type)
	}
	want := []string{"envelope.created", "envelope.sent", "recipient.signed", "document.signed", "document.validated", "document.attached", "envelope.completed"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("others are told (-want +told):\n%s", diff)
	}
	d.daemon.stop(t)
	d.tellsNothing(t)
}
