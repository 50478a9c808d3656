package api

import (
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/role"
)

// permission is what a route asks of a token.
type permission = role.Permission

const (
	anyone    = role.Anyone // without a token
	see       = role.See
	contracts = role.Contracts
	audit     = role.Audit
	ask       = role.Request
	decide    = role.Decide
	pause     = role.Pause
	prepare   = role.Prepare
	tryHooks  = role.TryHooks
	keepHooks = role.KeepHooks
)

func may(r deal.TokenRole, p permission) bool { return role.May(r, p) }
