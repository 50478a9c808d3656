package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// A workflow of a CRM may stand still until its deal is sealed. It came as a push, which wakes the poller with the record
// as any other; only once that has read all entries of the record is it known which sealing the workflow waits for, or that
// there is none: the newest that the ledger had before may be about a stage entry of long ago.
const (
	// answerEvery is how often is looked for workflows whose deal has come to its end, while some wait; answerIdle while none does.
	answerEvery = 2 * time.Second
	answerIdle  = time.Minute
	// answersAtOnce bounds the workflows that one look takes up, answering those that are told at the same time.
	answersAtOnce = 100
	answering     = 4
	// Attempts to tell the CRM are at most so far apart.
	mostAnswerPause = 10 * time.Minute
	// unknownAfter is for how many attempts a CRM may not know a workflow, because our answer to it was lost and it comes once
	// more: a quarter of an hour.
	unknownAfter = 10
	// lookAgain is the least time between two wishes to have a record looked at, which grows with the age of what waits.
	lookAgain = 30 * time.Second
)

// lookedAt takes note for which sealings workflows wait that have named the records. A record of which something could not
// be understood, or not be seen, is looked at again: the workflow may be about just that.
func (p *poller) lookedAt(ctx context.Context, refs []deal.Ref, page deal.Page) error {
	if p.Callbacks == nil {
		return nil
	}
	for _, ref := range refs {
		if isQuarantined(page, ref) || isRefused(page, ref) {
			continue
		}
		n, err := p.Callbacks.LookedAt(ctx, p.tenant.ID, p.account.AccountID(), ref, p.asked)
		if err != nil {
			return err
		}
		if n > 0 {
			p.Log.InfoContext(ctx, "workflows wait for a record", "record", ref, "n", n)
			p.bell.call()
		}
	}
	return nil
}

func isQuarantined(page deal.Page, ref deal.Ref) bool {
	for _, q := range page.Quarantined {
		if q.Ref == ref {
			return true
		}
	}
	return false
}

func isRefused(page deal.Page, ref deal.Ref) bool {
	return slices.ContainsFunc(page.Refused, func(o deal.RefusedObject) bool { return o.Object == ref.Object })
}

// call has workflows answered soon.
func (b *bell) call() {
	select {
	case b.called <- struct{}{}:
	default:
	}
}

// answerer tells the workflows of one tenant's CRM what has become of their deals.
type answerer struct {
	*Engine
	tenant    *Tenant
	completer connectors.Completer
	bell      *bell
	looked    map[string]time.Time // when the record of a workflow was last wished to be looked at
}

// answerWorkflows answers for as long as ctx lasts, where the CRM has workflows that wait.
func (e *Engine) answerWorkflows(ctx context.Context, t *Tenant) {
	completer, ok := t.CRM.(connectors.Completer)
	if !ok || e.Callbacks == nil {
		return
	}
	a := &answerer{Engine: e, tenant: t, completer: completer, bell: e.tenants.bell(t), looked: map[string]time.Time{}}
	ctx = logged(ctx, slog.String("tenant", string(t.ID)))
	for ctx.Err() == nil {
		open, err := a.once(ctx)
		wait := answerEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.Log.ErrorContext(ctx, "workflows that wait cannot be looked after", "err", err)
			wait = answerIdle
		case open == 0:
			wait = answerIdle
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-a.bell.called:
		}
		timer.Stop()
	}
}

// once answers what can be answered, and returns how many workflows wait.
func (a *answerer) once(ctx context.Context) (open int64, err error) {
	due, open, err := a.Callbacks.Callbacks(ctx, a.tenant.ID, answersAtOnce)
	if err != nil || len(due) == 0 {
		return open, err
	}
	paused, err := a.Ledger.IsPaused(ctx, a.tenant.ID)
	if err != nil {
		return open, err
	}
	g := errgroup.Group{}
	g.SetLimit(answering)
	for _, c := range due {
		outcome := c.Decide(a.Now())
		switch {
		case outcome == "":
			a.look(c)
		case paused && a.Now().Before(c.Expires): // nothing is written to the CRM of a paused tenant
		default:
			g.Go(func() error { return a.answer(ctx, c, outcome) })
		}
	}
	return open, g.Wait()
}

// look has the record of a workflow looked at that waits for nothing yet: the push was lost with the process, or the CRM
// could not be asked.
func (a *answerer) look(c deal.Callback) {
	now := a.Now()
	if len(a.looked) > 10*answersAtOnce {
		clear(a.looked)
	}
	if last, ok := a.looked[c.ID]; ok && now.Sub(last) < max(lookAgain, now.Sub(c.At)/10) {
		return
	}
	a.looked[c.ID] = now
	a.bell.ring([]deal.Ref{c.Ref})
}

// answer tells the CRM once. What it is told was committed before, and is the same at each attempt.
func (a *answerer) answer(ctx context.Context, c deal.Callback, outcome deal.CallbackOutcome) error {
	ctx = logged(ctx, slog.String("workflow", c.ID), slog.String("tx", string(c.Tx)))
	if !a.Now().Before(c.Expires) {
		a.Log.ErrorContext(ctx, "a workflow was not told in time what became of its deal: the CRM has let it go on by itself", "outcome", outcome, "attempts", c.Tries, "last", c.Problem)
		return a.Callbacks.EndCallback(ctx, c, deal.CallbackEnd{Fate: deal.CallbackExpired, Problem: c.Problem})
	}
	if err := a.Callbacks.BeginCallback(ctx, c, outcome); err != nil {
		if errors.Is(err, deal.ErrStale) {
			return nil
		}
		return err
	}
	began := time.Now()
	asking, cancel := context.WithTimeout(ctx, crmLimit)
	err := a.completer.Complete(asking, c.ID, outcome, c.Tx)
	cancel()
	if a.Seen != nil {
		a.Seen("workflow.complete", time.Since(began), err)
	}
	if ctx.Err() != nil {
		return nil // the next start finds that it was begun
	}
	return a.Callbacks.EndCallback(ctx, c, a.ending(ctx, c, outcome, err))
}

// ending judges an attempt.
func (a *answerer) ending(ctx context.Context, c deal.Callback, outcome deal.CallbackOutcome, err error) deal.CallbackEnd {
	unknown := connectors.IsNoCallback(err)
	switch {
	case err == nil, unknown && !c.Asked.IsZero():
		// One whose attempt before had no answer, and that is not known any more, was told by that.
		a.Log.InfoContext(ctx, "a workflow goes on", "outcome", outcome)
		return deal.CallbackEnd{Fate: deal.CallbackTold}
	case unknown && c.Tries >= unknownAfter:
		a.Log.ErrorContext(ctx, "a workflow that waits is not known to the CRM: somebody has ended it", "outcome", outcome)
		return deal.CallbackEnd{Fate: deal.CallbackUnknown, Problem: err.Error()}
	}
	wait := min(answerEvery<<min(c.Tries, 10), mostAnswerPause)
	if deal.IsPermanent(err) && !unknown {
		wait = mostAnswerPause // a person has to mend the permission or the login
	}
	wait = max(wait, deal.RetryAfter(err))
	a.Log.WarnContext(ctx, "a workflow could not be told what became of its deal", "in", wait.Round(time.Second), "attempt", c.Tries+1, "err", err)
	return deal.CallbackEnd{Due: a.Now().Add(wait + time.Duration(a.random(int64(wait)/5+1))), Problem: err.Error(), Unclear: deal.Unsettled(err) > 0 || !c.Asked.IsZero()}
}
