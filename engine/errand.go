package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// errandJob does what is to be done in the CRM because of what became of a sealing, oldest first. As with the record's
// receipt it never gives up what may still succeed; what the CRM refuses for good ends, and is written down.
func (e *Engine) errandJob(ctx context.Context, s *deal.Sealing) deal.Outcome {
	all, err := e.Ledger.Errands(ctx, s.Tx)
	if err != nil {
		return e.laterErrand(ctx, s, deal.Errand{Made: e.Now()}, err)
	}
	var out deal.Outcome
	for _, errand := range all {
		if errand.Fate != "" {
			continue
		}
		ctx := logged(ctx, slog.String("errand", string(errand.Kind)))
		if err := e.errand(ctx, s, &errand, all); err != nil { // none waits for the others
			if later := e.laterErrand(ctx, s, errand, err); out.Again == 0 || later.Again < out.Again {
				out = later
			}
		}
	}
	return out
}

// laterErrand takes note of why an errand was not done, and says when it is tried again: the more rarely the longer it lasts.
func (e *Engine) laterErrand(ctx context.Context, s *deal.Sealing, errand deal.Errand, cause error) deal.Outcome {
	if ctx.Err() != nil {
		return deal.Outcome{}
	}
	var waits *taskWaitsError
	if errors.As(cause, &waits) {
		return deal.Outcome{Again: max(waits.left, time.Second)}
	}
	wait := max(min(max(e.Now().Sub(errand.Made)/2, 2*time.Second), time.Hour), deal.RetryAfter(cause))
	if deal.IsPermanent(cause) {
		wait = time.Hour // the login, or the tenant's file: somebody has to mend it
	}
	e.Log.WarnContext(ctx, "what is to be done in the CRM beside the receipt has to wait", "in", wait.Round(time.Second), "err", cause)
	if errand.ID != 0 {
		errand.Problem, _ = connectors.Explain(cause)
		if err := e.Ledger.EndErrand(ctx, errand); err != nil && ctx.Err() == nil {
			e.Log.ErrorContext(ctx, "what happened could not be written down", "err", err)
		}
	}
	return deal.Outcome{Again: wait}
}

