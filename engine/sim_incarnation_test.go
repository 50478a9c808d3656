package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/dealseal/dealseal/connectors/hubspot"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/store"
)

// errDead is what everything says to a daemon that has died: nothing that it still does leaves a trace.
var errDead = errors.New("this incarnation of the daemon is dead")

// errDisk is a failing disk's.
var errDisk = errors.New("disk I/O error")

// incarnation is one life of the daemon, from its start until it is killed, stopped or dies at a point. Everything that it
// reaches outside of its memory goes through it, so that a death is one at a single moment for all its goroutines.
type incarnation struct {
	w     *simWorld
	store *store.Store
	queue *simQueue
	wake  func(deal.TenantID, ...deal.Ref) bool
	// request is Engine.Request.
	request func(ctx context.Context, tenant deal.TenantID, rule, record string, q deal.Request) (deal.TxID, error)

	dead  atomic.Bool
	run   context.Context // ends when no new work is to begin
	stop  context.CancelFunc
	life  context.Context // ends when it is dead
	die   context.CancelFunc
	ended chan struct{}
	wires *http.Transport

	closing atomic.Bool
	steps   simSteps
}

// begin opens the state directory and lets a daemon run on it.
func (w *simWorld) begin() (*incarnation, error) {
	in := &incarnation{w: w, ended: make(chan struct{}), steps: simSteps{seen: map[deal.TxID]int64{}, under: map[deal.TxID]simStep{}}}
	in.life, in.die = context.WithCancel(context.Background())
	in.run, in.stop = context.WithCancel(in.life)
	logger := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: withoutTime}))
	stamper, err := tsa.NewClient([]tsa.Server{{URL: w.authority.URL(pki.PathTSA)}}, tsa.Options{Roots: w.authority.Roots(), HTTP: &http.Client{Transport: in}})
	if err != nil {
		return nil, err
	}
	tenants, err := in.tenants()
	if err != nil {
		return nil, err
	}
	if in.store, err = store.Open(context.Background(), store.Options{Dir: w.kit.dir, MasterKey: w.kit.master, Log: logger, Hook: in.point}); err != nil {
		return nil, err
	}
	in.wires = &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return w.pipes[address].Dial(ctx) }}
	e := &Engine{
		Tenants: tenants, Ledger: simLedger{in.store, in}, Books: simBooks{in.store, in}, Files: simFiles{files{in.store}, in}, Documents: renderer{}, Bundles: w.kit.shelf, Checker: &checker{w: w.world}, Log: logger,
		Sealer:   simSealer{signing.NewSealer(w.keys, stamper, time.Now), in},
		Extender: w.extender(stamper, in),
		Retry:    Retry{First: 2 * time.Second, Max: 10 * time.Minute, Attempts: 8},
		Hook:     in.point, Random: w.random,
	}
	in.queue = newSimQueue(in)
	e.Queue, in.wake, in.request = in.queue, e.Wake, e.Request
	go func() {
		defer close(in.ended)
		if err := e.Run(in.run); err != nil && !in.dead.Load() {
			w.violation("the engine ended with %v", err)
		}
		in.kill("")
		in.wires.CloseIdleConnections()
		in.closing.Store(true)
		if err := in.store.Close(); err != nil {
			w.violation("the store does not close: %v", err)
		}
	}()
	w.trace("a daemon runs")
	return in, nil
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// kill ends the incarnation where it stands.
func (in *incarnation) kill(how string) {
	if in.dead.CompareAndSwap(false, true) && how != "" {
		in.w.trace("the daemon dies: %s", how)
	}
	in.die()
}

// point is passed by the engine and the store at the moments that they name. A daemon that is to die at one dies there,
// with the goroutine that passes it.
func (in *incarnation) point(name string) {
	if in.queue == nil || in.closing.Load() {
		return // the start and the end of a daemon are the power-cut suite's
	}
	if in.dead.Load() {
		runtime.Goexit()
	}
	w := in.w
	w.mu.Lock()
	hit := w.crash.Verb == doCrash && w.crash.What == name
	if hit && w.crash.Skip > 0 {
		w.crash.Skip--
		hit = false
	}
	if hit {
		w.down, w.meanwhile, w.crash = w.crash.For, w.crash.With == 1, simEvent{}
	}
	w.mu.Unlock()
	if hit {
		in.kill("at " + name)
		runtime.Goexit()
	}
}

func (in *incarnation) gate() error {
	if in.dead.Load() {
		return errDead
	}
	return nil
}

