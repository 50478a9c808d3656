package connectortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// job does to one deal what the engine does, and returns the first error.
func job(ctx context.Context, t *testing.T, w World, crm connectors.CRM, id string, f deal.File, r deal.Receipt) error {
	t.Helper()
	if _, err := crm.Record(ctx, ref(w, id), []string{w.Traits().Amount}); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if _, err := crm.Attach(ctx, ref(w, id), r.Tx, deal.RoleContract, f); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := crm.WriteBack(ctx, ref(w, id), r); err != nil {
		return fmt.Errorf("write back: %w", err)
	}
	return nil
}

func testSessionKilled(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(1100, w.Traits().Stage)
	w.Advance(time.Second)
	var fresh []sealing
	for more := true; more; {
		w.KillSessions()
		page, err := crm.Changes(callContext(t), l.cursor, l.watches)
		if err != nil {
			t.Fatalf("Changes after the session was killed: %v", err)
		}
		fresh = append(fresh, l.notice(page)...)
		more = page.More
	}
	expect(t, "killed before each page", fresh, ids...)

	id := ids[0]
	f, r := file(t, "contract.pdf", 300_000), receipt(w, fresh[0].tx, 3, deal.StatusSigned)
	for _, call := range []Call{ReadCall, UploadCall, WriteCall} {
		if err := w.Fail(call, Expired, 1); err != nil && !errors.Is(err, ErrUnsupported) {
			t.Fatal(err)
		}
	}
	if err := job(callContext(t), t, w, crm, id, f, r); err != nil {
		t.Fatalf("the session ended at each call: %v", err)
	}
	stored(t, w, id, f)
	shown(t, w, id, r)
}

// testOneLoginForAll holds that many calls that find the session dead make one login.
func testOneLoginForAll(t *testing.T, w World) {
	crm := w.Connector(quiet())
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	read(t, crm, ref(w, id))
	before := w.Requests(LoginCall)
	w.KillSessions()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := crm.Record(callContext(t), ref(w, id), nil); err != nil {
				t.Errorf("Record: %v", err)
			}
		})
	}
	wg.Wait()
	if n := w.Requests(LoginCall) - before; n > 1 {
		t.Errorf("eight calls with a dead session made %d logins", n)
	}
}

// testLoginTrouble holds that a refused login says so whichever call meets it, and that a record's own trouble does not.
func testLoginTrouble(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(2, w.Traits().Stage)
	gone := id[1]
	w.Delete(gone)
	w.Advance(time.Second)
	f, r := file(t, "contract.pdf", 3000), receipt(w, txFor(id[0]), 3, deal.StatusSigned)
	ctx := callContext(t)
	calls := map[string]func(record string) error{
		"Identity":  func(string) error { _, err := crm.Identity(ctx); return err },
		"Changes":   func(string) error { _, err := crm.Changes(ctx, l.cursor, l.watches); return err },
		"Record":    func(id string) error { _, err := crm.Record(ctx, ref(w, id), nil); return err },
		"Attach":    func(id string) error { _, err := crm.Attach(ctx, ref(w, id), r.Tx, deal.RoleContract, f); return err },
		"WriteBack": func(id string) error { return crm.WriteBack(ctx, ref(w, id), r) },
	}
	for _, name := range []string{"Record", "Attach", "WriteBack"} {
		if err := calls[name](gone); err == nil || connectors.IsLogin(err) {
			t.Errorf("%s of a record that is gone gives %v (login %t), want trouble with the record", name, err, connectors.IsLogin(err))
		}
	}
	if _, err := crm.Record(ctx, ref(w, id[0]), []string{w.Traits().NoSuchField}); err == nil || connectors.IsLogin(err) {
		t.Errorf("Record of an unknown field gives %v (login %t), want trouble with the record", err, connectors.IsLogin(err))
	}
	supported(t, w.Fail(LoginCall, Forbidden, -1))
	for name, call := range calls {
		w.KillSessions()
		if err := call(id[0]); !connectors.IsLogin(err) {
			t.Errorf("%s without a login gives %v, want trouble with the login", name, err)
		}
	}
	w.Heal()
	if err := job(ctx, t, w, crm, id[0], f, r); err != nil {
		t.Errorf("once the login is mended: %v", err)
	}
}

