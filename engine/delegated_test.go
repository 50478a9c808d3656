package engine

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/delegates"
	"github.com/dealseal/dealseal/mocks/esign"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/softkey"
	"github.com/dealseal/dealseal/signing/verify"
)

const fieldEnvelope = "NextStep"

// delegating is a world with a vendor, whose authority nobody else trusts.
type delegating struct {
	*world
	vendor *esign.Vendor
	trust  *pki.Authority
	key    *softkey.Key
	source *delegates.Source
}

func newDelegating(t *testing.T) *delegating {
	w := &delegating{world: newWorld(t)}
	var err error
	w.trust, err = pki.New(pki.Options{Organisation: "Vendor Trust", Now: w.now})
	must(t, err)
	w.key, err = softkey.Generate(softkey.P256)
	must(t, err)
	chain, err := w.trust.IssueSigner(w.key.Public(), pkix.Name{CommonName: "Vendor Seal", Organization: []string{"Vendor"}})
	must(t, err)
	w.key, err = w.key.WithChain(chain)
	must(t, err)
	url := w.serve(func(rw http.ResponseWriter, r *http.Request) { w.vendor.ServeHTTP(rw, r) })
	w.vendor = esign.New(esign.Options{Kind: esign.Certyneo, URL: url, Token: "a token of the vendor", Sign: w.sign})
	certyneo, _ := delegates.Find("certyneo")
	w.source, err = delegates.NewSource(certyneo, url+"/documents/")
	must(t, err)
	w.source.Client, w.source.Token = http.DefaultClient, w.secretFile("a token of the vendor")
	return w
}

func (w *delegating) sign(pdf []byte) ([]byte, error) {
	sealer := signing.NewSealer(vendorKey{w.key}, nil, w.now)
	t, err := sealer.Prepare(context.Background(), bytes.NewReader(pdf), signing.Request{Profile: signing.Profile{Key: "vendor", Level: pades.BB}})
	if err != nil {
		return nil, err
	}
	value, err := sealer.Redeem(context.Background(), t)
	if err != nil {
		return nil, err
	}
	tail, _, err := sealer.Complete(t, value, nil)
	return append(bytes.Clone(pdf), tail...), err
}

type vendorKey struct{ signing.Key }

func (k vendorKey) Open(context.Context, string) (signing.Key, error) { return k.Key, nil }
func (k vendorKey) Close() error                                      { return nil }

// reading is what the assembly makes of a vendor: where its documents are, and who reads them. It reads in this process.
type reading struct {
	*delegates.Source
	w *delegating
}

func (r reading) Check(ctx context.Context, doc pades.Document) (*verify.Report, error) {
	return verify.Verify(ctx, doc, verify.Options{Roots: []*x509.Certificate{r.w.trust.Root.Certificate}, Now: r.w.now()})
}

// delegated makes the rule the vendor's.
func delegated(level pades.Level) func(*deal.Plan) {
	return func(p *deal.Plan) {
		withProfile(signing.Profile{Level: level})(p)
		p.Attachment, p.IfLeft, p.Fields = "", "", []string{fieldEnvelope}
		p.Delegated = &deal.Delegated{Vendor: "certyneo", Field: fieldEnvelope, Patience: 30 * 24 * time.Hour}
	}
}

func (w *delegating) daemonAt(dir string, level pades.Level) *daemon {
	d := w.daemonIn(dir, delegated(level))
	d.Envelopes = d.store
	d.Vendor = func(tenant deal.TenantID, name string) (Vendor, bool) {
		return reading{w.source, w}, tenant == acme && name == "certyneo"
	}
	return d
}

func (w *delegating) daemonHere(level pades.Level) *daemon {
	w.t.Helper()
	return w.daemonAt(filepath.Join(w.t.TempDir(), "state"), level)
}

// tell is what the listener does once it has recognised the vendor.
func (w *delegating) tell(d *daemon, envelope, what, note string) {
	w.t.Helper()
	body, err := w.vendor.Body(envelope, what, note, w.now())
	must(w.t, err)
	w.hear(d, body)
	w.tick()
}

