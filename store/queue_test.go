package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// work runs the queue until the test ends.
func work(t *testing.T, s *Store, w Workers, handle Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Queue(w).Run(ctx, handle) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the queue ended with %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// seals hands the sealings' jobs to handle and finishes the others.
func seals(handle func(context.Context, deal.TxID) deal.Outcome) Handler {
	return func(ctx context.Context, j deal.Job) deal.Outcome {
		if j.Kind != deal.JobSeal {
			return deal.Outcome{}
		}
		return handle(ctx, j.Tx)
	}
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s did not happen", what)
		panic("unreachable")
	}
}

// end ends a sealing so that its job is done.
func end(ctx context.Context, s *Store, tx deal.TxID) error {
	sl, err := s.Load(ctx, tx)
	if err != nil {
		return err
	}
	sl.Condition, sl.Reason = deal.Ended, "dropped: test"
	return s.Advance(ctx, sl, deal.Entry{Who: "daemon", What: "ended"})
}

func wallStore(t *testing.T) *Store {
	t.Helper()
	s := open(t, options(t.TempDir(), nil))
	activate(t, s, acme, ruleA)
	return s
}

func TestTheStatementThatTakesJobsIsPlannedOnce(t *testing.T) {
	s := wallStore(t)
	ran := make(chan deal.Job, 10)
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, func(_ context.Context, j deal.Job) deal.Outcome {
		ran <- j
		return deal.Outcome{}
	})
	notice(t, s, change("006A", "h1"))
	receive(t, ran, "a job")
	stop()
	conn, err := s.write.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Raw(func(driver any) error {
		for query := range driver.(*compiledConn).idle {
			if strings.Contains(query, "JobGetAvailable") && strings.Contains(query, "LIMIT ?") && !strings.Contains(plannedOnce(query), "LIMIT ?") {
				return nil
			}
		}
		return errors.New("there is none, or its limit is looked for as it stands")
	}); err != nil {
		t.Error(err)
	}
}

func TestAJobRunsOnceForEveryEntryAndTellsItsRecord(t *testing.T) {
	s := wallStore(t)
	ran := make(chan deal.Job, 10)
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, func(ctx context.Context, j deal.Job) deal.Outcome {
		if j.Kind == deal.JobSeal {
			if err := end(ctx, s, j.Tx); err != nil {
				t.Error(err)
			}
		}
		ran <- j
		return deal.Outcome{}
	})
	began := time.Now()
	tx := notice(t, s, change("006A", "h1"))[0]
	first := receive(t, ran, "the first job")
	t.Logf("from Notice to the handler: %s", time.Since(began))
	got := []deal.Job{first, receive(t, ran, "the second job")}
	if !slices.Contains(got, deal.Job{Kind: deal.JobSeal, Tx: tx}) || !slices.Contains(got, deal.Job{Kind: deal.JobTell, Tx: tx}) {
		t.Fatalf("ran %v", got)
	}
	stop()
	if n := query[int](t, s, `SELECT count(*) FROM jobs WHERE kind = 'seal'`); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

func TestARequestThatComesWhileTheJobRunsIsNeitherLostNorRunBesideIt(t *testing.T) {
	s := wallStore(t)
	running, goOn, again := make(chan deal.TxID), make(chan bool), make(chan bool, 1)
	var mu sync.Mutex
	runs, ended := 0, false
	work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
		mu.Lock()
		runs++
		first, beside := runs == 1, !ended
		mu.Unlock()
		if !first {
			if err := end(ctx, s, tx); err != nil {
				t.Error(err)
			}
			again <- beside
			return deal.Outcome{}
		}
		sl, err := s.Load(ctx, tx)
		if err != nil {
			t.Error(err)
			return deal.Outcome{}
		}
		sl.Condition = deal.Held
		if err := s.Advance(ctx, sl, deal.Entry{Who: "daemon", What: "held"}); err != nil {
			t.Error(err)
		}
		running <- tx
		<-goOn
		mu.Lock()
		ended = true
		mu.Unlock()
		return deal.Outcome{Again: time.Hour} // it has not seen the release
	}))
	notice(t, s, change("006A", "h1"))
	tx := receive(t, running, "the first run")
	if err := s.Release(t.Context(), tx, "x", "anna", "checked"); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, s, `SELECT count(*) FROM river_job WHERE json_extract(args, '$.key') = $1`, tx); n != 1 {
		t.Errorf("%d queued jobs of one deal while it runs", n)
	}
	close(goOn)
	if receive(t, again, "the run after the release") {
		t.Error("two jobs of one deal ran at once")
	}
}

