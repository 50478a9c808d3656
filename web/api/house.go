package api

import (
	"context"
	"io"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web"
	"github.com/dealseal/dealseal/webhooks"
)

// House is what the API needs of the daemon. Its methods answer from what is committed, are safe for concurrent use, and
// return when ctx ends. Those that take a who put that name into the audit log before they return anything. Errors are
// web.ErrNotFound, web.ErrErased, web.ErrDamaged, ErrBusy, a *Refusal, or what only the log should say.
type House interface {
	// Tenants returns the configured tenants, from memory.
	Tenants() []Tenant
	// Pauses returns the tenants that a person has wait. Turn pauses one, or has it go on ("pause", "resume"); StatusConflict when
	// it does already.
	Pauses(ctx context.Context) ([]deal.Pause, error)
	Turn(ctx context.Context, verb string, tenant deal.TenantID, who, why string) error
	// TenantOf returns whose a deal is.
	TenantOf(ctx context.Context, tx deal.TxID) (deal.TenantID, error)
	// Find, Deal, Values, Fetch and Proof are as in web.House.
	Find(ctx context.Context, s web.Search) (web.Found, error)
	Deal(ctx context.Context, tx deal.TxID) (*web.Deal, error)
	Values(ctx context.Context, tx deal.TxID, who string) (*web.Values, error)
	Fetch(ctx context.Context, tx deal.TxID, name, who string) (deal.File, io.Closer, error)
	Proof(ctx context.Context, tx deal.TxID, who string) ([]byte, error)
	// Evidence makes a bundle of all that proves a deal, signed with its key, and returns what writes it.
	Evidence(ctx context.Context, tx deal.TxID, who string) (write func(context.Context, io.Writer) error, err error)
	// Decide carries out what was decided about a deal: retry, release, drop or prepare.
	Decide(ctx context.Context, tx deal.TxID, verb, who, why string) error
	// Request takes in a contract that a token asks for, and returns its transaction: for the same key the one of the first
	// time. It is refused with StatusConflict where the record has such a contract, or is about to get it.
	Request(ctx context.Context, q SignatureRequest) (deal.TxID, error)
	// Templates returns those that rules name, in the order of their names.
	Templates() []TemplateOf
	// Certificates returns the registry; what is in use first.
	Certificates(ctx context.Context) ([]deal.Certificate, error)
	// KeyTenants are those whose rules seal with each key, by its name, from memory.
	KeyTenants() map[string][]deal.TenantID
	// NewestCheckpoint is the last one that was signed, Checkpoint signs the audit log as it is now. AuditKey is what they are
	// verified with.
	NewestCheckpoint(ctx context.Context) (deal.Checkpoint, error)
	Checkpoint(ctx context.Context) (signed []byte, err error)
	AuditKey() string

	// Endpoints returns all webhooks, by their IDs, Endpoint one.
	Endpoints(ctx context.Context) ([]Endpoint, error)
	Endpoint(ctx context.Context, id string) (Endpoint, error)
	// EndpointKeys are the public keys that deliveries to an endpoint are verified with, the newest first; none where a secret is
	// shared.
	EndpointKeys(ctx context.Context, id string) ([]webhooks.PublicKey, error)
	// Deliveries returns the newest deliveries to an endpoint that are older than before, unless that is 0, in a state, or
	// in any if that is empty. Attempts returns those of one that goes to the endpoint.
	Deliveries(ctx context.Context, endpoint, state string, before int64, limit int) ([]Delivery, error)
	Attempts(ctx context.Context, endpoint string, delivery int64) ([]Attempt, error)
	// ChangeEndpoint does with an endpoint what is wanted.
	ChangeEndpoint(ctx context.Context, c EndpointChange) (EndpointOutcome, error)
	// EndpointAt returns the endpoint of one of the tenants that has an address.
	EndpointAt(ctx context.Context, tenants []deal.TenantID, url string) (id string, err error)
}

