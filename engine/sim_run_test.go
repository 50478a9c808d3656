package engine

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	portal "github.com/dealseal/dealseal/mocks/crm/hubspot"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/store"
)

// supervise starts the daemon again whenever it has ended, until the run is over.
func (w *simWorld) supervise() {
	for {
		in, err := w.begin()
		if err != nil {
			w.violation("the daemon does not start: %v", err)
			return
		}
		w.mu.Lock()
		w.up, w.down = in, 0
		over := w.over
		w.mu.Unlock()
		if over {
			in.stop()
		}
		<-in.ended
		w.mu.Lock()
		w.up = nil
		over, down, goOn := w.over, w.down, w.meanwhile
		w.meanwhile = false
		w.mu.Unlock()
		if over {
			return
		}
		time.Sleep(down / 2)
		if goOn {
			w.editAll()
		}
		time.Sleep(down / 2)
	}
}

// play does what the script says and puts everything in order at its end.
func (w *simWorld) play() {
	for _, e := range w.script.Events {
		time.Sleep(time.Until(w.start.Add(e.At)))
		w.trace("%s", e)
		if err := w.happen(e); err != nil {
			w.violation("%s: %v", e, err)
		}
	}
	time.Sleep(time.Until(w.start.Add(troubleTime)))
	w.trace("nothing goes wrong any more")
	w.org.ClearFaults()
	w.portal.ClearFaults()
	w.setLag(0)
	w.portal.SetIndexDelay(portal.Delay{})
	w.org.SetUsage(0)
	for _, s := range []pki.Service{pki.ServiceTSA, pki.ServiceOCSP, pki.ServiceCRL} {
		w.authority.SetFault(s, "", 0)
	}
	w.key.fail(0, nil)
	w.mu.Lock()
	w.disk, w.crash, w.slow, w.double = simEvent{}, simEvent{}, simEvent{}, 0
	w.sever, w.deaf = map[deal.Kind]simEvent{}, map[deal.Kind]time.Time{}
	w.mu.Unlock()
}

func (w *simWorld) happen(e simEvent) error {
	switch e.Verb {
	case doFault:
		return w.setFault(e)
	case doClear:
		if e.CRM == deal.HubSpot {
			w.portal.ClearFaults()
		} else {
			w.org.ClearFaults()
		}
	case doDelay:
		if e.CRM == deal.HubSpot {
			w.portal.SetIndexDelay(portal.Delay{Min: e.For, Max: e.For})
		} else {
			w.setLag(e.For)
		}
	case doUsage:
		w.org.SetUsage(e.With)
	case doEvidence:
		w.authority.SetFault(pki.Service(e.Call), pki.Fault(e.What), e.With)
	case doTSA:
		w.authority.SetFault(pki.ServiceTSA, pki.Fault(e.What), e.With)
	case doKey:
		w.key.fail(e.With, &downError{wait: e.For})
	case doClock, doDisk, doDouble, doCrash, doSever, doSlow:
		w.arm(e)
	case doRestore:
		return w.restore(e)
	case doPush:
		w.push(e)
	case doRequest:
		return w.someoneAsks(e)
	case doKill, doStop, doOperate, doCheckpoint, doBackup:
		w.upon(e)
	default:
		return w.person(e)
	}
	return nil
}

func (w *simWorld) arm(e simEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e.Verb {
	case doClock:
		w.skew[e.CRM] += e.For
		w.clocked[e.CRM] = true
	case doDisk:
		w.disk = e
	case doDouble:
		w.double = e.With
	case doCrash:
		w.crash = e
	case doSever:
		w.sever[e.CRM] = e
	case doSlow:
		w.slow = e
	}
}

// setLag lets what people do in Salesforce be seen only so much later, when its transaction ends.
func (w *simWorld) setLag(d time.Duration) {
	w.org.SetCommitDelay(d)
	w.mu.Lock()
	w.lag[deal.Salesforce] = d
	w.mu.Unlock()
}

func (w *simWorld) setFault(e simEvent) (err error) {
	if e.CRM == deal.HubSpot {
		f := portal.Fault{Kind: portal.Kind(e.Call), Effect: portal.Effect(e.What), Times: e.With, Skip: e.Skip}
		if f.Effect == portal.EffectSlow {
			f.Delay = e.For
		}
		if f.Effect == portal.EffectMigrating {
			f.RetryAfter = e.For
		}
		_, err = w.portal.SetFault(f)
		return err
	}
	f := mock.Fault{Kind: mock.Kind(e.Call), Effect: mock.Effect(e.What), Times: e.With, Skip: e.Skip}
	if f.Effect == mock.Slow {
		f.Delay = e.For
	}
	_, err = w.org.SetFault(f)
	return err
}

