package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// report waits until the record shows what is true.
func (r *run) report(ctx context.Context) error {
	if err := r.begin(ctx, deal.Intent{What: "report"}); err != nil {
		return err
	}
	err := r.ask(ctx, "write-back", crmLimit, func(ctx context.Context) error { return r.tell(ctx, r.s) })
	if err != nil {
		return err
	}
	return r.advance(ctx, "reported", deal.Reported, deal.Entry{What: "reported", Why: "the record shows " + string(deal.Shown(r.s.Step, r.s.Condition, r.s.Reason))})
}

// tellAway is tell in the midst of a step.
func (r *run) tellAway(ctx context.Context) error {
	defer r.floor.away(r.s.Tenant)()
	return r.tell(ctx, r.s)
}

// finish lets go of the staged bytes: the archive has them.
func (r *run) finish(ctx context.Context) error {
	if err := r.Files.Unstage(ctx, r.s.Tx); err != nil {
		return err
	}
	err := r.advance(ctx, "done", deal.Done, deal.Entry{What: "done", Events: []deal.Event{{Type: "envelope.completed", Data: completed(r.s)}}})
	if err == nil {
		r.Log.InfoContext(ctx, "done", "level", r.s.Facts.Level, "took", r.s.Facts.Times[deal.Done].Sub(r.s.Noticed).Round(time.Millisecond))
	}
	return err
}

// completed is what others are told of a deal that is done.
func completed(s *deal.Sealing) map[string]string {
	data := withLevel(map[string]string{}, s.Facts.Level)
	if s.Facts.Contract != nil {
		data["sha256"] = s.Facts.Contract.SHA256
	}
	if s.Facts.Attachment != nil && s.Facts.Attachment.URL != "" {
		data["url"] = s.Facts.Attachment.URL
	}
	return data
}

// withLevel adds a level to what others are told. A vendor's signature may have reached none.
func withLevel(data map[string]string, level string) map[string]string {
	if level != "" {
		data["level"] = level
	}
	return data
}

// tellJob brings the record up to date outside of the flow: queued, held, failed. It never gives up, because nothing else
// would tell: the wait grows with the time that has passed, up to an hour.
func (e *Engine) tellJob(ctx context.Context, s *deal.Sealing) deal.Outcome {
	err := e.recallDoubt(ctx, s)
	if err == nil {
		err = e.tell(ctx, s)
	}
	if ctx.Err() != nil { // the next start goes on with the job, and knows of a doubt by nothing else
		return deal.Outcome{Again: time.Second}
	}
	if err == nil {
		return deal.Outcome{Again: e.doubts.wait(recordOf(s), e.Now())}
	}
	wait := min(max(e.Now().Sub(s.Updated)/2, 2*time.Second), time.Hour)
	if deal.IsPermanent(err) {
		wait = time.Hour // somebody has to mend the field, the rule or the login
		e.tellPeople(ctx, s, err)
	}
	wait = max(wait, deal.RetryAfter(err))
	var taskWaits *taskWaitsError
	if errors.As(err, &taskWaits) {
		return deal.Outcome{Again: taskWaits.left}
	}
	e.Log.WarnContext(ctx, "the CRM could not be told", "in", wait.Round(time.Second), "err", err)
	return deal.Outcome{Again: wait}
}

// tellPeople has those told who can mend what keeps the record from showing what is true.
func (e *Engine) tellPeople(ctx context.Context, s *deal.Sealing, cause error) {
	reason, _ := connectors.Explain(cause)
	st, err := e.Ledger.Receipt(ctx, s.Tx)
	if err == nil && st.Due() {
		err = e.Ledger.Refused(ctx, st.Owner, st.Sequence, reason)
	}
	if err != nil && ctx.Err() == nil {
		e.Log.ErrorContext(ctx, "it could not be written down that the CRM takes no receipt", "err", err)
	}
}

// recallDoubt takes up the doubt of a process before this one: a job that has nothing to tell was left waiting for the time
// at which a late write can be settled. The job is durable, the doubt is not.
func (e *Engine) recallDoubt(ctx context.Context, s *deal.Sealing) error {
	st, err := e.Ledger.Receipt(ctx, s.Tx)
	if err != nil || st.Sequence == 0 || st.Due() || st.Sent >= e.started.UnixMilli() {
		return err
	}
	if record := recordOf(s); e.doubts.wait(record, e.Now()) == 0 {
		e.doubts.raise(record, e.started)
	}
	return nil
}

// tell sends the newest receipt of the record that s is about, one at a time per record, whichever sealing owns it. Where
// an earlier one may have arrived late, it sends the newest once more: the connector looks at the record first.
func (e *Engine) tell(ctx context.Context, s *deal.Sealing) error {
	st, err := e.Ledger.Receipt(ctx, s.Tx)
	if err != nil || !st.Due() && !e.doubts.due(recordOf(s), e.Now()) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	unlock, err := e.records.lock(ctx, string(st.Owner)) // one owner per record, whatever the record was called before a merge
	if err != nil {
		return err
	}
	defer unlock()
	if st, err = e.Ledger.Receipt(ctx, s.Tx); err != nil {
		return err
	}
	if s, err = e.Ledger.Load(ctx, st.Owner); err != nil { // after the sequence, so that it is never older than that
		return err
	}
	if !st.Due() && !e.doubts.due(recordOf(s), e.Now()) {
		return nil
	}
	return e.send(ctx, s, st)
}

