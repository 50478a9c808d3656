package salesforce

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func testFile(name string, size int) deal.File {
	b := bytes.Repeat([]byte("%PDF "), size/5+1)[:size]
	sha, sum := sha256.Sum256(b), md5.Sum(b)
	return deal.File{
		ReaderAt: bytes.NewReader(b), Name: name, MediaType: "application/pdf", Length: int64(size),
		SHA256: hex.EncodeToString(sha[:]), MD5: hex.EncodeToString(sum[:]),
	}
}

var (
	testTx   = deal.NewTxID("salesforce:00D", deal.Ref{Object: Object, ID: "006"}, "r", "008")
	contract = deal.RoleContract
)

func opportunity(id string) deal.Ref { return deal.Ref{Object: Object, ID: id} }

// A user may upload a new version of our file; the sealed one is still there and must not be attached again.
func TestFileIsFoundUnderANewerVersionOfAUser(t *testing.T) {
	w := newWorld(t, "DealSeal_Key__c")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	f := testFile("contract.pdf", 500)
	first, err := c.Attach(t.Context(), opportunity(id), testTx, contract, f)
	w.must(err)
	// The mock's control surface makes documents only, so the user's new version goes over the wire, with another client.
	form, err := newForm(map[string]string{"ContentDocumentId": w.org.Files(id)[0].DocumentID, "Title": "contract", "PathOnClient": "contract.pdf"}, testFile("x", 50))
	w.must(err)
	body, err := io.ReadAll(form.open())
	w.must(err)
	_, err = c.call(t.Context(), http.MethodPost, c.wire.path("sobjects/ContentVersion"), http.Header{"Content-Type": {form.mediaType}}, body)
	w.must(err)

	again, err := c.Attach(t.Context(), opportunity(id), testTx, contract, f)
	if err != nil || again != first {
		t.Errorf("Attach gives %+v, %v; want the first file %+v", again, err, first)
	}
	rec, err := c.Record(t.Context(), opportunity(id), nil)
	w.must(err)
	if sealed, ok := rec.Sealed(testTx, contract); !ok || sealed.ID != first.ID || sealed.MD5 != f.MD5 {
		t.Errorf("the record's sealed file is %+v, want version %s", sealed, first.ID)
	}
	var got bytes.Buffer
	w.must(c.Download(t.Context(), opportunity(id), first.ID, &got, f.Length))
	if int64(got.Len()) != f.Length {
		t.Errorf("Download gives %d bytes, want the sealed version's %d", got.Len(), f.Length)
	}
}

// With a unique key field Salesforce itself refuses a second file: the connector takes the one that is there and puts
// it back on the record.
func TestUniqueKeyLeadsToTheFileThatLostItsPlace(t *testing.T) {
	w := newWorld(t, "DealSeal_Key__c")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	f := testFile("contract.pdf", 500)
	first, err := c.Attach(t.Context(), opportunity(id), testTx, contract, f)
	w.must(err)
	for _, link := range w.org.Records("ContentDocumentLink") {
		if fields, ok := w.org.Record(link); ok && fields["LinkedEntityId"] == id {
			w.Delete(link)
		}
	}
	if n := len(w.org.Files(id)); n != 0 {
		t.Fatalf("%d files are on the record after their link was removed", n)
	}
	again, err := c.Attach(t.Context(), opportunity(id), testTx, contract, f)
	if err != nil || again != first {
		t.Errorf("Attach gives %+v, %v; want %+v", again, err, first)
	}
	if n := len(w.org.Files(id)); n != 1 {
		t.Errorf("%d files are on the record, want the one", n)
	}
}

func TestMarkerFieldThatGuardsNothingIsRefused(t *testing.T) {
	for name, field := range map[string]mock.Field{
		"not unique":  {Name: "K__c", Type: mock.TypeString, Length: 255, ExternalID: true},
		"not indexed": {Name: "K__c", Type: mock.TypeString, Length: 255, Unique: true},
		"too short":   {Name: "K__c", Type: mock.TypeString, Length: 80, Unique: true, ExternalID: true},
		"missing":     {Name: "Other__c", Type: mock.TypeString, Length: 255, Unique: true, ExternalID: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "K__c")
			w.org = mock.New(mock.Options{Now: w.Now, ConsumerKey: testKey, ClientSecret: testSecret, CustomFields: map[string][]mock.Field{"ContentVersion": {field}}})
			id := w.CreateDeals(1, "Closed Won")[0]
			_, err := w.connector(nil).Attach(t.Context(), opportunity(id), testTx, contract, testFile("c.pdf", 9))
			if !deal.IsPermanent(err) || !strings.Contains(err.Error(), "K__c") {
				t.Errorf("Attach gives %v", err)
			}
		})
	}
}

