package hubspot_test

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
)

const private = `{"access":"PRIVATE","overwrite":false,"duplicateValidationStrategy":"NONE"}`

// call is a request without a network; nil when no such request can be sent.
func call(p *hubspot.Portal, method, path, body string) *httptest.ResponseRecorder {
	r, err := http.NewRequest(method, "http://api.hubapi.com"+path, strings.NewReader(body))
	if err != nil {
		return nil
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func TestAnUploadedFileIsAnsweredWithItsChecksumAndFound(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunked=%v", chunked), func(t *testing.T) {
			p := start(t, nil)
			content := strings.Repeat("%PDF-1.7 contract", 10_000)
			a := p.upload(content, "contract.pdf", "/dealseal/7891023", private, chunked)
			if a.status != 201 || a.header.Get("Location") == "" {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			sum := md5.Sum([]byte(content))
			for key, want := range map[string]any{
				"name": "contract", "extension": "pdf", "path": "/dealseal/7891023/contract.pdf", "type": "DOCUMENT", "access": "PRIVATE",
				"size": float64(len(content)), "fileMd5": hex.EncodeToString(sum[:]), "archived": false, "expiresAt": nil,
			} {
				if got := a.path(key); got != want {
					t.Errorf("%s is %v, want %v", key, got, want)
				}
			}
			id := a.text("id")
			for _, path := range []string{"/files/v3/files/stat/dealseal%2F7891023%2Fcontract.pdf", "/files/2026-09/files/stat/dealseal/7891023/contract.pdf"} {
				if got := p.must(200, "GET", path, "").text("file", "id"); got != id {
					t.Errorf("%s: id %q", path, got)
				}
			}
			for _, query := range []string{
				"path=/dealseal/7891023/contract.pdf", "name=contract", "fileMd5=" + hex.EncodeToString(sum[:]), "parentFolderIds=" + a.text("parentFolderId"),
			} {
				if got := p.must(200, "GET", "/files/2026-03/files/search?"+query, "").text("results", 0, "id"); got != id {
					t.Errorf("search %s: id %q", query, got)
				}
			}
			p.must(404, "GET", "/files/v3/files/stat/dealseal/other.pdf", "")
			if got := p.must(200, "GET", "/files/v3/files/stat/dealseal", "").text("folder", "path"); got != "/dealseal" {
				t.Errorf("folder is %q", got)
			}
		})
	}
}

func TestUploadsWithoutWhatHubSpotNeedsAreRefused(t *testing.T) {
	p := start(t, func(o *hubspot.Options) { o.MaxFileSize = 10 })
	for name, tc := range map[string]struct {
		content, folder, options string
		status                   int
	}{
		"no access":        {"x", "/f", `{}`, 400},
		"unknown access":   {"x", "/f", `{"access":"SECRET"}`, 400},
		"no options":       {"x", "/f", ``, 400},
		"no folder":        {"x", "", private, 400},
		"unknown strategy": {"x", "/f", `{"access":"PRIVATE","duplicateValidationStrategy":"ASK"}`, 400},
		"ttl of two years": {"x", "/f", `{"access":"PRIVATE","ttl":"P2Y"}`, 400},
		"too large":        {"12345678901", "/f", private, 413},
	} {
		if a := p.upload(tc.content, "a.pdf", tc.folder, tc.options, true); a.status != tc.status {
			t.Errorf("%s: status %d, want %d: %s", name, a.status, tc.status, a.raw)
		}
	}
	if a := p.do("POST", "/files/v3/files", `{}`); a.status != 415 {
		t.Errorf("JSON: status %d", a.status)
	}
	if files := p.StoredFiles(); len(files) != 0 {
		t.Errorf("%d files were stored", len(files))
	}
}

func TestDuplicateStrategies(t *testing.T) {
	options := func(strategy string, overwrite bool) string {
		return fmt.Sprintf(`{"access":"PRIVATE","overwrite":%v,"duplicateValidationStrategy":%q,"duplicateValidationScope":"EXACT_FOLDER"}`, overwrite, strategy)
	}
	p := start(t, nil)
	first := p.upload("same", "a.pdf", "/f", options("NONE", false), false).text("id")
	if a := p.upload("same", "b.pdf", "/f", options("RETURN_EXISTING", false), false); a.status != 201 || a.text("id") != first {
		t.Errorf("RETURN_EXISTING: %d %s", a.status, a.raw)
	}
	if a := p.upload("same", "b.pdf", "/other", options("RETURN_EXISTING", false), false); a.text("id") == first {
		t.Error("RETURN_EXISTING looked beyond the folder")
	}
	if a := p.upload("same", "b.pdf", "/f", options("REJECT", false), false); a.status != 409 {
		t.Errorf("REJECT: status %d", a.status)
	}
	if a := p.upload("other", "a.pdf", "/f", options("RETURN_EXISTING", false), false); a.text("name") != "a-1" {
		t.Errorf("a taken name: %s", a.raw)
	}
	second := p.upload("newer", "a.pdf", "/f", options("NONE", true), false)
	if second.text("name") != "a" || second.text("id") == first {
		t.Errorf("overwrite: %s", second.raw)
	}
	p.must(404, "GET", "/files/v3/files/"+first, "")
	byName := start(t, func(o *hubspot.Options) { o.DuplicateByName = true })
	first = byName.upload("one", "a.pdf", "/f", options("NONE", false), false).text("id")
	if a := byName.upload("two", "a.pdf", "/f", options("RETURN_EXISTING", false), false); a.text("id") != first {
		t.Errorf("by name: %s", a.raw)
	}
}

