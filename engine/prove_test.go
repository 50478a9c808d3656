package engine

import (
	"bytes"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/tsa"
)

// kept reads the archived files of a deal, by name.
func (d *daemon) kept(s *deal.Sealing) map[string][]byte {
	d.t.Helper()
	stored, err := filepath.Glob(filepath.Join(d.dir, "archive", s.Facts.Archive, "evidence", "*.age"))
	must(d.t, err)
	names := []string{"contract.pdf"}
	for _, path := range stored {
		names = append(names, "evidence/"+strings.TrimSuffix(filepath.Base(path), ".age"))
	}
	out := map[string][]byte{}
	for _, name := range names {
		f, err := d.store.OpenKept(d.t.Context(), s.Facts.Archive, name)
		must(d.t, err)
		out[name], err = io.ReadAll(f.Open())
		must(d.t, err)
		must(d.t, f.Close())
	}
	return out
}

func TestWhatALevelRestsOnIsArchivedBesideTheContract(t *testing.T) {
	for _, c := range []struct {
		level     pades.Level
		questions int // to the TSA
		more      []string
	}{
		{pades.BLT, 1, nil},
		{pades.BLTA, 2, []string{"evidence/archive-timestamp.tst"}},
	} {
		t.Run(string(c.level), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(atLevel(c.level))
			record := w.won()
			s := d.run()
			d.wantDone(s)
			w.wantUses(1)
			w.wantContracts(record, 1)
			if s.Facts.Level != string(c.level) || s.Facts.Flagged != "" || w.authority.Requests(pki.ServiceTSA) != c.questions {
				t.Errorf("level %s, flagged %q, %d questions to the TSA", s.Facts.Level, s.Facts.Flagged, w.authority.Requests(pki.ServiceTSA))
			}
			files := d.kept(s)
			want := append(c.more, "contract.pdf", "evidence/report.json", "evidence/signature.p7s", "evidence/timestamp.tst", "evidence/revocation-list-1.crl",
				"evidence/ocsp-1.ors", "evidence/ocsp-2.ors")
			for _, n := range []string{"1", "2", "3", "4", "5"} {
				want = append(want, "evidence/certificate-"+n+".cer")
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(files))); diff != "" {
				t.Errorf("archived (-want +got):\n%s", diff)
			}
			for name, der := range files {
				if strings.HasSuffix(name, ".cer") || strings.HasSuffix(name, ".ors") || strings.HasSuffix(name, ".crl") {
					if !bytes.Contains(files["contract.pdf"], der) {
						t.Errorf("%s is not in the contract", name)
					}
				}
			}
			stamp, err := tsa.ParseToken(files["evidence/timestamp.tst"])
			must(t, err)
			e, err := revocation.ParseOCSP(files["evidence/ocsp-1.ors"], w.key.Chain()[0], w.authority.Issuing.Certificate)
			must(t, err)
			if e.ProducedAt.Before(stamp.Time) {
				t.Errorf("the evidence is of %s, the time-stamp of %s", e.ProducedAt, stamp.Time)
			}
		})
	}
}

