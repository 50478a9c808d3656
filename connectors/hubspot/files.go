package hubspot

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func (c *Connector) filesPath() string { return "/files/" + c.cfg.APIVersion + "/files" }

// file reads what HubSpot says of a file.
func (c *Connector) file(ctx context.Context, id string) (deal.RecordFile, error) {
	var said fileReply
	if _, err := c.getJSON(ctx, c.filesPath()+"/"+id, nil, &said); err != nil {
		return deal.RecordFile{}, fmt.Errorf("read file %s: %w", id, err)
	}
	return said.read()
}

// stat finds a file by its path, which other than the search for files does not lag. nil when there is none.
func (c *Connector) stat(ctx context.Context, place place) (*deal.RecordFile, error) {
	var said struct {
		File *fileReply `json:"file"`
	}
	_, err := c.getJSON(ctx, c.filesPath()+"/stat"+(&url.URL{Path: place.folder + "/" + place.name}).EscapedPath(), nil, &said)
	if isMissing(err) || err == nil && said.File == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the file: %w", err)
	}
	f, err := said.File.read()
	return &f, err
}

// Attach implements connectors.CRM. HubSpot has no idempotency key, so both steps look before they write and again after
// an outcome that is not clear: the file is stored under a path that only it can have, and the note that puts it on the
// deal bears our marker. HubSpot's own search for duplicates is not used, because what it takes for one is not documented.
//
// The URL of the attachment is the deal's page: private files have no page of their own.
func (c *Connector) Attach(ctx context.Context, ref deal.Ref, tx deal.TxID, role deal.Role, f deal.File) (deal.Attachment, error) {
	on, err := c.to(ref)
	if err != nil {
		return deal.Attachment{}, fmt.Errorf("hubspot: attach %s: %w", role, err)
	}
	if _, known := words[role]; !known || !isHash(f.SHA256) {
		return deal.Attachment{}, fmt.Errorf("hubspot: attach %s to %s: %w", role, ref, refuse("the role is unknown or the file has no SHA-256"))
	}
	all, err := on.attachAll(ctx, ref.ID, tx, []connectors.Piece{{Role: role, File: f}})
	if err != nil {
		return deal.Attachment{}, fmt.Errorf("hubspot: attach %s to %s: %w", role, ref, err)
	}
	return all[0], nil
}

// AttachAll implements connectors.Bundler: the deal is looked at once, and the notes are made in one call.
func (c *Connector) AttachAll(ctx context.Context, ref deal.Ref, tx deal.TxID, pieces []connectors.Piece) ([]deal.Attachment, error) {
	on, err := c.to(ref)
	if err != nil {
		return nil, fmt.Errorf("hubspot: attach: %w", err)
	}
	for _, p := range pieces {
		if _, known := words[p.Role]; !known || !isHash(p.File.SHA256) {
			return nil, fmt.Errorf("hubspot: attach %s to %s: %w", p.Role, ref, refuse("the role is unknown or the file has no SHA-256"))
		}
	}
	all, err := on.attachAll(ctx, ref.ID, tx, pieces)
	if err != nil {
		return nil, fmt.Errorf("hubspot: attach to %s: %w", ref, err)
	}
	return all, nil
}

func (c *Connector) attachAll(ctx context.Context, id string, tx deal.TxID, pieces []connectors.Piece) ([]deal.Attachment, error) {
	for _, p := range pieces {
		release, err := c.turns.take(ctx, "attach "+deal.Marker(tx, p.Role))
		if err != nil {
			return nil, err
		}
		defer release()
	}
	account, err := c.knownAccount(ctx)
	if err != nil {
		return nil, err
	}
	today, notes, err := c.lookForFiles(ctx, id, pieces)
	if err != nil {
		return nil, err
	}
	c.fresh.done(today)
	attachments, stored, err := c.storeAll(ctx, id, tx, pieces, notes)
	if err != nil {
		return nil, err
	}
	for i := range attachments {
		attachments[i].URL = account.page(c.kind, today)
	}
	return attachments, c.linkAll(ctx, today, tx, stored)
}

