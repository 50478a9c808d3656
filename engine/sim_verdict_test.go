package engine

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// calm is the time, in simulated hours, within which everything must have come to an end or wait for a person with a
// reason once nothing goes wrong any more: the longest wait that a CRM asks for or that telling it may reach, and the
// polls and attempts before and after it.
const calm = 2*time.Hour + 30*time.Minute

// judge asks from outside whether the promises were kept: of the CRMs, of the key, and of the ledger as an operator sees it.
func (w *simWorld) judge() {
	time.Sleep(calm)
	in := w.daemon()
	if in == nil {
		w.violation("no daemon runs although nothing goes wrong any more")
		return
	}
	w.nothingWaitsInSilence(in)
	w.recordsTellTheTruth(in)
	w.mopUp(in)
	w.nothingWaitsInSilence(in)
	w.nothingIsLeft(in)
	w.recordsTellTheTruth(in)
	w.everyEntryIsKnown(in)
	w.oneDigestEach()
	w.oneContractEach(in)
	w.oneTaskEach(in)
	w.errandsAreDone(in)
	w.timelinesTell(in)
	w.auditHolds(in)
}

// errandsAreDone: nothing is left to be done, and where people have put a record last, there it is, unless that is where the
// daemon may move it from. HubSpot carries out what nobody waits for any more, after what people have done since.
func (w *simWorld) errandsAreDone(in *incarnation) {
	for _, s := range in.everything() {
		if in.hasErrands(s.Tx) && !w.isGone(s) {
			w.violation("%s has something left to be done in the CRM", s.Tx)
		}
	}
	if !w.script.Moves {
		return
	}
	for crm, deals := range w.deals {
		for _, d := range deals {
			d = d.now()
			is := w.stageOf(crm, d)
			w.mu.Lock()
			left, late := d.stage != stageWon && d.stage != "closedwon", w.tardy[crm] && crm == deal.HubSpot
			w.mu.Unlock()
			if left && !late && !d.gone && is != d.stage && !w.isMoved(in, d, d.stage) {
				w.violation("people have put %s %s into %q, and it is in %q", crm, d.id, d.stage, is)
			}
		}
	}
}

// mopUp is what an operator does afterwards: whatever can go on goes on.
func (w *simWorld) mopUp(in *incarnation) {
	w.trace("an operator lets everything go on")
	for range 8 {
		open := 0
		for _, s := range in.everything() {
			switch s.Condition {
			case deal.Dead:
				in.decide(s, "retry")
				open++
			case deal.Held:
				in.decide(s, "release")
				open++
			}
		}
		if open == 0 {
			break
		}
		time.Sleep(30 * time.Minute)
	}
	time.Sleep(time.Hour) // nothing more is to happen
}

// nothingWaitsInSilence: what does not move has a reason, and what should move has moved.
func (w *simWorld) nothingWaitsInSilence(in *incarnation) {
	for _, s := range in.everything() {
		switch {
		case s.Condition == deal.Running && s.Step == deal.Done:
		case s.Condition.Waiting() && s.Reason != "":
		default:
			w.violation("%s is %s at %q, next %s, reason %q, long after nothing went wrong any more", s.Tx, s.Condition, s.Step, s.Next, s.Reason)
		}
	}
}

// nothingIsLeft: a person who lets everything go on gets everything done, but for what has ended and records that are gone.
func (w *simWorld) nothingIsLeft(in *incarnation) {
	for _, s := range in.everything() {
		if (s.Condition == deal.Dead || s.Condition == deal.Held) && !w.isGone(s) {
			w.violation("%s is %s at %q whatever a person does: %s", s.Tx, s.Condition, s.Step, s.Reason)
		}
	}
}

// isGone reports whether the record of a sealing was deleted.
func (w *simWorld) isGone(s store.Summary) bool {
	d := w.dealByID(s.Ref.ID)
	return d != nil && d.gone
}

func (w *simWorld) dealByID(id string) *simDeal {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, deals := range w.deals {
		for _, d := range deals {
			for ; d != nil; d = d.into {
				if d.id == id {
					return d.now()
				}
			}
		}
	}
	return nil
}

// simOccurrence is an entry of a deal, or a request.
type simOccurrence struct {
	deal       *simDeal
	occurrence string
}

// everyEntryIsKnown: each entry is one sealing, and no sealing is of anything else. What the filter leaves out is none, or
// one that has ended and made no use of the key.
func (w *simWorld) everyEntryIsKnown(in *incarnation) {
	sealings := map[simOccurrence]int{}
	for _, s := range in.everything() {
		full, err := in.store.Load(context.Background(), s.Tx)
		if err != nil {
			w.violation("%s cannot be loaded: %v", s.Tx, err)
			continue
		}
		d := w.dealByID(s.Ref.ID)
		sealings[simOccurrence{d, full.Change.Occurrence}]++
		if d != nil && d.out && (s.Condition != deal.Ended || len(w.digests[s.Tx]) > 0) {
			w.violation("%s is %s at %q, and its filter leaves it out", s.Tx, s.Condition, s.Step)
		}
	}
	for _, e := range w.entries {
		key := simOccurrence{e.deal.now(), e.occurrence}
		if n := sealings[key]; n > 1 || n == 0 && !e.excused && !e.deal.now().out {
			w.violation("the entry %s of %s (%s) has %d sealings", e.occurrence, e.record, w.tx(e), n)
		}
		delete(sealings, key)
	}
	w.everyRequestIsKept(sealings)
	for e, n := range sealings {
		w.violation("%d sealings of an entry %s of %v that never was", n, e.occurrence, e.deal)
	}
}

