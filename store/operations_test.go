package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/google/go-cmp/cmp"
)

// told makes the CRM accept the newest receipt of a sealing.
func told(t *testing.T, s *Store, tx deal.TxID) {
	t.Helper()
	if err := s.Told(t.Context(), tx, receipt(t, s, tx).Sequence, 0); err != nil {
		t.Fatal(err)
	}
}

func TestPeopleDecideWithTheirNameAndReason(t *testing.T) {
	type op func(s *Store, t *testing.T, tx deal.TxID) error
	retry := func(s *Store, t *testing.T, tx deal.TxID) error {
		return s.Retry(t.Context(), tx, "anna", "CRM is back")
	}
	release := func(s *Store, t *testing.T, tx deal.TxID) error {
		return s.Release(t.Context(), tx, "re-entry", "anna", "checked")
	}
	drop := func(s *Store, t *testing.T, tx deal.TxID) error { return s.Drop(t.Context(), tx, "anna", "test deal") }
	for _, c := range []struct {
		from deal.Condition
		name string
		op   op
		to   deal.Condition // "" means refused
	}{
		{deal.Dead, "retried", retry, deal.Running}, {deal.Retrying, "retried", retry, deal.Running}, {deal.Held, "retried", retry, ""}, {deal.Running, "retried", retry, ""}, {deal.Ended, "retried", retry, ""},
		{deal.Held, "released", release, deal.Running}, {deal.Dead, "released", release, ""}, {deal.Running, "released", release, ""},
		{deal.Held, "dropped", drop, deal.Ended}, {deal.Dead, "dropped", drop, deal.Ended}, {deal.Retrying, "dropped", drop, deal.Ended}, {deal.Running, "dropped", drop, ""}, {deal.Ended, "dropped", drop, ""},
	} {
		t.Run(string(c.from)+" "+c.name, func(t *testing.T) {
			s, _ := newStore(t)
			sl := one(t, s, "006A")
			sl.Condition, sl.Reason, sl.Attempts, sl.Next = c.from, "because", 5, start.Add(time.Hour)
			advance(t, s, sl, "so")
			told(t, s, sl.Tx)
			err := c.op(s, t, sl.Tx)
			got := load(t, s, sl.Tx)
			if c.to == "" {
				var refused *RefusedError
				if !errors.As(err, &refused) || got.Condition != c.from {
					t.Fatalf("got %v and %s, want it refused", err, got.Condition)
				}
				return
			}
			if err != nil || got.Condition != c.to || !got.Next.IsZero() {
				t.Fatalf("%v; now %s, next %s", err, got.Condition, got.Next)
			}
			jobs := query[int](t, s, `SELECT count(*) FROM river_job WHERE state = 'available' AND json_extract(args, '$.kind') = 'seal'`)
			if want := map[deal.Condition]int{deal.Running: 1}[c.to]; jobs != want {
				t.Errorf("%d jobs, want %d", jobs, want)
			}
			trail, err := s.Trail(t.Context(), sl.Tx)
			if last := trail[len(trail)-1]; err != nil || last.Who != "anna" || last.What != c.name || last.Why == "" {
				t.Errorf("%v, last line %+v", err, last)
			}
			if c.name == "released" && !cmp.Equal(got.Facts.Released, []string{"re-entry"}) {
				t.Errorf("released holds: %v", got.Facts.Released)
			}
			verified(t, s)
		})
	}
}

