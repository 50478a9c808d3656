package engine

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors/connectortest"
	"github.com/dealseal/dealseal/connectors/hubspot"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
	portal "github.com/dealseal/dealseal/mocks/crm/hubspot"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
)

// Where the servers of a simulation are, to its own dialer.
const (
	hostSalesforce = "127.0.0.1:1"
	hostHubSpot    = "127.0.0.1:2"
	hostPKI        = "127.0.0.1:3"
)

// simWorld is what surrounds a simulated daemon, all of it inside one bubble of testing/synctest: two CRMs, a certificate
// authority and the house's key, reached over pipes. It outlives every incarnation of the daemon.
type simWorld struct {
	*world // of the key, the authority and the checker; its org is the simulation's
	portal *portal.Portal
	script simScript
	kit    simKit
	start  time.Time
	pipes  map[string]*connectortest.Pipe
	skew   map[deal.Kind]time.Duration // under mu

	people  chan struct{} // holds a value while somebody does something to a deal: whoever waits for a mutex stops a bubble's clock
	looking sync.Mutex
	shown   map[string]int64 // the newest sequence that a record has shown

	mu      sync.Mutex
	dice    *rand.Rand
	log     strings.Builder
	wrong   []string // what must not be
	deals   map[deal.Kind][]*simDeal
	entries []*simEntry
	noticed map[deal.TxID]bool
	jobs    simTimetable
	// requests are what programs have asked for, by key.
	requests map[string]*simRequest
	digests  map[deal.TxID]map[string]bool // that went to the key
	seconds  map[deal.TxID]map[string]bool // of second seals
	keys     *following                    // two seals are asked for in every other ten minutes
	disk     simEvent                      // the commits that still fail
	double   int                           // the jobs that are still handed out twice
	crash    simEvent                      // the point at which the daemon dies
	slow     simEvent                      // the key, for the transaction that it has just failed for
	bears    map[deal.TxID]time.Time       // since when a record bears the contract
	sever    map[deal.Kind]simEvent        // the write after which the daemon dies or is deaf
	tardy    map[deal.Kind]bool            // that has carried out a write that nobody waited for any more
	deaf     map[deal.Kind]time.Time       // until when nothing arrives of what a CRM says
	clocked  map[deal.Kind]bool            // whose clock was set
	lag      map[deal.Kind]time.Duration   // after which it is seen what people have done
	checked  [][]byte                      // checkpoints that somebody has kept
	backup   *simBackup                    // the newest
	up       *incarnation
	down     time.Duration // until the next start
	// meanwhile people go on with the deals.
	meanwhile bool
	over      bool // nothing is started any more
}

// simDeal is a record in a CRM as its salespeople know it.
type simDeal struct {
	id    string
	stage string
	gone  bool
	out   bool     // the filter leaves it out
	into  *simDeal // what it was merged into
	// moved is when it was seen to have entered or left its stage, changed when what goes into its document was.
	moved, changed time.Time
}

func (d *simDeal) now() *simDeal {
	for d.into != nil {
		d = d.into
	}
	return d
}

// simEntry is one time that a deal entered the stage, as whoever moved it saw it.
type simEntry struct {
	crm        deal.Kind
	record     string // at that time
	occurrence string
	deal       *simDeal
	// excused entries need not be sealed: their record was deleted or merged before the daemon had noticed them.
	excused bool
}

func (w *simWorld) tx(e *simEntry) deal.TxID {
	account, object := w.account(e.crm)
	return deal.NewTxID(account, deal.Ref{Object: object, ID: e.record}, ruleID, e.occurrence)
}

func (w *simWorld) account(crm deal.Kind) (deal.AccountID, string) {
	if crm == deal.HubSpot {
		return deal.AccountID("hubspot:62515"), hubspot.Object
	}
	return deal.AccountID("salesforce:" + w.org.ID()), salesforce.Object
}

const ruleID = "memo"

