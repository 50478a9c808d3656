package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// The queue is River, and only this file knows it. River's rows are a timetable: what should run is in our table jobs,
// one row per key, written in the transaction that makes it due. That row, not River's uniqueness, lets at most one job
// per key run and loses no request that arrives while one runs.

// Workers is how a Queue spends the machine.
type Workers struct {
	// Tenants that are configured when Run begins; see SetTenants.
	Tenants []deal.TenantID
	// PerTenant is how many jobs of one tenant run at once, so that a tenant with thousands of deals does not keep the
	// others waiting; 12 when zero. Most of a job is waiting for a CRM, and those that wait together share its calls.
	PerTenant int
	// Drain is how long running jobs may take to end after the context of Run was cancelled, before theirs is cancelled
	// too; 30 seconds when zero. They then have drainGrace to come back.
	Drain time.Duration
}

// Queue runs what the ledger has made due.
type Queue struct {
	s       *Store
	w       Workers
	changed chan struct{} // has room for one: the tenants are others now
	pulses  pulses

	mu      sync.Mutex
	tenants []deal.TenantID
}

// Queue returns the queue of the store. Only one may run at a time.
func (s *Store) Queue(w Workers) *Queue {
	if w.PerTenant <= 0 {
		w.PerTenant = 12
	}
	if w.Drain <= 0 {
		w.Drain = 30 * time.Second
	}
	return &Queue{s: s, w: w, changed: make(chan struct{}, 1), tenants: slices.Clone(w.Tenants)}
}

// SetTenants says which tenants are configured from now on, before Run or while it runs. One that is not, but has deals
// under way or records that were not told, is worked too: what becomes of those is the handler's to say, and they do not
// wait in silence. SetTenants does not wait; jobs that run are left alone.
func (q *Queue) SetTenants(tenants []deal.TenantID) {
	q.mu.Lock()
	q.tenants = slices.Clone(tenants)
	q.mu.Unlock()
	select {
	case q.changed <- struct{}{}:
	default: // Run has not seen the last one yet, and will see this
	}
}

// Handler does one job. Its context is not cancelled when work is to stop, but only after the drain time; a handler
// that does several things should look whether to stop between them.
type Handler = func(ctx context.Context, j deal.Job) deal.Outcome

const (
	// fetchCooldown bounds how often a tenant's queue asks for new jobs.
	fetchCooldown = 5 * time.Millisecond
	// notifyCooldown is how often an insertion may wake a queue. River forgets what comes sooner, which then waits for
	// fetchPoll; within a millisecond the earlier notice is not yet read, so that it serves for both.
	notifyCooldown = river.FetchCooldownMin
	// fetchPoll is how often a tenant's queue looks without having been told. It is what an idle tenant costs.
	fetchPoll = time.Second
	// completedRetention is how long finished jobs stay for a look.
	completedRetention = 10 * time.Minute
	// idle is when a job is looked at again whose handler has finished, but whose sealing is neither done nor waiting.
	idle = 30 * time.Second
	// settlePause is the time between two attempts to commit the end of a job.
	settlePause = time.Second
	// farFuture is further away than any wait that is asked for. Only a clock that was set back puts something there, and
	// it is due.
	farFuture = 26 * time.Hour
	// afterPanic is when a job is tried again that has panicked.
	afterPanic = time.Minute
	// refit is how often the queues are compared with what there is to do, besides when the tenants change.
	refit = time.Minute
	// refitSoon is when that is done again after a queue could not be opened, or not closed.
	refitSoon = time.Second
	// closeLimit is how long closing queues may keep others from being opened.
	closeLimit = 5 * time.Second
	// drainGrace is how long jobs may take to end once their context is cancelled.
	drainGrace = 10 * time.Second
)

// timetable is the insert side, which lives as long as the store.
type timetable struct {
	log    *slog.Logger
	client *river.Client[*sql.Tx]
}

// jobArgs holds IDs only.
type jobArgs struct {
	What deal.JobKind `json:"kind"`
	Key  string       `json:"key"`
}

func (jobArgs) Kind() string { return "dealseal" }

func openTimetable(ctx context.Context, s *Store) (*timetable, error) {
	log := slog.New(quiet{s.log.Handler()})
	driver := riversqlite.New(s.write)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: log})
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	client, err := river.NewClient(driver, &river.Config{Logger: log, FetchCooldown: notifyCooldown})
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return &timetable{log: log, client: client}, nil
}

