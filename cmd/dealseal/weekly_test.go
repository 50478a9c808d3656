package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"mime/quotedprintable"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/smtp"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store"
)

// weeks is a daemon's part that tells how the week was, over a ledger and a mail server. The clock is that of a bubble; it stands
// still while mail is under way, for that goes through a socket.
type weeks struct {
	t      *testing.T
	dir    string
	house  *house
	server *smtp.Server
}

// aWeek has a daemon that mails to ops, with three tenants.
func aWeek(t *testing.T, server *smtp.Server) *weeks {
	w := &weeks{t: t, dir: filepath.Join(t.TempDir(), "state"), server: server, house: &house{cfg: &config.Config{}}}
	for _, id := range []string{"acme", "globex", "quiet"} {
		w.house.tenants = append(w.house.tenants, apiTenant(id, "production"))
	}
	w.house.cfg.Notify = config.Notify{Page: "https://seal.example", Gather: time.Second, Again: time.Minute, Weekly: "Mon 07:00",
		Mail:     &config.Mail{Server: server.Address, Security: "none", From: "dealseal <seal@example.com>"},
		Channels: []config.Channel{{ID: "ops", Mail: "ops@example.com"}}}
	return w
}

func (w *weeks) open() *store.Store {
	w.t.Helper()
	s, err := store.Open(context.Background(), store.Options{Dir: w.dir, MasterKey: secret.New(bytes.Repeat([]byte{9}, 32))})
	must(w.t, err)
	return s
}

// during has a daemon run from now until a time.
func (w *weeks) during(until time.Time) {
	w.t.Helper()
	d := &service{house: w.house, store: w.open(), log: slog.New(slog.DiscardHandler)}
	defer func() { must(w.t, d.store.Close()) }()
	d.residents.settle(&residence{house: w.house})
	ctx, stop := context.WithCancel(context.Background())
	must(w.t, d.newNotifier(ctx))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.notifier.Run(ctx) })
	g.Go(func() error { return d.tellWeekly(ctx) })
	down(until)
	stop()
	if err := g.Wait(); err != nil && err != context.Canceled {
		w.t.Error(err)
	}
}

// down lets the clock of the bubble go on to a time: nobody waits for it.
func down(until time.Time) { time.Sleep(time.Until(until)) }

// mails are the bodies of what was mailed, with the subject above.
func (w *weeks) mails() (all []string) {
	w.t.Helper()
	for _, m := range w.server.Taken() {
		text, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(m.Body)))
		must(w.t, err)
		all = append(all, m.Header.Get("Subject")+"\n"+string(text))
	}
	return all
}

// want complains unless so many were mailed.
func (w *weeks) want(n int, when string) {
	w.t.Helper()
	if all := w.mails(); len(all) != n {
		w.t.Fatalf("%s: %d were mailed, want %d:\n%s", when, len(all), n, strings.Join(all, "\n---\n"))
	}
}

// lived is a deal that reached steps a second after each other.
func lived(tenant deal.TenantID, record string, at time.Time, as ...deal.Condition) store.Past {
	change := deal.Change{Rule: "order-form", Ref: deal.Ref{Object: "Opportunity", ID: record}, Stage: "Closed Won", Occurrence: "1", At: at}
	account := deal.AccountID("salesforce:" + tenant)
	p := store.Past{Sealing: &deal.Sealing{Tx: change.TxIDs(account)[0], Tenant: tenant, Account: account, Change: change, Condition: deal.Running,
		Plan: deal.Plan{TenantName: "Acme", Rule: "order-form", Profile: []byte(`{}`)}, Private: deal.Private{FileName: "Contract of Brightwater.pdf", Values: []byte(`{"Name":"Brightwater"}`)}}}
	moves := []store.Happening{{Step: deal.Noticed, Condition: deal.Running}}
	for _, c := range as {
		moves = append(moves, store.Happening{Step: deal.Noticed, Condition: c})
	}
	if as == nil {
		for _, step := range []deal.Step{deal.Sealed, deal.Reported, deal.Done} {
			moves = append(moves, store.Happening{Step: step, Condition: deal.Running})
		}
	}
	for i, m := range moves {
		m.At, m.Entry = at.Add(time.Duration(i)*time.Second), deal.Entry{Who: "daemon", What: "moved"}
		p.History = append(p.History, m)
		p.Sealing.Step, p.Sealing.Condition = m.Step, m.Condition
	}
	return p
}

