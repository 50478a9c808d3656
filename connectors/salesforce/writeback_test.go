package salesforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

const auditField = "DealSeal_Audit__c"

func auditReceipt(t *testing.T, sequence int64) deal.Receipt {
	t.Helper()
	b, err := json.Marshal(deal.AuditRecord{Tx: testTx, Sequence: sequence, Status: deal.StatusSigned})
	if err != nil {
		t.Fatal(err)
	}
	return deal.Receipt{Tx: testTx, Sequence: sequence, SequenceField: auditField, Fields: []deal.Field{
		{Name: "DealSeal_Status__c", Value: "Signed"}, {Name: auditField, Value: string(b)},
	}}
}

func TestWriteStartsAgainWhenTheRecordWasChangedMeanwhile(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	_, err := w.org.SetFault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.ModifiedSince, Times: 2})
	w.must(err)
	w.must(c.WriteBack(t.Context(), opportunity(id), auditReceipt(t, 5)))
	if n := w.org.Counts(); n[mock.KindUpdate] != 3 || n[mock.KindGet] != 3 {
		t.Errorf("%d writes and %d looks, want a look before each of 3 writes", n[mock.KindUpdate], n[mock.KindGet])
	}
	_, err = w.org.SetFault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.ModifiedSince})
	w.must(err)
	if err := c.WriteBack(t.Context(), opportunity(id), auditReceipt(t, 6)); err == nil || deal.IsPermanent(err) {
		t.Errorf("a record that changes all the time gives %v", err)
	}
}

// meddler lets somebody else edit the record just before the first write arrives.
type meddler struct {
	http.RoundTripper
	edit func()
	once sync.Once
}

func (m *meddler) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPatch {
		m.once.Do(m.edit)
	}
	return m.RoundTripper.RoundTrip(req)
}

func TestEditBetweenLookAndWriteIsLookedAtAgain(t *testing.T) {
	w := newWorld(t, "")
	id := w.CreateDeals(1, "Closed Won")[0]
	newer := auditReceipt(t, 9)
	c, err := New(w.config(), Deps{Now: w.Now, HTTP: &meddler{RoundTripper: &http.Transport{DisableKeepAlives: true}, edit: func() {
		w.Advance(2 * time.Second)
		w.must(w.org.Update(id, map[string]any{auditField: newer.Fields[1].Value, "DealSeal_Status__c": "Held"}))
	}}})
	w.must(err)
	w.must(c.WriteBack(t.Context(), opportunity(id), auditReceipt(t, 5)))
	if got := w.Field(id, "DealSeal_Status__c"); got != "Held" {
		t.Errorf("the status that came in between was overwritten with %q", got)
	}
}

func TestOlderReceiptIsDroppedEvenWithoutASequenceOnTheRecord(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	for _, r := range []deal.Receipt{
		{Tx: testTx, Sequence: 9, Fields: []deal.Field{{Name: "DealSeal_Status__c", Value: "Signed"}}},
		{Tx: testTx, Sequence: 5, Fields: []deal.Field{{Name: "DealSeal_Status__c", Value: "Queued"}}},
	} {
		w.must(c.WriteBack(t.Context(), opportunity(id), r))
	}
	if got := w.Field(id, "DealSeal_Status__c"); got != "Signed" {
		t.Errorf("the status is %q", got)
	}
}

func TestReceiptThatIsShownAlreadyCostsNoWrite(t *testing.T) {
	w := newWorld(t, "")
	id := w.CreateDeals(1, "Closed Won")[0]
	at := time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)
	r := deal.Receipt{Tx: testTx, Sequence: 1, Fields: []deal.Field{
		{Name: "DealSeal_Status__c", Value: "Signed"}, {Name: "DealSeal_Signed_At__c", Value: at}, {Name: "DealSeal_Document_URL__c"},
	}}
	for range 2 {
		w.must(w.connector(nil).WriteBack(t.Context(), opportunity(id), r))
	}
	if n := w.org.Counts()[mock.KindUpdate]; n != 1 {
		t.Errorf("%d writes", n)
	}
	if got := w.Field(id, "DealSeal_Signed_At__c"); got != "2026-11-20T20:00:00.000+0000" {
		t.Errorf("the date-time is %s", got)
	}
}

