package salesforce

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

const (
	// maxParents is how many relationships a path may follow (SOQL's own limit).
	maxParents = 5
	maxFields  = 500
	// maxLines bounds the rows of all lists of one record together.
	maxLines = 10_000
)

// Record implements connectors.CRM: one query for the record with its parents, lists and files, which records that are read
// at the same time share, and, once per object type, a description against which the field names are checked before they
// become part of a query.
//
// A path is a field of the object ("Amount"), of a parent ("Account.BillingCity"), or of a list
// ("OpportunityLineItems.Product2.Name"). CurrencyIsoCode may be asked for anywhere; orgs with one currency lack it.
func (c *Connector) Record(ctx context.Context, ref deal.Ref, fields []string) (deal.Record, error) {
	ref, k, err := checkRef(ref)
	if err != nil {
		return deal.Record{}, fmt.Errorf("salesforce: read record: %w", err)
	}
	record, err := c.readRecord(ctx, k, ref, fields)
	if err != nil {
		return deal.Record{}, fmt.Errorf("salesforce: read %s: %w", ref, err)
	}
	return record, nil
}

func (c *Connector) readRecord(ctx context.Context, k kind, ref deal.Ref, fields []string) (deal.Record, error) {
	selected, err := c.selectPaths(ctx, k, fields)
	if err != nil {
		return deal.Record{}, err
	}
	files, apart := filesList, selected.lists[filesList] != nil // mapped by the template: then they cannot be asked for twice
	columns := selected.columns(k)
	if !apart {
		columns += ", (SELECT " + strings.Join(c.linkColumns(), ", ") + " FROM " + files + ")"
	}
	answer, err := c.records.Ask(ctx, columns+" FROM "+k.name, ref.ID)
	read, err := asked(ctx, answer, err)
	if err != nil {
		return deal.Record{}, err
	}
	row := read.row
	record := deal.Record{Ref: ref, URL: c.page(k.name, ref.ID)}
	record.Stage, _ = row[k.stage].(string)
	stamp, _ := row["SystemModstamp"].(string)
	if record.Modified, err = parseTime(stamp); err != nil || record.Stage == "" {
		return deal.Record{}, malformed("the record lacks %s or SystemModstamp", k.stage)
	}
	if record.Values, err = c.values(ctx, row, selected); err != nil {
		return deal.Record{}, err
	}
	if record.Files, err = c.recordFiles(ctx, ref.ID, row, apart); err != nil {
		return deal.Record{}, err
	}
	c.told.saw(ref.ID, row, read.date, record.Modified)
	return record, nil
}

// filesList is the list of an object's links to files.
const filesList = "ContentDocumentLinks"

// recordFiles reads the files out of a record's row, or asks for them apart.
func (c *Connector) recordFiles(ctx context.Context, id string, row map[string]any, apart bool) (list []deal.RecordFile, err error) {
	var files []contentFile
	if apart {
		files, err = c.files(ctx, id)
	} else {
		var links []map[string]any
		if links, err = c.allRows(ctx, row[filesList]); err == nil {
			files, err = c.linkedFiles(ctx, links)
		}
	}
	for _, f := range files {
		list = append(list, f.RecordFile)
	}
	return list, err
}

// decodeExact keeps numbers as they are written.
func decodeExact(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	return d.Decode(v)
}

// selection is what one query asks for: paths of the record, and paths of each list.
type selection struct {
	fields []string
	lists  map[string]*list
}

type list struct {
	fields []string
	order  string
}

// selectPaths checks each path against the org's schema.
func (c *Connector) selectPaths(ctx context.Context, k kind, paths []string) (selection, error) {
	if len(paths) > maxFields {
		return selection{}, refuse("%d fields are mapped, at most %d can be", len(paths), maxFields)
	}
	s := selection{lists: map[string]*list{}}
	for _, path := range paths {
		segments := strings.Split(path, ".")
		if !fieldPath.MatchString(path) || slices.Contains(segments, "") {
			return selection{}, refuse("%q is no path of a field: write it like Amount, Account.Name or OpportunityLineItems.Quantity", path)
		}
		if err := c.selectPath(ctx, k, &s, path, segments); err != nil {
			return selection{}, err
		}
	}
	s.fields = sortedSet(s.fields)
	for _, l := range s.lists {
		l.fields = sortedSet(l.fields)
	}
	return s, nil
}

func (c *Connector) selectPath(ctx context.Context, k kind, s *selection, path string, segments []string) error {
	object, l := k.name, (*list)(nil)
	if len(segments) > 1 {
		_, child, err := c.schema.relationship(ctx, k.name, segments[0])
		if err != nil {
			return err
		}
		if child != "" {
			if l, err = c.list(ctx, s, segments[0], child); err != nil {
				return err
			}
			object, segments = child, segments[1:]
		}
	}
	_, exists, err := c.checkPath(ctx, object, path, segments)
	switch {
	case err != nil || !exists:
		return err
	case l != nil:
		l.fields = append(l.fields, strings.Join(segments, "."))
	default:
		s.fields = append(s.fields, path)
	}
	return nil
}

// list returns the selection's list of the given name.
func (c *Connector) list(ctx context.Context, s *selection, name, object string) (*list, error) {
	if l := s.lists[name]; l != nil {
		return l, nil
	}
	order, err := c.lineOrder(ctx, object)
	if err != nil {
		return nil, err
	}
	s.lists[name] = &list{order: order}
	return s.lists[name], nil
}