// testPassingTrouble holds for every call and every kind of passing trouble: an error that is worth another try, and
// afterwards the same end as without it.
func testPassingTrouble(t *testing.T, w World) {
	for _, effect := range []Effect{Unavailable, EmptyError, Truncated, Busy, CutBefore, LoseReply} {
		for _, call := range []Call{ListCall, ReadCall, UploadCall, LinkCall, WriteCall} {
			t.Run(fmt.Sprintf("%s at %s", effect, call), func(t *testing.T) {
				passingTrouble(t, w, call, effect)
			})
		}
	}
}

func passingTrouble(t *testing.T, w World, call Call, effect Effect) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	w.Advance(time.Second)
	err := w.Fail(call, effect, 1)
	if errors.Is(err, ErrUnsupported) {
		return // not every call fails in every way; the suite's other cases show what a world supports
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Heal()
	var fresh []sealing
	if err := attempts(t, 3, func() error {
		more, err := l.tryPoll(crm)
		fresh = append(fresh, more...)
		return err
	}); err != nil {
		t.Fatalf("Changes: %v", err)
	}
	expect(t, "polled", fresh, id)
	f, r := file(t, "contract.pdf", 70_000), receipt(w, txFor(id), 3, deal.StatusSigned)
	if err := attempts(t, 4, func() error { return job(callContext(t), t, w, crm, id, f, r) }); err != nil {
		t.Fatal(err)
	}
	stored(t, w, id, f)
	shown(t, w, id, r)
}

func testLimited(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	w.Advance(time.Second)
	supported(t, w.Fail(ListCall, Limited, 1))
	_, err := l.tryPoll(crm)
	if err == nil || deal.IsPermanent(err) || deal.RetryAfter(err) <= 0 {
		t.Errorf("a used-up allowance gives %v (permanent: %t, retry after %s), want one that says when to come back",
			err, deal.IsPermanent(err), deal.RetryAfter(err))
	}
	w.Heal()
	expect(t, "the next day", l.poll(w.Connector(quiet())), id)
}

// testNearTheLimit holds that at 95 % nothing new is begun while what has begun is finished.
func testNearTheLimit(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	supported(t, w.SetUsage(100, 10_000))
	expect(t, "far from the limit", later(w, l, crm, time.Second), id)
	if m, ok := crm.(connectors.Metered); !ok {
		t.Error("the CRM reports its usage, the connector has no Budget")
	} else if share := m.Budget().Share(); share < 0.01 || share > 0.02 {
		t.Errorf("the budget's share is %v, want about 0.01", share)
	}

	supported(t, w.SetUsage(9_600, 10_000))
	read(t, crm, ref(w, id))
	before := w.Requests(ListCall)
	_, err := l.tryPoll(crm)
	if err == nil || deal.IsPermanent(err) || deal.RetryAfter(err) <= 0 {
		t.Errorf("polling at 96 %% gives %v, want an error that says when to come back", err)
	}
	if n := w.Requests(ListCall) - before; n != 0 {
		t.Errorf("polling at 96 %% made %d calls", n)
	}
	f, r := file(t, "contract.pdf", 3000), receipt(w, txFor(id), 3, deal.StatusSigned)
	if err := job(callContext(t), t, w, crm, id, f, r); err != nil {
		t.Errorf("a running job at 96 %%: %v", err)
	}
}

func testForbidden(t *testing.T, w World) {
	crm, l := begin(t, w)
	supported(t, w.Fail(ListCall, Forbidden, -1))
	if _, err := l.tryPoll(crm); !deal.IsPermanent(err) {
		t.Errorf("a missing permission gives %v, want a permanent error", err)
	}
}

