package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/engine"
)

// Names of the checks of a tenant. They are part of the report's stable form.
const (
	checkLogin       = "login"
	checkEnvironment = "environment"
	checkClock       = "clock"
	checkBudget      = "budget"
	checkTemplate    = "template"
	checkGuard       = "guard"
	checkPause       = "pause"
	checkPush        = "push"
)

// tried is how many of the latest records a template is tried with.
const tried = 5

// visit is the examination of one tenant.
type visit struct {
	tenant
	bundles map[string]*documents.Bundle
	crm     connectors.CRM
	account deal.Account // as of the login
	report  func(doctor.Finding)
}

func (x *examiner) examineTenant(t tenant) doctor.Examination {
	id := t.file.Tenant.ID
	e := examination(doctor.TenantGroup(id), checkLogin, "", tenantLimit, func(ctx context.Context, report func(doctor.Finding)) {
		x.examinePause(ctx, t, report)
		x.examineGuard(ctx, t, report)
		x.examineWorkflows(ctx, t, report)
		crm, err := x.connect(ctx, t)
		if err != nil {
			report(failed(checkLogin, err, "see crm.with and the state directory; if a process that uses it does not answer, wait for its end"))
			return
		}
		v := &visit{tenant: t, bundles: x.bundles, crm: crm, report: report}
		v.pushes()
		v.pins(ctx)
		if v.login(ctx) {
			v.listens(ctx)
			v.compare(ctx)
			v.survey(ctx)
			v.surplus(ctx)
			v.budget()
			v.tryTemplates(ctx)
		}
	})
	e.Tenant = id
	return e
}

// examinePause reports that a person has the tenant wait, as far as the daemon is asked.
func (x *examiner) examinePause(ctx context.Context, t tenant, report func(doctor.Finding)) {
	if x.pauses == nil {
		return
	}
	all, err := x.pauses(ctx)
	if err != nil {
		report(failed(checkPause, err, "see the check of the state directory"))
		return
	}
	for _, p := range all {
		if p.Tenant == deal.TenantID(t.file.Tenant.ID) {
			report(doctor.Failed(checkPause, fmt.Sprintf("once its cause is mended: dealseal tenants resume %s --why \"…\"", p.Tenant), "a person has it wait since %s (%s): nothing of it is sealed", p.Since.Format(time.RFC3339), p.Why))
		}
	}
}

// examineGuard reports what the guard holds, as far as the daemon is asked.
func (x *examiner) examineGuard(ctx context.Context, t tenant, report func(doctor.Finding)) {
	if x.guards == nil {
		return
	}
	holds, err := x.guards(ctx)
	if err != nil {
		report(failed(checkGuard, err, "see the check of the state directory"))
		return
	}
	for _, h := range holds {
		if h.Tenant == deal.TenantID(t.file.Tenant.ID) {
			report(doctor.Warned(checkGuard, fmt.Sprintf("decide: dealseal jobs release --guard %s --why \"…\", or drop", h.GuardScope), "it holds %s: %s", plural(h.Held, "deal"), h.Cause).On(h.Rule))
		}
	}
}

// pushes reports secrets of senders that cannot be read: what they sign would be refused, or asked for again and again. It reports
// as well who issues their certificates, and is over.
func (v *visit) pushes() {
	for i, s := range v.senders {
		if file := v.file.Push[i].ClientCA; file != "" {
			v.report(authoritiesFinding(checkPush, relativeTo(v.file.File, file), "then dealseal reload", time.Now()).On(s.Source + " client_ca"))
		}
		if errs := v.live[i].unreadable(); errs != nil {
			v.report(failed(checkPush, errors.Join(errs...), "mend push.secrets in "+v.file.File+", or take the secret out").On(s.Source))
			continue
		}
		v.report(doctor.Passed(checkPush, "the secrets of %s can be read", s.Source).On(s.Source))
	}
}

