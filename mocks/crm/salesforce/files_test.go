package salesforce

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUploadMakesVersionDocumentAndLink(t *testing.T) {
	const pdf = "%PDF-1.7 contract"
	sum := md5.Sum([]byte(pdf))
	content := filePart{"VersionData", "contract.pdf", "application/pdf", pdf}
	entity := func(opp string) filePart {
		return filePart{"entity_content", "", "application/json",
			`{"Title":"contract","PathOnClient":"contract.pdf","FirstPublishLocationId":"` + opp + `","DealSeal_Key__c":"tx1"}`}
	}
	for _, tc := range []struct {
		name   string
		upload func(w *wire, opp string) response
	}{
		{"multipart, fields first", func(w *wire, opp string) response { return w.multipart(entity(opp), content) }},
		{"multipart, file first", func(w *wire, opp string) response { return w.multipart(content, entity(opp)) }},
		{"JSON", func(w *wire, opp string) response {
			return w.call("POST", "/sobjects/ContentVersion/", `{"Title":"contract","PathOnClient":"contract.pdf","DealSeal_Key__c":"tx1",
				"FirstPublishLocationId":"`+opp+`","VersionData":"`+base64.StdEncoding.EncodeToString([]byte(pdf))+`"}`)
		}},
		{"JSON, gzip", func(w *wire, opp string) response {
			body := zipped(t, `{"Title":"contract","PathOnClient":"contract.pdf","FirstPublishLocationId":"`+opp+`","DealSeal_Key__c":"tx1","VersionData":"`+base64.StdEncoding.EncodeToString([]byte(pdf))+`"}`)
			return w.must(w.request("POST", base+"/sobjects/ContentVersion", body, "Content-Type", "application/json", "Content-Encoding", "gzip"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWire(t, Options{})
			opp := w.opportunity(nil)
			res := tc.upload(w, opp).want(201, "")
			id, _ := res.object()["id"].(string)
			if got, want := res.header.Get("Location"), base+"/sobjects/ContentVersion/"+id; got != want {
				t.Errorf("Location = %q, want %q", got, want)
			}
			q := w.query("SELECT Id, ContentDocumentId, Checksum, ContentSize, VersionNumber, IsLatest, FileType, Title FROM ContentVersion WHERE DealSeal_Key__c = 'tx1'")
			if q.TotalSize != 1 || q.Records[0]["Id"] != id {
				t.Fatalf("versions = %v", q.Records)
			}
			v := q.Records[0]
			got := line(v["Checksum"], v["ContentSize"], v["VersionNumber"], v["IsLatest"], v["FileType"], v["Title"])
			if want := line(hex.EncodeToString(sum[:]), len(pdf), 1, true, "PDF", "contract"); got != want {
				t.Errorf("version = %s, want %s", got, want)
			}
			links := w.query("SELECT ContentDocumentId, ShareType, ContentDocument.Title, ContentDocument.LatestPublishedVersion.Checksum FROM ContentDocumentLink WHERE LinkedEntityId = '" + opp + "'")
			if links.TotalSize != 1 || links.Records[0]["ContentDocumentId"] != v["ContentDocumentId"] || links.Records[0]["ShareType"] != "V" {
				t.Errorf("links = %v", links.Records)
			}
			data := w.call("GET", "/sobjects/ContentVersion/"+id+"/VersionData", "").want(200, "")
			if string(data.body) != pdf {
				t.Errorf("download = %q", data.body)
			}
			files := w.org.Files(opp)
			if len(files) != 1 || !bytes.Equal(files[0].Versions[0].Content, []byte(pdf)) || files[0].Versions[0].Fields["DealSeal_Key__c"] != "tx1" {
				t.Errorf("files = %+v", files)
			}
		})
	}
}

func TestEmptyPartIsStoredAsEmptyFile(t *testing.T) {
	w := newWire(t, Options{})
	w.multipart(filePart{"entity_content", "", "application/json", `{"PathOnClient":"a.pdf"}`},
		filePart{"VersionData", "a.pdf", "application/pdf", ""}).want(201, "")
	q := w.query("SELECT ContentSize, Checksum FROM ContentVersion")
	if got := line(q.Records[0]["ContentSize"], q.Records[0]["Checksum"]); got != "0 d41d8cd98f00b204e9800998ecf8427e" {
		t.Errorf("size and checksum = %s", got)
	}
}

func TestUploadIsRefused(t *testing.T) {
	w := newWire(t, Options{MaxUpload: 1 << 16})
	w.multipart(filePart{"entity_content", "", "application/json", `{"PathOnClient":"a.pdf","DealSeal_Key__c":"k"}`},
		filePart{"VersionData", "a.pdf", "application/pdf", "x"}).want(201, "")
	for _, tc := range []struct {
		name, fields, data string
		status             int
		code               string
	}{
		{"unique key taken", `{"PathOnClient":"a.pdf","DealSeal_Key__c":"K"}`, "x", 400, "DUPLICATE_VALUE"},
		{"no file name", `{"Title":"a"}`, "x", 400, "REQUIRED_FIELD_MISSING"},
		{"malformed ID", `{"PathOnClient":"a","FirstPublishLocationId":"006Ws0000000ZZZAAA"}`, "x", 400, "MALFORMED_ID"},
		{"unknown field", `{"PathOnClient":"a","Nope__c":"1"}`, "x", 400, "INVALID_FIELD"},
		{"broken JSON", `{"PathOnClient"`, "x", 400, "JSON_PARSER_ERROR"},
		{"too large", `{"PathOnClient":"a"}`, string(make([]byte, 1<<17)), 413, "REQUEST_ENTITY_TOO_LARGE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.t = t
			w.multipart(filePart{"entity_content", "", "application/json", tc.fields},
				filePart{"VersionData", "a.pdf", "application/pdf", tc.data}).want(tc.status, tc.code)
		})
	}
	if n := len(w.org.Records("ContentVersion")); n != 1 {
		t.Errorf("%d versions stored, want the first one only", n)
	}
	if n := len(w.org.Records("ContentDocument")); n != 1 {
		t.Errorf("%d documents stored, want the first one only", n)
	}
}

func TestNewVersionSupersedesTheOldOne(t *testing.T) {
	w := newWire(t, Options{})
	opp := w.opportunity(nil)
	if _, err := w.org.AddFile(opp, "Quote 7.pdf", []byte("one")); err != nil {
		t.Fatal(err)
	}
	doc := w.org.Files(opp)[0].DocumentID
	w.multipart(filePart{"entity_content", "", "application/json", `{"PathOnClient":"Quote 7.pdf","ContentDocumentId":"` + doc + `"}`},
		filePart{"VersionData", "q.pdf", "application/pdf", "two"}).want(201, "")
	w.multipart(filePart{"entity_content", "", "application/json", `{"PathOnClient":"q.pdf","ContentDocumentId":"` + doc + `","FirstPublishLocationId":"` + opp + `"}`},
		filePart{"VersionData", "q.pdf", "application/pdf", "three"}).want(400, "INVALID_FIELD_FOR_INSERT_UPDATE")
	q := w.query("SELECT VersionNumber, IsLatest FROM ContentVersion ORDER BY VersionNumber")
	var got []string
	for _, r := range q.Records {
		got = append(got, line(r["VersionNumber"], r["IsLatest"]))
	}
	if diff := cmp.Diff([]string{"1 false", "2 true"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestLinkIsRefusedTheSecondTime(t *testing.T) {
	w := newWire(t, Options{})
	opp := w.opportunity(nil)
	if _, err := w.org.AddFile("", "free.pdf", []byte("x")); err != nil {
		t.Fatal(err)
	}
	doc := w.org.Records("ContentDocument")[0]
	body := `{"ContentDocumentId":"` + doc + `","LinkedEntityId":"` + opp + `","ShareType":"V","Visibility":"AllUsers"}`
	w.call("POST", "/sobjects/ContentDocumentLink", body).want(201, "")
	w.call("POST", "/sobjects/ContentDocumentLink", body).want(400, "DUPLICATE_VALUE")
	if n := len(w.org.Files(opp)); n != 1 {
		t.Errorf("%d files on the record, want 1", n)
	}
}

func TestReplyLostAfterUploadLeavesTheFile(t *testing.T) {
	w := newWire(t, Options{})
	opp := w.opportunity(nil)
	w.fault(Fault{Kind: KindUpload, Effect: CutAfter, Times: 1})
	req := w.request("POST", base+"/sobjects/ContentVersion", io.NopCloser(bytes.NewBufferString(`{"PathOnClient":"a.pdf","FirstPublishLocationId":"`+opp+`","VersionData":"eA=="}`)), "Content-Type", "application/json")
	if res, err := w.send(req); err == nil {
		t.Fatalf("got a reply with status %d", res.status)
	}
	if n := len(w.org.Files(opp)); n != 1 {
		t.Errorf("%d files, want the one whose reply was lost", n)
	}
}
