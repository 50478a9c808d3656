package hubspot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Effect is what a fault does to a call.
type Effect string

// The effects of faults. Those named Committed happen after the call has done its
// work: only the reply is lost.
const (
	EffectUnauthorized     Effect = "401"
	EffectForbidden        Effect = "403"
	EffectLocked           Effect = "423"
	EffectDailyLimit       Effect = "429_daily"
	EffectTenSecondLimit   Effect = "429_ten_secondly"
	EffectSecondLimit      Effect = "429_secondly"
	EffectMigrating        Effect = "477" // with Retry-After in seconds
	EffectBadGateway       Effect = "502" // an HTML page
	EffectTimeoutCommitted Effect = "504_committed"
	EffectReset            Effect = "reset"
	EffectResetCommitted   Effect = "reset_committed"
	EffectResetDuring      Effect = "reset_during" // after the work, in the middle of the reply
	EffectSlow             Effect = "slow"         // answers after Fault.Delay
	EffectTruncated        Effect = "truncated"    // half of the JSON, after the work
	EffectPartial          Effect = "partial"      // the last input of a batch fails
	EffectValidation       Effect = "validation"
)

// Effects lists every effect.
func Effects() []Effect {
	return []Effect{
		EffectUnauthorized, EffectForbidden, EffectLocked, EffectDailyLimit, EffectTenSecondLimit, EffectSecondLimit, EffectMigrating,
		EffectBadGateway, EffectTimeoutCommitted, EffectReset, EffectResetCommitted, EffectResetDuring, EffectSlow, EffectTruncated, EffectPartial,
		EffectValidation,
	}
}

// Fault makes calls go wrong. Faults are tried in the order in which they were
// set; the first that matches and is not used up takes the call.
type Fault struct {
	ID         int           `json:"id"`             // given by SetFault
	Kind       Kind          `json:"kind,omitempty"` // empty matches every kind
	Path       string        `json:"path,omitempty"` // part of the path as the client sent it
	Effect     Effect        `json:"effect"`
	Times      int           `json:"times,omitempty"`      // how often; 0 means for ever
	Skip       int           `json:"skip,omitempty"`       // matching calls to let pass first
	Delay      time.Duration `json:"delay,omitempty"`      // nanoseconds, before anything else happens
	RetryAfter time.Duration `json:"retryAfter,omitempty"` // of 477, nanoseconds, sent in whole seconds; 429 and 502 have it only when set
	Property   string        `json:"property,omitempty"`   // of validation, default dealstage
	Used       int           `json:"used"`                 // how often it struck
}

// SetFault adds a fault and returns its ID. It refuses a kind or an effect that
// it does not know, and a fault that could never strike.
func (p *Portal) SetFault(f Fault) (id int, err error) {
	switch {
	case f.Kind != "" && !slices.Contains(Kinds(), f.Kind):
		return 0, fmt.Errorf("hubspot: unknown kind of call %q, known are %q", f.Kind, Kinds())
	case !slices.Contains(Effects(), f.Effect):
		return 0, fmt.Errorf("hubspot: unknown effect %q, known are %q", f.Effect, Effects())
	case f.Effect == EffectSlow && f.Delay == 0:
		return 0, errors.New("hubspot: the effect slow needs a delay")
	case f.Times < 0 || f.Skip < 0 || f.Delay < 0 || f.RetryAfter < 0:
		return 0, errors.New("hubspot: times, skip, delay and retryAfter of a fault must not be negative")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faultID++
	f.ID, f.Used = p.faultID, 0
	p.faults = append(p.faults, &f)
	return f.ID, nil
}

// Faults lists the faults that were set, also those that are used up.
func (p *Portal) Faults() []Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Fault, 0, len(p.faults))
	for _, f := range p.faults {
		out = append(out, *f)
	}
	return out
}

// ClearFaults removes every fault of calls.
func (p *Portal) ClearFaults() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

// ClearFault removes one fault and says whether it was there.
func (p *Portal) ClearFault(id int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.faults)
	p.faults = slices.DeleteFunc(p.faults, func(f *Fault) bool { return f.ID == id })
	return len(p.faults) < before
}

// takeFault returns a copy of the fault that strikes this call.
func (p *Portal) takeFault(c *call) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if f.Kind != "" && f.Kind != c.kind || !strings.Contains(c.r.RequestURI, f.Path) || f.Times > 0 && f.Used >= f.Times {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		f.Used++
		taken := *f
		return &taken
	}
	return nil
}

func (f *Fault) delay(ctx context.Context) {
	if f.Delay <= 0 {
		return
	}
	t := time.NewTimer(f.Delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// instead is the answer of a fault that keeps the call from happening; a nil
// reply cuts the connection.
func (f *Fault) instead(c *call) (rep *reply, instead bool) {
	switch f.Effect {
	case EffectUnauthorized:
		return tokenExpired(5), true
	case EffectForbidden:
		return missingScopes([]string{"crm.objects.deals.read"}), true
	case EffectLocked:
		return fail(http.StatusLocked, envelope{Message: "The resource is locked by another request; try again in 2 seconds."}), true
	case EffectDailyLimit:
		return f.retryAfter(rateLimited("DAILY"), 0), true
	case EffectTenSecondLimit:
		return f.retryAfter(rateLimited("TEN_SECONDLY_ROLLING"), 0), true
	case EffectSecondLimit:
		return f.retryAfter(rateLimited("SECONDLY"), 0), true
	case EffectMigrating:
		return f.retryAfter(fail(477, envelope{Message: "This account is being moved to another data centre."}), time.Hour), true
	case EffectBadGateway:
		return f.retryAfter(badGateway(), 0), true
	case EffectReset:
		return nil, true
	case EffectValidation:
		name := orDefault(f.Property, "dealstage")
		return c.p.valuesInvalid([]problem{{name, "INVALID_OPTION", "The value of " + name + " breaks a rule that an administrator has set."}}), true
	}
	return nil, false
}

// afterwards is what becomes of the answer to a call that happened.
func (f *Fault) afterwards(rep *reply) *reply {
	switch f.Effect {
	case EffectTimeoutCommitted:
		return fail(http.StatusGatewayTimeout, envelope{Message: "The request timed out."})
	case EffectResetCommitted:
		return nil
	case EffectResetDuring:
		rep.cut = true
	case EffectTruncated:
		rep.body = rep.body[:len(rep.body)/2]
	}
	return rep
}

func (f *Fault) retryAfter(rep *reply, byDefault time.Duration) *reply {
	d := f.RetryAfter
	if d == 0 {
		d = byDefault
	}
	if d > 0 {
		rep.header.Set("Retry-After", strconv.Itoa(int(d.Round(time.Second)/time.Second)))
	}
	return rep
}

func badGateway() *reply {
	return &reply{
		status: http.StatusBadGateway,
		header: http.Header{"Content-Type": {"text/html; charset=UTF-8"}},
		body: []byte("<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>" +
			"<body><center><h1>502 Bad Gateway</h1></center><hr><center>cloudflare</center></body></html>\n"),
	}
}
