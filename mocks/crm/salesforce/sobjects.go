package salesforce

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// transact runs one change as a transaction of its own, or as part of the
// composite request's.
func (c *call) transact(do func(*tx) *Error) *Error {
	t := c.tx
	if t == nil {
		c.o.exclusive.RLock()
		defer c.o.exclusive.RUnlock()
	}
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	if t == nil {
		t = c.o.begin(c.user)
		t.origin = c.origin()
	}
	mark := len(t.undo)
	err := do(t)
	switch {
	case err != nil:
		t.rollback(mark)
	case c.tx == nil:
		t.commit()
	}
	return err
}

// typeNamed finds the object of a path; the caller holds the lock.
func (c *call) typeNamed(name string) (*object, *Error) {
	if def := c.o.object(name); def != nil {
		return def, nil
	}
	return nil, notFound()
}

// find returns the row that a path or body names, as the user sees it.
func (o *Org) find(def *object, id string) (*row, *Error) {
	full, ok := canonicalID(id)
	if !ok {
		return nil, &Error{Status: 404, Code: "NOT_FOUND", Message: "Provided external ID field does not exist or is not accessible: " + id}
	}
	r := o.tables[def.name].byID[full]
	if r == nil || r.at(o.now()) == nil {
		return nil, notFound()
	}
	if r.deleted() {
		return nil, entityDeleted()
	}
	return r, nil
}

// lockable finds a row to write. Another transaction that has not committed
// holds its lock; the real service waits ten seconds before it says so.
func (o *Org) lockable(def *object, id string) (*row, *Error) {
	r, err := o.find(def, id)
	if err == nil && r.uncommitted(o.now()) {
		return nil, &Error{Status: 400, Code: "UNABLE_TO_LOCK_ROW", Message: "unable to obtain exclusive access to this record or 1 records: " + r.id, Fields: []string{}}
	}
	return r, err
}

// writable is the row that the path names, locked for writing.
func (c *call) writable() (*row, *Error) {
	def, err := c.typeNamed(c.segs[1])
	if err != nil {
		return nil, err
	}
	return c.o.lockable(def, c.segs[2])
}

func (c *call) create() reply {
	var id string
	var err *Error
	if c.kind == KindUpload {
		id, err = c.upload()
	} else {
		id, err = c.createJSON()
	}
	if err != nil {
		return err.reply()
	}
	return saved(201, id).with("Location", fmt.Sprintf("/services/data/v%s/sobjects/%s/%s", c.version, c.o.byPrefix(id).name, id))
}

func saved(status int, id string) reply {
	return jsonReply(status, ordered{{"id", id}, {"success", true}, {"errors", []any{}}})
}

func (c *call) createJSON() (id string, err *Error) {
	var in map[string]any
	if err := c.decode(&in); err != nil {
		return "", err
	}
	err = c.transact(func(t *tx) *Error {
		id, err = t.create(c.segs[1], in)
		return err
	})
	return id, err
}

// create inserts a record of the named type.
func (t *tx) create(object string, in map[string]any) (string, *Error) {
	def := t.o.object(object)
	if def == nil {
		return "", notFound()
	}
	if def.fixed || def.name == "ContentDocument" {
		return "", &Error{Status: 400, Code: "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", Message: "entity type cannot be inserted: " + def.label, Fields: []string{}}
	}
	r, err := t.insert(def, in)
	if err != nil {
		return "", err
	}
	return r.id, nil
}

func (c *call) get() reply {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	def, err := c.typeNamed(c.segs[1])
	if err != nil {
		return err.reply()
	}
	r, err := c.o.find(def, c.segs[2])
	if err != nil {
		return err.reply()
	}
	return c.show(def, r)
}

// show answers with a record; the caller holds the lock.
func (c *call) show(def *object, r *row) reply {
	values := r.at(c.o.now())
	if h := c.r.Header.Get("If-Modified-Since"); h != "" {
		since, err := httpDate(h)
		if err != nil {
			return err.reply()
		}
		if !modified(values).After(since) {
			return reply{status: http.StatusNotModified}
		}
	}
	if err := c.unmodified(values); err != nil {
		return err.reply()
	}
	fields, err := c.fieldList(def)
	if err != nil {
		return err.reply()
	}
	return jsonReply(200, c.record(def, r, fields))
}

// unmodified checks If-Unmodified-Since, to the second.
func (c *call) unmodified(values map[string]any) *Error {
	h := c.r.Header.Get("If-Unmodified-Since")
	if h == "" {
		return nil
	}
	since, err := httpDate(h)
	if err == nil && modified(values).After(since) {
		e := defaults()[ModifiedSince]
		err = &e
	}
	return err
}

// fieldList reads ?fields=; without it, all that the user sees.
func (c *call) fieldList(def *object) ([]*Field, *Error) {
	var out []*Field
	list := c.r.URL.Query().Get("fields")
	if list == "" {
		for _, f := range def.fields {
			if c.o.field(def, f.Name) != nil {
				out = append(out, f)
			}
		}
		return out, nil
	}
	return c.o.fieldsNamed(def, strings.Split(list, ","))
}