// filters are what the rules of a filtered house ask of a record, and leftOut is what the field says of one that they leave out.
var filters = map[deal.Kind]string{deal.Salesforce: "NextStep != '" + leftOut + "'", deal.HubSpot: "amount != " + leftOut}

const leftOut = "4711"

// simStart is when simulated time begins, instead of the year 2000, in which a bubble does.
var simStart = time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC)

// newSimWorld must be called inside the bubble. login is where the secrets are.
func newSimWorld(t *testing.T, s simScript, k simKit) *simWorld {
	time.Sleep(time.Until(simStart))
	w := &simWorld{script: s, kit: k, start: time.Now(), people: make(chan struct{}, 1), pipes: map[string]*connectortest.Pipe{}, deals: map[deal.Kind][]*simDeal{}, noticed: map[deal.TxID]bool{}, jobs: simTimetable{}, requests: map[string]*simRequest{},
		bears: map[deal.TxID]time.Time{}, digests: map[deal.TxID]map[string]bool{}, seconds: map[deal.TxID]map[string]bool{}, shown: map[string]int64{}, sever: map[deal.Kind]simEvent{}, deaf: map[deal.Kind]time.Time{}, tardy: map[deal.Kind]bool{}, clocked: map[deal.Kind]bool{}, lag: map[deal.Kind]time.Duration{}, skew: map[deal.Kind]time.Duration{deal.Salesforce: s.Skew[0], deal.HubSpot: s.Skew[1]}}
	w.world, w.dice = &world{t: t, now: time.Now}, rand.New(rand.NewPCG(s.Seed, 0xd1ce))
	w.org = mock.New(mock.Options{Sandbox: true, Now: w.clockOf(deal.Salesforce), ConsumerKey: "engine", ClientSecret: k.secret, RequestLimit: 10_000})
	none := portal.Limits{TenSecondly: -1, Daily: -1, SearchSecondly: -1, Associations: -1}
	w.portal = portal.New(portal.Options{AccountType: "SANDBOX", Tokens: []portal.Token{{Value: k.secret}}, Limits: none, Now: w.clockOf(deal.HubSpot)})
	for _, f := range portal.WriteBackProperties() {
		must(t, w.portal.AddProperty("deals", f))
	}
	var err error
	w.authority, err = pki.New(pki.Options{BaseURL: "http://" + hostPKI, Now: time.Now, Hang: 20 * time.Second})
	must(t, err)
	w.key = newHouse(t, w.authority)
	before, err := w.authority.IssueSignerValid(w.key.Public(), sealSubject, simStart.Add(-time.Hour), simStart.Add(365*24*time.Hour))
	must(t, err)
	w.keys = &following{house: w.key, before: before, beside: func() bool { return time.Since(simStart)/(10*time.Minute)%2 == 0 }}
	w.serveOver(hostSalesforce, w.watching(deal.Salesforce, w.org))
	w.serveOver(hostHubSpot, w.watching(deal.HubSpot, w.portal))
	w.serveOver(hostPKI, w.authority)
	return w
}

// random spreads the daemon's waits in the same way each time that a seed is run.
func (w *simWorld) random(n int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dice.Int64N(n)
}

// clockOf is the machine's clock as a CRM has set it.
func (w *simWorld) clockOf(crm deal.Kind) func() time.Time {
	return func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return time.Now().Add(w.skew[crm])
	}
}

func (w *simWorld) serveOver(host string, h http.Handler) {
	w.pipes[host] = connectortest.NewPipe(host)
	w.pipes[host].Serve(w.t, h)
}

