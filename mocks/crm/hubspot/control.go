package hubspot

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// The methods in this file are what happens to a portal other than by API calls:
// people at work in the web application, and what a test wants to know.

// Record is a record as it is now, whatever search or a reply says of it.
type Record struct {
	ID         string               `json:"id"`
	Type       string               `json:"type"` // plural name, for example deals
	Properties map[string]string    `json:"properties"`
	History    map[string][]Version `json:"history"` // oldest first
	Archived   bool                 `json:"archived"`
	Created    time.Time            `json:"created"`
	Updated    time.Time            `json:"updated"`
}

// File is a file with its content.
type File struct {
	ID      string `json:"id"`
	Path    string `json:"path"`
	Access  string `json:"access"`
	MD5     string `json:"md5"` // hexadecimal
	Size    int    `json:"size"`
	Content []byte `json:"-"`
}

// Note is a note and the files that it carries.
type Note struct {
	ID            string    `json:"id"`
	Body          string    `json:"body"`
	Time          time.Time `json:"time"` // hs_timestamp
	AttachmentIDs []string  `json:"attachmentIds"`
}

// Create adds a record of any type as a person would.
func (p *Portal) Create(objectType string, props map[string]string) (id string, err error) {
	ids, err := p.CreateMany(objectType, 1, func(int) map[string]string { return props })
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// CreateDeal adds a deal as a person would.
func (p *Portal) CreateDeal(props map[string]string) (id string, err error) {
	return p.Create("deals", props)
}

// CreateDeals adds n deals at one moment, as an import does.
func (p *Portal) CreateDeals(n int, props func(i int) map[string]string) (ids []string, err error) {
	return p.CreateMany("deals", n, props)
}

// CreateMany is CreateDeals for records of any type.
func (p *Portal) CreateMany(objectType string, n int, props func(int) map[string]string) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, err := p.typeNamed(objectType)
	if err != nil {
		return nil, err
	}
	by, now := inUI(), p.now()
	if n > 1 {
		by = Source{Type: "IMPORT", ID: "import:1"}
	}
	ids := make([]string, 0, n)
	for i := range n {
		values, bad := p.check(t, nil, props(i), "")
		if bad != nil {
			return nil, bad.asError()
		}
		ids = append(ids, formatID(p.create(t, values, by, now).id))
	}
	return ids, nil
}

func (r *reply) asError() error { return fmt.Errorf("hubspot: %s", r.body) }

func (p *Portal) typeNamed(name string) (*objectType, error) {
	t := p.objects[name]
	if t == nil {
		return nil, fmt.Errorf("hubspot: there is no object type %q", name)
	}
	return t, nil
}

func (p *Portal) recordOf(objectType, id string) (*record, error) {
	t, err := p.typeNamed(objectType)
	if err != nil {
		return nil, err
	}
	n, _ := parseID(id)
	if r := t.find(n, true, false); r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("hubspot: there is no record %q among the %s", id, t.plural)
}

// Update changes properties of a record as a person would.
func (p *Portal) Update(objectType, id string, props map[string]string) error {
	return p.updateMany(objectType, []string{id}, props, inUI())
}

// SetProperty changes one property of a deal as a person would.
func (p *Portal) SetProperty(dealID, name, value string) error {
	return p.Update("deals", dealID, map[string]string{name: value})
}

// MoveStage moves a deal as a person would.
func (p *Portal) MoveStage(dealID, stage string) error {
	return p.SetProperty(dealID, "dealstage", stage)
}

// MoveStages moves many deals in one batch: all get the same time stamp.
func (p *Portal) MoveStages(dealIDs []string, stage string) error {
	return p.updateMany("deals", dealIDs, map[string]string{"dealstage": stage}, Source{Type: "BATCH_UPDATE", ID: "userId:12345", UserID: 12345})
}

func (p *Portal) updateMany(objectType string, ids []string, props map[string]string, by Source) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, id := range ids {
		r, err := p.recordOf(objectType, id)
		if err != nil {
			return err
		}
		values, bad := p.check(r.typ, r, props, "")
		if bad != nil {
			return bad.asError()
		}
		p.apply(r, values, by, now)
	}
	return nil
}

// AddLineItem adds a line item to a deal.
func (p *Portal) AddLineItem(dealID string, props map[string]string) (id string, err error) {
	return p.addTo(dealID, "line_items", props, "")
}