func TestAPrivateFileIsServedByItsSignedURLOnlyUntilThatExpires(t *testing.T) {
	p := start(t, nil)
	a := p.upload("%PDF", "a.pdf", "/f", private, false)
	read := func(url string) (int, string) {
		resp, err := http.Get(url)
		p.ok(err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		p.ok(err)
		return resp.StatusCode, string(body)
	}
	if status, _ := read(a.text("url")); status != 404 {
		t.Errorf("url of a private file: status %d", status)
	}
	signed := p.must(200, "GET", "/files/2026-03/files/"+a.text("id")+"/signed-url?expirationSeconds=60", "").text("url")
	if status, body := read(signed); status != 200 || body != "%PDF" {
		t.Errorf("signed URL: %d %q", status, body)
	}
	if status, _ := read(strings.Replace(signed, "expires=1", "expires=2", 1)); status != 403 {
		t.Errorf("changed signed URL: status %d", status)
	}
	p.clock.advance(time.Minute)
	if status, _ := read(signed); status != 403 {
		t.Errorf("expired signed URL: status %d", status)
	}
	open := p.upload("open", "o.pdf", "/f", `{"access":"PUBLIC_NOT_INDEXABLE"}`, false)
	if status, body := read(open.text("url")); status != 200 || body != "open" {
		t.Errorf("public url: %d %q", status, body)
	}
}

func TestDeletedAndExpiredFilesAreGone(t *testing.T) {
	p := start(t, nil)
	for _, how := range []string{"", "/gdpr-delete"} {
		id := p.upload("x", "a.pdf", "/f", private, false).text("id")
		p.must(204, "DELETE", "/files/2026-03/files/"+id+how, "")
		p.must(404, "GET", "/files/2026-03/files/"+id, "")
	}
	id := p.upload("x", "a.pdf", "/f", `{"access":"PRIVATE","ttl":"P30D"}`, false).text("id")
	p.clock.advance(29 * 24 * time.Hour)
	p.must(200, "GET", "/files/2026-03/files/"+id, "")
	p.clock.advance(24 * time.Hour)
	p.must(404, "GET", "/files/2026-03/files/"+id, "")
}

func TestANoteCarriesFilesToItsDeal(t *testing.T) {
	p := start(t, nil)
	deal := p.deal(map[string]string{"dealname": "x"})
	file := p.upload("sealed", "contract.pdf", "/dealseal", private, false).text("id")
	a := p.must(201, "POST", "/crm/objects/2026-03/notes", fmt.Sprintf(`{"properties":{"hs_timestamp":"2026-11-20T10:11:12.123Z","hs_note_body":"tx",
		"hs_attachment_ids":%q},"associations":[{"to":{"id":%q},"types":[{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":214}]}]}`, file, deal))
	user, err := p.AddFile(deal, "Quote 1.pdf", []byte("quote"))
	p.ok(err)
	files, err := p.Files(deal)
	p.ok(err)
	var got []string
	for _, f := range files {
		got = append(got, f.ID+" "+string(f.Content))
	}
	if diff := cmp.Diff([]string{file + " sealed", user + " quote"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	notes := p.must(200, "GET", "/crm/v4/objects/deals/"+deal+"/associations/notes", "")
	if got := fmt.Sprintf("%.0f", notes.path("results", 0, "toObjectId")); got != a.text("id") || notes.path("results", 0, "associationTypes", 0, "typeId") != 213. {
		t.Errorf("associations: %s", notes.raw)
	}
	p.must(400, "POST", "/crm/objects/2026-03/notes", `{"properties":{"hs_note_body":"no time"}}`)
	p.must(201, "POST", "/crm/objects/2026-03/notes", `{"properties":{"hs_timestamp":"0","hs_attachment_ids":"999"}}`)
	strict := start(t, func(o *hubspot.Options) { o.StrictAttachments = true })
	strict.must(400, "POST", "/crm/objects/2026-03/notes", `{"properties":{"hs_timestamp":"0","hs_attachment_ids":"999"}}`)
}