func TestPeopleMustSayWhoAndWhyAndWaitForAStepUnderWay(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	if err := s.Drop(t.Context(), sl.Tx, "anna", ""); err == nil {
		t.Error("dropped without a reason")
	}
	sl.Condition, sl.Next = deal.Retrying, start.Add(time.Hour)
	advance(t, s, sl, "so")
	if err := s.Begin(otherJob(t, s), sl, deal.Intent{Step: sl.Step, What: "gather", Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(t.Context(), sl.Tx, "anna", "test"); !errors.Is(err, deal.ErrStale) {
		t.Errorf("dropped within a lease: %v", err)
	}
}

func TestPrepareAgainGivesUpTheDigestAndBeginsAnew(t *testing.T) {
	for _, c := range []deal.Condition{deal.Held, deal.Dead, deal.Retrying} {
		t.Run(string(c), func(t *testing.T) {
			s, _ := newStore(t)
			sl := prepared(t, s, "006A")
			begin(t, s, sl, "sign", "d1")
			sl.Private.Ticket, sl.Facts.Unsigned = []byte(`{}`), &deal.FileFact{Name: "unsigned.pdf"}
			sl.Condition, sl.Reason, sl.Attempts, sl.Next = c, "the HSM did not answer", 3, start.Add(time.Hour)
			advance(t, s, sl, "stopped")
			if err := s.PrepareAgain(t.Context(), sl.Tx, "anna", "the token was reset, its log shows no signature"); err != nil {
				t.Fatal(err)
			}
			got := load(t, s, sl.Tx)
			if got.Step != deal.Noticed || got.Condition != deal.Running || got.Reason != "" || got.Attempts != 0 || !got.Next.IsZero() {
				t.Errorf("it is %s, %s (%q), %d attempts, next %s", got.Step, got.Condition, got.Reason, got.Attempts, got.Next)
			}
			if got.Facts.Digest != "" || got.Private.Ticket != nil || got.Facts.Unsigned != nil {
				t.Errorf("left of the given-up document: digest %q, ticket %s, %v", got.Facts.Digest, got.Private.Ticket, got.Facts.Unsigned)
			}
			if n := query[int](t, s, `SELECT count(*) FROM river_job WHERE state = 'available' AND json_extract(args, '$.kind') = 'seal'`); n != 1 {
				t.Errorf("%d jobs, want 1", n)
			}
			trail, err := s.Trail(t.Context(), sl.Tx)
			if last := trail[len(trail)-1]; err != nil || last.Who != "anna" || last.What != "prepared-again" || last.Why == "" {
				t.Errorf("%v, last line %+v", err, last)
			}
			var refused *RefusedError
			back := load(t, s, sl.Tx)
			back.Step, back.Facts.Digest = deal.Rendered, "d1"
			if err := s.Advance(t.Context(), back, deal.Entry{Who: "daemon", What: "prepared"}); !errors.As(err, &refused) {
				t.Errorf("the given-up digest came back: %v", err)
			}
			if err := s.Begin(t.Context(), got, deal.Intent{Step: got.Step, What: "sign", Digest: "d1", Lease: time.Minute}); !errors.As(err, &refused) {
				t.Errorf("the given-up digest may be signed: %v", err)
			}
			got.Step, got.Facts.Digest = deal.Rendered, "d2"
			advance(t, s, got, "prepared")
			begin(t, s, got, "sign", "d2")
			verified(t, s)
		})
	}
}

func TestPrepareAgainForgetsAContractThatWasFoundOnTheRecord(t *testing.T) {
	for name, given := range map[string]func(*testing.T, *Store) *deal.Sealing{
		"before a digest was committed": func(t *testing.T, s *Store) *deal.Sealing { return one(t, s, "006A") },
		"after a digest was committed":  func(t *testing.T, s *Store) *deal.Sealing { return prepared(t, s, "006A") },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			sl := given(t, s)
			sl.Facts.Record, sl.Private.Values = "read before", []byte(`{}`) // no conclusion from the file
			advance(t, s, sl, "so")
			want := load(t, s, sl.Tx)
			forged := stage(t, s, sl.Tx, contractName, "forged")
			f := &sl.Facts
			f.Contract, f.Adopted, f.Cert = &forged, true, &deal.CertFact{Subject: "somebody"}
			f.Attachment, f.AuditTrail = &deal.Attachment{ID: "1"}, &deal.Attachment{ID: "2"}
			f.Verdict, f.SecondOpinion, f.Conclusion, f.Level, f.Flagged, f.SealedAt = "valid", "valid", "TOTAL-PASSED", "B-T", "late", start
			f.Released = []string{"adopted"}
			sl.Private.FileName, sl.Private.Report = "forged.pdf", []byte(`{}`)
			sl.Step, sl.Condition, sl.Reason = deal.Sealed, deal.Held, "another key sealed it"
			advance(t, s, sl, "held")
			if err := s.PrepareAgain(t.Context(), sl.Tx, "anna", "the file was forged and is removed"); err != nil {
				t.Fatal(err)
			}
			got := load(t, s, sl.Tx)
			want.Step, want.Facts.Digest, want.Version = deal.Noticed, "", got.Version
			want.Facts.Times = got.Facts.Times
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			trail, err := s.Trail(t.Context(), sl.Tx)
			if last := trail[len(trail)-1]; err != nil || last.Who != "anna" || last.What != preparedAgain || last.Why == "" {
				t.Errorf("%v, last line %+v", err, last)
			}
			if n := query[int](t, s, `SELECT count(*) FROM river_job WHERE state = 'available' AND json_extract(args, '$.kind') = 'seal'`); n != 1 {
				t.Errorf("%d jobs, want 1", n)
			}
			if n := query[int](t, s, `SELECT count(*) FROM sealings WHERE adopted = 1`); n != 0 {
				t.Error("it still counts as adopted")
			}
			got.Step, got.Facts.Digest = deal.Rendered, "d2"
			advance(t, s, got, "prepared")
			begin(t, s, got, "sign", "d2")
			verified(t, s)
		})
	}
}

func TestPrepareAgainIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		why   string
		given func(t *testing.T, s *Store) *deal.Sealing
	}{
		"while it runs": {"because", func(t *testing.T, s *Store) *deal.Sealing { return prepared(t, s, "006A") }},
		"without a reason": {"", func(t *testing.T, s *Store) *deal.Sealing {
			sl := prepared(t, s, "006A")
			sl.Condition = deal.Held
			return sl
		}},
		"once it has ended": {"because", func(t *testing.T, s *Store) *deal.Sealing {
			sl := prepared(t, s, "006A")
			sl.Condition = deal.Ended
			return sl
		}},
		"before a digest is committed": {"because", func(t *testing.T, s *Store) *deal.Sealing {
			sl := one(t, s, "006A")
			sl.Condition = deal.Held
			return sl
		}},
		"once a signature exists": {"because", func(t *testing.T, s *Store) *deal.Sealing {
			sl := prepared(t, s, "006A")
			begin(t, s, sl, "sign", "d1")
			sl.Facts.Signature, sl.Condition = true, deal.Dead
			return sl
		}},
		"once a contract that was found on the record is accepted": {"because", func(t *testing.T, s *Store) *deal.Sealing {
			sl := prepared(t, s, "006A")
			sl.Step, sl.Facts.Adopted, sl.Condition = deal.Checked, true, deal.Held
			return sl
		}},
		"while a contract that was found on the record is tried again": {"because", func(t *testing.T, s *Store) *deal.Sealing {
			sl := prepared(t, s, "006A")
			sl.Step, sl.Facts.Adopted, sl.Condition, sl.Next = deal.Sealed, true, deal.Retrying, start.Add(time.Hour)
			return sl
		}},
		"once a contract was found although a signature exists": {"because", func(t *testing.T, s *Store) *deal.Sealing {
			sl := prepared(t, s, "006A")
			begin(t, s, sl, "sign", "d1")
			sl.Step, sl.Facts.Adopted, sl.Facts.Signature, sl.Condition = deal.Sealed, true, true, deal.Held
			return sl
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			sl := c.given(t, s)
			advance(t, s, sl, "so")
			if err := s.PrepareAgain(t.Context(), sl.Tx, "anna", c.why); err == nil {
				t.Fatal("accepted")
			}
			if got := load(t, s, sl.Tx); !cmp.Equal(sl, got) {
				t.Fatalf("the refusal left a trace: %s", cmp.Diff(sl, got))
			}
			if digest := query[int](t, s, `SELECT count(*) FROM digests WHERE superseded IS NOT NULL`); digest != 0 {
				t.Fatal("the digest was given up")
			}
		})
	}
}

