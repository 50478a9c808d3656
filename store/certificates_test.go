package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
)

const day = 24 * time.Hour

// certificate is one of key house that ends so many days after start.
func certificate(name string, days int, state deal.CertState) deal.Certificate {
	return deal.Certificate{SHA256: name, Key: "house", SPKI: "spki-" + name, Serial: "1f", Subject: "CN=House", Issuer: "CN=Issuer", Purpose: deal.PurposeSeal,
		From: start.Add(-day), Until: start.Add(time.Duration(days) * day), Chain: [][]byte{[]byte("der of " + name), []byte("issuer")}, State: state}
}

func register(t *testing.T, s *Store, all ...deal.Certificate) {
	t.Helper()
	for _, c := range all {
		if err := s.AddCertificate(t.Context(), c, "anna", ""); err != nil {
			t.Fatal(err)
		}
	}
}

// states are those of the registry, by thumbprint.
func states(t *testing.T, s *Store) map[string]deal.CertState {
	t.Helper()
	all, err := s.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]deal.CertState{}
	for _, c := range all {
		out[c.SHA256] = c.State
	}
	return out
}

// said are the audit entries about certificates, in order: what, thumbprint.
func said(t *testing.T, s *Store) (all []string) {
	t.Helper()
	for _, leaf := range queryAll[string](t, s, `SELECT json_extract(CAST(leaf AS TEXT), '$.what') || ' ' || coalesce(json_extract(CAST(leaf AS TEXT), '$.cert'), '') FROM audit WHERE CAST(leaf AS TEXT) LIKE '%certificate-%' ORDER BY n`) {
		all = append(all, leaf)
	}
	return all
}

