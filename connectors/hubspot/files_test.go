package hubspot

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors/connectortest"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func pdf(size int, seed byte) deal.File {
	b := bytes.Repeat([]byte{seed}, size)
	copy(b, "%PDF-1.7\n")
	sha, sum := sha256.Sum256(b), md5.Sum(b)
	return deal.File{
		ReaderAt: bytes.NewReader(b), Name: "contract.pdf", MediaType: "application/pdf", Length: int64(size),
		SHA256: hex.EncodeToString(sha[:]), MD5: hex.EncodeToString(sum[:]),
	}
}

func txOf(id string) deal.TxID { return deal.NewTxID("hubspot:1", dealRef(id), "contract", "x") }

func attach(t *testing.T, c *Connector, id string, f deal.File) deal.Attachment {
	t.Helper()
	a, err := c.Attach(t.Context(), dealRef(id), txOf(id), deal.RoleContract, f)
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	return a
}

func notesOf(t *testing.T, w *world, id string) []mock.Note {
	t.Helper()
	notes, err := w.portal.Notes(id)
	w.must(err)
	return notes
}

func TestAttachedFileIsPrivateAndInAFolderOfItsOwn(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	a := attach(t, w.connector(quiet()), id, pdf(1000, 'a'))
	f, err := w.portal.FileByID(a.ID)
	w.must(err)
	if f.Access != "PRIVATE" || !strings.HasPrefix(f.Path, "/dealseal/"+id+"/") || !strings.HasSuffix(f.Path, "/contract.pdf") {
		t.Errorf("the file is %s at %s, want PRIVATE below /dealseal/%s", f.Access, f.Path, id)
	}
	notes := notesOf(t, w, id)
	if len(notes) != 1 || !notes[0].Time.Equal(w.Now()) || !strings.Contains(notes[0].Body, deal.Marker(txOf(id), deal.RoleContract)) {
		t.Errorf("notes %+v, want one with our marker and the CRM's time", notes)
	}
}

func TestFileThatAUserAddsToOurNoteIsNotTakenForOurs(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	c := w.connector(quiet())
	a := attach(t, c, id, pdf(1000, 'a'))
	w.AddFile(id, "theirs.pdf", []byte("%PDF theirs"))
	notes := notesOf(t, w, id)
	theirs := notes[1].AttachmentIDs[0]
	w.must(w.portal.Update("notes", notes[0].ID, map[string]string{"hs_attachment_ids": theirs + ";" + a.ID}))
	for _, f := range readRecord(t, c, id).Files {
		if ours := f.ID == a.ID; (f.Tx != "") != ours {
			t.Errorf("file %s of transaction %q, ours is %s", f.ID, f.Tx, a.ID)
		}
	}
}

