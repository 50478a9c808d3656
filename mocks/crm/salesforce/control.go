package salesforce

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxLog is how many requests the log keeps; the counters go on.
const maxLog = 10_000

// Request is a line of the request log.
type Request struct {
	Time   time.Time
	Kind   Kind
	Method string
	Path   string // without the query
	Query  string // the SOQL of a query
	Status int    // 0: the connection was cut
	Client string // of Sforce-Call-Options
	Sub    bool   // part of a composite request
}

// record notes a request that was answered or cut.
func (o *Org) record(c *call, status int) {
	entry := Request{Kind: c.kind, Method: c.r.Method, Path: c.r.URL.Path, Query: c.r.URL.Query().Get("q"), Status: status, Client: c.client(), Sub: c.sub}
	o.mu.Lock()
	defer o.mu.Unlock()
	entry.Time = o.now()
	o.counts[c.kind]++
	if len(o.log) == maxLog {
		o.log = slices.Delete(o.log, 0, maxLog/10)
	}
	o.log = append(o.log, entry)
}

// client is who the caller says it is.
func (c *call) client() (name string) {
	for part := range strings.SplitSeq(c.r.Header.Get("Sforce-Call-Options"), ",") {
		if key, value, _ := strings.Cut(strings.TrimSpace(part), "="); strings.EqualFold(key, "client") {
			name = value
		}
	}
	return name
}

// origin is where a change comes from, as its event says.
func (c *call) origin() string {
	origin := "com/salesforce/api/rest/" + c.version
	if name := c.client(); name != "" {
		origin += ";client=" + name
	}
	return origin
}

// Requests returns the latest requests, oldest first.
func (o *Org) Requests() []Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.log)
}

// Counts returns how many calls of each kind came since the start or the last ResetRequests.
func (o *Org) Counts() map[Kind]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.counts)
}

// ResetRequests empties the log and the counters.
func (o *Org) ResetRequests() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log, o.counts = nil, map[Kind]int{}
}

// ID is the org's 18-character ID.
func (o *Org) ID() string { return o.orgID }

// act runs a change in the name of the salesperson, under the same rules as the API's.
func (o *Org) act(do func(*tx) *Error) error {
	o.exclusive.RLock()
	defer o.exclusive.RUnlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.begin(o.person)
	if o.commitDelay > 0 {
		t.visible = o.now().Add(o.commitDelay)
	}
	if err := do(t); err != nil {
		t.rollback(0)
		return err
	}
	t.commit()
	return nil
}

// Create makes a record of the named object, as a user would.
func (o *Org) Create(object string, fields map[string]any) (id string, err error) {
	err = o.act(func(t *tx) *Error {
		var e *Error
		id, e = t.create(object, fields)
		return e
	})
	return id, err
}

// CreateOpportunity makes an Opportunity. Name, StageName and CloseDate get a
// value if they are missing.
func (o *Org) CreateOpportunity(fields map[string]any) (id string, err error) {
	all := map[string]any{"Name": "Deal", "StageName": "Prospecting", "CloseDate": o.now().AddDate(0, 1, 0).Format(time.DateOnly)}
	maps.Copy(all, fields)
	return o.Create("Opportunity", all)
}

// CreateAccount makes an Account.
func (o *Org) CreateAccount(fields map[string]any) (id string, err error) {
	return o.Create("Account", fields)
}

// CreateContact makes a Contact.
func (o *Org) CreateContact(fields map[string]any) (id string, err error) {
	return o.Create("Contact", fields)
}

// CreateProduct makes a Product2.
func (o *Org) CreateProduct(fields map[string]any) (id string, err error) {
	return o.Create("Product2", fields)
}

// AddLineItem adds a product line to an Opportunity, whose Amount becomes the
// sum of its lines. A "Product2" value of map[string]any makes the product, too.
func (o *Org) AddLineItem(opportunityID string, fields map[string]any) (id string, err error) {
	return o.addTo(opportunityID, "OpportunityLineItem", "Product2", "Product2Id", fields)
}

// AddLineItems adds product lines in one save, as the page for them does: the Amount changes once.
func (o *Org) AddLineItems(opportunityID string, lines []map[string]any) error {
	return o.act(func(t *tx) *Error {
		t.rollUps = []any{}
		for _, fields := range lines {
			if _, err := t.add(opportunityID, "OpportunityLineItem", "Product2", "Product2Id", fields); err != nil {
				return err
			}
		}
		due := t.rollUps
		t.rollUps = nil
		for _, id := range due {
			if err := t.rollUp(id); err != nil {
				return err
			}
		}
		return nil
	})
}