// pins reports how the keys that the CRM's hosts present agree with those that are pinned.
func (v *visit) pins(ctx context.Context) {
	for _, address := range v.addresses {
		if set := v.file.CRM.Pins[hostIn(address)]; len(set) > 0 {
			v.report(examinePins(ctx, address, set, nil).On(hostIn(address)))
		}
	}
}

// listens reports whether the CRM would tell of changes. That it does not costs time, and no deal.
func (v *visit) listens(ctx context.Context) {
	waker, ok := v.crm.(connectors.Waker)
	if !ok || !waker.Wakes() {
		return
	}
	subject := v.file.CRM.Kind + "-events"
	if err := waker.Reach(ctx, v.account); err != nil {
		f := failed(checkPush, err, "see docs/push.md; polling finds what happens meanwhile").On(subject)
		f.Result = doctor.Warning
		v.report(f)
		return
	}
	v.report(doctor.Passed(checkPush, "the CRM tells of changes itself").On(subject))
}

// login asks who the account is. Nothing else can be asked when that fails.
func (v *visit) login(ctx context.Context) bool {
	began := time.Now()
	account, err := v.crm.Identity(ctx)
	if err != nil {
		v.report(failed(checkLogin, err, "see that this machine reaches the CRM, and check crm.with in "+v.file.File))
		return false
	}
	v.account = account
	name := account.Name
	if !strings.Contains(name, account.ID) {
		name += ", account " + account.ID
	}
	v.report(doctor.Passed(checkLogin, "%s: %s, time zone %s", account.Kind, name, account.TimeZone))
	env := v.file.Tenant.Environment
	if err := engine.CheckEnvironment(deal.TenantID(v.file.Tenant.ID), env == "production", account); err != nil {
		v.report(failed(checkEnvironment, err, ""))
	} else {
		v.report(doctor.Passed(checkEnvironment, "%s, as configured%s", env, markedInWords(v.file.Tenant)))
	}
	// A Date header is cut to the second.
	v.report(clockFinding("the CRM's clock", account.Clock.Add(500*time.Millisecond), began, time.Now(), 500*time.Millisecond))
	return true
}

// compare reports what of the configuration does not fit the account, by aspect.
func (v *visit) compare(ctx context.Context) {
	prober, ok := v.crm.(connectors.Prober)
	if !ok {
		return
	}
	rules, err := engine.ResolveStages(ctx, v.crm, v.rules)
	if err != nil {
		v.report(failed(string(connectors.AspectStage), err, "ask again when the CRM answers"))
		return
	}
	v.namedByLabel(rules)
	ask := engine.ProbeOf(rules)
	problems, err := engine.Fit(ctx, prober, rules)
	if err != nil {
		v.report(failed(string(connectors.AspectStage), err, "ask again when the CRM answers"))
		return
	}
	problems = append(problems, engine.MovesIntoRules(rules)...)
	fields := map[string]bool{}
	for _, w := range ask.WriteBack {
		for _, f := range w.Fields() {
			fields[f] = true
		}
	}
	fine := map[connectors.Aspect]string{
		connectors.AspectStage: plural(len(ask.Watches), "rule") + ", each with a stage that exists",
		connectors.AspectRead:  plural(len(ask.Read), "field") + " of documents can be read",
		connectors.AspectWrite: plural(len(fields), "field") + " of receipts can be written, and hold what will be written",
	}
	if len(ask.Moves) > 0 {
		fine[connectors.AspectMove] = plural(len(ask.Moves), "move") + " of records, each to a stage that exists and that no rule watches"
	}
	v.problems(problems, fine)
}

