package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// ledger measures what one deal costs the store, without engine, CRM and key, when it holds few deals and when it holds
// many. The large ledger is kept from run to run: filling it takes minutes.
func (b *bench) ledger() error {
	dir, err := os.MkdirTemp(b.work, "ledger-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	small := seedOptions{dir: filepath.Join(dir, "state"), key: filepath.Join(dir, "master-key"), deals: 1000, full: 1000, seed: 1}
	if err := small.fill(b.ctx); err != nil {
		return err
	}
	few, err := b.costs(small)
	if err != nil {
		return err
	}
	large, err := b.largeLedger()
	if err != nil {
		return err
	}
	for _, o := range []struct {
		seedOptions
		shape string
	}{{small, "as the daemon leaves them"}, {large, fmt.Sprintf("the newest %d as the daemon leaves them, of the older 4 of %d audit entries and no intents; most are copies", large.full, len(way))}} {
		size, err := o.size()
		if err != nil {
			return err
		}
		b.figure(fmt.Sprintf("database with %d deals, of each", o.deals), float64(size)/float64(o.deals), "bytes", nil, "%s", o.shape)
	}
	many, err := b.costs(large)
	if err != nil {
		return err
	}
	b.figure("cost of a deal with 1,000 in the store, p50", ms(few.took.quantile(0.5)), "ms", nil, "p95 %s ms; %s ms of processor time, %s commits and %s further fsyncs", short(ms(few.took.quantile(0.95))), short(few.cpu), short(few.commits), short(few.syncs))
	b.figure(fmt.Sprintf("cost of a deal with %d in the store, p50", large.deals), ms(many.took.quantile(0.5)), "ms", nil, "p95 %s ms; %s ms of processor time; %.0f %% of the cost with 1,000",
		short(ms(many.took.quantile(0.95))), short(many.cpu), 100*float64(many.took.quantile(0.5))/float64(few.took.quantile(0.5)))
	return nil
}

// largeLedger is the state directory with many deals, made if it is not there.
func (b *bench) largeLedger() (seedOptions, error) {
	dir := filepath.Join(b.work, fmt.Sprintf("deals-%d", b.deals))
	o := seedOptions{dir: dir, key: dir + ".master-key", deals: b.deals, full: min(block, b.deals), open: 60, seed: 1}
	whole := dir + ".whole" // says that filling was not interrupted
	if _, err := os.Stat(whole); err == nil {
		return o, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return o, err
	}
	fmt.Fprintf(os.Stderr, "filling a ledger with %d deals, once ... ", b.deals)
	if err := o.fill(b.ctx); err != nil {
		return o, err
	}
	return o, os.WriteFile(whole, nil, 0o600)
}

// costDeals is how many deals are taken through the store, one after the other.
const costDeals = 100

// cost is what a deal costs the store.
type cost struct {
	took           sample
	cpu            float64 // ms per deal
	commits, syncs float64 // per deal
}

func (b *bench) costs(o seedOptions) (c cost, err error) {
	master, err := masterKey(o.key)
	if err != nil {
		return c, err
	}
	commits, syncs := 0, 0
	s, err := store.Open(b.ctx, store.Options{Dir: o.dir, MasterKey: master, Hook: func(point string) {
		switch {
		case strings.HasPrefix(point, "commit/") && strings.HasSuffix(point, ":after"):
			commits++
		case strings.HasPrefix(point, "fsync/") && strings.HasSuffix(point, ":after"):
			syncs++
		}
	}})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	commits, syncs = 0, 0
	cpu := ownCPU()
	now := time.Now()
	for i := range costDeals {
		start := time.Now()
		if err := b.keepOne(s, fmt.Sprintf("%s-%d", now.Format("150405.000"), i), now.Add(time.Duration(i)*time.Second)); err != nil {
			return c, err
		}
		c.took = append(c.took, time.Since(start))
	}
	c.cpu = ms(ownCPU()-cpu) / costDeals
	c.commits, c.syncs = float64(commits)/costDeals, float64(syncs)/costDeals
	return c, nil
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// notice takes a deal of a record in.
func (b *bench) notice(s *store.Store, h *account, record string, at time.Time) (*deal.Sealing, error) {
	previous, err := s.Cursor(b.ctx, h.tenant, h.account)
	if err != nil {
		return nil, err
	}
	c := deal.Change{Rule: "order-form", Ref: deal.Ref{Object: h.object, ID: record}, Stage: h.stage, Occurrence: record, At: at}
	fresh, err := s.Notice(b.ctx, deal.Noticing{Tenant: h.tenant, Account: h.account, Previous: previous,
		Page:  deal.Page{Entries: []deal.Change{c}, Next: deal.Cursor{Since: at}},
		Plans: map[string]deal.Plan{"order-form": h.plan()}, Watches: map[string]deal.Watch{"order-form": h.watch()}})
	if err != nil || len(fresh) != 1 {
		return nil, fmt.Errorf("%d deals are fresh (%w)", len(fresh), err)
	}
	return s.Load(b.ctx, fresh[0])
}

// keepOne takes a deal through the ledger as the engine does: every commit of its usual way, with the files.
func (b *bench) keepOne(s *store.Store, record string, at time.Time) error {
	sl, err := b.notice(s, &houses[0], record, at)
	if err != nil {
		return err
	}
	sl.Facts.Digest = hexOf("digest", sl.Tx)
	for _, a := range way[1:] {
		if err := b.commitAct(s, sl, a); err != nil {
			return fmt.Errorf("%s%s: %w", a.intent, a.what, err)
		}
	}
	return s.Unstage(b.ctx, sl.Tx)
}

// commitAct commits one act, with the file that goes with it.
func (b *bench) commitAct(s *store.Store, sl *deal.Sealing, a act) error {
	if a.intent != "" {
		return s.Begin(b.ctx, sl, deal.Intent{Step: sl.Step, What: a.intent, Digest: sl.Facts.Digest, Key: hexOf("key"), Lease: time.Minute})
	}
	switch a.what {
	case "rendered":
		return b.staged(s, sl, "unsigned.pdf", &sl.Facts.Unsigned, a)
	case "signed":
		sl.Facts.Signature = true
	case "sealed":
		sl.Facts.SealedAt = time.Now().UTC()
		return b.staged(s, sl, "contract.pdf", &sl.Facts.Contract, a)
	case "archived":
		folder, err := s.Keep(b.ctx, sl, "contract.pdf", map[string][]byte{"cms.der": make([]byte, 8000)})
		if err != nil {
			return err
		}
		sl.Facts.Archive = folder
	}
	return b.advance(s, sl, a)
}

func (b *bench) staged(s *store.Store, sl *deal.Sealing, name string, into **deal.FileFact, a act) error {
	fact, err := s.Stage(b.ctx, sl.Tx, name, func(w io.Writer) error {
		_, err := w.Write(bytes.Repeat([]byte("contract"), 12_500))
		return err
	})
	if err != nil {
		return err
	}
	*into = &fact
	return b.advance(s, sl, a)
}

func (b *bench) advance(s *store.Store, sl *deal.Sealing, a act) error {
	if a.step != "" {
		sl.Step = a.step
	}
	e := deal.Entry{Who: "daemon", What: a.what, Why: a.why}
	if a.event != "" {
		e.Events = []deal.Event{{Type: a.event}}
	}
	return s.Advance(b.ctx, sl, e)
}