func (w *delegating) hear(d *daemon, body []byte) {
	w.t.Helper()
	certyneo, _ := delegates.Find("certyneo")
	told, err := certyneo.Read(body)
	must(w.t, err)
	_, _, err = d.store.Receive(w.t.Context(), deal.Arrival{Tenant: acme, Source: "certyneo", Told: told})
	must(w.t, err)
}

func (w *delegating) name(record, envelope string) {
	w.t.Helper()
	must(w.t, w.org.Update(record, map[string]any{fieldEnvelope: envelope}))
	w.tick()
}

// sent is a deal whose envelope is with those who are to sign, and that waits for them.
func (w *delegating) sent(d *daemon, envelope string) (record string, tx deal.TxID) {
	w.t.Helper()
	w.vendor.Send(envelope, "Order of "+canary)
	record = w.deal()
	w.name(record, envelope)
	w.move(record, stageWon)
	tx = d.notice()
	d.work()
	d.want(d.load(tx), deal.Retrying, deal.Gathered, "awaiting: certyneo has told nothing of envelope "+envelope)
	return record, tx
}

// woken does the work that is due at once.
func woken(d *daemon) {
	d.again = map[deal.TxID]time.Time{}
	d.work()
}

func (w *delegating) wantDelegated(d *daemon, s *deal.Sealing, record, envelope string) {
	w.t.Helper()
	d.wantDone(s)
	w.wantUses(0)
	w.wantContracts(record, 1)
	w.wantShown(record, "Signed")
	if got := w.contracts(record); len(got) == 1 && !bytes.Equal(got[0], w.vendor.Document(envelope)) {
		w.t.Error("the record bears other bytes than those that were signed")
	}
	if f := s.Facts; f.Digest != "" || f.Level != "B-B" || f.Cert == nil || !strings.Contains(f.Cert.Subject, "Vendor Seal") {
		w.t.Errorf("level %q, digest %q, certificate %+v", f.Level, f.Digest, f.Cert)
	}
}

func TestADelegatedDealPassesEveryPointOfItsStep(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	record, tx := w.sent(d, "env_1")
	d.tell()
	w.wantShown(record, "Awaiting Signature")
	must(t, w.vendor.Sign("env_1", document("", 1)))
	var passed []string
	d.Hook = func(p string) {
		if strings.HasPrefix(p, "follow.") {
			passed = append(passed, p)
		}
	}
	for _, what := range []string{"sent", "viewed", "signed", "completed"} {
		w.tell(d, "env_1", what, "")
	}
	woken(d)
	s := d.load(tx)
	w.wantDelegated(d, s, record, "env_1")
	if diff := cmp.Diff(grouped(DelegatedPoints(), ""), grouped(passed, "")); diff != "" {
		t.Errorf("points passed (-table +passed):\n%s", diff)
	}
	w.wantTold(d, tx, "envelope.created", "envelope.sent", "recipient.viewed", "recipient.signed", "document.signed", "document.validated", "document.attached", "envelope.completed")
	if files := w.org.Files(record); len(files) != 2 || files[1].Versions[0].Name != "Order of "+canary+".pdf" {
		t.Errorf("the record has %d files, the last of them not named after the envelope", len(files))
	}
}

// crashed is the end of a daemon.
type crashed struct{}

func TestACrashOfADelegatedDealLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	for _, point := range append(DelegatedPoints(), "check.call.verify/after", "keep.advance.kept/before", "attach.call.files/after", "report.call.write-back/after") {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := newDelegating(t)
			dir := filepath.Join(t.TempDir(), "state")
			d := w.daemonAt(dir, pades.BB)
			record, tx := w.sent(d, "env_1")
			must(t, w.vendor.Sign("env_1", document("", 1)))
			w.tell(d, "env_1", "signed", "")
			w.tell(d, "env_1", "completed", "")
			d.Hook = func(p string) {
				if p == point {
					panic(crashed{})
				}
			}
			func() {
				defer func() {
					if r := recover(); r != (crashed{}) {
						t.Errorf("point %s was not passed: %v", point, r)
					}
				}()
				woken(d)
			}()
			d.close()
			w.clock.advance(time.Hour) // nobody has the lease any more
			d = w.daemonAt(dir, pades.BB)
			w.tell(d, "env_1", "completed", "") // the vendor got no answer
			d.finish()
			w.wantDelegated(d, d.load(tx), record, "env_1")
			w.wantTold(d, tx, "envelope.created", "recipient.signed", "document.signed", "document.validated", "document.attached", "envelope.completed")
		})
	}
}