// resumeRunning asks for each job that waits, not for all sealings: the condition of those that are done is running, too.
const resumeRunning = `UPDATE jobs SET due = 0 WHERE kind = 'seal' AND due > $1
	AND EXISTS (SELECT 1 FROM sealings s WHERE s.tx = jobs.key AND s.condition = 'running')`

// restoreJobs puts the timetable in line with the tables after a start: jobs that a dead process ran are available
// again, and whatever should run and has no job gets one. A sealing that waits for no attempt is due: what that process had
// put off, after a panic or because another had the lease, it had its own reasons for.
func (t *txn) restoreJobs() error {
	if err := t.exec(resumeRunning, t.now.UnixMilli()); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if err := t.exec(`DELETE FROM river_job WHERE state <> 'completed' AND id IN (SELECT job FROM jobs WHERE due = 0 OR due > $1)`, t.now.Add(farFuture).UnixMilli()); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	for _, query := range []string{
		`UPDATE river_job SET state = 'available' WHERE state = 'running'`,
		`DELETE FROM river_leader`,
		`DELETE FROM jobs WHERE due < 0`,
		`UPDATE jobs SET job = NULL WHERE NOT EXISTS (SELECT 1 FROM river_job r WHERE r.id = jobs.job
			AND r.state IN ('available', 'pending', 'retryable', 'scheduled')
			AND json_extract(r.args, '$.kind') = jobs.kind AND json_extract(r.args, '$.key') = jobs.key)`,
	} {
		if err := t.exec(query); err != nil {
			return fmt.Errorf("queue: %w", err)
		}
	}
	lost, err := t.lostJobs()
	if err != nil {
		return err
	}
	for _, j := range lost {
		if err := t.want(deal.JobKind(j.kind), j.key, j.tenant, fromMillis(j.due)); err != nil {
			return err
		}
	}
	return t.untold()
}

type lostJob struct {
	kind, key string
	tenant    deal.TenantID
	due       int64
}

const lostJobsQuery = `SELECT kind, key, tenant, due FROM jobs WHERE job IS NULL
	UNION ALL
	SELECT 'seal', s.tx, s.tenant, s.next FROM sealings s
	WHERE s.condition IN ('running', 'retrying') AND s.step <> 'done'
		AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.kind = 'seal' AND j.key = s.tx)
	UNION ALL
	SELECT 'errand', e.tx, e.tenant, e.made FROM errands e
	WHERE e.fate = '' AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.kind = 'errand' AND j.key = e.tx)`

func (t *txn) lostJobs() (lost []lostJob, err error) {
	err = t.each(func(r *sql.Rows) error {
		var j lostJob
		err := r.Scan(&j.kind, &j.key, &j.tenant, &j.due)
		lost = append(lost, j)
		return err
	}, lostJobsQuery)
	return lost, err
}

// want makes a job due at a time. While the job runs it only leaves word; the job is then queued again at its end.
func (t *txn) want(kind deal.JobKind, key string, tenant deal.TenantID, due time.Time) error {
	due = t.believable(due)
	if err := t.exec(`INSERT INTO jobs (kind, key, tenant, due, wants) VALUES ($1, $2, $3, $4, 1)
		ON CONFLICT (kind, key) DO UPDATE SET tenant = excluded.tenant, due = excluded.due, wants = wants + 1`, kind, key, tenant, millis(due)); err != nil {
		return err
	}
	running, err := t.unqueue(kind, key)
	if err != nil || running {
		return err
	}
	return t.enqueue(kind, key, tenant, due)
}

// believable returns when something that is stored as due at a time is due.
func (t *txn) believable(due time.Time) time.Time {
	if due.After(t.now.Add(farFuture)) {
		return t.now
	}
	return due
}

// never is the time of a job that is wanted no more, but still runs.
const never = -1

// unwant takes back what was wanted. The row of a running job stays until its end, so that there is never a second one.
func (t *txn) unwant(kind deal.JobKind, key string) error {
	running, err := t.unqueue(kind, key)
	if err != nil {
		return err
	}
	if running {
		return t.exec(`UPDATE jobs SET due = $3, wants = wants + 1 WHERE kind = $1 AND key = $2`, kind, key, never)
	}
	return t.forget(kind, key)
}

func (t *txn) forget(kind deal.JobKind, key string) error {
	return t.exec(`DELETE FROM jobs WHERE kind = $1 AND key = $2`, kind, key)
}

// isJob reports whether a job makes this change.
func (t *txn) isJob() bool { return t.ctx.Value(ownerKey{}) != nil }

