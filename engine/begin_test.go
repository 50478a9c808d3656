package engine

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// begins notes what has a commit of its own to begin with, and what begins with the entry before it.
type begins struct {
	Ledger
	mu          sync.Mutex
	alone, with []string
}

func (b *begins) Begin(ctx context.Context, s *deal.Sealing, i deal.Intent) error {
	b.mu.Lock()
	b.alone = append(b.alone, i.What)
	b.mu.Unlock()
	return b.Ledger.Begin(ctx, s, i)
}

func (b *begins) Advance(ctx context.Context, s *deal.Sealing, e deal.Entry) error {
	if e.Then != nil {
		b.mu.Lock()
		b.with = append(b.with, e.Then.What)
		b.mu.Unlock()
	}
	return b.Ledger.Advance(ctx, s, e)
}

// What a deal need not wait for begins with the end of what came before it; where it waits for a turn, no lease runs.
func TestOnlyWhatWaitsForATurnHasACommitToBeginWith(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	b := &begins{Ledger: d.Ledger}
	d.Ledger = b
	w.won()
	d.wantDone(d.run())
	if want := []string{"gather", "sign", "check"}; !slices.Equal(b.alone, want) {
		t.Errorf("%v have commits of their own, want %v", b.alone, want)
	}
	if want := []string{"render", "prepare", "timestamp", "complete", "keep", "attach", "report"}; !slices.Equal(b.with, want) {
		t.Errorf("%v begin with the entry before them, want %v", b.with, want)
	}
}

// What was committed ahead is used once, for that very effect, and not when the deal had to wait: its lease would end too soon.
func TestWhatHasBegunIsNoLongerGoodAfterAWait(t *testing.T) {
	now := time.Now()
	intent := deal.Intent{Step: deal.Kept, What: "attach", Digest: "d", Lease: transferLease}
	for name, c := range map[string]struct {
		change func(*deal.Intent)
		wait   time.Duration
		want   bool
	}{
		"at once":                 {wait: 0, want: true},
		"soon":                    {wait: begunLife - 1, want: true},
		"late":                    {wait: begunLife},
		"the clock was set back":  {wait: -time.Second},
		"another effect":          {change: func(i *deal.Intent) { i.What = "keep" }},
		"other bytes":             {change: func(i *deal.Intent) { i.Digest = "e" }},
		"at another step":         {change: func(i *deal.Intent) { i.Step = deal.Checked }},
		"under another lease":     {change: func(i *deal.Intent) { i.Lease *= 2 }},
		"what has limits of keys": {change: func(i *deal.Intent) { i.Limits.Day = 1 }},
	} {
		i := intent
		if c.change != nil {
			c.change(&i)
		}
		r := &run{Engine: &Engine{Now: func() time.Time { return now.Add(c.wait) }}, begun: &begun{intent, now}}
		if got := r.hasBegun(i); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
		if r.hasBegun(i) {
			t.Errorf("%s: it is good twice", name)
		}
	}
}