// wantTold is what others were told of a deal, in its order.
func (w *delegating) wantTold(d *daemon, tx deal.TxID, want ...string) {
	w.t.Helper()
	var told []string
	for _, e := range d.story(tx).Outbox {
		told = append(told, e.Type)
	}
	if diff := cmp.Diff(want, told); diff != "" {
		w.t.Errorf("others are told (-want +told):\n%s", diff)
	}
}

// TestOthersAreToldOnceWhatTheVendorTells, as it comes, whatever the deal makes of it, and nothing of the envelope that its record
// named before. The record shows the same all the time.
func TestOthersAreToldOnceWhatTheVendorTells(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	w.vendor.Send("env_0", "")
	w.tell(d, "env_0", "sent", "")
	record, tx := w.sent(d, "env_1")
	d.tell()
	shown := w.shown(record, fieldAudit)
	w.tell(d, "env_1", "sent", "")
	woken(d)
	w.tell(d, "env_1", "viewed", "")
	w.tell(d, "env_1", "viewed", "") // by another one
	woken(d)
	woken(d)
	w.wantTold(d, tx, "envelope.created", "envelope.sent", "recipient.viewed", "recipient.viewed")
	d.tell()
	w.wantShown(record, "Awaiting Signature")
	if now := w.shown(record, fieldAudit); now != shown {
		t.Errorf("the record was told %s after %s", now, shown)
	}
	last := d.story(tx).Outbox[3]
	if at, err := time.Parse(time.RFC3339Nano, last.Data["at"]); err != nil || w.now().Sub(at) > time.Minute || last.Data["vendor"] != "certyneo" || last.Data["envelope"] != "env_1" || len(last.Data) != 3 {
		t.Errorf("the last one says %v, %v", last.Data, err)
	}
	// What comes with an end is told before it.
	w.tell(d, "env_1", "signed", "")
	w.tell(d, "env_1", "declined", "the Quittengelee is too sour")
	woken(d)
	w.wantTold(d, tx, "envelope.created", "envelope.sent", "recipient.viewed", "recipient.viewed", "recipient.signed", "envelope.declined")
}

func TestAnEndAtTheVendorEndsTheDealUntilItIsSignedAfterAll(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ reason, shown string }{
		"declined": {"refused: somebody has declined to sign at certyneo", "Refused"},
		"expired":  {"expired: not everybody has signed in time at certyneo", "Action Required"},
		"voided":   {"voided: the envelope was cancelled at certyneo", "Action Required"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newDelegating(t)
			d := w.daemonHere(pades.BB)
			record, tx := w.sent(d, "env_1")
			const why = "the Quittengelee is too sour"
			w.tell(d, "env_1", what, why)
			w.tell(d, "env_1", "viewed", "") // which came late
			woken(d)
			d.want(d.load(tx), deal.Ended, deal.Gathered, c.reason)
			d.tell()
			w.wantShown(record, c.shown)
			a, _ := deal.ReadAuditRecord(w.shown(record, fieldAudit))
			if want := map[bool]string{true: c.reason + ": " + why, false: c.reason}[what == "declined"]; a.Reason != want {
				t.Errorf("the record says %q, want %q", a.Reason, want)
			}
			if strings.Contains(d.log.String(), "Quittengelee") {
				t.Error("the log says what the signer has said")
			}
			var told []string
			for _, e := range d.story(tx).Outbox {
				told = append(told, e.Type)
			}
			if last := told[len(told)-1]; last != "envelope."+what {
				t.Errorf("others were told %q", told)
			}
			must(t, w.vendor.Sign("env_1", document("", 1)))
			w.tell(d, "env_1", "completed", "")
			d.finish()
			w.wantDelegated(d, d.load(tx), record, "env_1")
		})
	}
}

