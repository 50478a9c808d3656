package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
)

func TestAnUnchangedPrivatePartIsNotEncryptedAnew(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	stored := func() []byte {
		return query[[]byte](t, s, `SELECT private FROM sealings WHERE tx = $1`, sl.Tx)
	}
	move := func(next deal.Step, change func()) []byte {
		t.Helper()
		sl.Step = next
		change()
		if err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: string(next)}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sl.Private, load(t, s, sl.Tx).Private); diff != "" {
			t.Fatal(diff)
		}
		return stored()
	}
	first := move(deal.Gathered, func() { sl.Private.Values = json.RawMessage(`{"Amount":"1.00"}`) })
	if same := move(deal.Rendered, func() {}); !bytes.Equal(same, first) {
		t.Error("it was encrypted once more although it has not changed")
	}
	other := move(deal.Sealed, func() { sl.Private.Values = json.RawMessage(`{"Amount":"1.01"}`) })
	if bytes.Equal(other, first) {
		t.Error("a change was not stored")
	}
	if again := move(deal.Checked, func() { sl.Private.Values = json.RawMessage(`{"Amount":"1.00"}`) }); bytes.Equal(again, first) || bytes.Equal(again, other) {
		t.Error("what was stored long before has come back as it was")
	}
	second := move(deal.Attached, func() { sl.Private.Second = &deal.PrivateSecond{Ticket: json.RawMessage(`{}`)} })
	if signed := move(deal.Reported, func() { sl.Private.Second.Value = []byte("value") }); bytes.Equal(signed, second) {
		t.Error("what was changed in place was not stored")
	}
	// Another process knows nothing of it, and stores it once more.
	last := stored()
	s.privates.forget(sl.Tx)
	if anew := move(deal.Done, func() {}); bytes.Equal(anew, last) {
		t.Error("it was forgotten, and yet is the same ciphertext")
	}
}

// What a customer has agreed to is in memory for as long as it is worked on, and not until the next start.
func TestThePrivatePartOfWhatIsNotWorkedOnIsForgotten(t *testing.T) {
	s, _ := newStore(t)
	for i, over := range []func(*deal.Sealing){
		func(sl *deal.Sealing) { sl.Step = deal.Done },
		func(sl *deal.Sealing) { sl.Condition = deal.Held },
		func(sl *deal.Sealing) { sl.Condition = deal.Ended },
	} {
		sl := one(t, s, fmt.Sprintf("006%d", i))
		sl.Private.Values = json.RawMessage(`{}`)
		sl.Step = deal.Gathered
		advance(t, s, sl, "gathered")
		if len(s.privates.known) != 1 {
			t.Fatalf("%d are remembered while one is worked on", len(s.privates.known))
		}
		over(sl)
		advance(t, s, sl, "over")
		if len(s.privates.known) != 0 {
			t.Errorf("%s, %s: it is remembered", sl.Step, sl.Condition)
		}
	}
}

// What is remembered must not change with the sealing: whoever gives it something that can be changed in place copies that in
// copyPrivate, too.
func TestWhatIsRememberedOfAPrivatePartCanBeCopied(t *testing.T) {
	copied := map[string]bool{"Second": true, "Differences": true}
	for _, of := range []reflect.Type{reflect.TypeFor[deal.Private](), reflect.TypeFor[deal.PrivateSecond](), reflect.TypeFor[deal.Difference]()} {
		for i := range of.NumField() {
			f := of.Field(i)
			isBytes := f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Uint8
			isValue := f.Type.Kind() <= reflect.Float64 && f.Type.Kind() > reflect.Invalid || f.Type.Kind() == reflect.String
			if !isBytes && !isValue && !copied[f.Name] {
				t.Errorf("%s.%s is neither a value nor bytes, and is not copied", of.Name(), f.Name)
			}
		}
	}
}
