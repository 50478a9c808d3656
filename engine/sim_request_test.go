package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// simRequest is a contract that a program asks for, as the program knows it. It asks with the same key again until it is
// answered, and now and then although it was.
type simRequest struct {
	deal.Request
	crm    deal.Kind
	deal   *simDeal
	record string // what it calls the deal's record, whatever that was merged into since
	taken  deal.TxID
	// unsure is a request that was given up once before there was an answer, or taken by a state that a backup has replaced:
	// it may have been taken in, or not. forgotten is what it was taken as by such states: the CRM may show it for good.
	unsure    bool
	forgotten []deal.TxID
}

// requests writes programs that ask for contracts: of a deal that people move about, often at that very time, or of one that
// they never touch before.
func (a *author) requests() {
	if !a.chance(50) {
		return
	}
	crm, n := pick(a, deal.Salesforce, deal.HubSpot), a.IntN(3)
	at := a.within(troubleTime / 2)
	for _, e := range a.events {
		if e.Verb == doWin && e.CRM == crm && e.Deal == n && a.chance(70) {
			at = max(0, e.At+pick(a, -a.within(time.Minute), a.within(10*time.Second), a.within(10*time.Minute)))
		}
	}
	for key := range pick(a, 1, 1, 2) {
		for range 1 + a.IntN(3) {
			a.add(simEvent{At: at, Verb: doRequest, CRM: crm, Deal: n, With: key, For: time.Second + a.within(2*time.Minute)})
			at += pick(a, 0, a.within(time.Minute), a.within(troubleTime/3))
		}
	}
	if a.chance(30) {
		a.add(simEvent{At: at + a.within(10*time.Minute), Verb: pick(a, doWin, doLeave, doEdit), CRM: crm, Deal: n, With: a.IntN(1000)})
	}
}

// someoneAsks lets a program ask for a contract until it is answered.
func (w *simWorld) someoneAsks(e simEvent) error {
	w.people <- struct{}{}
	d, err := w.dealOf(e.CRM, e.Deal)
	<-w.people
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s order %d of deal %d", e.CRM, e.With, e.Deal)
	w.mu.Lock()
	r := w.requests[key]
	if r == nil {
		r = &simRequest{crm: e.CRM, deal: d, record: d.id, Request: deal.Request{Key: key, Asked: "the memo of " + d.id, Who: "api:erp (0)"}}
		w.requests[key] = r
	}
	w.mu.Unlock()
	go func() {
		for !w.ask(r, e.For) {
			if time.Since(w.start) > troubleTime+calm/2 {
				w.violation("nobody answers the request %q", key)
				return
			}
			time.Sleep(time.Minute) // of the bubble's clock: nobody waits
		}
	}()
	return nil
}

// ask asks once, and reports whether there was an answer.
func (w *simWorld) ask(r *simRequest, patience time.Duration) (answered bool) {
	in := w.daemon()
	if in == nil || in.gate() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(in.life, patience)
	defer cancel()
	tenant := map[deal.Kind]deal.TenantID{deal.Salesforce: acme, deal.HubSpot: contoso}[r.crm]
	var tx deal.TxID
	err := errDead
	in.apart(func() { tx, err = in.request(ctx, tenant, ruleID, r.record, r.Request) })
	var refused *deal.RequestError
	isRefused := errors.As(err, &refused)
	if isRefused && refused.Conflict && in.gate() == nil && !w.isAtWork(in, r) {
		w.violation("the request %q was refused beside a contract that there is not: %v", r.Key, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case in.gate() != nil || ctx.Err() != nil || err != nil && !isRefused:
		r.unsure = true
		return false
	case isRefused && r.taken != "":
		w.wrong = append(w.wrong, fmt.Sprintf("the request %q was taken as %s, and then refused: %v", r.Key, r.taken, err))
	case !isRefused && r.taken != "" && tx != r.taken:
		w.wrong = append(w.wrong, fmt.Sprintf("the request %q was taken as %s, and then as %s", r.Key, r.taken, tx))
	case !isRefused:
		r.taken = tx
	}
	fmt.Fprintf(&w.log, "%12s  the request %q is answered: %s %v\n", time.Since(w.start).Round(time.Millisecond), r.Key, tx, err)
	return true
}

// isAtWork reports whether the ledger has a transaction of the record that a request is about.
func (w *simWorld) isAtWork(in *incarnation, r *simRequest) bool {
	for _, s := range in.everything() {
		if d := w.dealByID(s.Ref.ID); d != nil && d == r.deal.now() {
			return true
		}
	}
	return false
}

// unknownAgain is called, with w.mu held, once a state has been restored that knows some requests only: whoever had asked for
// the others has to ask again.
func (w *simWorld) unknownAgain(known map[deal.TxID]bool) {
	for _, r := range w.requests {
		if r.taken != "" && !known[r.taken] {
			r.forgotten = append(r.forgotten, r.taken)
			r.taken, r.unsure = "", true
		}
	}
}

// wasForgotten reports whether a transaction was of a request about the record, in a state that a backup has replaced: nothing of
// what is in its place knows of it, unless whoever had asked for it has asked again.
func (w *simWorld) wasForgotten(tx deal.TxID, d *simDeal) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if r.deal.now() == d && slices.Contains(r.forgotten, tx) {
			return true
		}
	}
	return false
}