// storeAll stores the files that are not on the deal, by its notes, as they should be.
func (c *Connector) storeAll(ctx context.Context, id string, tx deal.TxID, pieces []connectors.Piece, notes []note) (attachments []deal.Attachment, stored []storedFile, err error) {
	defer c.uploads.begin()()
	for _, p := range pieces {
		file, known, err := c.onDeal(ctx, notes, tx, p)
		if err == nil && file == "" {
			var f deal.RecordFile
			f, err = c.store(ctx, c.placeOf(id, tx, p.Role, p.File), p)
			stored, file = append(stored, storedFile{Piece: p, file: f, note: known}), f.ID
		}
		if err != nil {
			return nil, nil, err
		}
		attachments = append(attachments, deal.Attachment{ID: file})
	}
	return attachments, stored, nil
}

// lookForFiles returns the notes of a deal, and its ID of today. Where nobody can have stored the files yet, what the deal
// showed a moment ago is good enough: it is for files of others.
func (c *Connector) lookForFiles(ctx context.Context, id string, pieces []connectors.Piece) (today string, notes []note, err error) {
	today, notes, known := c.told.takeNotes(id)
	if known && !slices.ContainsFunc(pieces, func(p connectors.Piece) bool { return !p.New }) {
		return today, notes, nil
	}
	d, err := c.readWith(ctx, id, c.told.learned(), []string{"notes"})
	if err != nil {
		return "", nil, err
	}
	c.told.saw(id, d, value(d.Properties, c.kind.stage))
	notes, err = c.notes(ctx, d)
	return d.ID, notes, err
}

// onDeal looks for a file among the notes of its deal. file is empty when it is not there, or not whole; known is the note
// that speaks of it.
func (c *Connector) onDeal(ctx context.Context, notes []note, tx deal.TxID, p connectors.Piece) (file string, known *note, err error) {
	known, other := ourNote(notes, tx, p.Role, p.File.SHA256)
	if known == nil && other != nil {
		if _, err := c.file(ctx, other.file); !isMissing(err) { // of one that was deleted only the note is left
			return "", nil, cmp.Or(err, error(connectors.OtherFile(p.Role, other.file)))
		}
	}
	if known == nil || !slices.Contains(known.files, known.file) {
		return "", known, nil
	}
	whole, err := c.isWholeFile(ctx, known.file, p.File)
	if err != nil || !whole {
		return "", known, err
	}
	return known.file, known, nil
}

// place is where a file is stored.
type place struct{ folder, name string }

// placeOf makes a folder for each file, so that no other can have its name. It is named by the ID by which the deal was
// noticed, which does not change when the deal is merged.
func (c *Connector) placeOf(id string, tx deal.TxID, role deal.Role, f deal.File) place {
	return place{
		folder: fmt.Sprintf("%s/%s/%s-%s-%s", c.cfg.Folder, id, tx, role, f.SHA256[:16]),
		name:   cmp.Or(strings.Map(inFileName, f.Name), "document.pdf"),
	}
}

// inFileName keeps a name from being a path.
func inFileName(r rune) rune {
	if r < ' ' || r == 0x7f || r == '/' || r == '\\' {
		return '-'
	}
	return r
}

// store uploads the file unless it is there already. What is there and is damaged is replaced in its place.
func (c *Connector) store(ctx context.Context, at place, p connectors.Piece) (deal.RecordFile, error) {
	f := p.File
	var found *deal.RecordFile
	if !p.New { // the name of the place says what bytes are in it: nobody else can have stored these
		var err error
		if found, err = c.stat(ctx, at); err != nil {
			return deal.RecordFile{}, err
		}
	}
	if found != nil {
		if whole, err := c.isWhole(ctx, *found, f); err != nil || whole {
			return *found, err
		}
	}
	stored, err := c.upload(ctx, at, found, f)
	if isUnclear(err) && ctx.Err() == nil {
		if again, lookErr := c.stat(ctx, at); lookErr == nil && again != nil {
			stored, err = *again, nil
		}
	}
	if err != nil {
		return deal.RecordFile{}, fmt.Errorf("upload the file: %w", c.later(err))
	}
	whole, err := c.isWhole(ctx, stored, f)
	if err == nil && !whole {
		err = &Error{class: passing, cure: "the file arrived damaged: size or checksum differ from what was sent"}
	}
	return stored, err
}

