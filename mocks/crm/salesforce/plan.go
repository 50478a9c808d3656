package salesforce

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxParents is how many relationships a field path may cross.
const maxParents = 5

// plan is a query bound to the org's objects.
type plan struct {
	q     *query
	def   *object
	shape *shape
	match func(*row, map[string]any) bool
	order []orderBy
	ids   []string // the only IDs that can match; nil: any
	// refer is the field, if any, that must refer to one of the records of referTo.
	refer   string
	referTo []string
}

type orderBy struct {
	column     column
	descending bool
	nullsLast  bool
}

// column is a field reached over parents.
type column struct {
	parents []*Field
	field   *Field
}

// shape is the form of one record in the response.
type shape struct {
	def   *object
	parts []*part
}

// part is a field, a parent (nested) or a sub-query of a shape.
type part struct {
	name   string
	field  *Field // the field, or the reference to the parent
	nested *shape
	sub    *plan
	by     string // field of the sub-query's rows that points to this record
}

// binder turns parsed queries into plans.
type binder struct {
	o       *Org
	now     time.Time
	deleted bool // deleted rows count, too
	version string
}

func noColumn(q *query, pos int, name string, def *object) *Error {
	return soqlError("INVALID_FIELD", q.text, pos, fmt.Sprintf("No such column '%s' on entity '%s'. If you are attempting to use a custom field, be sure to append the '__c' after the custom field name. Please reference your WSDL or the describe call for the appropriate names.", name, def.name))
}

// bind checks a query against the objects and fields that the user can see.
func (b *binder) bind(q *query) (*plan, *Error) {
	def := b.o.object(q.from.text)
	if def == nil {
		return nil, soqlError("INVALID_TYPE", q.text, q.from.pos, fmt.Sprintf("sObject type '%s' is not supported. If you are attempting to use a custom object, be sure to append the '__c' after the entity name. Please reference your WSDL or the describe call for the appropriate names.", q.from.text))
	}
	return b.bindTo(q, def)
}

func (b *binder) bindTo(q *query, def *object) (*plan, *Error) {
	p := &plan{q: q, def: def, shape: &shape{def: def}, match: func(*row, map[string]any) bool { return true }}
	for _, s := range q.selects {
		if err := b.selectInto(p, s); err != nil {
			return nil, err
		}
	}
	if q.where != nil {
		match, err := b.condition(p, q.where)
		if err != nil {
			return nil, err
		}
		p.match = match
	}
	p.ids = idsOf(q.where)
	p.refer, p.referTo = referencesOf(def, q.where)
	if def.name == "ContentDocumentLink" && !q.children && !linkFiltered(q.where) {
		return nil, &Error{Status: 400, Code: "MALFORMED_QUERY", Message: "Implementation restriction: ContentDocumentLink requires a filter by a single Id on ContentDocumentId or LinkedEntityId using the equals operator or multiple Id's using the IN operator."}
	}
	if def.name == userRecordAccess && !accessFiltered(q.where) {
		return nil, &Error{Status: 400, Code: "MALFORMED_QUERY", Message: "Can select only RecordId and access levels, filtering by a single UserId and at most 200 RecordIds"}
	}
	if def.name == fieldDefinition && !definitionFiltered(q.where) {
		return nil, &Error{Status: 400, Code: "MALFORMED_QUERY", Message: "FieldDefinition requires a filter by its EntityDefinition"}
	}
	for _, o := range q.order {
		col, err := b.resolve(p, o.path)
		if err != nil {
			return nil, err
		}
		if !col.field.filterable() {
			return nil, soqlError("INVALID_FIELD", q.text, o.path.pos, fmt.Sprintf("field '%s' can not be sorted in a query call", col.field.Name))
		}
		p.order = append(p.order, orderBy{col, o.descending, o.nullsLast})
	}
	return p, nil
}

func (b *binder) selectInto(p *plan, s selection) *Error {
	if s.sub != nil {
		return b.selectChildren(p, s.sub)
	}
	col, err := b.resolve(p, s.path)
	if err != nil {
		return err
	}
	at := p.shape
	for _, ref := range col.parents {
		at = at.nest(ref, b.o.objects[lower(ref.References)])
	}
	for _, have := range at.parts {
		if have.field == col.field && have.nested == nil {
			return soqlError("MALFORMED_QUERY", p.q.text, s.path.pos, "duplicate field selected: "+col.field.Name)
		}
	}
	at.parts = append(at.parts, &part{name: col.field.Name, field: col.field})
	return nil
}