// isRunning reports whether the job of a key runs, and nobody has put it off or taken it back meanwhile.
func (t *txn) isRunning(kind deal.JobKind, key string) (running bool, err error) {
	_, err = t.get([]any{&running}, `SELECT r.state = 'running' AND j.due <> $3 AND j.due <= $4 FROM jobs j JOIN river_job r ON r.id = j.job
		WHERE j.kind = $1 AND j.key = $2`, kind, key, never, t.now.UnixMilli())
	return running, err
}

// unqueue removes the River job of a key unless it runs.
func (t *txn) unqueue(kind deal.JobKind, key string) (running bool, err error) {
	var state string
	var id int64
	found, err := t.get([]any{&id, &state}, `SELECT r.id, r.state FROM jobs j JOIN river_job r ON r.id = j.job WHERE j.kind = $1 AND j.key = $2`, kind, key)
	if err != nil || !found {
		return false, err
	}
	if state == string(rivertype.JobStateRunning) {
		return true, nil
	}
	return false, t.exec(`DELETE FROM river_job WHERE id = $1`, id)
}

func (t *txn) enqueue(kind deal.JobKind, key string, tenant deal.TenantID, due time.Time) error {
	opts := &river.InsertOpts{Queue: queueName(tenant), MaxAttempts: math.MaxInt16}
	if due.After(t.now) {
		opts.ScheduledAt = due
	}
	r, err := t.s.timetable.client.InsertTx(t.ctx, t.Tx, jobArgs{What: kind, Key: key}, opts)
	if err != nil {
		return fmt.Errorf("queue %s: %w", kind, err)
	}
	// River looks at what is scheduled every five seconds only. What is available it does not fetch before its time
	// either, and looks every fetchPoll.
	if err := t.exec(`UPDATE river_job SET state = 'available' WHERE id = $1 AND state = 'scheduled'`, r.Job.ID); err != nil {
		return err
	}
	return t.exec(`UPDATE jobs SET job = $3 WHERE kind = $1 AND key = $2`, kind, key, r.Job.ID)
}

// queueName gives each tenant a queue of its own. River's names are narrower than tenant ids.
func queueName(tenant deal.TenantID) string {
	sum := sha256.Sum256([]byte(tenant))
	return "t-" + hex.EncodeToString(sum[:16])
}

// Run runs jobs with handle until the context is cancelled and the running ones have ended. It returns an error if they
// do not end although their context was cancelled too: then nothing may be concluded of them, as after a crash.
func (q *Queue) Run(ctx context.Context, handle Handler) error {
	s := q.s
	workers := river.NewWorkers()
	if err := errors.Join(river.AddWorkerSafely(workers, &worker{s: s, handle: handle}), river.AddWorkerSafely(workers, &pulseWorker{pulses: &q.pulses})); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	client, err := river.NewClient(riversqlite.New(s.write), &river.Config{
		ID: "dealseal-" + strings.ToLower(rand.Text()), Logger: s.timetable.log, Workers: workers,
		Queues:        map[string]river.QueueConfig{pulseQueue: {MaxWorkers: 1}},
		FetchCooldown: fetchCooldown, FetchPollInterval: fetchPoll, JobTimeout: -1, MaxAttempts: math.MaxInt16,
		CompletedJobRetentionPeriod: completedRetention, SoftStopTimeout: q.w.Drain, RetryPolicy: retryPolicy{},
	})
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	queues := openQueues{}
	if err := q.fit(ctx, client, queues); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	// The client is stopped by Stop, not by its context, so that running jobs keep theirs while they drain.
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	q.keepFitting(ctx, client, queues)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.w.Drain+drainGrace)
	defer cancel()
	if err := client.Stop(limit); err != nil {
		return fmt.Errorf("queue: jobs do not end: %w", err)
	}
	return nil
}

// openQueues are the tenants that River has a queue of. One that is false works nothing: River stops a queue before it
// has closed it, and knows one that it could not start. Such a queue is closed to its end before it is opened again.
type openQueues map[deal.TenantID]bool

// keepFitting follows SetTenants until ctx ends, and looks now and then whether a tenant that is not configured has got
// something to do, or nothing more.
func (q *Queue) keepFitting(ctx context.Context, client *river.Client[*sql.Tx], queues openQueues) {
	pause := time.NewTimer(refit)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.changed:
		case <-q.s.refit:
		case <-pause.C:
		}
		next := refit
		if err := q.fit(ctx, client, queues); err != nil && ctx.Err() == nil {
			next = refitSoon
			q.s.log.ErrorContext(ctx, "the queues do not fit the tenants and are looked at again", "in", next, "err", err)
		}
		pause.Reset(next)
	}
}

