// Package role says what each role may do, with the API and on the pages alike: one table, so that no door is wider than
// another.
package role

import (
	"slices"

	"github.com/dealseal/dealseal/deal"
)

// Permission is what a request asks of whoever makes it.
type Permission string

// The permissions. Anyone is that of requests without a token or a session.
const (
	Anyone    Permission = ""
	See       Permission = "see states, hashes and reasons"
	Contracts Permission = "see documents, evidence and the values that went into them"
	Audit     Permission = "see the audit log and prove what it says"
	Request   Permission = "ask for contracts"
	Decide    Permission = "decide about deals that wait"
	Pause     Permission = "pause tenants and have them go on"
	Prepare   Permission = "give up a digest that was committed"
	TryHooks  Permission = "test webhooks and deliver once more"
	KeepHooks Permission = "add, change and remove webhooks"
)

// granted is what each role may.
var granted = map[deal.TokenRole][]Permission{
	deal.RoleViewer:      {See},
	deal.RoleOperator:    {See, Request, Decide, Pause, TryHooks},
	deal.RoleSignerAdmin: {See, Contracts, Request, Decide, Pause, Prepare},
	deal.RoleAuditor:     {See, Contracts, Audit},
	deal.RoleAdmin:       {See, Contracts, Audit, Request, Decide, Pause, Prepare, TryHooks, KeepHooks},
}

// May reports whether a role has a permission.
func May(r deal.TokenRole, p Permission) bool { return slices.Contains(granted[r], p) }