// simBooks are the store's, as one incarnation sees them, which also wake the queue.
type simBooks struct {
	*store.Store
	in *incarnation
}

func (b simBooks) Requested(ctx context.Context, tenant deal.TenantID, q deal.Request) (deal.TxID, error) {
	if err := b.in.gate(); err != nil {
		return "", err
	}
	return b.Store.Requested(ctx, tenant, q)
}

// Request commits each request twice: the second time it is known.
func (b simBooks) Request(ctx context.Context, n deal.Noticing, q deal.Request) (tx deal.TxID, err error) {
	err = b.in.commit(func() error {
		if tx, err = b.Store.Request(ctx, n, q); err != nil {
			return err
		}
		b.in.w.know([]deal.TxID{tx})
		if again, err := b.Store.Request(ctx, n, q); err == nil && again != tx {
			b.in.w.violation("a request was taken in as %s and as %s", tx, again)
		}
		b.in.moved(tx)
		return nil
	})
	return tx, err
}

// mustBeAlone: where nobody has said otherwise, the key makes no contract of a record beside one that its rule has made of it
// or, if that makes several, is making because a program has asked.
func (in *incarnation) mustBeAlone(tx deal.TxID) {
	w := in.w
	sl, err := in.store.Load(context.Background(), tx)
	if err != nil || len(sl.Facts.Released) > 0 {
		return
	}
	for _, s := range in.everything() {
		if s.Tx == tx || s.Account != sl.Account || s.Ref.ID != sl.Change.Ref.ID {
			continue
		}
		other, err := in.store.Load(context.Background(), s.Tx)
		if err != nil || !other.Facts.Signature || len(other.Facts.Released) > 0 {
			continue
		}
		beside := other.Step != deal.Done && other.Condition != deal.Ended && other.Change.Requested() != sl.Change.Requested()
		if w.script.ReEntry != "seal" || beside {
			w.violation("%s: the key was used beside %s, which is %s at %q, for the record %s", tx, s.Tx, s.Condition, s.Step, s.Ref.ID)
		}
	}
}

// everyRequestIsKept: each is one sealing, or was refused and is none. sealings counts those of each deal and occurrence, and
// loses what belongs to a request.
func (w *simWorld) everyRequestIsKept(sealings map[simOccurrence]int) {
	for _, r := range w.requests {
		is := simOccurrence{r.deal.now(), r.Occurrence()}
		n := sealings[is]
		delete(sealings, is)
		switch {
		case n > 1:
			w.violation("the request %q has %d sealings", r.Key, n)
		case n == 0 && r.taken != "":
			w.violation("the request %q was taken as %s, and is lost", r.Key, r.taken)
		case n == 1 && r.taken == "" && !r.unsure:
			w.violation("the request %q was refused, and has a sealing", r.Key)
		}
		if n := w.contractsOf(r); n > 1 {
			w.violation("the request %q has %d contracts on its record", r.Key, n)
		}
	}
}

// contractsOf counts those on a record that are a request's, under any name that the record has had.
func (w *simWorld) contractsOf(r *simRequest) (n int) {
	account, object := w.account(r.crm)
	names := map[deal.TxID]bool{}
	for _, d := range w.deals[r.crm] {
		if d.now() != r.deal.now() {
			continue
		}
		for ; d != nil; d = d.into {
			names[deal.NewTxID(account, deal.Ref{Object: object, ID: d.id}, ruleID, r.Occurrence())] = true
		}
	}
	for _, m := range w.markers(r.crm, r.deal.now()) {
		if tx, role, ok := deal.ParseMarker(m); ok && role == deal.RoleContract && names[tx] {
			n++
		}
	}
	return n
}

// isMoved reports whether a record may have been moved on from where people have put it, because of a request of that time, or
// of one that was carried out by a state that a backup has replaced since.
func (w *simWorld) isMoved(in *incarnation, d *simDeal, stage string) bool {
	for _, r := range w.requests {
		if r.unsure && r.deal.now() == d {
			return true
		}
	}
	for _, s := range in.everything() {
		if w.dealByID(s.Ref.ID) != d {
			continue
		}
		if full, err := in.store.Load(context.Background(), s.Tx); err == nil && full.Change.Requested() && strings.EqualFold(full.Plan.Stage, stage) {
			return true
		}
	}
	return false
}
