package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/webhooks"
)

// Endpoints are the webhooks of the tenants that a token sees.
type Endpoints struct {
	Endpoints []Endpoint `json:"endpoints"`
}

// Keys are a JSON Web Key Set (RFC 7517, section 5).
type Keys struct {
	Keys []Key `json:"keys"`
}

// Key is an Ed25519 public key as a JSON Web Key (RFC 8037, section 2).
type Key struct {
	Type  string    `json:"kty" enum:"OKP"`
	Curve string    `json:"crv" enum:"Ed25519"`
	X     string    `json:"x" doc:"the key, in base64url"`
	Use   string    `json:"use" enum:"sig"`
	ID    string    `json:"kid" doc:"its thumbprint (RFC 7638)"`
	Text  string    `json:"whpk" doc:"the same key as libraries of Standard Webhooks take it"`
	Until time.Time `json:"until,omitzero" doc:"a newer one has taken its place, and signatures with this one end then"`
}

func viewKey(k webhooks.PublicKey) Key {
	x := base64.RawURLEncoding.EncodeToString(k.PublicKey)
	thumbprint := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return Key{Type: "OKP", Curve: "Ed25519", X: x, Use: "sig", ID: base64.RawURLEncoding.EncodeToString(thumbprint[:]), Text: k.String(), Until: k.Until}
}

// Deliveries is a page of deliveries.
type Deliveries struct {
	Deliveries []Delivery `json:"deliveries"`
	Next       string     `json:"next_cursor,omitempty"`
}

// Attempts are those at a delivery.
type Attempts struct {
	Delivery int64     `json:"delivery"`
	Attempts []Attempt `json:"attempts"`
}

// NewEndpoint is a webhook to add.
type NewEndpoint struct {
	ID         string   `json:"id" doc:"TENANT/NAME" pattern:"^[a-z0-9][a-z0-9_-]{0,62}/[a-z0-9][a-z0-9-]{0,62}$"`
	URL        string   `json:"url" least:"8"`
	Dialect    string   `json:"dialect,omitempty" enum:"standard-webhooks,sdf,certyneo"`
	Format     string   `json:"format,omitempty" enum:"native,sdf,certyneo,certyneo-crm"`
	Events     []string `json:"events,omitempty" doc:"patterns of names; none: all"`
	Secret     string   `json:"secret,omitempty" doc:"left out: one is made" least:"1"`
	Asymmetric bool     `json:"asymmetric,omitempty" doc:"sign with Ed25519"`
	Title      bool     `json:"title,omitempty" doc:"tell the name of the contract's file, which may hold names of people"`
	Callbacks  bool     `json:"callbacks,omitempty" doc:"only for what was asked for with a callback_url at url or below it"`
	Why        string   `json:"why" least:"1" most:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"`
}

// CompatibleEndpoint is a webhook as SDF Server has it added.
type CompatibleEndpoint struct {
	URL    string   `json:"url" least:"8"`
	Secret string   `json:"secret" least:"1"`
	Events []string `json:"events,omitempty" doc:"names of format sdf; none: all"`
}

// AddedEndpoint is what came of it.
type AddedEndpoint struct {
	Endpoint
	Secret string `json:"secret,omitempty" doc:"for the receiver, or its public key: shown this once, and not at all when it was chosen"`
}

// Rotation asks for another secret.
type Rotation struct {
	Secret string `json:"secret,omitempty" doc:"left out: one is made" least:"1"`
	Why    string `json:"why" least:"1" most:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"`
}

// Rotated is the new secret. The one before counts for a day beside it.
type Rotated struct {
	Secret string `json:"secret,omitempty" doc:"shown this once, and not at all when it was chosen"`
}

// Redelivery asks for deliveries to be made once more.
type Redelivery struct {
	Failed bool      `json:"failed,omitempty" doc:"all that were given up"`
	Since  time.Time `json:"since,omitzero" doc:"all that has happened since, delivered or not"`
	Why    string    `json:"why" least:"1" most:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"`
}

func (Redelivery) narrow(schema object) {
	failed := func(is bool) object { return object{"failed": object{"const": is}} }
	schema["oneOf"] = []object{{"required": []string{"failed"}, "properties": failed(true), "not": object{"required": []string{"since"}}}, {"required": []string{"since"}, "properties": failed(false)}}
}

// Redelivered is how many are made.
type Redelivered struct {
	Deliveries int64 `json:"deliveries"`
}

