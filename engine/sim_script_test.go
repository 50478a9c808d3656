package engine

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
	portal "github.com/dealseal/dealseal/mocks/crm/hubspot"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/store"
)

// troubleTime is how long people, networks and disks do their worst; after that nothing goes wrong any more.
const troubleTime = 3 * time.Hour

// simScript is everything that happens to a daemon from outside. It is a function of its seed and of nothing else.
type simScript struct {
	Seed uint64
	House
	Events []simEvent // in the order of At
}

// House is how the daemon of a run is configured.
type House struct {
	Poll            time.Duration
	Workers         int
	Template, Trail bool // of the Salesforce rule; HubSpot's seals what is attached
	Filtered, Tasks bool // the rules leave out every other deal; owners are given tasks for what waits for a person
	Marker          bool // whether the org has a field that refuses a second file of ours
	IfLeft, ReEntry string
	Downgrade       signing.Downgrade
	Level           pades.Level      // of one seed in four it is B-LTA
	Skew            [2]time.Duration // of each CRM's clock
	Moves           bool             // of one seed in three records are moved when their deals are done or held
	Notes           bool             // of one seed in four timelines tell what becomes of deals
	FollowUps       bool             // of one seed in two records show that nothing comes of a deal
}

// simEvent is one thing that happens. Its fields mean what its verb makes of them.
type simEvent struct {
	At   time.Duration
	Verb verb
	CRM  deal.Kind
	Deal int // of the CRM, in the order in which they were made
	With int // the other deal of a merge; how many calls, commits or jobs are struck; what an operator decides; whether people go on meanwhile; the number of a request
	Skip int // how many are let pass first
	What string
	Call string
	For  time.Duration
}

func (e simEvent) String() string {
	return fmt.Sprintf("%s %s deal=%d with=%d skip=%d what=%q call=%q for=%s", e.Verb, e.CRM, e.Deal, e.With, e.Skip, e.What, e.Call, e.For)
}

type verb string

const (
	// What people do in the CRM.
	doWin    verb = "win"
	doLeave  verb = "leave"
	doEdit   verb = "edit"
	doQuote  verb = "quote"
	doDelete verb = "delete"
	doMerge  verb = "merge"
	// A push names a deal: of each three things that people do one has none, one a push, one two of them, soon or late.
	doPush verb = "push"
	// A program asks for a contract of a deal.
	doRequest verb = "request"
	// What the CRM does: rows that commit late, calls that fail, a clock that is set.
	doDelay verb = "delay"
	doFault verb = "fault"
	doClear verb = "clear"
	doClock verb = "clock"
	doUsage verb = "usage"
	// What the house's own things do.
	doTSA      verb = "tsa"
	doEvidence verb = "evidence"
	doKey      verb = "key"
	doSlow     verb = "slow"
	doDisk     verb = "disk"
	// What becomes of the daemon: killed where it stands, killed at a point, stopped in order.
	doKill  verb = "kill"
	doCrash verb = "crash"
	doStop  verb = "stop"
	// It dies, or hears nothing more of a CRM for a while, just when that CRM has carried out what it was asked for.
	doSever verb = "sever"
	// A backup is made, and takes the place of the state.
	doBackup  verb = "backup"
	doRestore verb = "restore"
	// A job is handed out twice, a page or a receipt is committed twice; a person decides; somebody keeps a checkpoint.
	doDouble     verb = "double"
	doOperate    verb = "operate"
	doCheckpoint verb = "checkpoint"
)

// author writes a script.
type author struct {
	*rand.Rand
	events []simEvent
}