func TestRetryTellsTheCRMWhatItHasNotBeenTold(t *testing.T) {
	for _, c := range []struct {
		step      deal.Step
		condition deal.Condition
		goesOn    bool
	}{
		{deal.Noticed, deal.Held, false}, {deal.Noticed, deal.Ended, false}, {deal.Done, deal.Running, false},
		{deal.Noticed, deal.Dead, true}, {deal.Kept, deal.Dead, true},
	} {
		t.Run(string(c.step)+" "+string(c.condition), func(t *testing.T) {
			s, _ := newStore(t)
			sl := one(t, s, "006A")
			sl.Step, sl.Condition = c.step, c.condition
			advance(t, s, sl, "so")
			tamper(t, s, `DELETE FROM jobs WHERE kind = 'tell'`) // the job has given up
			tamper(t, s, `DELETE FROM river_job WHERE json_extract(args, '$.kind') = 'tell'`)
			if err := s.Retry(t.Context(), sl.Tx, "anna", "the field is mended"); err != nil {
				t.Fatal(err)
			}
			if n := query[int](t, s, `SELECT count(*) FROM jobs j JOIN river_job r ON r.id = j.job WHERE j.kind = 'tell' AND r.state = 'available'`); n != 1 {
				t.Errorf("%d jobs tell the CRM, want 1", n)
			}
			got := load(t, s, sl.Tx)
			if goesOn := got.Condition == deal.Running && got.Version > sl.Version; goesOn != c.goesOn {
				t.Errorf("it is %s, version %d, was version %d", got.Condition, got.Version, sl.Version)
			}
			trail, err := s.Trail(t.Context(), sl.Tx)
			if last := trail[len(trail)-1]; err != nil || last.Who != "anna" || last.Why == "" {
				t.Errorf("%v, last line %+v", err, last)
			}
			verified(t, s)
		})
	}
}

func TestADeadSealingBeginsAnewWhenItIsRetriedUnlessItsDigestIsCommitted(t *testing.T) {
	for _, c := range []struct {
		condition deal.Condition
		step      deal.Step
		digest    string
		want      deal.Step
	}{
		{deal.Dead, deal.Gathered, "", deal.Noticed},
		{deal.Dead, deal.Rendered, "", deal.Noticed},
		{deal.Dead, deal.Rendered, "d1", deal.Rendered},
		{deal.Dead, deal.Kept, "", deal.Kept},             // a contract that was found on the record
		{deal.Retrying, deal.Gathered, "", deal.Gathered}, // goes on by itself as well
	} {
		t.Run(fmt.Sprint(c.condition, " ", c.step, " ", c.digest), func(t *testing.T) {
			s, _ := newStore(t)
			sl := one(t, s, "006A")
			sl.Step, sl.Condition, sl.Facts.Digest, sl.Next = c.step, c.condition, c.digest, sl.Noticed.Add(time.Hour)
			advance(t, s, sl, "so")
			if err := s.Retry(t.Context(), sl.Tx, "anna", "the record is mended"); err != nil {
				t.Fatal(err)
			}
			if got := load(t, s, sl.Tx); got.Step != c.want || got.Condition != deal.Running {
				t.Errorf("it is %s, %s; want to go on from %s", got.Step, got.Condition, c.want)
			}
		})
	}
}

func TestRetryIsRefusedOfWhatIsDoneAndTold(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	sl.Step = deal.Done
	advance(t, s, sl, "done")
	told(t, s, sl.Tx)
	var refused *RefusedError
	if err := s.Retry(t.Context(), sl.Tx, "anna", "why not"); !errors.As(err, &refused) {
		t.Fatalf("got %v, want it refused", err)
	}
}