func TestEventsMayComeInAnyOrderTwiceAndBeforeTheDeal(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	w.vendor.Send("env_1", "")
	must(t, w.vendor.Sign("env_1", document("", 1)))
	body, err := w.vendor.Body("env_1", "completed", "", w.now())
	must(t, err)
	w.hear(d, body)
	w.hear(d, body)
	w.tell(d, "env_1", "sent", "")
	if told, err := d.store.VendorTold(t.Context(), deal.Envelope{Tenant: acme, Vendor: "certyneo", ID: "env_1"}); err != nil || len(told) != 2 {
		t.Errorf("%d events are kept, %v; want 2", len(told), err)
	}
	record := w.deal()
	w.move(record, stageWon)
	tx := d.notice()
	d.work()
	d.want(d.load(tx), deal.Retrying, deal.Gathered, "awaiting: the record names no envelope of certyneo in "+fieldEnvelope)
	w.name(record, "env_1")
	w.tell(d, "env_1", "viewed", "") // of an envelope that is nobody's yet: those that have none look again
	woken(d)
	w.wantDelegated(d, d.load(tx), record, "env_1")
	if given, _ := w.vendor.Fetched(); given != 1 {
		t.Errorf("the document was fetched %d times", given)
	}
}

// TestAnEventThatComesWhileTheDealLooksIsNotMissed has the vendor tell between the look and the commit that it waits.
func TestAnEventThatComesWhileTheDealLooksIsNotMissed(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	record, tx := w.sent(d, "env_1")
	must(t, w.vendor.Sign("env_1", document("", 1)))
	w.tell(d, "env_1", "viewed", "")
	d.Envelopes = interrupted{d.store, func() { w.tell(d, "env_1", "completed", "") }}
	woken(d)
	w.clock.advance(time.Millisecond) // much less than the deal would sleep
	woken(d)
	w.wantDelegated(d, d.load(tx), record, "env_1")
}

// TestACompletionThatComesWhileTheDealIsEndedIsNotMissed has the vendor say that it is signed after all between the very first
// look of a deal and the commit that it has ended.
func TestACompletionThatComesWhileTheDealIsEndedIsNotMissed(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	w.vendor.Send("env_1", "Order of "+canary)
	must(t, w.vendor.Sign("env_1", document("", 1)))
	w.tell(d, "env_1", "expired", "")
	record := w.deal()
	w.name(record, "env_1")
	w.move(record, stageWon)
	tx := d.notice()
	d.Envelopes = interrupted{d.store, func() { w.tell(d, "env_1", "completed", "") }}
	d.finish()
	w.wantDelegated(d, d.load(tx), record, "env_1")
}

// interrupted has something happen right after the first look at what was told.
type interrupted struct {
	Envelopes
	do func()
}

func (i interrupted) VendorTold(ctx context.Context, e deal.Envelope) ([]deal.VendorEvent, error) {
	told, err := i.Envelopes.VendorTold(ctx, e)
	if len(told) == 1 {
		i.do()
	}
	return told, err
}

// TestADealWhoseRecordNamesItsEnvelopeNoMoreSleeps has the vendor tell of the envelope that the record named before: what is told
// of that is no reason to look once more, as long as the record does not name it again.
func TestADealWhoseRecordNamesItsEnvelopeNoMoreSleeps(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	record, tx := w.sent(d, "env_1")
	w.name(record, "")
	w.tell(d, "env_1", "voided", "")
	woken(d)
	s := d.load(tx)
	d.want(s, deal.Retrying, deal.Gathered, "awaiting: the record names no envelope")
	if wait := s.Next.Sub(w.now()); wait < d.Retry.First {
		t.Errorf("it looks at its record again in %s", wait)
	}
	w.name(record, "env_1")
	must(t, w.vendor.Sign("env_1", document("", 1)))
	w.tell(d, "env_1", "completed", "")
	d.finish()
	w.wantDelegated(d, d.load(tx), record, "env_1")
}