// TestFileThatWasDeletedIsPutBackOnTheSameNote also keeps what others have added to the note.
func TestFileThatWasDeletedIsPutBackOnTheSameNote(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	c := w.connector(quiet())
	f := pdf(1000, 'a')
	a := attach(t, c, id, f)
	note := notesOf(t, w, id)[0]
	w.must(w.portal.Update("notes", note.ID, map[string]string{"hs_attachment_ids": a.ID + ";4711"}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, w.url+"/files/2026-03/files/"+a.ID, nil)
	w.must(err)
	req.Header.Set("Authorization", "Bearer "+testToken)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	resp.Body.Close()

	b := attach(t, c, id, f)
	notes := notesOf(t, w, id)
	if b.ID == a.ID || len(notes) != 1 || strings.Join(notes[0].AttachmentIDs, ";") != b.ID+";4711" {
		t.Errorf("attached %s after %s was deleted, notes %+v; want one note with the new file", b.ID, a.ID, notes)
	}
	if rec := readRecord(t, c, id); len(rec.Files) != 1 || rec.Files[0].Tx != txOf(id) {
		t.Errorf("files %+v, want ours", rec.Files)
	}
	if again := attach(t, c, id, f); again != b {
		t.Errorf("attached once more: %+v, want %+v", again, b)
	}
}

func TestFileThatWasTakenOffOurNoteIsPutBack(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	c := w.connector(quiet())
	a := attach(t, c, id, pdf(1000, 'a'))
	w.must(w.portal.Update("notes", notesOf(t, w, id)[0].ID, map[string]string{"hs_attachment_ids": ""}))
	b := attach(t, c, id, pdf(1000, 'a'))
	if files := w.Files(id); b != a || len(files) != 1 || len(notesOf(t, w, id)) != 1 {
		t.Errorf("attached %+v again as %+v, %d files on the deal", a, b, len(files))
	}
}

// TestLostRepliesAreClearedUpAtOnce holds that one call is enough: the job does not have to come back.
func TestLostRepliesAreClearedUpAtOnce(t *testing.T) {
	for _, effect := range []connectortest.Effect{connectortest.LoseReply, connectortest.Truncated} {
		for _, call := range []connectortest.Call{connectortest.UploadCall, connectortest.LinkCall} {
			w := newWorld(t, FlowToken)
			id := w.CreateDeals(1, "contractsent")[0]
			w.must(w.Fail(call, effect, 1))
			attach(t, w.connector(quiet()), id, pdf(1000, 'a'))
			if stored := w.portal.StoredFiles(); len(stored) != 1 || len(notesOf(t, w, id)) != 1 {
				t.Errorf("%s at %s: %d files are stored, want 1 on 1 note", effect, call, len(stored))
			}
		}
	}
}

// TestAFileThatWasDeletedStandsInNobodysWay holds that the note which outlives a file is not taken for one.
func TestAFileThatWasDeletedStandsInNobodysWay(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	c := w.connector(quiet())
	a := attach(t, c, id, pdf(1000, 'a'))
	w.must(w.portal.DeleteFile(a.ID))
	b := attach(t, c, id, pdf(1000, 'b'))
	if files := w.Files(id); a.ID == b.ID || len(files) != 1 || !bytes.Equal(files[0].Content, bytesOf(t, pdf(1000, 'b'))) {
		t.Errorf("%d files, IDs %s and %s; want the second alone", len(files), a.ID, b.ID)
	}
}

func TestAFileThatIsTooLargeForHubSpotIsRefusedForGood(t *testing.T) {
	w := newWorldWith(t, FlowToken, func(o *mock.Options) { o.MaxFileSize = 1000 })
	id := w.CreateDeals(1, "contractsent")[0]
	_, err := w.connector(quiet()).Attach(t.Context(), dealRef(id), txOf(id), deal.RoleContract, pdf(1001, 'a'))
	if !deal.IsPermanent(err) || !strings.Contains(err.Error(), "larger than what HubSpot takes") {
		t.Errorf("got %v", err)
	}
	attach(t, w.connector(quiet()), id, pdf(1000, 'a'))
}

func bytesOf(t *testing.T, f deal.File) []byte {
	t.Helper()
	b, err := io.ReadAll(f.Open())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// short ends before its Length.
type short struct{ io.ReaderAt }

func TestFileThatEndsEarlyIsNotStored(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	f := pdf(10_000, 'a')
	f.ReaderAt = short{bytes.NewReader([]byte("%PDF-1.7 half"))}
	if _, err := w.connector(quiet()).Attach(t.Context(), dealRef(id), txOf(id), deal.RoleContract, f); err == nil {
		t.Error("a file that ends early was attached")
	}
	if files := w.portal.StoredFiles(); len(files) != 0 {
		t.Errorf("%d files are stored, the first with %d bytes", len(files), files[0].Size)
	}
}

// TestUploadIsSentWholeAgain: the token dies while the file is on its way.
func TestUploadIsSentWholeAgainAfterTheTokenDied(t *testing.T) {
	w := newWorld(t, FlowOAuth)
	id := w.CreateDeals(1, "contractsent")[0]
	w.must(w.Fail(connectortest.UploadCall, connectortest.Expired, 1))
	f := pdf(100_000, 'a')
	attach(t, w.connector(quiet()), id, f)
	if files := w.portal.StoredFiles(); len(files) != 1 || files[0].MD5 != f.MD5 {
		t.Errorf("stored: %d files", len(files))
	}
}

// withoutMD5 is HubSpot not reporting the checksum.
func withoutMD5(t *testing.T) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil || !strings.HasPrefix(r.URL.Path, "/files/") {
			return resp, err
		}
		defer resp.Body.Close()
		var v map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
			t.Errorf("reply to %s: %v", r.URL.Path, err)
		}
		delete(v, "fileMd5")
		if f, ok := v["file"].(map[string]any); ok {
			delete(f, "fileMd5")
		}
		b, err := json.Marshal(v)
		resp.Body = io.NopCloser(bytes.NewReader(b))
		return resp, err
	})
}

func TestBytesAreComparedWhereHubSpotReportsNoChecksum(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	c := w.connectorOver(withoutMD5(t), quiet())
	f := pdf(5000, 'a')
	w.must(w.Fail(connectortest.UploadCall, connectortest.Corrupted, 1))
	if _, err := c.Attach(t.Context(), dealRef(id), txOf(id), deal.RoleContract, f); err == nil || deal.IsPermanent(err) {
		t.Fatalf("a damaged file of the right size: %v, want a passing error", err)
	}
	attach(t, c, id, f)
	if files := w.Files(id); len(files) != 1 {
		t.Errorf("%d files on the deal, want 1", len(files))
	}
}

