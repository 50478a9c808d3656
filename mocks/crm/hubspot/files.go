package hubspot

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// storedFile is a file of the file manager.
type storedFile struct {
	id, folderID      string
	folder, name, ext string // folder begins with a slash and has none at its end
	access            string
	contentType       string
	content           []byte
	md5               string
	created, updated  time.Time
	searchable        time.Time // when the search for files finds it
	expires           time.Time // zero for never
	archived          bool
}

func (f *storedFile) fileName() string {
	if f.ext == "" {
		return f.name
	}
	return f.name + "." + f.ext
}

func (f *storedFile) path() string { return path.Join(f.folder, f.fileName()) }

func (f *storedFile) private() bool { return !strings.HasPrefix(f.access, "PUBLIC") }

type fileStore struct {
	byID    map[string]*storedFile
	order   []*storedFile
	folders map[string]string // path to ID
	next    int64
	changes int
}

func newFileStore() fileStore {
	return fileStore{byID: map[string]*storedFile{}, folders: map[string]string{"/": "0"}, next: 122692044000}
}

func (s *fileStore) nextID() string {
	s.next++
	return formatID(s.next)
}

// folder returns the ID of a folder, making it and those above it.
func (s *fileStore) folder(p string) string {
	if id, ok := s.folders[p]; ok {
		return id
	}
	s.folder(path.Dir(p))
	s.folders[p] = s.nextID()
	return s.folders[p]
}

func (s *fileStore) at(p string) *storedFile {
	for _, f := range s.order {
		if !f.archived && f.path() == p {
			return f
		}
	}
	return nil
}

// uploadForm is a multipart body of an upload.
type uploadForm struct {
	fields      map[string]string
	fileName    string
	contentType string
	content     []byte
	md5         string
	hasFile     bool
}

// maxFormField bounds the parts that are not the file, in bytes.
const maxFormField = 1 << 20

// readUpload reads the parts in any order as they arrive.
func readUpload(r *http.Request, maxFile int64) (*uploadForm, *reply) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "multipart/form-data" || params["boundary"] == "" {
		return nil, fail(http.StatusUnsupportedMediaType, envelope{Message: "Unsupported media type: send multipart/form-data."})
	}
	form := &uploadForm{fields: map[string]string{}}
	parts := multipart.NewReader(r.Body, params["boundary"])
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return form, nil
		}
		if err != nil {
			return nil, invalid("The multipart body could not be read.")
		}
		if bad := form.take(part, maxFile); bad != nil {
			return nil, bad
		}
	}
}

func (form *uploadForm) take(part *multipart.Part, maxFile int64) *reply {
	limit := int64(maxFormField)
	if part.FormName() == "file" {
		limit = maxFile
	}
	var body bytes.Buffer
	sum := md5.New()
	n, err := io.Copy(io.MultiWriter(&body, sum), io.LimitReader(part, limit+1))
	switch {
	case err != nil:
		return invalid("The multipart body could not be read.")
	case n > limit:
		return fail(http.StatusRequestEntityTooLarge, envelope{Message: fmt.Sprintf("The part %q is larger than %d bytes.", part.FormName(), limit)})
	case part.FormName() != "file":
		form.fields[part.FormName()] = body.String()
		return nil
	}
	form.hasFile, form.content, form.md5 = true, body.Bytes(), hex.EncodeToString(sum.Sum(nil))
	form.fileName, form.contentType = part.FileName(), part.Header.Get("Content-Type")
	return nil
}

// uploadOptions is the options part.
type uploadOptions struct {
	Access    string      `json:"access"`
	Overwrite bool        `json:"overwrite"`
	Strategy  string      `json:"duplicateValidationStrategy"`
	Scope     string      `json:"duplicateValidationScope"`
	TTL       string      `json:"ttl"`
	ExpiresAt json.Number `json:"expiresAt"`
}

func accessLevels() []string {
	return []string{
		"PUBLIC_INDEXABLE", "PUBLIC_NOT_INDEXABLE", "PRIVATE", "SENSITIVE",
		"HIDDEN_INDEXABLE", "HIDDEN_NOT_INDEXABLE", "HIDDEN_PRIVATE", "HIDDEN_SENSITIVE",
	}
}

func (o *uploadOptions) check() *reply {
	switch {
	case o.Access == "":
		return invalid("options.access is required.")
	case !slices.Contains(accessLevels(), o.Access):
		return invalid("options.access %q is none of %s.", o.Access, strings.Join(accessLevels(), ", "))
	case !slices.Contains([]string{"", "NONE", "REJECT", "RETURN_EXISTING"}, o.Strategy):
		return invalid("options.duplicateValidationStrategy %q is none of NONE, REJECT, RETURN_EXISTING.", o.Strategy)
	case !slices.Contains([]string{"", "ENTIRE_PORTAL", "EXACT_FOLDER"}, o.Scope):
		return invalid("options.duplicateValidationScope %q is none of ENTIRE_PORTAL, EXACT_FOLDER.", o.Scope)
	}
	return nil
}