// AddContactRole adds a contact to an Opportunity. A "Contact" value of
// map[string]any makes the contact, too.
func (o *Org) AddContactRole(opportunityID string, fields map[string]any) (id string, err error) {
	return o.addTo(opportunityID, "OpportunityContactRole", "Contact", "ContactId", fields)
}

func (o *Org) addTo(opportunityID, object, parent, reference string, fields map[string]any) (id string, err error) {
	err = o.act(func(t *tx) *Error {
		var e *Error
		id, e = t.add(opportunityID, object, parent, reference, fields)
		return e
	})
	return id, err
}

// add makes what hangs on an Opportunity, and the record that it refers to if its fields are given.
func (t *tx) add(opportunityID, object, parent, reference string, fields map[string]any) (id string, err *Error) {
	all := maps.Clone(fields)
	if all == nil {
		all = map[string]any{}
	}
	all["OpportunityId"] = opportunityID
	return t.addWith(object, parent, reference, all)
}

// addWith makes a record, and the one that it refers to if its fields are given.
func (t *tx) addWith(object, parent, reference string, all map[string]any) (id string, err *Error) {
	if given, ok := all[parent].(map[string]any); ok {
		made, err := t.create(parent, given)
		if err != nil {
			return "", err
		}
		delete(all, parent)
		all[reference] = made
	}
	return t.create(object, all)
}

// rowOf finds any record by its ID; the caller holds the lock.
func (o *Org) rowOf(id string) (*row, *Error) {
	full, ok := canonicalID(id)
	if ok {
		if def := o.byPrefix(full); def != nil {
			if r := o.tables[def.name].byID[full]; r != nil {
				return r, nil
			}
		}
	}
	return nil, &Error{Status: 404, Code: "NOT_FOUND", Message: "no record with ID " + id}
}

// Update changes a record as a user would. A change of an Opportunity's stage,
// amount, probability or close date writes an OpportunityHistory row.
func (o *Org) Update(id string, fields map[string]any) error {
	return o.act(func(t *tx) *Error {
		r, err := o.rowOf(id)
		if err != nil {
			return err
		}
		return t.update(r, fields)
	})
}

// MoveStage sets an Opportunity's stage.
func (o *Org) MoveStage(id, stage string) error {
	return o.Update(id, map[string]any{"StageName": stage})
}

// Delete puts a record into the recycle bin, for good.
func (o *Org) Delete(id string) error {
	return o.act(func(t *tx) *Error {
		r, err := o.rowOf(id)
		if err != nil {
			return err
		}
		return t.remove(r)
	})
}

// Record returns the fields of a record, committed or not, in the form in which
// a response would show them (numbers as json.Number); ok is false when it does
// not exist or was deleted.
func (o *Org) Record(id string) (fields map[string]any, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, err := o.rowOf(id)
	if err != nil || r.deleted() {
		return nil, false
	}
	return r.snapshot(), true
}

func (r *row) snapshot() map[string]any {
	out := map[string]any{}
	for _, f := range r.object.fields {
		if f.Type != TypeBase64 {
			out[f.Name] = output(f, fieldValue(r, r.latest(), f))
		}
	}
	return out
}

// Records returns the IDs of an object's records that are not deleted, oldest first.
func (o *Org) Records(object string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var ids []string
	if def := o.objects[lower(object)]; def != nil {
		for _, r := range o.tables[def.name].rows {
			if !r.deleted() {
				ids = append(ids, r.id)
			}
		}
	}
	return ids
}

// File is a document on a record.
type File struct {
	DocumentID string
	Title      string
	Versions   []FileVersion // oldest first
}

// FileVersion is one version of a document.
type FileVersion struct {
	ID       string
	Number   string
	Name     string // PathOnClient
	Checksum string // MD5, hexadecimal
	Content  []byte
	Fields   map[string]any // as of Record
}

// Files returns the documents linked to a record, in the order of their links.
func (o *Org) Files(recordID string) []File {
	o.mu.Lock()
	defer o.mu.Unlock()
	full, _ := canonicalID(recordID)
	var files []File
	for _, link := range o.tables["ContentDocumentLink"].referring("LinkedEntityId", []string{full}) {
		if v := link.latest(); v["LinkedEntityId"] == full && !link.deleted() {
			files = append(files, o.file(v["ContentDocumentId"].(string)))
		}
	}
	return files
}