// fit closes the queues that are of no use any more, and opens one for each tenant that has none and should.
func (q *Queue) fit(ctx context.Context, client *river.Client[*sql.Tx], queues openQueues) error {
	configured, unfinished, paused, err := q.wanted(ctx)
	if err != nil {
		return err
	}
	wanted := slices.DeleteFunc(slices.Concat(configured, unfinished), func(t deal.TenantID) bool { return slices.Contains(paused, t) })
	errs := closeQueues(ctx, client, queues, wanted)
	for _, tenant := range wanted {
		if _, known := queues[tenant]; known {
			continue
		}
		if !slices.Contains(configured, tenant) {
			q.s.log.WarnContext(ctx, "a tenant is not configured, but is not finished with", "tenant", tenant)
		}
		err := client.Queues().Add(queueName(tenant), river.QueueConfig{MaxWorkers: q.w.PerTenant})
		if err != nil {
			errs = append(errs, fmt.Errorf("open the queue of %s: %w", tenant, err))
		}
		queues[tenant] = err == nil
	}
	return errors.Join(errs...)
}

// closeQueues closes what is not wanted, or does not work. It waits for the tail of what ran: nothing that should run is
// left in a queue that is not wanted, but what is to wait because its tenant is paused.
func closeQueues(ctx context.Context, client *river.Client[*sql.Tx], queues openQueues, wanted []deal.TenantID) (errs []error) {
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	for tenant, works := range queues {
		if works && slices.Contains(wanted, tenant) {
			continue
		}
		queues[tenant] = false
		err := client.Queues().Remove(ctx, queueName(tenant))
		if err != nil && !errors.Is(err, &river.QueueNotFoundError{}) { // River may have refused it at once
			errs = append(errs, fmt.Errorf("close the queue of %s: %w", tenant, err))
			continue
		}
		delete(queues, tenant)
	}
	return errs
}

const unfinishedQuery = `SELECT tenant FROM counts WHERE n > 0 AND step <> 'done' AND condition <> 'ended'
	UNION SELECT tenant FROM receipts WHERE sent < sequence
	UNION SELECT tenant FROM errands WHERE fate = ''`

// wanted returns the tenants that are configured, those that are not finished with, and those that are paused.
func (q *Queue) wanted(ctx context.Context) (configured, unfinished, paused []deal.TenantID, err error) {
	q.mu.Lock()
	configured = q.tenants
	q.mu.Unlock()
	err = q.s.view(ctx, func(t *txn) error {
		if unfinished, err = column[deal.TenantID](t, unfinishedQuery); err == nil {
			paused, err = column[deal.TenantID](t, `SELECT tenant FROM pauses`)
		}
		return err
	})
	return configured, unfinished, paused, err
}

type worker struct {
	river.WorkerDefaults[jobArgs]
	s      *Store
	handle Handler
}

// Work runs the handler and settles in one transaction what becomes of the job.
func (w *worker) Work(ctx context.Context, job *river.Job[jobArgs]) error {
	j, wants, err := w.s.job(ctx, job.Args)
	if err != nil {
		w.s.log.ErrorContext(ctx, "a job cannot be read and is tried again", "err", err)
		return err
	}
	var out deal.Outcome
	if j.Tx != "" {
		out = w.run(ctx, j)
	}
	return w.settle(ctx, job, wants, out)
}

// run calls the handler and survives its panic. The panic's value goes nowhere, not even to River, which would keep it:
// it may quote what the job worked on.
func (w *worker) run(ctx context.Context, j deal.Job) (out deal.Outcome) {
	defer func() {
		if recover() != nil {
			w.s.log.ErrorContext(ctx, "a job panicked and is tried again", "job", j.Kind, "tx", j.Tx, "in", afterPanic, "stack", string(debug.Stack()))
			out = deal.Outcome{Again: afterPanic}
		}
	}()
	ctx, end := w.s.AsJob(ctx)
	defer end()
	return w.handle(ctx, j)
}