// upon does something with the daemon that is up, if one is.
func (w *simWorld) upon(e simEvent) {
	w.mu.Lock()
	in := w.up
	if in != nil && (e.Verb == doKill || e.Verb == doStop) {
		w.down = e.For
	}
	w.mu.Unlock()
	if in == nil {
		return
	}
	switch e.Verb {
	case doKill:
		in.kill("killed")
		<-in.ended
	case doStop:
		in.stop()
		<-in.ended
	case doOperate:
		in.apart(func() { in.operate(uint64(e.With)) })
	case doCheckpoint:
		in.apart(func() { in.keepCheckpoint() })
	case doBackup:
		in.apart(func() { in.backUp() })
	}
}

// apart runs do in a goroutine that may die at a point.
func (in *incarnation) apart(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	<-done
}

func (in *incarnation) keepCheckpoint() {
	if in.gate() != nil {
		return
	}
	note, err := in.store.Checkpoint(in.life)
	if err != nil || in.gate() != nil {
		return
	}
	in.w.mu.Lock()
	in.w.checked = append(in.w.checked, note)
	in.w.mu.Unlock()
}

// operate lets a person look through all deals and decide about some of them.
func (in *incarnation) operate(salt uint64) {
	for _, s := range in.everything() {
		h := fnv.New64a()
		fmt.Fprint(h, salt, s.Tx)
		n := h.Sum64()
		if n%3 != 0 {
			continue
		}
		in.decide(s, []string{"retry", "release", "release", "retry", "drop", "prepare"}[n/3%6])
	}
}

// decide does what a person decides about a deal, as far as it is allowed.
func (in *incarnation) decide(s store.Summary, what string) {
	if in.gate() != nil {
		return
	}
	ctx, tx, hold := in.life, s.Tx, HoldName(s.Reason, in.store.Epoch())
	_, under := in.steps.now(tx)
	var err error
	switch what {
	case "retry":
		err = in.store.Retry(ctx, tx, "alice", "simulated")
	case "release":
		doubted := strings.HasPrefix(hold, holdRestored) || strings.HasPrefix(hold, holdMissing) || strings.HasPrefix(hold, holdElsewhere)
		if doubted && time.Since(in.w.start) < troubleTime {
			return // a careful person waits until nothing is on its way any more
		}
		if err = in.store.Release(ctx, tx, hold, "alice", "simulated"); err == nil && doubted {
			in.w.forget(tx)
		}
	case "drop":
		err = in.store.Drop(ctx, tx, "alice", "simulated")
	case "prepare":
		if err = in.store.PrepareAgain(ctx, tx, "alice", "simulated"); err == nil {
			in.w.forget(tx)
		}
	}
	if err == nil && what != "retry" && in.steps.isUnderWay(tx, under) { // a retry may be of the receipt alone
		in.w.violation("%s: a person's decision to %s came between an intent and what became of it", tx, what)
	}
	if err == nil {
		in.w.trace("a person decides: %s %s, which was %s at %s", what, tx, s.Condition, s.Step)
	} else if refused := (*store.RefusedError)(nil); !errors.As(err, &refused) && !errors.Is(err, deal.ErrStale) && in.gate() == nil && ctx.Err() == nil {
		in.w.violation("%s of %s, which was %s at %s: %v", what, tx, s.Condition, s.Step, err)
	}
	in.moved(tx)
}

// forget lets a transaction have another digest: a person has answered for the one that was. Whether that is used or another,
// it had one.
func (w *simWorld) forget(tx deal.TxID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.digests[tx] = map[string]bool{}
	delete(w.seconds, tx)
}

