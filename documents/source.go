package documents

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dealseal/dealseal/deal"
)

// Source says where one field of the document record comes from. The spellings, the same in template.yaml and in a
// tenant's rule:
//
//	Account.Name                                       text at a CRM path; a number in the path picks one of a list
//	{value: "30 days"}                                 a constant
//	{join: [BillingCity, BillingCountry], with: ", "}  several texts; blank ones are left out
//	{number: Quantity}                                 an exact decimal, written for the document's locale
//	{date: CloseDate}                                  a day; a time is read in the tenant's time zone
//	{money: Amount, currency: CurrencyIsoCode}         an amount, rounded once; currency may be {value: EUR} or absent
//	{product: [Quantity, UnitPrice], less: Discount}   an amount computed from CRM numbers, less a percentage
//	{from: OpportunityLineItems, each: {…}}            a list, with sources relative to each entry
//	{sum: lines.amount, equals: Amount}                the total of record amounts, compared with a CRM amount
//
// Money without a currency of its own takes the record's field "currency", else the tenant's.
type Source struct {
	op       string
	path     string            // CRM path of text, number, date, money and from; record path of sum
	paths    []string          // CRM paths of join and product
	text     string            // the constant of value, the separator of join
	less     string            // CRM path of a percentage; product only
	currency *Source           // text or value; money and product only
	equals   string            // CRM path; sum only
	each     map[string]Source // from only
}

const (
	opText    = "text"
	opValue   = "value"
	opJoin    = "join"
	opNumber  = "number"
	opDate    = "date"
	opMoney   = "money"
	opProduct = "product"
	opFrom    = "from"
	opSum     = "sum"
)

var (
	crmPath    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}(\.([A-Za-z_][A-Za-z0-9_]{0,99}|[0-9]{1,3})){0,7}$`)
	recordPath = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}(\.[a-z][a-z0-9_]{0,63}){0,5}$`)
)