func TestDownloadSendsNoTokenToTheSignedURL(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	w.AddFile(id, "quote.pdf", []byte("%PDF quote"))
	fileID := w.Files(id)[0].ID
	var signed []string
	c := w.connectorOver(roundTrip(func(r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.URL.Path, "/signed-content/") {
			signed = append(signed, r.Header.Get("Authorization"))
		}
		return http.DefaultTransport.RoundTrip(r)
	}), quiet())
	var b bytes.Buffer
	if err := c.Download(t.Context(), dealRef(id), fileID, &b, 10); err != nil || b.String() != "%PDF quote" {
		t.Fatalf("Download gives %q and %v", b.String(), err)
	}
	if len(signed) != 1 || signed[0] != "" {
		t.Errorf("the signed URL was called with %q, want once without a token", signed)
	}
}

func TestSignedURLsThatMustNotBeFollowedAreNot(t *testing.T) {
	for _, target := range []string{"http://169.254.169.254/latest", "http://evil.example/x", "file:///etc/passwd", "ftp://x/y", "https://user:pw@x/y", "//x", "", "%"} {
		server := &canned{status: 200, body: `{"url":` + quoted(target) + `}`}
		c := bubbleConnector(t, server, Config{})
		err := c.Download(t.Context(), dealRef("1"), "2", io.Discard, 10)
		if err == nil || server.calls != 1 {
			t.Errorf("URL %q was followed: %d calls, %v", target, server.calls, err)
		}
		if target != "" && err != nil && strings.Contains(err.Error(), target) {
			t.Errorf("the error repeats the URL, which opens the file: %v", err)
		}
	}
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(b)
}

func TestFileNamesAreNoPaths(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, "contractsent")[0]
	f := pdf(100, 'a')
	f.Name = "../../a\\b\r\nX: 1/Vertrag – Łódź?#%.pdf"
	c := w.connector(quiet())
	a := attach(t, c, id, f)
	stored, err := w.portal.FileByID(a.ID)
	w.must(err)
	if !strings.HasPrefix(stored.Path, "/dealseal/"+id+"/") || !strings.HasSuffix(stored.Path, "/..-..-a-b--X: 1-Vertrag – Łódź?#%.pdf") {
		t.Errorf("stored at %q", stored.Path)
	}
	// The note is lost, the file is found by its path.
	w.must(w.portal.Update("notes", notesOf(t, w, id)[0].ID, map[string]string{"hs_note_body": "edited", "hs_attachment_ids": ""}))
	if again := attach(t, c, id, f); again != a {
		t.Errorf("attached again as %+v, want %+v", again, a)
	}
}

func TestNotesAreUnderstood(t *testing.T) {
	tx, sha := txOf("1"), strings.Repeat("ab", 32)
	text := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		body string
		file string // "" when the note is not ours
	}{
		"ours":           {key(tx, deal.RoleContract, sha, "77"), "77"},
		"in HTML":        {"<p>Sealed. " + key(tx, deal.RoleContract, sha, "77") + "</p>", "77"},
		"no file":        {deal.Marker(tx, deal.RoleContract) + ":" + sha, ""},
		"marker only":    {deal.Marker(tx, deal.RoleContract), ""},
		"no hash":        {deal.Marker(tx, deal.RoleContract) + ":zz:77", ""},
		"file 0":         {key(tx, deal.RoleContract, sha, "0"), ""},
		"a user's words": {"please seal this", ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := parseNote(object{ID: "5", Properties: map[string]*string{"hs_note_body": text(c.body), "hs_attachment_ids": text("77;78")}})
			if n.file != c.file || (n.tx == tx) != (c.file != "") || len(n.files) != 2 {
				t.Errorf("read as %+v", n)
			}
		})
	}
}

func TestMergedDealKeepsItsAttachment(t *testing.T) {
	w := newWorld(t, FlowToken)
	ids := w.CreateDeals(2, "contractsent")
	c := w.connector(quiet())
	f := pdf(1000, 'a')
	a := attach(t, c, ids[1], f)
	_, err := w.Merge(ids[0], ids[1])
	w.must(err)
	w.Advance(time.Second)
	if b := attach(t, c, ids[1], f); b.ID != a.ID || len(w.portal.StoredFiles()) != 1 {
		t.Errorf("attached to a merged deal's old ID as %s, want %s again", b.ID, a.ID)
	}
	var hold *deal.HoldError
	if _, err := c.Attach(t.Context(), dealRef(ids[1]), txOf(ids[1]), deal.RoleContract, pdf(1000, 'b')); !errors.As(err, &hold) {
		t.Errorf("another contract of the same transaction gives %v, want a hold", err)
	}
	if files := w.Files(ids[1]); len(files) != 1 {
		t.Errorf("%d files on the merged deal, want 1", len(files))
	}
}
