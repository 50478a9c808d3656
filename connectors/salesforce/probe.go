package salesforce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Probe implements connectors.Prober. It costs one description of the object, which the connector remembers, one of each
// further object that a path leads to, a look at the history and, where that is an administrator's choice, whether it is kept.
func (c *Connector) Probe(ctx context.Context, p connectors.Probe) ([]connectors.Problem, error) {
	problems, err := c.probe(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("salesforce: compare the configuration with the org: %w", err)
	}
	return problems, nil
}

func (c *Connector) probe(ctx context.Context, p connectors.Probe) ([]connectors.Problem, error) {
	k, err := kindNamed(cmp.Or(p.Object, Object))
	if err != nil {
		return nil, err
	}
	link := len(c.page("ContentDocument", strings.Repeat("0", 18)))
	fits := func(o *sobject) bool { return len(o.misfits(k, p, link)) == 0 }
	described, err := c.schema.object(ctx, k.name, fits)
	if err != nil {
		return nil, err
	}
	problems, err := c.entryMisfits(ctx, k, p.Watches)
	if err != nil {
		return nil, err
	}
	problems = append(problems, described.misfits(k, p, link)...)
	for _, path := range p.Read {
		_, err := c.selectPaths(ctx, k, []string{path})
		switch {
		case isMisfit(err):
			problems = append(problems, connectors.Problem{
				Aspect: connectors.AspectRead,
				What:   fmt.Sprintf("the path %q cannot be read: %s", path, cureOf(err)),
				Cure:   "correct it in the template or in the rule's fields, or give the integration user read access to it",
			})
		case err != nil:
			return nil, err
		default:
			problem, err := c.typeMisfit(ctx, k, path, p.Types[path])
			if err != nil {
				return nil, err
			}
			problems = append(problems, problem...)
		}
	}
	for _, f := range p.Filters {
		misfits, err := c.filterMisfit(ctx, k, f)
		if err != nil {
			return nil, err
		}
		problems = append(problems, misfits...)
	}
	switch err := c.checkMarkerField(ctx); {
	case isMisfit(err):
		problems = append(problems, connectors.Problem{
			Aspect: connectors.AspectFiles,
			What:   cureOf(err),
			Cure:   "make the field on ContentVersion in Salesforce, or leave crm.with.tx_marker out",
		})
	case err != nil:
		return nil, err
	}
	return problems, nil
}

// Resolve implements connectors.Resolver. It costs nothing once the object is described.
func (c *Connector) Resolve(ctx context.Context, w deal.Watch) (deal.Watch, error) {
	k, err := kindNamed(w.Object)
	if err != nil {
		return w, nil // Probe says so
	}
	o, err := c.schema.object(ctx, k.name, anything)
	if err != nil {
		return w, fmt.Errorf("salesforce: look for the stage: %w", err)
	}
	return o.resolve(k, w), nil
}

// resolve puts the API name of the only active stage with that label in its place.
func (o *sobject) resolve(k kind, w deal.Watch) deal.Watch {
	var names []string
	for _, v := range o.fields[k.stage].Values {
		if v.Value == w.Stage {
			return w
		}
		if v.Active && strings.EqualFold(v.Label, w.Stage) {
			names = append(names, v.Value)
		}
	}
	if len(names) == 1 {
		w.Stage = names[0]
	}
	return w
}

// typeMisfit says why a document could not make a number or a date of a field.
func (c *Connector) typeMisfit(ctx context.Context, k kind, path string, as deal.ValueType) ([]connectors.Problem, error) {
	if as != deal.NumberValue && as != deal.DateValue {
		return nil, nil
	}
	object, segments := k.name, strings.Split(path, ".")
	if len(segments) > 1 {
		_, child, err := c.schema.relationship(ctx, k.name, segments[0])
		if err != nil {
			return nil, err
		}
		if child != "" {
			object, segments = child, segments[1:]
		}
	}
	f, exists, err := c.checkPath(ctx, object, path, segments)
	if err != nil || !exists {
		return nil, err
	}
	fits := []string{"currency", "double", "int", "long", "percent"}
	if as == deal.DateValue {
		fits = []string{"date", "datetime"}
	}
	return connectors.TypeMisfit(path, f.Type, as, fits, slices.Concat(textTypes, []string{"picklist", "combobox", "encryptedstring"})), nil
}