// expiry reads ttl, an ISO 8601 duration of whole days to a year, or expiresAt.
func (o *uploadOptions) expiry(now time.Time) (time.Time, *reply) {
	if ms, err := o.ExpiresAt.Int64(); err == nil {
		return time.UnixMilli(ms).UTC(), nil
	}
	if o.TTL == "" {
		return time.Time{}, nil
	}
	var n int
	var unit rune
	if _, err := fmt.Sscanf(o.TTL, "P%d%c", &n, &unit); err != nil {
		return time.Time{}, invalid("options.ttl %q is not an ISO 8601 duration.", o.TTL)
	}
	end := now
	switch unit {
	case 'D':
		end = now.AddDate(0, 0, n)
	case 'W':
		end = now.AddDate(0, 0, 7*n)
	case 'M':
		end = now.AddDate(0, n, 0)
	case 'Y':
		end = now.AddDate(n, 0, 0)
	}
	if end.Before(now.AddDate(0, 0, 1)) || end.After(now.AddDate(1, 0, 0)) {
		return time.Time{}, invalid("options.ttl %q is not between one day and one year.", o.TTL)
	}
	return end, nil
}

func (c *call) upload() *reply {
	if !c.form.hasFile {
		return invalid("The part file is required.")
	}
	var o uploadOptions
	if err := json.Unmarshal([]byte(c.form.fields["options"]), &o); err != nil {
		return invalid("The part options is required and must be a JSON object.")
	}
	if bad := o.check(); bad != nil {
		return bad
	}
	folder, bad := c.folderOf(c.form)
	if bad != nil {
		return bad
	}
	expires, bad := o.expiry(c.p.now())
	if bad != nil {
		return bad
	}
	name := path.Base(orDefault(c.form.fields["fileName"], c.form.fileName))
	if name == "." || name == "/" {
		return invalid("The file has no name.")
	}
	if path.Ext(name) == "" {
		name += path.Ext(c.form.fileName)
	}
	return c.storeUpload(folder, name, o, expires)
}

func (c *call) storeUpload(folder, name string, o uploadOptions, expires time.Time) *reply {
	s := &c.p.files
	if old := s.duplicate(folder, name, c.form.md5, o.Scope, c.p.opt.DuplicateByName); old != nil {
		switch o.Strategy {
		case "REJECT":
			return fail(http.StatusConflict, envelope{Message: "A file like this one already exists: " + old.id, Category: "CONFLICT"})
		case "RETURN_EXISTING":
			return c.created(old)
		}
	}
	if old := s.at(path.Join(folder, name)); old != nil && o.Overwrite {
		old.archived = true // the new file gets an ID of its own
	}
	f := c.p.storeFile(folder, s.freeName(folder, name), o.Access, c.form.contentType, c.form.content)
	f.expires = expires
	return c.created(f)
}

func (c *call) created(f *storedFile) *reply {
	rep := respond(http.StatusCreated, c.p.fileView(f, c.baseURL()))
	rep.header.Set("Location", c.baseURL()+c.r.RequestURI+"/"+f.id)
	return rep
}

// storeFile adds a file under a name that is free.
func (p *Portal) storeFile(folder, name, access, contentType string, content []byte) *storedFile {
	s, now := &p.files, p.now()
	s.changes++
	sum := md5.Sum(content)
	ext := path.Ext(name)
	f := &storedFile{
		id: s.nextID(), folder: folder, folderID: s.folder(folder),
		name: strings.TrimSuffix(name, ext), ext: strings.TrimPrefix(ext, "."),
		access: access, contentType: orDefault(contentType, "application/octet-stream"),
		content: content, md5: hex.EncodeToString(sum[:]),
		created: now, updated: now, searchable: now.Add(p.opt.IndexDelay.at(s.changes)),
	}
	s.byID[f.id] = f
	s.order = append(s.order, f)
	return f
}

func (s *fileStore) duplicate(folder, name, sum, scope string, byName bool) *storedFile {
	for _, f := range s.order {
		same := f.md5 == sum
		if byName {
			same = f.fileName() == name
		}
		if same && !f.archived && (scope == "ENTIRE_PORTAL" || f.folder == folder) {
			return f
		}
	}
	return nil
}

