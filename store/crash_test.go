package store

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

const (
	crashDir   = "STORE_TEST_DIR"
	crashPoint = "STORE_TEST_POINT"
	crashCount = "STORE_TEST_COUNT" // which passing of the point; the first if it is empty
	crashLife  = "STORE_TEST_LIFE"  // whose life; a deal's if it is empty
)

// TestMain lets this binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		live := life
		if os.Getenv(crashLife) == lifeOfCertificates {
			live = certificatesLife
		}
		if err := live(context.Background(), dir, killAt(os.Getenv(crashPoint), os.Getenv(crashCount))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Set("rapid.checks", "20") // a default: the command line comes later
	os.Exit(m.Run())
}

// killAt ends this process as a power cut would, when it comes to a point for the n-th time.
func killAt(point, n string) func(string) {
	left, err := strconv.Atoi(cmp.Or(n, "1"))
	if err != nil {
		panic(err)
	}
	return func(p string) {
		if p != point {
			return
		}
		if left--; left == 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

// life takes one deal through everything that the store can do, from wherever an earlier life has left it: the contract
// is kept, the ledger lost and recovered, the deal done and erased.
func life(ctx context.Context, dir string, hook func(string)) (err error) {
	s, err := Open(ctx, Options{Dir: dir, MasterKey: options("", nil).MasterKey, Hook: hook})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Recover(ctx, func(_ string, _ deal.TxID, e error) { err = errors.Join(err, e) }); err != nil {
		return err
	}
	if err := s.ConfigureEndpoints(ctx, []webhooks.Endpoint{testEndpoint("hooks")}); err != nil {
		return err
	}
	tx, err := intake(ctx, s)
	if err != nil {
		return err
	}
	if err := decide(ctx, s, tx); err != nil {
		return err
	}
	if err := run(ctx, s, tx); err != nil {
		return err
	}
	if err := aside(ctx, s, tx); err != nil {
		return err
	}
	if err := tell(ctx, s); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "lose-ledger")); err == nil {
		return nil // this life ends with the contract kept and done
	}
	return s.Erase(ctx, tx, "anna", "asked to")
}

func intake(ctx context.Context, s *Store) (deal.TxID, error) {
	if _, err := s.Activate(ctx, acme, org, watch(ruleA), start); err != nil {
		return "", err
	}
	c, err := s.Cursor(ctx, acme, org)
	if err != nil {
		return "", err
	}
	entry, p := change("006A", "h1"), moving()
	p.Timeline = []deal.Status{deal.StatusSigned, deal.StatusHeld}
	p.FollowUp, p.WriteBack.FollowUp = time.Nanosecond, "Follow_Up__c"
	n := deal.Noticing{Tenant: acme, Account: org, Previous: c, Plans: map[string]deal.Plan{ruleA: p},
		Watches: map[string]deal.Watch{ruleA: watch(ruleA)},
		Page:    deal.Page{Entries: []deal.Change{entry, change("006G", "h1"), change("006H", "h1")}, Next: deal.Cursor{Since: start}},
		Guard:   deal.Guard{Rules: map[string]deal.RuleGuard{ruleA: {Second: 1}}}}
	_, err = s.Notice(ctx, n)
	if err != nil {
		return "", err
	}
	// What a program asks for is held with them.
	q := deal.Request{Key: "order 4711", Asked: "006R", Who: "api:erp (0)"}
	n.Page = deal.Page{Entries: []deal.Change{change("006R", q.Occurrence())}}
	if _, err := s.Request(ctx, n, q); err != nil {
		return "", err
	}
	tx := entry.TxIDs(org)[0]
	return tx, unguard(ctx, s, tx)
}

