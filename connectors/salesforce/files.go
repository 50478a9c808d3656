package salesforce

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"path"
	"slices"
	"strings"

	"github.com/go-resty/resty/v2"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// contentFile is a file on a record: one version of a document. Its ID is the version's, because a version's bytes never
// change while a document's do.
type contentFile struct {
	deal.RecordFile
	document string
	// marker is the description or the key field, whichever bears our marker.
	marker string
}

// key is the text by which a file is found again: the marker and the content's hash. It stands in the description and,
// where there is one, in the unique field.
func key(tx deal.TxID, role deal.Role, f deal.File) string {
	return deal.Marker(tx, role) + ":" + f.SHA256
}

// is reports whether the file bears the marker and has arrived whole.
func (c contentFile) is(tx deal.TxID, role deal.Role, f deal.File) bool {
	return c.Tx == tx && c.Role == role && c.Size == f.Length && c.MD5 == f.MD5
}

// versionFields are read of every version. The key field, if there is one, comes after them.
var versionFields = []string{"Title", "FileExtension", "Description", "Checksum", "ContentSize", "VersionNumber", "CreatedDate"}

// files lists what is on the record. A document whose newest version is not ours is searched for an older one that is:
// a user may have uploaded a new version of our file.
func (c *Connector) files(ctx context.Context, id string) ([]contentFile, error) {
	const latest = "ContentDocument.LatestPublishedVersion."
	columns := []string{"ContentDocumentId", "ContentDocument.LatestPublishedVersionId"}
	for _, f := range c.versionColumns() {
		columns = append(columns, latest+f)
	}
	links, err := c.lookUp(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM ContentDocumentLink WHERE LinkedEntityId = "+quote(id))
	if err != nil {
		return nil, fmt.Errorf("list the files: %w", err)
	}
	var files []contentFile
	var replaced []string
	for _, link := range links.rows {
		document, _ := link["ContentDocument"].(map[string]any)
		version, ok := document["LatestPublishedVersion"].(map[string]any)
		if !ok {
			continue // a document that the user may not open, or that is not published
		}
		f, err := c.contentFile(document["LatestPublishedVersionId"], link["ContentDocumentId"], version)
		if err != nil {
			return nil, err
		}
		if number, _ := version["VersionNumber"].(string); f.Tx == "" && number != "1" {
			replaced = append(replaced, f.document)
		}
		files = append(files, f)
	}
	older, err := c.ownVersions(ctx, replaced)
	if err != nil {
		return nil, err
	}
	files = append(files, older...)
	slices.SortFunc(files, func(a, b contentFile) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return files, nil
}

func (c *Connector) versionColumns() []string {
	if c.cfg.TxMarker == "" {
		return versionFields
	}
	return append(slices.Clone(versionFields), c.cfg.TxMarker)
}

// ownVersions finds the versions that bear our marker among all versions of the documents.
func (c *Connector) ownVersions(ctx context.Context, documents []string) ([]contentFile, error) {
	var own []contentFile
	for batch := range slices.Chunk(documents, inBatch) {
		versions, err := c.versions(ctx, "ContentDocumentId IN "+quoteAll(batch))
		if err != nil {
			return nil, err
		}
		for _, v := range versions {
			if v.Tx != "" {
				own = append(own, v)
			}
		}
	}
	return own, nil
}

// versions reads ContentVersion rows. where is made of quoted values only.
func (c *Connector) versions(ctx context.Context, where string) ([]contentFile, error) {
	columns := append([]string{"Id", "ContentDocumentId"}, c.versionColumns()...)
	found, err := c.lookUp(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM ContentVersion WHERE "+where)
	if err != nil {
		return nil, fmt.Errorf("look up file versions: %w", err)
	}
	var files []contentFile
	for _, row := range found.rows {
		f, err := c.contentFile(row["Id"], row["ContentDocumentId"], row)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// contentFile reads one version.
func (c *Connector) contentFile(id, document any, v map[string]any) (contentFile, error) {
	text := func(name string) string { s, _ := v[name].(string); return s }
	var f contentFile
	var errs [3]error
	f.ID, errs[0] = idField(id)
	f.document, errs[1] = idField(document)
	f.Created, errs[2] = parseTime(text("CreatedDate"))
	size, hasSize := v["ContentSize"].(float64)
	if errors.Join(errs[:]...) != nil || !hasSize {
		return contentFile{}, malformed("a file has no ID, date or size")
	}
	f.Name = fileName(text("Title"), text("FileExtension"))
	f.Size, f.MD5 = int64(size), strings.ToLower(text("Checksum"))
	f.URL = c.page("ContentDocument", f.document)
	for _, s := range []string{text(c.cfg.TxMarker), text("Description")} {
		if tx, role, ok := deal.ParseMarker(s); ok {
			f.Tx, f.Role, f.marker = tx, role, s
			break
		}
	}
	return f, nil
}

func fileName(title, extension string) string {
	if extension == "" || strings.EqualFold(path.Ext(title), "."+extension) {
		return title
	}
	return title + "." + extension
}

// Attach implements connectors.CRM. Salesforce has no idempotency key for an upload, so the record's files are searched
// before it and again after an outcome that is not clear. An upload that was given up may still be carried out after that
// search; with Config.TxMarker Salesforce then refuses the second file, without it the next Attach finds whichever came
// first.
func (c *Connector) Attach(ctx context.Context, ref deal.Ref, tx deal.TxID, role deal.Role, f deal.File) (deal.Attachment, error) {
	ref, err := checkRef(ref)
	if err != nil {
		return deal.Attachment{}, fmt.Errorf("salesforce: attach %s: %w", role, err)
	}
	stored, err := c.attach(ctx, ref.ID, tx, role, f)
	if err != nil {
		return deal.Attachment{}, fmt.Errorf("salesforce: attach %s to %s: %w", role, ref, err)
	}
	return deal.Attachment{ID: stored.ID, URL: stored.URL}, nil
}

func (c *Connector) attach(ctx context.Context, id string, tx deal.TxID, role deal.Role, f deal.File) (contentFile, error) {
	if f.Length <= 0 || f.SHA256 == "" || f.MD5 == "" {
		return contentFile{}, refuse("the file is empty or comes without its hashes, so that nobody could tell whether it arrived")
	}
	if err := c.checkMarkerField(ctx); err != nil {
		return contentFile{}, err
	}
	stored, damaged, err := c.search(ctx, id, tx, role, f)
	if err != nil || stored != nil { // or another that stands in its place
		return deref(stored), err
	}
	version, err := c.upload(ctx, c.newVersion(id, damaged, tx, role, f), f)
	switch {
	case err == nil:
		return c.confirm(ctx, "Id = "+quote(version), tx, role, f)
	case hasCode(err, "DUPLICATE_VALUE") && c.cfg.TxMarker != "":
		return c.adopt(ctx, id, tx, role, f)
	case isUnclear(err) && ctx.Err() == nil:
		if stored, _, searchErr := c.search(ctx, id, tx, role, f); searchErr == nil && stored != nil {
			return *stored, nil
		}
	}
	return contentFile{}, c.recordMissing(ctx, id, c.later(err))
}

func deref(f *contentFile) contentFile {
	if f == nil {
		return contentFile{}
	}
	return *f
}

// search looks for the file on the record: stored if it is there and whole, damaged if it is there and is not. Another file
// of the transaction in this role is an error.
func (c *Connector) search(ctx context.Context, id string, tx deal.TxID, role deal.Role, f deal.File) (stored, damaged *contentFile, err error) {
	files, err := c.files(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	other := ""
	for _, file := range files {
		switch {
		case file.is(tx, role, f):
			return &file, nil, nil
		case strings.Contains(file.marker, key(tx, role, f)):
			damaged = &file
		case file.Tx == tx && file.Role == role && other == "":
			other = file.ID
		}
	}
	if damaged == nil && other != "" {
		return nil, nil, connectors.OtherFile(role, other)
	}
	return nil, damaged, nil
}

// confirm reads back what Salesforce has stored and compares size and checksum.
func (c *Connector) confirm(ctx context.Context, where string, tx deal.TxID, role deal.Role, f deal.File) (contentFile, error) {
	versions, err := c.versions(ctx, where)
	if err != nil {
		return contentFile{}, err
	}
	for _, v := range versions {
		if v.is(tx, role, f) {
			return v, nil
		}
	}
	if len(versions) == 0 {
		return contentFile{}, &Error{class: passing, unclear: true, cure: "the file was stored and cannot be read back: the integration user must see the files it makes"}
	}
	return contentFile{}, &Error{class: passing, cure: "the file arrived damaged: size or checksum differ from what was sent"}
}

// adopt takes over the file that holds the unique key: it was stored by an upload whose reply was lost, and may have lost
// its place on the record.
func (c *Connector) adopt(ctx context.Context, id string, tx deal.TxID, role deal.Role, f deal.File) (contentFile, error) {
	stored, err := c.confirm(ctx, c.cfg.TxMarker+" = "+quote(key(tx, role, f)), tx, role, f)
	if err != nil {
		return contentFile{}, err
	}
	link, err := json.Marshal(map[string]string{"ContentDocumentId": stored.document, "LinkedEntityId": id, "ShareType": "V"})
	if err != nil {
		return contentFile{}, err
	}
	_, err = c.call(ctx, http.MethodPost, c.wire.path("sobjects/ContentDocumentLink"), nil, link)
	if err != nil && !hasCode(err, "DUPLICATE_VALUE") {
		return contentFile{}, c.recordMissing(ctx, id, err)
	}
	return stored, nil
}

// recordMissing tells a record that is gone from one that may not be written.
func (c *Connector) recordMissing(ctx context.Context, id string, err error) error {
	if !hasCode(err, "ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY", "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY") {
		return err
	}
	found, lookErr := c.lookUp(ctx, "SELECT Id FROM "+Object+" WHERE Id = "+quote(id))
	if lookErr == nil && len(found.rows) == 0 {
		return deal.ErrGone
	}
	return err
}

const markerLength = 9 + 26 + 1 + 11 + 1 + 64

// checkMarkerField holds that the field is there and does what it is for.
func (c *Connector) checkMarkerField(ctx context.Context) error {
	if c.cfg.TxMarker == "" {
		return nil
	}
	f, err := c.schema.field(ctx, "ContentVersion", c.cfg.TxMarker)
	if err != nil {
		return fmt.Errorf("tx_marker: %w", err)
	}
	if !f.Unique || !f.ExternalID || !f.Createable || f.Type != "string" || f.Length < markerLength {
		return refuse("tx_marker: %s must be a Text(255) field, External ID and Unique, that the integration user may write", f.Name)
	}
	return nil
}

const maxTitle = 255

// newVersion is the description of the file to upload. A damaged one of ours is mended by a new version of the same
// document, so that the record still has one file; the unique key stays with the first version.
func (c *Connector) newVersion(id string, damaged *contentFile, tx deal.TxID, role deal.Role, f deal.File) map[string]string {
	title := []rune(strings.TrimSuffix(f.Name, path.Ext(f.Name)))
	entity := map[string]string{
		"Title":        string(title[:min(len(title), maxTitle)]),
		"PathOnClient": f.Name,
		"Description":  "Sealed by dealseal, found again by this line: " + key(tx, role, f),
	}
	if damaged != nil {
		entity["ContentDocumentId"] = damaged.document
		return entity
	}
	entity["FirstPublishLocationId"] = id
	if c.cfg.TxMarker != "" {
		entity[c.cfg.TxMarker] = key(tx, role, f)
	}
	return entity
}

// upload sends the file as multipart and returns the ID of the new version. The file is streamed, and each attempt of the
// transport takes a fresh stream of known length: an upload that is sent again can never be an empty one.
func (c *Connector) upload(ctx context.Context, entity map[string]string, f deal.File) (version string, err error) {
	form, err := newForm(entity, f)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TransferTimeout)
	defer cancel()
	resp, err := c.transfer(form).R().SetContext(ctx).
		SetHeader("Content-Type", form.mediaType).
		Post(c.wire.base + "/" + c.wire.path("sobjects/ContentVersion"))
	if err != nil {
		return "", transferError(ctx, err)
	}
	var said struct {
		ID      string `json:"id"`
		Success bool   `json:"success"`
	}
	if err := json.Unmarshal(resp.Body(), &said); err != nil || !said.Success {
		return "", malformed("it does not say that the file was stored")
	}
	version, err = CanonicalID(said.ID)
	if err != nil {
		return "", malformed("the file has no ID")
	}
	return version, nil
}

// transfer makes a resty client for one transfer. It never retries: only the caller knows how to look first.
func (c *Connector) transfer(form *form) *resty.Client {
	client := resty.NewWithClient(&http.Client{Transport: carrier{c.wire, form}, CheckRedirect: noRedirect})
	return client.SetLogger(muted{})
}

// transferError takes our own error out of what http.Client and resty wrap around it, which names the URL.
func transferError(ctx context.Context, err error) error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case ctx.Err() != nil:
		return noAnswer(ctx, ctx.Err())
	default:
		return malformed("the transfer broke off")
	}
}

// carrier lends the wire to resty and brings the body: resty would read a whole reader into memory for itself.
type carrier struct {
	wire *wire
	form *form
}

// RoundTrip implements http.RoundTripper.
func (t carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	if t.form != nil {
		req.ContentLength = t.form.length
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(t.form.open()), nil }
	}
	limit := int64(maxReply)
	if t.form == nil {
		limit = maxDownload
	}
	return t.wire.send(req.Context(), req, limit)
}

// muted takes resty's log lines, which quote URLs and bodies.
type muted struct{}

func (muted) Errorf(string, ...any) {}
func (muted) Warnf(string, ...any)  {}
func (muted) Debugf(string, ...any) {}

// form is a multipart body that can be read any number of times.
type form struct {
	head, tail []byte
	file       deal.File
	length     int64
	mediaType  string
}

func newForm(entity map[string]string, f deal.File) (*form, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fields, err := json.Marshal(entity)
	if err != nil {
		return nil, err
	}
	part, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="entity_content"`}, "Content-Type": {"application/json"},
	})
	if err != nil {
		return nil, err
	}
	if _, err := part.Write(fields); err != nil {
		return nil, err
	}
	// The name that people see is PathOnClient, in JSON; this one only has to be there.
	_, err = w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="VersionData"; filename="file"`}, "Content-Type": {cmp.Or(f.MediaType, "application/octet-stream")},
	})
	if err != nil {
		return nil, err
	}
	head := bytes.Clone(b.Bytes())
	if err := w.Close(); err != nil {
		return nil, err
	}
	tail := b.Bytes()[len(head):]
	return &form{head: head, tail: tail, file: f, mediaType: w.FormDataContentType(), length: int64(len(head)) + f.Length + int64(len(tail))}, nil
}

