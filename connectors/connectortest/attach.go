package connectortest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// content is size bytes that look like a PDF from outside, always the same for one size.
func content(size int) []byte {
	b := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	rnd.Read(b)
	copy(b, "%PDF-1.7\n")
	return b
}

func file(t testing.TB, name string, size int) deal.File {
	t.Helper()
	b := content(size)
	sha, sum := sha256.Sum256(b), md5.Sum(b)
	return deal.File{
		ReaderAt: bytes.NewReader(b), Name: name, MediaType: "application/pdf", Length: int64(size),
		SHA256: hex.EncodeToString(sha[:]), MD5: hex.EncodeToString(sum[:]),
	}
}

func txFor(id string) deal.TxID {
	return deal.NewTxID("test:1", deal.Ref{Object: "Deal", ID: id}, "contract", "entry")
}

func attach(t *testing.T, crm connectors.CRM, r deal.Ref, tx deal.TxID, role deal.Role, f deal.File) deal.Attachment {
	t.Helper()
	var a deal.Attachment
	err := attempts(t, 3, func() (err error) {
		a, err = crm.Attach(callContext(t), r, tx, role, f)
		return err
	})
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	if a.ID == "" || a.URL == "" {
		t.Errorf("the attachment has no ID or URL: %+v", a)
	}
	return a
}

// stored holds that the deal has exactly these contents, in any order.
func stored(t *testing.T, w World, id string, want ...deal.File) {
	t.Helper()
	files := w.Files(id)
	if len(files) != len(want) {
		t.Errorf("the deal has %d files, want %d", len(files), len(want))
	}
	for _, f := range want {
		b := make([]byte, f.Length)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, s := range files {
			found = found || s.Name == f.Name && bytes.Equal(s.Content, b)
		}
		if !found {
			t.Errorf("no file on the deal is %s with its %d bytes", f.Name, f.Length)
		}
	}
}

func testAttach(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	tx, f := txFor(id), file(t, "Order form – Łódź GmbH.pdf", 3<<20)
	first := attach(t, crm, ref(w, id), tx, deal.RoleContract, f)
	stored(t, w, id, f)

	rec := read(t, crm, ref(w, id))
	got, ok := rec.Sealed(tx, deal.RoleContract)
	if !ok || got.ID != first.ID || got.Name != f.Name || got.Size != f.Length || got.MD5 != "" && got.MD5 != f.MD5 {
		t.Errorf("the record shows our file as %+v (found: %t), want %s, %s, %d bytes", got, ok, first.ID, f.Name, f.Length)
	}

	uploads := w.Requests(UploadCall)
	for _, again := range []connectors.CRM{crm, w.Connector(quiet())} {
		w.Advance(time.Second)
		if a := attach(t, again, ref(w, id), tx, deal.RoleContract, f); a != first {
			t.Errorf("a second Attach gives %+v, the first gave %+v", a, first)
		}
	}
	if n := w.Requests(UploadCall) - uploads; n != 0 {
		t.Errorf("the file was uploaded %d times more", n)
	}
	stored(t, w, id, f)
}

func testTwoRoles(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	tx := txFor(id)
	contract, trail := file(t, "contract.pdf", 5000), file(t, "contract audit trail.pdf", 3000)
	a := attach(t, crm, ref(w, id), tx, deal.RoleContract, contract)
	b := attach(t, crm, ref(w, id), tx, deal.RoleAuditTrail, trail)
	if a.ID == b.ID {
		t.Error("contract and audit trail are one file")
	}
	stored(t, w, id, contract, trail)
	rec := read(t, crm, ref(w, id))
	for role, want := range map[deal.Role]string{deal.RoleContract: a.ID, deal.RoleAuditTrail: b.ID} {
		if f, ok := rec.Sealed(tx, role); !ok || f.ID != want {
			t.Errorf("the record's %s is %+v, want %s", role, f, want)
		}
	}
}

func testTwoTransactions(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	f := file(t, "contract.pdf", 5000)
	a := attach(t, crm, ref(w, id), txFor(id), deal.RoleContract, f)
	b := attach(t, crm, ref(w, id), txFor(id+"#2"), deal.RoleContract, f)
	if a.ID == b.ID {
		t.Error("two transactions share one file")
	}
	stored(t, w, id, f, f)
}