// freeName is what HubSpot calls a file whose name is taken.
func (s *fileStore) freeName(folder, name string) string {
	ext := path.Ext(name)
	free := name
	for i := 1; s.at(path.Join(folder, free)) != nil; i++ {
		free = strings.TrimSuffix(name, ext) + "-" + strconv.Itoa(i) + ext
	}
	return free
}

// folderOf resolves folderPath or folderId, of which one and only one is given.
func (c *call) folderOf(form *uploadForm) (string, *reply) {
	byPath, byID := form.fields["folderPath"], form.fields["folderId"]
	if (byPath == "") == (byID == "") {
		return "", invalid("Exactly one of folderPath and folderId is required.")
	}
	if byPath != "" {
		return path.Join("/", byPath), nil
	}
	for p, id := range c.p.files.folders {
		if id == byID {
			return p, nil
		}
	}
	return "", notFound(byID)
}

func (p *Portal) fileView(f *storedFile, base string) map[string]any {
	link := base + "/hubfs/" + formatID(p.opt.PortalID) + (&url.URL{Path: f.path()}).EscapedPath()
	out := map[string]any{
		"id": f.id, "createdAt": stamp(f.created), "updatedAt": stamp(f.updated), "archived": f.archived,
		"parentFolderId": f.folderID, "name": f.name, "path": f.path(), "size": len(f.content), "type": f.category(), "extension": f.ext,
		"defaultHostingUrl": link, "url": link, "isUsableInContent": !f.private(), "access": f.access, "fileMd5": f.md5,
		"sourceGroup": "CONTENT", "expiresAt": nil,
	}
	if !f.expires.IsZero() {
		out["expiresAt"] = f.expires.UnixMilli()
	}
	return out
}

// category is HubSpot's rough type of a file, which is not a media type.
func (f *storedFile) category() string {
	switch strings.ToLower(f.ext) {
	case "pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "txt", "csv":
		return "DOCUMENT"
	case "png", "jpg", "jpeg", "gif", "svg", "webp":
		return "IMG"
	}
	return "OTHER"
}

// liveFile finds the file in the path.
func (c *call) liveFile() (*storedFile, *reply) {
	id := c.r.PathValue("id")
	f := c.p.files.byID[id]
	if f == nil || f.archived || f.expired(c.p.now()) {
		return nil, notFound(id)
	}
	return f, nil
}

func (f *storedFile) expired(now time.Time) bool {
	return !f.expires.IsZero() && !now.Before(f.expires)
}

func (c *call) getFile() *reply {
	f, bad := c.liveFile()
	if bad != nil {
		return bad
	}
	return respond(200, c.p.fileView(f, c.baseURL()))
}

func (c *call) replaceFile() *reply {
	f, bad := c.liveFile()
	if bad != nil {
		return bad
	}
	if !c.form.hasFile {
		return invalid("The part file is required.")
	}
	f.content, f.md5, f.updated = c.form.content, c.form.md5, c.p.now()
	f.contentType = orDefault(c.form.contentType, f.contentType)
	return respond(200, c.p.fileView(f, c.baseURL()))
}

func (c *call) patchFile() *reply {
	f, bad := c.liveFile()
	if bad != nil {
		return bad
	}
	var in struct {
		Name             string `json:"name"`
		Access           string `json:"access"`
		ParentFolderPath string `json:"parentFolderPath"`
	}
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	if in.Access != "" && !slices.Contains(accessLevels(), in.Access) {
		return invalid("access %q is none of %s.", in.Access, strings.Join(accessLevels(), ", "))
	}
	f.name, f.access = orDefault(in.Name, f.name), orDefault(in.Access, f.access)
	if in.ParentFolderPath != "" {
		f.folder = path.Join("/", in.ParentFolderPath)
		f.folderID = c.p.files.folder(f.folder)
	}
	f.updated = c.p.now()
	return respond(200, c.p.fileView(f, c.baseURL()))
}

// deleteFile serves the two ways to delete; only gdpr-delete drops the content.
func (c *call) deleteFile() *reply {
	f := c.p.files.byID[c.r.PathValue("id")]
	if f == nil {
		return notFound(c.r.PathValue("id"))
	}
	f.archived = true
	if strings.HasSuffix(c.r.RequestURI, "/gdpr-delete") {
		f.content, f.md5, f.name = nil, "", ""
	}
	return noContent()
}

func (c *call) statFile() *reply {
	p := path.Join("/", c.r.PathValue("path"))
	if f := c.p.files.at(p); f != nil {
		return respond(200, map[string]any{"file": c.p.fileView(f, c.baseURL())})
	}
	if id, ok := c.p.files.folders[p]; ok {
		return respond(200, map[string]any{"folder": map[string]any{"id": id, "name": path.Base(p), "path": p, "archived": false}})
	}
	return notFound(p)
}

