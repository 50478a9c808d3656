package api

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Self is what a token is told of itself.
type Self struct {
	ID      string          `json:"id" doc:"the beginning of its fingerprint, as in the audit log"`
	Name    string          `json:"name"`
	Role    deal.TokenRole  `json:"role" enum:"viewer,operator,signer-admin,auditor,admin"`
	Live    bool            `json:"live"`
	Until   time.Time       `json:"expires_at"`
	Tenants []deal.TenantID `json:"tenants" doc:"that it sees now"`
}

func (a *API) showSelf(_ context.Context, r *request) (any, error) {
	return Self{r.token.ID(), r.token.Name, r.token.Role, r.token.Live, r.token.Until, append([]deal.TenantID{}, r.tenants...)}, nil
}

// Templates are those that rules name.
type Templates struct {
	Templates []Template `json:"templates"`
}

// Template is one, with the rules of tenants that the token sees.
type Template struct {
	Name   string     `json:"name" doc:"ID@VERSION"`
	SHA256 string     `json:"sha256" doc:"over all of its files"`
	Rules  []RuleUses `json:"rules"`
}

// RuleUses is a rule that makes documents with a template.
type RuleUses struct {
	Tenant deal.TenantID `json:"tenant"`
	Rule   string        `json:"rule"`
	Stage  string        `json:"stage"`
}

func (a *API) listTemplates(_ context.Context, r *request) (any, error) {
	out := Templates{Templates: []Template{}}
	for _, t := range a.House.Templates() {
		if !r.sees(t.Tenant) {
			continue
		}
		i := slices.IndexFunc(out.Templates, func(o Template) bool { return o.Name == t.Name && o.SHA256 == t.SHA256 })
		if i < 0 {
			i = len(out.Templates)
			out.Templates = append(out.Templates, Template{Name: t.Name, SHA256: t.SHA256})
		}
		out.Templates[i].Rules = append(out.Templates[i].Rules, RuleUses{t.Tenant, t.Rule, t.Stage})
	}
	return out, nil
}

// Certificates is the registry.
type Certificates struct {
	Certificates []Certificate `json:"certificates"`
}

// Certificate is one that a key of the house seals with, will or did.
type Certificate struct {
	SHA256   string          `json:"sha256"`
	Key      string          `json:"key"`
	Pair     string          `json:"pair,omitempty" doc:"the key of the configuration whose key pair it is for, where that is not key's own"`
	Subject  string          `json:"subject"`
	Issuer   string          `json:"issuer"`
	Serial   string          `json:"serial"`
	Purpose  string          `json:"purpose"`
	From     time.Time       `json:"not_before"`
	Until    time.Time       `json:"not_after"`
	State    deal.CertState  `json:"state" enum:"next,active,retiring,revoked"`
	Activate time.Time       `json:"activate_at,omitzero"`
	Answer   deal.CertAnswer `json:"revocation,omitempty" enum:"good,revoked,unreachable,nobody" doc:"what came of asking last whether it is revoked"`
	Answered time.Time       `json:"revocation_answered_at,omitzero"`
}

// concerns reports whether a certificate of a key is for a token: it may have the name of another's tenant. Those of keys that
// nobody uses are for tokens of all tenants.
func (r *request) concerns(users []deal.TenantID) bool {
	return slices.ContainsFunc(users, r.sees) || len(users) == 0 && len(r.token.Tenants) == 0
}

func (a *API) listCertificates(ctx context.Context, r *request) (any, error) {
	all, err := a.House.Certificates(ctx)
	if err != nil {
		return nil, err
	}
	out := Certificates{Certificates: []Certificate{}}
	users := a.House.KeyTenants()
	for _, c := range all {
		if !r.concerns(users[c.Key]) {
			continue
		}
		out.Certificates = append(out.Certificates, Certificate{c.SHA256, c.Key, c.Pair, c.Subject, c.Issuer, c.Serial, c.Purpose, c.From, c.Until, c.State, c.ActivateAt, c.Answer, c.Answered})
	}
	return out, nil
}

// Checkpoint is the audit log as it was signed.
type Checkpoint struct {
	Note string    `json:"note" doc:"the signed checkpoint: keep it elsewhere, as it is"`
	Key  string    `json:"key" doc:"what it is verified with"`
	Size int64     `json:"size,omitempty" doc:"entries; missing in one that is new"`
	At   time.Time `json:"at,omitzero"`
}

func (a *API) newestCheckpoint(ctx context.Context, _ *request) (any, error) {
	c, err := a.House.NewestCheckpoint(ctx)
	if err != nil {
		return nil, err
	}
	if c.At.IsZero() {
		return nil, nothing()
	}
	return Checkpoint{Note: string(c.Note), Key: a.House.AuditKey(), Size: c.Size, At: c.At}, nil
}

func (a *API) signCheckpoint(ctx context.Context, _ *request) (any, error) {
	note, err := a.House.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	return Checkpoint{Note: string(note), Key: a.House.AuditKey()}, nil
}

func (a *API) showOpenAPI(context.Context, *request) (any, error) {
	return json.RawMessage(a.openapi), nil
}
