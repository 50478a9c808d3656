package engine

import (
	"bytes"
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func TestASecondLedgerAdoptsTheContractThatTheRecordBears(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	withTrail := func(p *deal.Plan) { p.AuditTrail = trailBundle(t) }
	first := w.daemon(withTrail)
	record := w.won()
	made := first.run()
	first.wantDone(made)
	first.close()

	second := w.daemon(withTrail)
	s := second.run()
	second.wantDone(s)
	w.wantUses(1)
	w.wantContracts(record, 1)
	if n := len(w.org.Files(record)); n != 3 {
		t.Errorf("the record has %d files, want quotation, contract and one audit trail", n)
	}
	if s.Tx != made.Tx || !s.Facts.Adopted || s.Facts.Digest != "" || s.Facts.Signature {
		t.Errorf("transaction %s for %s, adopted %v, digest %q, signature %v", s.Tx, made.Tx, s.Facts.Adopted, s.Facts.Digest, s.Facts.Signature)
	}
	if s.Facts.Level != "B-T" || s.Facts.Cert == nil || s.Facts.Cert.SHA256 != made.Facts.Cert.SHA256 || !s.Facts.SealedAt.Equal(made.Facts.SealedAt) {
		t.Errorf("what is known of the seal differs: %+v", s.Facts)
	}
	kept, err := second.store.OpenKept(t.Context(), s.Facts.Archive, "contract.pdf")
	must(t, err)
	defer kept.Close()
	archived, err := io.ReadAll(kept.Open())
	must(t, err)
	if !bytes.Equal(archived, w.contracts(record)[0]) {
		t.Error("the archive has another contract than the record")
	}
	w.wantShown(record, "Signed")
}

// plant puts a file on the record that bears the marker of a transaction.
func (w *world) plant(record string, tx deal.TxID, content []byte) {
	w.t.Helper()
	w.id(w.org.Create("ContentVersion", map[string]any{
		"Title": "Contract", "PathOnClient": "Contract.pdf", "Description": deal.Marker(tx, deal.RoleContract), "FirstPublishLocationId": record,
		"VersionData": base64.StdEncoding.EncodeToString(content),
	}))
}

func TestAContractThatDoesNotVerifyIsNotAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon()
	first.wantDone(signedElsewhere(first))
	sealed := w.contracts(w.org.Records("Opportunity")[0])[0]
	tampered := slices.Clone(sealed)
	tampered[bytes.Index(tampered, []byte("Quotation 1"))] ^= 1

	for name, content := range map[string][]byte{"a changed contract": tampered, "an unsigned document": document("", 7), "no PDF": []byte("hello")} {
		record := w.won()
		tx := first.notice()
		w.plant(record, tx, content)
		uses := w.key.uses()
		first.finish()
		s := first.load(tx)
		if s.Condition == deal.Running || s.Step != deal.Sealed || s.Facts.Archive != "" {
			t.Errorf("%s: the deal is %s at %q, archived as %q", name, s.Condition, s.Step, s.Facts.Archive)
		}
		if s.Condition == deal.Held && !strings.Contains(s.Reason, "our own verification of it says") {
			t.Errorf("%s: held because %q", name, s.Reason)
		}
		if w.key.uses() != uses {
			t.Errorf("%s: the key was used", name)
		}
		first.tell()
		w.wantShown(record, "Held")
	}
}

// signedElsewhere runs a deal of its own to its end.
func signedElsewhere(d *daemon) *deal.Sealing {
	d.t.Helper()
	d.w.won()
	return d.run()
}

func TestAContractThatAppearsBeforeTheLastLookIsAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	other := w.daemon() // the same account under another state directory
	record := w.won()
	tx := d.notice()
	w.tick()
	d.until("gather.call.record/after", func() { other.wantDone(other.run()) }) // before d has spoken of it
	d.finish()
	s := d.load(tx)
	d.wantDone(s)
	w.wantUses(1)
	w.wantContracts(record, 1)
	if !s.Facts.Adopted {
		t.Error("the contract was not adopted")
	}
}

func TestAnUploadWhoseReplyIsLostIsFoundAndNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.loseReply(mock.KindUpload)
	record := w.won()
	d.wantDone(d.run())
	w.wantContracts(record, 1)
	w.wantUses(1)
}

func TestAContractThatAnotherKeySealedIsAdoptedOnlyWhenReleased(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon()
	record := w.won()
	first.wantDone(first.run())
	first.close()
	old := w.key
	w.key = newHouse(t, w.authority)
	second := w.daemon()
	s := second.run()
	second.want(s, deal.Held, deal.Sealed, "[adopted] ")
	second.want(s, deal.Held, deal.Sealed, "another key")
	second.release(s.Tx)
	second.finish()
	second.wantDone(second.load(s.Tx))
	w.wantUses(0)
	w.wantContracts(record, 1)
	if old.uses() != 1 {
		t.Errorf("the old key was used %d times, want once", old.uses())
	}
}

func TestTheContractOfAnotherTransactionIsNotAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	other := w.won()
	d.wantDone(d.run())
	record := w.won()
	tx := d.notice()
	w.plant(record, tx, w.contracts(other)[0])
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Sealed, "does not name the transaction")
	w.wantUses(1)
}

func TestARecordThatSaysSignedWithoutItsContractIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.daemon()
	record := w.won()
	first.wantDone(first.run())
	first.close()
	for _, f := range w.org.Files(record) {
		if strings.Contains(string(f.Versions[0].Content), "/ByteRange") {
			must(t, w.org.Delete(f.DocumentID))
		}
	}
	w.wantContracts(record, 0)
	second := w.daemon()
	s := second.run()
	second.want(s, deal.Held, deal.Noticed, "[missing] ")
	w.wantUses(1)
	second.release(s.Tx)
	second.finish()
	second.wantDone(second.load(s.Tx))
	w.wantContracts(record, 1)
}

// A file that the CRM carries out late would stand beside the one of an attempt that was made too soon.
func TestARetryByHandDoesNotAttachBesideAnAttemptThatMayStillBeCarriedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	w.fault(mock.Fault{Kind: mock.KindUpload, Effect: mock.CutBefore, Times: 1})
	tx := d.notice()
	d.work()
	d.want(d.load(tx), deal.Retrying, deal.Kept, "it may still be carried out")
	for range 2 { // also by another process
		must(t, d.store.Retry(t.Context(), tx, "alice", "now"))
		d.handle(tx)
		s := d.load(tx)
		d.want(s, deal.Retrying, deal.Kept, "an earlier attempt got no clear answer")
		if s.Next.Before(s.Facts.AttachAfter) {
			t.Errorf("the next attempt is at %s, before %s", s.Next, s.Facts.AttachAfter)
		}
		w.wantContracts(record, 0)
		d.close()
		d = w.daemonIn(d.dir)
	}
	d.finish()
	d.wantDone(d.load(tx))
	w.wantContracts(record, 1)
}

// Whoever has bought more calls knows better than the pause that the CRM's refusal asks for.
func TestARetryByHandAttachesAtOnceWhatTheCRMHadRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	record := w.won()
	w.fault(mock.Fault{Kind: mock.KindUpload, Effect: mock.RequestLimit, Times: 1})
	tx := d.notice()
	d.work()
	d.want(d.load(tx), deal.Retrying, deal.Kept, "REQUEST_LIMIT_EXCEEDED")
	must(t, d.store.Retry(t.Context(), tx, "alice", "more calls were bought"))
	d.handle(tx)
	d.wantDone(d.load(tx))
	w.wantContracts(record, 1)
}