func (o *Org) file(document string) File {
	f := File{DocumentID: document}
	f.Title, _ = o.tables["ContentDocument"].byID[document].latest()["Title"].(string)
	for _, r := range o.tables["ContentVersion"].referring("ContentDocumentId", []string{document}) {
		v := r.latest()
		if v["ContentDocumentId"] != document {
			continue
		}
		n := FileVersion{ID: r.id, Content: slices.Clone(o.content[r.id]), Fields: r.snapshot()}
		n.Number, _ = v["VersionNumber"].(string)
		n.Name, _ = v["PathOnClient"].(string)
		n.Checksum, _ = v["Checksum"].(string)
		f.Versions = append(f.Versions, n)
	}
	return f
}

// AddFile attaches a file to a record as a user would.
func (o *Org) AddFile(recordID, name string, content []byte) (versionID string, err error) {
	err = o.act(func(t *tx) *Error {
		t.data = slices.Clone(content)
		if t.data == nil {
			t.data = []byte{}
		}
		var e *Error
		versionID, e = t.create("ContentVersion", map[string]any{"PathOnClient": name, "FirstPublishLocationId": recordID})
		return e
	})
	return versionID, err
}

// SpoilFile gives a version other bytes while everything that Salesforce says
// of it stays as it was: what is stored has been damaged.
func (o *Org) SpoilFile(versionID string, content []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	full, _ := canonicalID(versionID)
	if _, ok := o.content[full]; !ok {
		return fmt.Errorf("salesforce mock: there is no file version %q", versionID)
	}
	o.content[full] = slices.Clone(content)
	return nil
}

// KillSessions ends every session: the next call of each is answered 401.
func (o *Org) KillSessions() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.sessions)
}

// ExpireQueries makes every query locator invalid.
func (o *Org) ExpireQueries() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.cursors)
}

// SetUsage sets how many API calls count as made in the last 24 hours.
func (o *Org) SetUsage(calls int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.usage = calls
}

// SetCommitDelay makes every change that a control method makes from now on
// visible d after the stamp that it carries, in order per record, as if its
// transaction ran that long. Until then the row is locked against writers over
// the API, whose own changes are committed before they are answered.
func (o *Org) SetCommitDelay(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.commitDelay = d
}

// Commit ends the transactions that are still open.
func (o *Org) Commit() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, tab := range o.tables {
		for _, r := range tab.rows {
			if r.uncommitted(o.now()) {
				r.versions = []version{{values: r.latest()}}
			}
		}
	}
	for i := range o.bus.events {
		o.bus.events[i].visible = time.Time{}
	}
	o.bus.notify()
}

// FreezeStamp makes every change carry the same time, to the second; the zero
// time lets the clock go on.
func (o *Org) FreezeStamp(at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frozen = at.UTC().Truncate(time.Second)
}

// Hide takes away the permission to see an object ("OpportunityHistory") or a
// field ("Opportunity.Amount"); Show gives it back.
func (o *Org) Hide(name string) { o.permit(o.hidden, name, true) }

// Show undoes Hide.
func (o *Org) Show(name string) { o.permit(o.hidden, name, false) }

// DenyEdit takes away the permission to edit a field ("Opportunity.Amount"); AllowEdit gives it back.
func (o *Org) DenyEdit(field string) { o.permit(o.readOnly, field, true) }

// AllowEdit undoes DenyEdit.
func (o *Org) AllowEdit(field string) { o.permit(o.readOnly, field, false) }

func (o *Org) permit(set map[string]bool, name string, on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if on {
		set[lower(name)] = true
	} else {
		delete(set, lower(name))
	}
	o.changed = o.now()
}

// Lock puts a record under an approval lock: nobody can change it. Unlock ends that.
func (o *Org) Lock(id string) { o.setLock(id, true) }

// Unlock undoes Lock.
func (o *Org) Unlock(id string) { o.setLock(id, false) }

func (o *Org) setLock(id string, on bool) {
	full, _ := canonicalID(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.locked[full] = on
}

// SetRaw makes responses show value (anything that JSON can express) in place of a record's
// field, for rows that a client cannot read; filters and sorting go on with the
// stored value. History rows are found with Records.
func (o *Org) SetRaw(id, field string, value any) error {
	if _, err := json.Marshal(value); err != nil {
		return fmt.Errorf("salesforce mock: raw value of %s: %w", field, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	r, err := o.rowOf(id)
	if err != nil {
		return err
	}
	f := r.object.byName[lower(field)]
	if f == nil {
		return &Error{Status: 400, Code: "INVALID_FIELD", Message: "no field " + field + " on " + r.object.name}
	}
	if r.raw == nil {
		r.raw = map[string]any{}
	}
	r.raw[f.Name] = value
	return nil
}

// IssueRefreshToken approves the app once more and returns the refresh token.
func (o *Org) IssueRefreshToken() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.newGrant("")
}
