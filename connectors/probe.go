package connectors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

// Prober is the ability to say, before the first poll, what of the configuration does not fit the account.
type Prober interface {
	// Probe compares p with what the account tells of itself, and returns what would make a rule find nothing, a record
	// be unreadable or a receipt be refused, and as warnings what may do so; nothing when all fits. It reads no deal and
	// changes nothing. What was mended in the account is noticed after a minute at most. err means that the account could
	// not be asked.
	Probe(ctx context.Context, p Probe) ([]Problem, error)
}

// Resolver is the ability to understand a stage that is named by its label.
type Resolver interface {
	// Resolve returns w with the stage's ID in the place of its label, if exactly one of the stages that w may mean bears
	// the label; case does not count. A stage that is named by its ID, and one that cannot be told, stay as they are:
	// Probe says what is wrong with the latter. err means that the account could not be asked.
	Resolve(ctx context.Context, w deal.Watch) (deal.Watch, error)
}

// Probe is what of the configuration depends on the account.
type Probe struct {
	// Object is whose rules these are, for Prober; empty is the one of rules that name none. Others get the rules of all
	// objects together.
	Object  string
	Watches []deal.Watch
	// Read are the paths that CRM.Record will be asked for; Types is what becomes of them where it is more than text.
	Read  []string
	Types map[string]deal.ValueType
	// WriteBack are the fields of the receipts.
	WriteBack []deal.WriteBack
	// Filters are the fields that the filters of rules compare.
	Filters []FilterField
	// Moves are the stages that records are moved to.
	Moves []ProbedMove
	// Timeline: records are given notes.
	Timeline bool
	// Workflows: those of the CRM that wait for a deal are told of it.
	Workflows bool
}

// ProbedMove is a stage that the records of a watch are moved to once they have a status.
type ProbedMove struct {
	deal.Watch
	Status deal.Status
	To     string
}

// Misfit is the problem of a move.
func (m ProbedMove) Misfit(what, cure string) Problem {
	return Problem{Rule: m.Rule, Aspect: AspectMove, What: fmt.Sprintf("move.%s: %s", m.Status, what), Cure: strings.ReplaceAll(cure, "when.stage", "move."+string(m.Status))}
}

// Tasks reports whether owners of records are given tasks.
func (p Probe) Tasks() bool {
	return slices.ContainsFunc(p.WriteBack, func(w deal.WriteBack) bool { return w.Task != nil })
}

// FilterField is a field that the filter of a rule compares.
type FilterField struct {
	Rule string
	deal.FilterField
}

// Misfit is the problem of a filter's field.
func (f FilterField) Misfit(what, cure string) Problem {
	return Problem{Rule: f.Rule, Aspect: AspectFilter, What: fmt.Sprintf("when.filter, column %d: %s", f.Column, what), Cure: cure}
}

// TypeMisfit compares the type of a field with what the filter compares it with. types says which of the account's types
// may be compared with each.
func (f FilterField) TypeMisfit(is string, types map[deal.FilterType][]string) []Problem {
	if f.Type == "" || is == "" || slices.Contains(types[f.Type], is) {
		return nil
	}
	for as, names := range types {
		if slices.Contains(names, is) {
			return []Problem{f.Misfit(fmt.Sprintf("%q is of type %s, and is compared with a %s", f.Path, is, f.Type), "compare it with a "+exampleOf[as])}
		}
	}
	return []Problem{f.Misfit(fmt.Sprintf("%q is of type %s, which a filter cannot compare", f.Path, is), "name another field")}
}

// exampleOf shows how a value of each type is written.
var exampleOf = map[deal.FilterType]string{
	deal.FilterText: "text, such as 'New'", deal.FilterNumber: "number, such as 10000", deal.FilterDate: "date, such as 2026-01-31",
	deal.FilterTime: "time, such as 2026-01-31T08:00:00Z", deal.FilterBool: "TRUE or FALSE",
}

// Aspect is what a problem is about.
type Aspect string

// The aspects.
const (
	AspectStage  Aspect = "stage"      // what is watched
	AspectMove   Aspect = "move"       // where records are moved to
	AspectFilter Aspect = "filter"     // what the filters of rules compare
	AspectRead   Aspect = "fields"     // what goes into documents
	AspectWrite  Aspect = "write_back" // what receipts are written to
	AspectFiles  Aspect = "files"      // reading and attaching files
	AspectAccess Aspect = "access"     // what of other owners can be seen and written
	AspectScopes Aspect = "scopes"     // what the login may do beyond what is needed
)

// Problem is one thing that does not fit. It quotes the configuration and the account's names, never a record's values.
type Problem struct {
	// Rule is the rule's id, empty when the problem is not that of one rule.
	Rule   string
	Aspect Aspect
	// Warning is set when deals may be sealed all the same.
	Warning bool
	// What does not fit, and Cure what to do about it; both are sentences for people, without a full stop.
	What, Cure string
}

// Surveyor is the ability to say what the account lets the connector do beyond the names that Probe compares: whether the
// records and files of other owners can be seen and written to.
type Surveyor interface {
	// Survey returns what it lacks; nothing when nothing is missing as far as can be told. It reads IDs of records only
	// and changes nothing. err means that the account could not be asked.
	Survey(ctx context.Context, p Probe) ([]Problem, error)
}

// Thrifty is the ability to say what the login may do that nothing here needs: whoever gets hold of it could do that, too.
type Thrifty interface {
	// Surplus returns it as warnings, and with them what further abilities of p lack. told is false when the CRM does not tell
	// what this login may do. It changes nothing.
	Surplus(ctx context.Context, p Probe) (problems []Problem, told bool, err error)
}

// Sampler is the ability to name records for a rehearsal.
type Sampler interface {
	// Recent returns at most n records of the object, those that were changed last first. It reads their IDs only.
	Recent(ctx context.Context, object string, n int) ([]deal.Ref, error)
}

// TypeMisfit compares the type of a field with what a document makes of it: fits are the types that always will do, texts
// those that do if somebody writes them so.
func TypeMisfit(path, is string, as deal.ValueType, fits, texts []string) []Problem {
	switch {
	case slices.Contains(fits, is):
		return nil
	case slices.Contains(texts, is):
		return []Problem{{Aspect: AspectRead, Warning: true, What: fmt.Sprintf("the path %q leads to a field of type %s, and the document needs a %s", path, is, as),
			Cure: fmt.Sprintf("name a field of type %s; a text that is no %s will hold the deal", fits[0], as)}}
	}
	return []Problem{{Aspect: AspectRead, What: fmt.Sprintf("the path %q leads to a field of type %s, of which the document can make no %s", path, is, as),
		Cure: fmt.Sprintf("name a field of type %s in the template or in the rule's fields", strings.Join(fits, " or "))}}
}

// Explain parts an error into what happened and what mends it, if the error knows (Cure() string). cure is empty
// otherwise.
func Explain(err error) (what, cure string) {
	what = err.Error()
	var c interface{ Cure() string }
	if errors.As(err, &c) {
		cure = c.Cure()
	}
	if cure != "" {
		what = strings.Replace(what, ": "+cure, "", 1)
	}
	return what, cure
}
