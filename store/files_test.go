package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store/archive"
	"github.com/google/go-cmp/cmp"
)

func content(t *testing.T, f *File) string {
	t.Helper()
	defer f.Close()
	b, err := io.ReadAll(f.Open())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAStagedDocumentComesBackWholeAndEncrypted(t *testing.T) {
	for name, pages := range map[string]int{"held": 50_000, "read as needed": heldPlain/5 + 1} { // several chunks of age
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			sl := one(t, s, "006A")
			text := strings.Repeat("page ", pages)
			fact := stage(t, s, sl.Tx, "unsigned.pdf", text)
			f, err := s.OpenStaged(t.Context(), sl.Tx, "unsigned.pdf", fact)
			if err != nil {
				t.Fatal(err)
			}
			if f.MediaType != "application/pdf" || f.Name != "unsigned.pdf" || f.SHA256 != fact.SHA256 || f.MD5 != fact.MD5 || f.Size() != fact.Size {
				t.Errorf("%+v does not match %+v", f.File, fact)
			}
			if content(t, f) != text {
				t.Error("the content differs")
			}
			stored, err := os.ReadFile(filepath.Join(s.dir, "staging", string(sl.Tx), "unsigned.pdf.age"))
			if err != nil || bytes.Contains(stored, []byte("page page")) {
				t.Errorf("stored in plain text, %v", err)
			}
			if err := s.Unstage(t.Context(), sl.Tx); err != nil {
				t.Fatal(err)
			}
			if _, err := s.OpenStaged(t.Context(), sl.Tx, "unsigned.pdf", fact); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after Unstage: %v", err)
			}
		})
	}
}

// isStaged reports whether anything of a sealing is staged.
func isStaged(t *testing.T, s *Store, tx deal.TxID) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(s.dir, "staging", string(tx)))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestStagedDocumentsGoWithADealThatEnds(t *testing.T) {
	s, _ := newStore(t)
	dropped, voided, held := one(t, s, "006A"), one(t, s, "006B"), one(t, s, "006C")
	for _, sl := range []*deal.Sealing{dropped, voided, held} {
		stage(t, s, sl.Tx, "unsigned.pdf", private)
		sl.Condition = deal.Held
		advance(t, s, sl, "held")
	}
	if err := s.Drop(t.Context(), dropped.Tx, "anna", "not wanted"); err != nil {
		t.Fatal(err)
	}
	voided.Condition = deal.Ended
	advance(t, s, voided, "voided")
	for sl, want := range map[*deal.Sealing]bool{dropped: false, voided: false, held: true} {
		if got := isStaged(t, s, sl.Tx); got != want {
			t.Errorf("%s (%s): staged %t, want %t", sl.Change.Ref.ID, sl.Reason, got, want)
		}
	}
}

func TestAStartSweepsWhatCrashesLeftStaged(t *testing.T) {
	s, c := newStore(t)
	done, ended, running := one(t, s, "006A"), one(t, s, "006B"), one(t, s, "006C")
	done.Step, ended.Condition = deal.Done, deal.Ended
	advance(t, s, done, "done")
	advance(t, s, ended, "voided")
	var fact deal.FileFact
	for _, sl := range []*deal.Sealing{done, ended, running} {
		fact = stage(t, s, sl.Tx, "unsigned.pdf", "text")
	}
	staging := filepath.Join(s.dir, "staging")
	half := filepath.Join(staging, string(running.Tx), "contract.pdf.age.unfinished")
	foreign := filepath.Join(staging, "lost+found")
	unknown := filepath.Join(staging, strings.Repeat("a", 26))
	if err := errors.Join(os.WriteFile(half, []byte("half"), 0o600), os.Mkdir(foreign, 0o700), os.Mkdir(unknown, 0o700)); err != nil {
		t.Fatal(err)
	}
	dir := s.dir
	s.release()
	s = open(t, options(dir, c.Now))
	if isStaged(t, s, done.Tx) || isStaged(t, s, ended.Tx) {
		t.Error("documents of finished deals are left")
	}
	f, err := s.OpenStaged(t.Context(), running.Tx, "unsigned.pdf", fact)
	if err != nil || content(t, f) != "text" {
		t.Errorf("the document of a deal under way is lost: %v", err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a half-written file is left: %v", err)
	}
	for _, name := range []string{foreign, unknown} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("what the ledger does not know is gone: %v", err)
		}
	}
}