func TestAJobThatIsTakenBackWhileItRunsEndsWithIt(t *testing.T) {
	s := wallStore(t)
	ran := make(chan bool, 1)
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
		if err := end(ctx, s, tx); err != nil {
			t.Error(err)
		}
		ran <- true
		return deal.Outcome{Again: time.Hour}
	}))
	one(t, s, "006A")
	receive(t, ran, "the run")
	stop()
	if n := query[int](t, s, `SELECT count(*) FROM jobs WHERE kind = 'seal'`); n != 0 {
		t.Fatalf("%d jobs of an ended deal", n)
	}
}

func TestAReleaseBringsAWaitingJobForward(t *testing.T) {
	s := wallStore(t)
	sl := one(t, s, "006A")
	sl.Condition, sl.Next = deal.Retrying, s.now().Add(time.Hour)
	advance(t, s, sl, "failed")
	ran := make(chan deal.TxID, 1)
	work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
		if err := end(ctx, s, tx); err != nil {
			t.Error(err)
		}
		ran <- tx
		return deal.Outcome{}
	}))
	// River looks at what it calls scheduled every five seconds only; what is available waits for its time as well.
	if n := query[int](t, s, `SELECT count(*) FROM river_job WHERE state = 'available' AND scheduled_at > datetime('now', '+59 minutes')`); n != 1 {
		t.Fatalf("%d jobs wait for an hour, want 1", n)
	}
	if err := s.Retry(t.Context(), sl.Tx, "anna", "now"); err != nil {
		t.Fatal(err)
	}
	receive(t, ran, "the retry")
}

func TestAJobOfALiveSealingIsNeverDropped(t *testing.T) {
	s := wallStore(t)
	sl := one(t, s, "006A")
	ran := make(chan bool, 1)
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(context.Context, deal.TxID) deal.Outcome {
		ran <- true
		return deal.Outcome{}
	}))
	receive(t, ran, "the run")
	stop()
	due := fromMillis(query[int64](t, s, `SELECT due FROM jobs WHERE kind = 'seal' AND key = $1`, sl.Tx))
	if wait := time.Until(due); wait < idle/2 || wait > idle {
		t.Fatalf("the job is due in %s", wait)
	}
}

// A job that moves its sealing goes on with it by itself, and asks for no other; what it has put off or given up before it
// changed its mind is asked for again.
func TestAJobThatMovesItsSealingAsksForNoOther(t *testing.T) {
	for name, c := range map[string]struct {
		before []deal.Condition
		asked  int64
	}{
		"it only moves":            {nil, 0},
		"it was put off":           {[]deal.Condition{deal.Retrying}, 2},
		"it waited for somebody":   {[]deal.Condition{deal.Held}, 2},
		"it was put off and moved": {[]deal.Condition{deal.Retrying, deal.Running}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := wallStore(t)
			asked := make(chan int64, 1)
			stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
				wants := func() int64 { return query[int64](t, s, `SELECT wants FROM jobs WHERE kind = 'seal' AND key = $1`, tx) }
				sl, begun := load(t, s, tx), wants()
				for _, condition := range append(c.before, deal.Running) {
					sl.Condition, sl.Next = condition, time.Now().Add(time.Hour)
					if condition == deal.Running && sl.Step == deal.Noticed {
						sl.Step = deal.Gathered
					}
					if err := s.Advance(ctx, sl, deal.Entry{Who: "daemon", What: "moved"}); err != nil {
						t.Error(err)
					}
				}
				asked <- wants() - begun
				return deal.Outcome{Again: time.Hour}
			}))
			sl := one(t, s, "006A")
			if n := receive(t, asked, "the run"); n != c.asked {
				t.Errorf("the job was asked for %d times, want %d", n, c.asked)
			}
			stop()
			due := fromMillis(query[int64](t, s, `SELECT due FROM jobs WHERE kind = 'seal' AND key = $1`, sl.Tx))
			if soon := time.Until(due) < time.Minute; soon != (c.asked > 0) {
				t.Errorf("the job is due in %s", time.Until(due))
			}
		})
	}
}