// unguard releases one of the deals that the guard holds, and drops the others.
func unguard(ctx context.Context, s *Store, tx deal.TxID) error {
	sl, err := s.Load(ctx, tx)
	if err != nil {
		return err
	}
	if sl.Facts.Guarded {
		if err := s.Release(ctx, tx, deal.HoldGuard, "anna", "meant"); err != nil {
			return err
		}
	}
	holds, err := s.Guards(ctx)
	if err == nil && len(holds) > 0 {
		_, err = s.DecideGuarded(ctx, holds[0].GuardScope, "drop", "anna", "a slip")
	}
	return err
}

// decide holds a fresh deal, which then has had no outcome for too long, and releases it.
func decide(ctx context.Context, s *Store, tx deal.TxID) error {
	sl, err := s.Load(ctx, tx)
	if err != nil {
		return err
	}
	if sl.Step == deal.Noticed && sl.Condition == deal.Running && !slices.Contains(sl.Facts.Released, "re-entry") {
		sl.Condition = deal.Held
		if err := s.Advance(ctx, sl, deal.Entry{Who: "daemon", What: "held"}); err != nil {
			return err
		}
	}
	if sl.Condition == deal.Held {
		if _, err := s.FollowUps(ctx); err != nil {
			return err
		}
		return s.Release(ctx, tx, "re-entry", "anna", "checked")
	}
	return nil
}

// run works the queue until the deal is done.
func run(ctx context.Context, s *Store, tx deal.TxID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sl, err := s.Load(ctx, tx)
	if err != nil || sl.Step == deal.Done || sl.Condition == deal.Ended {
		return err
	}
	var failed error
	err = s.Queue(Workers{Tenants: []deal.TenantID{acme}}).Run(ctx, func(jobCtx context.Context, j deal.Job) deal.Outcome {
		if j.Kind == deal.JobSeal {
			failed = flow(jobCtx, s, j.Tx)
			cancel()
		}
		return deal.Outcome{}
	})
	return errors.Join(err, failed)
}

// flow is what the engine does, with every effect idempotent.
func flow(ctx context.Context, s *Store, tx deal.TxID) error {
	sl, err := s.Load(ctx, tx)
	for err == nil && sl.Step != deal.Done {
		err = step(ctx, s, sl)
	}
	return err
}

func step(ctx context.Context, s *Store, sl *deal.Sealing) error {
	if err := s.Begin(ctx, sl, deal.Intent{Step: sl.Step, What: "step", Lease: time.Minute}); err != nil {
		return err
	}
	switch sl.Step {
	case deal.Noticed:
		sl.Step = deal.Gathered
	case deal.Gathered:
		sl.Step, sl.Facts.Digest = deal.Rendered, "d1"
	case deal.Rendered:
		fact, err := s.Stage(ctx, sl.Tx, contractName, func(w io.Writer) error {
			_, err := io.WriteString(w, "the contract")
			return err
		})
		if err != nil {
			return err
		}
		sl.Step, sl.Facts.Contract, sl.Facts.Signature, sl.Facts.SealedAt = deal.Sealed, &fact, true, start
	case deal.Sealed:
		sl.Step = deal.Checked
	case deal.Checked:
		folder, err := s.Keep(ctx, sl, contractName, map[string][]byte{"cms.der": []byte("cms")})
		if err != nil {
			return err
		}
		sl.Step, sl.Facts.Archive = deal.Kept, folder
	case deal.Kept:
		sl.Step = deal.Attached
	default:
		sl.Step = deal.Done
	}
	e := deal.Entry{Who: "daemon", What: string(sl.Step), Events: []deal.Event{{Type: "document." + string(sl.Step)}}}
	if sl.Step == deal.Gathered || sl.Step == deal.Sealed {
		e.Then = &deal.Intent{What: "step", Lease: time.Minute}
	}
	return s.Advance(ctx, sl, e)
}

// tell delivers what is due.
func tell(ctx context.Context, s *Store) error {
	for {
		due, _, err := s.Take(ctx, "acme/hooks", 2, time.Minute)
		if err != nil || len(due) == 0 {
			return err
		}
		for _, d := range due {
			if err := s.Settle(ctx, webhooks.Outcome{Delivery: d.ID, Attempt: d.Attempt, Endpoint: "acme/hooks", Status: 200, Took: time.Millisecond}); err != nil {
				return err
			}
		}
	}
}

