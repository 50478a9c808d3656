package engine

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/signing/verify"
)

// following is the house with a certificate that followed another one, which goes on beside it for a while.
type following struct {
	*house
	before  []*x509.Certificate
	beside  func() bool // whether two seals are asked for
	revoked bool        // the one before
}

func (f *following) Open(context.Context, string) (signing.Key, error) { return f.house, nil }

func (f *following) Beside(string) []*x509.Certificate {
	if !f.beside() {
		return nil
	}
	return f.before
}

func (f *following) OpenFor(_ context.Context, name string, chain []*x509.Certificate) (signing.Key, error) {
	return signing.WithChain(f.house, chain), f.MayFinish(name, chain[0])
}

var _ signing.Registry = (*following)(nil)

func (f *following) HasSealed(string, string) bool { return false }

func (f *following) MayFinish(name string, cert *x509.Certificate) error {
	if f.revoked && cert.Equal(f.before[0]) {
		return &signing.KeyError{Key: name, Revoked: true, Reason: "the certificate was revoked"}
	}
	return nil
}

// follow has a daemon work in the middle of a rollover.
func (d *daemon) follow(until time.Time) *following {
	d.t.Helper()
	w := d.w
	chain, err := w.authority.IssueSignerValid(w.key.Public(), sealSubject, w.now().Add(-time.Hour), until)
	must(d.t, err)
	f := &following{house: w.key, before: chain, beside: func() bool { return true }}
	stamper, err := tsa.NewClient([]tsa.Server{{URL: w.authority.URL(pki.PathTSA)}}, tsa.Options{Roots: w.authority.Roots(), Now: w.now})
	must(d.t, err)
	d.Sealer = signing.NewSealer(f, stamper, w.now)
	return f
}

// twoSeals asks for a second seal while there is one to be had.
func twoSeals(level pades.Level, answer signing.Downgrade) func(*deal.Plan) {
	return withProfile(signing.Profile{Level: level, OnDowngrade: answer, Dual: true})
}

func year(w *world) time.Time { return w.now().Add(365 * 24 * time.Hour) }

// wantSeals reads the contract on the record: it is valid, and its seals are of these certificates, in their order.
func (d *daemon) wantSeals(record string, level pades.Level, certs ...*x509.Certificate) {
	d.t.Helper()
	d.w.wantContracts(record, 1)
	report, err := d.checker.Check(d.t.Context(), bytes.NewReader(d.w.contracts(record)[0]))
	must(d.t, err)
	if report.Verdict != verify.Valid {
		d.t.Fatalf("the contract is %s: %+v", report.Verdict, report)
	}
	var got, want []string
	for _, s := range report.Signatures {
		if s.Kind == verify.KindSignature {
			got = append(got, s.Signer.Serial+" "+string(s.Level)+" "+string(s.Verdict))
		}
	}
	for _, c := range certs {
		want = append(want, c.SerialNumber.Text(16)+" "+string(level)+" VALID")
	}
	if !slices.Equal(got, want) {
		d.t.Errorf("the seals are %q, want %q", got, want)
	}
}

func TestDuringARolloverADocumentGetsTwoSealsAndBothCount(t *testing.T) {
	for _, level := range []pades.Level{pades.BB, pades.BT, pades.BLT, pades.BLTA} {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(withTemplate(t), twoSeals(level, signing.Hold))
			f := d.follow(year(w))
			record := w.won()
			s := d.run()
			d.wantDone(s)
			d.wantSeals(record, level, w.key.Chain()[0], f.before[0])
			w.wantUses(2)
			second := s.Facts.Second
			if s.Facts.Level != string(level) || second.Level != string(level) || s.Facts.Flagged != "" || second.Digest == s.Facts.Digest {
				t.Errorf("levels %s and %s, flagged %q", s.Facts.Level, second.Level, s.Facts.Flagged)
			}
			if digests := []string{hex.EncodeToString(w.key.signed[0]), hex.EncodeToString(w.key.signed[1])}; !slices.Equal(digests, []string{s.Facts.Digest, second.Digest}) {
				t.Errorf("signed were %q, committed %q and %q", digests, s.Facts.Digest, second.Digest)
			}
			files := d.kept(s)
			for _, name := range []string{"evidence/signature.p7s", "evidence/second-signature.p7s"} {
				if !bytes.Contains(files["contract.pdf"], []byte(hex.EncodeToString(files[name]))) || len(files[name]) == 0 {
					t.Errorf("%s, of %d bytes, is not in the contract", name, len(files[name]))
				}
			}
			if level.AtLeast(pades.BLT) { // the certificate that was followed proves itself as the other does
				if !bytes.Contains(files["contract.pdf"], f.before[0].Raw) {
					t.Error("the security store lacks the certificate of the second seal")
				}
			}
			if a, ok := deal.ReadAuditRecord(w.shown(record, fieldAudit)); !ok || a.Second != second.Cert.SHA256 || a.Fingerprint != s.Facts.Cert.SHA256 || a.Second == a.Fingerprint {
				t.Errorf("the audit record is %+v", a)
			}
			if s.Private.Second.Ticket != nil {
				t.Error("a finished deal keeps the bytes of its second staged seal")
			}
		})
	}
}