// RoundTrip carries calls over pipes as long as the incarnation lives.
func (in *incarnation) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := in.gate(); err != nil {
		return nil, err
	}
	return in.wires.RoundTrip(r)
}

func (in *incarnation) tenants() ([]Tenant, error) {
	w, k := in.w, in.w.kit
	sf := salesforce.Config{MyDomain: "http://" + hostSalesforce,
		Auth: salesforce.Auth{Flow: salesforce.FlowClientCredentials, ConsumerKey: "engine", ClientSecret: k.login}}
	if w.script.Marker {
		sf.TxMarker = "DealSeal_Key__c"
	}
	org, err := salesforce.New(sf, salesforce.Deps{HTTP: in})
	if err != nil {
		return nil, err
	}
	hs, err := hubspot.New(hubspot.Config{BaseURL: "http://" + hostHubSpot, Rate: 100_000, SearchRate: 10_000,
		Auth: hubspot.Auth{Flow: hubspot.FlowToken, Token: k.login}}, hubspot.Deps{Transport: in, Memory: forgetful{}})
	if err != nil {
		return nil, err
	}
	return []Tenant{
		{ID: acme, Name: "Acme", CRM: org, Poll: w.script.Poll, Rules: []Rule{w.salesforceRule(k)}},
		{ID: contoso, Name: "Contoso", CRM: hs, Poll: w.script.Poll, Rules: []Rule{w.hubspotRule()}},
	}, nil
}

const followUpInHubSpot = "dealseal_follow_up"

func (w *simWorld) plan() deal.Plan {
	p := deal.Plan{TenantName: "Acme Ltd", TimeZone: "Europe/Paris", Rule: ruleID, Attachment: "quote*.pdf", IfLeft: w.script.IfLeft, ReEntry: w.script.ReEntry}
	if w.script.Notes {
		p.Timeline = []deal.Status{deal.StatusSigned, deal.StatusHeld, deal.StatusFailed, deal.StatusActionRequired}
	}
	if w.script.FollowUps {
		p.FollowUp = 45 * time.Minute
	}
	withProfile(signing.Profile{Level: w.script.Level, OnDowngrade: w.script.Downgrade, Dual: true})(&p)
	return p
}

func (w *simWorld) salesforceRule(k simKit) Rule {
	p := w.plan()
	p.Stage, p.WriteBack = stageWon, allFields
	if w.script.Moves {
		p.Moves = map[deal.Status]string{deal.StatusSigned: stageSigned, deal.StatusHeld: stageParked}
	}
	if w.script.Template {
		b := k.shelf.form
		p.Attachment, p.Template, p.Bundle, p.Currency, p.Fields = "", b.Name(), b.Hash(), "EUR", k.shelf.paths
		p.Seller = map[string]string{"address": "1 Main Street"}
	}
	if w.script.Trail {
		p.AuditTrail = k.shelf.trail.Hash()
	}
	return w.ruleOf(deal.Salesforce, p, "")
}

func (w *simWorld) hubspotRule() Rule {
	p := w.plan()
	p.Stage, p.WriteBack = "closedwon", deal.WriteBack{TransactionID: "dealseal_transaction_id", Status: "dealseal_status", SignedAt: "dealseal_signed_at", URL: "dealseal_document_url",
		Audit: "dealseal_audit", Words: map[deal.Status]string{}}
	if w.script.Moves {
		p.Moves = map[deal.Status]string{deal.StatusSigned: "contractsent", deal.StatusHeld: "qualifiedtobuy"}
	}
	for _, s := range deal.Statuses {
		p.WriteBack.Words[s.Status] = string(s.Status)
	}
	return w.ruleOf(deal.HubSpot, p, "default")
}

func (w *simWorld) ruleOf(crm deal.Kind, p deal.Plan, pipeline string) Rule {
	_, object := w.account(crm)
	if w.script.Tasks {
		p.WriteBack.Task = &deal.TaskWords{}
	}
	if w.script.FollowUps {
		p.WriteBack.FollowUp = map[deal.Kind]string{deal.Salesforce: fieldFollowUp, deal.HubSpot: followUpInHubSpot}[crm]
	}
	r := Rule{Watch: deal.Watch{Rule: p.Rule, Object: object, Pipeline: pipeline, Stage: p.Stage}, StartFrom: w.start.Add(-12 * time.Hour), Plan: p}
	if w.script.Filtered {
		var err error
		r.Filter, err = deal.ParseFilter(filters[crm])
		must(w.t, err)
		r.Plan.Filter = filters[crm]
	}
	return r
}