// namedByLabel warns of stages that are found by their label, and goes on with their IDs.
func (v *visit) namedByLabel(rules []engine.Rule) {
	for i, r := range rules {
		if label := v.rules[i].Watch.Stage; label != r.Watch.Stage {
			v.report(doctor.Warned(string(connectors.AspectStage), fmt.Sprintf("write when.stage: %q: the label may be changed, or given to another stage", r.Watch.Stage),
				"%q is a label; the stage has the ID %q", label, r.Watch.Stage).On(r.Watch.Rule))
		}
		for status, label := range v.rules[i].Plan.Moves {
			if id := r.Plan.Moves[status]; label != id {
				v.report(doctor.Warned(string(connectors.AspectMove), fmt.Sprintf("write move.%s: %q: the label may be changed, or given to another stage", status, id),
					"%q is a label; the stage has the ID %q", label, id).On(r.Watch.Rule))
			}
		}
	}
	v.rules = rules
}

// survey reports what the account does not let us do.
func (v *visit) survey(ctx context.Context) {
	surveyor, ok := v.crm.(connectors.Surveyor)
	if !ok {
		return
	}
	problems, err := surveyor.Survey(ctx, engine.ProbeOf(v.rules))
	if err != nil {
		v.report(failed(string(connectors.AspectAccess), err, "ask again when the CRM answers"))
		return
	}
	v.problems(problems, map[connectors.Aspect]string{
		connectors.AspectAccess: "records of other owners can be seen and written to, as far as can be told from the latest",
		connectors.AspectFiles:  "files can be read and attached",
	})
}

// surplus warns of a login that may do more than it has to.
func (v *visit) surplus(ctx context.Context) {
	thrifty, ok := v.crm.(connectors.Thrifty)
	if !ok {
		return
	}
	ask := engine.ProbeOf(v.rules)
	ask.Workflows = slices.ContainsFunc(v.file.Push, func(p config.Push) bool { return p.Source == config.PushHubSpotAction })
	problems, told, err := thrifty.Surplus(ctx, ask)
	fine := "the login may do what dealseal needs, and nothing more that reaches far"
	switch {
	case err != nil:
		f := failed(string(connectors.AspectScopes), err, "ask again when the CRM answers")
		f.Result = doctor.Warning
		v.report(f)
		return
	case !told:
		fine = "the CRM does not tell what this login may do: compare its scopes with those in README.md"
	}
	v.problems(problems, map[connectors.Aspect]string{connectors.AspectScopes: fine})
}

// problems reports each problem, and a pass for each aspect that has none.
func (v *visit) problems(problems []connectors.Problem, fine map[connectors.Aspect]string) {
	aspects := []connectors.Aspect{connectors.AspectStage, connectors.AspectMove, connectors.AspectFilter, connectors.AspectRead, connectors.AspectWrite, connectors.AspectAccess, connectors.AspectFiles, connectors.AspectScopes}
	for _, aspect := range aspects {
		troubled := false
		for _, p := range problems {
			if p.Aspect != aspect {
				continue
			}
			troubled = true
			f := doctor.Failed(string(aspect), p.Cure, "%s", p.What).On(p.Rule)
			if p.Warning {
				f.Result = doctor.Warning
			}
			v.report(f)
		}
		if text, asked := fine[aspect]; asked && !troubled {
			v.report(doctor.Passed(string(aspect), "%s", text))
		}
	}
}

func (v *visit) budget() {
	m, ok := v.crm.(connectors.Metered)
	if !ok || m.Budget().Max == 0 {
		return
	}
	b := m.Budget()
	const cure = "find out who uses it up, poll less often (crm.with.poll), or buy more"
	switch share := b.Share(); {
	case share >= engine.StopAt:
		v.report(doctor.Failed(checkBudget, cure, "%d of %d API calls of the day are used: no new deals are taken on", b.Used, b.Max))
	case share >= engine.SlowAt:
		v.report(doctor.Warned(checkBudget, cure, "%d of %d API calls of the day are used: polling has slowed down", b.Used, b.Max))
	default:
		v.report(doctor.Passed(checkBudget, "%d of %d API calls of the day are used", b.Used, b.Max))
	}
}

