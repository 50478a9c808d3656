package salesforce

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"path"
	"strconv"
	"strings"
)

// upload creates a ContentVersion from JSON with base64 data or from a
// multipart body whose parts may come in any order.
func (c *call) upload() (id string, err *Error) {
	media, params, e := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if e != nil || !strings.HasPrefix(media, "multipart/") {
		return c.createJSON()
	}
	in, data, err := c.multipart(params["boundary"])
	if err != nil {
		return "", err
	}
	err = c.transact(func(t *tx) *Error {
		t.data = data
		id, err = t.create("ContentVersion", in)
		return err
	})
	return id, err
}

func (c *call) multipart(boundary string) (in map[string]any, data []byte, err *Error) {
	body, err := c.body()
	if err != nil {
		return nil, nil, err
	}
	broken := func(e error) *Error {
		var large *Error
		if errors.As(e, &large) {
			return large
		}
		return &Error{Status: 400, Code: "INVALID_MULTIPART_REQUEST", Message: "Multipart message is malformed."}
	}
	for r := multipart.NewReader(body, boundary); ; {
		p, e := r.NextPart()
		if e == io.EOF {
			break
		}
		if e != nil {
			return nil, nil, broken(e)
		}
		if p.FormName() != "VersionData" {
			if err := decodeJSON(p, &in); err != nil {
				return nil, nil, err
			}
			continue
		}
		if data, e = io.ReadAll(p); e != nil {
			return nil, nil, broken(e)
		}
	}
	if in == nil {
		return nil, nil, &Error{Status: 400, Code: "INVALID_MULTIPART_REQUEST", Message: "The non-binary part of the multipart message is missing."}
	}
	if data == nil {
		data = []byte{}
	}
	return in, data, nil
}

// insertFile stores a new version of a document; without ContentDocumentId it
// is a new document.
func (t *tx) insertFile(values map[string]any) (*row, *Error) {
	data, err := t.fileData(values)
	if err != nil {
		return nil, err
	}
	name, _ := values["PathOnClient"].(string)
	if name == "" {
		return nil, requiredMissing([]string{"PathOnClient"})
	}
	if values["Title"] == nil {
		values["Title"] = strings.TrimSuffix(path.Base(name), path.Ext(name))
	}
	sum := md5.Sum(data)
	extension := strings.TrimPrefix(path.Ext(name), ".")
	values["ContentSize"], values["Checksum"] = float64(len(data)), hex.EncodeToString(sum[:])
	values["FileExtension"], values["FileType"] = extension, strings.ToUpper(extension)
	values["IsLatest"], values["IsMajorVersion"], values["PublishStatus"] = true, true, "P"
	values["ContentLocation"], values["Origin"], values["OwnerId"] = "S", "C", t.user
	t.stampNew(values)
	document, err := t.document(values)
	if err != nil {
		return nil, err
	}
	values["ContentDocumentId"] = document.id
	values["VersionNumber"] = strconv.Itoa(t.supersede(document.id))
	r := t.insertRow(t.o.objects["contentversion"], values)
	t.o.content[r.id] = data
	t.undo = append(t.undo, func() { delete(t.o.content, r.id) })
	changes := map[string]any{"LatestPublishedVersionId": r.id, "Title": values["Title"], "ContentSize": values["ContentSize"],
		"FileType": values["FileType"], "FileExtension": extension}
	t.touch(changes)
	t.write(document, changes)
	return r, nil
}

// fileData takes the bytes from the multipart request or from VersionData.
func (t *tx) fileData(values map[string]any) ([]byte, *Error) {
	encoded, given := values["VersionData"].(string)
	delete(values, "VersionData")
	if data := t.data; data != nil {
		t.data = nil
		return data, nil
	}
	if !given {
		return nil, requiredMissing([]string{"VersionData"})
	}
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, jsonError("Illegal base64 data in VersionData at [line:1, column:2]")
	}
	return data, nil
}

// document finds or makes the document of a version, and links a new one.
func (t *tx) document(values map[string]any) (*row, *Error) {
	place, _ := values["FirstPublishLocationId"].(string)
	if id, ok := values["ContentDocumentId"].(string); ok {
		if place != "" {
			return nil, &Error{Status: 400, Code: "INVALID_FIELD_FOR_INSERT_UPDATE", Fields: []string{"FirstPublishLocationId"},
				Message: "You can't set the FirstPublishLocationId for a version of an existing document."}
		}
		return t.o.tables["ContentDocument"].byID[id], nil
	}
	fields := map[string]any{"Title": values["Title"], "OwnerId": t.user, "PublishStatus": "P"}
	t.stampNew(fields)
	doc := t.insertRow(t.o.objects["contentdocument"], fields)
	t.link(doc.id, t.user, "I")
	if place != "" && place != t.user {
		t.link(doc.id, place, "V")
	}
	return doc, nil
}

func (t *tx) link(document, entity, share string) {
	t.insertRow(t.o.objects["contentdocumentlink"], map[string]any{"ContentDocumentId": document, "LinkedEntityId": entity,
		"ShareType": share, "Visibility": "AllUsers", "IsDeleted": false, "SystemModstamp": t.stamp})
}

// supersede ends the reign of a document's latest version and returns the next number.
func (t *tx) supersede(document string) int {
	n := 1
	for _, v := range t.o.tables["ContentVersion"].referring("ContentDocumentId", []string{document}) {
		if values := v.latest(); values["ContentDocumentId"] == document {
			n++
			if values["IsLatest"] == true {
				t.write(v, map[string]any{"IsLatest": false})
			}
		}
	}
	return n
}

// checkLink refuses a second link between the same two.
func (t *tx) checkLink(r *row) *Error {
	values := r.latest()
	entity, _ := values["LinkedEntityId"].(string)
	for _, other := range t.o.tables["ContentDocumentLink"].referring("LinkedEntityId", []string{entity}) {
		v := other.latest()
		if other != r && !other.deleted() && v["ContentDocumentId"] == values["ContentDocumentId"] && v["LinkedEntityId"] == values["LinkedEntityId"] {
			return &Error{Status: 400, Code: "DUPLICATE_VALUE", Message: "duplicate value found: LinkedEntityId duplicates value on record with id: " + other.id, Fields: []string{}}
		}
	}
	return nil
}

// download answers with the bytes of a version.
func (c *call) download() reply {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	def, err := c.typeNamed(c.segs[1])
	if err == nil && def.name != "ContentVersion" {
		err = notFound()
	}
	if err != nil {
		return err.reply()
	}
	r, err := c.o.find(def, c.segs[2])
	if err != nil {
		return err.reply()
	}
	return reply{status: 200, body: bytes.Clone(c.o.content[r.id])}.with("Content-Type", "application/octetstream")
}
