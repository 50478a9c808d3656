// Package hubspot is the connector to HubSpot: stage entries from the history of the property dealstage, records through
// the objects and associations APIs, sealed files as private files on a note, receipts as deal properties.
//
// Search only says which deals may have moved. It lags behind the records, knows no history and forgets a stage that was
// left again, so every deal that it names is read with its history before anything is concluded.
//
// Every call goes through one transport (wire), which owns the token, the rate limits and the headers. resty carries the
// calls, but never a retry, a body that it would have to hold in memory, or a failure that it could log.
package hubspot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

var (
	_ connectors.CRM      = (*Connector)(nil)
	_ connectors.Bundler  = (*Connector)(nil)
	_ connectors.Direct   = (*Connector)(nil)
	_ connectors.Files    = (*Connector)(nil)
	_ connectors.Metered  = (*Connector)(nil)
	_ connectors.Prober   = (*Connector)(nil)
	_ connectors.Retirer  = (*Connector)(nil)
	_ connectors.Surveyor = (*Connector)(nil)

	_ connectors.Provisioner = (*Connector)(nil)
	_ connectors.Resolver    = (*Connector)(nil)
	_ connectors.Sampler     = (*Connector)(nil)
)

// Connector is one HubSpot account (portal). It is safe for concurrent use. What it remembers between calls only saves
// calls: a restart loses nothing. What it does itself it does for deals; quotes is its twin for quotes, which shares the way
// to the account and nothing that is remembered of records.
type Connector struct {
	kind     kind
	quotes   *Connector // nil in the twin
	cfg      Config
	log      *slog.Logger
	observer *connectors.Observer
	wire     *wire
	schema   *schema
	seen     *seen
	turns    *turns
	told     *told
	fresh    *fresh
	slow     *connectors.Unsettled // records with a receipt that got no answer in time
	late     *connectors.Unsettled // records with a task that got none: another one would be made beside it
	// What deals that wait at the same time ask for together.
	deals     connectors.Line[string, dealData]
	belonging connectors.Line[[]string, []object]
	updates   connectors.Line[update, written]
	newNotes  connectors.Line[[]noteInput, noteStamp]
	uploads   *uploads
	types     sync.Map // of associations, by the name of the other end

	itself *itself
}

// itself is what HubSpot has said of the account.
type itself struct {
	mu      sync.Mutex
	account *account // nil until HubSpot was asked
}

// Deps are what a connector is given by the assembly.
type Deps struct {
	// Transport carries the calls; nil means one with the usual time-outs. Redirects are never followed.
	Transport http.RoundTripper
	// Log takes what an operator should know; nil discards it.
	Log *slog.Logger
	// Memory keeps the newest refresh token. Only the flow oauth needs it.
	Memory connectors.Memory
}

// NewTransport is what carries calls when nothing else is given.
func NewTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = mostTime
	return t
}

// New checks cfg and makes a connector. It makes no call: the first one asks for a token.
func New(cfg Config, deps Deps) (*Connector, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Auth.Flow == FlowOAuth && deps.Memory == nil {
		return nil, errors.New("hubspot: auth.flow oauth needs a memory for the refresh tokens that HubSpot replaces")
	}
	if deps.Transport == nil {
		deps.Transport = NewTransport()
	}
	c := &Connector{
		cfg:    cfg,
		log:    cmp.Or(deps.Log, slog.New(slog.DiscardHandler)),
		itself: &itself{},
	}
	c.observer = &connectors.Observer{Next: deps.Transport, Endpoint: endpoint(cfg.BaseURL), Log: c.log}
	c.wire = newWire(cfg, c.observer, c.log)
	c.wire.session = newSession(c.newTokens(deps.Memory))
	c.schema = newSchema(c.describe)
	c.remember(deals)
	c.quotes = &Connector{cfg: c.cfg, log: c.log, observer: c.observer, wire: c.wire, schema: c.schema, itself: c.itself}
	c.quotes.remember(quotes)
	return c, nil
}