// tryTemplates makes the record of each rule's document from the latest real records, without rendering or keeping it. A
// record that is not ready for its contract may lack anything, so one that fits is enough.
func (v *visit) tryTemplates(ctx context.Context) {
	sampler, ok := v.crm.(connectors.Sampler)
	if !ok {
		return
	}
	latest := map[string][]deal.Record{}
	for i, r := range v.rules {
		b := v.bundles[v.file.Rules[i].Document.Template]
		if b == nil {
			continue
		}
		records, asked := latest[r.Watch.Object]
		if !asked {
			var ok bool
			if records, ok = v.latest(ctx, sampler, r.Watch.Object); !ok {
				return
			}
			latest[r.Watch.Object] = records
		}
		v.report(v.tryTemplate(b, r, records).On(r.Watch.Rule))
	}
}

// latest reads what the rules of an object need, of its records that were changed last. What cannot be read is reported.
func (v *visit) latest(ctx context.Context, sampler connectors.Sampler, object string) (records []deal.Record, ok bool) {
	refs, err := sampler.Recent(ctx, object, tried)
	if err != nil {
		v.report(failed(checkTemplate, err, "ask again when the CRM answers"))
		return nil, false
	}
	of := slices.DeleteFunc(slices.Clone(v.rules), func(r engine.Rule) bool { return r.Watch.Object != object })
	fields := engine.ProbeOf(of).Read
	for _, ref := range refs {
		record, err := v.crm.Record(ctx, ref, fields)
		if errors.Is(err, deal.ErrGone) {
			continue
		}
		if deal.IsPermanent(err) {
			return nil, false // the field that cannot be read is reported already
		}
		if err != nil {
			v.report(failed(checkTemplate, err, "ask again when the CRM answers"))
			return nil, false
		}
		records = append(records, record)
	}
	return records, true
}

func (v *visit) tryTemplate(b *documents.Bundle, r engine.Rule, records []deal.Record) doctor.Finding {
	if len(records) == 0 {
		return doctor.Passed(checkTemplate, "there is no record yet to try %s with", b.Name())
	}
	var first error
	for _, record := range records {
		err := compose(b, r.Plan, deal.Kind(v.file.CRM.Kind), record)
		if err == nil {
			return doctor.Passed(checkTemplate, "%s fits the record %s", b.Name(), record.Ref.ID)
		}
		if first == nil || record.Stage == r.Plan.Stage {
			first = fmt.Errorf("record %s: %w", record.Ref.ID, err)
		}
	}
	return doctor.Warned(checkTemplate, "complete the record, or correct the fields of the template: such a deal will be held",
		"%s fits none of the latest %s; %v", b.Name(), plural(len(records), "record"), first)
}

// compose makes a document's record and validates it. The errors of documents name fields only.
func compose(b *documents.Bundle, p deal.Plan, kind deal.Kind, record deal.Record) error {
	doc, err := engine.Compose(b, p, kind, record.Values, deal.NewTxID("", record.Ref, "", ""), time.Now())
	if err == nil {
		err = b.Validate(doc)
	}
	return err
}

// Limits of a clock's difference.
const (
	skewWarning = 2 * time.Second
	skewFailure = time.Minute
)

// clockFinding compares a clock with this machine's. It was read between two moments here, and may be off itself by the
// given tolerance.
func clockFinding(whose string, theirs, before, after time.Time, tolerance time.Duration) doctor.Finding {
	half := after.Sub(before) / 2
	skew := theirs.Sub(before.Add(half))
	sure := max(skew.Abs()-half-tolerance, 0) // the least difference that there is
	text := fmt.Sprintf("%s is %d ms %s this machine's (within %d ms)", whose, skew.Abs().Milliseconds(), map[bool]string{true: "ahead of", false: "behind"}[skew > 0], (half + tolerance).Milliseconds())
	const cure = "set this machine's clock by NTP (timedatectl, chronyc tracking); if it is right, tell whoever runs the other"
	switch {
	case sure > skewFailure:
		return doctor.Failed(checkClock, cure, "%s", text)
	case sure > skewWarning:
		return doctor.Warned(checkClock, cure, "%s", text)
	}
	return doctor.Passed(checkClock, "%s", text)
}