func (e *Engine) send(ctx context.Context, s *deal.Sealing, st deal.ReceiptState) error {
	t, err := e.tenant(ctx, s)
	if err != nil {
		return err
	}
	head, err := e.Ledger.TreeHead(ctx)
	if err != nil {
		return err
	}
	record, again := recordOf(s), !st.Due()
	if !again && e.mayBeUnderWay(s, st) {
		e.doubts.raise(record, e.started)
	}
	err = t.CRM.WriteBack(ctx, s.Change.Ref, receipt(s, st.Sequence, head, e.Ledger.Instance()))
	switch {
	case again && err == nil, errors.Is(err, deal.ErrGone):
		e.doubts.settle(record)
	case err != nil && !deal.IsPermanent(err):
		e.doubts.raise(record, e.Now())
	}
	if err != nil {
		return err
	}
	if !again {
		if err := e.task(ctx, t, s, st.Tasking); err != nil {
			return err
		}
	}
	return e.Ledger.Told(ctx, s.Tx, st.Sequence, e.doubts.wait(record, e.Now()))
}

// mayBeUnderWay reports whether the process before this one may have ended while it told the record something, which need
// not be what is to be told now. What was wanted then is not known any more; that the record was known then is.
func (e *Engine) mayBeUnderWay(s *deal.Sealing, st deal.ReceiptState) bool {
	started := e.started.UnixMilli()
	toldSince := st.Sent >= started
	return !toldSince && (st.Sent > 0 || st.Sequence < started || s.Noticed.Before(e.started))
}

// lateWrite is how long after it was given up a request may still reach a record: it waits in a queue of the CRM's, and
// would overwrite what was written since.
const lateWrite = 10 * time.Minute

// doubts are the records to which a request may still be on its way. The zero value is ready.
type doubts struct {
	mu    sync.Mutex
	since map[string]time.Time
}

func recordOf(s *deal.Sealing) string { return string(s.Account) + "/" + s.Change.Ref.String() }

func (d *doubts) raise(record string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.since == nil {
		d.since = map[string]time.Time{}
	}
	if now.After(d.since[record]) {
		d.since[record] = now
	}
}

func (d *doubts) settle(record string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.since, record)
}

// due reports whether there was a doubt about the record that can now be settled.
func (d *doubts) due(record string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	since, ok := d.since[record]
	return ok && !now.Before(since.Add(lateWrite))
}

// wait is how long it takes until a doubt about the record can be settled, 0 if there is none.
func (d *doubts) wait(record string, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	since, ok := d.since[record]
	if !ok {
		return 0
	}
	return max(since.Add(lateWrite).Sub(now), time.Second)
}

// receipt says what the record should show of s, in the name of a database.
func receipt(s *deal.Sealing, sequence int64, head deal.TreeHead, by string) deal.Receipt {
	w, status := s.Plan.WriteBack, deal.Shown(s.Step, s.Condition, s.Reason)
	out := deal.Receipt{Tx: s.Tx, Sequence: sequence, SequenceField: w.Audit}
	if status == deal.StatusQueued || s.Facts.Elsewhere != "" || strings.HasPrefix(s.Reason, "["+holdElsewhere+"] ") { // the last: before Elsewhere was kept
		out.Claim = by
	}
	add := func(name string, v any) {
		if name != "" {
			out.Fields = append(out.Fields, deal.Field{Name: name, Value: v})
		}
	}
	add(w.TransactionID, string(s.Tx))
	add(w.Status, w.Word(status))
	if status == deal.StatusSigned {
		add(w.SignedAt, s.Facts.SealedAt)
		add(w.URL, s.Facts.Attachment.URL)
		add(w.Drift, textOrNil(w.DriftWords(s.Facts.Drift)))
	} else {
		add(w.SignedAt, nil)
		add(w.URL, nil)
		add(w.Drift, nil)
	}
	var due any
	if at := s.Facts.FollowUp; !at.IsZero() && status.Undecided() {
		due = at
	}
	add(w.FollowUp, due)
	if w.Audit != "" {
		b, err := json.Marshal(auditRecord(s, status, sequence, head, by))
		if err == nil {
			add(w.Audit, string(b))
		}
	}
	return out
}

func textOrNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func auditRecord(s *deal.Sealing, status deal.Status, sequence int64, head deal.TreeHead, by string) deal.AuditRecord {
	a := deal.AuditRecord{Tx: s.Tx, Sequence: sequence, Status: status, TreeSize: head.Size, TreeRoot: head.Root, By: by}
	if s.Condition == deal.Held || s.Condition == deal.Dead || s.Condition == deal.Ended {
		a.Reason = s.Reason
		if s.Private.Declined != "" {
			a.Reason += ": " + s.Private.Declined // which the CRM may know, and no log
		}
	}
	if status != deal.StatusSigned {
		return a
	}
	at := s.Facts.SealedAt
	a.SignedAt, a.Level = &at, s.Facts.Level
	a.Archive = "dealseal:" + string(s.Tx) + "/" + s.Facts.Contract.SHA256
	if c := s.Facts.Cert; c != nil {
		a.Fingerprint, a.Serial, a.Issuer, a.Digest = c.SHA256, c.Serial, c.Issuer, c.Digest
	}
	if hasTwo(s) && s.Facts.Second.Cert != nil {
		a.Second = s.Facts.Second.Cert.SHA256
	}
	return a
}