func TestAFailedStageLeavesTheEarlierDocument(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	fact := stage(t, s, sl.Tx, "a.pdf", "good")
	broken := errors.New("render failed")
	_, err := s.Stage(t.Context(), sl.Tx, "a.pdf", func(w io.Writer) error {
		io.WriteString(w, "half")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	f, err := s.OpenStaged(t.Context(), sl.Tx, "a.pdf", fact)
	if err != nil || content(t, f) != "good" {
		t.Fatalf("the earlier document is lost: %v", err)
	}
}

func TestAStagedDocumentThatIsNotTheCommittedOneIsRefused(t *testing.T) {
	s, _ := newStore(t)
	a, b := one(t, s, "006A"), one(t, s, "006B")
	fact := stage(t, s, a.Tx, "a.pdf", "the contract")
	stage(t, s, b.Tx, "a.pdf", "the contract")
	path := func(tx deal.TxID) string { return filepath.Join(s.dir, "staging", string(tx), "a.pdf.age") }
	good, err := os.ReadFile(path(a.Tx))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(path(b.Tx))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for name, bytes := range map[string][]byte{"truncated": good[:len(good)-1], "flipped": flipped, "of another deal": foreign, "empty": {}} {
		if err := os.WriteFile(path(a.Tx), bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		var mismatch *MismatchError
		if _, err := s.OpenStaged(t.Context(), a.Tx, "a.pdf", fact); !errors.As(err, &mismatch) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	stage(t, s, a.Tx, "a.pdf", "the contrast")
	var mismatch *MismatchError
	if _, err := s.OpenStaged(t.Context(), a.Tx, "a.pdf", fact); !errors.As(err, &mismatch) {
		t.Errorf("another content under the same key: got %v", err)
	}
}

func TestStagedNamesCannotLeaveTheirFolder(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	for _, name := range []string{"", "../x", "a/b", ".hidden", "a\x00"} {
		if _, err := s.Stage(t.Context(), sl.Tx, name, func(io.Writer) error { return nil }); err == nil {
			t.Errorf("%q accepted", name)
		}
	}
	if err := s.Unstage(t.Context(), "../.."); err == nil {
		t.Error("a path was accepted as a transaction")
	}
}

func keep(t *testing.T, s *Store, sl *deal.Sealing) string {
	t.Helper()
	folder, err := s.Keep(t.Context(), sl, contractName, map[string][]byte{"cms.der": []byte("cms"), "report.json": []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestAKeptContractCanBeReadFromItsFolder(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	toSealed(t, s, sl, "the contract")
	folder := keep(t, s, sl)
	if want := "acme/2026/03/" + string(sl.Tx); folder != want {
		t.Fatalf("folder %s, want %s", folder, want)
	}
	for name, want := range map[string]string{"contract.pdf": "the contract", "evidence/cms.der": "cms", "evidence/report.json": "{}"} {
		f, err := s.OpenKept(t.Context(), folder, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, f); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	m, err := s.archive.Read(folder, s.master.manifest)
	if err != nil {
		t.Fatal(err)
	}
	if m.Retention != "commercial-10y" || m.LegalHold || m.DeleteAfter != nil || m.Tree.Size == 0 || len(m.Files) != 3 || m.Version != archive.Version {
		t.Errorf("manifest %+v", m)
	}
}

func TestKeepingTwiceKeepsOnce(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	toSealed(t, s, sl, "the contract")
	folder := keep(t, s, sl)
	manifest := filepath.Join(s.dir, "archive", folder, "manifest.json")
	before, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	c.advance(time.Hour)
	if again := keep(t, s, sl); again != folder {
		t.Fatalf("second folder %s", again)
	}
	after, err := os.ReadFile(manifest)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the kept manifest was rewritten, %v", err)
	}
	other := stage(t, s, sl.Tx, contractName, "another contract")
	sl.Facts.Contract = &other
	var conflict *archive.ConflictError
	if _, err := s.Keep(t.Context(), sl, contractName, nil); !errors.As(err, &conflict) {
		t.Fatalf("another contract under the same transaction: %v", err)
	}
}

func TestKeepRefusesWhatWasNotCommitted(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	var refused *RefusedError
	if _, err := s.Keep(t.Context(), sl, contractName, nil); !errors.As(err, &refused) {
		t.Errorf("without a contract: %v", err)
	}
	toSealed(t, s, sl, "the contract")
	stage(t, s, sl.Tx, contractName, "replaced on disk")
	var mismatch *MismatchError
	if _, err := s.Keep(t.Context(), sl, contractName, nil); !errors.As(err, &mismatch) {
		t.Errorf("another file: %v", err)
	}
}

func kept(t *testing.T, s *Store, record string) *deal.Sealing {
	t.Helper()
	sl := one(t, s, record)
	toSealed(t, s, sl, "contract of "+record)
	sl.Facts.Archive = keep(t, s, sl)
	sl.Step = deal.Kept
	advance(t, s, sl, "kept")
	return sl
}

func TestRecoverRebuildsALostLedger(t *testing.T) {
	s, c := newStore(t)
	lost := kept(t, s, "006A")
	dir := s.dir
	s.Close()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, databaseName+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	c.advance(time.Hour)
	s = open(t, options(dir, c.Now))
	if s.Epoch().IsZero() {
		t.Error("a new database beside an archive begins no epoch")
	}
	var folders []string
	report := func(folder string, _ deal.TxID, err error) {
		if err != nil {
			t.Errorf("%s: %v", folder, err)
		}
		folders = append(folders, folder)
	}
	for range 2 {
		if err := s.Recover(t.Context(), report); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{lost.Facts.Archive}; !cmp.Equal(folders, want) {
		t.Fatalf("reported %v, want %v", folders, want)
	}
	got := load(t, s, lost.Tx)
	if got.Step != deal.Kept || got.Condition != deal.Running || !got.Facts.Signature || got.Facts.Archive != lost.Facts.Archive || !cmp.Equal(got.Private, lost.Private) || !got.Noticed.Equal(lost.Noticed) {
		t.Fatalf("recovered %+v", got)
	}
	if r := receipt(t, s, lost.Tx); r.Owner != lost.Tx || r.Due() {
		t.Errorf("the record is told before it was looked at: %+v", r)
	}
	activate(t, s, acme, ruleA)
	if fresh := notice(t, s, change("006A", "h1")); len(fresh) != 0 {
		t.Fatalf("a recovered entry is fresh: %v", fresh)
	}
	if n := query[int](t, s, `SELECT count(*) FROM jobs WHERE kind = 'seal'`); n != 1 {
		t.Errorf("%d jobs for the recovered sealing, want 1", n)
	}
	verified(t, s)
}

func TestTheDocumentsOfARecoveredDealCanBeRead(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	toSealed(t, s, sl, "the contract")
	if _, err := s.Keep(t.Context(), sl, contractName, map[string][]byte{"audit-trail.pdf": []byte("the trail")}); err != nil {
		t.Fatal(err)
	}
	dir := s.dir
	s.Close()
	if err := errors.Join(os.Remove(filepath.Join(dir, databaseName)), os.RemoveAll(filepath.Join(dir, "staging"))); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(dir, c.Now))
	if err := s.Recover(t.Context(), func(_ string, _ deal.TxID, err error) {
		if err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	folder := load(t, s, sl.Tx).Facts.Archive
	for name, want := range map[string]string{"contract.pdf": "the contract", "evidence/audit-trail.pdf": "the trail"} {
		f, err := s.OpenKept(t.Context(), folder, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f.MediaType != "application/pdf" || f.Name != filepath.Base(name) {
			t.Errorf("%s is called %q, of type %s", name, f.Name, f.MediaType)
		}
		if got := content(t, f); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
}

func TestRecoverBringsAnOlderLedgerForward(t *testing.T) {
	s, c := newStore(t)
	sl := one(t, s, "006A")
	dir := s.dir
	old := backup(t, s)
	toSealed(t, s, sl, "the contract")
	folder := keep(t, s, sl)
	s.release()
	s = restore(t, dir, old, c.Now)
	before := receipt(t, s, sl.Tx)
	if got := load(t, s, sl.Tx); got.Step != deal.Noticed {
		t.Fatalf("the backup has the sealing at %s", got.Step)
	}
	if err := s.Recover(t.Context(), func(_ string, _ deal.TxID, err error) {
		if err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if after := receipt(t, s, sl.Tx); after != before {
		t.Errorf("the record is told before it was looked at: %+v, before %+v", after, before)
	}
	if got := load(t, s, sl.Tx); got.Step != deal.Kept || got.Facts.Archive != folder || string(got.Private.Value) != "signature" {
		t.Fatalf("recovered %+v", got)
	}
	verified(t, s)
}

func TestRecoverLeavesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		given func(t *testing.T, s *Store, sl *deal.Sealing)
		want  error // what is reported
	}{
		"a sealing whose step is under way": {func(t *testing.T, s *Store, sl *deal.Sealing) {
			if err := s.Begin(otherJob(t, s), sl, deal.Intent{Step: sl.Step, What: "keep", Lease: time.Minute}); err != nil {
				t.Fatal(err)
			}
		}, deal.ErrStale},
		"a sealing that a person has dropped": {func(t *testing.T, s *Store, sl *deal.Sealing) {
			sl.Condition = deal.Dead
			advance(t, s, sl, "stopped")
			if err := s.Drop(t.Context(), sl.Tx, "anna", "not wanted"); err != nil {
				t.Fatal(err)
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStore(t)
			sl := one(t, s, "006A")
			toSealed(t, s, sl, "the contract")
			keep(t, s, sl) // and the ledger does not learn of it
			c.given(t, s, sl)
			before := load(t, s, sl.Tx)
			var reported []error
			if err := s.Recover(t.Context(), func(_ string, _ deal.TxID, err error) { reported = append(reported, err) }); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(before, load(t, s, sl.Tx)); d != "" {
				t.Error(d)
			}
			if (c.want == nil) != (len(reported) == 0) || !errors.Is(errors.Join(reported...), c.want) {
				t.Errorf("reported %v, want %v", reported, c.want)
			}
			verified(t, s)
		})
	}
}

func TestRecoverReportsAForgedManifestAndGoesOn(t *testing.T) {
	s, _ := newStore(t)
	a, b := kept(t, s, "006A"), kept(t, s, "006B")
	name := filepath.Join(s.dir, "archive", a.Facts.Archive, "manifest.json")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, bytes.Replace(text, []byte(`"legal_hold":false`), []byte(`"legal_hold":true `), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	tamper(t, s, `DELETE FROM known WHERE tx IN ($1, $2)`, a.Tx, b.Tx)
	tamper(t, s, `DELETE FROM data_keys`)
	tamper(t, s, `DELETE FROM digests`)
	tamper(t, s, `DELETE FROM record_ids`)
	tamper(t, s, `DELETE FROM sealings`)
	tamper(t, s, `DELETE FROM receipts`)
	errs := map[string]error{}
	if err := s.Recover(t.Context(), func(folder string, _ deal.TxID, err error) { errs[folder] = err }); err != nil {
		t.Fatal(err)
	}
	if errs[a.Facts.Archive] == nil || !strings.Contains(errs[a.Facts.Archive].Error(), "altered") {
		t.Errorf("forged: %v", errs[a.Facts.Archive])
	}
	if err, ok := errs[b.Facts.Archive]; err != nil || !ok {
		t.Errorf("genuine: %v, %v", err, ok)
	}
}

func TestALegalHoldThatComesBeforeAnErasureIsKept(t *testing.T) {
	s, _ := newStore(t)
	sl := kept(t, s, "006A")
	for _, step := range []deal.Step{deal.Attached, deal.Reported, deal.Done} {
		sl.Step = step
		advance(t, s, sl, string(step))
	}
	erased := make(chan error, 1)
	// Whoever is asked to erase finds this change before its own, and cannot see yet what it makes.
	err := s.update(t.Context(), "commit/operate", func(hold *txn) error {
		go func() { erased <- s.Erase(t.Context(), sl.Tx, "anna", "asked to") }()
		for waiting := 0; waiting == 0; runtime.Gosched() {
			s.commits.mu.Lock()
			waiting = len(s.commits.waiting)
			s.commits.mu.Unlock()
		}
		return hold.exec(`UPDATE sealings SET legal_hold = 1 WHERE tx = $1`, sl.Tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if err := <-erased; !errors.As(err, &refused) {
		t.Errorf("erased under a legal hold: %v", err)
	}
	f, err := s.OpenKept(t.Context(), sl.Facts.Archive, contractName)
	if err != nil {
		t.Fatalf("the archive: %v", err)
	}
	f.Close()
}

func TestErasingDestroysTheKeyEverywhereAndKeepsTheProof(t *testing.T) {
	s, c := newStore(t)
	sl, other := kept(t, s, "006A"), kept(t, s, "006B")
	if err := s.Erase(t.Context(), sl.Tx, "anna", "asked to"); err == nil {
		t.Fatal("erased while it may still move")
	}
	for sl.Step != deal.Done {
		sl.Step = map[deal.Step]deal.Step{deal.Kept: deal.Attached, deal.Attached: deal.Reported, deal.Reported: deal.Done}[sl.Step]
		advance(t, s, sl, string(sl.Step))
	}
	wrapped := query[[]byte](t, s, `SELECT wrapped FROM data_keys WHERE tx = $1`, sl.Tx)
	tamper(t, s, `UPDATE sealings SET legal_hold = 1 WHERE tx = $1`, sl.Tx)
	var refused *RefusedError
	if err := s.Erase(t.Context(), sl.Tx, "anna", "asked to"); !errors.As(err, &refused) {
		t.Fatalf("under a legal hold: %v", err)
	}
	tamper(t, s, `UPDATE sealings SET legal_hold = 0 WHERE tx = $1`, sl.Tx)
	if err := s.Erase(t.Context(), sl.Tx, "anna", "asked to"); err != nil {
		t.Fatal(err)
	}
	var erased *ErasedError
	if _, err := s.OpenKept(t.Context(), sl.Facts.Archive, contractName); !errors.As(err, &erased) {
		t.Errorf("the archive: %v", err)
	}
	got := load(t, s, sl.Tx)
	if d := cmp.Diff(deal.Private{}, got.Private); d != "" {
		t.Errorf("private part: %s", d)
	}
	if err := s.Advance(t.Context(), got, deal.Entry{Who: "daemon", What: "x"}); !errors.As(err, &erased) {
		t.Errorf("Advance: %v", err)
	}
	trail, err := s.Trail(t.Context(), sl.Tx)
	if last := trail[len(trail)-1]; err != nil || last.Who != "anna" || last.What != "erased" || trail[0].Who != "" {
		t.Errorf("trail from %+v to %+v, %v", trail[0], last, err)
	}
	for _, suffix := range []string{"", "-wal"} {
		if b, err := os.ReadFile(filepath.Join(s.dir, databaseName+suffix)); err != nil || bytes.Contains(b, wrapped) {
			t.Errorf("%s still contains the key, %v", databaseName+suffix, err)
		}
	}
	if r := verified(t, s); r.Erased == 0 {
		t.Error("no entry is reported as erased")
	}
	if f, err := s.OpenKept(t.Context(), other.Facts.Archive, contractName); err != nil {
		t.Errorf("another sealing: %v", err)
	} else {
		f.Close()
	}
	dir := s.dir
	s.Close()
	os.Remove(filepath.Join(dir, databaseName))
	s = open(t, options(dir, c.Now))
	if err := s.Recover(t.Context(), func(_ string, _ deal.TxID, err error) {
		if err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got := load(t, s, sl.Tx); got.Condition != deal.Ended {
		t.Errorf("an erased sealing is recovered as %s", got.Condition)
	}
	activate(t, s, acme, ruleA)
	if fresh := notice(t, s, change("006A", "h1")); len(fresh) != 0 {
		t.Errorf("an erased entry is sealed again: %v", fresh)
	}
	verified(t, s)
}