func TestAfterACrashEveryJobIsThereAgainAtOnce(t *testing.T) {
	s := wallStore(t)
	running := one(t, s, "006A")
	unqueued := one(t, s, "006B")
	unknown := one(t, s, "006C")
	held := one(t, s, "006D")
	held.Condition = deal.Held
	advance(t, s, held, "held")
	putOff := one(t, s, "006E")
	if err := s.update(t.Context(), "", func(x *txn) error { return x.want(deal.JobSeal, string(putOff.Tx), acme, x.now.Add(time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	tamper(t, s, `UPDATE river_job SET state = 'running' WHERE json_extract(args, '$.key') = $1`, running.Tx)
	tamper(t, s, `DELETE FROM river_job WHERE json_extract(args, '$.key') = $1`, unqueued.Tx)
	tamper(t, s, `DELETE FROM river_job WHERE json_extract(args, '$.key') = $1`, unknown.Tx)
	tamper(t, s, `DELETE FROM jobs WHERE key = $1 OR kind = 'tell'`, unknown.Tx)
	tamper(t, s, `INSERT INTO river_leader (elected_at, expires_at, leader_id, name) VALUES (datetime('now'), datetime('now', '+1 hour'), 'dead', 'default')`)
	dir := s.dir
	s.release()
	s = open(t, options(dir, nil))
	for _, sl := range []*deal.Sealing{running, unqueued, unknown, putOff} {
		if state := query[string](t, s, `SELECT group_concat(state) FROM river_job WHERE json_extract(args, '$.key') = $1`, sl.Tx); state != "available" {
			t.Errorf("the jobs of %s are %s after the start, want one that is available", sl.Tx, state)
		}
	}
	ran := make(chan deal.TxID, 10)
	told := make(chan deal.TxID, 100)
	work(t, s, Workers{Tenants: []deal.TenantID{acme}}, func(ctx context.Context, j deal.Job) deal.Outcome {
		if j.Kind == deal.JobTell {
			told <- j.Tx
			return deal.Outcome{}
		}
		if err := end(ctx, s, j.Tx); err != nil {
			t.Error(err)
		}
		ran <- j.Tx
		return deal.Outcome{}
	})
	var got []deal.TxID
	for range 4 {
		got = append(got, receive(t, ran, "a job"))
	}
	for _, want := range []*deal.Sealing{running, unqueued, unknown, putOff} {
		if !slices.Contains(got, want.Tx) {
			t.Errorf("%s did not run", want.Tx)
		}
	}
	if slices.Contains(got, held.Tx) {
		t.Error("what is held ran")
	}
	for receive(t, told, "telling the held sealing's record") != held.Tx {
	}
}

// waits returns how many jobs of the queue may not run yet, by the clock of the machine, on which River goes.
func waits(t *testing.T, s *Store) int {
	t.Helper()
	return query[int](t, s, `SELECT count(*) FROM river_job WHERE json_extract(args, '$.kind') = 'seal' AND scheduled_at > datetime('now', '+1 second')`)
}

func TestWhatTheClockWasSetBackBeforeIsDue(t *testing.T) {
	dir, c := t.TempDir(), &testClock{now: time.Now().Add(365 * 24 * time.Hour)}
	s := open(t, options(dir, c.Now))
	activate(t, s, acme, ruleA)
	retrying, lost := one(t, s, "006A"), one(t, s, "006B")
	for _, sl := range []*deal.Sealing{retrying, lost} {
		sl.Condition, sl.Next = deal.Retrying, c.now.Add(time.Hour)
		advance(t, s, sl, "failed")
	}
	tamper(t, s, `DELETE FROM jobs WHERE key = $1`, lost.Tx)
	tamper(t, s, `DELETE FROM river_job WHERE json_extract(args, '$.key') = $1`, lost.Tx)
	if n := waits(t, s); n != 1 {
		t.Fatalf("%d jobs wait, want 1", n)
	}
	s.release()
	c.now = time.Now()
	s = open(t, options(dir, c.Now))
	if n := waits(t, s); n != 0 {
		t.Errorf("%d jobs wait for a time that is a year away", n)
	}
	if n := query[int](t, s, `SELECT count(*) FROM jobs j JOIN river_job r ON r.id = j.job WHERE j.kind = 'seal' AND j.due <= $1`, c.now.UnixMilli()); n != 2 {
		t.Errorf("%d jobs are due, want 2", n)
	}
}

func TestAWaitThatNobodyAsksForIsNone(t *testing.T) {
	for wait, want := range map[time.Duration]int{farFuture: 1, farFuture + time.Hour: 0} {
		s := wallStore(t)
		sl := one(t, s, "006A")
		sl.Condition, sl.Next = deal.Retrying, s.now().Add(wait)
		advance(t, s, sl, "failed")
		if n := waits(t, s); n != want {
			t.Errorf("%s: %d jobs wait, want %d", wait, n, want)
		}
	}
}

func TestAHandlerCannotPutOffItsJobForEver(t *testing.T) {
	s := wallStore(t)
	sl := one(t, s, "006A")
	ran := make(chan bool, 1)
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(context.Context, deal.TxID) deal.Outcome {
		ran <- true
		return deal.Outcome{Again: math.MaxInt64}
	}))
	receive(t, ran, "the run")
	stop()
	if due := fromMillis(query[int64](t, s, `SELECT due FROM jobs WHERE kind = 'seal' AND key = $1`, sl.Tx)); time.Until(due) > farFuture || time.Until(due) < farFuture-time.Hour {
		t.Fatalf("due in %s", time.Until(due))
	}
}

func TestATenantWithManyDealsLetsTheOthersPass(t *testing.T) {
	s := wallStore(t)
	const small = deal.TenantID("small")
	activate(t, s, small, ruleA)
	var many []deal.Change
	for i := range 200 {
		many = append(many, change(fmt.Sprintf("006%03d", i), "h1"))
	}
	notice(t, s, many...)
	fresh, err := s.Notice(t.Context(), pageOf(t, s, small, change("900", "h1")))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	busy, most := 0, 0
	small1 := make(chan bool, 1)
	gate := make(chan bool)
	work(t, s, Workers{Tenants: []deal.TenantID{acme, small}, PerTenant: 3}, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
		if tx == fresh[0] {
			small1 <- true
			return deal.Outcome{Again: time.Hour}
		}
		mu.Lock()
		busy++
		most = max(most, busy)
		mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
		}
		mu.Lock()
		busy--
		mu.Unlock()
		return deal.Outcome{Again: time.Hour}
	}))
	receive(t, small1, "the small tenant's deal, while the other tenant's block")
	close(gate)
	mu.Lock()
	defer mu.Unlock()
	if most > 3 {
		t.Fatalf("%d jobs of one tenant ran at once, 3 are allowed", most)
	}
}