// Test asks for an event that never was. One of Endpoint and URL is given.
type Test struct {
	Endpoint string `json:"endpoint,omitempty" doc:"TENANT/NAME" least:"1"`
	URL      string `json:"url,omitempty" doc:"of an endpoint that there is" least:"1"`
	Event    string `json:"event,omitempty" doc:"its type; left out: the first that the endpoint takes" least:"1"`
}

func (Test) narrow(schema object) {
	schema["oneOf"] = []object{{"required": []string{"endpoint"}}, {"required": []string{"url"}}}
}

// Tested is what came of it.
type Tested struct {
	Endpoint string `json:"endpoint"`
	Status   int    `json:"status,omitempty" doc:"that the receiver answered with"`
	Problem  string `json:"problem,omitempty" doc:"missing: it was taken"`
	TookMS   int64  `json:"took_ms"`
}

func (a *API) listEndpoints(ctx context.Context, r *request) (any, error) {
	all, err := a.House.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	out := Endpoints{Endpoints: []Endpoint{}}
	for _, e := range all {
		if r.sees(e.Tenant) {
			out.Endpoints = append(out.Endpoints, e)
		}
	}
	return out, nil
}

// endpointOf is the endpoint of the path, if the token sees it.
func (a *API) endpointOf(ctx context.Context, r *request) (Endpoint, error) {
	return a.endpoint(ctx, r, r.PathValue("tenant")+"/"+r.PathValue("name"))
}

func (a *API) endpoint(ctx context.Context, r *request, id string) (Endpoint, error) {
	tenant, _, _ := strings.Cut(id, "/")
	if !r.sees(deal.TenantID(tenant)) {
		return Endpoint{}, nothing()
	}
	return a.House.Endpoint(ctx, id)
}

func (a *API) showEndpoint(ctx context.Context, r *request) (any, error) { return a.endpointOf(ctx, r) }

func (a *API) listKeys(ctx context.Context, r *request) (any, error) {
	e, err := a.endpointOf(ctx, r)
	if err != nil {
		return nil, err
	}
	all, err := a.House.EndpointKeys(ctx, e.ID)
	if err != nil {
		return nil, err
	}
	out := Keys{Keys: []Key{}}
	for _, k := range all {
		out.Keys = append(out.Keys, viewKey(k))
	}
	return out, nil
}

func (a *API) listDeliveries(ctx context.Context, r *request) (any, error) {
	before, limit, err := r.page()
	if err != nil {
		return nil, err
	}
	e, err := a.endpointOf(ctx, r)
	if err != nil {
		return nil, err
	}
	all, err := a.House.Deliveries(ctx, e.ID, r.query.Get("state"), before, limit)
	if err != nil {
		return nil, err
	}
	out := Deliveries{Deliveries: append([]Delivery{}, all...)}
	if len(all) == limit {
		out.Next = cursor(all[len(all)-1].ID)
	}
	return out, nil
}

// deliveryOf is the number in the path.
func deliveryOf(r *request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("delivery"), 10, 64)
	if err != nil || id < 1 {
		return 0, nothing()
	}
	return id, nil
}

func (a *API) listAttempts(ctx context.Context, r *request) (any, error) {
	id, err := deliveryOf(r)
	if err != nil {
		return nil, err
	}
	e, err := a.endpointOf(ctx, r)
	if err != nil {
		return nil, err
	}
	all, err := a.House.Attempts(ctx, e.ID, id)
	if err != nil {
		return nil, err
	}
	return Attempts{id, append([]Attempt{}, all...)}, nil
}

func (a *API) addEndpoint(ctx context.Context, r *request) (any, error) {
	e, err := decode[NewEndpoint](r)
	if err != nil {
		return nil, err
	}
	if err := checkWhy(e.Why); err != nil {
		return nil, err
	}
	tenant, _, _ := strings.Cut(e.ID, "/")
	return a.added(ctx, r, EndpointChange{Verb: "add", ID: e.ID, Tenant: deal.TenantID(tenant), URL: e.URL, Dialect: e.Dialect, Format: e.Format, Events: e.Events, Secret: e.Secret,
		Asymmetric: e.Asymmetric, Title: e.Title, Callbacks: e.Callbacks, Why: e.Why})
}

