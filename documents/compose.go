package documents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/dealseal/dealseal/deal"
)

// metaField is the part of a record that dealseal fills itself.
const metaField = "meta"

// Meta is what a document says about itself and about the house, beside what the CRM knows.
type Meta struct {
	TxID     string            // the transaction's ID
	Tenant   string            // name of the tenant as contracts show it
	Seller   map[string]string // further details of the house: seller.address and so on; optional
	Date     time.Time         // the document's date; its clock is frozen at this instant
	TimeZone *time.Location    // the tenant's; UTC when nil
	Currency string            // ISO 4217 code for money that has no currency of its own; optional
}

// Paths lists the CRM paths that a document needs for CRM kind, sorted, list indices left out. overrides are the
// sources of a tenant's rule by record path, in the syntax of template.yaml; nil for none.
func (b *Bundle) Paths(kind string, overrides map[string]any) ([]string, error) {
	types, err := b.ValueTypes(kind, overrides)
	return sortedKeys(types), err
}

// ValueTypes is Paths with what the document makes of each value. One that is printed as it stands and counted as well
// counts as a number.
func (b *Bundle) ValueTypes(kind string, overrides map[string]any) (map[string]deal.ValueType, error) {
	sources, err := b.sources(kind, overrides)
	if err != nil {
		return nil, err
	}
	types := make(map[string]deal.ValueType)
	for _, field := range sortedKeys(sources) {
		sources[field].crmPaths(func(path string, as deal.ValueType) {
			if types[path] == "" || as != deal.TextValue {
				types[path] = as
			}
		})
	}
	return types, nil
}

func (b *Bundle) sources(kind string, overrides map[string]any) (map[string]Source, error) {
	own, ok := b.Fields[kind]
	if !ok {
		return nil, &BundleError{File: ManifestFile, Reason: fmt.Sprintf("template %s maps no fields for %s", b.Name(), kind)}
	}
	all := maps.Clone(own)
	for _, path := range sortedKeys(overrides) {
		s, err := parseSource(overrides[path])
		if err != nil {
			return nil, fmt.Errorf("override of %q: %w", path, err)
		}
		all[path] = s
	}
	if err := checkPaths(all); err != nil {
		return nil, fmt.Errorf("overrides of template %s: %w", b.Name(), err)
	}
	return all, nil
}

// Compose makes the record of a document from CRM values and returns it as canonical JSON: the same values always give
// the same bytes. It validates what it made. The errors *FieldError, *TextError and *AmountError hold the deal.
//
// values is the tree that the connector of the kind returns; its leaves are string, json.Number, bool or nil. Beside
// every figure and day the record holds its text for the document's locale.
func (b *Bundle) Compose(kind string, values map[string]any, overrides map[string]any, meta Meta) ([]byte, error) {
	sources, err := b.sources(kind, overrides)
	if err != nil {
		return nil, err
	}
	f, err := newFormatter(b.Locale)
	if err != nil {
		return nil, err
	}
	if meta.TimeZone == nil {
		meta.TimeZone = time.UTC
	}
	c := &composer{f: f, meta: meta, sources: sources, values: values, record: b.head(f, meta)}
	if err := c.compose(); err != nil {
		return nil, err
	}
	if err := c.compare(b.AmountCheck); err != nil {
		return nil, err
	}
	record, _, err := b.check(c.record, c.origin)
	return record, err
}

// head is what every record starts with.
func (b *Bundle) head(f *formatter, meta Meta) map[string]any {
	seller := map[string]any{"name": meta.Tenant}
	for k, v := range meta.Seller {
		seller[k] = v
	}
	return map[string]any{
		metaField: map[string]any{
			"tx": meta.TxID, "template": b.Name(), "locale": b.Locale,
			"date": dateValue(f, meta.Date.In(meta.TimeZone)), "time": meta.Date.UTC().Format(time.RFC3339),
		},
		"seller": seller,
	}
}

// Validate checks a record that was composed before or written by hand: JSON, limits, text, schema. It is the last
// gate before rendering.
func (b *Bundle) Validate(record []byte) error {
	_, _, err := b.normalise(record)
	return err
}