// Tenant is a configured tenant.
type Tenant struct {
	ID   deal.TenantID
	Name string
	// Live is set in production.
	Live bool
}

// SignatureRequest is a contract that a token asks for.
type SignatureRequest struct {
	// Tenants are those that it may be of; Tenant, Rule and Template, as far as they are said, leave one rule of them.
	Tenants        []deal.TenantID
	Tenant         deal.TenantID
	Rule, Template string
	// Record is the CRM's ID.
	Record string
	// Timestamp says whether the seal is to have a time-stamp; nil: as the rule has it.
	Timestamp *bool
	deal.Request
}

// TemplateOf is a template with a rule that names it.
type TemplateOf struct {
	Name, SHA256 string
	Tenant       deal.TenantID
	Rule, Stage  string
}

// Endpoint is a webhook. It has the host of its address and no secret.
type Endpoint struct {
	ID         string        `json:"id" doc:"TENANT/NAME"`
	Tenant     deal.TenantID `json:"tenant"`
	Host       string        `json:"host" doc:"of the address; the rest of it may be a secret"`
	Dialect    string        `json:"dialect"`
	Format     string        `json:"format"`
	Events     []string      `json:"events" doc:"patterns of names; none: all"`
	Callbacks  bool          `json:"callbacks,omitempty" doc:"it is told only of what was asked for with a callback_url below its address"`
	Configured bool          `json:"configured" doc:"it is in the tenant's file, and changed there"`
	State      string        `json:"state" enum:"active,disabled"`
	Reason     string        `json:"reason,omitempty" doc:"why it is disabled"`
	Since      time.Time     `json:"since" doc:"of the state"`
	Failures   int           `json:"failures" doc:"of attempts in a row"`
	Pending    int64         `json:"pending"`
	Failed     int64         `json:"failed"`
	Succeeded  time.Time     `json:"last_taken_at,omitzero"`
	Tried      time.Time     `json:"last_tried_at,omitzero"`
}

// Delivery is an event on its way to an endpoint.
type Delivery struct {
	ID       int64     `json:"id"`
	Event    string    `json:"event_id"`
	Type     string    `json:"type"`
	Tx       deal.TxID `json:"transaction"`
	At       time.Time `json:"occurred_at"`
	State    string    `json:"state" enum:"pending,delivered,failed"`
	Due      time.Time `json:"due_at,omitzero"`
	Ended    time.Time `json:"ended_at,omitzero"`
	Attempts int       `json:"attempts"`
	Status   int       `json:"status,omitempty" doc:"of the last attempt"`
	Problem  string    `json:"problem,omitempty" doc:"of the last attempt"`
}

// Attempt is one at a delivery.
type Attempt struct {
	N       int       `json:"n"`
	At      time.Time `json:"at"`
	TookMS  int64     `json:"took_ms,omitempty" doc:"missing: it is under way, or the daemon ended meanwhile"`
	Status  int       `json:"status,omitempty"`
	Problem string    `json:"problem,omitempty"`
}

// EndpointChange is what is wanted of an endpoint.
type EndpointChange struct {
	Verb string // add, remove, enable, disable, rotate, test or redeliver
	ID   string
	// Of an endpoint to add.
	Tenant               deal.TenantID
	URL, Dialect, Format string
	Events               []string
	Asymmetric, Title    bool
	Callbacks            bool
	// Secret is one that was chosen; empty: one is made.
	Secret string
	// Event is the type to test with.
	Event string
	// One of these is delivered once more.
	Delivery int64
	Failed   bool
	Since    time.Time

	Who, Why string
}

// EndpointOutcome is what came of it.
type EndpointOutcome struct {
	Secret string // for the receiver, shown this once
	// Deliveries is how many are made again.
	Deliveries int64
	// Of a test.
	Status          int
	Problem, Answer string
	Took            time.Duration
}