// addCompatible adds one of dialect sdf. Its secret was chosen, and is kept encrypted: a hash of it could sign nothing.
func (a *API) addCompatible(ctx context.Context, r *request) (any, error) {
	e, err := decode[CompatibleEndpoint](r)
	if err != nil {
		return nil, err
	}
	if e.Secret == "" {
		return nil, problem(http.StatusUnprocessableEntity, "secret is missing")
	}
	tenant := r.PathValue("tenant")
	return a.added(ctx, r, EndpointChange{Verb: "add", ID: tenant + "/api-" + strings.ToLower(rand.Text()[:10]), Tenant: deal.TenantID(tenant), URL: e.URL, Dialect: "sdf", Events: e.Events, Secret: e.Secret,
		Why: "added by POST /admin/tenants/" + tenant + "/webhooks"})
}

func (a *API) added(ctx context.Context, r *request, c EndpointChange) (any, error) {
	if !r.sees(c.Tenant) {
		return nil, nothing()
	}
	c.Who = r.who()
	done, err := a.House.ChangeEndpoint(ctx, c)
	if err != nil {
		return nil, err
	}
	e, err := a.endpoint(ctx, r, c.ID)
	return AddedEndpoint{e, done.Secret}, err
}

// change carries out something about the endpoint of the path.
func (a *API) change(ctx context.Context, r *request, c EndpointChange) (EndpointOutcome, Endpoint, error) {
	if err := checkWhy(c.Why); err != nil {
		return EndpointOutcome{}, Endpoint{}, err
	}
	e, err := a.endpointOf(ctx, r)
	if err != nil {
		return EndpointOutcome{}, e, err
	}
	c.ID, c.Who = e.ID, r.who()
	done, err := a.House.ChangeEndpoint(ctx, c)
	return done, e, err
}

// set enables or disables.
func (a *API) set(verb string) func(context.Context, *request) (any, error) {
	return func(ctx context.Context, r *request) (any, error) {
		d, err := decode[Decision](r)
		if err != nil {
			return nil, err
		}
		_, e, err := a.change(ctx, r, EndpointChange{Verb: verb, Why: d.Why})
		if err != nil {
			return nil, err
		}
		if verb == "remove" {
			return e, nil // as it was
		}
		return a.endpointOf(ctx, r)
	}
}

func (a *API) rotate(ctx context.Context, r *request) (any, error) {
	d, err := decode[Rotation](r)
	if err != nil {
		return nil, err
	}
	done, _, err := a.change(ctx, r, EndpointChange{Verb: "rotate", Secret: d.Secret, Why: d.Why})
	return Rotated{done.Secret}, err
}

func (a *API) redeliver(ctx context.Context, r *request) (any, error) {
	d, err := decode[Redelivery](r)
	if err != nil {
		return nil, err
	}
	if d.Failed == !d.Since.IsZero() {
		return nil, problem(http.StatusUnprocessableEntity, "say one of failed and since")
	}
	done, _, err := a.change(ctx, r, EndpointChange{Verb: "redeliver", Failed: d.Failed, Since: d.Since, Why: d.Why})
	return Redelivered{done.Deliveries}, err
}

func (a *API) redeliverOne(ctx context.Context, r *request) (any, error) {
	d, err := decode[Decision](r)
	if err != nil {
		return nil, err
	}
	id, err := deliveryOf(r)
	if err != nil {
		return nil, err
	}
	e, err := a.endpointOf(ctx, r)
	if err != nil {
		return nil, err
	}
	if _, err := a.House.Attempts(ctx, e.ID, id); err != nil { // it is this endpoint's
		return nil, err
	}
	done, _, err := a.change(ctx, r, EndpointChange{Verb: "redeliver", Delivery: id, Why: d.Why})
	return Redelivered{done.Deliveries}, err
}

func (a *API) test(ctx context.Context, r *request) (any, error) {
	t, err := decode[Test](r)
	if err != nil {
		return nil, err
	}
	if (t.Endpoint == "") == (t.URL == "") {
		return nil, problem(http.StatusUnprocessableEntity, "name one of endpoint and url")
	}
	if t.Endpoint == "" {
		if t.Endpoint, err = a.House.EndpointAt(ctx, r.tenants, t.URL); err != nil {
			return nil, err
		}
	}
	e, err := a.endpoint(ctx, r, t.Endpoint)
	if err != nil {
		return nil, err
	}
	done, err := a.House.ChangeEndpoint(ctx, EndpointChange{Verb: "test", ID: e.ID, Event: t.Event, Who: r.who()})
	return Tested{e.ID, done.Status, done.Problem, done.Took.Milliseconds()}, err
}