// oneDigestEach: what went to the key.
func (w *simWorld) oneDigestEach() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tx, digests := range w.digests {
		if len(digests) > 1 {
			w.wrong = append(w.wrong, string(tx)+" had two digests signed")
		}
	}
	for tx, digests := range w.seconds {
		if _, first := w.digests[tx]; len(digests) > 1 || !first {
			w.wrong = append(w.wrong, fmt.Sprintf("%s had %d digests signed for its second seal; for the first: %t", tx, len(digests), first))
		}
	}
}

var sealedFor = regexp.MustCompile(`\(Transaction ([a-z2-7]{26})\)`)

// oneContractEach: no transaction has two files of one role on a record, and what is done has one.
func (w *simWorld) oneContractEach(in *incarnation) {
	type place struct {
		tx   deal.TxID
		role deal.Role
	}
	onRecord := map[place]int{}
	for crm, deals := range w.deals {
		seen := map[*simDeal]bool{}
		for _, d := range deals {
			if d = d.now(); seen[d] {
				continue
			}
			seen[d] = true
			marked, sealed := w.files(crm, d)
			for _, m := range marked {
				if tx, role, ok := deal.ParseMarker(m); ok {
					onRecord[place{tx, role}]++
				}
			}
			for _, tx := range sealed {
				onRecord[place{tx, "sealed file"}]++
			}
		}
	}
	for p, n := range onRecord {
		if n > 1 {
			w.violation("%s has %d files of the role %s on its record", p.tx, n, p.role)
		}
	}
	for _, s := range in.everything() {
		if s.Step == deal.Done && !w.isGone(s) && (onRecord[place{s.Tx, deal.RoleContract}] != 1 || onRecord[place{s.Tx, "sealed file"}] != 1) {
			w.violation("%s is done, and its record has %d contracts and %d sealed files of it", s.Tx, onRecord[place{s.Tx, deal.RoleContract}], onRecord[place{s.Tx, "sealed file"}])
		}
		if s.Step != deal.Done || w.isGone(s) {
			continue
		}
		full, err := in.store.Load(context.Background(), s.Tx)
		if err != nil {
			w.violation("%s cannot be loaded: %v", s.Tx, err)
		} else if trails := onRecord[place{s.Tx, deal.RoleAuditTrail}]; full.Plan.AuditTrail != "" && trails != 1 {
			w.violation("%s is done, and its record has %d audit trails", s.Tx, trails)
		}
	}
}

// timelinesTell: what the ledger says to be on a timeline is there.
func (w *simWorld) timelinesTell(in *incarnation) {
	for _, s := range in.everything() {
		crm, _ := s.Account.Split()
		all, err := in.store.Errands(context.Background(), s.Tx)
		if err != nil {
			w.violation("the errands of %s: %v", s.Tx, err)
		}
		for _, e := range all {
			if e.Kind != deal.ErrandNote || e.Fate != deal.ErrandDone || w.isGone(s) {
				continue
			}
			mark := deal.NoteOf(&deal.Sealing{Tx: s.Tx}, e, all).Mark()
			if !slices.ContainsFunc(w.activitiesOf(crm, w.dealByID(s.Ref.ID)), func(text string) bool { return strings.Contains(text, mark) }) {
				w.violation("the record of %s has no note %s", s.Tx, mark)
			}
		}
	}
}

var taskOf = regexp.MustCompile(`\[dealseal ([a-z2-7]{26})/(?:[a-z_]+/)?\d+\]`)

// oneTaskEach: no record has two tasks for one time that a deal has waited, or two notes of one event, and none of a deal of another
// record.
func (w *simWorld) oneTaskEach(in *incarnation) {
	for crm, deals := range w.deals {
		for _, d := range deals {
			if d = d.now(); d.gone {
				continue
			}
			seen := map[string]bool{}
			for _, subject := range w.activitiesOf(crm, d) {
				m := taskOf.FindStringSubmatch(subject)
				if m == nil || seen[m[0]] {
					w.violation("%s has the task %q, and had it before: %t", d.id, subject, m != nil)
					continue
				}
				seen[m[0]] = true
				tx := deal.TxID(m[1])
				if s, err := in.store.Load(context.Background(), tx); (err != nil || w.dealByID(s.Change.Ref.ID) != d) && !w.wasForgotten(tx, d) {
					w.violation("%s has the task %q, which is about none of its transactions", d.id, subject)
				}
			}
		}
	}
}