func newScript(seed uint64) simScript {
	a := &author{Rand: rand.New(rand.NewPCG(seed, 0x5ea1))}
	s := simScript{Seed: seed, House: House{
		Poll:     pick(a, 10*time.Minute, 20*time.Minute, 40*time.Minute),
		Workers:  pick(a, 1, 2, 4),
		Template: a.chance(50), Trail: a.chance(30), Marker: a.chance(50),
		IfLeft:    pick(a, "hold", "void", "seal"),
		ReEntry:   pick(a, "hold", "hold", "seal"),
		Downgrade: pick(a, signing.Hold, signing.Hold, signing.AcceptAndFlag, signing.Fail),
		Skew:      [2]time.Duration{a.skew(), a.skew()},
	}}
	s.Moves, s.Notes, s.FollowUps = seed%3 == 2, seed%4 == 1, seed%4 < 2
	s.Level = pades.BT
	if seed%4 == 0 {
		s.Level = pades.BLTA
	}
	s.Filtered, s.Tasks = seed%5 < 2, seed%3 == 0
	for _, crm := range []deal.Kind{deal.Salesforce, deal.HubSpot} {
		a.people(crm)
		a.network(crm)
	}
	a.house()
	if s.Level == pades.BLTA {
		a.responders()
	}
	a.machine(s.Level)
	a.severed()
	a.disaster()
	a.operators()
	a.pushes()
	a.impatience()
	if s.Tasks {
		a.tasks()
	}
	a.requests()
	if s.Notes {
		a.notes()
	}
	slices.SortStableFunc(a.events, func(x, y simEvent) int { return int(x.At - y.At) })
	s.Events = a.events
	return s
}

func pick[T any](a *author, from ...T) T { return from[a.IntN(len(from))] }

func (a *author) chance(percent int) bool { return a.IntN(100) < percent }

// within is a time of at most d, to the millisecond.
func (a *author) within(d time.Duration) time.Duration {
	return time.Duration(a.Int64N(int64(d/time.Millisecond))) * time.Millisecond
}

func (a *author) skew() time.Duration {
	if a.chance(50) {
		return 0
	}
	return a.within(2*time.Hour) - time.Hour
}

func (a *author) add(e simEvent) { a.events = append(a.events, e) }

// people write what salespeople do to one or two deals: each enters the stage, and most do more than that.
func (a *author) people(crm deal.Kind) {
	deals := 1 + a.IntN(2)
	for i := range deals {
		at := a.within(troubleTime / 2)
		a.add(simEvent{At: at, Verb: doWin, CRM: crm, Deal: i})
		for range a.IntN(5) {
			// Much of it while the first sealing is under way.
			next := at + pick(a, a.within(time.Minute), a.within(10*time.Minute), a.within(troubleTime/2))
			a.add(simEvent{At: next, CRM: crm, Deal: i, Verb: pick(a, doLeave, doWin, doEdit, doEdit, doQuote), With: a.IntN(1000)})
		}
		if a.chance(10) {
			a.add(simEvent{At: at + a.within(troubleTime/2), Verb: doDelete, CRM: crm, Deal: i})
		}
	}
	if crm == deal.HubSpot && deals > 1 && a.chance(40) {
		first := a.IntN(deals)
		a.add(simEvent{At: a.within(troubleTime), Verb: doMerge, CRM: crm, Deal: first, With: (first + 1) % deals})
	}
}

func (a *author) network(crm deal.Kind) {
	for range a.IntN(6) {
		at := a.within(troubleTime)
		e := simEvent{At: at, Verb: doFault, CRM: crm, With: 1 + a.IntN(4), Skip: a.IntN(4), For: time.Second + a.within(lateWrite)}
		e.Call, e.What = a.salesforceFault()
		if crm == deal.HubSpot {
			e.Call, e.What = a.hubspotFault()
		}
		if a.chance(15) {
			e.With = 0 // until it is cleared
			a.add(simEvent{At: at + a.within(40*time.Minute), Verb: doClear, CRM: crm})
		}
		a.add(e)
	}
	if a.chance(40) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doDelay, CRM: crm, For: a.within(8 * time.Minute)})
	}
	if a.chance(30) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doClock, CRM: crm, For: a.within(4*time.Minute) - 2*time.Minute})
	}
	if crm == deal.Salesforce && a.chance(15) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doUsage, CRM: crm, With: pick(a, 8500, 9800)})
	}
}