// nest returns the part's shape for a parent, made at its first mention.
func (s *shape) nest(ref *Field, def *object) *shape {
	for _, have := range s.parts {
		if have.field == ref && have.nested != nil {
			return have.nested
		}
	}
	nested := &shape{def: def}
	s.parts = append(s.parts, &part{name: ref.Relationship, field: ref, nested: nested})
	return nested
}

func (b *binder) selectChildren(p *plan, q *query) *Error {
	for _, rel := range p.def.children {
		if !strings.EqualFold(rel.name, q.from.text) || b.o.object(rel.object) == nil || p.q.children {
			continue
		}
		sub, err := b.bindTo(q, b.o.objects[lower(rel.object)])
		if err != nil {
			return err
		}
		p.shape.parts = append(p.shape.parts, &part{name: rel.name, sub: sub, by: rel.field})
		return nil
	}
	return soqlError("INVALID_TYPE", q.text, q.from.pos, fmt.Sprintf("Didn't understand relationship '%s' in FROM part of query call. If you are attempting to use a custom relationship, be sure to append the '__r' after the custom relationship name. Please reference your WSDL or the describe call for the appropriate names.", q.from.text))
}

// resolve finds the column that a path names.
func (b *binder) resolve(p *plan, at fieldPath) (column, *Error) {
	names, def, col := at.names, p.def, column{}
	if len(names) > 1 && (strings.EqualFold(names[0], p.q.alias) || strings.EqualFold(names[0], def.name) && b.o.parent(def, names[0]) == nil) {
		names = names[1:]
	}
	for _, name := range names[:len(names)-1] {
		ref := b.o.parent(def, name)
		if ref == nil || b.o.object(ref.References) == nil {
			return col, soqlError("INVALID_FIELD", p.q.text, at.pos, fmt.Sprintf("Didn't understand relationship '%s' in field path. If you are attempting to use a custom relationship, be sure to append the '__r' after the custom relationship name. Please reference your WSDL or the describe call for the appropriate names.", name))
		}
		col.parents = append(col.parents, ref)
		def = b.o.objects[lower(ref.References)]
	}
	if len(col.parents) > maxParents {
		return col, malformed(p.q.text, at.pos, "only %d levels of relationship are allowed: %s", maxParents, at)
	}
	name := names[len(names)-1]
	if col.field = b.o.field(def, name); col.field == nil {
		return col, noColumn(p.q, at.pos, name, def)
	}
	return col, nil
}

// value reads a column of a row; nil stands for null.
func (b *binder) value(r *row, values map[string]any, col column) any {
	for _, ref := range col.parents {
		id, _ := values[ref.Name].(string)
		if r = b.o.tables[ref.References].byID[id]; r == nil {
			return nil
		}
		if values = r.at(b.now); values == nil {
			return nil
		}
	}
	return fieldValue(r, values, col.field)
}

func fieldValue(r *row, values map[string]any, f *Field) any {
	if f.Type == TypeID {
		return r.id
	}
	if v := values[f.Name]; v != nil || f.Type != TypeBoolean {
		return v
	}
	return false
}

// condition compiles a WHERE clause.
func (b *binder) condition(p *plan, c *condition) (func(*row, map[string]any) bool, *Error) {
	if c.op != "and" && c.op != "or" && c.op != "not" {
		return b.comparison(p, c)
	}
	var operands []func(*row, map[string]any) bool
	for _, o := range c.operands {
		f, err := b.condition(p, o)
		if err != nil {
			return nil, err
		}
		operands = append(operands, f)
	}
	return func(r *row, v map[string]any) bool {
		for _, f := range operands {
			if holds := f(r, v); c.op == "not" {
				return !holds
			} else if holds == (c.op == "or") {
				return holds
			}
		}
		return c.op == "and"
	}, nil
}