// normalise validates a record and returns it in canonical form and decoded, with the texts of figures and days filled in
// where a record written by hand left them out.
func (b *Bundle) normalise(record []byte) (canonical []byte, decoded any, err error) {
	if len(record) > maxRecordBytes {
		return nil, nil, &TextError{Field: wholeRecord, Rune: NoRune, Reason: "is longer than 1 MB"}
	}
	v, err := decodeJSON(record)
	if err != nil {
		return nil, nil, &FieldError{Field: wholeRecord, Problem: err.Error()}
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, nil, &FieldError{Field: wholeRecord, Problem: "is not a JSON object"}
	}
	f, err := newFormatter(b.Locale)
	if err != nil {
		return nil, nil, err
	}
	if err := fill(f, "", m, 0); err != nil {
		return nil, nil, err
	}
	return b.check(m, nil)
}

// check is common to composed and hand-written records. What it returns decoded is of types that JSON has.
func (b *Bundle) check(record map[string]any, origins func(string) string) (canonical []byte, decoded any, err error) {
	if err := checkTexts("", record, 0); err != nil {
		return nil, nil, err
	}
	canonical, err = encodeJSON(record)
	if err != nil {
		return nil, nil, err
	}
	if len(canonical) > maxRecordBytes {
		return nil, nil, &TextError{Field: wholeRecord, Rune: NoRune, Reason: "is longer than 1 MB"}
	}
	decoded, err = decodeJSON(canonical)
	if err != nil {
		return nil, nil, err
	}
	return canonical, decoded, b.checkSchema(decoded, origins)
}

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode the record: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func checkTexts(at string, v any, depth int) error {
	if depth > maxDepth {
		return &TextError{Field: at, Rune: NoRune, Reason: fmt.Sprintf("is nested deeper than %d levels", maxDepth)}
	}
	switch v := v.(type) {
	case string:
		return checkText(at, v)
	case map[string]any:
		for _, k := range sortedKeys(v) {
			if err := checkText(at+" (its key)", k); err != nil {
				return err
			}
			if err := checkTexts(join(at, k), v[k], depth+1); err != nil {
				return err
			}
		}
	case []any:
		if len(v) > maxLines {
			return &TextError{Field: at, Rune: NoRune, Reason: "has more than 2,000 entries"}
		}
		for i, e := range v {
			if err := checkTexts(join(at, strconv.Itoa(i)), e, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// composer fills one record.
type composer struct {
	f       *formatter
	meta    Meta
	sources map[string]Source
	values  map[string]any
	record  map[string]any

	currency string // default for money, resolved once
	checks   []comparison
}

// comparison is one sum whose manifest names the CRM's own figure.
type comparison struct {
	path, equals, currency string
	total                  decimal
}

func (c *composer) compose() error {
	if err := c.defaultCurrency(); err != nil {
		return err
	}
	paths := sortedKeys(c.sources)
	// Sums read what the others wrote.
	slices.SortStableFunc(paths, func(x, y string) int { return rank(c.sources[x]) - rank(c.sources[y]) })
	for _, path := range paths {
		v, err := c.value(path, c.sources[path], c.values)
		if err != nil {
			return err
		}
		if v != nil {
			set(c.record, path, v)
		}
	}
	return nil
}

func rank(s Source) int {
	if s.op == opSum {
		return 1
	}
	return 0
}

func (c *composer) defaultCurrency() error {
	c.currency = c.meta.Currency
	s, ok := c.sources["currency"]
	if !ok {
		return nil
	}
	v, err := c.value("currency", s, c.values)
	if err != nil {
		return err
	}
	if code, ok := v.(string); ok {
		c.currency = code
	}
	return nil
}

// value computes one field. nil means that the CRM has nothing there; whether that is a fault the schema decides.
func (c *composer) value(field string, s Source, in map[string]any) (any, error) {
	switch s.op {
	case opValue:
		return text(s.text), nil
	case opText:
		return c.text(field, s.path, in)
	case opJoin:
		return c.join(field, s, in)
	case opNumber:
		return c.number(field, s, in)
	case opDate:
		return c.date(field, s, in)
	case opMoney, opProduct:
		return c.money(field, s, in)
	case opFrom:
		return c.list(field, s, in)
	default:
		return c.sum(field, s)
	}
}

// newlines are the ways in which CRMs end a line of an address.
var newlines = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// text is NFC, the form that fonts know, with plain line breaks, and nil when it is blank.
func text(s string) any {
	if isBlank(s) {
		return nil
	}
	return norm.NFC.String(strings.TrimSpace(newlines.Replace(s)))
}

func (c *composer) text(field, path string, in map[string]any) (any, error) {
	leaf, err := lookup(in, path)
	if err != nil {
		return nil, &FieldError{Field: field, Source: path, Problem: err.Error()}
	}
	return text(leaf), nil
}

func (c *composer) join(field string, s Source, in map[string]any) (any, error) {
	var parts []string
	for _, p := range s.paths {
		v, err := c.text(field, p, in)
		if err != nil {
			return nil, err
		}
		if part, ok := v.(string); ok {
			parts = append(parts, part)
		}
	}
	return text(strings.Join(parts, s.text)), nil
}

// figure reads a CRM number; ok is false when there is none.
func (c *composer) figure(field, path string, in map[string]any) (d decimal, ok bool, err error) {
	leaf, err := lookup(in, path)
	if err == nil && isBlank(leaf) {
		return decimal{}, false, nil
	}
	if err == nil {
		d, err = parseDecimal(leaf)
	}
	if err != nil {
		return decimal{}, false, &FieldError{Field: field, Source: path, Problem: err.Error()}
	}
	return d, true, nil
}

func (c *composer) number(field string, s Source, in map[string]any) (any, error) {
	d, ok, err := c.figure(field, s.path, in)
	if err != nil || !ok {
		return nil, err
	}
	return numberValue(c.f, d)
}

func (c *composer) date(field string, s Source, in map[string]any) (any, error) {
	leaf, err := lookup(in, s.path)
	if err == nil && isBlank(leaf) {
		return nil, nil
	}
	var day time.Time
	if err == nil {
		day, err = parseDay(leaf, c.meta.TimeZone)
	}
	if err != nil {
		return nil, &FieldError{Field: field, Source: s.path, Problem: err.Error()}
	}
	return dateValue(c.f, day), nil
}

func (c *composer) money(field string, s Source, in map[string]any) (any, error) {
	amount, ok, err := c.amount(field, s, in)
	if err != nil || !ok {
		return nil, err
	}
	code := c.currency
	if s.currency != nil {
		v, err := c.value(field, *s.currency, in)
		if err != nil {
			return nil, err
		}
		code, _ = v.(string)
	}
	return c.amountValue(field, amount, code)
}

func (c *composer) amountValue(field string, amount decimal, code string) (any, error) {
	if code == "" {
		return nil, &FieldError{Field: field, Problem: `has no currency: map the field "currency" or give the tenant one`}
	}
	v, err := moneyValue(c.f, amount, code)
	if err != nil {
		return nil, &FieldError{Field: field, Problem: err.Error()}
	}
	return v, nil
}

// amount is the exact figure, not yet rounded.
func (c *composer) amount(field string, s Source, in map[string]any) (decimal, bool, error) {
	if s.op == opMoney {
		return c.figure(field, s.path, in)
	}
	product, _ := parseDecimal("1")
	for _, p := range s.paths {
		d, ok, err := c.figure(field, p, in)
		if err != nil || !ok {
			return decimal{}, false, err
		}
		product = product.mul(d)
	}
	if s.less == "" {
		return product, true, nil
	}
	percent, ok, err := c.figure(field, s.less, in)
	if err != nil || !ok {
		return product, err == nil, err
	}
	hundredth, _ := parseDecimal("0.01")
	return product.sub(product.mul(percent).mul(hundredth)), true, nil
}

func (c *composer) list(field string, s Source, in map[string]any) (any, error) {
	entries, err := children(in, s.path)
	if err != nil {
		return nil, &FieldError{Field: field, Source: s.path, Problem: err.Error()}
	}
	if len(entries) > maxLines {
		return nil, &TextError{Field: field, Rune: NoRune, Reason: "has more than 2,000 entries"}
	}
	out := make([]any, 0, len(entries))
	for i, e := range entries {
		row := make(map[string]any, len(s.each))
		for _, k := range sortedKeys(s.each) {
			v, err := c.value(fmt.Sprintf("%s.%d.%s", field, i, k), s.each[k], e)
			if err != nil {
				return nil, below(s.path, err)
			}
			if v != nil {
				set(row, k, v)
			}
		}
		out = append(out, row)
	}
	return out, nil
}

// below completes the CRM path of a fault that was found inside a list.
func below(list string, err error) error {
	var f *FieldError
	if errors.As(err, &f) && f.Source != "" {
		f.Source = list + "." + f.Source
	}
	return err
}

// sum adds the amounts as the document prints them: already rounded.
func (c *composer) sum(field string, s Source) (any, error) {
	list, amount, _ := strings.Cut(s.path, ".")
	rows, _ := get(c.record, list).([]any)
	total, code := decimal{}, ""
	for i, r := range rows {
		m, ok := get(r, amount).(map[string]any)
		if !ok {
			return nil, &FieldError{Field: fmt.Sprintf("%s.%d.%s", list, i, amount), Problem: "is missing or blank"}
		}
		d, err := parseDecimal(m["value"].(string))
		if err != nil {
			return nil, err
		}
		if rowCode := m["currency"].(string); code != "" && rowCode != code {
			return nil, &FieldError{Field: fmt.Sprintf("%s.%d.%s", list, i, amount), Problem: "is in another currency than the lines before"}
		}
		total, code = total.add(d), m["currency"].(string)
	}
	if len(rows) == 0 {
		code = c.currency
	}
	if s.equals != "" {
		c.checks = append(c.checks, comparison{path: field, equals: s.equals, currency: code, total: total})
	}
	return c.amountValue(field, total, code)
}

// compare holds a document whose total is not the amount that people see in the CRM.
func (c *composer) compare(check AmountCheck) error {
	if check.Off != "" {
		return nil
	}
	for _, k := range c.checks {
		stated, ok, err := c.figure(k.path, k.equals, c.values)
		if err != nil {
			return err
		}
		if !ok {
			return &FieldError{Field: k.path, Source: k.equals, Problem: "cannot be compared: the CRM's amount is missing or blank"}
		}
		if k.total.sub(stated).abs().cmp(check.tolerance) > 0 {
			return &AmountError{Document: k.path, CRM: k.equals, Currency: k.currency, computed: k.total.plain(), stated: stated.plain()}
		}
	}
	return nil
}

var index = regexp.MustCompile(`^[0-9]+$`)

// origin finds the CRM path behind a record field such as lines.3.description.
func (c *composer) origin(field string) string {
	for path := field; ; path = path[:strings.LastIndexByte(path, '.')] {
		s, ok := c.sources[path]
		if ok && s.op == opFrom && len(path) < len(field) {
			_, rest, _ := strings.Cut(field[len(path)+1:], ".")
			if e, ok := s.each[rest]; ok {
				return s.path + "." + e.origin()
			}
		}
		if ok {
			return s.origin()
		}
		if !strings.Contains(path, ".") {
			return ""
		}
	}
}

// lookup returns the leaf at path as text; "" when it, or a parent, is absent or null.
func lookup(in map[string]any, path string) (string, error) {
	v, err := descend(in, path)
	if err != nil {
		return "", err
	}
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	case float32, float64:
		return "", errors.New("came as a binary floating-point number, which is not exact")
	}
	return "", errors.New("is not a single value in the CRM")
}

func descend(in map[string]any, path string) (any, error) {
	var v any = in
	for part := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[part]
		case []any, []map[string]any:
			if !index.MatchString(part) {
				return nil, errors.New("runs through a list: name an entry by its number, or use from")
			}
			v = entry(at, part)
		case nil:
			return nil, nil
		default:
			return nil, errors.New("runs through a value that has no fields")
		}
	}
	return v, nil
}

func entry(list any, part string) any {
	i, err := strconv.Atoi(part)
	switch list := list.(type) {
	case []any:
		if err == nil && i < len(list) {
			return list[i]
		}
	case []map[string]any:
		if err == nil && i < len(list) {
			return list[i]
		}
	}
	return nil
}

func children(in map[string]any, path string) ([]map[string]any, error) {
	v, err := descend(in, path)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []map[string]any:
		return v, nil
	case []any:
		out := make([]map[string]any, 0, len(v))
		for _, e := range v {
			m, ok := e.(map[string]any)
			if !ok {
				return nil, errors.New("is a list of plain values in the CRM")
			}
			out = append(out, m)
		}
		return out, nil
	}
	return nil, errors.New("is not a list in the CRM")
}

// set stores v at a dotted path; checkPaths made sure that no leaf stands in the way.
func set(m map[string]any, path string, v any) {
	for {
		first, rest, more := strings.Cut(path, ".")
		if !more {
			m[first] = v
			return
		}
		next, ok := m[first].(map[string]any)
		if !ok {
			next = make(map[string]any)
			m[first] = next
		}
		m, path = next, rest
	}
}

func get(v any, path string) any {
	for part := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[part]
	}
	return v
}
