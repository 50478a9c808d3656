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

// files lists what is on the record; records that are asked for at the same time share a query.
func (c *Connector) files(ctx context.Context, id string) ([]contentFile, error) {
	answer, err := c.links.Ask(ctx, "", id)
	links, err := asked(ctx, answer, err)
	if err != nil {
		return nil, fmt.Errorf("list the files: %w", err)
	}
	return c.linkedFiles(ctx, links)
}

// linkColumns are read of every link from a record to a file.
func (c *Connector) linkColumns() []string {
	columns := []string{"ContentDocumentId", "ContentDocument.LatestPublishedVersionId"}
	for _, f := range c.versionColumns() {
		columns = append(columns, "ContentDocument.LatestPublishedVersion."+f)
	}
	return columns
}

// linkedFiles reads the files that links lead to. A document whose newest version is not ours is searched for an older one
// that is: a user may have uploaded a new version of our file.
func (c *Connector) linkedFiles(ctx context.Context, links []map[string]any) ([]contentFile, error) {
	var files []contentFile
	var replaced []string
	for _, link := range links {
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
	size, hasSize := wholeNumber(v["ContentSize"])
	if errors.Join(errs[:]...) != nil || !hasSize {
		return contentFile{}, malformed("a file has no ID, date or size")
	}
	f.Name = fileName(text("Title"), text("FileExtension"))
	f.Size, f.MD5 = size, strings.ToLower(text("Checksum"))
	f.URL = c.page("ContentDocument", f.document)
	for _, s := range []string{text(c.cfg.TxMarker), text("Description")} {
		if tx, role, ok := deal.ParseMarker(s); ok {
			f.Tx, f.Role, f.marker = tx, role, s
			break
		}
	}
	return f, nil
}

// wholeNumber reads a number from either of the two ways in which replies are decoded here.
func wholeNumber(v any) (int64, bool) {
	switch n := v.(type) {
	case float64:
		return int64(n), true
	case json.Number:
		f, err := n.Float64()
		return int64(f), err == nil
	}
	return 0, false
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
	ref, _, err := checkRef(ref)
	if err != nil {
		return deal.Attachment{}, fmt.Errorf("salesforce: attach %s: %w", role, err)
	}
	stored, err := c.attach(ctx, ref.ID, tx, role, f)
	if err != nil {
		return deal.Attachment{}, fmt.Errorf("salesforce: attach %s to %s: %w", role, ref, err)
	}
	return deal.Attachment{ID: stored.ID, URL: stored.URL}, nil
}

// AttachAll implements connectors.Bundler: the record is looked at once, and small files go in one call that also reads
// back what was stored.
func (c *Connector) AttachAll(ctx context.Context, ref deal.Ref, tx deal.TxID, files []connectors.Piece) ([]deal.Attachment, error) {
	ref, _, err := checkRef(ref)
	if err != nil {
		return nil, fmt.Errorf("salesforce: attach: %w", err)
	}
	stored, err := c.attachAll(ctx, ref.ID, tx, files)
	if err != nil {
		return nil, fmt.Errorf("salesforce: attach to %s: %w", ref, err)
	}
	attachments := make([]deal.Attachment, len(stored))
	for i, s := range stored {
		attachments[i] = deal.Attachment{ID: s.ID, URL: s.URL}
	}
	return attachments, nil
}

func (c *Connector) attach(ctx context.Context, id string, tx deal.TxID, role deal.Role, f deal.File) (contentFile, error) {
	stored, err := c.attachAll(ctx, id, tx, []connectors.Piece{{Role: role, File: f}})
	if err != nil {
		return contentFile{}, err
	}
	return stored[0], nil
}

func (c *Connector) attachAll(ctx context.Context, id string, tx deal.TxID, pieces []connectors.Piece) ([]contentFile, error) {
	for _, p := range pieces {
		if p.File.Length <= 0 || p.File.SHA256 == "" || p.File.MD5 == "" {
			return nil, refuse("the file is empty or comes without its hashes, so that nobody could tell whether it arrived")
		}
	}
	if err := c.checkMarkerField(ctx); err != nil {
		return nil, err
	}
	there, err := c.files(ctx, id)
	if err != nil {
		return nil, err
	}
	stored := make([]contentFile, len(pieces))
	var missing []missingPiece
	for i, p := range pieces {
		found, damaged, err := among(there, tx, p.Role, p.File)
		if err != nil {
			return nil, err
		}
		if found != nil {
			stored[i] = *found
			continue
		}
		missing = append(missing, missingPiece{Piece: p, place: i, entity: c.newVersion(id, damaged, tx, p.Role, p.File)})
	}
	for len(missing) > 0 {
		outcomes := c.store(ctx, missing)
		for i, outcome := range outcomes {
			m := missing[i]
			if stored[m.place], err = c.settled(ctx, id, tx, m.Piece, outcome); err != nil {
				return nil, err
			}
		}
		missing = missing[len(outcomes):]
	}
	return stored, nil
}

// missingPiece is a file that is not on the record, and what it will be called there.
type missingPiece struct {
	connectors.Piece
	place  int
	entity map[string]string
}

// store puts files on a record: small ones together, others one by one until one fails. Those that come after that one have
// no outcome; of a call for all of them, each has the call's own, as each may have been stored or not. A file without a date
// was stored and not read back.
func (c *Connector) store(ctx context.Context, missing []missingPiece) (outcomes []connectors.Answer[contentFile]) {
	if small, err := smallPieces(missing); err != nil || small != nil {
		if err == nil {
			outcomes, err = c.uploads.Ask(ctx, "", small)
			outcomes, err = asked(ctx, outcomes, err)
		}
		if err != nil {
			outcomes = make([]connectors.Answer[contentFile], len(missing))
			for i := range outcomes {
				outcomes[i].Err = ownCopy(err)
			}
		}
		return outcomes
	}
	for _, m := range missing {
		version, err := c.upload(ctx, m.entity, m.File)
		outcomes = append(outcomes, connectors.Answer[contentFile]{Value: contentFile{RecordFile: deal.RecordFile{ID: version}}, Err: err})
		if err != nil {
			break
		}
	}
	return outcomes
}

// smallPieces are the files as they go into one call; nil when they are too many or too large.
func smallPieces(missing []missingPiece) ([]piece, error) {
	if len(missing) > maxPieces || slices.ContainsFunc(missing, func(m missingPiece) bool { return m.File.Length > maxPiece }) {
		return nil, nil
	}
	small := make([]piece, len(missing))
	for i, m := range missing {
		data := make([]byte, m.File.Length)
		if _, err := io.ReadFull(m.File.Open(), data); err != nil {
			return nil, fmt.Errorf("read the file: %w", err)
		}
		small[i] = piece{m.entity, data}
	}
	return small, nil
}

// settled makes of the outcome of an upload the file that is on the record.
func (c *Connector) settled(ctx context.Context, id string, tx deal.TxID, p connectors.Piece, outcome connectors.Answer[contentFile]) (contentFile, error) {
	f, err := outcome.Value, outcome.Err
	switch {
	case err == nil && f.Created.IsZero():
		return c.confirm(ctx, "Id = "+quote(f.ID), tx, p.Role, p.File)
	case err == nil && f.is(tx, p.Role, p.File):
		return f, nil
	case err == nil:
		return contentFile{}, arrivedDamaged()
	case hasCode(err, "DUPLICATE_VALUE") && c.cfg.TxMarker != "":
		return c.adopt(ctx, id, tx, p.Role, p.File)
	case isUnclear(err) && ctx.Err() == nil:
		if there, lookErr := c.files(ctx, id); lookErr == nil {
			if stored, _, lookErr := among(there, tx, p.Role, p.File); lookErr == nil && stored != nil {
				return *stored, nil
			}
		}
	}
	return contentFile{}, c.recordMissing(ctx, id, c.later(err))
}

func arrivedDamaged() *Error {
	return &Error{class: passing, cure: "the file arrived damaged: size or checksum differ from what was sent"}
}

// among looks for a file among those of a record: stored if it is there and whole, damaged if it is there and is not.
// Another file of the transaction in this role is an error.
func among(files []contentFile, tx deal.TxID, role deal.Role, f deal.File) (stored, damaged *contentFile, err error) {
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
	return contentFile{}, arrivedDamaged()
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
	k, ok := kindOf(id)
	if !ok {
		return err
	}
	found, lookErr := c.lookUp(ctx, "SELECT Id FROM "+k.name+" WHERE Id = "+quote(id))
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
	return storedVersion(resp.Body())
}

// storedVersion reads the reply to an upload.
func storedVersion(body []byte) (version string, err error) {
	var said struct {
		ID      string `json:"id"`
		Success bool   `json:"success"`
	}
	if err := json.Unmarshal(body, &said); err != nil || !said.Success {
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