func (a *author) salesforceFault() (call, effect string) {
	kind := pick(a, "", mock.KindToken, mock.KindQuery, mock.KindQuery, mock.KindGet, mock.KindUpdate, mock.KindUpdate, mock.KindUpload, mock.KindUpload, mock.KindDownload, mock.KindDescribe, mock.KindComposite)
	return string(kind), string(pick(a, mock.LockRow, mock.ValidationRule, mock.RequestLimit, mock.SessionInvalid, mock.HTMLUnavailable, mock.EmptyList, mock.EmptyBody, mock.ModifiedSince,
		mock.APIError, mock.CutBefore, mock.CutAfter, mock.CutAfter, mock.TruncatedJSON, mock.UnavailableAfter, mock.UnavailableAfter, mock.Slow, mock.Slow))
}

func (a *author) hubspotFault() (call, effect string) {
	kind := pick(a, "", portal.KindAccount, portal.KindSearch, portal.KindBatchRead, portal.KindGet, portal.KindPatch, portal.KindPatch, portal.KindNote, portal.KindNote, portal.KindUpload, portal.KindUpload,
		portal.KindFileGet, portal.KindFileStat, portal.KindSignedURL, portal.KindDownload, portal.KindAssociations, portal.KindPipelines, portal.KindProperties)
	return string(kind), string(pick(a, append(portal.Effects(), portal.EffectResetCommitted, portal.EffectTimeoutCommitted, portal.EffectSlow)...))
}

func (a *author) house() {
	for range a.IntN(3) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doTSA, With: pick(a, 1, 2, 3, -1), What: string(pick(a, pki.Down, pki.Unavailable, pki.Slow, pki.Garbage, pki.OtherData, pki.WrongNonce, pki.NoNonce,
			pki.ClockOff, pki.Rejection, pki.WrongEKU, pki.WrongCertID, pki.BadSignature, pki.OtherType, pki.WithoutCertReq))})
	}
	if a.chance(40) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doKey, With: 1 + a.IntN(12), For: a.within(5 * time.Minute)})
	}
	for range a.IntN(3) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doDisk, With: 1 + a.IntN(3), Skip: a.IntN(8), What: pick(a, "before", "after")})
	}
	for range a.IntN(3) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doDouble, With: 1 + a.IntN(6)})
	}
}

// responders writes the trouble with evidence of revocation.
func (a *author) responders() {
	for range a.IntN(3) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doEvidence, With: pick(a, 1, 2, 5, -1), Call: string(pick(a, pki.ServiceOCSP, pki.ServiceCRL)),
			What: string(pick(a, pki.Down, pki.Unavailable, pki.Slow, pki.Garbage))})
	}
}

// worst are the points at which others have seen an effect that is not committed yet, or between which time should not pass.
var worst = []string{"gather.advance.gathered/after", "seal.advance.prepared/after", "seal.advance.digest/after", "seal.call.redeem/after", "seal.call.tsa/after", "seal.advance.second-digest/after", "seal.call.second-redeem/after", "keep.advance.kept/before", "attach.call.contract/after", "attach.advance.attached/before",
	"report.call.write-back/after"}

// lasting finds the points that only deals of B-LT and B-LTA pass.
var lasting = regexp.MustCompile(`^seal\.\w+\.(second-)?(evidence|revocation|archive-)`)