func TestATenantThatIsNotConfiguredAnyMoreIsWorkedToItsEnd(t *testing.T) {
	for name, given := range map[string]struct {
		told bool
		to   deal.Condition
		kind deal.JobKind // "" when nothing is left to do
	}{
		"a deal under way":          {true, deal.Running, deal.JobSeal},
		"a record that is not told": {false, deal.Ended, deal.JobTell},
		"a held deal, released":     {true, deal.Held, deal.JobSeal},
		"nothing":                   {true, deal.Ended, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := wallStore(t)
			sl := one(t, s, "006A")
			sl.Condition = given.to
			advance(t, s, sl, "so")
			if given.told {
				told(t, s, sl.Tx)
			}
			q := s.Queue(Workers{})
			_, tenants, _, err := q.wanted(t.Context())
			if want := given.kind != ""; err != nil || slices.Contains(tenants, acme) != want {
				t.Fatalf("worked: %v, %v", tenants, err)
			}
			if given.kind == "" {
				return
			}
			ran := make(chan deal.TxID, 100)
			work(t, s, Workers{}, func(_ context.Context, j deal.Job) deal.Outcome {
				if j.Kind == given.kind {
					ran <- j.Tx
				}
				return deal.Outcome{Again: time.Hour}
			})
			if given.to == deal.Held {
				if err := s.Release(t.Context(), sl.Tx, "x", "anna", "checked"); err != nil {
					t.Fatal(err)
				}
			}
			if got := receive(t, ran, "the job"); got != sl.Tx {
				t.Fatalf("ran %s", got)
			}
		})
	}
}