// TestADealGoesOnAsItWasStagedWhateverTheRolloverDoes opens and closes the window at each point between staging and end.
func TestADealGoesOnAsItWasStagedWhateverTheRolloverDoes(t *testing.T) {
	for _, c := range []struct {
		at    string // the moment at which the window opens or closes
		opens bool
		seals int
	}{
		{"seal.begin.prepare/before", true, 2},
		{"seal.begin.prepare/before", false, 1},
		{"seal.advance.prepared/before", true, 1},
		{"seal.advance.prepared/before", false, 2},
		{"seal.advance.signature/after", true, 1},
		{"seal.advance.signature/after", false, 2},
		{"seal.advance.second-digest/after", false, 2},
	} {
		t.Run(c.at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(twoSeals(pades.BT, signing.Hold))
			f := d.follow(year(w))
			open := !c.opens
			f.beside = func() bool { return open }
			d.until(c.at, func() { open = c.opens })
			record := w.won()
			d.wantDone(d.run())
			d.wantSeals(record, pades.BT, []*x509.Certificate{w.key.Chain()[0], f.before[0]}[:c.seals]...)
			w.wantUses(c.seals)
		})
	}
}

func TestASecondSealThatCannotBeMadeIsSaidAndLeftOutOnlyIfSomebodySaysSo(t *testing.T) {
	revoke := func(_ *world, f *following) { f.revoked = true }
	over := func(w *world, _ *following) { w.clock.advance(2 * time.Hour) }
	for name, c := range map[string]struct {
		harm      func(*world, *following)
		at        string
		answer    signing.Downgrade
		condition deal.Condition
		reason    string
		uses      int
	}{
		"revoked, hold":       {revoke, "seal.advance.signature/after", signing.Hold, deal.Held, "[one-seal] two seals were asked for, and the second could not be made", 1},
		"revoked, accept":     {revoke, "seal.advance.signature/after", signing.AcceptAndFlag, deal.Held, "was revoked", 1},
		"revoked once staged": {revoke, "seal.advance.second-digest/after", signing.AcceptAndFlag, deal.Held, "was revoked", 1},
		"revoked once signed": {revoke, "seal.advance.second-signature/after", signing.AcceptAndFlag, deal.Held, "was revoked", 2},
		"over, hold":          {over, "seal.advance.signature/after", signing.Hold, deal.Held, "[one-seal]", 1},
		"over, fail":          {over, "seal.advance.signature/after", signing.Fail, deal.Dead, "two seals were asked for", 1},
		"over, accept":        {over, "seal.advance.signature/after", signing.AcceptAndFlag, deal.Running, "", 1},
		"over once committed": {over, "seal.advance.second-digest/after", signing.AcceptAndFlag, deal.Running, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon(twoSeals(pades.BLTA, c.answer))
			f := d.follow(w.now().Add(time.Hour))
			d.until(c.at, func() { c.harm(w, f) })
			record := w.won()
			s := d.run()
			if c.condition != deal.Running {
				d.want(s, c.condition, deal.Rendered, c.reason)
				w.wantContracts(record, 0)
			}
			if c.condition == deal.Held {
				d.release(s.Tx)
				d.finish()
				s = d.load(s.Tx)
			}
			if c.condition != deal.Dead {
				d.wantDone(s)
				d.wantSeals(record, pades.BLTA, w.key.Chain()[0])
				if s.Facts.Level != "B-LTA" || !strings.Contains(s.Facts.Flagged, "one was made") || s.Private.Second != nil {
					t.Errorf("level %s, flagged %q", s.Facts.Level, s.Facts.Flagged)
				}
			}
			w.wantUses(c.uses)
		})
	}
}