// remember begins to remember records of an object.
func (c *Connector) remember(k kind) {
	c.kind = k
	c.seen, c.turns, c.told, c.fresh, c.uploads = newSeen(c.cfg.LookBack), newTurns(), newTold(), newFresh(), newUploads()
	c.slow, c.late = connectors.NewUnsettled(c.settle()), connectors.NewUnsettled(c.settleLate())
	c.deals.Most, c.deals.Together = objectBatch, c.askDeals
	c.belonging.Most, c.belonging.Together = objectBatch, c.askObjects
	c.updates.Most, c.updates.Together = objectBatch, c.writeAll
	c.newNotes.Most, c.newNotes.Together = objectBatch/2, c.makeNotes
	c.newNotes.Gather = c.uploads.wait
	c.updates.Gather = c.waitForUpdates
}

// Retire implements connectors.Retirer.
func (c *Connector) Retire() { c.observer.Retire() }

// Budget implements connectors.Metered: the calls of the day, as the last reply reported them. HubSpot reports them to
// apps with a static token only, and never in the reply to a search.
func (c *Connector) Budget() deal.Budget { return c.wire.gauge.read() }

// account is what HubSpot says of itself.
type account struct {
	deal.Account
	uiDomain string
	zone     *time.Location
}

// page is HubSpot's own page of a record.
func (a *account) page(k kind, id string) string {
	return "https://" + a.uiDomain + "/contacts/" + a.ID + "/record/" + k.typeID + "/" + id
}

// Identity implements connectors.CRM. It is one call and always made, so that it proves the login and reads the clock.
func (c *Connector) Identity(ctx context.Context) (deal.Account, error) {
	a, err := c.askAccount(ctx)
	if err != nil {
		return deal.Account{}, fmt.Errorf("hubspot: ask which account this is: %w", err)
	}
	return a.Account, nil
}

func (c *Connector) askAccount(ctx context.Context) (*account, error) {
	var said struct {
		PortalID    int64  `json:"portalId"`
		AccountType string `json:"accountType"`
		TimeZone    string `json:"timeZone"`
		UIDomain    string `json:"uiDomain"`
	}
	r, err := c.getJSON(ctx, "/account-info/"+c.cfg.APIVersion+"/details", nil, &said)
	if err != nil {
		return nil, err
	}
	if said.PortalID <= 0 {
		return nil, malformed("it names no account")
	}
	if r.date.IsZero() {
		return nil, malformed("it has no Date header, and no other clock may be used")
	}
	a := &account{
		Account: deal.Account{
			Kind: deal.HubSpot, ID: strconv.FormatInt(said.PortalID, 10), Name: fmt.Sprintf("HubSpot account %d", said.PortalID),
			Sandbox:  said.AccountType == "SANDBOX" || said.AccountType == "DEVELOPER_TEST",
			TimeZone: said.TimeZone, Clock: r.date,
		},
		uiDomain: "app.hubspot.com",
		zone:     time.UTC,
	}
	if hostForm.MatchString(said.UIDomain) {
		a.uiDomain = said.UIDomain
	}
	if zone, err := time.LoadLocation(said.TimeZone); err == nil {
		a.zone = zone
	}
	c.itself.mu.Lock()
	c.itself.account = a
	c.itself.mu.Unlock()
	c.wire.setZone(a.zone)
	return a, nil
}

// knownAccount asks once.
func (c *Connector) knownAccount(ctx context.Context) (*account, error) {
	c.itself.mu.Lock()
	a := c.itself.account
	c.itself.mu.Unlock()
	if a != nil {
		return a, nil
	}
	return c.askAccount(ctx)
}

// mayBegin refuses new work while the calls of the day are nearly used up; what runs already is not asked. A reading that
// is old is taken again first, because searches report nothing.
func (c *Connector) mayBegin(ctx context.Context) error {
	b := c.wire.gauge.read()
	if b.Share() >= scarce && time.Since(b.At) >= stale {
		if _, err := c.askAccount(ctx); err != nil {
			return err
		}
		b = c.wire.gauge.read()
	}
	if b.Share() < scarce {
		return nil
	}
	return &Error{class: passing, after: stale - time.Since(b.At), cure: fmt.Sprintf(
		"%d of %d API calls of the day are used: nothing new is begun, running deals are finished", b.Used, b.Max)}
}