// simShelf holds the bundles of all runs.
type simShelf struct {
	form, trail *documents.Bundle
	paths       []string
}

func (s *simShelf) Bundle(hash string) (*documents.Bundle, error) {
	for _, b := range []*documents.Bundle{s.form, s.trail} {
		if b.Hash() == hash {
			return b, nil
		}
	}
	return nil, errors.New("no such bundle")
}

// txKey is what the handler of a job finds its transaction by, so that the world knows what the key is used for without
// asking the ledger.
type txKey struct{}

// simSealer tells the world of every digest that goes to the key.
type simSealer struct {
	Sealer
	in *incarnation
}

func (s simSealer) Redeem(ctx context.Context, t *signing.Ticket) ([]byte, error) {
	if err := s.in.gate(); err != nil {
		return nil, err
	}
	tx, _ := ctx.Value(txKey{}).(deal.TxID)
	w := s.in.w
	digests, second := w.digests, bytes.Equal(t.CertSHA256, digestOf(w.keys.before[0].Raw))
	if second {
		digests = w.seconds
	}
	w.mu.Lock()
	if digests[tx] == nil {
		digests[tx] = map[string]bool{}
	}
	digests[tx][hex.EncodeToString(t.Digest())] = true
	w.mu.Unlock()
	if !second { // which is over the first, whatever the record says by then
		s.in.mustBeCurrent(tx)
		s.in.mustNotBear(tx)
		s.in.mustBeAlone(tx)
		s.in.slowly(ctx, tx)
	}
	return s.Sealer.Redeem(ctx, t)
}

func digestOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// justNow is the time between the last look at a record and the use of the key for which nobody can be blamed.
const justNow = 3 * time.Minute

// mustBeCurrent holds the moment at which the key is used against what people have done to the record: what is sealed is
// what they see, unless they have said otherwise.
func (in *incarnation) mustBeCurrent(tx deal.TxID) {
	w := in.w
	sl, err := in.store.Load(context.Background(), tx)
	if err != nil || len(sl.Facts.Released) > 0 {
		return
	}
	crm, _ := sl.Account.Split()
	d := w.dealByID(sl.Change.Ref.ID)
	w.mu.Lock()
	moved, changed, won := d.moved, d.changed, d.stage == sl.Plan.Stage
	w.mu.Unlock()
	won = won || w.stageOf(crm, d) == sl.Plan.Stage // a request may have come after we had moved it
	if !won && w.script.IfLeft != "seal" && time.Since(moved) > justNow {
		w.violation("%s: the key was used for %s %s, which had left its stage %s ago", tx, crm, d.id, time.Since(moved))
	}
	if sl.Facts.Gathered.Before(changed) && time.Since(changed) > justNow {
		w.violation("%s: the key was used for what %s %s was %s ago", tx, crm, d.id, time.Since(changed))
	}
}

// simFiles are the store's files on a disk that fails when it is told to.
type simFiles struct {
	files
	in *incarnation
}

func (f simFiles) Stage(ctx context.Context, tx deal.TxID, name string, write func(io.Writer) error) (fact deal.FileFact, err error) {
	err = f.in.commit(func() error {
		fact, err = f.files.Stage(ctx, tx, name, write)
		return err
	})
	return fact, err
}

func (f simFiles) OpenStaged(ctx context.Context, tx deal.TxID, name string, want deal.FileFact) (deal.File, io.Closer, error) {
	if err := f.in.gate(); err != nil {
		return deal.File{}, nil, err
	}
	return f.files.OpenStaged(ctx, tx, name, want)
}

func (f simFiles) Unstage(ctx context.Context, tx deal.TxID) error {
	return f.in.commit(func() error { return f.files.Unstage(ctx, tx) })
}

func (f simFiles) Keep(ctx context.Context, s *deal.Sealing, staged string, evidence map[string][]byte) (folder string, err error) {
	err = f.in.commit(func() error {
		folder, err = f.files.Keep(ctx, s, staged, evidence)
		return err
	})
	return folder, err
}

// commit does something durable, unless the incarnation is dead or the disk fails: before it, or after it, so that nobody
// is told.
func (in *incarnation) commit(do func() error) error {
	if err := in.gate(); err != nil {
		return err
	}
	strikes := in.w.diskStrikes()
	if strikes == "before" {
		return errDisk
	}
	err := do()
	if dead := in.gate(); dead != nil {
		return dead
	}
	if strikes == "after" && err == nil {
		return errDisk
	}
	return err
}