func (b *binder) comparison(p *plan, c *condition) (func(*row, map[string]any) bool, *Error) {
	col, err := b.resolve(p, c.path)
	if err != nil {
		return nil, err
	}
	if !col.field.filterable() {
		return nil, soqlError("INVALID_FIELD", p.q.text, c.path.pos, fmt.Sprintf("field '%s' can not be filtered in a query call", col.field.Name))
	}
	want, err := b.operands(p, c, col.field)
	if err != nil {
		return nil, err
	}
	read := func(r *row, v map[string]any) any { return fold(col.field, b.value(r, v, col)) }
	switch c.op {
	case "in", "not in":
		set := map[any]bool{}
		for _, w := range want {
			set[fold(col.field, w)] = true
		}
		return func(r *row, v map[string]any) bool { return set[read(r, v)] == (c.op == "in") }, nil
	case "like":
		pattern := lower(c.values[0].raw)
		return func(r *row, v map[string]any) bool {
			s, ok := read(r, v).(string)
			return ok && like(pattern, s)
		}, nil
	}
	w := fold(col.field, want[0])
	return func(r *row, v map[string]any) bool { return compares(c.op, read(r, v), w) }, nil
}

// fold makes values comparable: text without regard to case, times in UTC,
// and the empty string as null.
func fold(f *Field, v any) any {
	switch v := v.(type) {
	case string:
		if v == "" {
			return nil
		}
		if f.Type != TypeID && f.Type != TypeReference {
			return lower(v)
		}
	case time.Time:
		return v.UTC().Round(0)
	}
	return v
}

func compares(op string, have, want any) bool {
	switch op {
	case "=":
		return order(have, want) == 0
	case "!=":
		return order(have, want) != 0
	}
	if have == nil || want == nil {
		return false
	}
	n := order(have, want)
	switch op {
	case "<":
		return n < 0
	case "<=":
		return n <= 0
	case ">":
		return n > 0
	default:
		return n >= 0
	}
}

// order compares two values of one field, null first.
func order(a, b any) int {
	if a == nil || b == nil {
		switch {
		case a == nil && b == nil:
			return 0
		case a == nil:
			return -1
		}
		return 1
	}
	switch a := a.(type) {
	case string:
		return cmp.Compare(a, b.(string))
	case float64:
		return cmp.Compare(a, b.(float64))
	case time.Time:
		return a.Compare(b.(time.Time))
	case bool:
		switch {
		case a == b.(bool):
			return 0
		case a:
			return 1
		}
	}
	return -1
}