func TestARevocationThatTheIssuerTellsOfLeavesTheFirstSealWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(twoSeals(pades.BLTA, signing.AcceptAndFlag))
	f := d.follow(year(w))
	w.authority.Revoke(f.before[0], w.now().Add(-time.Hour), 1)
	record := w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Rendered, "[one-seal]")
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	d.wantSeals(record, pades.BLTA, w.key.Chain()[0])
	w.wantUses(2)
}

func TestATimeStampThatTheSecondSealLacksIsTheLevelOfTheDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(twoSeals(pades.BT, signing.AcceptAndFlag))
	d.follow(year(w))
	d.until("seal.advance.second-signature/after", func() { w.authority.SetFault(pki.ServiceTSA, pki.Down, -1) })
	record := w.won()
	s := d.run()
	d.wantDone(s)
	w.wantContracts(record, 1)
	if s.Facts.Level != "B-B" || s.Facts.Second.Level != "B-B" || !strings.Contains(s.Facts.Flagged, "no time-stamp of the second seal") {
		t.Errorf("levels %s and %s, flagged %q", s.Facts.Level, s.Facts.Second.Level, s.Facts.Flagged)
	}
	w.wantUses(2)
}

func TestTheAuthorityOfTheFirstTimeStampIsHeardOfBeforeTheSecondSealCoversIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(twoSeals(pades.BLTA, signing.Hold))
	f := d.follow(year(w))
	w.authority.Revoke(w.authority.TSA.Certificate, w.now().Add(time.Hour), 1)
	record := w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Rendered, "take that TSA out of signing.tsa")
	w.wantUses(1)
	var err error
	w.authority, err = w.authority.WithTSA(w.now().Add(-time.Hour), w.now().Add(time.Hour))
	must(t, err)
	d.release(s.Tx)
	d.finish()
	d.wantDone(d.load(s.Tx))
	d.wantSeals(record, pades.BLTA, w.key.Chain()[0], f.before[0])
	w.wantUses(2)
}

func TestTheSecondSealIsRehearsedBeforeTheKeyIsUsedForIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(twoSeals(pades.BT, signing.Hold))
	d.follow(year(w))
	d.until("seal.advance.second-prepared/after", func() { d.checker.distrust = true })
	w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Rendered, "a rehearsal of the second seal")
	if s.Facts.Second.Digest != "" {
		t.Errorf("the digest %s was committed", s.Facts.Second.Digest)
	}
	w.wantUses(1)
}

func TestTroubleWithTheKeyForTheSecondSealIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(twoSeals(pades.BT, signing.AcceptAndFlag))
	f := d.follow(year(w))
	d.until("seal.advance.second-digest/after", func() { w.key.fail(d.Retry.Attempts-1, errors.New("no session")) })
	record := w.won()
	d.wantDone(d.run())
	d.wantSeals(record, pades.BT, w.key.Chain()[0], f.before[0])
	w.wantUses(2)
}

// TestAFirstSealWakesNobodyWhoWaitsForTheKeyOfTheSecond, which may be another: all of them would ask for it in vain, with each new deal.
func TestAFirstSealWakesNobodyWhoWaitsForTheKeyOfTheSecond(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(twoSeals(pades.BT, signing.Hold))
	d.Retry = Retry{First: 2 * time.Second, Max: 30 * time.Minute, Attempts: 12}
	f := d.follow(year(w))
	d.until("seal.advance.second-digest/after", func() { w.key.fail(1, &signing.KeyError{Reason: "the PIN is refused"}) })
	record := w.won()
	first := d.notice()
	d.handle(first)
	cause := deal.WaitsForSecondKey("house")
	d.waitingFor(cause, first)

	f.beside = func() bool { return false }
	w.won()
	second := d.notice()
	d.handle(second)
	d.wantDone(d.load(second))
	d.waitingFor(cause, first)

	d.Mended(t.Context(), "", cause)
	d.again[first] = time.Time{}
	d.work()
	d.wantDone(d.load(first))
	d.wantSeals(record, pades.BT, w.key.Chain()[0], f.before[0])
	w.wantUses(3)
}

func TestACertificateThatIsRevokedOnceItHasSignedIsNoLackOfATimeStamp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon(onDowngrade(signing.AcceptAndFlag))
	f := d.follow(year(w))
	f.before = w.key.Chain()
	d.until("seal.advance.signature/after", func() { f.revoked = true })
	record := w.won()
	s := d.run()
	d.want(s, deal.Held, deal.Rendered, "[revoked]")
	d.release(s.Tx)
	d.finish()
	d.want(d.load(s.Tx), deal.Held, deal.Rendered, "[revoked]")
	w.wantContracts(record, 0)
	w.wantUses(1)
}
