package api

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// auditEvery is how long calls are counted before the audit log takes note of them. Those that decide or reveal something have
// entries of their own, before they are answered.
const auditEvery = 10 * time.Minute

// longestSubject bounds what is kept of a client certificate's name.
const longestSubject = 200

// calls counts what each token asks for.
type calls struct {
	mu  sync.Mutex
	all map[callerKey]*deal.Calls // no more than there are tokens, and proxies that they came through
}

// callerKey tells callers apart.
type callerKey struct{ fingerprint, via string }

func (c *calls) add(token deal.Token, by shown, what string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[callerKey]*deal.Calls{}
	}
	if token.Kind != deal.ClientCertificate {
		by = shown{} // the token counts, whatever else was shown
	}
	key := callerKey{token.Fingerprint, by.via}
	one := c.all[key]
	if one == nil {
		one = &deal.Calls{Token: token, Via: by.via, From: at, Counts: map[string]int64{}}
		c.all[key] = one
	}
	if by.certificate != nil {
		one.Subject = strings.ToValidUTF8(fmt.Sprintf("%.*s", longestSubject, by.certificate.Subject.String()), "")
	}
	one.To = at
	one.Counts[what]++
}

// take returns what was counted, and begins anew.
func (c *calls) take() map[callerKey]*deal.Calls {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

// putBack is for what could not be noted: it is noted with what has been counted since.
func (c *calls) putBack(one *deal.Calls) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := callerKey{one.Token.Fingerprint, one.Via}
	if since := c.all[key]; since != nil {
		for what, n := range since.Counts {
			one.Counts[what] += n
		}
		one.To = since.To
	}
	if c.all == nil {
		c.all = map[callerKey]*deal.Calls{}
	}
	c.all[key] = one
}

// Audit has the audit log take note of all calls until ctx ends, every ten minutes. Call AuditCalls once more when nothing is
// answered any more.
func (a *API) Audit(ctx context.Context) {
	tick := time.NewTicker(auditEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.AuditCalls(ctx)
		}
	}
}

// AuditCalls has the audit log take note of the calls since it last did, and of the certificates that were refused.
func (a *API) AuditCalls(ctx context.Context) {
	a.auditRefusals(ctx)
	all := a.calls.take()
	for _, one := range all {
		if err := a.Tokens.AuditCalls(ctx, *one); err != nil {
			a.Log.ErrorContext(ctx, "the audit log takes no note of calls of the API: it is tried again", "token", one.Token.Who(), "err", err)
			a.calls.putBack(one)
		}
	}
}