func (a *author) machine(level pades.Level) {
	points := slices.Concat(slices.DeleteFunc(Points(), func(p string) bool { return level == pades.BT && lasting.MatchString(p) }), store.Points())
	for range a.IntN(5) {
		e := simEvent{At: a.within(troubleTime), Verb: pick(a, doKill, doStop, doCrash, doCrash, doCrash, doCrash), For: a.within(10 * time.Minute)}
		if e.Verb == doCrash {
			e.At /= 2 // most of the work is done in the first half
			e.What, e.Skip = pick(a, points...), a.IntN(3)
			if a.chance(50) {
				e.What = pick(a, worst...)
			}
			if e.With = a.IntN(2); e.With == 1 {
				e.For += 11 * time.Minute // what is staged grows old
			}
		}
		a.add(e)
	}
}

// severed writes the moments after which nobody knows whether the CRM has done it, the worst there are for doing it once.
func (a *author) severed() {
	for _, crm := range []deal.Kind{deal.Salesforce, deal.HubSpot} {
		for range a.IntN(3) {
			a.add(simEvent{At: a.within(troubleTime / 2), Verb: doSever, CRM: crm, Call: pick(a, wrote...), Skip: a.IntN(2), What: pick(a, "dies", "dies", "deaf"), For: time.Second + a.within(3*time.Minute)})
		}
	}
}

// wrote are the writes of which it counts that they are done once; see writeOf.
var wrote = []string{"upload", "upload", "note", "update"}

// disaster puts a state in place that has not seen what was done since.
func (a *author) disaster() {
	if a.chance(15) {
		at := a.within(troubleTime * 2 / 3)
		a.add(simEvent{At: at, Verb: doBackup})
		a.add(simEvent{At: at + pick(a, a.within(2*time.Minute), a.within(20*time.Minute)), Verb: doRestore, For: a.within(10 * time.Minute)})
	}
}

func (a *author) pushes() {
	for _, e := range a.events {
		switch e.Verb {
		case doWin, doLeave, doEdit, doQuote, doDelete, doMerge:
			for range a.IntN(3) {
				a.add(simEvent{At: e.At + pick(a, 0, a.within(time.Second), a.within(10*time.Minute)), Verb: doPush, CRM: e.CRM, Deal: e.Deal})
			}
		}
	}
}

// impatience writes a key that is slow, and a person who does not wait for it.
func (a *author) impatience() {
	if a.chance(40) {
		a.add(simEvent{At: a.within(troubleTime / 2), Verb: doSlow, With: a.IntN(2), For: time.Second + a.within(signLimit/2)})
	}
}

// tasks writes calls that fail when a task is made, and moments after which nobody knows whether it was.
func (a *author) tasks() { a.activities(portal.KindTask, "task") }

// notes are tasks in Salesforce.
func (a *author) notes() { a.activities(portal.KindNote, "note") }

// activities have those that are being made fail, or their answers lost.
func (a *author) activities(inHubSpot portal.Kind, call string) {
	for _, crm := range []deal.Kind{deal.Salesforce, deal.HubSpot} {
		kind, severed := string(mock.KindCreate), "task"
		effect := string(pick(a, mock.CutBefore, mock.CutAfter, mock.UnavailableAfter, mock.TruncatedJSON, mock.LockRow, mock.Slow))
		if crm == deal.HubSpot {
			severed = call
			kind, effect = string(inHubSpot), string(pick(a, portal.EffectReset, portal.EffectResetCommitted, portal.EffectTimeoutCommitted, portal.EffectTruncated, portal.EffectSlow))
		}
		a.add(simEvent{At: a.within(troubleTime), Verb: doFault, CRM: crm, Call: kind, What: effect, With: 1 + a.IntN(4), For: time.Second + a.within(lateWrite)})
		a.add(simEvent{At: a.within(troubleTime), Verb: doSever, CRM: crm, Call: severed, What: pick(a, "dies", "deaf"), For: time.Second + a.within(3*time.Minute)})
	}
}

func (a *author) operators() {
	for range a.IntN(6) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doOperate, With: a.IntN(1 << 20)})
	}
	for range 1 + a.IntN(3) {
		a.add(simEvent{At: a.within(troubleTime), Verb: doCheckpoint})
	}
}
