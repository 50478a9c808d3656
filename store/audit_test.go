package store

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/google/go-cmp/cmp"
)

// busyStore has a log with several sealings, a checkpoint in its middle and entries after it.
func busyStore(t *testing.T) (s *Store, middle []byte) {
	t.Helper()
	s, c := newStore(t)
	a := one(t, s, "006A")
	toSealed(t, s, a, "contract A")
	middle, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.advance(time.Second)
	toSealed(t, s, one(t, s, "006B"), "contract B")
	return s, middle
}

func TestAnUntouchedLogVerifiesAgainstEveryCheckpoint(t *testing.T) {
	s, middle := busyStore(t)
	end, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, old := range map[string][]byte{"none": nil, "middle": middle, "end": end} {
		r, err := s.VerifyAudit(t.Context(), old)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		head, err := s.TreeHead(t.Context())
		if err != nil || r.Head != head || r.Sealings != 2 {
			t.Fatalf("%s: %+v, tree head %+v, %v", name, r, head, err)
		}
	}
	if again, err := s.Checkpoint(t.Context()); err != nil || !bytes.Equal(again, end) {
		t.Fatalf("a checkpoint without anything new is another one: %v", err)
	}
}

func TestTamperingIsNoticed(t *testing.T) {
	for _, c := range []struct{ name, query string }{
		{"an altered leaf", `UPDATE audit SET leaf = CAST(replace(CAST(leaf AS TEXT), '"what":"sealed"', '"what":"seaIed"') AS BLOB) WHERE n = (SELECT min(n) FROM audit WHERE CAST(leaf AS TEXT) LIKE '%"sealed"%')`},
		{"another testimony", `UPDATE audit SET private = (SELECT private FROM audit WHERE n = 4) WHERE n = 5`},
		{"a deleted entry", `DELETE FROM audit WHERE n = 4`},
		{"two entries swapped", `UPDATE audit SET leaf = (SELECT leaf FROM audit b WHERE b.n = 9 - audit.n), private = (SELECT private FROM audit b WHERE b.n = 9 - audit.n) WHERE n IN (4, 5)`},
		{"a log cut off after the last checkpoint", `DELETE FROM audit WHERE n = (SELECT max(n) FROM audit)`},
		{"a log and its hashes cut off", `DELETE FROM audit WHERE n > 3; DELETE FROM audit_hashes WHERE i > 6`},
		{"an altered hash", `UPDATE audit_hashes SET hash = zeroblob(32) WHERE i = 2`},
		{"a deleted hash", `DELETE FROM audit_hashes WHERE i = (SELECT max(i) FROM audit_hashes)`},
		{"an entry filed under another transaction", `UPDATE audit SET tx = '' WHERE n = 3`},
		{"a step that no entry states", `UPDATE sealings SET step = 'done' WHERE seq = 1`},
		{"a condition that no entry states", `UPDATE sealings SET condition = 'ended' WHERE seq = 1`},
		{"a version that no entry states", `UPDATE sealings SET version = version + 1 WHERE seq = 1`},
		{"a sealing that points to another entry", `UPDATE sealings SET last_entry = last_entry - 1 WHERE seq = 1`},
		{"a sealing moved to another tenant", `UPDATE sealings SET tenant = 'other' WHERE seq = 1`},
		{"a deleted sealing", `PRAGMA foreign_keys = 0; DELETE FROM sealings WHERE seq = 2`},
		{"an altered checkpoint", `UPDATE checkpoints SET note = CAST(replace(CAST(note AS TEXT), 'tree', 'trEE') AS BLOB)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := busyStore(t)
			tamper(t, s, c.query)
			_, err := s.VerifyAudit(t.Context(), nil)
			var tampered *TamperedError
			if !errors.As(err, &tampered) {
				t.Fatalf("got %v, want a *TamperedError", err)
			}
		})
	}
}

func TestATestimonyThatWasRewrittenWithTheKeyIsNoticed(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	key, err := s.dataKey(t.Context(), sl.Tx)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := testimony{Who: "someone else"}.salted()
	if err != nil {
		t.Fatal(err)
	}
	tamper(t, s, `UPDATE audit SET private = $1 WHERE n = 1`, box(key.rows, privateContext(1), forged))
	var tampered *TamperedError
	if _, err := s.VerifyAudit(t.Context(), nil); !errors.As(err, &tampered) || tampered.Index != 1 {
		t.Errorf("VerifyAudit: %v", err)
	}
	if _, err := s.Trail(t.Context(), sl.Tx); !errors.As(err, &tampered) {
		t.Errorf("Trail: %v", err)
	}
}

func TestARewrittenLogIsNoticedByACheckpointFromElsewhere(t *testing.T) {
	s, _ := busyStore(t)
	kept, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Someone with the database and the master key starts over: the log verifies by itself.
	tamper(t, s, `DELETE FROM audit; DELETE FROM audit_hashes; DELETE FROM checkpoints; DELETE FROM record_ids; DELETE FROM known; DELETE FROM sealings`)
	one(t, s, "006C")
	verified(t, s)
	if _, err := s.VerifyAudit(t.Context(), kept); err == nil || !strings.Contains(err.Error(), "checkpoint") {
		t.Fatalf("held against the old checkpoint: %v", err)
	}
	for n := len("006D"); query[int](t, s, `SELECT max(n) FROM audit`) < 60; n++ {
		one(t, s, strings.Repeat("0", n)) // longer than before, but other entries
	}
	if _, err := s.VerifyAudit(t.Context(), kept); err == nil || !strings.Contains(err.Error(), "are not those of a signed checkpoint") {
		t.Fatalf("held against the old checkpoint: %v", err)
	}
}

func TestACheckpointOfAnotherLogIsRefused(t *testing.T) {
	s, _ := busyStore(t)
	other, _ := newStore(t)
	foreign, err := other.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, old := range map[string][]byte{"foreign": foreign, "empty": {}, "long": bytes.Repeat([]byte("x"), maxCheckpoint+1)} {
		if _, err := s.VerifyAudit(t.Context(), old); err == nil {
			t.Errorf("%s checkpoint accepted", name)
		}
	}
}

func TestTheTrailSaysWhoDidWhatWhenWhyWithWhichCertificate(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	c.advance(time.Second)
	sl.Condition = deal.Held
	if err := s.Advance(t.Context(), sl, deal.Entry{Who: "anna", What: "held", Why: "amount differs", Cert: "c0ffee"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Trail(t.Context(), sl.Tx)
	want := []deal.TrailLine{
		{Index: 1, At: start, Who: "daemon", What: "noticed", Step: deal.Noticed},
		{Index: 2, At: start.Add(time.Second), Who: "anna", What: "held", Why: "amount differs", Cert: "c0ffee", Step: deal.Noticed},
	}
	if err != nil || !cmp.Equal(got, want) {
		t.Fatalf("%v %s", err, cmp.Diff(want, got))
	}
}

func TestCloseLeavesACheckpointOfEverything(t *testing.T) {
	s, _ := busyStore(t)
	dir := s.dir
	head, err := s.TreeHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(dir, nil))
	if n := query[int64](t, s, `SELECT max(size) FROM checkpoints`); n != head.Size {
		t.Fatalf("the last checkpoint has %d entries, the log %d", n, head.Size)
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add("dealseal audit tree\n12\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n2026-01-02T03:04:05.000Z\n")
	f.Add("dealseal audit tree\n-1\n\n\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		hostile.Budget(t)
		if tree, _, err := parseCheckpoint(text); err == nil && tree.N < 0 {
			t.Fatalf("size %d", tree.N)
		}
	})
}