// aside does what belongs to no step.
func aside(ctx context.Context, s *Store, tx deal.TxID) error {
	r, err := s.Receipt(ctx, tx)
	if err != nil {
		return err
	}
	sl, err := s.Load(ctx, tx)
	if err != nil {
		return err
	}
	m := s.Memory(acme)
	_, version, err := m.Get(ctx, "token")
	if err != nil {
		return err
	}
	_, _, err = s.Receive(ctx, deal.Arrival{Tenant: acme, Source: "hubspot", Nonce: []byte("n"), Until: start, Events: []deal.PushedEvent{{Key: "e", Wakes: true}}})
	if err := errors.Join(err, s.LogPushes(ctx, []deal.Push{{Tenant: acme, Source: "hubspot", Verdict: deal.PushRefused, N: 2}})); err != nil {
		return err
	}
	if err := callback(ctx, s, sl); err != nil {
		return err
	}
	if err := errand(ctx, s, tx); err != nil {
		return err
	}
	if _, err := s.ForgetPushes(ctx); err != nil {
		return err
	}
	if _, err := s.SecretsSince(ctx, acme, []secret.Secret{secret.New([]byte("hush"))}); err != nil {
		return err
	}
	pass := deal.Pass{Tenant: acme, Account: org, Days: 3, Began: start}
	damaged := deal.Comparison{Who: "daemon", Resend: len(sl.Private.Differences) == 0, Compared: true, Differences: []deal.Difference{{Path: "Amount", Was: "1", Is: "2"}},
		Found: []deal.Discrepancy{{Kind: deal.FileAltered, What: "file 068 has other bytes"}}}
	if err := s.KeepPass(ctx, pass); err != nil {
		return err
	}
	finished, err := s.Finished(ctx, acme, org, time.Time{}, deal.Finished{}, 2)
	if err != nil {
		return err
	}
	for _, f := range finished { // not once it is erased
		if err := s.Compared(ctx, sl, damaged); err != nil || f.Tx != tx {
			return fmt.Errorf("%s: %w", f.Tx, err)
		}
	}
	if r, err = s.Receipt(ctx, tx); err != nil {
		return err
	}
	_, counted := s.CountStamp(ctx, "https://tsa.example", "2026-03-04", 3)
	return errors.Join(s.Identify(ctx, sl, []string{"006B"}), s.Told(ctx, tx, r.Sequence, 0), m.Put(ctx, "token", []byte("t"), version), s.SetPoll(ctx, deal.PollState{Tenant: acme}), counted)
}

// errand does what is to be done because of the deal, from wherever an earlier life has left it.
func errand(ctx context.Context, s *Store, tx deal.TxID) error {
	all, err := s.Errands(ctx, tx)
	for _, e := range all {
		if e.Fate != "" || err != nil {
			continue
		}
		if err = s.BeginErrand(ctx, e); err == nil {
			e.Fate, e.Outcome = deal.ErrandDone, "moved"
			err = s.EndErrand(ctx, e)
		}
	}
	return err
}

// callback tells a workflow, from wherever an earlier life has left it.
func callback(ctx context.Context, s *Store, sl *deal.Sealing) error {
	_, _, err := s.Receive(ctx, deal.Arrival{Tenant: acme, Source: "hubspot-action", Block: 48 * time.Hour, Callbacks: []deal.Callback{{ID: "w", Ref: sl.Change.Ref}}})
	if err != nil {
		return err
	}
	if _, err := s.LookedAt(ctx, acme, org, sl.Change.Ref, s.now()); err != nil {
		return err
	}
	due, open, err := s.Callbacks(ctx, acme, 10)
	if err != nil || open == 0 {
		return err
	}
	if len(due) != 1 {
		return fmt.Errorf("of %d workflows that wait for a deal that is done, %d are to be told", open, len(due))
	}
	if err := s.BeginCallback(ctx, due[0], due[0].Decide(s.now())); err != nil {
		return err
	}
	return s.EndCallback(ctx, due[0], deal.CallbackEnd{Fate: deal.CallbackTold})
}

