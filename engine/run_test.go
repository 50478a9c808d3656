package engine

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors/hubspot"
	"github.com/dealseal/dealseal/deal"
	portal "github.com/dealseal/dealseal/mocks/crm/hubspot"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/store"
)

const contoso = deal.TenantID("contoso")

// hubspotTenant makes a portal, with a deal that carries a quotation, and the tenant that watches it.
func (w *world) hubspotTenant() (p *portal.Portal, record string, tenant Tenant) {
	w.t.Helper()
	const token = "pat-eu1-engine"
	none := portal.Limits{TenSecondly: -1, Daily: -1, SearchSecondly: -1, Associations: -1}
	p = portal.New(portal.Options{Now: w.now, AccountType: "SANDBOX", Tokens: []portal.Token{{Value: token}}, Limits: none})
	for _, f := range portal.WriteBackProperties() {
		must(w.t, p.AddProperty("deals", f))
	}
	record = w.id(p.CreateDeal(map[string]string{"dealname": canary, "pipeline": "default", "dealstage": "appointmentscheduled"}))
	w.id(p.AddFile(record, "Quote.pdf", document("", 1)))
	url := w.serve(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", w.now().UTC().Format(http.TimeFormat))
		p.ServeHTTP(rw, r)
	})
	crm, err := hubspot.New(hubspot.Config{BaseURL: url, Rate: 100_000, SearchRate: 10_000,
		Auth: hubspot.Auth{Flow: hubspot.FlowToken, Token: w.secretFile(token)}}, hubspot.Deps{Memory: forgetful{}})
	must(w.t, err)
	rule := w.rule(func(p *deal.Plan) {
		p.Stage = "closedwon"
		words := map[deal.Status]string{}
		for _, s := range deal.Statuses {
			words[s.Status] = string(s.Status)
		}
		p.WriteBack = deal.WriteBack{TransactionID: "dealseal_transaction_id", Status: "dealseal_status", SignedAt: "dealseal_signed_at", URL: "dealseal_document_url", Audit: "dealseal_audit",
			Words: words}
	})
	rule.Watch.Object, rule.Watch.Pipeline = "deals", "default"
	return p, record, Tenant{ID: contoso, Name: "Contoso", CRM: crm, Poll: 10 * time.Millisecond, Rules: []Rule{rule}}
}

// forgetful is the memory of a connector whose token never changes.
type forgetful struct{}

func (forgetful) Get(context.Context, string) ([]byte, int64, error) { return nil, 0, nil }
func (forgetful) Put(context.Context, string, []byte, int64) error   { return nil }

// start lets the daemon run by itself until the test ends. done closes when n deals are done.
func (d *daemon) start(n int) (done <-chan struct{}) {
	d.t.Helper()
	var tenants []deal.TenantID
	for i := range d.Tenants {
		tenants = append(tenants, d.Tenants[i].ID)
		d.Tenants[i].Poll = 10 * time.Millisecond
	}
	d.Queue = queue{d.store.Queue(store.Workers{Tenants: tenants})}
	reached := make(chan struct{})
	var mu sync.Mutex
	d.Hook = func(p string) {
		mu.Lock()
		defer mu.Unlock()
		if p != "finish.advance.done/after" {
			return
		}
		if n--; n == 0 {
			close(reached)
		}
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Errorf("the daemon ended with %v", err)
		}
		d.close()
	})
	return reached
}

func TestTheDaemonSealsTheDealsOfBothCRMsByItself(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t)
	d := w.daemon()
	p, record, tenant := w.hubspotTenant()
	d.addTenant(tenant)
	d.Tenants[0].Rules = []Rule{w.rule(withTemplate(t))}
	done := d.start(2)
	opportunity := w.won()
	must(t, p.MoveStage(record, "closedwon"))
	within(t, "both deals are done", done)

	w.wantUses(2)
	w.wantContracts(opportunity, 1)
	w.wantShown(opportunity, "Signed")
	files, err := p.Files(record)
	must(t, err)
	sealed := slices.DeleteFunc(files, func(f portal.File) bool { return !strings.Contains(string(f.Content), "/ByteRange") })
	shown, err := p.Record(record)
	must(t, err)
	if len(sealed) != 1 || shown.Properties["dealseal_status"] != "signed" {
		t.Errorf("HubSpot's record bears %d sealed files and shows %q", len(sealed), shown.Properties["dealseal_status"])
	}
}

func TestATenantWhoseCRMHangsDelaysNoOther(t *testing.T) {
	t.Parallel()
	w := newRealWorld(t)
	d := w.daemon()
	p, record, tenant := w.hubspotTenant()
	d.addTenant(tenant)
	hangs := make(chan struct{})
	w.at(func(r *http.Request) bool { return strings.Contains(r.URL.Query().Get("q"), "FROM OpportunityHistory") }, func() { close(hangs) })
	w.fault(mock.Fault{Kind: mock.KindQuery, Path: "FROM OpportunityHistory", Effect: mock.Slow, Delay: time.Hour})
	done := d.start(1)
	within(t, "the one CRM hangs", hangs)
	must(t, p.MoveStage(record, "closedwon"))
	within(t, "the deal of the other is done", done)
}