// fileFilters are the parameters that searchFiles knows.
func fileFilters() []string {
	return []string{"limit", "after", "properties", "path", "name", "parentFolderIds", "ids", "extension", "fileMd5"}
}

func (c *call) searchFiles() *reply {
	for name := range c.r.URL.Query() {
		if !slices.Contains(fileFilters(), name) {
			return invalid("The mock has no file filter %q.", name) // better than files that the filter would leave out
		}
	}
	limit, after, bad := c.page(20, 100)
	if bad != nil {
		return bad
	}
	now := c.p.now()
	results := []any{}
	for _, f := range c.p.files.order {
		id, _ := parseID(f.id)
		if f.archived || f.searchable.After(now) || id <= after || !c.wantsFile(f) {
			continue
		}
		if len(results) == limit {
			return respond(200, map[string]any{"results": results, "paging": c.next(formatID(after))})
		}
		results = append(results, c.p.fileView(f, c.baseURL()))
		after = id
	}
	return respond(200, map[string]any{"results": results})
}

func (c *call) wantsFile(f *storedFile) bool {
	has := func(param string, match func(string) bool) bool {
		wanted := c.params(param)
		return len(wanted) == 0 || slices.ContainsFunc(wanted, match)
	}
	return has("path", func(v string) bool { return path.Join("/", v) == f.path() }) &&
		has("name", func(v string) bool { return strings.Contains(strings.ToLower(f.fileName()), strings.ToLower(v)) }) &&
		has("parentFolderIds", func(v string) bool { return v == f.folderID }) &&
		has("ids", func(v string) bool { return v == f.id }) &&
		has("extension", func(v string) bool { return strings.EqualFold(v, f.ext) }) &&
		has("fileMd5", func(v string) bool { return strings.EqualFold(v, f.md5) })
}

// maxSignedLife is the longest life of a signed URL in seconds, a year. HubSpot
// does not name its own.
const maxSignedLife = 365 * 24 * 3600

func (c *call) signURL() *reply {
	f, bad := c.liveFile()
	if bad != nil {
		return bad
	}
	lifetime := time.Hour
	if s := c.param("expirationSeconds"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxSignedLife {
			return invalid("expirationSeconds must be a number between 1 and %d.", maxSignedLife)
		}
		lifetime = time.Duration(n) * time.Second
	}
	end := c.p.now().Add(lifetime)
	expires := strconv.FormatInt(end.UnixMilli(), 10)
	return respond(200, map[string]any{
		"url":       c.baseURL() + "/signed-content/file/" + f.id + "?" + url.Values{"expires": {expires}, "signature": {c.p.sign(f.id, expires)}}.Encode(),
		"expiresAt": stamp(end), "name": f.name, "extension": f.ext, "type": f.category(), "size": len(f.content),
	})
}

func (p *Portal) sign(id, expires string) string {
	mac := hmac.New(sha256.New, p.key)
	io.WriteString(mac, id+"."+expires)
	return hex.EncodeToString(mac.Sum(nil))
}

// serveSigned needs no token: whoever has the URL may read until it expires.
func (c *call) serveSigned() *reply {
	f, bad := c.liveFile()
	if bad != nil {
		return bad
	}
	expires := c.param("expires")
	ms, err := strconv.ParseInt(expires, 10, 64)
	valid := hmac.Equal([]byte(c.p.sign(f.id, expires)), []byte(c.param("signature")))
	if err != nil || !valid || !c.p.now().Before(time.UnixMilli(ms)) {
		return &reply{status: http.StatusForbidden, header: http.Header{"Content-Type": {"text/plain"}}, body: []byte("The URL has expired or was changed.\n")}
	}
	return f.serve()
}

func (f *storedFile) serve() *reply {
	return &reply{status: 200, header: http.Header{
		"Content-Type":        {f.contentType},
		"Content-Length":      {strconv.Itoa(len(f.content))},
		"Content-Disposition": {mime.FormatMediaType("inline", map[string]string{"filename": f.fileName()})},
	}, body: f.content}
}

// servePublic is what url of a file leads to: nothing, when the file is private.
func (c *call) servePublic() *reply {
	f := c.p.files.at(path.Join("/", c.r.PathValue("path")))
	if f == nil || f.private() || f.expired(c.p.now()) {
		return &reply{status: http.StatusNotFound, header: http.Header{"Content-Type": {"text/html"}}, body: []byte("<html><body>404</body></html>\n")}
	}
	return f.serve()
}