// AddContact adds a contact to a deal, with a label such as Signer unless it is
// empty. The label is defined when it is new.
func (p *Portal) AddContact(dealID string, props map[string]string, label string) (id string, err error) {
	return p.addTo(dealID, "contacts", props, label)
}

// AddCompany adds a company to a deal. A deal's first company is its primary one.
func (p *Portal) AddCompany(dealID string, props map[string]string) (id string, err error) {
	return p.addTo(dealID, "companies", props, "")
}

func (p *Portal) addTo(dealID, objectType string, props map[string]string, label string) (string, error) {
	id, err := p.Create(objectType, props)
	if err != nil {
		return "", err
	}
	return id, p.Associate("deals", dealID, objectType, id, label)
}

// Associate joins two records, with a label unless it is empty.
func (p *Portal) Associate(fromType, fromID, toType, toID, label string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, err := p.recordOf(fromType, fromID)
	if err != nil {
		return err
	}
	to, err := p.recordOf(toType, toID)
	if err != nil {
		return err
	}
	byDefault, ok := p.defaultType(from.typ, to.typ)
	if !ok {
		return fmt.Errorf("hubspot: %s cannot be associated with %s", from.typ.plural, to.typ.plural)
	}
	types := []assocType{byDefault}
	if first := len(p.linked(from.end(), to.typ)) == 0; first && from.typ.plural == "deals" && to.typ.plural == "companies" {
		primary, _ := p.assocType("deals", "companies", 5)
		types = []assocType{primary, byDefault}
	}
	if label != "" {
		types = append(types, p.labelled(from.typ, to.typ, label))
	}
	p.associate(from, to, types, p.now())
	return nil
}

func (p *Portal) labelled(from, to *objectType, label string) assocType {
	for _, t := range p.labels {
		if t.from == from.plural && t.to == to.plural && t.Label == label {
			return t
		}
	}
	t, _ := p.assocType(from.plural, to.plural, p.defineLabel(from, to, label))
	return t
}

// AddOwner adds a person who may own records. An empty ID or user ID gets a free one.
func (p *Portal) AddOwner(o Owner) (id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := int64(len(p.owners))
	o.ID = orDefault(o.ID, formatID(910901+n))
	if o.UserID == 0 {
		o.UserID = 12345 + n
	}
	p.owners = append(p.owners, o)
	slices.SortFunc(p.owners, func(a, b Owner) int {
		x, _ := parseID(a.ID)
		y, _ := parseID(b.ID)
		return int(x - y)
	})
	return o.ID
}

// AddProperty defines a property as an admin would.
func (p *Portal) AddProperty(objectType string, f Property) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, err := p.typeNamed(objectType)
	if err != nil {
		return err
	}
	if bad := p.checkDefinition(t, f); bad != nil {
		return bad.asError()
	}
	t.properties[f.Name] = f
	return nil
}

// RequireWhen adds a conditional required property.
func (p *Portal) RequireWhen(rule ConditionalRule) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, err := p.typeNamed(rule.Object)
	if err != nil {
		return err
	}
	for _, name := range append([]string{rule.Property}, rule.Required...) {
		if _, ok := t.property(name); !ok {
			return fmt.Errorf("hubspot: %s have no property %q", t.plural, name)
		}
	}
	p.rules = append(p.rules, rule)
	return nil
}

// Merge merges the second deal into the first. The result has an ID of its own.
func (p *Portal) Merge(firstID, secondID string) (newID string, err error) {
	return p.MergeOf("deals", firstID, secondID)
}

// MergeOf is Merge for records of any type, as if HubSpot merged them all alike.
func (p *Portal) MergeOf(objectType, firstID, secondID string) (newID string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, err := p.recordOf(objectType, firstID)
	if err != nil {
		return "", err
	}
	second, err := p.recordOf(objectType, secondID)
	if err != nil {
		return "", err
	}
	if first == second {
		return "", errors.New("hubspot: a record cannot be merged with itself")
	}
	return formatID(p.merge(first, second, inUI(), p.now()).id), nil
}

// Delete archives a deal.
func (p *Portal) Delete(dealID string) error { return p.DeleteOf("deals", dealID) }

