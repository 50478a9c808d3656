package api

import (
	"slices"

	"github.com/dealseal/dealseal/deal"
)

// permission is what a route asks of a token.
type permission string

const (
	anyone    permission = "" // without a token
	see       permission = "see states, hashes and reasons"
	contracts permission = "see documents, evidence and the values that went into them"
	audit     permission = "see the audit log and prove what it says"
	decide    permission = "decide about deals that wait"
	prepare   permission = "give up a digest that was committed"
	tryHooks  permission = "test webhooks and deliver once more"
	keepHooks permission = "add, change and remove webhooks"
)

// granted is what each role may.
var granted = map[deal.TokenRole][]permission{
	deal.RoleViewer:      {see},
	deal.RoleOperator:    {see, decide, tryHooks},
	deal.RoleSignerAdmin: {see, contracts, decide, prepare},
	deal.RoleAuditor:     {see, contracts, audit},
	deal.RoleAdmin:       {see, contracts, audit, decide, prepare, tryHooks, keepHooks},
}

func may(role deal.TokenRole, p permission) bool { return slices.Contains(granted[role], p) }
