package connectortest

import (
	"math/rand/v2"
	"slices"
	"time"
)

// troubled is how long people, networks and the daemon do their worst.
const troubled = 72 * time.Hour

// happening is one thing that happens in those days. Its fields mean what its verb makes of them.
type happening struct {
	At    time.Duration // whole seconds, which every CRM can tell apart
	Verb  string
	Deals []int // by their numbers
	Stage string
	Late  time.Duration // after which the CRM shows it
	Call  Call
	Fault Effect
	Times int
}

// The verbs.
const (
	opens     = "open"       // deals, all at once
	moves     = "move"       // all at once
	edits     = "edit"       // their amounts
	spoils    = "spoil"      // the newest history row of one
	deletes   = "delete"     // one
	merges    = "merge"      // the first with the second
	pushes    = "push"       // in the order given
	polls     = "poll"       // at once
	fails     = "fail"       // calls
	heals     = "heal"       // whatever fails
	kills     = "kill"       // all sessions
	watchesIt = "watch"      // a rule is added that looks back by Late
	restarts  = "restart"    // the daemon is down for so long as Late says
	restores  = "restore"    // a cursor of earlier is back
	vanishes  = "lose-pages" // the daemon dies so many times with a page that it has not written down
)

// author writes a script, a function of its seed and of nothing else.
type author struct {
	*rand.Rand
	traits Traits
	deals  int
	single []single
	script []happening
}

// single is a deal that is moved alone.
type single struct {
	number        int
	opened, moved time.Duration // moved is the last time
}

func newScript(seed uint64, traits Traits) []happening {
	a := &author{Rand: rand.New(rand.NewPCG(seed, 0xda75)), traits: traits}
	for range 5 + a.IntN(8) {
		a.batch(pick(a, 1, 1, 1, 2, 3, 3+a.IntN(20)))
	}
	if seed%25 == 0 {
		a.batch(550 + a.IntN(100)) // more than a page
	}
	a.endings()
	a.network()
	a.daemon()
	slices.SortStableFunc(a.script, func(x, y happening) int { return int(x.At - y.At) })
	return a.script
}

func pick[T any](a *author, from ...T) T { return from[a.IntN(len(from))] }

func (a *author) chance(percent int) bool { return a.IntN(100) < percent }

// within is a time of less than d, to the second.
func (a *author) within(d time.Duration) time.Duration {
	return time.Duration(a.Int64N(int64(d/time.Second))) * time.Second
}

func (a *author) add(h happening) { a.script = append(a.script, h) }

// batch writes the life of deals that are moved together, by an import or by chance, and so bear the same stamps.
func (a *author) batch(size int) {
	var deals []int
	for range size {
		deals = append(deals, a.deals)
		a.deals++
	}
	opened := a.within(troubled * 3 / 4)
	at := opened
	a.add(happening{At: at, Verb: opens, Deals: deals, Stage: pick(a, a.traits.Other, a.traits.Other, a.traits.Stage, a.traits.Third)})
	for range 1 + a.IntN(5) {
		// People are no faster than two seconds, and Salesforce's stamps no finer than one.
		at += 2*time.Second + pick(a, 0, a.within(time.Minute), a.within(time.Hour), a.within(12*time.Hour))
		h := happening{At: min(at, troubled), Verb: moves, Deals: deals, Stage: pick(a, a.traits.Stage, a.traits.Stage, a.traits.Other, a.traits.Third)}
		if a.chance(30) {
			h.Late = a.within(a.traits.Overlap * 8 / 10)
			a.overtaken(h.At)
		}
		a.add(h)
		if a.chance(40) {
			a.add(happening{At: h.At + pick(a, 0, time.Second, a.within(2*time.Hour)), Verb: edits, Deals: deals})
		}
		for range a.IntN(3) { // lost, told of, told of twice, each in an order of its own
			told := slices.Clone(deals[:min(size, 40)])
			a.Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
			a.add(happening{At: h.At + pick(a, 0, time.Second, a.within(time.Hour)), Verb: pushes, Deals: told[:1+a.IntN(len(told))]})
		}
	}
	if size == 1 {
		a.single = append(a.single, single{deals[0], opened, min(at, troubled)})
	}
}

// overtaken writes a later entry that is shown, and polled, before one that the CRM shows late.
func (a *author) overtaken(at time.Duration) {
	if a.chance(60) {
		at += time.Second + a.within(time.Minute)
		a.add(happening{At: at, Verb: opens, Deals: []int{a.deals}, Stage: a.traits.Stage})
		a.add(happening{At: at + time.Second, Verb: polls})
		a.deals++
	}
}

// endings writes what becomes of some deals that are alone.
func (a *author) endings() {
	for i, d := range a.single {
		other := a.single[(i+1)%len(a.single)]
		from := max(d.opened, other.opened)
		switch h := (happening{At: from + a.within(troubled-from), Deals: []int{d.number}}); a.IntN(8) {
		case 0, 1:
			h.Verb, h.At = spoils, d.moved
			a.add(h)
		case 2:
			h.Verb = deletes
			a.add(h)
		case 3, 4:
			h.Verb, h.Deals = merges, append(h.Deals, other.number)
			a.add(h)
		}
	}
}

func (a *author) network() {
	for range 4 + a.IntN(10) {
		at := a.within(troubled)
		a.add(happening{At: at, Verb: fails, Times: pick(a, 1, 2, 5, -1, -1),
			Call:  pick(a, LoginCall, ListCall, ListCall, ListCall, ReadCall, UploadCall, UploadCall, LinkCall, WriteCall),
			Fault: pick(a, LoseReply, LoseReply, CutBefore, Unavailable, EmptyError, Truncated, Busy, Limited, Refused, Corrupted, Hang, Expired, Forbidden)})
		a.add(happening{At: at + a.within(3*time.Hour), Verb: heals})
	}
	for range a.IntN(6) {
		a.add(happening{At: a.within(troubled), Verb: kills})
	}
}

func (a *author) daemon() {
	for range a.IntN(6) {
		a.add(happening{At: a.within(troubled), Verb: restarts, Late: pick(a, 0, a.within(time.Minute), a.within(8*time.Hour))})
	}
	for range a.IntN(4) {
		a.add(happening{At: a.within(troubled), Verb: vanishes, Times: 1 + a.IntN(3)})
	}
	if a.chance(30) {
		a.add(happening{At: a.within(troubled), Verb: restores})
	}
	if a.chance(50) {
		a.add(happening{At: a.within(troubled), Verb: watchesIt, Late: pick(a, 0, a.within(24*time.Hour))})
	}
}