// activitiesOf are the texts of our tasks and notes.
func (w *simWorld) activitiesOf(crm deal.Kind, d *simDeal) (subjects []string) {
	if crm == deal.HubSpot {
		tasks, err := w.portal.Tasks(d.id)
		if err != nil {
			w.violation("the tasks of %s: %v", d.id, err)
		}
		for _, task := range tasks {
			subjects = append(subjects, task["hs_task_subject"])
		}
		notes, err := w.portal.Notes(d.id)
		if err != nil {
			w.violation("the notes of %s: %v", d.id, err)
		}
		for _, n := range notes {
			if strings.Contains(n.Body, "[dealseal ") { // others carry files
				subjects = append(subjects, n.Body)
			}
		}
		return subjects
	}
	for _, id := range w.org.Records("Task") {
		if f, ok := w.org.Record(id); ok && f["WhatId"] == d.id {
			subjects = append(subjects, fmt.Sprint(f["Subject"]))
		}
	}
	return subjects
}

// files are the markers on a record, and the transactions that its sealed files name.
func (w *simWorld) files(crm deal.Kind, d *simDeal) (marked []string, sealed []deal.TxID) {
	var contents [][]byte
	marked = w.markers(crm, d)
	if crm == deal.HubSpot {
		files, _ := w.portal.Files(d.id) // none of a deal that was deleted
		for _, f := range files {
			contents = append(contents, f.Content)
		}
	} else {
		for _, f := range w.org.Files(d.id) {
			for _, v := range f.Versions {
				contents = append(contents, v.Content)
			}
		}
	}
	for _, c := range contents {
		if m := sealedFor.FindSubmatch(c); m != nil {
			sealed = append(sealed, deal.TxID(m[1]))
		}
	}
	return marked, sealed
}

func (w *simWorld) markers(crm deal.Kind, d *simDeal) (marked []string) {
	if crm == deal.HubSpot {
		notes, _ := w.portal.Notes(d.id) // none of a deal that was deleted
		for _, n := range notes {
			marked = append(marked, n.Body)
		}
		return marked
	}
	for _, f := range w.org.Files(d.id) {
		for _, v := range f.Versions {
			description, _ := v.Fields["Description"].(string)
			marked = append(marked, description)
		}
	}
	return marked
}

// recordsTellTheTruth: what each record shows is what the ledger holds of its newest entry.
func (w *simWorld) recordsTellTheTruth(in *incarnation) {
	for _, s := range in.everything() {
		st, err := in.store.Receipt(context.Background(), s.Tx)
		if err != nil {
			w.violation("no receipt of %s: %v", s.Tx, err)
			continue
		}
		if st.Owner != s.Tx || w.isGone(s) {
			continue
		}
		if st.Due() {
			w.violation("the record of %s was not told: sequence %d, sent %d", s.Tx, st.Sequence, st.Sent)
			continue
		}
		crm, _ := s.Account.Split()
		d := w.dealByID(s.Ref.ID)
		a, ok := w.audit(crm, d)
		word := w.field(crm, d, fieldStatus, "dealseal_status")
		status := deal.ShownAs(s.Step, s.Condition)
		if ok && a.Tx == s.Tx && a.By != in.store.Instance() && begunElsewhere(in, s.Tx) {
			continue // whose word it is may still go on
		}
		if want := wordOf(crm, status); !ok || a.Tx != s.Tx || a.Status != status || word != want || a.Sequence != st.Sequence {
			w.violation("the record of %s shows %q and %s of %s with sequence %d, want %s with sequence %d", s.Tx, word, a.Status, a.Tx, a.Sequence, status, st.Sequence)
		}
		w.followUpIsShown(in, s, crm, d)
	}
}

// followUpIsShown: the record says since when nothing has come of a deal, while that is so.
func (w *simWorld) followUpIsShown(in *incarnation, of store.Summary, crm deal.Kind, d *simDeal) {
	s, err := in.store.Load(context.Background(), of.Tx)
	if err != nil {
		w.violation("%s: %v", of.Tx, err)
		return
	}
	due := w.script.FollowUps && deal.Shown(s.Step, s.Condition, s.Reason).Undecided()
	shown := w.field(crm, d, fieldFollowUp, followUpInHubSpot)
	if due == s.Facts.FollowUp.IsZero() || due != (shown != "") {
		w.violation("%s waits for an outcome: %t, since %s, and its record shows %q", of.Tx, due, s.Facts.FollowUp, shown)
	}
}

func wordOf(crm deal.Kind, s deal.Status) string {
	if crm == deal.HubSpot {
		return string(s)
	}
	return deal.WriteBack{}.Word(s)
}

// auditHolds: the tree is whole and grew out of every checkpoint that somebody has kept.
func (w *simWorld) auditHolds(in *incarnation) {
	for _, old := range slices.Concat([][]byte{nil}, w.checked) {
		if _, err := in.store.VerifyAudit(context.Background(), old); err != nil {
			w.violation("the audit log does not hold: %v", err)
		}
	}
}

// begunElsewhere reports whether another database has spoken of a transaction, and nobody knows yet what became of that.
func begunElsewhere(in *incarnation, tx deal.TxID) bool {
	full, err := in.store.Load(context.Background(), tx)
	return err == nil && full.Facts.Elsewhere != ""
}