// settle commits the end of a job. A full disk must not leave a job that nobody runs: it is tried until it succeeds or
// the daemon stops, whose next start puts the job back.
func (w *worker) settle(ctx context.Context, job *river.Job[jobArgs], wants int64, out deal.Outcome) error {
	lasting := context.WithoutCancel(ctx)
	for {
		err := w.s.update(lasting, "commit/job", func(t *txn) error {
			if _, err := river.JobCompleteTx[*riversqlite.Driver](lasting, t.Tx, job); err != nil {
				return err
			}
			return t.afterJob(job.Args, wants, out)
		})
		if err == nil {
			return nil
		}
		w.s.log.ErrorContext(ctx, "the end of a job cannot be committed", "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(settlePause):
		}
	}
}

// job reads what a queued job is about. An empty Tx means that it is wanted no more.
func (s *Store) job(ctx context.Context, a jobArgs) (j deal.Job, wants int64, err error) {
	err = s.view(ctx, func(t *txn) error {
		found, err := t.get([]any{&wants}, `SELECT wants FROM jobs WHERE kind = $1 AND key = $2 AND due <> $3`, a.What, a.Key, never)
		if err != nil || !found {
			return err
		}
		j = deal.Job{Kind: a.What, Tx: deal.TxID(a.Key)}
		if a.What == deal.JobTell {
			j.Tx, _, err = t.speaker(a.Key)
		}
		return err
	})
	return j, wants, err
}

// afterJob decides whether and when a job runs again: at the time that was asked for while it ran, else when its
// handler said, else never.
func (t *txn) afterJob(a jobArgs, wants int64, out deal.Outcome) error {
	var now, due int64
	var tenant deal.TenantID
	found, err := t.get([]any{&now, &due, &tenant}, `SELECT wants, due, tenant FROM jobs WHERE kind = $1 AND key = $2`, a.What, a.Key)
	if err != nil || !found {
		return err
	}
	if now != wants && due == never {
		return t.forget(a.What, a.Key)
	}
	at := t.believable(fromMillis(due))
	if now == wants {
		if at, err = t.nextTime(a, out); err != nil {
			return err
		}
		if at.IsZero() {
			return t.forget(a.What, a.Key)
		}
	}
	if err := t.exec(`UPDATE jobs SET due = $3 WHERE kind = $1 AND key = $2`, a.What, a.Key, millis(at)); err != nil {
		return err
	}
	return t.enqueue(a.What, a.Key, tenant, at)
}

// nextTime is when the handler wants the job again. Nothing waits in silence: a sealing that should move keeps its job.
func (t *txn) nextTime(a jobArgs, out deal.Outcome) (time.Time, error) {
	if out.Again > 0 {
		return t.now.Add(min(out.Again, farFuture)), nil
	}
	if a.What != deal.JobSeal {
		return time.Time{}, nil
	}
	var alive bool
	if _, err := t.get([]any{&alive}, `SELECT condition IN ('running', 'retrying') AND step <> 'done' FROM sealings WHERE tx = $1`, a.Key); err != nil || !alive {
		return time.Time{}, err
	}
	t.s.log.Warn("a job ended although its deal should go on: it is looked at again", "tx", a.Key, "in", idle)
	return t.now.Add(idle), nil
}

type ownerKey struct{}

// AsJob returns a context whose leases belong to one run of a job: to no other job, and not to this process, which takes
// those of operators. Queue gives one to every handler; so must whatever else hands out jobs. end must be called when the
// run is over: what it leaves of a lease keeps nobody waiting.
func (s *Store) AsJob(ctx context.Context) (job context.Context, end func()) {
	owner := rand.Text()
	s.owners.add(owner)
	return context.WithValue(ctx, ownerKey{}, owner), func() { s.owners.remove(owner) }
}

// owners are those who may be at an outside effect. Only one process works on a state, and its start ends all leases of an
// earlier one, so that they are known in memory. The zero value is ready.
type owners struct{ names sync.Map }

func (o *owners) add(name string)      { o.names.Store(name, nil) }
func (o *owners) remove(name string)   { o.names.Delete(name) }
func (o *owners) has(name string) bool { _, ok := o.names.Load(name); return ok }

// ownerOf names who takes a lease: the running job, or this process.
func (s *Store) ownerOf(ctx context.Context) string {
	if owner, ok := ctx.Value(ownerKey{}).(string); ok {
		return owner
	}
	return s.owner
}

// retryPolicy is for jobs that could not be read: the handler's own failures are outcomes.
type retryPolicy struct{}

func (retryPolicy) NextRetry(*rivertype.JobRow) time.Time { return time.Now().Add(idle) }

// quiet passes on warnings and worse: River reports much of its daily life as information.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }
