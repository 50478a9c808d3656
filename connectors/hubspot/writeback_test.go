package hubspot

import (
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors/connectortest"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func receiptOf(sequence int64, fields ...deal.Field) deal.Receipt {
	return deal.Receipt{Tx: txOf("1"), Sequence: sequence, Fields: fields}
}

func TestReceiptWithoutAnAuditFieldIsOrderedInMemory(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	c := w.connector(quiet())
	for _, step := range []struct {
		sequence int64
		status   string
		shown    string
	}{{5, "signed", "signed"}, {4, "queued", "signed"}, {6, "held", "held"}} {
		w.must(c.WriteBack(t.Context(), dealRef(id), receiptOf(step.sequence, deal.Field{Name: "dealseal_status", Value: step.status})))
		if got := w.Field(id, "dealseal_status"); got != step.shown {
			t.Errorf("after receipt %d: %q is shown, want %q", step.sequence, got, step.shown)
		}
	}
	writes := w.Requests(connectortest.WriteCall)
	w.must(w.connector(quiet()).WriteBack(t.Context(), dealRef(id), receiptOf(6, deal.Field{Name: "dealseal_status", Value: "held"})))
	if n := w.Requests(connectortest.WriteCall) - writes; n != 0 {
		t.Errorf("what is shown already was written %d times more", n)
	}
}

func TestWriteThatTimedOutAfterItsCommitIsNotRepeated(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	if _, err := w.portal.SetFault(mock.Fault{Kind: mock.KindPatch, Effect: mock.EffectTimeoutCommitted, Times: 1}); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 21, 0, 0, 123e6, time.FixedZone("", 3600))
	r := receiptOf(1, deal.Field{Name: "dealseal_signed_at", Value: at}, deal.Field{Name: "dealseal_document_url", Value: nil})
	w.must(w.connector(quiet()).WriteBack(t.Context(), dealRef(id), r))
	if n := w.Requests(connectortest.WriteCall); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
	if got := w.Field(id, "dealseal_signed_at"); got != "2026-11-20T20:00:00.123Z" {
		t.Errorf("dealseal_signed_at = %q", got)
	}
}

func TestRefusedWritesNameThePropertyAndNotTheValue(t *testing.T) {
	const value = "confidential 4711"
	for name, c := range map[string]struct {
		field   deal.Field
		version string
		says    []string
	}{
		"no such option":        {deal.Field{Name: "dealseal_status", Value: value}, "", []string{"dealseal_status", "INVALID_OPTION"}},
		"no such property":      {deal.Field{Name: "dealseal_nothing", Value: value}, "", []string{"dealseal_nothing", "PROPERTY_DOESNT_EXIST"}},
		"read-only":             {deal.Field{Name: "hs_is_closed", Value: "true"}, "", []string{"hs_is_closed", "READ_ONLY_VALUE"}},
		"no number":             {deal.Field{Name: "amount", Value: value}, "", []string{"amount", "INVALID_INTEGER"}},
		"too long":              {deal.Field{Name: "dealseal_audit", Value: strings.Repeat("ß", maxText+1)}, "", []string{"dealseal_audit", "65536", "65537"}},
		"no name of a property": {deal.Field{Name: "a/b?c", Value: value}, "", []string{"a/b?c", "write_back"}},
		"a type of ours":        {deal.Field{Name: "amount", Value: 1.5}, "", []string{"amount", "float64"}},
		"conditional rule":      {deal.Field{Name: "dealseal_status", Value: "signed"}, "2026-09", []string{"hs_next_step", "REQUIRED_FIELD"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, FlowToken)
			w.config.APIVersion = c.version
			w.must(w.portal.RequireWhen(mock.ConditionalRule{Object: "deals", Property: "dealseal_status", Values: []string{"signed"}, Required: []string{"hs_next_step"}}))
			id := w.CreateDeals(1, "contractsent")[0]
			err := w.connector(quiet()).WriteBack(t.Context(), dealRef(id), receiptOf(1, c.field))
			if !deal.IsPermanent(err) || strings.Contains(err.Error(), "4711") {
				t.Fatalf("the error is %v, want a permanent one without the value", err)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error is %v, want %q in it", err, part)
				}
			}
		})
	}
}

func TestAuditRecordMayFillItsProperty(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	long := strings.Repeat("ß", maxText) // characters, not bytes
	w.must(w.connector(quiet()).WriteBack(t.Context(), dealRef(id), receiptOf(1, deal.Field{Name: "dealseal_audit", Value: long})))
	if w.Field(id, "dealseal_audit") != long {
		t.Error("the value is not shown whole")
	}
}

func TestReceiptReachesTheDealThatTookOver(t *testing.T) {
	w := newWorld(t, FlowToken)
	ids := w.CreateDeals(2, "contractsent")
	merged, err := w.Merge(ids[0], ids[1])
	w.must(err)
	w.must(w.connector(quiet()).WriteBack(t.Context(), dealRef(ids[1]), receiptOf(1, deal.Field{Name: "dealseal_status", Value: "signed"})))
	if got := w.Field(merged, "dealseal_status"); got != "signed" {
		t.Errorf("dealseal_status = %q", got)
	}
}

func TestTimesAreComparedAndNotTheirSpelling(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2026-11-20T20:00:00Z", "2026-11-20T20:00:00.000Z", true},
		{"1795204800000", "2026-11-20T20:00:00.000Z", true},
		{"2026-11-20T20:00:00.001Z", "2026-11-20T20:00:00.000Z", false},
		{"", "", false}, {"signed", "signed", false}, {"5", "5.0", false},
	} {
		if got := sameTime(c.a, c.b); got != c.same {
			t.Errorf("sameTime(%q, %q) = %t", c.a, c.b, got)
		}
	}
}

// TestTimeInAnotherSpellingIsNotWrittenAgain: HubSpot leaves out milliseconds that are zero.
func TestTimeInAnotherSpellingIsNotWrittenAgain(t *testing.T) {
	server := &canned{status: 200, body: `{"id":"1","properties":{"dealseal_signed_at":"2026-11-20T20:00:00Z"}}`}
	at := time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)
	err := bubbleConnector(t, server, Config{}).WriteBack(t.Context(), dealRef("1"), receiptOf(1, deal.Field{Name: "dealseal_signed_at", Value: at}))
	if err != nil || server.calls != 1 {
		t.Errorf("%d calls, %v; want the one that looks", server.calls, err)
	}
}