// UnmarshalYAML reads a source and reports faults with their line.
func (s *Source) UnmarshalYAML(n *yaml.Node) error {
	var v any
	if err := n.Decode(&v); err != nil {
		return err
	}
	parsed, err := parseSource(v)
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// keysOf lists, for each operation, the keys that may stand beside it.
var keysOf = map[string][]string{
	opValue: nil, opJoin: {"with"}, opNumber: nil, opDate: nil, opMoney: {"currency"},
	opProduct: {"less", "currency"}, opFrom: {"each"}, opSum: {"equals"},
}

// parseSource reads the decoded form of a source: a string or a map.
func parseSource(v any) (Source, error) {
	if path, ok := v.(string); ok {
		return parsePath(opText, path)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return Source{}, errors.New("a source is a CRM path or a map such as {money: Amount}")
	}
	op := ""
	for _, k := range sortedKeys(m) {
		if _, known := keysOf[k]; known {
			if op != "" {
				return Source{}, fmt.Errorf("a source cannot be both %s and %s", op, k)
			}
			op = k
		}
	}
	if op == "" {
		return Source{}, fmt.Errorf("a source map needs one of %s", strings.Join(sortedKeys(keysOf), ", "))
	}
	for _, k := range sortedKeys(m) {
		if k != op && !slices.Contains(keysOf[op], k) {
			return Source{}, fmt.Errorf("unknown key %q beside %s", k, op)
		}
	}
	return parseOp(op, m)
}

func parseOp(op string, m map[string]any) (Source, error) {
	switch op {
	case opValue:
		s, ok := m[op].(string)
		if !ok {
			return Source{}, errors.New(`value must be a text: put it in quotes`)
		}
		return Source{op: op, text: s}, nil
	case opJoin:
		return parseJoin(m)
	case opFrom:
		return parseFrom(m)
	case opSum:
		return parseSum(m)
	case opMoney, opProduct:
		return parseMoney(op, m)
	default:
		return parsePath(op, m[op])
	}
}

func parsePath(op string, v any) (Source, error) {
	path, ok := v.(string)
	if !ok || !crmPath.MatchString(path) {
		return Source{}, fmt.Errorf("%v is not a CRM path such as Account.Name", quoted(v))
	}
	return Source{op: op, path: path}, nil
}

func parsePathList(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > 16 {
		return nil, errors.New("needs a list of 1 to 16 CRM paths")
	}
	paths := make([]string, 0, len(list))
	for _, e := range list {
		s, err := parsePath(opText, e)
		if err != nil {
			return nil, err
		}
		paths = append(paths, s.path)
	}
	return paths, nil
}

func parseJoin(m map[string]any) (Source, error) {
	paths, err := parsePathList(m[opJoin])
	if err != nil {
		return Source{}, fmt.Errorf("join: %w", err)
	}
	with, ok := m["with"].(string)
	if _, given := m["with"]; given && !ok {
		return Source{}, errors.New("join: with must be a text")
	}
	if !ok {
		with = " "
	}
	return Source{op: opJoin, paths: paths, text: with}, nil
}

func parseMoney(op string, m map[string]any) (s Source, err error) {
	if op == opMoney {
		s, err = parsePath(op, m[op])
	} else {
		s.op = op
		s.paths, err = parsePathList(m[op])
	}
	if err != nil {
		return Source{}, fmt.Errorf("%s: %w", op, err)
	}
	if v, ok := m["less"]; ok {
		less, err := parsePath(opText, v)
		if err != nil {
			return Source{}, fmt.Errorf("less: %w", err)
		}
		s.less = less.path
	}
	if v, ok := m["currency"]; ok {
		c, err := parseSource(v)
		if err != nil {
			return Source{}, fmt.Errorf("currency: %w", err)
		}
		if c.op != opText && c.op != opValue {
			return Source{}, errors.New("currency is a CRM path or {value: EUR}")
		}
		s.currency = &c
	}
	return s, nil
}

func parseFrom(m map[string]any) (Source, error) {
	s, err := parsePath(opFrom, m[opFrom])
	if err != nil {
		return Source{}, fmt.Errorf("from: %w", err)
	}
	each, ok := m["each"].(map[string]any)
	if !ok || len(each) == 0 {
		return Source{}, errors.New("from needs each: {field: source}")
	}
	s.each = make(map[string]Source, len(each))
	for _, k := range sortedKeys(each) {
		e, err := parseSource(each[k])
		if err != nil {
			return Source{}, fmt.Errorf("each.%s: %w", k, err)
		}
		if e.op == opFrom || e.op == opSum {
			return Source{}, fmt.Errorf("each.%s: %s cannot stand inside each", k, e.op)
		}
		s.each[k] = e
	}
	if err := checkPaths(s.each); err != nil {
		return Source{}, fmt.Errorf("each: %w", err)
	}
	return s, nil
}

func parseSum(m map[string]any) (Source, error) {
	path, ok := m[opSum].(string)
	if !ok || !recordPath.MatchString(path) || !strings.Contains(path, ".") {
		return Source{}, fmt.Errorf("sum: %v is not a path in the document record such as lines.amount", quoted(m[opSum]))
	}
	s := Source{op: opSum, path: path}
	if v, ok := m["equals"]; ok {
		e, err := parsePath(opText, v)
		if err != nil {
			return Source{}, fmt.Errorf("equals: %w", err)
		}
		s.equals = e.path
	}
	return s, nil
}

// checkPaths refuses paths that are misspelt, reserved, or one the beginning of the other, and sums of nothing.
func checkPaths(fields map[string]Source) error {
	for path, s := range fields {
		if !recordPath.MatchString(path) {
			return fmt.Errorf("%q is not a path in the document record: lower-case letters, digits, _ and dots", path)
		}
		if first, _, _ := strings.Cut(path, "."); first == metaField {
			return fmt.Errorf("%q: the field %s is dealseal's own", path, metaField)
		}
		for parent := path; strings.Contains(parent, "."); {
			parent = parent[:strings.LastIndexByte(parent, '.')]
			if _, taken := fields[parent]; taken {
				return fmt.Errorf("%q cannot stand inside %q, which has a source of its own", path, parent)
			}
		}
		if s.op == opSum {
			list, amount, _ := strings.Cut(s.path, ".")
			if of := fields[list].each[amount].op; of != opMoney && of != opProduct {
				return fmt.Errorf("%q: sum: %s is not an amount of a list (a money or product in its each)", path, s.path)
			}
		}
	}
	return nil
}

// crmPaths calls yield for every CRM path that s reads, list indices left out.
func (s Source) crmPaths(yield func(path string, as deal.ValueType)) {
	if s.path != "" && s.op != opSum && s.op != opFrom {
		yield(withoutIndices(s.path), valueTypes[s.op])
	}
	for _, p := range s.paths {
		yield(withoutIndices(p), valueTypes[s.op])
	}
	for _, p := range []string{s.less, s.equals} {
		if p != "" {
			yield(withoutIndices(p), deal.NumberValue)
		}
	}
	if s.currency != nil {
		s.currency.crmPaths(yield)
	}
	for _, e := range s.each {
		e.crmPaths(func(p string, as deal.ValueType) { yield(withoutIndices(s.path)+"."+p, as) })
	}
}

// valueTypes is what each operation makes of the paths that it names first.
var valueTypes = map[string]deal.ValueType{
	opText: deal.TextValue, opJoin: deal.TextValue, opNumber: deal.NumberValue, opMoney: deal.NumberValue, opProduct: deal.NumberValue, opDate: deal.DateValue,
}

// origin names the CRM path that a person has to mend when the field is bad.
func (s Source) origin() string {
	if s.path != "" && s.op != opSum {
		return s.path
	}
	if len(s.paths) > 0 {
		return strings.Join(s.paths, ", ")
	}
	return s.equals
}

func withoutIndices(path string) string {
	parts := strings.Split(path, ".")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p[0] >= '0' && p[0] <= '9' }), ".")
}

func quoted(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("a %T", v)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