func TestAnEnvelopeIsOneDealsOnly(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	first, tx := w.sent(d, "env_1")
	second := w.deal()
	w.name(second, "env_1")
	w.move(second, stageWon)
	other := d.notice()
	d.work()
	d.want(d.load(other), deal.Retrying, deal.Gathered, "is that of "+string(tx))
	must(t, w.vendor.Sign("env_1", document("", 1)))
	w.tell(d, "env_1", "completed", "")
	woken(d)
	w.wantDelegated(d, d.load(tx), first, "env_1")
	d.want(d.load(other), deal.Retrying, deal.Gathered, "is that of "+string(tx))
	w.wantContracts(second, 0)

	// What a person has dropped gives its envelope up.
	w.name(second, "env_2")
	w.vendor.Send("env_2", "")
	w.clock.advance(longestSilence)
	d.work()
	must(t, d.store.Drop(t.Context(), other, "alice", "another record is meant"))
	third := w.deal()
	w.name(third, "env_2")
	w.move(third, stageWon)
	last := d.notice()
	must(t, w.vendor.Sign("env_2", document("", 2)))
	w.tell(d, "env_2", "completed", "")
	d.finish()
	w.wantDelegated(d, d.load(last), third, "env_2")
}

// TestAnEnvelopeThatWasNamedByMistakeIsGivenUp has a record name the envelope of another one, and then its own.
func TestAnEnvelopeThatWasNamedByMistakeIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} { // the other deal comes only once the first is done
		w := newDelegating(t)
		d := w.daemonHere(pades.BB)
		first, tx := w.sent(d, "env_2")
		w.vendor.Send("env_1", "")
		w.name(first, "env_1")
		w.clock.advance(longestSilence)
		d.work()
		d.want(d.load(tx), deal.Retrying, deal.Gathered, "envelope env_1")
		finish := func(tx deal.TxID, record, envelope string) {
			must(t, w.vendor.Sign(envelope, document("", 1)))
			w.tell(d, envelope, "completed", "")
			woken(d)
			w.wantDelegated(d, d.load(tx), record, envelope)
		}
		if late {
			finish(tx, first, "env_1")
		}
		second := w.deal()
		w.move(second, stageWon)
		other := d.notice()
		d.work()
		w.name(second, "env_2")
		w.tell(d, "env_2", "sent", "")
		woken(d)
		d.want(d.load(other), deal.Retrying, deal.Gathered, "certyneo has envelope env_2, which is sent")
		finish(other, second, "env_2")
		if !late {
			finish(tx, first, "env_1")
		}
	}
}

func TestADocumentIsWorthWhatOurVerifierFinds(t *testing.T) {
	t.Parallel()
	unsigned := func(w *delegating) { w.vendor.Serve("env_1", document("", 1)) }
	signed := func(w *delegating) { must(w.t, w.vendor.Sign("env_1", document("", 1))) }
	for name, c := range map[string]struct {
		level  pades.Level
		serve  func(*delegating)
		step   deal.Step
		reason string
		// mend is what lets the deal go on, besides a release; nil when a release alone does.
		mend func(*delegating)
		ends bool // whether it goes on then
	}{
		"no PDF":           {pades.BB, func(w *delegating) { w.vendor.Serve("env_1", []byte("PK\x03\x04")) }, deal.Noticed, "is no PDF", signed, true},
		"no signature":     {pades.BB, unsigned, deal.Sealed, "our own verification of the document that was signed at certyneo", nil, false},
		"changed since":    {pades.BB, func(w *delegating) { signed(w); spoil(w.vendor, "env_1") }, deal.Sealed, "says INVALID", nil, false},
		"less than wanted": {pades.BT, signed, deal.Sealed, "[level] level B-T was asked for, B-B was reached", nil, true},
		"not there":        {pades.BB, func(*delegating) {}, deal.Noticed, "the vendor answers 404", signed, true},
		"token is wrong":   {pades.BB, func(w *delegating) { signed(w); w.vendor.Refuse(1, http.StatusUnauthorized) }, deal.Noticed, "see to vendors.token", func(*delegating) {}, true},
		"moved elsewhere":  {pades.BB, func(w *delegating) { signed(w); w.vendor.Refuse(1, http.StatusFound) }, deal.Noticed, "redirects are not followed", func(*delegating) {}, true},
		"overloaded":       {pades.BB, func(w *delegating) { signed(w); w.vendor.Refuse(3, http.StatusTooManyRequests) }, deal.Done, "", func(*delegating) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newDelegating(t)
			d := w.daemonHere(c.level)
			w.source.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			record, tx := w.sent(d, "env_1")
			c.serve(w)
			w.tell(d, "env_1", "completed", "")
			d.finish()
			if c.reason != "" {
				d.want(d.load(tx), deal.Held, c.step, c.reason)
				w.wantContracts(record, 0)
				if c.mend != nil {
					c.mend(w)
				}
				d.release(tx)
				d.finish()
			}
			if c.ends {
				w.wantDelegated(d, d.load(tx), record, "env_1")
				return
			}
			d.want(d.load(tx), deal.Held, c.step, c.reason)
			w.wantContracts(record, 0)
		})
	}
}

