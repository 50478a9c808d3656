package engine

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/store"
)

// reload sets tenants and makes the pollers that Run would start for those that are others now.
func (d *daemon) reload(tenants ...Tenant) {
	d.t.Helper()
	d.SetTenants(tenants)
	now, _ := d.tenants.now()
	d.pollers = slices.DeleteFunc(d.pollers, func(p *poller) bool { return now[p.tenant.ID] != p.tenant })
	for _, t := range now {
		if !slices.ContainsFunc(d.pollers, func(p *poller) bool { return p.tenant == t }) {
			d.pollers = append(d.pollers, d.newPoller(t))
		}
	}
}

// identified counts how often the org was asked who it is.
func (w *world) identified() (n int) {
	for _, r := range w.org.Requests() {
		if strings.Contains(r.Query, "FROM Organization") {
			n++
		}
	}
	return n
}

func TestATenantThatIsTheSameAfterAReloadIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	asked, was := w.identified(), d.pollers[0]
	for range 3 {
		d.reload(slices.Clone(d.Tenants)...)
		d.poll()
	}
	if n := w.identified(); n != asked || d.pollers[0] != was {
		t.Errorf("the org was asked who it is %d times more, and the poller is the same: %v", n-asked, d.pollers[0] == was)
	}
}

func TestARuleOfAReloadStartsAtTheTimeOfTheReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	d.poll()
	w.clock.advance(time.Hour)
	before := w.deal()
	w.move(before, stageLost)
	w.clock.advance(time.Minute)

	later := w.rule(func(p *deal.Plan) { p.Rule, p.Stage = "later", stageLost })
	later.StartFrom = time.Time{} // now, on the CRM's clock
	tenant := d.Tenants[0]
	tenant.Rules = append(slices.Clone(tenant.Rules), later)
	d.reload(tenant)
	if fresh := d.poll(); len(fresh) != 0 {
		t.Fatalf("%d entries from before the reload are taken in", len(fresh))
	}
	w.clock.advance(time.Second)
	after := w.deal()
	w.move(after, stageLost)
	if s := d.load(d.notice()); s.Change.Ref.ID != after {
		t.Errorf("%s was noticed, want %s", s.Change.Ref, after)
	}
}

func TestADealUnderWayTakesTheNewConnectorAndKeepsItsPlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	tx := d.notice()
	good, login, tenant := d.Tenants[0].CRM, w.login, d.Tenants[0]
	w.login = w.secretFile("the secret of last year")
	tenant.CRM = w.connector()
	w.login = login
	d.reload(tenant)
	d.handle(tx)
	if s := d.load(tx); s.Condition != deal.Retrying || s.Attempts != 0 {
		t.Fatalf("with a login that is refused the deal is %s after %d attempts, want to wait for it", s.Condition, s.Attempts)
	}
	tenant.CRM = good
	tenant.Rules = []Rule{w.rule(func(p *deal.Plan) { p.Attachment = "another*.pdf" })}
	d.reload(tenant)
	d.finish()
	d.wantDone(d.load(tx)) // with the quotation that its plan names
}

func TestADealWhoseTenantIsConnectedElsewhereGoesOnOnceThatIsMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	tx := d.notice()
	elsewhere := newWorld(t)
	elsewhere.open(mock.Options{OrgID: "00DWs00000ELSEW", Sandbox: true})
	tenant := d.Tenants[0]
	tenant.CRM = elsewhere.connector()
	d.reload(tenant)
	d.finish()
	d.want(d.load(tx), deal.Held, deal.Noticed, "[account] ")
	d.reload(d.Tenants...)
	d.release(tx)
	d.finish()
	d.wantDone(d.load(tx))
}

// lastMoment calls do once, just before the ledger takes an entry that ends a step otherwise than well.
type lastMoment struct {
	Ledger
	do func()
}