// filterTypes are the types of fields that a filter may compare with each type of value, as in SOQL.
var filterTypes = map[deal.FilterType][]string{
	deal.FilterText:   slices.Concat(textTypes, []string{"picklist", "multipicklist", "combobox", "id", "reference", "email", "phone", "url", "encryptedstring"}),
	deal.FilterNumber: {"currency", "double", "int", "long", "percent"},
	deal.FilterDate:   {"date"},
	deal.FilterTime:   {"datetime"},
	deal.FilterBool:   {"boolean"},
}

// filterMisfit says why the filter of a rule could not be judged.
func (c *Connector) filterMisfit(ctx context.Context, k kind, f connectors.FilterField) ([]connectors.Problem, error) {
	segments := strings.Split(f.Path, ".")
	field, exists, err := c.checkPath(ctx, k.name, f.Path, segments)
	if isMisfit(err) {
		return []connectors.Problem{f.Misfit(cureOf(err), "correct the name in when.filter, or give the integration user read access to it; lists of other records cannot be compared")}, nil
	}
	if err != nil || !exists {
		return nil, err
	}
	return f.TypeMisfit(field.Type, filterTypes), nil
}

// isMisfit reports whether an error says that a name in the configuration does not fit, and not that Salesforce could not
// be asked.
func isMisfit(err error) bool { return deal.IsPermanent(err) && !connectors.IsLogin(err) }

func cureOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.cure
	}
	return err.Error()
}

// misfits compares the description of an object with what is watched and what will be written. link is how long the
// address of a document's page is.
func (o *sobject) misfits(k kind, p connectors.Probe, link int) []connectors.Problem {
	var problems []connectors.Problem
	for _, w := range p.Watches {
		if what, cure := o.stageMisfit(k, w); what != "" {
			problems = append(problems, connectors.Problem{Rule: w.Rule, Aspect: connectors.AspectStage, What: what, Cure: cure})
		}
	}
	for _, m := range p.Moves {
		if what, cure := o.moveMisfit(k, m.To); what != "" {
			problems = append(problems, m.Misfit(what, cure))
		}
	}
	for _, w := range p.WriteBack {
		for _, t := range targets(w, link) {
			what, cure := o.targetMisfit(t)
			problem := connectors.Problem{Aspect: connectors.AspectWrite, What: "write_back." + t.key + ": " + what, Cure: cure}
			if what != "" && !slices.Contains(problems, problem) { // several rules write to the same fields
				problems = append(problems, problem)
			}
		}
	}
	return problems
}

// stageMisfit says why a watch can find nothing; what is empty when it can.
func (o *sobject) stageMisfit(k kind, w deal.Watch) (what, cure string) {
	if w.Object != k.name {
		return fmt.Sprintf("object %q cannot be watched", w.Object), "watch one of " + strings.Join(Objects(), ", ")
	}
	stages, ok := o.fields[k.stage]
	if !ok {
		return "the integration user cannot see the field " + k.stage + " of " + k.name, "give it read access to the field"
	}
	var active []string
	for _, v := range stages.Values {
		switch {
		case v.Value == w.Stage && v.Active:
			return "", ""
		case v.Value == w.Stage:
			return fmt.Sprintf("the stage %q is not active", w.Stage), "activate it in Salesforce, or watch another one in when.stage"
		case v.Active:
			active = append(active, v.Value)
		}
	}
	what = fmt.Sprintf("there is no stage with the API name %q", w.Stage)
	if names := labelledAll(stages.Values, w.Stage); len(names) > 1 {
		return what, fmt.Sprintf("%q is the label of several stages, with the API names %s; write one of those in when.stage", w.Stage, strings.Join(names, " and "))
	}
	if name, ok := labelled(stages.Values, w.Stage); ok {
		return what, fmt.Sprintf("%q is a label: the stage so labelled has the API name %q; write that in when.stage", w.Stage, name)
	}
	return what, strings.TrimSpace("correct when.stage: it is the API name of an active stage; " + connectors.Suggest(w.Stage, active))
}

