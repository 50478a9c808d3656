package engine

import (
	"context"
	"encoding/json"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// report waits until the record shows what is true.
func (r *run) report(ctx context.Context) error {
	if err := r.begin(ctx, deal.Intent{What: "report"}); err != nil {
		return err
	}
	err := r.call(ctx, "write-back", crmLimit, func(ctx context.Context) error { return r.tell(ctx, r.s) })
	if err != nil {
		return err
	}
	return r.advance(ctx, "reported", deal.Reported, deal.Entry{What: "reported", Why: "the record shows " + string(deal.ShownAs(r.s.Step, r.s.Condition))})
}

// finish lets go of the staged bytes: the archive has them.
func (r *run) finish(ctx context.Context) error {
	if err := r.Files.Unstage(ctx, r.s.Tx); err != nil {
		return err
	}
	err := r.advance(ctx, "done", deal.Done, deal.Entry{What: "done"})
	if err == nil {
		r.Log.InfoContext(ctx, "done", "level", r.s.Facts.Level, "took", r.s.Facts.Times[deal.Done].Sub(r.s.Noticed).Round(time.Millisecond))
	}
	return err
}

// tellJob brings the record up to date outside of the flow: queued, held, failed. It never gives up, because nothing else
// would tell: the wait grows with the time that has passed, up to an hour.
func (e *Engine) tellJob(ctx context.Context, s *deal.Sealing) deal.Outcome {
	err := e.tell(ctx, s)
	if err == nil || ctx.Err() != nil {
		return deal.Outcome{}
	}
	wait := min(max(e.Now().Sub(s.Updated)/2, 2*time.Second), time.Hour)
	if deal.IsPermanent(err) {
		wait = time.Hour // somebody has to mend the field, the rule or the login
	}
	wait = max(wait, deal.RetryAfter(err))
	e.Log.WarnContext(ctx, "the CRM could not be told", "in", wait.Round(time.Second), "err", err)
	return deal.Outcome{Again: wait}
}

// tell sends the newest receipt of the record that s is about, one at a time per record, whichever sealing owns it.
func (e *Engine) tell(ctx context.Context, s *deal.Sealing) error {
	st, err := e.Ledger.Receipt(ctx, s.Tx)
	if err != nil || !st.Due() {
		return err
	}
	unlock := e.records.lock(string(st.Owner)) // one owner per record, whatever the record was called before a merge
	defer unlock()
	if st, err = e.Ledger.Receipt(ctx, s.Tx); err != nil || !st.Due() {
		return err
	}
	if s, err = e.Ledger.Load(ctx, st.Owner); err != nil { // after the sequence, so that it is never older than that
		return err
	}
	t, err := e.tenant(ctx, s)
	if err != nil {
		return err
	}
	head, err := e.Ledger.TreeHead(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	if err := t.CRM.WriteBack(ctx, s.Change.Ref, receipt(s, st.Sequence, head)); err != nil {
		return err
	}
	return e.Ledger.Told(ctx, s.Tx, st.Sequence)
}

// receipt says what the record should show of s.
func receipt(s *deal.Sealing, sequence int64, head deal.TreeHead) deal.Receipt {
	w, status := s.Plan.WriteBack, deal.ShownAs(s.Step, s.Condition)
	out := deal.Receipt{Tx: s.Tx, Sequence: sequence, SequenceField: w.Audit}
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
	} else {
		add(w.SignedAt, nil)
		add(w.URL, nil)
	}
	if w.Audit != "" {
		b, err := json.Marshal(auditRecord(s, status, sequence, head))
		if err == nil {
			add(w.Audit, string(b))
		}
	}
	return out
}

func auditRecord(s *deal.Sealing, status deal.Status, sequence int64, head deal.TreeHead) deal.AuditRecord {
	a := deal.AuditRecord{Tx: s.Tx, Sequence: sequence, Status: status, TreeSize: head.Size, TreeRoot: head.Root}
	if s.Condition == deal.Held || s.Condition == deal.Dead || s.Condition == deal.Ended {
		a.Reason = s.Reason
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
	return a
}