// crash runs a life in a process of its own that is killed at a point; it reports whether it came there.
func crash(t *testing.T, dir, point string, env ...string) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append([]string{crashDir + "=" + dir, crashPoint + "=" + point}, env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", point, err, out)
	}
	return false
}

func TestAPowerCutAtAnyPointLosesAndDoublesNothing(t *testing.T) {
	lost := filepath.Join(t.TempDir(), "lost")
	lostLedger(t, lost)
	for _, point := range Points() {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			if strings.HasPrefix(point, "commit/recover") {
				if err := os.CopyFS(dir, os.DirFS(lost)); err != nil {
					t.Fatal(err)
				}
			}
			if !crash(t, dir, point) {
				t.Fatal("this point was never reached")
			}
			if err := life(t.Context(), dir, nil); err != nil {
				t.Fatalf("the next start does not end: %v", err)
			}
			whole(t, dir)
		})
	}
}

// lostLedger makes a state directory whose contract is kept and whose database is gone.
func lostLedger(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(dir, "lose-ledger")
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := life(t.Context(), dir, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{mark, filepath.Join(dir, databaseName)} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// whole checks that a finished life looks like one without a crash.
func whole(t *testing.T, dir string) {
	t.Helper()
	s := open(t, options(dir, nil))
	verified(t, s)
	if n := query[int](t, s, `SELECT count(*) FROM sealings`); n != 4 {
		t.Errorf("%d sealings, want 4", n)
	}
	if n := query[int](t, s, `SELECT count(*) FROM digests`); n != 1 {
		t.Errorf("%d digests, want 1", n)
	}
	if n := query[int](t, s, `SELECT count(*) FROM data_keys`); n != 3 {
		t.Errorf("%d data keys are left, want those of the three that were dropped", n)
	}
	// One deal is released twice: from the guard, and from a hold.
	if n := query[int](t, s, `SELECT count(*) FROM (SELECT 1 FROM outbox GROUP BY tx, type HAVING count(*) > CASE type WHEN 'document.resumed' THEN 2 ELSE 1 END)`); n != 0 {
		t.Errorf("%d events are doubled", n)
	}
	if n := query[int](t, s, `SELECT count(*) FROM counts WHERE n < 0 OR (step <> 'done' AND n > 0 AND (condition, n) <> ('ended', 3))`); n != 0 {
		t.Errorf("%d wrong counts", n)
	}
	if n := query[int](t, s, `SELECT count(*) FROM discrepancies`); n != 0 {
		t.Errorf("%d discrepancies of an erased deal are left", n)
	}
	if n := query[int](t, s, `SELECT count(*) FROM follow_ups`); n != 0 {
		t.Errorf("%d deals still wait for their outcome", n)
	}
	if n := query[int](t, s, `SELECT (SELECT count(*) FROM guards WHERE cause <> '') + (SELECT count(*) FROM sealings WHERE guarded = 1)`); n != 0 {
		t.Errorf("the guard still holds something")
	}
	if n := query[int](t, s, `SELECT count(*) FROM outbox o WHERE type <> 'document.deleted' AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = o.id AND d.state = 'delivered')`); n != 0 {
		t.Errorf("%d events were not delivered", n)
	}
	manifests := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if strings.Contains(name, "unfinished") {
			t.Errorf("%s is left", name)
		}
		if d.Name() == "manifest.json" {
			manifests++
		}
		return err
	})
	if err != nil || manifests != 1 {
		t.Errorf("%d kept contracts, %v, want 1", manifests, err)
	}
}