func TestFieldsAreCheckedBeforeAnythingIsWritten(t *testing.T) {
	for name, tc := range map[string]struct {
		field deal.Field
		want  string
	}{
		"too long":      {deal.Field{Name: "DealSeal_Transaction_ID__c", Value: strings.Repeat("x", 41)}, "holds 40 characters"},
		"not a date":    {deal.Field{Name: "CloseDate", Value: time.Now()}, "date/time field"},
		"read only":     {deal.Field{Name: "SystemModstamp", Value: time.Now()}, "cannot be written"},
		"missing":       {deal.Field{Name: "Nope__c", Value: "x"}, `no field "Nope__c"`},
		"type":          {deal.Field{Name: "DealSeal_Status__c", Value: 17}, "type int"},
		"audit no JSON": {deal.Field{Name: auditField, Value: strings.Repeat("x", 40_000)}, "too few for the audit record"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			id := w.CreateDeals(1, "Closed Won")[0]
			r := auditReceipt(t, 1)
			r.Fields = append(r.Fields[:1:1], tc.field)
			err := w.connector(nil).WriteBack(t.Context(), opportunity(id), r)
			if !deal.IsPermanent(err) || !strings.Contains(fmt.Sprint(err), tc.want) || strings.Contains(err.Error(), "xxx") {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if n := w.org.Counts()[mock.KindUpdate]; n != 0 {
				t.Errorf("%d writes", n)
			}
		})
	}
}

func TestAuditRecordIsFittedByWholeParts(t *testing.T) {
	at := t20
	full := deal.AuditRecord{
		Tx: testTx, Sequence: 1_800_000_000_000, Status: deal.StatusSigned, Level: "B-T", SignedAt: &at, Fingerprint: strings.Repeat("a", 64),
		Serial: strings.Repeat("9", 40), Issuer: "CN=Łódź Issuing CA " + strings.Repeat("ł", 60), Digest: "SHA-256",
		Archive: "dealseal:" + string(testTx) + "/" + strings.Repeat("b", 64), TreeSize: 123456, TreeRoot: strings.Repeat("c", 44), Reason: strings.Repeat("r", 200),
	}
	b, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	last := full
	for limit := utf8.RuneCount(b) - 1; limit > 0; limit-- {
		got, err := fitAudit(field{Name: auditField, Length: limit}, string(b))
		if err != nil {
			if limit > 255 || !deal.IsPermanent(err) {
				t.Fatalf("%d characters: %v; a Text(255) field must do", limit, err)
			}
			return
		}
		text := got.(string)
		a, ok := deal.ReadAuditRecord(text)
		if !ok || utf8.RuneCountInString(text) > limit || a.Tx != full.Tx || a.Sequence != full.Sequence || a.Status != full.Status || !a.SignedAt.Equal(at) {
			t.Fatalf("%d characters: %s", limit, text)
		}
		if a.Reason != "" || a.TreeRoot != "" && a.Issuer != "" && last.Issuer == "" {
			t.Fatalf("%d characters: parts are dropped out of order: %s", limit, text)
		}
		last = a
	}
}

func TestPermissionThatIsGivenLaterIsNoticedWithoutARestart(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	w.org.DenyEdit("Opportunity.DealSeal_Status__c")
	if err := c.WriteBack(t.Context(), opportunity(id), auditReceipt(t, 5)); !deal.IsPermanent(err) {
		t.Fatalf("a field that may not be written gives %v", err)
	}
	w.org.AllowEdit("Opportunity.DealSeal_Status__c")
	w.Advance(2 * freshEnough)
	if err := c.WriteBack(t.Context(), opportunity(id), auditReceipt(t, 5)); err != nil {
		t.Errorf("once the permission is given: %v", err)
	}
}

func TestWritesToOneRecordTakeTurns(t *testing.T) {
	r := newReceipts()
	release, err := r.hold(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.hold(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.hold(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second write to the same record got %v", err)
	}
	r.note("a", 7)
	release()
	again, err := r.hold(t.Context(), "a")
	if err != nil || r.last("a") != 7 {
		t.Errorf("last %d, %v", r.last("a"), err)
	}
	again()
}
