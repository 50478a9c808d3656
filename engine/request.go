package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Request takes in a contract that a program asks for, of a record that a rule watches for another reason: its stage. From
// then on it is a deal like any other, whose occurrence is the request's own; what is on the record is read from the CRM. The
// same request again returns the transaction of the first, without asking the CRM.
//
// A *deal.RequestError says why it is not taken. Any other error passes, and nothing is kept: ask with the same key again.
func (e *Engine) Request(ctx context.Context, tenant deal.TenantID, rule, record string, q deal.Request) (deal.TxID, error) {
	e.init()
	ctx = logged(ctx, slog.String("tenant", string(tenant)))
	if tx, err := e.Books.Requested(ctx, tenant, q); err != nil || tx != "" {
		return tx, err
	}
	t, ok := e.tenants.get(tenant)
	if !ok {
		return "", fmt.Errorf("there is no tenant %q", tenant)
	}
	i := slices.IndexFunc(t.Rules, func(r Rule) bool { return r.Watch.Rule == rule })
	if i < 0 {
		return "", &deal.RequestError{Reason: fmt.Sprintf("there is no rule %q", rule)}
	}
	if d := t.Rules[i].Plan.Delegated; d != nil {
		return "", &deal.RequestError{Reason: fmt.Sprintf("rule %q has %s do the signing: ask there", rule, d.Vendor)}
	}
	if t.Rules[i].Plan.WriteBack.Audit == "" {
		return "", &deal.RequestError{Reason: fmt.Sprintf("rule %q writes no audit record (write_back.audit), which alone shows after a restore whether a request was carried out", rule)}
	}
	if err := maySign(t.Rules[i], q.Signer); err != nil {
		return "", err
	}
	if err := e.mayRequest(t); err != nil {
		return "", err
	}
	n, err := e.entryOf(ctx, t, t.Rules[i], record, q)
	if err != nil {
		return "", err
	}
	tx, err := e.Books.Request(ctx, n, q)
	if err == nil {
		e.Log.InfoContext(ctx, "requested", "tx", tx, "who", q.Who)
	}
	return tx, err
}

// maySign refuses a person whom the rule could not compare with the record: to take a name and do nothing with it would be to
// promise that this person is asked to sign.
func maySign(r Rule, p *deal.Person) error {
	switch {
	case p == nil:
		return nil
	case r.Signatory == nil:
		return &deal.RequestError{Reason: fmt.Sprintf("signer cannot be taken: a contract gets the house's own seal here, and no person signs it; with signer in rule %q it is compared with the person on the record", r.Watch.Rule)}
	case p.Name != "" && len(r.Signatory.Name) == 0:
		return &deal.RequestError{Reason: fmt.Sprintf("signer.name cannot be taken: rule %q compares addresses only (signer.name there says where names are)", r.Watch.Rule)}
	}
	return nil
}

// mayRequest says why a request has to wait, as entries have to.
func (e *Engine) mayRequest(t *Tenant) error {
	if e.MayNotice != nil {
		if err := e.MayNotice(); err != nil {
			return err
		}
	}
	if share := budgetOf(t.CRM).Share(); share >= StopAt {
		return spent(share)
	}
	return nil
}

// entryOf reads the record and makes an entry of the request, at the CRM's own time. The stage that the record is in takes the
// place of the rule's: if it has left that before the seal, if_left decides.
func (e *Engine) entryOf(ctx context.Context, t *Tenant, r Rule, record string, q deal.Request) (n deal.Noticing, err error) {
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	account, err := e.clockOf(ctx, t)
	if err != nil {
		return n, err
	}
	rules, err := ResolveStages(ctx, t.CRM, []Rule{r})
	if err != nil {
		return n, err
	}
	watch := rules[0].Watch
	since, activated, err := e.Books.Activated(ctx, account.AccountID(), watch)
	if err != nil {
		return n, err
	}
	if !activated {
		return n, fmt.Errorf("rule %q is not watched yet", watch.Rule)
	}
	watch.Since = since
	rec, err := t.CRM.Record(ctx, deal.Ref{Object: watch.Object, ID: record}, slices.Concat(r.Filter.Paths(), r.Signatory.Paths()))
	if err != nil {
		return n, aboutRequest(err)
	}
	if q.Signer != nil && !r.Signatory.Names(rec, *q.Signer) {
		return n, &deal.RequestError{Reason: fmt.Sprintf("the record does not name the signer (%s)", strings.Join(r.Signatory.Paths(), ", "))}
	}
	switch ok, misfit := r.Filter.Matches(rec); {
	case misfit != nil:
		return n, &deal.RequestError{Reason: fmt.Sprintf("the filter of rule %q cannot judge the record: %v", watch.Rule, misfit)}
	case !ok:
		return n, &deal.RequestError{Reason: fmt.Sprintf("the record does not meet the filter of rule %q", watch.Rule)}
	}
	plan := rules[0].Plan
	plan.Stage = rec.Stage
	c := deal.Change{Rule: watch.Rule, Ref: rec.Ref, Stage: rec.Stage, Occurrence: q.Occurrence(), At: account.Clock, By: q.Who, Aliases: rec.Aliases}
	return deal.Noticing{Tenant: t.ID, Account: account.AccountID(), Guard: t.Guard, Page: deal.Page{Entries: []deal.Change{c}},
		Plans: map[string]deal.Plan{c.Rule: plan}, Watches: map[string]deal.Watch{c.Rule: watch}}, nil
}

// clockOf asks who the CRM is and what time it has.
func (e *Engine) clockOf(ctx context.Context, t *Tenant) (account deal.Account, err error) {
	known, err := e.identify(ctx, t)
	if err != nil {
		return account, err
	}
	if account, err = t.CRM.Identity(ctx); err != nil {
		return account, err
	}
	if account.AccountID() != known.AccountID() {
		return account, fmt.Errorf("tenant %q is connected to another account than before", t.ID)
	}
	return account, nil
}

// aboutRequest tells those who ask what is wrong with the record that they name. A login that is refused, or trouble that
// passes, is nothing of theirs.
func aboutRequest(err error) error {
	switch {
	case errors.Is(err, deal.ErrGone):
		return &deal.RequestError{Reason: "there is no record of that ID, or it cannot be seen"}
	case deal.IsPermanent(err) && !connectors.IsLogin(err):
		return &deal.RequestError{Reason: err.Error()}
	}
	return err
}
