package deal

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dealseal/dealseal/mocks/hostile"
)

// The recipe can never change: stored transactions would be noticed again.
func TestTxIDIsForEver(t *testing.T) {
	got := NewTxID("salesforce:00D000000000001AAA", Ref{"Opportunity", "006000000000001AAA"}, "order-form", "008000000000001AAA")
	if want := TxID("g7poxmo2qkuoh67ha7vsacbbzu"); got != want {
		t.Errorf("TxID = %s, want %s", got, want)
	}
	if id, err := ParseTxID(string(got)); err != nil || id != got {
		t.Errorf("ParseTxID(%s) = %s, %v", got, id, err)
	}
}

func TestTxIDsOfDifferentOccurrencesDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-c:/]{0,4}`)
		a := [5]string{text.Draw(t, "account"), text.Draw(t, "object"), text.Draw(t, "id"), text.Draw(t, "rule"), text.Draw(t, "occurrence")}
		b := [5]string{text.Draw(t, "account"), text.Draw(t, "object"), text.Draw(t, "id"), text.Draw(t, "rule"), text.Draw(t, "occurrence")}
		id := func(p [5]string) TxID { return NewTxID(AccountID("k:"+p[0]), Ref{p[1], p[2]}, p[3], p[4]) }
		if (id(a) == id(b)) != (a == b) {
			t.Fatalf("%q and %q: %s and %s", a, b, id(a), id(b))
		}
	})
}

func TestAnEntryIsKnownUnderEveryIDThatItsRecordHad(t *testing.T) {
	a := AccountID("hubspot:1")
	before := Change{Rule: "r", Ref: Ref{"deals", "1"}, Occurrence: "won@t"}
	after := Change{Rule: "r", Ref: Ref{"deals", "9"}, Occurrence: "won@t", Aliases: []string{"1", "2"}}
	ids := after.TxIDs(a)
	if len(ids) != 3 || ids[1] != before.TxIDs(a)[0] || ids[0] == ids[1] {
		t.Errorf("TxIDs = %v, the old one is %v", ids, before.TxIDs(a))
	}
}

func TestParseTxIDSaysWhatIsWrong(t *testing.T) {
	for _, s := range []string{"", "abc", "0bcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXY!"} {
		if _, err := ParseTxID(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestMarkersAreFoundInLongerTexts(t *testing.T) {
	tx := NewTxID("k:1", Ref{"o", "1"}, "r", "x")
	other := NewTxID("k:1", Ref{"o", "2"}, "r", "x")
	cases := []struct {
		text string
		tx   TxID
		role Role
		ok   bool
	}{
		{Marker(tx, RoleContract), tx, RoleContract, true},
		{"<p>Sealed. " + Marker(tx, RoleAuditTrail) + "</p>", tx, RoleAuditTrail, true},
		{"dealseal:nonsense:contract " + Marker(other, RoleContract), other, RoleContract, true},
		{"dealseal:" + string(tx) + ":invoice", "", "", false},
		{"dealseal:" + string(tx), "", "", false},
		{"", "", "", false},
	}
	for _, c := range cases {
		gotTx, gotRole, ok := ParseMarker(c.text)
		if gotTx != c.tx || gotRole != c.role || ok != c.ok {
			t.Errorf("ParseMarker(%q) = %q, %q, %v", c.text, gotTx, gotRole, ok)
		}
	}
}

func FuzzParseMarker(f *testing.F) {
	f.Add(Marker(NewTxID("k:1", Ref{"o", "1"}, "r", "x"), RoleContract))
	f.Fuzz(func(t *testing.T, s string) {
		hostile.Budget(t)
		if tx, role, ok := ParseMarker(s); ok {
			if again, r, ok := ParseMarker(Marker(tx, role)); !ok || again != tx || r != role {
				t.Errorf("%q gives a marker that is not found again", s)
			}
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	f.Add(Cursor{Since: time.Date(2026, 11, 20, 8, 0, 0, 1, time.UTC), State: `{"id":"x"}`}.String())
	f.Add(`{"since":"0000-01-01T00:00:00+23:59"}`)
	f.Fuzz(func(t *testing.T, s string) {
		hostile.Budget(t)
		c, err := ParseCursor(s)
		if err != nil {
			return
		}
		if again, err := ParseCursor(c.String()); err != nil || !again.Since.Equal(c.Since) || again.State != c.State {
			t.Errorf("%q is stored as %q and read back as %+v, %v", s, c.String(), again, err)
		}
	})
}

func FuzzReadAuditRecord(f *testing.F) {
	f.Add(`{"tx":"abcdefghijklmnopqrstuvwxyz","sequence":7,"status":"signed","signed_at":"2026-11-20T08:00:00Z"}`)
	f.Add(`{"tx":"a","sequence":-9223372036854775808}`)
	f.Fuzz(func(t *testing.T, s string) {
		hostile.Budget(t)
		if a, ok := ReadAuditRecord(s); !ok && a != (AuditRecord{}) {
			t.Errorf("%q is none of ours, and yet something is made of it: %+v", s, a)
		}
	})
}

func TestCursorsSurviveStorageAndOnlyMoveBack(t *testing.T) {
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	c := Cursor{Since: at, State: `{"id":"x"}`}
	again, err := ParseCursor(c.String())
	if err != nil || again != c {
		t.Errorf("stored and read: %v, %v", again, err)
	}
	if got := c.Rewind(at.Add(time.Hour)); got != c {
		t.Errorf("moved forward to %v", got)
	}
	if got := c.Rewind(at.Add(-time.Hour)); !got.Since.Equal(at.Add(-time.Hour)) || got.State != "" {
		t.Errorf("rewound to %v", got)
	}
	if zero, err := ParseCursor(""); err != nil || !zero.IsZero() || zero.String() != "" {
		t.Errorf("zero cursor: %v %v", zero, err)
	}
	if _, err := ParseCursor("{"); err == nil {
		t.Error("a damaged cursor was accepted")
	}
}

func TestWhatIsSealedIsNeverShownAsFailed(t *testing.T) {
	for _, s := range Steps {
		for _, c := range []Condition{Running, Retrying, Held, Dead, Ended} {
			got := ShownAs(s, c)
			if got == StatusFailed && !s.Before(Sealed) {
				t.Errorf("%s, %s is shown as failed", s, c)
			}
			if (got == StatusSigned) != !s.Before(Attached) {
				t.Errorf("%s, %s is shown as %s", s, c, got)
			}
		}
	}
	for c, want := range map[Condition]Status{Running: StatusQueued, Retrying: StatusQueued, Held: StatusHeld, Dead: StatusFailed, Ended: StatusActionRequired} {
		if got := ShownAs(Rendered, c); got != want {
			t.Errorf("rendered, %s is shown as %s, want %s", c, got, want)
		}
	}
}

func TestErrorsAreAsked(t *testing.T) {
	wrapped := fmt.Errorf("reading: %w", Hold("no %s", "amount"))
	if !IsPermanent(wrapped) || !IsPermanent(ErrGone) || IsPermanent(errors.New("x")) || IsPermanent(nil) {
		t.Error("IsPermanent is wrong")
	}
	if RetryAfter(errors.New("x")) != 0 {
		t.Error("an error that does not say has a RetryAfter")
	}
}

func TestOnlyOurOwnAuditRecordsAreRead(t *testing.T) {
	if _, ok := ReadAuditRecord(`{"tx":"a","seq":7}`); !ok {
		t.Error("an audit record was not recognised")
	}
	for _, s := range []string{"", "7", "{}", `{"tx":"a"}`, "null", `{"seq":7}`, "notes of a user"} {
		if _, ok := ReadAuditRecord(s); ok {
			t.Errorf("%q was taken for an audit record", s)
		}
	}
}

func TestRecordsAreLookedUpByPathAndComparedByValue(t *testing.T) {
	r := Record{Values: map[string]any{"Name": "x", "Account": map[string]any{"City": "Kyiv", "Null": nil}}}
	if r.Text("Account.City") != "Kyiv" || r.Text("Account.Null") != "" || r.Text("Account.City.X") != "" || r.Lookup("Nope") != nil {
		t.Error("Lookup is wrong")
	}
	a, err := r.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	r.Values["Name"] = "y"
	if b, _ := r.Fingerprint(); a == b {
		t.Error("two contents have one fingerprint")
	}
}