// DeleteOf archives a record of any type.
func (p *Portal) DeleteOf(objectType, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := p.recordOf(objectType, id)
	if err != nil {
		return err
	}
	p.archive(r, p.now())
	return nil
}

// Record returns a deal, also by an ID that was merged away, and also an archived one.
func (p *Portal) Record(dealID string) (Record, error) { return p.RecordOf("deals", dealID) }

// RecordOf returns a record of any type.
func (p *Portal) RecordOf(objectType, id string) (Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, err := p.typeNamed(objectType)
	if err != nil {
		return Record{}, err
	}
	n, _ := parseID(id)
	r := t.find(n, true, false)
	if r == nil {
		r = t.find(n, true, true)
	}
	if r == nil {
		return Record{}, fmt.Errorf("hubspot: there is no record %q among the %s", id, t.plural)
	}
	return r.snapshot(), nil
}

func (r *record) snapshot() Record {
	out := Record{
		ID: formatID(r.id), Type: r.typ.plural, Properties: r.values(), History: map[string][]Version{},
		Archived: r.archived, Created: r.created, Updated: r.updated,
	}
	for name, h := range r.history {
		out.History[name] = slices.Clone(h)
	}
	return out
}

// IDs lists the records of a type that are neither archived nor merged away.
func (p *Portal) IDs(objectType string) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, err := p.typeNamed(objectType)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, id := range t.order {
		if !t.records[id].archived {
			out = append(out, formatID(id))
		}
	}
	return out, nil
}

// Notes lists a deal's notes by ascending ID.
func (p *Portal) Notes(dealID string) ([]Note, error) { return p.NotesOf("deals", dealID) }

// NotesOf lists the notes of a record of any type by ascending ID.
func (p *Portal) NotesOf(objectType, id string) ([]Note, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notesOf(objectType, id)
}

func (p *Portal) notesOf(objectType, id string) ([]Note, error) {
	deal, err := p.recordOf(objectType, id)
	if err != nil {
		return nil, err
	}
	var out []Note
	for _, l := range p.linked(deal.end(), p.objects["notes"]) {
		r := l.to.typ.records[l.to.id]
		at, _ := parseTime(r.value("hs_timestamp"))
		out = append(out, Note{ID: formatID(r.id), Body: r.value("hs_note_body"), Time: at, AttachmentIDs: splitIDs(r.value("hs_attachment_ids"))})
	}
	slices.SortFunc(out, func(a, b Note) int {
		x, _ := parseID(a.ID)
		y, _ := parseID(b.ID)
		return int(x - y)
	})
	return out, nil
}

// Tasks lists the properties of a deal's tasks by ascending ID.
func (p *Portal) Tasks(dealID string) (tasks []map[string]string, err error) {
	return p.TasksOf("deals", dealID)
}

// TasksOf is Tasks for a record of any type.
func (p *Portal) TasksOf(objectType, id string) (tasks []map[string]string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	deal, err := p.recordOf(objectType, id)
	if err != nil {
		return nil, err
	}
	for _, l := range p.linked(deal.end(), p.objects["tasks"]) {
		r := l.to.typ.records[l.to.id]
		properties := map[string]string{"id": formatID(r.id)}
		for _, name := range []string{"hs_task_subject", "hs_task_body", "hs_timestamp", "hs_task_status", "hubspot_owner_id"} {
			properties[name] = r.value(name)
		}
		tasks = append(tasks, properties)
	}
	slices.SortFunc(tasks, func(a, b map[string]string) int {
		x, _ := parseID(a["id"])
		y, _ := parseID(b["id"])
		return int(x - y)
	})
	return tasks, nil
}

// Files lists the files that a deal's notes carry, once for each note that does.
func (p *Portal) Files(dealID string) ([]File, error) { return p.FilesOf("deals", dealID) }

// FilesOf is Files for a record of any type.
func (p *Portal) FilesOf(objectType, id string) ([]File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	notes, err := p.notesOf(objectType, id)
	if err != nil {
		return nil, err
	}
	var out []File
	for _, n := range notes {
		for _, id := range n.AttachmentIDs {
			if f := p.files.byID[id]; f != nil && !f.archived {
				out = append(out, f.snapshot())
			}
		}
	}
	return out, nil
}

