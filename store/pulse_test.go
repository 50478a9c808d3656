package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// runQueue is work for a queue that the test changes while it runs.
func runQueue(t *testing.T, q *Queue, handle Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx, handle) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the queue ended with %v", err)
		}
	})
}

func TestDealsOfATenantThatIsConfiguredLaterAreWorked(t *testing.T) {
	const later = deal.TenantID("later")
	s := wallStore(t)
	activate(t, s, later, ruleA)
	q := s.Queue(Workers{Tenants: []deal.TenantID{acme}})
	ran := make(chan deal.TxID, 10)
	runQueue(t, q, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
		if err := end(ctx, s, tx); err != nil {
			t.Error(err)
		}
		ran <- tx
		return deal.Outcome{}
	}))
	q.SetTenants([]deal.TenantID{acme, later})
	fresh, err := s.Notice(t.Context(), pageOf(t, s, later, change("006A", "h1")))
	if err != nil {
		t.Fatal(err)
	}
	if got := receive(t, ran, "the deal of the later tenant"); got != fresh[0] {
		t.Errorf("%s ran, want %s", got, fresh[0])
	}
}

func TestADealOfATenantThatIsTakenOutIsStillWorked(t *testing.T) {
	s := wallStore(t)
	q := s.Queue(Workers{Tenants: []deal.TenantID{acme}})
	ran := make(chan deal.TxID, 10)
	runQueue(t, q, seals(func(_ context.Context, tx deal.TxID) deal.Outcome {
		ran <- tx
		return deal.Outcome{Again: time.Millisecond}
	}))
	tx := notice(t, s, change("006A", "h1"))[0]
	receive(t, ran, "the first run")
	for range 2 {
		q.SetTenants(nil)
		if got := receive(t, ran, "a run after the tenant was taken out"); got != tx {
			t.Errorf("%s ran, want %s", got, tx)
		}
	}
}

func TestAHundredChangesOfTheTenantsLeaveNoQueueBehind(t *testing.T) {
	s := wallStore(t)
	q := s.Queue(Workers{Tenants: []deal.TenantID{acme}})
	runQueue(t, q, seals(func(context.Context, deal.TxID) deal.Outcome { return deal.Outcome{} }))
	if err := q.Pulse(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := producers(t)
	for i := range 100 {
		q.SetTenants([]deal.TenantID{acme, deal.TenantID(fmt.Sprintf("passing-%d", i))})
		if err := q.Pulse(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	q.SetTenants([]deal.TenantID{acme})
	deadline := time.After(20 * time.Second)
	for now := producers(t); now > before; now = producers(t) {
		select {
		case <-deadline:
			t.Fatalf("%d goroutines of queues, %d before", now, before)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// producers counts the goroutines that belong to a queue of River's.
func producers(t *testing.T) int {
	t.Helper()
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	n := 0
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		if strings.Contains(stack, "river.(*producer)") {
			n++
		}
	}
	return n
}

func TestAPulseNeedsAWriterAndAQueueThatMove(t *testing.T) {
	s := wallStore(t)
	q := s.Queue(Workers{})
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if err := q.Pulse(soon()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a queue that does not run: %v", err)
	}
	runQueue(t, q, func(context.Context, deal.Job) deal.Outcome { return deal.Outcome{} })
	if err := q.Pulse(t.Context()); err != nil {
		t.Errorf("a queue that runs: %v", err)
	}
	writer, err := s.write.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Pulse(soon()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a writer that hangs: %v", err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := q.Pulse(t.Context()); err != nil {
		t.Errorf("a writer that goes on: %v", err)
	}
}