// person does what salespeople do to a deal, which begins to exist when it is first touched.
func (w *simWorld) person(e simEvent) error {
	w.people <- struct{}{}
	defer func() { <-w.people }()
	d, err := w.dealOf(e.CRM, e.Deal)
	if err != nil || d.gone {
		return err
	}
	switch e.Verb {
	case doWin:
		return w.move(e.CRM, d, map[deal.Kind]string{deal.Salesforce: stageWon, deal.HubSpot: "closedwon"}[e.CRM])
	case doLeave:
		return w.move(e.CRM, d, map[deal.Kind]string{deal.Salesforce: stageLost, deal.HubSpot: "closedlost"}[e.CRM])
	case doEdit:
		return w.edit(e.CRM, d, e.With)
	case doQuote:
		return w.addQuote(e.CRM, d, e.With)
	case doDelete:
		w.excuse(d)
		d.gone = true
		if e.CRM == deal.HubSpot {
			return w.portal.Delete(d.id)
		}
		return w.org.Delete(d.id)
	case doMerge:
		return w.merge(d, e.With)
	}
	return fmt.Errorf("no verb %q", e.Verb)
}

// push wakes the daemon that is up with the deal's record of now. While none is, the push is lost.
func (w *simWorld) push(e simEvent) {
	w.people <- struct{}{}
	record := "4711" // of no deal
	if e.Deal < len(w.deals[e.CRM]) {
		record = w.deals[e.CRM][e.Deal].id
	}
	<-w.people
	tenant := map[deal.Kind]deal.TenantID{deal.Salesforce: acme, deal.HubSpot: contoso}[e.CRM]
	_, object := w.account(e.CRM)
	if in := w.daemon(); in != nil && in.gate() == nil {
		in.wake(tenant, deal.Ref{Object: object, ID: record})
	}
}

func (w *simWorld) dealOf(crm deal.Kind, n int) (*simDeal, error) {
	for len(w.deals[crm]) <= n {
		d := &simDeal{out: w.script.Filtered && len(w.deals[crm])%2 == 1, stage: stageOpen}
		var err error
		if crm == deal.HubSpot {
			d.stage = "appointmentscheduled"
			d.id, err = w.portal.CreateDeal(map[string]string{"dealname": canary, "pipeline": "default", "dealstage": d.stage})
		} else {
			d.id, err = w.opportunity()
		}
		if err == nil {
			err = w.addQuote(crm, d, 1)
		}
		if err == nil && d.out {
			err = w.markAsOut(crm, d)
		}
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		w.deals[crm] = append(w.deals[crm], d)
		w.mu.Unlock()
		w.trace("  %s deal %d is %s", crm, len(w.deals[crm])-1, d.id)
	}
	return w.deals[crm][n].now(), nil
}

func (w *simWorld) markAsOut(crm deal.Kind, d *simDeal) error {
	if crm == deal.HubSpot {
		return w.portal.SetProperty(d.id, "amount", leftOut)
	}
	return w.org.Update(d.id, map[string]any{"NextStep": leftOut})
}

// opportunity is world.deal for a script: its errors are the script's.
func (w *simWorld) opportunity() (id string, err error) {
	if id, err = w.org.CreateOpportunity(map[string]any{"Name": canary, "StageName": stageOpen}); err != nil {
		return "", err
	}
	account, err := w.org.CreateAccount(map[string]any{"Name": canary, "BillingCity": "Gotham"})
	if err == nil {
		err = w.org.Update(id, map[string]any{"AccountId": account})
	}
	if err == nil {
		_, err = w.org.AddLineItem(id, map[string]any{"Quantity": 3, "UnitPrice": 1234.5, "Product2": map[string]any{"Name": canary}})
	}
	return id, err
}

func (w *simWorld) addQuote(crm deal.Kind, d *simDeal, n int) (err error) {
	if crm == deal.HubSpot {
		_, err = w.portal.AddFile(d.id, fmt.Sprintf("Quote %d.pdf", n), document("", n))
	} else {
		_, err = w.org.AddFile(d.id, fmt.Sprintf("Quote %d.pdf", n), document("", n))
	}
	if err == nil && !w.fromTemplate(crm) {
		w.changed(crm, d)
	}
	return err
}

func (w *simWorld) edit(crm deal.Kind, d *simDeal, n int) (err error) {
	if crm == deal.HubSpot {
		return w.portal.SetProperty(d.id, "dealname", fmt.Sprint(canary, n))
	}
	if err = w.org.Update(d.id, map[string]any{"Name": fmt.Sprint(canary, n)}); err == nil && w.fromTemplate(crm) {
		w.changed(crm, d)
	}
	return err
}