func TestFileNameIsReadableAndHarmless(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	name := "Order \"form\"\r\nX: y – Łódź" + strings.Repeat("ł", 300) + ".pdf"
	_, err := c.Attach(t.Context(), opportunity(id), testTx, contract, testFile(name, 100))
	w.must(err)
	f := w.org.Files(id)[0]
	if n := len([]rune(f.Title)); n != maxTitle || !strings.HasPrefix(name, f.Title) || strings.Contains(f.Title, "dealseal") {
		t.Errorf("the title has %d characters: %q", n, f.Title)
	}
	if f.Versions[0].Name != name {
		t.Errorf("the file is named %q", f.Versions[0].Name)
	}
	if url := c.page("ContentDocument", f.DocumentID); !strings.HasSuffix(url, "/lightning/r/ContentDocument/"+f.DocumentID+"/view") {
		t.Errorf("URL %s", url)
	}
}

func TestUploadWhoseReplyIsLostIsFoundByTheSameCall(t *testing.T) {
	for _, effect := range []mock.Effect{mock.CutAfter, mock.TruncatedJSON, mock.UnavailableAfter} {
		for _, marker := range []string{"", "DealSeal_Key__c"} {
			w := newWorld(t, marker)
			id := w.CreateDeals(1, "Closed Won")[0]
			_, err := w.org.SetFault(mock.Fault{Kind: mock.KindUpload, Effect: effect, Times: 1})
			w.must(err)
			if _, err := w.connector(nil).Attach(t.Context(), opportunity(id), testTx, contract, testFile("c.pdf", 5000)); err != nil {
				t.Errorf("%s: %v", effect, err)
			}
			if n := len(w.org.Files(id)); n != 1 || w.org.Counts()[mock.KindUpload] != 1 {
				t.Errorf("%s: %d files after %d uploads", effect, n, w.org.Counts()[mock.KindUpload])
			}
		}
	}
}

// counted is a file that notes how much of it is asked for at once.
type counted struct {
	bytes.Reader
	most int
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.most = max(c.most, len(p))
	return c.Reader.ReadAt(p, off)
}

func TestUploadIsStreamedAndReplayedWhole(t *testing.T) {
	w := newWorld(t, "")
	c := w.connector(nil)
	id := w.CreateDeals(1, "Closed Won")[0]
	f := testFile("contract.pdf", 8<<20)
	content := make([]byte, f.Length)
	_, err := f.ReadAt(content, 0)
	w.must(err)
	source := &counted{Reader: *bytes.NewReader(content)}
	f.ReaderAt = source
	_, err = w.org.SetFault(mock.Fault{Kind: mock.KindUpload, Effect: mock.SessionInvalid, Times: 1})
	w.must(err)
	_, err = c.Attach(t.Context(), opportunity(id), testTx, contract, f)
	w.must(err)
	if n := w.org.Counts()[mock.KindUpload]; n != 2 {
		t.Errorf("%d uploads, want the refused one and its replay", n)
	}
	if files := w.org.Files(id); len(files) != 1 || !bytes.Equal(files[0].Versions[0].Content, content) {
		t.Error("the replayed upload is not the whole file")
	}
	if source.most > 1<<20 {
		t.Errorf("%d bytes of the file were held at once", source.most)
	}
}

func TestUploadOfAFileThatCannotBeReadAttachesNothing(t *testing.T) {
	w := newWorld(t, "")
	id := w.CreateDeals(1, "Closed Won")[0]
	f := testFile("contract.pdf", 1000)
	f.ReaderAt = broken{}
	if _, err := w.connector(nil).Attach(t.Context(), opportunity(id), testTx, contract, f); err == nil {
		t.Error("no error")
	}
	if n := len(w.org.Files(id)); n != 0 {
		t.Errorf("%d files were attached", n)
	}
}

func TestFileWithoutContentOrHashesIsRefused(t *testing.T) {
	w := newWorld(t, "")
	id := w.CreateDeals(1, "Closed Won")[0]
	for _, change := range []func(*deal.File){
		func(f *deal.File) { f.Length = 0 }, func(f *deal.File) { f.MD5 = "" }, func(f *deal.File) { f.SHA256 = "" },
	} {
		f := testFile("contract.pdf", 10)
		change(&f)
		if _, err := w.connector(nil).Attach(t.Context(), opportunity(id), testTx, contract, f); !deal.IsPermanent(err) {
			t.Errorf("Attach gives %v", err)
		}
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("disk") }

func TestDownloadOfAMissingFileIsGone(t *testing.T) {
	w := newWorld(t, "")
	w.Advance(time.Second)
	err := w.connector(nil).Download(t.Context(), opportunity("006000000000001AAA"), "068000000000001AAA", io.Discard, 10)
	if !errors.Is(err, deal.ErrGone) {
		t.Errorf("Download gives %v", err)
	}
}
