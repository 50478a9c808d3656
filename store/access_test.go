package store

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/google/go-cmp/cmp"
)

// keptDeal is a sealing in the archive.
func keptDeal(t *testing.T, s *Store) *deal.Sealing {
	t.Helper()
	sl := one(t, s, "006A")
	toSealed(t, s, sl, "%PDF the contract")
	folder, err := s.Keep(t.Context(), sl, contractName, map[string][]byte{"report.json": []byte("{}"), "signature.p7s": []byte("cms")})
	if err != nil {
		t.Fatal(err)
	}
	sl.Step, sl.Facts.Archive = deal.Kept, folder
	advance(t, s, sl, "archived")
	return sl
}

func TestWhoLooksAtADealIsInTheAuditLog(t *testing.T) {
	s, _ := newStore(t)
	sl := keptDeal(t, s)
	if p, err := s.Values(t.Context(), sl.Tx, "alice"); err != nil || p.FileName != private+".pdf" {
		t.Fatalf("%+v, %v", p, err)
	}
	for name, want := range map[string]string{contractName: private + ".pdf", "evidence/report.json": string(sl.Tx) + " report.json"} {
		f, err := s.Fetch(t.Context(), sl.Tx, name, "bob")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(f.Open()); f.Name != want || err != nil || int64(len(b)) != f.Length {
			t.Errorf("%s: named %s, %d bytes, %v", name, f.Name, len(b), err)
		}
		f.Close()
	}
	story, err := s.Story(t.Context(), sl.Tx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range story.Trail[len(story.Trail)-3:] {
		got = append(got, l.Who+" "+l.What)
	}
	if d := cmp.Diff([]string{"alice viewed", "bob downloaded", "bob downloaded"}, got); d != "" {
		t.Error(d)
	}
	lines, err := s.Trail(t.Context(), sl.Tx)
	if err != nil || len(lines) != len(story.Trail)-3 {
		t.Errorf("%d lines go to those who receive the contract, %d are about how it was made: %v", len(lines), len(story.Trail)-3, err)
	}
	if r := verified(t, s); r.Sealings != 1 {
		t.Errorf("%+v", r)
	}
}

func TestNobodyLooksUnnamedOrAtWhatIsNotThere(t *testing.T) {
	s, _ := newStore(t)
	sl := keptDeal(t, s)
	size := verified(t, s).Head.Size
	fresh := one(t, s, "006B")
	size++ // of the fresh one
	var unknown *NotFoundError
	var absent *NotKeptError
	var mismatch *MismatchError
	for _, c := range []struct {
		name string
		err  error
		as   any
	}{
		{"unknown deal", second(s.Values(t.Context(), "aaaaaaaaaaaaaaaaaaaaaaaaaa", "x")), &unknown},
		{"not archived", second(s.Fetch(t.Context(), fresh.Tx, contractName, "x")), &absent},
		{"no such file", second(s.Fetch(t.Context(), sl.Tx, "evidence/other", "x")), &mismatch},
		{"a path", second(s.Fetch(t.Context(), sl.Tx, "../manifest.json", "x")), &mismatch},
	} {
		if !errors.As(c.err, c.as) {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
	if _, err := s.Fetch(t.Context(), sl.Tx, contractName, ""); err == nil {
		t.Error("somebody without a name got the contract")
	}
	if got := verified(t, s).Head.Size; got != size {
		t.Errorf("%d entries, want %d: nothing was looked at", got, size)
	}
	if err := s.Witness(t.Context(), "", deal.Entry{Who: "alice", What: "logged-in"}); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestAnErasedDealShowsNothing(t *testing.T) {
	s, _ := newStore(t)
	sl := keptDeal(t, s)
	if _, err := s.Values(t.Context(), sl.Tx, "alice"); err != nil {
		t.Fatal(err)
	}
	sl = load(t, s, sl.Tx)
	sl.Condition = deal.Held
	advance(t, s, sl, "held")
	if err := s.Erase(t.Context(), sl.Tx, "alice", "asked for"); err != nil {
		t.Fatal(err)
	}
	var erased *ErasedError
	if _, err := s.Values(t.Context(), sl.Tx, "bob"); !errors.As(err, &erased) {
		t.Errorf("values: %v", err)
	}
	if _, err := s.Fetch(t.Context(), sl.Tx, contractName, "bob"); !errors.As(err, &erased) {
		t.Errorf("contract: %v", err)
	}
	story, err := s.Story(t.Context(), sl.Tx)
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, l := range story.Trail {
		seen = seen || l.What == entryViewed && l.Who == "alice"
	}
	if !seen {
		t.Error("it is forgotten who has looked at it")
	}
}

func TestTheArchivesFilesAreListedContractFirst(t *testing.T) {
	s, _ := newStore(t)
	sl := keptDeal(t, s)
	list, err := s.KeptFiles(sl.Facts.Archive)
	var names []string
	for _, f := range list {
		names = append(names, f.Name)
	}
	if d := cmp.Diff([]string{contractName, "evidence/report.json", "evidence/signature.p7s"}, names); d != "" || err != nil {
		t.Error(d, err)
	}
	if list, err := s.KeptFiles("acme/2020/01/" + string(sl.Tx)); list != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is gone: %v, %v", list, err)
	}
}

func proofOf(t *testing.T, s *Store, tx deal.TxID) []byte {
	t.Helper()
	b, err := s.Proof(t.Context(), tx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAProofHoldsWithoutTheLogAndSaysWhatTheLogSays(t *testing.T) {
	s, c := newStore(t)
	one(t, s, "006other")
	sl := keptDeal(t, s)
	one(t, s, "006another")
	before, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := proofOf(t, s, sl.Tx)
	p, err := CheckProof(text, before)
	if err != nil {
		t.Fatal(err)
	}
	story, err := s.Story(t.Context(), sl.Tx)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(story.Trail, p.Entries); d != "" {
		t.Error(d)
	}
	head := verified(t, s).Head
	if p.Tx != sl.Tx || p.Size != head.Size || p.Root != head.Root || !p.At.Equal(c.now) {
		t.Errorf("%+v, the log is %+v", p, head)
	}
	other, _ := newStore(t)
	foreign, err := other.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckProof(text, foreign); err == nil {
		t.Error("a checkpoint of another log agrees")
	}
}

func TestAnAlteredProofDoesNotHold(t *testing.T) {
	s, _ := newStore(t)
	sl := keptDeal(t, s)
	one(t, s, "006B")
	text := proofOf(t, s, sl.Tx)
	spoil := func(change func(*Proof)) []byte {
		var p Proof
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		change(&p)
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"a word of a leaf":    spoil(func(p *Proof) { p.Entries[2].Leaf = strings.Replace(p.Entries[2].Leaf, `"what":"`, `"what":"x`, 1) }),
		"a testimony":         spoil(func(p *Proof) { p.Entries[1].Testimony[len(p.Entries[1].Testimony)-3] ^= 1 }),
		"a short testimony":   spoil(func(p *Proof) { p.Entries[1].Testimony = []byte("x") }),
		"a hash":              spoil(func(p *Proof) { p.Entries[0].Path[0][0] ^= 1 }),
		"another transaction": spoil(func(p *Proof) { p.Tx = "aaaaaaaaaaaaaaaaaaaaaaaaaa" }),
		"the order":           spoil(func(p *Proof) { p.Entries[0], p.Entries[1] = p.Entries[1], p.Entries[0] }),
		"an entry twice":      spoil(func(p *Proof) { p.Entries = append(p.Entries[:1:1], p.Entries...) }),
		"no entries":          spoil(func(p *Proof) { p.Entries = nil }),
		"the size":            spoil(func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "tree\n", "tree\n1", 1) }),
		"the key":             spoil(func(p *Proof) { p.Key = "x" }),
		"the form":            spoil(func(p *Proof) { p.Form = "2" }),
		"cut":                 text[:len(text)/2],
		"too much":            make([]byte, MaxProof+1),
	} {
		var no *ProofError
		if _, err := CheckProof(b, nil); !errors.As(err, &no) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCheckProof(f *testing.F) {
	f.Add([]byte(`{"form":"dealseal audit proof 1","tx":"a","key":"k+1+x","checkpoint":"","entries":[{"leaf":"{}","path":[]}]}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		hostile.Budget(t)
		if p, err := CheckProof(text, nil); err == nil && len(p.Entries) == 0 {
			t.Error("nothing is proven")
		}
	})
}