// TestAWrongDocumentIsFetchedAnew has a person prepare a deal again whose vendor gave out another document than the signed one.
func TestAWrongDocumentIsFetchedAnew(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	record, tx := w.sent(d, "env_1")
	w.vendor.Serve("env_1", document("", 1))
	w.tell(d, "env_1", "completed", "")
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Sealed, "prepare the deal again")
	must(t, w.vendor.Sign("env_1", document("", 1)))
	must(t, d.store.PrepareAgain(t.Context(), tx, "alice", "the vendor has the signed one now"))
	d.finish()
	w.wantDelegated(d, d.load(tx), record, "env_1")
	if err := d.store.PrepareAgain(t.Context(), tx, "alice", "once more"); err == nil {
		t.Error("a deal that is done is prepared again")
	}
}

// spoil changes a byte of what was signed.
func spoil(v *esign.Vendor, envelope string) {
	b := v.Document(envelope)
	at := bytes.Index(b, []byte("Quotation"))
	b[at] ^= 1
	v.Serve(envelope, b)
}

func TestAVendorThatSaysNothingIsLookedAfterByAPerson(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	record, tx := w.sent(d, "env_1")
	w.tell(d, "env_1", "viewed", "")
	calls := len(w.org.Requests())
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Noticed, "certyneo has envelope env_1, which is viewed, and that for 720h")
	if n := len(w.org.Requests()) - calls; n > 400 {
		t.Errorf("%d calls to the CRM in a month of silence", n)
	}
	d.tell()
	w.wantShown(record, "Held")
	must(t, w.vendor.Sign("env_1", document("", 1)))
	w.tell(d, "env_1", "completed", "")
	d.release(tx)
	d.finish()
	w.wantDelegated(d, d.load(tx), record, "env_1")
}

func TestADealWhoseVendorIsTakenOutWaitsForIt(t *testing.T) {
	t.Parallel()
	w := newDelegating(t)
	d := w.daemonHere(pades.BB)
	vendor := d.Vendor
	d.Vendor = func(deal.TenantID, string) (Vendor, bool) { return nil, false }
	record := w.deal()
	w.move(record, stageWon)
	tx := d.notice()
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Noticed, "[unconfigured] tenant \"acme\" has no vendor \"certyneo\" any more")
	d.Vendor = vendor
	w.vendor.Send("env_1", "")
	must(t, w.vendor.Sign("env_1", document("", 1)))
	w.name(record, "env_1")
	w.tell(d, "env_1", "completed", "")
	d.release(tx)
	d.finish()
	w.wantDelegated(d, d.load(tx), record, "env_1")
}

func TestAFileNameIsMadeOfATitle(t *testing.T) {
	for title, want := range map[string]string{
		"":                       "signed_contract.pdf",
		"Order 7":                "Order 7.pdf",
		"Order 7.PDF":            "Order 7.pdf",
		" ../../etc/passwd\r\n":  "etc passwd.pdf",
		"...":                    "signed_contract.pdf",
		strings.Repeat("ä", 200): strings.Repeat("ä", longestTitle) + ".pdf",
		"a\x00b\xffc":            "a bc.pdf",
	} {
		if got := nameOf(deal.VendorEvent{Title: title}); got != want {
			t.Errorf("%q gives %q, want %q", title, got, want)
		}
	}
}