func (w *simWorld) diskStrikes() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.disk.With == 0:
		return ""
	case w.disk.Skip > 0:
		w.disk.Skip--
		return ""
	}
	w.disk.With--
	return w.disk.What
}

// simLedger is the real store as one incarnation sees it, which also wakes the queue.
type simLedger struct {
	*store.Store
	in *incarnation
}

func (l simLedger) Activate(ctx context.Context, tenant deal.TenantID, account deal.AccountID, w deal.Watch, at time.Time) (since time.Time, err error) {
	err = l.in.commit(func() error {
		since, err = l.Store.Activate(ctx, tenant, account, w, at)
		return err
	})
	return since, err
}

// Notice commits every page that says something twice: the second time it is stale.
func (l simLedger) Notice(ctx context.Context, n deal.Noticing) (fresh []deal.TxID, err error) {
	err = l.in.commit(func() error {
		if fresh, err = l.Store.Notice(ctx, n); err != nil {
			return err
		}
		l.in.w.know(fresh)
		if len(n.Page.Entries) > 0 && n.Page.Next != n.Previous {
			if again, err := l.Store.Notice(ctx, n); len(again) > 0 || err == nil {
				l.in.w.violation("a page was taken in twice: %v, %v", again, err)
			}
		}
		for _, c := range n.Page.Entries { // known ones, too: a merge changes what their record should show
			for _, tx := range c.TxIDs(n.Account) {
				l.in.moved(tx)
			}
		}
		return nil
	})
	return fresh, err
}

func (w *simWorld) know(fresh []deal.TxID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tx := range fresh {
		w.noticed[tx] = true
	}
}

func (l simLedger) Load(ctx context.Context, tx deal.TxID) (*deal.Sealing, error) {
	if err := l.in.gate(); err != nil {
		return nil, err
	}
	s, err := l.Store.Load(ctx, tx)
	if late, ok := ctx.Value(lateKey{}).(time.Duration); ok {
		select {
		case <-time.After(late):
		case <-ctx.Done():
		}
	}
	return s, err
}

func (l simLedger) Begin(ctx context.Context, s *deal.Sealing, i deal.Intent) error {
	return l.in.commit(func() error { return l.intend(ctx, s, i) })
}

func (l simLedger) Advance(ctx context.Context, s *deal.Sealing, e deal.Entry) error {
	return l.in.commit(func() error {
		l.in.steps.over(s.Tx, workerOf(ctx))
		at := time.Now()
		err := l.change(ctx, s, e.What, func() error { return l.Store.Advance(ctx, s, e) })
		if err == nil && e.Then != nil {
			l.in.steps.begun(ctx, s.Tx, at.Add(e.Then.Lease))
		}
		if err == nil {
			l.in.took(s)
		}
		return err
	})
}

func (l simLedger) Identify(ctx context.Context, s *deal.Sealing, ids []string) error {
	return l.in.commit(func() error {
		err := l.Store.Identify(ctx, s, ids)
		l.in.moved(s.Tx)
		return err
	})
}

func (l simLedger) Told(ctx context.Context, tx deal.TxID, sequence int64, again time.Duration) error {
	return l.in.commit(func() error {
		defer l.in.queue.told(tx, again) // also where the daemon dies right after it
		if err := l.Store.Told(ctx, tx, sequence, again); err != nil {
			return err
		}
		return l.Store.Told(ctx, tx, sequence, again)
	})
}

func (l simLedger) BeginErrand(ctx context.Context, e deal.Errand) error {
	return l.in.commit(func() error { return l.Store.BeginErrand(ctx, e) })
}

func (l simLedger) FollowUps(ctx context.Context) (n int, err error) {
	err = l.in.commit(func() error {
		if n, err = l.Store.FollowUps(ctx); n > 0 {
			l.in.untold()
		}
		return err
	})
	return n, err
}

func (l simLedger) EndErrand(ctx context.Context, e deal.Errand) error {
	return l.in.commit(func() error { return l.Store.EndErrand(ctx, e) })
}

func (l simLedger) Refused(ctx context.Context, tx deal.TxID, sequence int64, reason string) error {
	return l.in.commit(func() error { return l.Store.Refused(ctx, tx, sequence, reason) })
}

func (l simLedger) SetPoll(ctx context.Context, p deal.PollState) error {
	return l.in.commit(func() error { return l.Store.SetPoll(ctx, p) })
}
