package salesforce

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Effect is what a fault does to a call.
type Effect string

// The effects. All but the slow reply, the cuts during and after the reply and
// the truncated reply answer instead of doing what was asked.
const (
	LockRow          Effect = "lock_row"          // 400 UNABLE_TO_LOCK_ROW
	ValidationRule   Effect = "validation_rule"   // 400 FIELD_CUSTOM_VALIDATION_EXCEPTION
	RequestLimit     Effect = "request_limit"     // 403 REQUEST_LIMIT_EXCEEDED
	SessionInvalid   Effect = "session_invalid"   // 401 INVALID_SESSION_ID
	HTMLUnavailable  Effect = "html_unavailable"  // 503 with an HTML page
	EmptyList        Effect = "empty_list"        // 500 whose body is []
	EmptyBody        Effect = "empty_body"        // 500 without a body
	ModifiedSince    Effect = "modified_since"    // 412
	APIError         Effect = "api_error"         // Fault.Status, Code and Message as given; OAuth shape on token calls
	CutBefore        Effect = "cut_before"        // connection closed, nothing done
	CutAfter         Effect = "cut_after"         // all done, connection closed instead of the reply
	CutDuring        Effect = "cut_during"        // all done, connection closed in the middle of the reply's body
	TruncatedJSON    Effect = "truncated_json"    // all done, half of the reply's body
	UnavailableAfter Effect = "unavailable_after" // all done, reply replaced by the HTML page with 503
	Slow             Effect = "slow"              // Fault.Delay, then as usual
)

// Fault makes calls go wrong.
type Fault struct {
	ID      int    `json:"id"`                // given by SetFault
	Kind    Kind   `json:"kind,omitempty"`    // empty: every kind
	Path    string `json:"path,omitempty"`    // substring of the decoded path and query; empty: every path
	Skip    int    `json:"skip,omitempty"`    // matching calls let through first
	Times   int    `json:"times,omitempty"`   // matching calls hit; 0: until cleared
	Effect  Effect `json:"effect"`            //
	Status  int    `json:"status,omitempty"`  // instead of the effect's own
	Code    string `json:"code,omitempty"`    // errorCode, instead of the effect's own
	Message string `json:"message,omitempty"` // instead of the effect's own
	// Delay passes before the effect; it ends early when the caller goes away.
	Delay time.Duration `json:"delay,omitempty"`
	// RetryAfter is sent as the header of that name, in whole seconds, by effects that answer with an error.
	RetryAfter time.Duration `json:"retryAfter,omitempty"`
}

const htmlPage = "<!DOCTYPE html>\n<html><head><title>Down for Maintenance</title></head><body><h1>We are down for maintenance.</h1><p>Sorry for the inconvenience. We'll be back shortly.</p></body></html>\n"

// SetFault adds a fault and returns its ID. Of several that match a call the
// oldest acts. An unknown effect or kind is an error.
func (o *Org) SetFault(f Fault) (int, error) {
	if _, ok := defaults()[f.Effect]; !ok {
		return 0, fmt.Errorf("salesforce mock: fault: unknown effect %q", f.Effect)
	}
	if f.Kind != "" && !slices.Contains(kinds(), f.Kind) {
		return 0, fmt.Errorf("salesforce mock: fault: unknown kind of call %q", f.Kind)
	}
	if f.Skip < 0 || f.Times < 0 || f.Delay < 0 || f.RetryAfter < 0 {
		return 0, fmt.Errorf("salesforce mock: fault: skip, times, delay and retryAfter must not be negative")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faultID++
	f.ID = o.faultID
	o.faults = append(o.faults, &f)
	return f.ID, nil
}

// Faults lists the faults that still act, with what is left of their counts.
func (o *Org) Faults() []Fault {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]Fault, len(o.faults))
	for i, f := range o.faults {
		list[i] = *f
	}
	return list
}

// ClearFault removes one fault and says whether it was there.
func (o *Org) ClearFault(id int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.faults)
	o.faults = slices.DeleteFunc(o.faults, func(f *Fault) bool { return f.ID == id })
	return len(o.faults) < n
}

// ClearFaults removes all faults.
func (o *Org) ClearFaults() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faults = nil
}