func (l *lastMoment) Advance(ctx context.Context, s *deal.Sealing, e deal.Entry) error {
	if do := l.do; do != nil && s.Condition != deal.Running {
		l.do = nil
		do()
	}
	return l.Ledger.Advance(ctx, s, e)
}

// A reload lets go on what the ledger has waiting; here it comes when the step has judged, and the ledger does not know it
// yet.
func TestAReloadThatLandsWhileAStepEndsLeavesNoDealBehind(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]func(*world, Tenant) []Tenant{
		"no tenant": func(*world, Tenant) []Tenant { return nil },
		"another account": func(w *world, tenant Tenant) []Tenant {
			elsewhere := newWorld(w.t)
			elsewhere.open(mock.Options{OrgID: "00DWs00000ELSEW", Sandbox: true})
			tenant.CRM = elsewhere.connector()
			return []Tenant{tenant}
		},
		"a login that is refused": func(w *world, tenant Tenant) []Tenant {
			login := w.login
			w.login = w.secretFile("the secret of last year")
			tenant.CRM = w.connector()
			w.login = login
			return []Tenant{tenant}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.daemon()
			d.Retry = Retry{First: time.Second, Max: 30 * time.Minute, Attempts: 12}
			w.won()
			tx := d.notice()
			right := slices.Clone(d.Tenants)
			d.reload(wrong(w, right[0])...)
			landed := false
			d.Ledger = &lastMoment{d.store, func() { landed = true; d.reload(right...) }}
			d.handle(tx)
			if !landed {
				t.Fatal("the step went well")
			}
			w.clock.advance(time.Second)
			d.work()
			d.wantDone(d.load(tx))
		})
	}
}

func TestTenantsComeAndGoWhileTheDaemonRuns(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t)
	d := w.daemon()
	p, record, tenant := w.hubspotTenant()
	one, two := d.Tenants[0], tenant
	one.Poll = 10 * time.Millisecond
	pprof.SetGoroutineLabels(pprof.WithLabels(t.Context(), pprof.Labels("test", t.Name())))
	done := d.start(2)
	d.Queue.(queue).SetTenants([]deal.TenantID{acme, contoso})
	for range 50 {
		d.SetTenants([]Tenant{one})
		awaitPollers(t, 1)
		d.SetTenants([]Tenant{one, two})
		awaitPollers(t, 2)
	}
	opportunity := w.won()
	must(t, p.MoveStage(record, "closedwon"))
	within(t, "the deals of both are done", done)
	w.wantContracts(opportunity, 1)
}

func awaitPollers(t *testing.T, want int) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for n := pollers(t); n != want; n = pollers(t) {
		select {
		case <-deadline:
			t.Fatalf("%d pollers run, want %d", n, want)
		case <-time.After(time.Millisecond):
		}
	}
}

// pollers counts the goroutines that poll, of those that were started with the test's label.
func pollers(t *testing.T) (n int) {
	t.Helper()
	var profile bytes.Buffer
	must(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
	for group := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(group, t.Name()) && strings.Contains(group, "(*poller).run") {
			var alike int
			_, err := fmt.Sscanf(group, "%d @", &alike)
			must(t, err)
			n += alike
		}
	}
	return n
}

func TestAStopLetsTheStepFinishAndBeginsNoOther(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t)
	d := w.daemon()
	ctx, stop := context.WithCancel(t.Context())
	d.Hook = func(p string) {
		if p == "gather.call.record/before" {
			stop()
		}
	}
	d.Tenants[0].Poll = 10 * time.Millisecond
	d.Queue = queue{d.store.Queue(store.Workers{Tenants: []deal.TenantID{acme}})}
	w.won()
	must(t, d.Run(ctx))
	for tx := range d.all() {
		if s := d.load(tx); s.Step != deal.Gathered || s.Condition != deal.Running {
			t.Errorf("after the stop the deal is %s at %q, want running at gathered", s.Condition, s.Step)
		}
		return
	}
	t.Error("no deal was noticed")
}