// labelledAll finds the API names of all active values with a label, quoted.
func labelledAll(values []pickValue, label string) (names []string) {
	for _, v := range values {
		if v.Active && strings.EqualFold(v.Label, label) {
			names = append(names, fmt.Sprintf("%q", v.Value))
		}
	}
	return names
}

// labelled finds the API name of an active value by its label.
func labelled(values []pickValue, label string) (name string, ok bool) {
	for _, v := range values {
		if v.Active && strings.EqualFold(v.Label, label) && v.Value != label {
			return v.Value, true
		}
	}
	return "", false
}

// target is a field that a receipt is written to.
type target struct {
	key, field string
	types      []string // that will do
	typeCure   string
	length     int      // that a text must hold at least
	words      []string // that will be written, for a status
}

// textTypes hold any text up to their length.
var textTypes = []string{"string", "textarea"}

// shortAudit is how long a field for audit records must be at least. A shorter one would lose parts of most of them.
const shortAudit = 1000

// targets lists the fields of a write-back.
func targets(w deal.WriteBack, link int) []target {
	status := target{key: "status", field: w.Status, types: slices.Concat(textTypes, []string{"picklist", "combobox", "multipicklist"}),
		typeCure: "name a picklist or text field"}
	for _, s := range deal.Statuses {
		word := w.Word(s.Status)
		status.words = append(status.words, word)
		status.length = max(status.length, utf8.RuneCountInString(word))
	}
	all := []target{
		{key: "transaction_id", field: w.TransactionID, types: textTypes, typeCure: "name a text field", length: len(deal.NewTxID("", deal.Ref{}, "", ""))},
		status,
		{key: "signed_at", field: w.SignedAt, types: slices.Concat(textTypes, []string{"datetime"}), typeCure: "name a date/time field", length: len(recordTime)},
		{key: "url", field: w.URL, types: slices.Concat(textTypes, []string{"url"}), typeCure: "name a URL or text field", length: link},
		{key: "audit", field: w.Audit, types: textTypes, typeCure: "name a long text area", length: shortAudit},
		{key: "drift", field: w.Drift, types: textTypes, typeCure: "name a text field", length: deal.MaxDriftText},
		{key: "follow_up", field: w.FollowUp, types: slices.Concat(textTypes, []string{"datetime"}), typeCure: "name a date/time field", length: len(recordTime)},
	}
	return slices.DeleteFunc(all, func(t target) bool { return t.field == "" })
}

// targetMisfit says why a receipt could not be written; what is empty when it could.
func (o *sobject) targetMisfit(t target) (what, cure string) {
	f, ok := o.fields[t.field]
	switch {
	case !ok:
		return fmt.Sprintf("%s has no field %q that the integration user can see%s", o.Name, t.field, o.suggest(t.field)),
			"make the field in Salesforce, give the integration user access to it, or correct its name"
	case !f.Updateable:
		return "field " + f.Name + " cannot be written",
			"give the integration user edit access to it; a formula or a field of Salesforce's own can never be written"
	case !slices.Contains(t.types, f.Type):
		return fmt.Sprintf("field %s is of type %s", f.Name, f.Type), t.typeCure
	case f.Rich:
		return "field " + f.Name + " is a rich text area, which changes what is written", "use a plain (long) text area"
	case slices.Contains(textTypes, f.Type) || f.Type == "url":
		if f.Length > 0 && f.Length < t.length {
			return fmt.Sprintf("field %s holds %d characters, %d are needed", f.Name, f.Length, t.length), "make the field longer in Salesforce"
		}
	case f.Restricted:
		return f.wordMisfit(t.words)
	}
	return "", ""
}

// wordMisfit says which words a restricted picklist would refuse.
func (f field) wordMisfit(words []string) (what, cure string) {
	var missing, labels []string
	for _, word := range words {
		if slices.ContainsFunc(f.Values, func(v pickValue) bool { return v.Active && v.Value == word }) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%q", word))
		if name, ok := labelled(f.Values, word); ok {
			labels = append(labels, fmt.Sprintf("; %q is a label, its API name is %q", word, name))
		}
	}
	if missing == nil {
		return "", ""
	}
	return fmt.Sprintf("the restricted picklist %s lacks the active value %s", f.Name, strings.Join(missing, ", ")),
		"add it in Salesforce, or name the org's own words (API names) in write_back.status.values" + strings.Join(labels, "")
}