func kinds() []Kind {
	return []Kind{KindAuthorize, KindToken, KindIntrospect, KindRevoke, KindUserInfo, KindIdentity, KindVersions, KindResources,
		KindLimits, KindQuery, KindQueryMore, KindGlobalDescribe, KindDescribe, KindGet, KindCreate, KindUpdate, KindDelete, KindTooling,
		KindUpsert, KindUpload, KindDownload, KindUpdated, KindDeleted, KindComposite, KindCollection, KindUnknown}
}

// defaults are the errors that the effects answer with; the others have none.
func defaults() map[Effect]Error {
	return map[Effect]Error{
		LockRow:          {400, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records: 006000000000001", []string{}},
		ValidationRule:   {400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", "The deal is under review and cannot be changed.", []string{}},
		RequestLimit:     {403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", nil},
		SessionInvalid:   {401, "INVALID_SESSION_ID", "Session expired or invalid", nil},
		HTMLUnavailable:  {Status: 503},
		EmptyList:        {Status: 500},
		EmptyBody:        {Status: 500},
		ModifiedSince:    {412, "ENTITY_FAILED_IFLASTMODIFIED_ON_UPDATE_CHECK", "The record was modified since the date given.", nil},
		APIError:         {500, "UNKNOWN_EXCEPTION", "An unexpected error occurred. Please include this ErrorId if you contact support: 1234567890-12345 (-1234567890)", nil},
		CutBefore:        {},
		CutAfter:         {},
		CutDuring:        {},
		TruncatedJSON:    {},
		UnavailableAfter: {Status: 503},
		Slow:             {},
	}
}

// takeFault finds the fault of a call and counts it down; nil if there is none.
func (o *Org) takeFault(c *call) *Fault {
	o.mu.Lock()
	defer o.mu.Unlock()
	target := c.r.URL.Path
	if q := c.r.URL.Query(); len(q) > 0 {
		for k, v := range q {
			target += "&" + k + "=" + strings.Join(v, ",")
		}
	}
	for i, f := range o.faults {
		if f.Kind != "" && f.Kind != c.kind || !strings.Contains(target, f.Path) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		hit := *f
		if f.Times == 1 {
			o.faults = slices.Delete(o.faults, i, i+1)
		} else if f.Times > 1 {
			f.Times--
		}
		return &hit
	}
	return nil
}

// error is the error that the fault answers with.
func (f *Fault) error() *Error {
	e := defaults()[f.Effect]
	setDefault(&f.Status, e.Status)
	setDefault(&f.Code, e.Code)
	setDefault(&f.Message, e.Message)
	e.Status, e.Code, e.Message = f.Status, f.Code, f.Message
	return &e
}

// before acts ahead of the call; done means that the reply stands instead of it.
func (f *Fault) before(ctx context.Context, kind Kind) (rep reply, done bool) {
	if f == nil {
		return reply{}, false
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			panic(http.ErrAbortHandler)
		}
	}
	e := f.error()
	switch f.Effect {
	case CutAfter, CutDuring, TruncatedJSON, UnavailableAfter, Slow:
		return reply{}, false
	case CutBefore:
		panic(http.ErrAbortHandler)
	case HTMLUnavailable:
		return f.retryAfter(page(e.Status)).ofWhole(), true
	case EmptyList:
		return jsonReply(e.Status, []any{}).ofWhole(), true
	case EmptyBody:
		return reply{status: e.Status}.ofWhole(), true
	}
	switch {
	case kind == KindToken:
		return f.retryAfter(oauthError(e.Status, e.Code, e.Message)), true
	case f.Effect == SessionInvalid, f.Effect == RequestLimit:
		return f.retryAfter(e.reply()).ofWhole(), true
	}
	return f.retryAfter(e.reply()), true
}

func (f *Fault) retryAfter(rep reply) reply {
	if f.RetryAfter <= 0 {
		return rep
	}
	return rep.with("Retry-After", strconv.Itoa(int(f.RetryAfter.Round(time.Second)/time.Second)))
}

// after acts on the reply of a call that was done.
func (f *Fault) after(rep reply) reply {
	if f == nil {
		return rep
	}
	switch f.Effect {
	case CutAfter:
		panic(http.ErrAbortHandler)
	case CutDuring:
		rep.cut = true
	case TruncatedJSON:
		return rep.truncated()
	case UnavailableAfter:
		return page(f.Status).ofWhole()
	}
	return rep
}

func page(status int) reply {
	return reply{status: status, body: []byte(htmlPage)}.with("Content-Type", "text/html; charset=UTF-8")
}