func queryAll[T any](t *testing.T, s *Store, q string) (all []T) {
	t.Helper()
	err := s.view(t.Context(), func(t *txn) (err error) {
		all, err = column[T](t, q)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func mustRefuse(t *testing.T, err error, words string) {
	t.Helper()
	var refused *CertificateError
	if !errors.As(err, &refused) || !refused.Permanent() || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v, want it refused with %q", err, words)
	}
}

// Whoever is about to start a new version checks its configuration first, when the state is still that of the one before.
func TestTheRegistryOfAnEarlierVersionIsRead(t *testing.T) {
	s, _ := newStore(t)
	want := certificate("aa", 400, deal.CertActive)
	register(t, s, want)
	want.Since = start
	dir := s.dir
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, added := range []string{"pair", "beside_until"} {
		if _, err := db.Exec("ALTER TABLE certificates DROP COLUMN " + added); err != nil {
			t.Fatal(err)
		}
		if got, err := CertificatesIn(t.Context(), dir); err != nil || !cmp.Equal(got, []deal.Certificate{want}) {
			t.Errorf("before there was %s: %v\n%s", added, err, cmp.Diff([]deal.Certificate{want}, got))
		}
	}
}

func TestACertificateComesBackAsItWasEnteredAndAfterAReopening(t *testing.T) {
	s, clock := newStore(t)
	want := certificate("aa", 400, deal.CertActive)
	register(t, s, want)
	want.Since = start
	dir := s.dir
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := CertificatesIn(t.Context(), dir); err != nil || !cmp.Equal(got, []deal.Certificate{want}) {
		t.Errorf("without opening the state: %v\n%s", err, cmp.Diff([]deal.Certificate{want}, got))
	}
	s = open(t, options(dir, clock.Now))
	got, err := s.Certificates(t.Context())
	if err != nil || !cmp.Equal(got, []deal.Certificate{want}) {
		t.Errorf("%v\n%s", err, cmp.Diff([]deal.Certificate{want}, got))
	}
	if got, err := CertificatesIn(t.Context(), filepath.Join(t.TempDir(), "nowhere")); err != nil || len(got) != 0 {
		t.Errorf("of a directory that does not exist: %v, %v", got, err)
	}
	verified(t, s)
}

func TestAKeyHasOneActiveCertificateAndAnActivationRetiresTheOther(t *testing.T) {
	s, _ := newStore(t)
	register(t, s, certificate("aa", 400, deal.CertActive), certificate("bb", 500, deal.CertNext))
	mustRefuse(t, s.AddCertificate(t.Context(), certificate("cc", 400, deal.CertActive), "anna", ""), `key "house" has an active certificate, aa`)
	mustRefuse(t, s.AddCertificate(t.Context(), certificate("bb", 500, deal.CertNext), "anna", ""), "in the registry already: next")
	mustRefuse(t, s.ActivateCertificate(t.Context(), "house", "aa", time.Time{}, time.Time{}, "anna", "so"), "active already")
	mustRefuse(t, s.ActivateCertificate(t.Context(), "other", "bb", time.Time{}, time.Time{}, "anna", "so"), `no such certificate for key "other"`)
	mustRefuse(t, s.ActivateCertificate(t.Context(), "house", "bb", time.Time{}, time.Time{}, "anna", ""), "say who and why")
	if err := s.ActivateCertificate(t.Context(), "house", "bb", time.Time{}, time.Time{}, "anna", "renewed"); err != nil {
		t.Fatal(err)
	}
	if got := states(t, s); got["aa"] != deal.CertRetiring || got["bb"] != deal.CertActive {
		t.Errorf("%v", got)
	}
	// The way back is the same, and is not for a later time.
	mustRefuse(t, s.ActivateCertificate(t.Context(), "house", "aa", start.Add(day), time.Time{}, "anna", "so"), "only a next one")
	if err := s.ActivateCertificate(t.Context(), "house", "aa", time.Time{}, time.Time{}, "anna", "the new one is not trusted"); err != nil {
		t.Fatal(err)
	}
	if err := s.RetireCertificate(t.Context(), "house", "aa", "anna", "the key is given up"); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, s.RetireCertificate(t.Context(), "house", "aa", "anna", "again"), "retiring already")
	want := []string{"certificate-adopted aa", "certificate-imported bb", "certificate-retired aa", "certificate-activated bb",
		"certificate-retired bb", "certificate-activated aa", "certificate-retired aa"}
	if got := said(t, s); !slices.Equal(got, want) {
		t.Errorf("the audit log says\n%q, want\n%q", got, want)
	}
	verified(t, s)
}

func TestANextCertificateBecomesActiveAtItsTimeAlsoAfterARestart(t *testing.T) {
	s, clock := newStore(t)
	register(t, s, certificate("aa", 400, deal.CertActive), certificate("bb", 500, deal.CertNext), certificate("cc", 500, deal.CertNext))
	for name, at := range map[string]time.Time{"bb": start.Add(2 * day), "cc": start.Add(day)} {
		if err := s.ActivateCertificate(t.Context(), "house", name, at, time.Time{}, "anna", "rollover"); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.ActivateDue(t.Context()); n != 0 || err != nil {
		t.Fatalf("%d due at once, %v", n, err)
	}
	clock.advance(3 * day)
	s.release()
	s = open(t, options(s.dir, clock.Now))
	all, err := s.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := deal.ActiveCertificate(all, "house", clock.now); got.SHA256 != "bb" {
		t.Errorf("%s is to be used before it is written down, want bb", got.SHA256)
	}
	if n, err := s.ActivateDue(t.Context()); n != 2 || err != nil {
		t.Fatalf("%d due, %v", n, err)
	}
	if got := states(t, s); got["aa"] != deal.CertRetiring || got["cc"] != deal.CertRetiring || got["bb"] != deal.CertActive {
		t.Errorf("%v", got)
	}
	if n, err := s.ActivateDue(t.Context()); n != 0 || err != nil {
		t.Errorf("%d due again, %v", n, err)
	}
	verified(t, s)
}

func TestARevokedCertificateIsNeverUsedAgainUnderAnyKey(t *testing.T) {
	s, _ := newStore(t)
	other := certificate("aa", 400, deal.CertNext)
	other.Key = "other"
	register(t, s, certificate("aa", 400, deal.CertActive), other)
	fresh, err := s.RevokeCertificate(t.Context(), "aa", "daemon", "revoked at noon")
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	if fresh, err := s.RevokeCertificate(t.Context(), "aa", "daemon", "revoked at noon"); err != nil || fresh {
		t.Errorf("again: %v, %v", fresh, err)
	}
	all, err := s.Certificates(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for _, c := range all {
		if c.State != deal.CertRevoked || c.Answer != deal.AnswerRevoked || c.Detail != "revoked at noon" {
			t.Errorf("%+v", c)
		}
	}
	mustRefuse(t, s.ActivateCertificate(t.Context(), "house", "aa", time.Time{}, time.Time{}, "anna", "so"), "never used again")
	mustRefuse(t, s.RetireCertificate(t.Context(), "house", "aa", "anna", "so"), "revoked already")
	third := certificate("aa", 400, deal.CertNext)
	third.Key = "third"
	mustRefuse(t, s.AddCertificate(t.Context(), third, "anna", ""), "revoked, for key")
	// A check that was under way brings it back no more than a person does.
	if err := s.NoteCertificateCheck(t.Context(), "aa", deal.AnswerGood, ""); err != nil || states(t, s)["aa"] != deal.CertRevoked {
		t.Errorf("%v", err)
	}
	if got, want := said(t, s), []string{"certificate-adopted aa", "certificate-imported aa", "certificate-revoked aa", "certificate-revoked aa"}; !slices.Equal(got, want) {
		t.Errorf("the audit log says %q", got)
	}
	verified(t, s)
}

func TestACertificatesEndIsToldOnceAtEachNumberOfDays(t *testing.T) {
	s, clock := newStore(t)
	days := []int{60, 30, 14, 7, 1}
	register(t, s, certificate("aa", 100, deal.CertActive), certificate("bb", 45, deal.CertNext), certificate("old", 20, deal.CertNext))
	if err := s.RetireCertificate(t.Context(), "house", "old", "anna", "never used"); err != nil {
		t.Fatal(err)
	}
	var got []string
	tell := func(after time.Duration) {
		t.Helper()
		clock.advance(after)
		s.release()
		s = open(t, options(s.dir, clock.Now))
		for range 2 {
			told, err := s.TellCertificateEnds(t.Context(), days)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range told {
				got = append(got, c.SHA256+" "+time.Duration(c.Days).String())
			}
		}
	}
	tell(0)         // bb has 45 days
	tell(20 * day)  // 80 and 25
	tell(20 * day)  // 60 and 5: 14 and 7 have passed unseen
	tell(5 * day)   // 55 and 0
	tell(54 * day)  // 1
	tell(100 * day) // over
	want := []string{"bb 60ns", "bb 30ns", "aa 60ns", "bb 7ns", "bb 1ns", "aa 1ns"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if n := len(slices.DeleteFunc(said(t, s), func(e string) bool { return !strings.HasPrefix(e, "certificate-expiring") })); n != len(want) {
		t.Errorf("%d entries, want %d", n, len(want))
	}
	verified(t, s)
}

func TestWhatCameOfACheckIsKept(t *testing.T) {
	s, clock := newStore(t)
	register(t, s, certificate("aa", 400, deal.CertActive))
	look := func() deal.Certificate {
		t.Helper()
		all, err := s.Certificates(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	if err := s.NoteCertificateCheck(t.Context(), "aa", deal.AnswerGood, "ocsp.example"); err != nil {
		t.Fatal(err)
	}
	clock.advance(day)
	if err := s.NoteCertificateCheck(t.Context(), "aa", deal.AnswerUnreachable, "no route"); err != nil {
		t.Fatal(err)
	}
	if c := look(); c.Answer != deal.AnswerUnreachable || !c.Answered.Equal(start) || !c.Checked.Equal(start.Add(day)) || c.Detail != "no route" || c.State != deal.CertActive {
		t.Errorf("%+v", c)
	}
}

func TestASignatureThatIsNoDocumentHasItsDigestInTheLog(t *testing.T) {
	s, _ := newStore(t)
	if err := s.AuditKeyUse(t.Context(), "certificate-requested", "house", "spki", "d1e57", "anna", "CN=House"); err != nil {
		t.Fatal(err)
	}
	if got := queryAll[string](t, s, `SELECT json_extract(CAST(leaf AS TEXT), '$.key') || ' ' || json_extract(CAST(leaf AS TEXT), '$.digest') FROM audit WHERE CAST(leaf AS TEXT) LIKE '%certificate-requested%'`); !slices.Equal(got, []string{"spki d1e57"}) {
		t.Errorf("%q", got)
	}
	verified(t, s)
}

func TestTheRegistryIsInABackup(t *testing.T) {
	s, clock := newStore(t)
	register(t, s, certificate("aa", 400, deal.CertActive), certificate("bb", 500, deal.CertNext))
	if err := s.ActivateCertificate(t.Context(), "house", "bb", start.Add(day), time.Time{}, "anna", "rollover"); err != nil {
		t.Fatal(err)
	}
	before, err := s.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := backUp(t, s, BackupOptions{})
	to := filepath.Join(t.TempDir(), "restored")
	if _, err := Restore(t.Context(), bytes.NewReader(file), restoreOptions(to)); err != nil {
		t.Fatal(err)
	}
	restored := open(t, options(to, clock.Now))
	after, err := restored.Certificates(t.Context())
	if err != nil || !cmp.Equal(before, after) {
		t.Errorf("%v\n%s", err, cmp.Diff(before, after))
	}
}

const lifeOfCertificates = "certificates"

// certificatesLife takes a key through all that can be decided about its certificates, from wherever an earlier life has
// left it.
func certificatesLife(ctx context.Context, dir string, hook func(string)) (err error) {
	s, err := Open(ctx, Options{Dir: dir, MasterKey: options("", nil).MasterKey, Hook: hook})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for ctx.Err() == nil {
		all, err := s.Certificates(ctx)
		if err != nil {
			return err
		}
		known := map[string]deal.Certificate{}
		for _, c := range all {
			known[c.SHA256] = c
		}
		switch a, b, c := known["aa"], known["bb"], known["cc"]; {
		case a.State == "":
			err = s.AddCertificate(ctx, certificate("aa", 400, deal.CertActive), "anna", "")
		case b.State == "":
			err = s.AddCertificate(ctx, certificate("bb", 500, deal.CertNext), "anna", "")
		case b.State == deal.CertNext && b.ActivateAt.IsZero():
			err = s.ActivateCertificate(ctx, "house", "bb", time.Now().Add(time.Hour), time.Time{}, "anna", "rollover")
		case b.State == deal.CertNext: // an hour later
			s.clock = func() time.Time { return time.Now().Add(2 * time.Hour) }
			_, err = s.ActivateDue(ctx)
		case c.State == "":
			err = s.AddCertificate(ctx, certificate("cc", 500, deal.CertNext), "anna", "")
		case c.State == deal.CertNext:
			err = s.ActivateCertificate(ctx, "house", "cc", time.Time{}, time.Time{}, "anna", "renewed")
		case b.State == deal.CertRetiring:
			_, err = s.RevokeCertificate(ctx, "bb", "daemon", "its issuer says so")
		case c.State == deal.CertActive:
			err = s.RetireCertificate(ctx, "house", "cc", "anna", "the key is given up")
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// TestAPowerCutInADecisionAboutCertificatesLosesAndDoublesNothing ends the process before and after each commit, once each,
// and lets another go on: the registry and the audit log tell the same, and every change once.
func TestAPowerCutInADecisionAboutCertificatesLosesAndDoublesNothing(t *testing.T) {
	want := []string{"certificate-adopted aa", "certificate-imported bb", "certificate-scheduled bb", "certificate-retired aa", "certificate-activated bb",
		"certificate-imported cc", "certificate-retired bb", "certificate-activated cc", "certificate-revoked bb", "certificate-retired cc"}
	for _, point := range []string{"commit/operate:before", "commit/operate:after", settled + ":before", settled + ":after"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			n := 0
			for {
				dir := filepath.Join(t.TempDir(), "state")
				if !crash(t, dir, point, crashLife+"="+lifeOfCertificates, crashCount+"="+strconv.Itoa(n+1)) {
					break
				}
				n++
				if err := certificatesLife(t.Context(), dir, nil); err != nil {
					t.Fatalf("passing %d: the next start does not end: %v", n, err)
				}
				s := open(t, options(dir, nil))
				if got := said(t, s); !slices.Equal(got, want) {
					t.Errorf("passing %d: the audit log says\n%q, want\n%q", n, got, want)
				}
				if got, want := states(t, s), map[string]deal.CertState{"aa": deal.CertRetiring, "bb": deal.CertRevoked, "cc": deal.CertRetiring}; !maps.Equal(got, want) {
					t.Errorf("passing %d: %v, want %v", n, got, want)
				}
				verified(t, s)
			}
			if least := map[bool]int{true: 6, false: 3}[strings.HasPrefix(point, "commit/operate")]; n < least {
				t.Errorf("the point was passed %d times, at least %d were expected", n, least)
			}
		})
	}
}

func TestARestoredRegistryIsThatOfTheBackup(t *testing.T) {
	s, clock := newStore(t)
	register(t, s, certificate("aa", 400, deal.CertActive), certificate("bb", 500, deal.CertNext), certificate("cc", 500, deal.CertNext))
	if err := s.ActivateCertificate(t.Context(), "house", "bb", start.Add(day), time.Time{}, "anna", "rollover"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RevokeCertificate(t.Context(), "cc", "daemon", "its issuer says so"); err != nil {
		t.Fatal(err)
	}
	want, err := s.Certificates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := backUp(t, s, BackupOptions{})
	// What is decided after the backup is not in it.
	if err := s.ActivateCertificate(t.Context(), "house", "bb", time.Time{}, time.Time{}, "anna", "at once"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RevokeCertificate(t.Context(), "aa", "anna", "the key is lost"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "elsewhere")
	if _, err := Restore(t.Context(), bytes.NewReader(b), restoreOptions(dir)); err != nil {
		t.Fatal(err)
	}
	r := open(t, options(dir, clock.Now))
	if got, err := r.Certificates(t.Context()); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}
	mustRefuse(t, r.ActivateCertificate(t.Context(), "house", "cc", time.Time{}, time.Time{}, "anna", "so"), "never used again")
	verified(t, r)
}

func TestACertificateGoesOnForAWhileBesideTheOneThatFollowsIt(t *testing.T) {
	s, clock := newStore(t)
	register(t, s, certificate("aa", 400, deal.CertActive), certificate("bb", 500, deal.CertNext), certificate("cc", 500, deal.CertNext))
	until := start.Add(10 * day)
	if err := s.ActivateCertificate(t.Context(), "house", "bb", start.Add(day), until, "anna", "rollover"); err != nil {
		t.Fatal(err)
	}
	beside := func(want string) {
		t.Helper()
		all, err := s.Certificates(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := deal.BesideCertificate(all, "house", clock.Now()); got.SHA256 != want {
			t.Errorf("%q goes on at %s, want %q", got.SHA256, clock.Now(), want)
		}
	}
	beside("")
	clock.advance(2 * day)
	beside("aa") // also for those who only look, before it is written down
	s.release()
	s = open(t, options(s.dir, clock.Now))
	if n, err := s.ActivateDue(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d due, %v", n, err)
	}
	beside("aa")
	clock.advance(9 * day)
	beside("")
	clock.advance(-9 * day)

	// One at a time: what follows next is followed by its predecessor alone, if by any.
	if err := s.ActivateCertificate(t.Context(), "house", "cc", time.Time{}, until, "anna", "another"); err != nil {
		t.Fatal(err)
	}
	beside("bb")
	if err := s.RetireCertificate(t.Context(), "house", "bb", "anna", "one seal is enough"); err != nil {
		t.Fatal(err)
	}
	beside("")
	mustRefuse(t, s.RetireCertificate(t.Context(), "house", "bb", "anna", "again"), "retiring already")
	if err := s.ActivateCertificate(t.Context(), "house", "bb", time.Time{}, until, "anna", "back"); err != nil {
		t.Fatal(err)
	}
	beside("cc")
	if _, err := s.RevokeCertificate(t.Context(), "cc", "daemon", "key compromise"); err != nil {
		t.Fatal(err)
	}
	beside("")
	verified(t, s)
}