// like matches a pattern with % and _; a backslash takes the next character as it is.
func like(pattern, s string) bool {
	p, t := []rune(pattern), []rune(s)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(t) {
		if i < len(p) && p[i] == '%' {
			star, mark = i, j
			i++
			continue
		}
		if n, ok := matchRune(p[i:], t[j]); ok {
			i += n
			j++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		i, j = star+1, mark
	}
	for i < len(p) && p[i] == '%' {
		i++
	}
	return i == len(p)
}

// matchRune matches one character and returns how much of the pattern that took.
func matchRune(p []rune, r rune) (int, bool) {
	switch {
	case len(p) == 0:
		return 0, false
	case p[0] == '_':
		return 1, true
	case p[0] == '\\' && len(p) > 1:
		return 2, p[1] == r
	}
	return 1, p[0] == r
}

// operands checks the values of a comparison against the field's type.
func (b *binder) operands(p *plan, c *condition, f *Field) ([]any, *Error) {
	if c.sub != nil {
		return b.semiJoin(p, c.sub)
	}
	text := !f.numeric() && f.Type != TypeInt && f.Type != TypeBoolean && f.Type != TypeDate && f.Type != TypeDateTime
	ordered := c.op != "=" && c.op != "!=" && c.op != "in" && c.op != "not in"
	if c.op == "like" && (!text || f.Type == TypeID || f.Type == TypeReference) || ordered && f.Type == TypeBoolean {
		return nil, soqlError("INVALID_FIELD", p.q.text, c.path.pos, "invalid operator on "+string(f.Type)+" field")
	}
	var out []any
	for _, l := range c.values {
		v, err := b.operand(p, c, f, l)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (b *binder) operand(p *plan, c *condition, f *Field, l literal) (any, *Error) {
	if l.kind == tokWord && l.text == "null" {
		return nil, nil
	}
	wrong := func(want string) *Error {
		return soqlError("INVALID_FIELD", p.q.text, c.path.pos, fmt.Sprintf("value of filter criterion for field '%s' must be of type %s", f.Name, want))
	}
	switch f.Type {
	case TypeCurrency, TypeDouble, TypePercent, TypeInt:
		if l.kind != tokNumber {
			return nil, wrong("double and should not be enclosed in quotes")
		}
		return l.value, nil
	case TypeBoolean:
		if l.kind != tokWord {
			return nil, wrong("boolean and should not be enclosed in quotes")
		}
		return l.text == "true", nil
	case TypeDateTime:
		if l.kind != tokDateTime {
			return nil, wrong("dateTime and should not be enclosed in quotes")
		}
		return l.at, nil
	case TypeDate:
		if l.kind != tokDate {
			return nil, wrong("date and should not be enclosed in quotes")
		}
		return l.text, nil
	}
	if l.kind != tokString {
		return nil, wrong("string and should be enclosed in quotes")
	}
	if (f.Type == TypeID || f.Type == TypeReference) && l.text != "" {
		id, ok := canonicalID(l.text)
		if !ok {
			return nil, soqlError("INVALID_QUERY_FILTER_OPERATOR", p.q.text, c.path.pos, "invalid ID field: "+excerpt(l.text))
		}
		return id, nil
	}
	return l.text, nil
}

// semiJoin evaluates the sub-query of an IN.
func (b *binder) semiJoin(p *plan, q *query) ([]any, *Error) {
	sub, err := b.bind(q)
	if err != nil {
		return nil, err
	}
	if q.count || len(sub.shape.parts) != 1 || sub.shape.parts[0].nested != nil || sub.shape.parts[0].sub != nil ||
		sub.shape.parts[0].field.Type != TypeID && sub.shape.parts[0].field.Type != TypeReference {
		return nil, soqlError("MALFORMED_QUERY", p.q.text, q.from.pos, "a semi join sub-select can only query one id field")
	}
	var out []any
	for _, r := range b.rows(sub) {
		if v := fieldValue(r, r.at(b.now), sub.shape.parts[0].field); v != nil {
			out = append(out, v)
		}
	}
	return out, nil
}

// conjuncts calls do for each comparison that every result must meet.
func conjuncts(c *condition, do func(*condition)) {
	if c == nil {
		return
	}
	if c.op == "and" {
		for _, o := range c.operands {
			conjuncts(o, do)
		}
	} else if c.op != "or" && c.op != "not" {
		do(c)
	}
}

// idsOf finds a list of IDs that a WHERE clause confines the result to.
func idsOf(where *condition) (ids []string) {
	conjuncts(where, func(c *condition) {
		if (c.op != "=" && c.op != "in") || c.sub != nil || len(c.path.names) != 1 || !strings.EqualFold(c.path.names[0], "Id") || ids != nil {
			return
		}
		ids = []string{}
		for _, l := range c.values {
			if id, ok := canonicalID(l.text); ok && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	})
	return ids
}

// referencesOf finds a reference that a WHERE clause confines the result to.
func referencesOf(def *object, where *condition) (field string, ids []string) {
	conjuncts(where, func(c *condition) {
		if field != "" || (c.op != "=" && c.op != "in") || c.sub != nil || len(c.path.names) != 1 {
			return
		}
		f := def.byName[lower(c.path.names[0])]
		if f == nil || f.Type != TypeReference {
			return
		}
		var found []string
		for _, l := range c.values {
			id, ok := canonicalID(l.text)
			if l.kind != tokString || !ok {
				return // null, and what no record has for an ID
			}
			found = append(found, id)
		}
		field, ids = f.Name, found
	})
	return field, ids
}

func linkFiltered(where *condition) (ok bool) {
	conjuncts(where, func(c *condition) {
		name := lower(c.path.names[len(c.path.names)-1])
		if (c.op == "=" || c.op == "in") && c.sub == nil && (name == "contentdocumentid" || name == "linkedentityid") {
			ok = true
		}
	})
	return ok
}

// rows runs a plan without its LIMIT and OFFSET.
func (b *binder) rows(p *plan) []*row {
	return b.among(p, b.candidates(p))
}

// candidates are the rows that can be in a result, in the order of their creation.
func (b *binder) candidates(p *plan) []*row {
	tab := b.o.tables[p.def.name]
	switch {
	case p.def.name == userRecordAccess:
		return b.o.accessRows()
	case p.def.name == userPermissionAccess:
		return b.o.permissionRows()
	case p.def.name == fieldDefinition:
		return b.o.definitionRows()
	case p.ids != nil:
		var candidates []*row
		for _, id := range p.ids {
			if r := tab.byID[id]; r != nil {
				candidates = append(candidates, r)
			}
		}
		slices.SortFunc(candidates, func(x, y *row) int { return cmp.Compare(x.id, y.id) })
		return candidates
	case p.refer != "":
		return tab.referring(p.refer, p.referTo)
	}
	return tab.rows
}

// among picks and sorts the rows of a result.
func (b *binder) among(p *plan, candidates []*row) []*row {
	var out []*row
	for _, r := range candidates {
		values := r.at(b.now)
		if values == nil || !b.o.visible(r) || values["IsDeleted"] == true && !b.deleted || !p.match(r, values) {
			continue
		}
		out = append(out, r)
	}
	b.sort(p, out)
	return out
}

// sortable is a row with the values that it is sorted by.
type sortable struct {
	row  *row
	keys []any
}

func (b *binder) sort(p *plan, rows []*row) {
	if len(p.order) == 0 {
		return
	}
	list := make([]sortable, len(rows))
	keys := make([]any, 0, len(rows)*len(p.order))
	for i, r := range rows {
		list[i].row, list[i].keys = r, keys[len(keys):len(keys):len(keys)+len(p.order)]
		keys = keys[:len(keys)+len(p.order)]
		for _, o := range p.order {
			list[i].keys = append(list[i].keys, fold(o.column.field, b.value(r, r.at(b.now), o.column)))
		}
	}
	slices.SortStableFunc(list, func(x, y sortable) int {
		for i, o := range p.order {
			if n := o.compare(x.keys[i], y.keys[i]); n != 0 {
				return n
			}
		}
		return 0
	})
	for i := range list {
		rows[i] = list[i].row
	}
}

// compare orders two values; null stands where the query says, whatever the direction.
func (o orderBy) compare(x, y any) int {
	n := order(x, y)
	if null := x == nil || y == nil; null && o.nullsLast || !null && o.descending {
		return -n
	}
	return n
}

// cut applies OFFSET and LIMIT.
func (p *plan) cut(rows []*row) []*row {
	rows = rows[min(p.q.offset, len(rows)):]
	if p.q.limit >= 0 && p.q.limit < len(rows) {
		rows = rows[:p.q.limit]
	}
	return rows
}

// renderer turns rows into records of a response.
type renderer struct{ b *binder }

func (w *renderer) attributes(def *object, id string) member {
	return member{"attributes", ordered{{"type", def.name}, {"url", "/services/data/v" + w.b.version + "/sobjects/" + def.name + "/" + id}}}
}

func (w *renderer) record(s *shape, r *row) ordered {
	values := r.at(w.b.now)
	out := ordered{w.attributes(s.def, r.id)}
	for _, p := range s.parts {
		var v any
		switch {
		case p.nested != nil:
			v = w.parent(p, values)
		case p.sub != nil:
			v = w.childRows(p, r)
		default:
			v = w.field(s.def, r, values, p.field)
		}
		out = append(out, member{p.name, v})
	}
	return out
}

// field is the value that a response shows.
func (w *renderer) field(def *object, r *row, values map[string]any, f *Field) any {
	if v, ok := r.raw[f.Name]; ok {
		return v
	}
	if f.Type == TypeBase64 {
		return "/services/data/v" + w.b.version + "/sobjects/" + def.name + "/" + r.id + "/" + f.Name
	}
	return output(f, fieldValue(r, values, f))
}

func (w *renderer) parent(p *part, values map[string]any) any {
	id, _ := values[p.field.Name].(string)
	r := w.b.o.tables[p.field.References].byID[id]
	if r == nil || r.at(w.b.now) == nil {
		return nil
	}
	return w.record(p.nested, r)
}

func (w *renderer) childRows(p *part, parent *row) any {
	rows := slices.DeleteFunc(w.b.among(p.sub, w.b.o.tables[p.sub.def.name].referring(p.by, []string{parent.id})), func(r *row) bool {
		return r.at(w.b.now)[p.by] != parent.id
	})
	rows = p.sub.cut(rows)
	if len(rows) == 0 {
		return nil
	}
	records := make([]ordered, len(rows))
	for i, r := range rows {
		records[i] = w.record(p.sub.shape, r)
	}
	return ordered{{"totalSize", len(rows)}, {"done", true}, {"records", records}}
}
