package api

import (
	"context"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Tenants are those that a token sees.
type Tenants struct {
	Tenants []TenantState `json:"tenants"`
}

// TenantState is how a tenant is doing.
type TenantState struct {
	ID     deal.TenantID `json:"id"`
	Name   string        `json:"name"`
	Live   bool          `json:"live"`
	Paused *Paused       `json:"paused,omitempty" doc:"missing: it goes on"`
}

// Paused says since when and why a tenant waits.
type Paused struct {
	Since time.Time `json:"since"`
	Who   string    `json:"who"`
	Why   string    `json:"why"`
}

func (a *API) tenantStates(ctx context.Context, r *request) ([]TenantState, error) {
	pauses, err := a.House.Pauses(ctx)
	if err != nil {
		return nil, err
	}
	all := []TenantState{}
	for _, t := range a.House.Tenants() {
		if !r.sees(t.ID) {
			continue
		}
		state := TenantState{ID: t.ID, Name: t.Name, Live: t.Live}
		if i := slices.IndexFunc(pauses, func(p deal.Pause) bool { return p.Tenant == t.ID }); i >= 0 {
			state.Paused = &Paused{pauses[i].Since, pauses[i].Who, pauses[i].Why}
		}
		all = append(all, state)
	}
	return all, nil
}

func (a *API) listTenants(ctx context.Context, r *request) (any, error) {
	all, err := a.tenantStates(ctx, r)
	return Tenants{all}, err
}

func (a *API) turn(verb string) func(context.Context, *request) (any, error) {
	return func(ctx context.Context, r *request) (any, error) {
		tenant := deal.TenantID(r.PathValue("tenant"))
		if !r.sees(tenant) {
			return nil, nothing()
		}
		d, err := decode[Decision](r)
		if err != nil {
			return nil, err
		}
		if err := checkWhy(d.Why); err != nil {
			return nil, err
		}
		if err := a.House.Turn(ctx, verb, tenant, r.who(), d.Why); err != nil {
			return nil, err
		}
		all, err := a.tenantStates(ctx, r)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(t TenantState) bool { return t.ID == tenant })
		if i < 0 {
			return nil, nothing() // it was taken out meanwhile
		}
		return all[i], nil
	}
}