// open returns a fresh reader over the whole body.
func (f *form) open() io.Reader {
	return io.MultiReader(bytes.NewReader(f.head), f.file.Open(), bytes.NewReader(f.tail))
}

// maxDownload is far above what may be attached; the caller's limit is the one that counts.
const maxDownload = 4 << 30

// Download implements connectors.Files. fileID is a RecordFile.ID: one version, whose bytes never change.
func (c *Connector) Download(ctx context.Context, ref deal.Ref, fileID string, w io.Writer, limit int64) error {
	id, err := CanonicalID(fileID)
	if err != nil {
		return fmt.Errorf("salesforce: download a file of %s: %w", ref, refuse("file ID %q: %v", fileID, err))
	}
	if err := c.download(ctx, id, w, limit); err != nil {
		return fmt.Errorf("salesforce: download file %s of %s: %w", id, ref, err)
	}
	return nil
}

func (c *Connector) download(ctx context.Context, id string, w io.Writer, limit int64) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TransferTimeout)
	defer cancel()
	resp, err := c.transfer(nil).R().SetContext(ctx).SetDoNotParseResponse(true).SetHeader("Accept", "*/*").
		Get(c.wire.base + "/" + c.wire.path("sobjects/ContentVersion/"+id+"/VersionData"))
	if err != nil {
		return gone(transferError(ctx, err))
	}
	body := resp.RawBody()
	defer body.Close()
	n, err, ours := connectors.Copy(w, body, limit)
	if ours != nil {
		return ours
	}
	if err != nil {
		return noAnswer(ctx, err)
	}
	if n < limit {
		return nil
	}
	if extra, _ := io.ReadFull(body, make([]byte, 1)); extra > 0 {
		return refuse("the file has more than the %d bytes that are allowed", limit)
	}
	return nil
}