func (o *Org) fieldsNamed(def *object, names []string) ([]*Field, *Error) {
	var out []*Field
	for _, name := range names {
		f := o.field(def, strings.TrimSpace(name))
		if f == nil {
			return nil, &Error{Status: 400, Code: "INVALID_FIELD", Message: fmt.Sprintf("No such column '%s' on sobject of type %s", name, def.name)}
		}
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out, nil
}

func (c *call) record(def *object, r *row, fields []*Field) ordered {
	s := &shape{def: def}
	for _, f := range fields {
		s.parts = append(s.parts, &part{name: f.Name, field: f})
	}
	w := &renderer{b: &binder{o: c.o, now: c.o.now(), version: c.version}}
	return w.record(s, r)
}

func (c *call) update() reply {
	var in map[string]any
	if err := c.decode(&in); err != nil {
		return err.reply()
	}
	err := c.transact(func(t *tx) *Error {
		r, err := c.writable()
		if err != nil {
			return err
		}
		if err := c.unmodified(r.latest()); err != nil {
			return err
		}
		return t.update(r, in)
	})
	if err != nil {
		return err.reply()
	}
	return reply{status: http.StatusNoContent}
}

func (c *call) delete() reply {
	err := c.transact(func(t *tx) *Error {
		r, err := c.writable()
		if err != nil {
			return err
		}
		return t.remove(r)
	})
	if err != nil {
		return err.reply()
	}
	return reply{status: http.StatusNoContent}
}

// external finds the rows that an external ID names; it may name several
// where the field is not unique.
func (o *Org) external(def *object, field, value string) (*Field, []*row, *Error) {
	f := o.field(def, field)
	if f == nil || !f.ExternalID && f.Type != TypeID {
		return nil, nil, &Error{Status: 404, Code: "NOT_FOUND", Message: "Provided external ID field does not exist or is not accessible: " + field}
	}
	if f.Type == TypeID {
		r, err := o.find(def, value)
		return f, []*row{r}, err
	}
	var found []*row
	for _, r := range o.tables[def.name].rows {
		values := r.at(o.now())
		if s, ok := values[f.Name].(string); ok && strings.EqualFold(s, value) && !r.deleted() {
			found = append(found, r)
		}
	}
	return f, found, nil
}

// single demands that an external ID names one row.
func (c *call) single(def *object) (*row, *reply) {
	_, found, err := c.o.external(def, c.segs[2], c.segs[3])
	if err == nil && len(found) == 0 {
		err = notFound()
	}
	if err != nil {
		rep := err.reply()
		return nil, &rep
	}
	if len(found) > 1 {
		rep := c.choices(def, found)
		return nil, &rep
	}
	return found[0], nil
}

func (c *call) choices(def *object, rows []*row) reply {
	var urls []string
	for _, r := range rows {
		urls = append(urls, fmt.Sprintf("/services/data/v%s/sobjects/%s/%s", c.version, def.name, url.PathEscape(r.id)))
	}
	return jsonReply(http.StatusMultipleChoices, urls)
}

func (c *call) getByExternalID() reply {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	def, err := c.typeNamed(c.segs[1])
	if err != nil {
		return err.reply()
	}
	r, rep := c.single(def)
	if rep != nil {
		return *rep
	}
	return c.show(def, r)
}

func (c *call) deleteByExternalID() reply {
	rep := reply{status: http.StatusNoContent}
	err := c.transact(func(t *tx) *Error {
		def, err := c.typeNamed(c.segs[1])
		if err != nil {
			return err
		}
		r, other := c.single(def)
		if other != nil {
			rep = *other
			return nil
		}
		if r, err = c.o.lockable(def, r.id); err != nil {
			return err
		}
		return t.remove(r)
	})
	if err != nil {
		return err.reply()
	}
	return rep
}

func (c *call) upsert() reply {
	var in map[string]any
	if err := c.decode(&in); err != nil {
		return err.reply()
	}
	var rep reply
	err := c.transact(func(t *tx) *Error {
		def, err := c.typeNamed(c.segs[1])
		if err != nil {
			return err
		}
		f, found, err := c.o.external(def, c.segs[2], c.segs[3])
		switch {
		case err != nil:
			return err
		case len(found) > 1:
			rep = c.choices(def, found)
			return nil
		case len(found) == 1:
			r, err := c.o.lockable(def, found[0].id)
			if err != nil {
				return err
			}
			rep = upserted(200, r.id, false)
			return t.update(r, in)
		case c.r.URL.Query().Get("updateOnly") == "true":
			return notFound()
		}
		if in == nil {
			in = map[string]any{}
		}
		in[f.Name] = c.segs[3]
		id, err := t.create(def.name, in)
		rep = upserted(201, id, true)
		return err
	})
	if err != nil {
		return err.reply()
	}
	return rep
}

func upserted(status int, id string, created bool) reply {
	return jsonReply(status, ordered{{"id", id}, {"success", true}, {"errors", []any{}}, {"created", created}})
}
