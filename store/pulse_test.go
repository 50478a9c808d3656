package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
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
	ran := make(chan deal.TxID, 10)
	runQueue(t, q, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
		if err := end(ctx, s, tx); err != nil {
			t.Error(err)
		}
		ran <- tx
		return deal.Outcome{}
	}))
	notice(t, s, change("006A", "h1"))
	receive(t, ran, "a deal, so that both queues have started")
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
	deadline := time.After(2 * time.Minute)
	for left := producers(t); left > before; left = producers(t) {
		select {
		case <-deadline:
			t.Fatalf("%d goroutines of queues, %d before", left, before)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestATenantThatComesBackWhileItsQueueClosesIsWorked(t *testing.T) {
	t.Parallel()
	s, errs := loudStore(t)
	q := s.Queue(Workers{Tenants: []deal.TenantID{acme}})
	ran, goOn := make(chan deal.TxID, 10), make(chan bool)
	finish := sync.OnceFunc(func() { close(goOn) })
	defer finish()
	runQueue(t, q, func(ctx context.Context, j deal.Job) deal.Outcome {
		if j.Kind != deal.JobSeal {
			return deal.Outcome{}
		}
		if err := end(ctx, s, j.Tx); err != nil {
			t.Error(err)
		}
		if r, err := s.Receipt(ctx, j.Tx); err != nil {
			t.Error(err)
		} else if err := s.Told(ctx, j.Tx, r.Sequence, 0); err != nil { // nothing is left of the tenant
			t.Error(err)
		}
		ran <- j.Tx
		<-goOn // the tail of the job, such as a late write
		return deal.Outcome{}
	})
	notice(t, s, change("006A", "h1"))
	receive(t, ran, "the first deal")
	q.SetTenants(nil)
	if text := receive(t, errs, "the end of patience with a job that does not end"); !strings.Contains(text, "close the queue of acme") {
		t.Fatalf("logged %s", text)
	}
	q.SetTenants([]deal.TenantID{acme})
	finish()
	second := notice(t, s, change("006B", "h2"))[0]
	if got := receive(t, ran, "the deal of the tenant that is back"); got != second {
		t.Errorf("%s ran, want %s", got, second)
	}
}

func TestATenantWhoseQueueCannotBeOpenedAtOnceIsWorkedLater(t *testing.T) {
	t.Parallel()
	const later = deal.TenantID("later")
	s, errs := loudStore(t)
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
	// Both queues that the start opens have written their rows once each has worked: the trigger is for the third.
	if err := q.Pulse(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := notice(t, s, change("006B", "h2"))[0]
	if got := receive(t, ran, "a deal of the tenant of the start"); got != first {
		t.Fatalf("%s ran, want %s", got, first)
	}
	if _, err := s.write.ExecContext(t.Context(), `CREATE TRIGGER full BEFORE INSERT ON river_queue BEGIN SELECT RAISE(ABORT, 'no room'); END`); err != nil {
		t.Fatal(err)
	}
	q.SetTenants([]deal.TenantID{acme, later})
	for !strings.Contains(receive(t, errs, "the failure"), "open the queue of later") { // River tells of it too
	}
	if _, err := s.write.ExecContext(t.Context(), `DROP TRIGGER full`); err != nil {
		t.Fatal(err)
	}
	fresh, err := s.Notice(t.Context(), pageOf(t, s, later, change("006A", "h1")))
	if err != nil {
		t.Fatal(err)
	}
	if got := receive(t, ran, "the deal of the later tenant"); got != fresh[0] {
		t.Errorf("%s ran, want %s", got, fresh[0])
	}
}

// loudStore is a wallStore whose errors the test hears.
func loudStore(t *testing.T) (*Store, <-chan string) {
	t.Helper()
	errs := make(signal, 100)
	o := options(t.TempDir(), nil)
	o.Log = slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: slog.LevelError}))
	s := open(t, o)
	activate(t, s, acme, ruleA)
	return s, errs
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

// soon ends before anything long has.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestAPulseNeedsAWriterAndAQueueThatMove(t *testing.T) {
	s := wallStore(t)
	q := s.Queue(Workers{})
	if err := q.Pulse(soon(t)); !errors.Is(err, context.DeadlineExceeded) {
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
	if err := q.Pulse(soon(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a writer that hangs: %v", err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := q.Pulse(t.Context()); err != nil {
		t.Errorf("a writer that goes on: %v", err)
	}
}

func TestAPulseTellsAnotherProgramsLockFromAWriterThatHangs(t *testing.T) {
	s := wallStore(t)
	q := s.Queue(Workers{})
	runQueue(t, q, func(context.Context, deal.Job) deal.Outcome { return deal.Outcome{} })
	if _, err := s.write.ExecContext(t.Context(), `PRAGMA busy_timeout = 200`); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, databaseName)+"?_txlock=immediate&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	lock, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback()
	var busy *BusyError
	if err := q.Pulse(t.Context()); !errors.As(err, &busy) {
		t.Fatalf("a lock that is held for longer than a write waits: %v", err)
	}
	first, err := s.write.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Pulse(soon(t)); !errors.As(err, &busy) {
		t.Errorf("a pulse that ends behind another that waits for the lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := q.Pulse(t.Context()); err != nil {
		t.Fatalf("a lock that is given up: %v", err)
	}
	writer, err := s.write.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := q.Pulse(soon(t)); errors.As(err, &busy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a writer that hangs after the lock: %v", err)
	}
}

func TestAPulseOfAnEarlierProcessAnswersNoneOfThisOne(t *testing.T) {
	var earlier, now pulses
	left, _ := earlier.begin()
	_, arrived := now.begin()
	now.end(left)
	select {
	case <-arrived:
		t.Error("a pulse has arrived that was not sent")
	default:
	}
}
