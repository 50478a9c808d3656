package connectortest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// calm is how long everything may take once nothing goes wrong any more: an allowance that is used up is back at midnight.
const calm = 36 * time.Hour

// stuckAfter is when a run counts as one that never ends: nothing else notices in a bubble whose clock stands.
const stuckAfter = 10 * time.Minute

// Days lets a connector live through three days that a seed makes up, in simulated time: deals that are moved together,
// back and forth, edited, deleted and merged, rows that are shown late, pushes lost, doubled and in any order, calls that
// fail in all the ways of Fail, sessions that end, a daemon that dies. Then it asks whether every stage entry was reported
// as one transaction and no other, what cannot be read named, and whether each transaction's file is on its record once.
//
// A world that is [Beside] another has records of both objects moved, each batch of one of them, and rules for both.
//
// open makes a world inside the bubble whose clock is the bubble's: Advance sleeps, and the server is reached over a Pipe.
// The variables DAYS_SEEDS and DAYS_SEED say how many seeds are run, and which is the first ("make days").
func Days(t *testing.T, seeds int, open func(t *testing.T, seed int) World) {
	// Each run leaves a world behind, and collecting the garbage of many small ones costs a sixth of the time.
	before := debug.SetGCPercent(400)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	seeds, first := variable(t, "DAYS_SEEDS", seeds), variable(t, "DAYS_SEED", 1)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			stuck := time.AfterFunc(stuckAfter, func() { panic(fmt.Sprintf("seed %d does not end", seed)) })
			defer stuck.Stop()
			synctest.Test(t, func(t *testing.T) { live(t, open(t, seed), seed) })
		})
	}
}

func variable(t *testing.T, name string, otherwise int) int {
	text, ok := os.LookupEnv(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a positive number", name, text)
	}
	return n
}

// Beside is a world whose account has records of another object, too, under IDs that may be those of the first. What is done to
// the network, to sessions and to the clock of the one is done to both.
type Beside interface {
	World
	Beside() World
}

// days is one run. Its mutex is never held while anything waits: that would stop the bubble's clock.
type days struct {
	t     *testing.T
	w     World
	all   []World    // w, and the one beside it
	dice  *rand.Rand // the daemon's alone
	start time.Time
	rung  chan struct{}

	mu      sync.Mutex
	log     strings.Builder
	wrong   []string
	ledger  *ledger
	old     []deal.Cursor
	deals   map[int]*someDeal // by the script's numbers
	byRef   map[deal.Ref]*someDeal
	entries []*entry
	jobs    []*delivery
	pushed  []deal.Ref
	down    time.Duration // the daemon is to die for so long; negative: it is not
	vanish  int           // how many pages it still dies with
}

// someDeal is a record as its salespeople know it.
type someDeal struct {
	w         World
	ref       deal.Ref
	id, stage string
	into      *someDeal // what it was merged into
	gone      bool
	spoilt    bool // its newest row cannot be read, and nobody touches it any more
	merged    bool
	joined    time.Time // when it was merged
	edits     int
}

func (d *someDeal) now() *someDeal {
	for d.into != nil {
		d = d.into
	}
	return d
}

// entry is one time that a deal entered a stage, as whoever moved it saw it.
type entry struct {
	deal    *someDeal
	stage   string
	at      time.Time
	excused bool // the record was deleted, merged or spoilt before the entry was noticed everywhere
}

// delivery is what is to be done for a transaction: its file goes onto the record, and the record says so.
type delivery struct {
	sealing
	w        World
	sequence int64
	file     deal.File
	due      time.Time
	done     bool
}