// errand does one of them. A record is not moved if something else became of the deal meanwhile, or if it speaks of a newer one;
// its timeline has room for all.
func (e *Engine) errand(ctx context.Context, s *deal.Sealing, errand *deal.Errand, all []deal.Errand) error {
	st, err := e.Ledger.Receipt(ctx, s.Tx)
	if err != nil {
		return err
	}
	if errand.Kind == deal.ErrandMove && (deal.Shown(s.Step, s.Condition, s.Reason) != errand.Status || st.Owner != s.Tx) {
		return e.endErrand(ctx, *errand, deal.ErrandOvertaken, "something else became of the deal, or its record speaks of a newer one")
	}
	t, err := e.tenant(ctx, s)
	if err != nil {
		return err
	}
	wait := e.lateAnswer(s, errand.Asked)
	if errand.Kind == deal.ErrandNote && wait.asks {
		errand.Asked = e.Now()
	}
	if err := e.Ledger.BeginErrand(ctx, *errand); err != nil {
		if errors.Is(err, deal.ErrStale) {
			return nil
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	if errand.Kind == deal.ErrandNote {
		return e.note(ctx, t, s, errand, all, wait)
	}
	return e.move(ctx, t, s, *errand, homes(s, all))
}

// note puts on the record's timeline what became of the deal. As with tasks, one that may still be made by an earlier request is
// only looked for.
func (e *Engine) note(ctx context.Context, t *Tenant, s *deal.Sealing, errand *deal.Errand, all []deal.Errand, wait lateAnswer) error {
	noter, able := t.CRM.(connectors.Noter)
	if !able {
		return e.endErrand(ctx, *errand, deal.ErrandRefused, "the connector cannot put notes on records")
	}
	n := deal.NoteOf(s, *errand, all)
	n.OnlyLook = wait.onlyLook
	id, err := noter.Note(ctx, s.Change.Ref, n)
	switch {
	case errors.Is(err, deal.ErrGone):
		return e.endErrand(ctx, *errand, deal.ErrandOvertaken, "the record is gone")
	case err != nil && deal.IsPermanent(err) && !connectors.IsLogin(err):
		why, cure := connectors.Explain(err)
		return e.endErrand(ctx, *errand, deal.ErrandRefused, fmt.Sprintf("that the deal is %s could not be noted: %s; %s", errand.Status, why, cure))
	case err != nil:
		if !n.OnlyLook && deal.Unsettled(err) == 0 && ctx.Err() == nil {
			errand.Asked = time.Time{} // nothing was made, and nothing will be
		}
		return fmt.Errorf("note that the deal is %s: %w", errand.Status, err)
	case id == "":
		return &taskWaitsError{wait.left}
	}
	return e.endErrand(ctx, *errand, deal.ErrandDone, fmt.Sprintf("the record's timeline says that the deal is %s: note %s", errand.Status, id))
}

func (e *Engine) endErrand(ctx context.Context, errand deal.Errand, fate deal.ErrandFate, outcome string) error {
	errand.Fate, errand.Outcome = fate, outcome
	if err := e.Ledger.EndErrand(context.WithoutCancel(ctx), errand); err != nil {
		return err
	}
	level := slog.LevelInfo
	if fate == deal.ErrandRefused {
		level = slog.LevelError
	}
	e.Log.Log(ctx, level, "an errand in the CRM has ended", "fate", fate, "outcome", outcome)
	return nil
}

// homes are the stages in which a record is still where it was sealed for: the one that it had entered, and those that we
// have moved it to since.
func homes(s *deal.Sealing, errands []deal.Errand) []string {
	stages := []string{s.Plan.Stage}
	for _, x := range errands {
		if x.Kind == deal.ErrandMove && x.Fate == deal.ErrandDone {
			stages = append(stages, x.Stage)
		}
	}
	return stages
}

// isHome reports whether a record is in one of the stages in which it is where it was sealed for.
func (e *Engine) isHome(ctx context.Context, s *deal.Sealing, stage string) (bool, error) {
	if stage == s.Plan.Stage || len(s.Plan.Moves) == 0 {
		return stage == s.Plan.Stage, nil
	}
	all, err := e.Ledger.Errands(ctx, s.Tx)
	return slices.Contains(homes(s, all), stage), err
}

// move moves the record on, if it is where the deal has left it. A try whose outcome nobody knows may have moved it, and
// somebody may have moved it back since: then its history is asked.
func (e *Engine) move(ctx context.Context, t *Tenant, s *deal.Sealing, errand deal.Errand, from []string) error {
	rule, err := e.watching(ctx, t, s.Change.Ref.Object, errand.Stage)
	if err != nil {
		return err
	}
	if rule != "" {
		return e.endErrand(ctx, errand, deal.ErrandRefused, fmt.Sprintf("the record was not moved to stage %q: rule %q watches that now, and would make a new deal of it", errand.Stage, rule))
	}
	mover, able := t.CRM.(connectors.Mover)
	if !able {
		return e.endErrand(ctx, errand, deal.ErrandRefused, "the connector cannot move records")
	}
	m := deal.Move{From: from, To: errand.Stage}
	if errand.Tries > 0 && !slices.Contains(from, errand.Stage) {
		m.Since = s.Change.At
	}
	stage, err := mover.Move(ctx, s.Change.Ref, m)
	switch {
	case err != nil && (errors.Is(err, deal.ErrGone) || deal.IsPermanent(err)) && !connectors.IsLogin(err):
		why, cure := connectors.Explain(err)
		return e.endErrand(ctx, errand, deal.ErrandRefused, fmt.Sprintf("the record could not be moved to stage %q: %s; %s", errand.Stage, why, cure))
	case err != nil:
		return fmt.Errorf("move the record to stage %q: %w", errand.Stage, err)
	case stage != errand.Stage:
		return e.endErrand(ctx, errand, deal.ErrandLeft, fmt.Sprintf("the record was not left in stage %q, or moved to it: it is in %q, where somebody has put it", errand.Stage, stage))
	}
	return e.endErrand(ctx, errand, deal.ErrandDone, fmt.Sprintf("the record is in stage %q", errand.Stage))
}

// watching is the rule that watches a stage now, empty for none. Rules may name theirs by its label.
func (e *Engine) watching(ctx context.Context, t *Tenant, object, stage string) (rule string, err error) {
	var rules []Rule
	for _, r := range t.Rules {
		if r.Watch.Object == object {
			rules = append(rules, Rule{Watch: r.Watch})
		}
	}
	if rules, err = ResolveStages(ctx, t.CRM, rules); err != nil {
		return "", fmt.Errorf("see which stages are watched: %w", err)
	}
	for _, r := range rules {
		if r.Watch.Stage == stage {
			return r.Watch.Rule, nil
		}
	}
	return "", nil
}