func TestWithoutEvidenceForTheWholeScheduleTheProfileDecides(t *testing.T) {
	for _, c := range []struct {
		name      string
		fault     func(*daemon)
		answer    signing.Downgrade
		condition deal.Condition
		step      deal.Step
		reason    string
		level     string
	}{
		{"no evidence", noEvidence, signing.Hold, deal.Held, deal.Rendered, "[level] level B-LTA was asked for and no evidence of revocation could be had", ""},
		{"no evidence", noEvidence, signing.Fail, deal.Dead, deal.Rendered, "level B-LTA was asked for and no evidence of revocation could be had", ""},
		{"no evidence", noEvidence, signing.AcceptAndFlag, deal.Running, deal.Done, "", "B-T"},
		{"no second token", noSecondToken, signing.Hold, deal.Held, deal.Rendered, "[level] level B-LTA was asked for and no document time-stamp could be had", ""},
		{"no second token", noSecondToken, signing.AcceptAndFlag, deal.Running, deal.Done, "", "B-LT"},
	} {
		t.Run(c.name+", "+string(c.answer), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(withProfile(signing.Profile{Level: pades.BLTA, OnDowngrade: c.answer}))
			c.fault(d)
			record := w.won()
			s := d.run()
			d.want(s, c.condition, c.step, c.reason)
			w.wantUses(1)
			if s.Facts.Level != c.level || (s.Facts.Flagged != "") != (c.level != "") {
				t.Errorf("level %q, flagged %q", s.Facts.Level, s.Facts.Flagged)
			}
			if c.condition == deal.Running {
				w.wantContracts(record, 1)
				return
			}
			w.wantContracts(record, 0)
			value := s.Private.Value
			d.Hook = nil
			w.authority.SetFault(pki.ServiceOCSP, "", 0)
			w.authority.SetFault(pki.ServiceCRL, "", 0)
			w.authority.SetFault(pki.ServiceTSA, "", 0)
			if c.condition == deal.Dead {
				must(t, d.store.Retry(t.Context(), s.Tx, "alice", "it is mended"))
			} else {
				d.release(s.Tx)
			}
			d.finish()
			s = d.load(s.Tx)
			d.wantDone(s)
			w.wantUses(1)
			if s.Facts.Level != "B-LTA" || !bytes.Equal(value, s.Private.Value) {
				t.Errorf("after it was mended: level %s, the same signature value: %v", s.Facts.Level, bytes.Equal(value, s.Private.Value))
			}
		})
	}
}

func noEvidence(d *daemon) {
	d.w.authority.SetFault(pki.ServiceOCSP, pki.Down, -1)
	d.w.authority.SetFault(pki.ServiceCRL, pki.Garbage, -1)
}

// noSecondToken lets the TSA stamp the seal, and fail from then on.
func noSecondToken(d *daemon) {
	d.Hook = func(point string) {
		if point == "seal.advance.evidence/after" {
			d.w.authority.SetFault(pki.ServiceTSA, pki.Down, -1)
		}
	}
}

func TestAResponderThatIsDownForAWhileCostsTimeAndNoLevel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(atLevel(pades.BLTA))
	w.authority.SetFault(pki.ServiceOCSP, pki.Unavailable, 3)
	w.authority.SetFault(pki.ServiceCRL, pki.Unavailable, 3)
	w.won()
	s := d.run()
	d.wantDone(s)
	if s.Facts.Level != "B-LTA" {
		t.Errorf("level %s", s.Facts.Level)
	}
	w.wantUses(1)
}

func TestARevokedCertificateStopsTheSealAtOnceWhateverTheProfileAccepts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withProfile(signing.Profile{Level: pades.BLTA, OnDowngrade: signing.AcceptAndFlag}))
	w.authority.Revoke(w.key.Chain()[0], w.now().Add(-time.Hour), 1)
	record := w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Rendered, "was revoked at 2026-11-20T19:00:00Z, and the seal rests on it: nothing was released")
	if s.Attempts != 0 {
		t.Errorf("%d attempts", s.Attempts)
	}
	d.release(s.Tx)
	d.finish()
	d.want(d.load(s.Tx), deal.Held, deal.Rendered, "was revoked")
	w.wantContracts(record, 0)
	w.wantUses(1)
}

func TestATimeStampOfARevokedAuthorityIsGivenUpAndTheSignatureIsNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(atLevel(pades.BLT))
	w.authority.Revoke(w.authority.TSA.Certificate, w.now().Add(time.Hour), 1) // even if it is said to be of later
	w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Rendered, "take that TSA out of signing.tsa")
	value := s.Private.Value
	var err error
	w.authority, err = w.authority.WithTSA(w.now().Add(-time.Hour), w.now().Add(time.Hour))
	must(t, err)
	d.release(s.Tx)
	d.finish()
	s = d.load(s.Tx)
	d.wantDone(s)
	if !bytes.Equal(value, s.Private.Value) || s.Facts.Level != "B-LT" {
		t.Errorf("level %s, the same signature value: %v", s.Facts.Level, bytes.Equal(value, s.Private.Value))
	}
	w.wantUses(1)
}

func TestACertificateThatEndsTooSoonHoldsTheDealBeforeItIsSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(withProfile(signing.Profile{MinValidity: 400 * 24 * time.Hour}))
	w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Noticed, "364 days, and the profile asks for 400 days: install the next certificate, or lower min_validity of the profile: then release the deal")
	w.wantUses(0)
}