func testCancel(t *testing.T, w World) {
	crm, l := begin(t, w)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	w.Advance(time.Second)
	f, r := file(t, "contract.pdf", 3000), receipt(w, txFor(id), 1, deal.StatusQueued)

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := crm.Changes(cancelled, l.cursor, l.watches); !errors.Is(err, context.Canceled) {
		t.Errorf("Changes with a cancelled context gives %v", err)
	}
	if err := job(cancelled, t, w, crm, id, f, r); !errors.Is(err, context.Canceled) {
		t.Errorf("Record with a cancelled context gives %v", err)
	}
	if len(w.Files(id)) != 0 {
		t.Error("a cancelled context has attached a file")
	}
	for _, call := range []Call{ListCall, ReadCall, UploadCall, WriteCall} {
		supported(t, w.Fail(call, Hang, 1))
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		var err error
		if call == ListCall {
			_, err = crm.Changes(short, l.cursor, l.watches)
		} else {
			err = job(short, t, w, crm, id, f, r)
		}
		cancel()
		w.Heal()
		if !errors.Is(err, context.DeadlineExceeded) || deal.IsPermanent(err) {
			t.Errorf("a %s call that hangs until the deadline gives %v (permanent: %t)", call, err, deal.IsPermanent(err))
		}
	}
}

// testConcurrent holds that one connector serves many at once.
func testConcurrent(t *testing.T, w World) {
	crm, l := begin(t, w)
	ids := w.CreateDeals(6, w.Traits().Stage)
	w.Advance(time.Second)
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			f, r := file(t, "contract.pdf", 10_000+i), receipt(w, txFor(id), 3, deal.StatusSigned)
			if err := attempts(t, 3, func() error { return job(callContext(t), t, w, crm, id, f, r) }); err != nil {
				t.Errorf("deal %s: %v", id, err)
			}
			if _, err := crm.Changes(callContext(t), l.cursor, l.watches); err != nil {
				t.Errorf("Changes: %v", err)
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		stored(t, w, id, file(t, "contract.pdf", 10_000+i))
	}
}

// testNothingLeaks runs through everything, with trouble, and searches what was logged and said in errors.
func testNothingLeaks(t *testing.T, w World) {
	var said output
	defer log.SetOutput(log.Writer())
	log.SetOutput(&said)
	crm := w.Connector(slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})))
	l := newLedger(t, w, crm)
	w.Advance(time.Second)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	const amount, line, fileName = "31415926.53", "Strictly confidential line", "Strictly confidential.pdf"
	w.AddLine(id, line, "1", "5.00")
	other := w.CreateDeals(1, w.Traits().Stage)[0]
	w.SetAmount(other, amount)
	w.AddFile(id, fileName, []byte("strictly confidential bytes"))
	w.Advance(time.Second)

	fields := []string{w.Traits().Amount, w.Traits().Lines + "." + w.Traits().LineName}
	f, r := file(t, fileName, 5000), receipt(w, txFor(id), 9, deal.StatusSigned)
	run := func() {
		_, err := l.tryPoll(crm)
		fmt.Fprintln(&said, err)
		for _, id := range []string{id, other} {
			_, err = crm.Record(callContext(t), ref(w, id), fields)
			fmt.Fprintln(&said, err)
		}
		fmt.Fprintln(&said, job(callContext(t), t, w, crm, id, f, r))
	}
	for _, effect := range []Effect{Unavailable, EmptyError, Truncated, Busy, CutBefore, Refused, Forbidden, Limited, Expired} {
		for _, call := range []Call{LoginCall, ListCall, ReadCall, UploadCall, LinkCall, WriteCall} {
			if err := w.Fail(call, effect, 2); err != nil && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			w.KillSessions()
			run()
			w.Heal()
		}
	}
	_, err := crm.Record(callContext(t), ref(w, id), []string{w.Traits().NoSuchField})
	fmt.Fprintln(&said, err)
	run()

	text := said.String()
	never := append([]string{amount, line, fileName, "SELECT", w.Traits().SecretPrefix, "Bearer", signedAt.Format("2006-01-02T15:04:05")}, w.Traits().Secrets...)
	for _, secret := range never {
		if i := strings.Index(text, secret); secret != "" && i >= 0 {
			t.Errorf("a log or error says what it must not, near: …%s…", text[max(0, i-80):min(len(text), i+40)])
		}
	}
}

// output is a buffer that several goroutines may write to.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