func (f *storedFile) snapshot() File {
	return File{ID: f.id, Path: f.path(), Access: f.access, MD5: f.md5, Size: len(f.content), Content: slices.Clone(f.content)}
}

// StoredFiles lists every file of the portal, attached to something or not.
func (p *Portal) StoredFiles() []File {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []File
	for _, f := range p.files.order {
		if !f.archived {
			out = append(out, f.snapshot())
		}
	}
	return out
}

// FileByID returns one file.
func (p *Portal) FileByID(id string) (File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.files.byID[id]
	if f == nil || f.archived {
		return File{}, fmt.Errorf("hubspot: there is no file %q", id)
	}
	return f.snapshot(), nil
}

// DeleteFile deletes a file, as a person would who leaves the notes that carry it.
func (p *Portal) DeleteFile(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.files.byID[id]
	if f == nil || f.archived {
		return fmt.Errorf("hubspot: there is no file %q", id)
	}
	f.archived = true
	return nil
}

// SpoilFile gives a file other bytes while the checksum that HubSpot says of it
// stays as it was: what is stored has been damaged.
func (p *Portal) SpoilFile(id string, content []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.files.byID[id]
	if f == nil || f.archived {
		return fmt.Errorf("hubspot: there is no file %q", id)
	}
	f.content = slices.Clone(content)
	return nil
}

// AddFile attaches a file to a deal as a person would: a note that carries it.
func (p *Portal) AddFile(dealID, name string, content []byte) (fileID string, err error) {
	return p.AddFileTo("deals", dealID, name, content)
}

// AddFileTo is AddFile for a record of any type that notes can be put on.
func (p *Portal) AddFileTo(objectType, id, name string, content []byte) (fileID string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	deal, err := p.recordOf(objectType, id)
	if err != nil {
		return "", err
	}
	const folder = "/uploads"
	f := p.storeFile(folder, p.files.freeName(folder, name), "PRIVATE", "", slices.Clone(content))
	now := p.now()
	note := p.create(p.objects["notes"], map[string]string{"hs_timestamp": stamp(now), "hs_attachment_ids": f.id}, inUI(), now)
	t, _ := p.defaultType(note.typ, deal.typ)
	p.associate(note, deal, []assocType{t}, now)
	return f.id, nil
}

// ExpireTokens ends the life of every OAuth access token now.
func (p *Portal) ExpireTokens() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.auth.tokens {
		if t.oauth {
			t.expires = p.now()
		}
	}
}

// RevokeApp makes the OAuth app's tokens invalid, as uninstalling it does.
func (p *Portal) RevokeApp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.auth.refresh = ""
	maps.DeleteFunc(p.auth.tokens, func(_ string, t *accessToken) bool { return t.oauth })
}

// SetLimits changes the rate limits.
func (p *Portal) SetLimits(l Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits.set = l
}

// SetIndexDelay changes how long later changes take to reach search.
func (p *Portal) SetIndexDelay(d Delay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opt.IndexDelay = d
}

// HoldIndex keeps the changes of a deal from search until it is called with false.
func (p *Portal) HoldIndex(dealID string, hold bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := p.recordOf("deals", dealID)
	if err != nil {
		return err
	}
	if r.typ.index.held[r.id] = hold; !hold {
		delete(r.typ.index.held, r.id)
	}
	return nil
}

// SpoilHistory makes the time stamp of the newest entry in a property's history
// unreadable on the wire, or readable again.
func (p *Portal) SpoilHistory(dealID, property string, spoilt bool) error {
	return p.SpoilHistoryOf("deals", dealID, property, spoilt)
}

// SpoilHistoryOf is SpoilHistory for a record of any type.
func (p *Portal) SpoilHistoryOf(objectType, id, property string, spoilt bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := p.recordOf(objectType, id)
	if err != nil {
		return err
	}
	if r.unparsable == nil {
		r.unparsable = map[string]bool{}
	}
	r.unparsable[property] = spoilt
	return nil
}

// Counts returns how many calls of each kind came since the start or the last ResetRequests.
func (p *Portal) Counts() map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.log.counts)
}

// Requests returns the newest calls, oldest first.
func (p *Portal) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log.entries)
}

// ResetRequests empties the request log and its counters.
func (p *Portal) ResetRequests() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = requestLog{counts: map[Kind]int{}}
}