func live(t *testing.T, w World, seed int) {
	d := &days{t: t, w: w, start: w.Now(), dice: rand.New(rand.NewPCG(uint64(seed), 0xd1ce)), rung: make(chan struct{}, 1), deals: map[int]*someDeal{}, byRef: map[deal.Ref]*someDeal{}, down: -1}
	d.ledger = newLedger(t, w, w.Connector(quiet()))
	d.all = []World{w}
	if b, ok := w.(Beside); ok {
		d.all = append(d.all, b.Beside())
		d.ledger.watchOf(d.all[1], "contract-beside", d.all[1].Traits().Stage, d.ledger.watches[0].Since)
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		d.daemon(over)
	}()
	for _, h := range newScript(uint64(seed), w.Traits()) {
		w.Advance(d.start.Add(h.At).Sub(w.Now()))
		d.happen(h)
	}
	w.Advance(d.start.Add(troubled).Sub(w.Now()))
	w.Heal()
	d.trace("nothing goes wrong any more")
	for waited := time.Duration(0); waited < calm && !d.quiet(); waited += time.Hour {
		w.Advance(time.Hour)
	}
	w.Advance(3 * w.Traits().Overlap) // nothing more is to happen
	close(over)
	<-ended
	d.judge()
	if len(d.wrong) > 0 {
		t.Errorf("%s\n\nagain: GOMAXPROCS=1 make days SEEDS=1 SEED=%d\n\n%s", strings.Join(d.wrong, "\n"), seed, d.log.String())
	}
}