// watching looks at the records after every call: what they show of a receipt only ever grows, but for a call that its
// client has given up, which nobody can call back.
func (w *simWorld) watching(crm deal.Kind, h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		in, began := w.daemon(), time.Now()
		defer func() {
			if r.Method == http.MethodPatch || r.Method == http.MethodPost {
				late := in != w.daemon() || time.Since(began) >= crmLimit
				w.look(crm, late)
				if late {
					w.mu.Lock()
					w.tardy[crm] = true
					w.mu.Unlock()
				}
			}
		}()
		rw.Header().Set("Date", w.clockOf(crm)().UTC().Format(http.TimeFormat)) // not net/http's, which knows the machine's clock only
		h.ServeHTTP(rw, r)
		if write := writeOf(r); write == "upload" || write == "note" {
			w.borne(crm)
		}
		w.hear(crm, in, r)
	})
}

// writeOf names a write whose effect must not be doubled, empty for all other calls.
func writeOf(r *http.Request) string {
	switch path := r.URL.Path; {
	case r.Method == http.MethodPatch:
		return "update"
	case r.Method != http.MethodPost:
		return ""
	case strings.HasSuffix(path, "/sobjects/ContentVersion"), strings.HasSuffix(path, "/composite"), strings.HasPrefix(path, "/files/"):
		return "upload"
	case strings.HasSuffix(path, "/sobjects/Task"), strings.HasSuffix(path, "/tasks"):
		return "task"
	case strings.HasSuffix(path, "/notes"), strings.HasSuffix(path, "/notes/batch/create"):
		return "note"
	case strings.HasSuffix(path, "/batch/update"):
		return "update"
	}
	return ""
}

// hear loses what a CRM answers when the script says so: the daemon dies at that moment, or hears nothing for a while.
func (w *simWorld) hear(crm deal.Kind, in *incarnation, r *http.Request) {
	w.mu.Lock()
	e, deaf := w.sever[crm], time.Now().Before(w.deaf[crm])
	hit := e.Verb == doSever && e.Call == writeOf(r)
	if hit && e.Skip > 0 {
		e.Skip--
		w.sever[crm], hit = e, false
	}
	if hit {
		delete(w.sever, crm)
		if e.What == "deaf" {
			w.deaf[crm] = time.Now().Add(e.For)
		} else if in != nil {
			w.down = e.For
		}
	}
	w.mu.Unlock()
	if hit {
		w.trace("%s has done an %s, and nobody hears of it", crm, e.Call)
		if e.What != "deaf" && in != nil {
			in.kill("when " + e.Call + " was done")
		}
	}
	if hit || deaf {
		panic(http.ErrAbortHandler)
	}
}

func (w *simWorld) look(crm deal.Kind, late bool) {
	w.looking.Lock()
	defer w.looking.Unlock()
	w.mu.Lock()
	deals := slices.Clone(w.deals[crm])
	w.mu.Unlock()
	for _, d := range deals {
		if d = d.now(); d.gone {
			continue
		}
		a, ok := w.audit(crm, d)
		key := string(crm) + d.id
		if was := w.shown[key]; ok && a.Sequence < was && !late {
			w.violation("%s %s showed receipt %d and then the older %d", crm, d.id, was, a.Sequence)
		}
		w.shown[key] = a.Sequence
	}
}

// field is what a record shows, empty for a record that is gone.
func (w *simWorld) field(crm deal.Kind, d *simDeal, salesforceName, hubspotName string) string {
	if crm == deal.HubSpot {
		r, err := w.portal.Record(d.id)
		if err != nil {
			return ""
		}
		return r.Properties[hubspotName]
	}
	fields, _ := w.org.Record(d.id)
	if fields[salesforceName] == nil {
		return ""
	}
	return fmt.Sprint(fields[salesforceName])
}

func (w *simWorld) audit(crm deal.Kind, d *simDeal) (deal.AuditRecord, bool) {
	return deal.ReadAuditRecord(w.field(crm, d, fieldAudit, "dealseal_audit"))
}

func (w *simWorld) trace(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.log, "%12s  %s\n", time.Since(w.start).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

// Write takes the daemon's own log into the trace; it holds IDs and no record values.
func (w *simWorld) Write(p []byte) (int, error) {
	w.trace("  %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (w *simWorld) violation(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}