// currencyCode is the field that only orgs with several currencies have.
const currencyCode = "CurrencyIsoCode"

// checkPath follows parents from an object to a field. exists is false without an error for a currency code in an org
// that has one currency.
func (c *Connector) checkPath(ctx context.Context, object, path string, segments []string) (f field, exists bool, err error) {
	if len(segments) > maxParents+1 {
		return field{}, false, refuse("%q follows more than %d relationships", path, maxParents)
	}
	for len(segments) > 1 {
		parent, _, err := c.schema.relationship(ctx, object, segments[0])
		if err != nil {
			return field{}, false, err
		}
		if parent == "" {
			return field{}, false, refuse("%q: %s has no relationship %q that the integration user can see", path, object, segments[0])
		}
		object, segments = parent, segments[1:]
	}
	if segments[0] == currencyCode {
		o, err := c.schema.object(ctx, object, anything)
		if err != nil {
			return field{}, false, err
		}
		f, exists := o.fields[currencyCode]
		return f, exists, nil
	}
	f, err = c.schema.field(ctx, object, segments[0])
	if err != nil {
		return field{}, false, fmt.Errorf("%q: %w", path, err)
	}
	switch f.Type {
	case "address", "location", "base64", "complexvalue":
		return field{}, false, refuse("%q is a compound field: name its parts instead, such as BillingStreet", path)
	}
	return f, true, nil
}

// lineOrder keeps a list in the order that people gave it, where there is one, and always in the same.
func (c *Connector) lineOrder(ctx context.Context, object string) (string, error) {
	o, err := c.schema.object(ctx, object, anything)
	if err != nil {
		return "", err
	}
	var order []string
	for _, name := range []string{"SortOrder", "CreatedDate", "Id"} {
		if _, ok := o.fields[name]; ok {
			order = append(order, name)
		}
	}
	return strings.Join(order, ", "), nil
}

func sortedSet(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// columns is what the query selects. Everything in it was found in the org's schema.
func (s selection) columns(k kind) string {
	columns := sortedSet(append([]string{"Id", k.stage, "SystemModstamp"}, s.fields...))
	for _, name := range slices.Sorted(maps.Keys(s.lists)) {
		l := s.lists[name]
		fields := l.fields
		if len(fields) == 0 {
			fields = []string{"Id"}
		}
		columns = append(columns, "(SELECT "+strings.Join(fields, ", ")+" FROM "+name+" ORDER BY "+l.order+")")
	}
	return strings.Join(columns, ", ")
}

// values makes the tree of a record: what was asked for and nothing else, so that its fingerprint changes with the
// mapped fields only.
func (c *Connector) values(ctx context.Context, row map[string]any, s selection) (map[string]any, error) {
	values := map[string]any{}
	for _, path := range s.fields {
		pick(values, row, strings.Split(path, "."))
	}
	for name, l := range s.lists {
		rows, err := c.allRows(ctx, row[name])
		if err != nil {
			return nil, err
		}
		lines := []any{}
		for _, r := range rows {
			line := map[string]any{}
			for _, path := range l.fields {
				pick(line, r, strings.Split(path, "."))
			}
			lines = append(lines, line)
		}
		values[name] = lines
	}
	return values, nil
}

// pick copies the leaf at a path from a row to a tree. A parent that is null leaves its fields absent.
func pick(to, from map[string]any, segments []string) {
	name := segments[0]
	if len(segments) == 1 {
		switch v := from[name].(type) {
		case string, bool, json.Number:
			to[name] = v
		}
		return
	}
	parent, ok := from[name].(map[string]any)
	if !ok {
		return
	}
	branch, ok := to[name].(map[string]any)
	if !ok {
		branch = map[string]any{}
		to[name] = branch
	}
	pick(branch, parent, segments[1:])
}

// allRows reads a list of a record to its end; long ones come in pages of their own.
func (c *Connector) allRows(ctx context.Context, v any) ([]map[string]any, error) {
	var all []map[string]any
	for v != nil {
		page, ok := v.(map[string]any)
		rows, isList := page["records"].([]any)
		if !ok || !isList {
			return nil, malformed("a list of the record is none")
		}
		for _, r := range rows {
			row, ok := r.(map[string]any)
			if !ok {
				return nil, malformed("a row of a list is no object")
			}
			all = append(all, row)
		}
		if len(all) > maxLines {
			return nil, refuse("a list of the record has more than %d rows", maxLines)
		}
		next, _ := page["nextRecordsUrl"].(string)
		if done, ok := page["done"].(bool); ok && done || len(rows) == 0 {
			return all, nil
		}
		if !isLocator(next) {
			return nil, malformed("a list of the record is cut and names no next page")
		}
		r, err := c.call(ctx, http.MethodGet, strings.TrimPrefix(next, "/"), nil, nil)
		if err != nil {
			return nil, err
		}
		var following map[string]any
		if err := decodeExact(r.body, &following); err != nil {
			return nil, malformed("it is no query result")
		}
		v = following
	}
	return all, nil
}

// page is Salesforce's own page of a record, on the host that serves the user interface of the org.
func (c *Connector) page(object, id string) string {
	host := c.cfg.MyDomain
	if name, ok := strings.CutSuffix(host, ".my.salesforce.com"); ok {
		host = name + ".lightning.force.com"
	}
	return host + "/lightning/r/" + object + "/" + id + "/view"
}