func (d *days) trace(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(&d.log, "%12s  %s\n", d.w.Now().Sub(d.start).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

func (d *days) violation(format string, args ...any) {
	d.wrong = append(d.wrong, fmt.Sprintf(format, args...))
}

// happen does what the script says.
func (d *days) happen(h happening) {
	d.trace("%s %v %s late=%s %s %s times=%d", h.Verb, h.Deals, h.Stage, h.Late, h.Call, h.Fault, h.Times)
	switch h.Verb {
	case opens:
		w := d.all[h.Deals[0]%len(d.all)]
		stage := d.stageOf(w, h.Stage)
		ids := w.CreateDeals(len(h.Deals), stage)
		d.mu.Lock()
		for i, id := range ids {
			s := d.made(w, id)
			d.deals[h.Deals[i]] = s
			d.entered(s, stage)
		}
		d.mu.Unlock()
	case moves:
		d.w.DelayVisibility(h.Late)
		for _, s := range d.alive(h.Deals) {
			stage := d.stageOf(s.w, h.Stage)
			s.w.Move(s.id, stage)
			d.mu.Lock()
			d.entered(s, stage)
			d.mu.Unlock()
		}
		d.w.DelayVisibility(0)
	case edits:
		for _, s := range d.alive(h.Deals) {
			s.edits++
			s.w.SetAmount(s.id, fmt.Sprintf("%d.25", 100+s.edits))
		}
	case spoils, deletes, merges:
		d.end(h)
	case pushes:
		d.push(h.Deals)
	case polls:
		d.push(nil)
	case fails:
		w := d.all[int(h.At/time.Second)%len(d.all)]
		if err := w.Fail(h.Call, h.Fault, h.Times); err != nil && !errors.Is(err, ErrUnsupported) {
			d.t.Errorf("%+v: %v", h, err)
		}
	case heals:
		d.w.Heal()
	case kills:
		d.w.KillSessions()
	default:
		d.strike(h)
	}
}

// strike does something to the daemon.
func (d *days) strike(h happening) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch h.Verb {
	case restarts:
		d.down = h.Late
	case vanishes:
		d.vanish += h.Times
	case restores:
		if len(d.old) > 0 {
			d.ledger.cursor = d.old[len(d.old)/2]
		}
	case watchesIt:
		since := d.w.Now().Add(-h.Late).UTC()
		for i, w := range d.all {
			d.ledger.watchOf(w, []string{"addendum", "addendum-beside"}[i], w.Traits().Third, since)
		}
		for i := range d.old { // a state from before the rule began has it begin anew
			d.old[i] = d.old[i].Rewind(since)
		}
		for _, s := range d.byRef { // what had ended before the rule began need not be noticed for it
			switch {
			case s.gone, s.spoilt:
				d.excuse(s, time.Time{})
			case s.merged:
				d.excuse(s, s.joined)
			}
		}
	default:
		d.violation("no verb %q", h.Verb)
	}
}

// stageOf is the stage of an object that is in the place of one of the script's.
func (d *days) stageOf(w World, stage string) string {
	script, its := d.w.Traits(), w.Traits()
	return map[string]string{script.Stage: its.Stage, script.Other: its.Other, script.Third: its.Third}[stage]
}

// made remembers a record; the caller holds the mutex.
func (d *days) made(w World, id string) *someDeal {
	s := &someDeal{w: w, ref: ref(w, id), id: id}
	d.byRef[s.ref] = s
	return s
}

// entered remembers an entry; the caller holds the mutex.
func (d *days) entered(s *someDeal, stage string) {
	if s.stage != stage {
		s.stage = stage
		d.entries = append(d.entries, &entry{deal: s, stage: stage, at: d.w.Now()})
	}
}

// alive are the deals that people still touch, as they are called now.
func (d *days) alive(numbers []int) (all []*someDeal) {
	for _, n := range numbers {
		made := d.deals[n]
		if made == nil {
			continue // not yet
		}
		if s := made.now(); !s.gone && !s.spoilt && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// end does what can only be done once to a deal. What nobody has noticed of it before need not be noticed any more.
func (d *days) end(h happening) {
	list := d.alive(h.Deals)
	if len(list) == 0 || h.Verb == merges && (len(list) < 2 || list[0].w != list[1].w) {
		return
	}
	s := list[0]
	switch h.Verb {
	case deletes:
		s.w.Delete(s.id)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.excuse(s, time.Time{})
		s.gone = true
	case spoils:
		s.w.Garble(s.id)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.excuse(s, time.Time{})
		s.spoilt = true
	case merges:
		id, err := s.w.Merge(s.id, list[1].id)
		if errors.Is(err, ErrUnsupported) {
			return
		}
		if err != nil {
			d.t.Errorf("merge: %v", err)
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.excuse(s, time.Time{})
		d.excuse(list[1], time.Time{})
		m := d.made(s.w, id)
		m.stage, m.merged, m.joined = s.stage, true, d.w.Now()
		s.into, list[1].into = m, m
	}
}

// excuse lets entries be that nobody has noticed: all, or those until a time.
func (d *days) excuse(s *someDeal, until time.Time) {
	known := d.reported()
	for _, e := range d.entries {
		if !until.IsZero() && e.at.After(until) {
			continue
		}
		for _, w := range d.ledger.watches {
			if e.deal.now() == s && e.matches(w) && known[d.place(s, w.Rule, e.at)] == 0 {
				e.excused = true
			}
		}
	}
}

func (e *entry) matches(w deal.Watch) bool {
	return e.deal.ref.Object == w.Object && e.stage == w.Stage && !e.at.Before(w.Since)
}

// place is what an entry is known by from outside: who, for which rule, when.
type place struct {
	deal *someDeal
	rule string
	at   int64
}

func (d *days) place(s *someDeal, rule string, at time.Time) place {
	return place{s.now(), rule, at.Unix()}
}

// reported counts what the ledger took for new.
func (d *days) reported() map[place]int {
	n := map[place]int{}
	for _, f := range d.ledger.fresh {
		s := d.byRef[f.Ref]
		if s == nil {
			d.violation("an entry of %s, which nobody has made", f.Ref)
			continue
		}
		n[d.place(s, f.Rule, f.At)]++
	}
	return n
}

// push names records to the daemon, if it is up.
func (d *days) push(numbers []int) {
	d.mu.Lock()
	for _, n := range numbers {
		if s := d.deals[n]; s != nil {
			d.pushed = append(d.pushed, s.ref) // of a merged deal its old name
		}
	}
	d.mu.Unlock()
	select {
	case d.rung <- struct{}{}:
	default:
	}
}

// daemon polls, listens to pushes and delivers, one thing at a time, until it is told to end.
func (d *days) daemon(over <-chan struct{}) {
	crm := d.w.Connector(quiet())
	for {
		alive := true
		select {
		case <-over:
			return
		case <-d.rung:
			alive = d.heed(crm)
		case <-time.After(d.pause()):
			alive = d.poll(crm)
		}
		if !alive {
			crm = d.w.Connector(quiet())
		}
		d.deliver(crm)
		d.mu.Lock()
		down := d.down
		d.down = -1
		d.mu.Unlock()
		if down >= 0 {
			d.w.Advance(down)
			crm = d.w.Connector(quiet())
			d.mu.Lock()
			d.pushed = nil // and whoever has sent them does not know
			d.mu.Unlock()
		}
	}
}

func (d *days) pause() time.Duration {
	longest := []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 3 * time.Hour}[d.dice.IntN(4)]
	return time.Millisecond + time.Duration(d.dice.Int64N(int64(longest)))
}

// callLimit is how long the daemon waits for a call.
const callLimit = time.Minute

// poll reads on from the cursor, and reports whether the daemon has survived it.
func (d *days) poll(crm connectors.CRM) bool {
	for more := true; more; {
		d.mu.Lock()
		after, watches := d.ledger.cursor, slices.Clone(d.ledger.watches)
		d.mu.Unlock()
		ctx, cancel := context.WithTimeout(d.t.Context(), callLimit)
		page, err := crm.Changes(ctx, after, watches)
		cancel()
		if err != nil {
			d.trace("  poll: %v", err)
			return true
		}
		d.mu.Lock()
		if d.vanish > 0 {
			d.vanish--
			d.mu.Unlock()
			return false
		}
		if d.ledger.cursor == after { // otherwise a rule was added meanwhile, or a cursor is back
			d.old = append(d.old, after)
			d.take(page)
		}
		d.mu.Unlock()
		more = page.More
	}
	return true
}

// heed asks after the records that were named, or polls if none was; like poll, it says whether the daemon has survived.
func (d *days) heed(crm connectors.CRM) bool {
	direct, ok := crm.(connectors.Direct)
	d.mu.Lock()
	pushed, watches := d.pushed, slices.Clone(d.ledger.watches)
	d.pushed = nil
	d.mu.Unlock()
	if !ok || len(pushed) == 0 {
		return d.poll(crm)
	}
	for refs := range slices.Chunk(pushed, 100) {
		ctx, cancel := context.WithTimeout(d.t.Context(), callLimit)
		page, err := direct.EntriesOf(ctx, refs, watches)
		cancel()
		if err != nil {
			d.trace("  push: %v", err)
			continue
		}
		d.mu.Lock()
		page.Next = d.ledger.cursor
		d.take(page)
		d.mu.Unlock()
	}
	return true
}

// delivered is how many transactions are delivered: those of a large import are all alike.
const delivered = 120

// take takes a page in, and puts what is new of it in line for delivery; the caller holds the mutex.
func (d *days) take(page deal.Page) {
	for _, s := range d.ledger.notice(page) {
		fmt.Fprintf(&d.log, "%12s    new: %s of %s for %s, from %s\n", d.w.Now().Sub(d.start).Round(time.Millisecond), s.tx, s.Ref, s.Rule, s.At.Sub(d.start))
		if n, of := len(d.jobs), d.byRef[s.Ref]; n < delivered && of != nil {
			d.jobs = append(d.jobs, &delivery{sealing: s, w: of.w, sequence: int64(n + 1), file: file(d.t, "contract.pdf", 400+n)})
		}
	}
}

func (d *days) deliver(crm connectors.CRM) {
	d.mu.Lock()
	jobs := slices.Clone(d.jobs)
	d.mu.Unlock()
	for _, j := range jobs {
		if j.done || d.w.Now().Before(j.due) {
			continue
		}
		ctx, cancel := context.WithTimeout(d.t.Context(), 3*callLimit)
		err := job(ctx, d.t, j.w, crm, j.Ref.ID, j.file, receipt(j.w, j.tx, j.sequence, deal.StatusSigned))
		cancel()
		d.mu.Lock()
		j.done = err == nil
		if errors.Is(err, deal.ErrGone) && d.byRef[j.Ref].now().gone {
			j.done = true
		}
		j.due = d.w.Now().Add(max(time.Minute, deal.RetryAfter(err), deal.Unsettled(err)))
		if held := (*deal.HoldError)(nil); errors.As(err, &held) {
			d.violation("%s is held: %v", j.tx, err)
		}
		d.mu.Unlock()
		if err != nil {
			d.trace("  deliver %s to %s: %v", j.tx, j.Ref, err)
		}
	}
}

// quiet reports whether everything that must be noticed is, and delivered.
func (d *days) quiet() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.jobs {
		if !j.done {
			return false
		}
	}
	known := d.reported()
	for p, n := range d.expected(false) {
		if known[p] < n {
			return false
		}
	}
	return true
}

// expected counts the entries that must be reported, with those that may be.
func (d *days) expected(excused bool) map[place]int {
	n := map[place]int{}
	for _, e := range d.entries {
		for _, w := range d.ledger.watches {
			if e.matches(w) && (excused || !e.excused) {
				n[d.place(e.deal, w.Rule, e.at)]++
			}
		}
	}
	return n
}

func (d *days) judge() {
	known, must, may := d.reported(), d.expected(false), d.expected(true)
	for p, n := range must {
		if known[p] < n {
			d.violation("lost: %s for %s, entered at %s", p.deal.id, p.rule, time.Unix(p.at, 0).Sub(d.start))
		}
	}
	for p, n := range known {
		if n > may[p] {
			d.violation("%d times instead of %d: %s for %s, entered at %s", n, may[p], p.deal.id, p.rule, time.Unix(p.at, 0).Sub(d.start))
		}
	}
	d.unreadable()
	d.recordsBearTheirs()
}

// unreadable: what could not be read is named, unless it was noticed before, and nothing else is.
func (d *days) unreadable() {
	named := map[*someDeal]bool{}
	for _, q := range d.ledger.quarantined {
		if s := d.byRef[q.Ref]; s == nil || !s.spoilt {
			d.violation("a row of %s is said to be unreadable: %s", q.Ref, q.Reason)
		} else {
			named[s] = true
		}
	}
	known := d.reported()
	for _, e := range d.entries {
		for _, w := range d.ledger.watches {
			if s := e.deal; s.spoilt && e.matches(w) && known[d.place(s, w.Rule, e.at)] == 0 && !named[s] {
				d.violation("%s entered %s at %s: neither reported nor named as unreadable", s.id, e.stage, e.at.Sub(d.start))
			}
		}
	}
}

// recordsBearTheirs: each transaction's file is on its record once, nothing else is, and the record tells of the newest.
func (d *days) recordsBearTheirs() {
	newest, want := map[*someDeal]*delivery{}, map[*someDeal]map[string]int{}
	for _, j := range d.jobs {
		s := d.byRef[j.Ref].now()
		if !j.done {
			d.violation("%s of %s was not delivered", j.tx, s.id)
		}
		if s.gone {
			continue
		}
		if newest[s] = j; want[s] == nil {
			want[s] = map[string]int{}
		}
		want[s][string(content(int(j.file.Length)))]++
	}
	for s, files := range want {
		for _, f := range s.w.Files(s.id) {
			files[string(f.Content)]--
		}
		for c, n := range files {
			if n != 0 {
				d.violation("%s bears %d files too many of %d bytes", s.id, -n, len(c))
			}
		}
		if shown := s.w.Field(s.id, s.w.Traits().WriteBack.TransactionID); shown != string(newest[s].tx) && !s.merged {
			d.violation("%s shows %q, and its newest transaction is %s", s.id, shown, newest[s].tx)
		}
	}
}
