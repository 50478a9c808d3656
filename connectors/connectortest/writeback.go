package connectortest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// signedAt is the time in every receipt that says "signed".
var signedAt = time.Date(2026, 11, 20, 21, 30, 15, 250e6, time.UTC)

// receipt is what the engine would send: all five fields.
func receipt(w World, tx deal.TxID, sequence int64, status deal.Status) deal.Receipt {
	return receiptWith(w, deal.AuditRecord{Tx: tx, Sequence: sequence, Status: status})
}

func receiptWith(w World, a deal.AuditRecord) deal.Receipt {
	wb := w.Traits().WriteBack
	r := deal.Receipt{Tx: a.Tx, Sequence: a.Sequence, SequenceField: wb.Audit}
	var at, url any
	if a.Status == deal.StatusSigned {
		a.SignedAt = &signedAt
		at, url = signedAt, "https://crm.example/files/"+string(a.Tx)
	}
	audit, err := json.Marshal(a)
	if err != nil {
		panic(err) // strings and numbers only
	}
	r.Fields = []deal.Field{
		{Name: wb.TransactionID, Value: string(a.Tx)},
		{Name: wb.Status, Value: wb.Word(a.Status)},
		{Name: wb.SignedAt, Value: at},
		{Name: wb.URL, Value: url},
		{Name: wb.Audit, Value: string(audit)},
	}
	return r
}

func writeBack(t *testing.T, crm connectors.CRM, r deal.Ref, rec deal.Receipt) {
	t.Helper()
	if err := attempts(t, 3, func() error { return crm.WriteBack(callContext(t), r, rec) }); err != nil {
		t.Fatalf("WriteBack: %v", err)
	}
}

// shown holds that the deal shows the receipt.
func shown(t *testing.T, w World, id string, r deal.Receipt) {
	t.Helper()
	for _, f := range r.Fields {
		got := w.Field(id, f.Name)
		switch want := f.Value.(type) {
		case nil:
			if got != "" {
				t.Errorf("field %s holds %q, want nothing", f.Name, got)
			}
		case time.Time:
			if at, ok := parseTime(got); !ok || !at.Equal(want) && !at.Equal(want.Truncate(time.Second)) {
				t.Errorf("field %s holds %q, want %s", f.Name, got, want)
			}
		default:
			if got != fmt.Sprint(want) {
				t.Errorf("field %s holds %q, want %q", f.Name, got, want)
			}
		}
	}
}

// parseTime reads the forms in which CRMs show a date-time.
func parseTime(s string) (time.Time, bool) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.UnixMilli(ms), true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.000-0700"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

func testWriteBack(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	tx := txFor(id)
	for i, status := range []deal.Status{deal.StatusQueued, deal.StatusAwaiting, deal.StatusSigned, deal.StatusHeld} {
		w.Advance(2 * time.Second)
		r := receipt(w, tx, int64(i+1), status)
		writeBack(t, crm, ref(w, id), r)
		shown(t, w, id, r)
	}
}

// testOlderReceipt holds that a "Queued" which arrives after "Signed" changes nothing, also after a restart.
func testOlderReceipt(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	tx := txFor(id)
	signed := receipt(w, tx, 2000, deal.StatusSigned)
	writeBack(t, crm, ref(w, id), signed)
	writes := w.Requests(WriteCall)
	for _, c := range []connectors.CRM{crm, w.Connector(quiet())} {
		w.Advance(2 * time.Second)
		writeBack(t, c, ref(w, id), receipt(w, tx, 1000, deal.StatusQueued))
		writeBack(t, c, ref(w, id), receipt(w, txFor(id+"#0"), 1999, deal.StatusHeld))
		writeBack(t, c, ref(w, id), signed)
		shown(t, w, id, signed)
	}
	if n := w.Requests(WriteCall) - writes; n != 0 {
		t.Errorf("receipts that are not newer have written %d times", n)
	}
}

// testSequenceOfTheFuture holds that a sequence which lies further ahead than clocks may differ does not silence a record,
// whether somebody typed it or this daemon wrote it while its clock was wrong; and that order is kept after that.
func testSequenceOfTheFuture(t *testing.T, w World) {
	now := w.Now().UnixMilli()
	audit := w.Traits().WriteBack.Audit
	foreign := deal.Receipt{Sequence: 1, Fields: []deal.Field{{Name: audit, Value: `{"tx":"x","seq":9223372036854775807}`}}}
	for name, first := range map[string]func(id string) deal.Receipt{
		"foreign text": func(string) deal.Receipt { return foreign },
		"a clock ahead by two days": func(id string) deal.Receipt {
			return receipt(w, txFor(id), now+48*time.Hour.Milliseconds(), deal.StatusHeld)
		},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %t", name, restart), func(t *testing.T) {
				crm := w.Connector(quiet())
				id := w.CreateDeals(1, w.Traits().Stage)[0]
				writeBack(t, crm, ref(w, id), first(id))
				if restart {
					crm = w.Connector(quiet())
				}
				w.Advance(2 * time.Second)
				signed := receipt(w, txFor(id), now, deal.StatusSigned)
				writeBack(t, crm, ref(w, id), signed)
				shown(t, w, id, signed)
				w.Advance(2 * time.Second)
				writeBack(t, crm, ref(w, id), receipt(w, txFor(id), now-1, deal.StatusQueued))
				withoutSequence := receipt(w, txFor(id), now-1, deal.StatusQueued)
				withoutSequence.SequenceField = ""
				if !restart {
					writeBack(t, crm, ref(w, id), withoutSequence) // then only the connector's memory keeps the order
				}
				shown(t, w, id, signed)
			})
		}
	}
}