// A step whose end cannot be committed leaves its lease behind, for as long as two uploads may take.
func TestARunThatCouldNotSayThatItIsOverKeepsTheNextOneNotWaiting(t *testing.T) {
	s := wallStore(t)
	notice(t, s, change("006A", "h1"))
	begun := make(chan error, 10)
	work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
		sl, err := s.Load(ctx, tx)
		if err == nil {
			err = s.Begin(ctx, sl, deal.Intent{Step: sl.Step, What: "gather", Lease: time.Hour})
		}
		begun <- err
		return deal.Outcome{Again: time.Millisecond}
	}))
	for range 3 {
		if err := receive(t, begun, "the next run"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPanickingJobIsTriedAgainAndItsValueIsNotLogged(t *testing.T) {
	var out syncBuffer
	o := options(t.TempDir(), nil)
	o.Log = slog.New(slog.NewTextHandler(&out, nil))
	s := open(t, o)
	activate(t, s, acme, ruleA)
	tx := notice(t, s, change("006A", "h1"))[0]
	ran := make(chan bool, 1)
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(context.Context, deal.TxID) deal.Outcome {
		ran <- true
		panic(private)
	}))
	receive(t, ran, "the run")
	stop()
	if n := query[int](t, s, `SELECT count(*) FROM jobs j JOIN river_job r ON r.id = j.job WHERE j.key = $1 AND scheduled_at > datetime('now')`, tx); n != 1 {
		t.Errorf("%d jobs wait for another try, want 1", n)
	}
	if text := out.String(); !strings.Contains(text, "panicked") || strings.Contains(text, private) {
		t.Errorf("logged %s", text)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestStoppingWaitsForTheRunningJob(t *testing.T) {
	s := wallStore(t)
	sl := one(t, s, "006A")
	running, goOn := make(chan bool), make(chan bool)
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, seals(func(ctx context.Context, tx deal.TxID) deal.Outcome {
		close(running)
		<-goOn
		if err := end(ctx, s, tx); err != nil {
			t.Error(err)
		}
		return deal.Outcome{}
	}))
	receive(t, running, "the run")
	stopped := make(chan bool)
	go func() { stop(); close(stopped) }()
	close(goOn)
	receive(t, stopped, "the end")
	if got := load(t, s, sl.Tx); got.Condition != deal.Ended {
		t.Fatalf("the running job was cut off: %s", got.Condition)
	}
}

func TestAfterTheDrainTimeARunningJobIsCancelled(t *testing.T) {
	s := wallStore(t)
	one(t, s, "006A")
	running, cancelled := make(chan bool), make(chan bool, 1)
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}, Drain: time.Millisecond}, seals(func(ctx context.Context, _ deal.TxID) deal.Outcome {
		close(running)
		<-ctx.Done()
		cancelled <- true
		return deal.Outcome{}
	}))
	receive(t, running, "the run")
	stop()
	receive(t, cancelled, "the cancellation")
}

// signal is a writer that says when something was written.
type signal chan string

func (c signal) Write(p []byte) (int, error) {
	select {
	case c <- string(p):
	default:
	}
	return len(p), nil
}

func TestTheEndOfAJobIsCommittedOnceTheDiskHasRoom(t *testing.T) {
	logged := make(signal, 1)
	o := options(t.TempDir(), nil)
	o.Log = slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelError}))
	s := open(t, o)
	activate(t, s, acme, ruleA)
	n := page(t, s, change("006A", "h1"))
	silent := plan()
	silent.WriteBack = deal.WriteBack{} // the deal's job is the only one
	n.Plans[ruleA] = silent
	stop := work(t, s, Workers{Tenants: []deal.TenantID{acme}}, func(ctx context.Context, j deal.Job) deal.Outcome {
		if err := end(ctx, s, j.Tx); err != nil {
			t.Error(err)
		}
		if _, err := s.write.ExecContext(ctx, `CREATE TRIGGER full BEFORE DELETE ON jobs BEGIN SELECT RAISE(ABORT, 'no room'); END`); err != nil {
			t.Error(err)
		}
		return deal.Outcome{}
	})
	if _, err := s.Notice(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if text := receive(t, logged, "the failure"); !strings.Contains(text, "no room") {
		t.Fatalf("logged %s", text)
	}
	if _, err := s.write.ExecContext(t.Context(), `DROP TRIGGER full`); err != nil {
		t.Fatal(err)
	}
	stop()
	if n := query[int](t, s, `SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM river_job WHERE state <> 'completed')`); n != 0 {
		t.Fatalf("%d jobs are left", n)
	}
}

func TestRiverIsHeardFromWarningsOn(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(quiet{slog.NewTextHandler(&out, nil)}).With("a", 1).WithGroup("g")
	log.Info("daily life")
	log.Warn("trouble")
	if text := out.String(); strings.Contains(text, "daily") || !strings.Contains(text, "trouble") {
		t.Fatalf("logged %s", text)
	}
}