// testAnotherFile holds that a second contract never comes beside the first of its transaction, whoever made that one. A
// person looks at both; when the other is gone, ours is taken.
func testAnotherFile(t *testing.T, w World) {
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	theirs, ours := file(t, "contract.pdf", 5000), file(t, "contract.pdf", 6000)
	attach(t, w.Connector(quiet()), ref(w, id), txFor(id), deal.RoleContract, theirs)
	for _, crm := range []connectors.CRM{w.Connector(quiet()), w.Connector(quiet())} {
		w.Advance(time.Second)
		var hold *deal.HoldError
		if _, err := crm.Attach(callContext(t), ref(w, id), txFor(id), deal.RoleContract, ours); !errors.As(err, &hold) {
			t.Errorf("a second contract of one transaction gives %v, want a hold", err)
		}
	}
	stored(t, w, id, theirs)
	attach(t, w.Connector(quiet()), ref(w, id), txFor(id), deal.RoleAuditTrail, ours)
	stored(t, w, id, theirs, ours)
}

// testUploadUnanswered holds that an upload which got no answer in time, and may still be carried out, is not repeated soon.
func testUploadUnanswered(t *testing.T, w World) {
	for _, call := range []Call{UploadCall, LinkCall} { // last what one of the CRMs has not
		id := w.CreateDeals(1, w.Traits().Stage)[0]
		f := file(t, "contract.pdf", 3000)
		supported(t, w.Fail(call, Hang, 1))
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := w.Connector(quiet()).Attach(short, ref(w, id), txFor(id), deal.RoleContract, f)
		cancel()
		w.Heal()
		if wait := min(deal.RetryAfter(err), deal.Unsettled(err)); err == nil || deal.IsPermanent(err) || wait < 5*time.Minute {
			t.Errorf("a %s call that nobody answers gives %v (retry after %s), want one that is given minutes", call, err, wait)
		}
	}
}

// testCorruptedUpload holds that what arrives damaged is never taken for attached, and that it is mended.
func testCorruptedUpload(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	f := file(t, "contract.pdf", 9000)
	supported(t, w.Fail(UploadCall, Corrupted, 1))
	_, err := crm.Attach(callContext(t), ref(w, id), txFor(id), deal.RoleContract, f)
	if err == nil || deal.IsPermanent(err) {
		t.Fatalf("Attach of a file that arrived damaged gives %v, want an error that is worth another try", err)
	}
	attach(t, w.Connector(quiet()), ref(w, id), txFor(id), deal.RoleContract, f)
	stored(t, w, id, f)
}

func testUploadReplyLost(t *testing.T, w World) {
	oneFileAfter(t, w, UploadCall, LoseReply)
}

func testLinkReplyLost(t *testing.T, w World) {
	oneFileAfter(t, w, LinkCall, LoseReply)
}

func testUploadCut(t *testing.T, w World) {
	oneFileAfter(t, w, UploadCall, CutBefore)
}

// oneFileAfter attaches while calls fail, over a restart, and holds that there is one file in the end.
func oneFileAfter(t *testing.T, w World, call Call, effect Effect) {
	t.Helper()
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	f := file(t, "contract.pdf", 200_000)
	supported(t, w.Fail(call, effect, 2))
	err := attempts(t, 2, func() error {
		_, err := w.Connector(quiet()).Attach(callContext(t), ref(w, id), txFor(id), deal.RoleContract, f)
		return err
	})
	if deal.IsPermanent(err) {
		t.Fatalf("%s of %s gives %v, which is permanent", effect, call, err)
	}
	w.Heal()
	attach(t, w.Connector(quiet()), ref(w, id), txFor(id), deal.RoleContract, f)
	stored(t, w, id, f)
}

// testSeveralFilesReplyLost holds that of files which go onto a record together none is forgotten when the reply to one is
// lost, whether small ones travel in one call or large ones each by itself.
func testSeveralFilesReplyLost(t *testing.T, w World) {
	for _, effect := range []Effect{LoseReply, CutBefore} {
		for _, size := range []int{5_000, 400_000} {
			id := w.CreateDeals(1, w.Traits().Stage)[0]
			contract, trail := file(t, "contract.pdf", size), file(t, "contract - audit trail.pdf", size+1)
			pieces := []connectors.Piece{{Role: deal.RoleContract, File: contract, New: true}, {Role: deal.RoleAuditTrail, File: trail, New: true}}
			supported(t, w.Fail(UploadCall, effect, 1))
			var at []deal.Attachment
			err := attempts(t, 5, func() (err error) {
				at, err = w.Connector(quiet()).(connectors.Bundler).AttachAll(callContext(t), ref(w, id), txFor(id), pieces)
				return err
			})
			w.Heal()
			if err != nil {
				t.Fatalf("%s, %d bytes: AttachAll: %v", effect, size, err)
			}
			for i, a := range at {
				if a.ID == "" || a.URL == "" {
					t.Errorf("%s, %d bytes: the %s is said to be on the record as %+v", effect, size, pieces[i].Role, a)
				}
			}
			stored(t, w, id, contract, trail)
		}
	}
}