func testSequenceALittleAhead(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	now := w.Now()
	ahead := receipt(w, txFor(id), now.Add(4*time.Minute).UnixMilli(), deal.StatusSigned)
	writeBack(t, crm, ref(w, id), ahead)
	for _, c := range []connectors.CRM{crm, w.Connector(quiet())} {
		w.Advance(2 * time.Second)
		writeBack(t, c, ref(w, id), receipt(w, txFor(id), now.UnixMilli(), deal.StatusQueued))
		shown(t, w, id, ahead)
	}
}

// testSequenceFarAhead holds that a receipt which a newer one from the future holds back is neither written nor answered
// with success, which would silence the record; and that the very receipt that is ahead counts as written.
func testSequenceFarAhead(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	now := w.Now()
	ahead := receipt(w, txFor(id), now.Add(23*time.Hour).UnixMilli(), deal.StatusSigned)
	writeBack(t, crm, ref(w, id), ahead)
	writes := w.Requests(WriteCall)
	other := receipt(w, txFor(id+"#0"), ahead.Sequence, deal.StatusQueued)
	for name, c := range map[string]connectors.CRM{"the same daemon": crm, "after a restart": w.Connector(quiet())} {
		for _, r := range []deal.Receipt{receipt(w, txFor(id), now.UnixMilli(), deal.StatusQueued), other} {
			err := c.WriteBack(callContext(t), ref(w, id), r)
			if wait := deal.RetryAfter(err); err == nil || deal.IsPermanent(err) || wait <= 0 || wait > time.Hour {
				t.Errorf("%s: WriteBack gives %v, to be tried again in %s, want an error that passes and a wait of at most an hour", name, err, wait)
			}
		}
		writeBack(t, c, ref(w, id), ahead)
	}
	shown(t, w, id, ahead)
	if n := w.Requests(WriteCall) - writes; n != 0 {
		t.Errorf("%d writes over a receipt from the future", n)
	}
	w.Advance(23 * time.Hour)
	writeBack(t, crm, ref(w, id), receipt(w, txFor(id), now.UnixMilli(), deal.StatusQueued))
	shown(t, w, id, ahead)
}

func testWriteReplyLost(t *testing.T, w World) {
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	r := receipt(w, txFor(id), 7, deal.StatusSigned)
	supported(t, w.Fail(WriteCall, LoseReply, 1))
	writeBack(t, w.Connector(quiet()), ref(w, id), r)
	writeBack(t, w.Connector(quiet()), ref(w, id), r)
	shown(t, w, id, r)
	if n := w.Requests(WriteCall); n != 1 {
		t.Errorf("the fields were written %d times, want once: look before write", n)
	}
}

// testRefusedForEver holds that a rule of the account's administrator makes the write fail for good, with a reason that
// quotes no value, and harms nothing else: the file stays, and once the rule is gone the same receipt gets through.
func testRefusedForEver(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	tx, f := txFor(id), file(t, "contract.pdf", 3000)
	attach(t, crm, ref(w, id), tx, deal.RoleContract, f)
	supported(t, w.Fail(WriteCall, Refused, -1))
	r := receipt(w, tx, 5, deal.StatusSigned)
	for range 2 {
		err := crm.WriteBack(callContext(t), ref(w, id), r)
		if !deal.IsPermanent(err) {
			t.Fatalf("WriteBack against the rule gives %v, want a permanent error", err)
		}
		for _, field := range r.Fields {
			if v, ok := field.Value.(string); ok && strings.Contains(err.Error(), v) {
				t.Errorf("the error quotes the value of %s: %v", field.Name, err)
			}
		}
	}
	stored(t, w, id, f)
	if got := w.Field(id, w.Traits().WriteBack.Status); got != "" {
		t.Errorf("the refused status is shown: %q", got)
	}
	w.Heal()
	writeBack(t, crm, ref(w, id), r)
	shown(t, w, id, r)
}

// testChangedMeanwhile holds that a user's edit between two receipts neither stops the second nor is lost.
func testChangedMeanwhile(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	writeBack(t, crm, ref(w, id), receipt(w, txFor(id), 1, deal.StatusQueued))
	w.Advance(time.Minute)
	w.SetAmount(id, "777.25")
	r := receipt(w, txFor(id), 2, deal.StatusSigned)
	writeBack(t, crm, ref(w, id), r)
	shown(t, w, id, r)
	sameNumber(t, "the user's amount", read(t, crm, ref(w, id), w.Traits().Amount).Lookup(w.Traits().Amount), "777.25")
}

// testUnknownWriteField holds that a missing field is named.
func testUnknownWriteField(t *testing.T, w World) {
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	r := receipt(w, txFor(id), 1, deal.StatusQueued)
	r.Fields = append(r.Fields, deal.Field{Name: w.Traits().NoSuchField, Value: "x"})
	err := w.Connector(quiet()).WriteBack(callContext(t), ref(w, id), r)
	if !deal.IsPermanent(err) || !strings.Contains(fmt.Sprint(err), w.Traits().NoSuchField) {
		t.Errorf("writing a field that does not exist gives %v, want a permanent error that names it", err)
	}
}
