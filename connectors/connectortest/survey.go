package connectortest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func surveyor(t *testing.T, w World) connectors.Surveyor {
	t.Helper()
	s, ok := w.Connector(quiet()).(connectors.Surveyor)
	if !ok {
		t.Skip("LEFT OUT: the connector has no Survey")
	}
	return s
}

func wholeProbe(w World) connectors.Probe {
	traits := w.Traits()
	return connectors.Probe{
		Watches:   []deal.Watch{watchOf(w, "a", traits.Stage)},
		Read:      []string{traits.Amount, traits.Lines + "." + traits.LineName},
		WriteBack: []deal.WriteBack{traits.WriteBack},
	}
}

func testSurveyOfWhatIsAllowed(t *testing.T, w World) {
	traits := w.Traits()
	id := w.CreateDeals(2, traits.Stage)[0]
	w.AddFile(id, "Quote.pdf", []byte("%PDF-1.7"))
	problems, err := surveyor(t, w).Survey(callContext(t), wholeProbe(w))
	if err != nil || len(problems) != 0 {
		t.Errorf("Survey gives %+v and %v, want nothing", problems, err)
	}
	if files := w.Files(id); len(files) != 1 || w.Requests(UploadCall) != 0 {
		t.Errorf("after Survey the deal has %d files, and %d uploads were made", len(files), w.Requests(UploadCall))
	}
	for _, field := range []string{traits.WriteBack.TransactionID, traits.WriteBack.Status, traits.WriteBack.Audit} {
		if v := w.Field(id, field); v != "" {
			t.Errorf("Survey wrote %q to %s", v, field)
		}
	}
}

func testSurveyThatCannotAsk(t *testing.T, w World) {
	w.CreateDeals(1, w.Traits().Stage)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if problems, err := surveyor(t, w).Survey(cancelled, wholeProbe(w)); !errors.Is(err, context.Canceled) || problems != nil {
		t.Errorf("Survey with a cancelled context gives %v and %v", problems, err)
	}
	supported(t, w.Fail(LoginCall, Forbidden, -1))
	if problems, err := surveyor(t, w).Survey(callContext(t), wholeProbe(w)); err == nil && len(problems) == 0 {
		t.Error("Survey without a login finds nothing wrong")
	}
}

func testRecent(t *testing.T, w World) {
	traits := w.Traits()
	sampler, ok := w.Connector(quiet()).(connectors.Sampler)
	if !ok {
		t.Skip("LEFT OUT: the connector has no Recent")
	}
	none, err := sampler.Recent(callContext(t), traits.Object, 2)
	if err != nil || len(none) != 0 {
		t.Errorf("Recent of an empty account gives %v and %v", none, err)
	}
	ids := w.CreateDeals(4, traits.Other)
	var want []deal.Ref
	for _, i := range []int{2, 0} {
		w.Advance(traits.Overlap)
		w.Move(ids[i], traits.Stage)
		want = append(want, deal.Ref{Object: traits.Object, ID: ids[i]})
	}
	slices.Reverse(want)
	got, err := sampler.Recent(callContext(t), traits.Object, 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the latest (-want +got):\n%s", diff)
	}
}