// isWholeFile is isWhole for a file that may have been deleted.
func (c *Connector) isWholeFile(ctx context.Context, id string, f deal.File) (bool, error) {
	stored, err := c.file(ctx, id)
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return c.isWhole(ctx, stored, f)
}

// isWhole compares size and checksum, and where HubSpot reports none, the bytes.
func (c *Connector) isWhole(ctx context.Context, stored deal.RecordFile, f deal.File) (bool, error) {
	switch {
	case stored.Size != f.Length:
		return false, nil
	case stored.MD5 != "":
		return stored.MD5 == f.MD5, nil
	}
	h := sha256.New()
	if err := c.download(ctx, stored.ID, h, f.Length); err != nil {
		return false, fmt.Errorf("compare the stored file: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)) == f.SHA256, nil
}

// upload sends the file as multipart, streamed and with its length, so that a file that ends early is no file at all.
func (c *Connector) upload(ctx context.Context, at place, replaced *deal.RecordFile, f deal.File) (deal.RecordFile, error) {
	method, path := http.MethodPost, c.filesPath()
	fields := []field{
		{"folderPath", at.folder},
		{"fileName", at.name},
		{"options", `{"access":"PRIVATE","overwrite":false,"duplicateValidationStrategy":"NONE"}`},
	}
	if replaced != nil {
		method, path = http.MethodPut, path+"/"+replaced.ID
		fields = []field{{"options", `{"access":"PRIVATE"}`}}
	}
	form, err := newForm(fields, f)
	if err != nil {
		return deal.RecordFile{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TransferTimeout)
	defer cancel()
	resp, err := c.wire.send(ctx, exchange{
		method: method, url: c.wire.base + path, header: http.Header{"Content-Type": {form.mediaType}}, open: form.open, length: form.length,
	})
	if err != nil {
		return deal.RecordFile{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return deal.RecordFile{}, callError(ctx, err)
	}
	var said fileReply
	if json.Unmarshal(body, &said) != nil {
		return deal.RecordFile{}, malformed("it does not say that the file was stored")
	}
	return said.read()
}

// field is a text part of a form.
type field struct{ name, value string }

// form is a multipart body that can be read any number of times.
type form struct {
	head, tail []byte
	file       deal.File
	length     int64
	mediaType  string
}

func newForm(fields []field, f deal.File) (*form, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, field := range fields {
		if err := w.WriteField(field.name, field.value); err != nil {
			return nil, err
		}
	}
	// The name that people see is in the field fileName; this one only has to be there.
	_, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="file"; filename="document.pdf"`}, "Content-Type": {cmp.Or(f.MediaType, "application/octet-stream")},
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

// Download implements connectors.Files. The content comes from a URL that HubSpot has signed, on whatever host; our token
// is not sent there.
func (c *Connector) Download(ctx context.Context, ref deal.Ref, fileID string, w io.Writer, limit int64) error {
	if _, ok := parseID(fileID); !ok {
		return fmt.Errorf("hubspot: download a file of %s: %w", ref, refuse("%q is no ID of a file: it is a number", fileID))
	}
	if err := c.download(ctx, fileID, w, limit); err != nil {
		return fmt.Errorf("hubspot: download file %s of %s: %w", fileID, ref, err)
	}
	return nil
}

func (c *Connector) download(ctx context.Context, id string, w io.Writer, limit int64) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TransferTimeout)
	defer cancel()
	var said struct {
		URL string `json:"url"`
	}
	if _, err := c.getJSON(ctx, c.filesPath()+"/"+id+"/signed-url", url.Values{"expirationSeconds": {"900"}}, &said); err != nil {
		return err
	}
	u, err := url.Parse(said.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme+"://"+u.Host != c.wire.base {
		return malformed("its URL is none that may be followed: it must be https")
	}
	resp, err := c.wire.send(ctx, exchange{method: http.MethodGet, url: u.String(), access: foreign, header: http.Header{"Accept": {"*/*"}}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err, ours := connectors.Copy(w, resp.Body, limit)
	if ours != nil {
		return ours
	}
	if err != nil {
		return callError(ctx, err)
	}
	if n < limit {
		return nil
	}
	if extra, _ := io.ReadFull(resp.Body, make([]byte, 1)); extra > 0 {
		return refuse("the file has more than the %d bytes that are allowed", limit)
	}
	return nil
}