// TestTheWeekIsMailedOnce has daemons mail how the week was: at its time, once, whether they run, are started again or come up
// too late for it, each tenant's counts and nothing of a deal.
func TestTheWeekIsMailedOnce(t *testing.T) {
	t.Parallel()
	server, err := smtp.Start("127.0.0.1:0", smtp.Options{})
	must(t, err)
	t.Cleanup(func() { server.Close() })
	synctest.Test(t, func(t *testing.T) {
		w := aWeek(t, server)
		monday := time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)
		at := func(days int, clock time.Duration) time.Time { return monday.AddDate(0, 0, days).Add(clock) }
		down(at(-1, 22*time.Hour))
		w.during(at(-1, 22*time.Hour+10*time.Minute))
		w.want(0, "a ledger of which nothing is known")

		s := w.open()
		must(t, s.Fill(t.Context(), slices.Values([]store.Past{
			lived("acme", "006before", at(-8, 23*time.Hour+59*time.Minute)),
			lived("acme", "0061", at(-7, 0)), lived("acme", "0062", at(-3, 12*time.Hour)), lived("acme", "0063", at(-3, 13*time.Hour), deal.Held),
			lived("globex", "0064", at(-1, 12*time.Hour), deal.Held, deal.Dead),
		})))
		must(t, s.Close())
		w.during(at(-1, 22*time.Hour+20*time.Minute))
		down(at(0, 6*time.Hour+50*time.Minute))
		w.during(at(0, 6*time.Hour+59*time.Minute))
		if all := w.mails(); len(all) != 1 || !strings.Contains(all[0], "2026-02-23 to 2026-03-01: 1 deals came") {
			t.Fatalf("the week before, of which the ledger knows by now, was mailed as %q", all)
		}

		w.during(at(0, 7*time.Hour+2*time.Minute))
		w.want(2, "at its time")
		got := w.mails()[1]
		for _, line := range []string{
			"[dealseal] 2026-03-02 to 2026-03-08: 4 deals came, 2 were sealed, 2 ended well, 2 were held, 1 were given up; none of calls to CRMs succeeded; half of the deals took 2",
			"\r\n  globex: 1 came, 0 were sealed, 0 ended well, 1 were held, 1 were given up\r\n  acme: 3 came, 2 were sealed, 2 ended well, 1 were held, 0 were given up\r\n  quiet: 0 came, 0 were sealed, 0 ended well, 0 were held, 0 were given up\r\n",
			"<li>quiet: 0 came", "https://seal.example/",
		} {
			if !strings.Contains(got, line) {
				t.Errorf("it does not say %q:\n%s", line, got)
			}
		}
		for _, hidden := range []string{"Brightwater", "0061", "0062", "0063", "0064"} {
			if strings.Contains(got, hidden) {
				t.Errorf("it holds %q:\n%s", hidden, got)
			}
		}
		if m := server.Taken()[1]; m.To != "ops@example.com" || m.From != "seal@example.com" {
			t.Errorf("it goes from %s to %s", m.From, m.To)
		}

		w.during(at(0, 8*time.Hour))
		w.during(at(0, 8*time.Hour+5*time.Minute))
		w.want(2, "started again, twice")
		down(at(7, 6*time.Hour+58*time.Minute))
		server.Fail(3)
		w.during(at(7, 7*time.Hour+20*time.Minute))
		w.want(3, "of the next week, with a mail server that refuses it three times")
		down(at(17, 8*time.Hour)) // a Thursday
		w.during(at(17, 8*time.Hour+10*time.Minute))
		w.want(4, "of a week at whose end, and three days longer, no daemon was up")
		if late := w.mails()[3]; !strings.Contains(late, "2026-03-16 to 2026-03-22: 0 deals came") {
			t.Errorf("it is late with %s", late)
		}
		w.house.cfg.Notify.Weekly = config.Never
		down(at(21, 8*time.Hour))
		w.during(at(21, 8*time.Hour+10*time.Minute))
		w.want(4, "where it is wanted never")
	})
}
