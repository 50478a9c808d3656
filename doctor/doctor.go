// Package doctor asks a house whether it could seal a contract now: checks that run side by side, each with a deadline,
// findings that name what is wrong and what mends it, and the report in which people and machines read them.
//
// It knows no check itself: they belong to whoever knows the house.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Result is how a finding is to be taken.
type Result string

// The results. A failure keeps documents from being sealed or delivered, or will before long. A warning does not, and yet
// somebody should know.
const (
	Pass    Result = "pass"
	Warning Result = "warning"
	Failure Result = "failure"
)

// Groups of findings that are not those of a tenant.
const (
	Configuration = "configuration"
	Signing       = "signing"
	Machine       = "machine"
)

// TenantGroup is the group of a tenant's findings.
func TenantGroup(id string) string { return "tenant " + id }

// Finding is what one check has found about one thing. It names things of the configuration and of the account, never a
// value of a record or a secret.
type Finding struct {
	// Group is Configuration, Signing, Machine or TenantGroup.
	Group string `json:"group"`
	// Tenant is the tenant's id; empty for what all tenants share.
	Tenant string `json:"tenant,omitempty"`
	// Check names what was asked. The names do not change between versions.
	Check string `json:"check"`
	// Subject tells findings of one check apart: a rule, a key, an address. Empty when there is only one.
	Subject string `json:"subject,omitempty"`
	Result  Result `json:"result"`
	// What was found; Cure is what mends it, empty for a pass. Both are for people, without a full stop.
	What string `json:"what"`
	Cure string `json:"cure,omitempty"`
}

// Passed, Warned and Failed make findings of a check; whoever runs it fills in the rest.
func Passed(check, format string, args ...any) Finding {
	return Finding{Check: check, Result: Pass, What: fmt.Sprintf(format, args...)}
}

// Warned says with cure what would make the warning go away.
func Warned(check, cure, format string, args ...any) Finding {
	return Finding{Check: check, Result: Warning, What: fmt.Sprintf(format, args...), Cure: cure}
}

// Failed says with cure what would mend it.
func Failed(check, cure, format string, args ...any) Finding {
	return Finding{Check: check, Result: Failure, What: fmt.Sprintf(format, args...), Cure: cure}
}

// On returns the finding with its subject.
func (f Finding) On(subject string) Finding {
	f.Subject = subject
	return f
}

// Same reports whether two findings are about the same thing, whatever they say of it.
func (f Finding) Same(other Finding) bool {
	return f.Group == other.Group && f.Check == other.Check && f.Subject == other.Subject
}

// Examination is a set of questions that are asked one after another, beside all others.
type Examination struct {
	Group  string
	Tenant string
	// Name and Subject stand in the finding that says that it did not end in time.
	Name, Subject string
	// Limit is how long it may take.
	Limit time.Duration
	// Run hands each finding to report as soon as it has it, so that what was found before the deadline is not lost, and
	// returns soon after ctx ends.
	Run func(ctx context.Context, report func(Finding))
}

// grace is how much longer than its deadline an examination may take before nobody waits for it any more.
const grace = 2 * time.Second

// Run carries out all examinations at once. One that does not come to its end is a failure, and nobody waits for it: the
// others are not held up. The findings are in the order of the examinations.
func Run(ctx context.Context, all []Examination) []Finding {
	results := make([][]Finding, len(all))
	var wait sync.WaitGroup
	for i, e := range all {
		wait.Go(func() { results[i] = e.run(ctx) })
	}
	wait.Wait()
	return slices.Concat(results...)
}

func (e Examination) run(ctx context.Context) []Finding {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, e.Limit)
	defer cancel()
	var mu sync.Mutex
	var found []Finding
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Run(ctx, func(f Finding) {
			f.Group, f.Tenant = e.Group, e.Tenant
			mu.Lock()
			defer mu.Unlock()
			found = append(found, f)
		})
	}()
	select {
	case <-done:
		return found
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-done:
		return found
	case <-late.C:
	}
	mu.Lock()
	defer mu.Unlock()
	f := Failed(e.Name, "see what it waits for; the other checks did not wait", "no answer within %s", time.Since(began).Round(time.Second)).On(e.Subject)
	f.Group, f.Tenant = e.Group, e.Tenant
	return append(slices.Clone(found), f)
}

// Changes returns what is new or different in now, and what has gone from before because it was mended. Passes count as
// nothing on either side.
func Changes(before, now []Finding) (raised, mended []Finding) {
	trouble := func(list []Finding) []Finding {
		return slices.DeleteFunc(slices.Clone(list), func(f Finding) bool { return f.Result == Pass })
	}
	was, is := trouble(before), trouble(now)
	for _, f := range is {
		if !slices.ContainsFunc(was, func(old Finding) bool {
			return old.Same(f) && old.Result == f.Result && steady(old.What) == steady(f.What)
		}) {
			raised = append(raised, f)
		}
	}
	for _, f := range was {
		if !slices.ContainsFunc(is, f.Same) {
			mended = append(mended, f)
		}
	}
	return raised, mended
}

// steady is a text without its figures: that a certificate has a day less, or a disk took a millisecond more, is no news.
func steady(what string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' || r == '.' {
			return -1
		}
		return r
	}, what)
}