func (w *simWorld) fromTemplate(crm deal.Kind) bool {
	return crm == deal.Salesforce && w.script.Template
}

// changed remembers when what goes into a deal's document did. Where the CRM's clock was set, a newer file may look older.
func (w *simWorld) changed(crm deal.Kind, d *simDeal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.clocked[crm] {
		d.changed = time.Now().Add(w.lag[crm])
	}
}

// editAll is what people do while no daemon sees it.
func (w *simWorld) editAll() {
	w.people <- struct{}{}
	defer func() { <-w.people }()
	w.trace("people go on while no daemon runs")
	for crm, deals := range w.deals {
		for _, d := range deals {
			if d.gone || d.into != nil {
				continue
			}
			n := 1000 + int(time.Since(w.start)/time.Second)
			if err := errors.Join(w.edit(crm, d, n), w.addQuote(crm, d, n)); err != nil {
				w.violation("edit %s: %v", d.id, err)
			}
		}
	}
}

// move moves a deal, and remembers its entry into the stage that is watched by the CRM's own name for it.
func (w *simWorld) move(crm deal.Kind, d *simDeal, stage string) error {
	if w.stageOf(crm, d) == stage {
		return nil
	}
	time.Sleep(2 * time.Second) // people are no faster, and Salesforce's stamps no finer
	if crm == deal.HubSpot {
		if err := w.portal.MoveStage(d.id, stage); err != nil {
			return err
		}
	} else if err := w.org.MoveStage(d.id, stage); err != nil {
		return err
	}
	w.mu.Lock()
	d.stage, d.moved = stage, time.Now().Add(w.lag[crm])
	w.mu.Unlock()
	if stage == stageWon || stage == "closedwon" {
		e := &simEntry{crm: crm, record: d.id, deal: d}
		var err error
		if e.occurrence, err = w.occurrence(crm, d.id, stage); err != nil {
			return err
		}
		w.mu.Lock()
		w.entries = append(w.entries, e)
		w.mu.Unlock()
		w.trace("  entry %s: %s %s %s", w.tx(e), crm, e.record, e.occurrence)
	}
	return nil
}

// stageOf is where a record is, whoever has put it there.
func (w *simWorld) stageOf(crm deal.Kind, d *simDeal) string {
	return w.field(crm, d, "StageName", "dealstage")
}

// occurrence is the CRM's name of the newest entry of a record into a stage: the daemon may have moved it on already.
func (w *simWorld) occurrence(crm deal.Kind, id, stage string) (string, error) {
	if crm == deal.HubSpot {
		r, err := w.portal.Record(id)
		if err != nil {
			return "", err
		}
		for _, v := range slices.Backward(r.History["dealstage"]) {
			if v.Value == stage {
				return v.Value + "@" + v.Time.Format("2006-01-02T15:04:05.000Z"), nil
			}
		}
	}
	for _, row := range slices.Backward(w.org.Records("OpportunityHistory")) {
		if f, ok := w.org.Record(row); ok && f["OpportunityId"] == id && f["StageName"] == stage {
			return row, nil
		}
	}
	return "", fmt.Errorf("%s has no entry into %q", id, stage)
}

// excuse lets the entries of a deal go that the daemon has not seen yet: what is deleted or merged cannot be found.
func (w *simWorld) excuse(d *simDeal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		if e.deal.now() == d && !w.noticed[w.tx(e)] {
			e.excused = true
		}
	}
}

func (w *simWorld) merge(d *simDeal, with int) error {
	other, err := w.dealOf(deal.HubSpot, with)
	if err != nil || other.gone || other == d || other.out != d.out { // the filter would say one thing of their entries, and then another
		return err
	}
	w.excuse(d)
	w.excuse(other)
	id, err := w.portal.Merge(d.id, other.id)
	if err != nil {
		return err
	}
	m := &simDeal{id: id, stage: d.stage, out: d.out}
	w.mu.Lock()
	d.into, other.into = m, m
	w.mu.Unlock()
	w.trace("  %s and %s are %s", d.id, other.id, id)
	return nil
}

func (w *simWorld) daemon() *incarnation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.up
}

// end stops the daemon in order and waits for it.
func (w *simWorld) end(supervised <-chan struct{}) {
	w.mu.Lock()
	w.over = true
	in := w.up
	w.mu.Unlock()
	if in != nil {
		in.stop()
	}
	<-supervised
}
