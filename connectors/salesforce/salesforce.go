// Package salesforce is the connector to Salesforce: stage entries from the history of the watched objects, records through
// SOQL, sealed files as ContentVersion, receipts as an update of the record.
//
// An entry is a history row with an ID of its own. Every org writes them for Opportunity (OpportunityHistory); for Quote,
// Contract and Order only where an administrator has the status tracked, without which they are refused, unless a rule accepts
// that its entries are inferred from what records show (snapshot.go).
//
// Every call goes through one transport (wire), which owns the session, the headers, the allowance and the errors.
// simpleforce carries queries and single-record calls, resty the transfer of files. Neither ever sees a failure that it
// could log or misread: see errand.
package salesforce

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

var (
	_ connectors.CRM      = (*Connector)(nil)
	_ connectors.Bundler  = (*Connector)(nil)
	_ connectors.Edits    = (*Connector)(nil)
	_ connectors.Files    = (*Connector)(nil)
	_ connectors.Metered  = (*Connector)(nil)
	_ connectors.Prober   = (*Connector)(nil)
	_ connectors.Retirer  = (*Connector)(nil)
	_ connectors.Surveyor = (*Connector)(nil)
	_ connectors.Waker    = (*Connector)(nil)

	_ connectors.Provisioner = (*Connector)(nil)
	_ connectors.Resolver    = (*Connector)(nil)
	_ connectors.Sampler     = (*Connector)(nil)
)

// Connector is one Salesforce org. It is safe for concurrent use and holds nothing that a restart would lose.
type Connector struct {
	cfg      Config
	log      *slog.Logger
	observer *connectors.Observer
	wire     *wire
	schema   *schema
	before   *predecessors
	listed   listed
	edits    listed
	user     atomic.Pointer[string] // ours
	told     *receipts
	tracked  *trackings
	slow     *connectors.Unsettled // records with a receipt that got no answer in time
	late     *connectors.Unsettled // records with a task that got none: another one would be made beside it
	// What deals that wait at the same time ask for together.
	records connectors.Line[string, recordRow]
	links   connectors.Line[string, []map[string]any]
	patches connectors.Line[patch, time.Time]
	uploads connectors.Line[[]piece, []connectors.Answer[contentFile]]

	bus       *pubSub // nil when change events are not listened to
	memory    connectors.Memory
	schemasMu sync.Mutex
	schemas   map[string]*eventSchema // by their IDs
}

// Deps are what a connector is given by the assembly.
type Deps struct {
	// HTTP carries the calls; nil means a transport with the usual time-outs. Redirects are never followed.
	HTTP http.RoundTripper
	// Streams carries what speaks HTTP/2 only, the Pub/Sub API; nil means a transport with the usual time-outs.
	Streams http.RoundTripper
	// Memory keeps how far change events were read. Without it they are heard from each start on.
	Memory connectors.Memory
	// SignLogin signs a SHA-256 digest with a key of login_keys, by PKCS#1 v1.5. Needed where auth.hsm_key names one.
	SignLogin func(ctx context.Context, key string, digest []byte) ([]byte, error)
	// Log takes what an operator should know; nil discards it.
	Log *slog.Logger
	// Now paces calls (how old a reading of the allowance is). No time from it ever enters a cursor or a record.
	Now func() time.Time
}

// NewTransport is what carries calls when nothing else is given.
func NewTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = mostTime
	return t
}

// New checks cfg and makes a connector. It makes no call: the first one logs in.
func New(cfg Config, deps Deps) (*Connector, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.HTTP == nil {
		deps.HTTP = NewTransport()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	log := cmp.Or(deps.Log, slog.New(slog.DiscardHandler))
	observer := &connectors.Observer{Next: deps.HTTP, Endpoint: endpoint, Log: log}
	c := &Connector{
		cfg:      cfg,
		log:      log,
		observer: observer,
		wire:     newWire(cfg, observer, deps.SignLogin, deps.Now, log),
		before:   newPredecessors(),
		edits:    listed{knows: true}, // what the first question shows was edited since the time that it names
		told:     newReceipts(),
		tracked:  &trackings{now: deps.Now},
		memory:   deps.Memory,
	}
	c.schema = newSchema(c.describe, deps.Now)
	c.slow, c.late = connectors.NewUnsettled(c.settle()), connectors.NewUnsettled(c.settleLate())
	c.records.Most, c.records.Together = maxTogether, c.askRecords
	c.links.Most, c.links.Together = maxTogether, c.askLinks
	c.patches.Most, c.patches.Together = maxSubCalls, c.writeAll
	c.uploads.Most, c.uploads.Together = maxUploads, c.uploadAll
	if cfg.ChangeEvents != "" {
		c.bus, c.schemas = newPubSub(cfg, deps.Streams), map[string]*eventSchema{}
	}
	return c, nil
}

// Poll is how often the history should be read while the allowance is not scarce.
func (c *Connector) Poll() time.Duration { return c.cfg.Poll }

// Retire implements connectors.Retirer.
func (c *Connector) Retire() {
	c.observer.Retire()
	if c.bus != nil {
		c.bus.http.CloseIdleConnections()
	}
}

// Budget implements connectors.Metered: the rolling 24-hour allowance of API calls as the last reply reported it.
func (c *Connector) Budget() deal.Budget { return c.wire.gauge.read() }

// Identity implements connectors.CRM.
func (c *Connector) Identity(ctx context.Context) (deal.Account, error) {
	account, err := c.organization(ctx)
	if err != nil {
		return deal.Account{}, fmt.Errorf("salesforce: ask who the org is: %w", err)
	}
	return account, nil
}

func (c *Connector) organization(ctx context.Context) (deal.Account, error) {
	found, err := c.lookUp(ctx, "SELECT Id, Name, IsSandbox, TimeZoneSidKey FROM Organization")
	if err != nil {
		return deal.Account{}, err
	}
	if len(found.rows) != 1 {
		return deal.Account{}, malformed("it names %d organisations", len(found.rows))
	}
	row := found.rows[0]
	id, err := CanonicalID(row.StringField("Id"))
	if err != nil {
		return deal.Account{}, malformed("the organisation has no ID")
	}
	if found.date.IsZero() {
		return deal.Account{}, malformed("it has no Date header, and no other clock may be used")
	}
	sandbox, _ := row["IsSandbox"].(bool)
	return deal.Account{
		Kind: deal.Salesforce, ID: id, Name: row.StringField("Name"), Sandbox: sandbox,
		TimeZone: row.StringField("TimeZoneSidKey"), Clock: found.date,
	}, nil
}
