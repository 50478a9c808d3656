package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// screen is what the user sees. On a terminal a waiting line is drawn over; into a file only finished lines go.
type screen struct {
	out     io.Writer
	live    bool
	pending bool // a line that is drawn over stands at the bottom
	raw     bool // the terminal is in raw mode, where a line feed does not return
}

func newScreen(f *os.File) *screen { return &screen{out: f, live: term.IsTerminal(int(f.Fd()))} }

func (s *screen) say(format string, args ...any) {
	s.clear()
	text := fmt.Sprintf(format+"\n", args...)
	if s.raw {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	io.WriteString(s.out, text)
}

func (s *screen) clear() {
	if s.pending {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.pending = false
	}
}

// bar draws how much of a wait is over.
func (s *screen) bar(what string, share float64) {
	if !s.live {
		return
	}
	const width = 30
	full := min(int(share*width), width-1)
	s.clear()
	fmt.Fprintf(s.out, "  %s%s %s", strings.Repeat("█", full), strings.Repeat("░", width-full), what)
	s.pending = true
}

func (s *screen) barDone() { s.clear() }

// steps prints the steps that a deal has newly reached.
func (s *screen) steps(w *watched, story *store.Story) {
	sealing := story.Sealing
	if w.tx == "" {
		w.tx, w.step, w.noticed = sealing.Tx, deal.Noticed, sealing.Noticed
		s.say("\n%s: %s %s entered %q  (transaction %s)", title(w.crm.kind), w.crm.object, w.record, sealing.Plan.Stage, w.tx)
	}
	last := w.noticed
	for _, step := range deal.Steps[1:] {
		at, reached := sealing.Facts.Times[step]
		if !reached {
			break
		}
		if w.step.Before(step) {
			w.step = step
			s.say("  %-10s %-9s +%5d ms   %s", w.crm.kind, step, at.Sub(last).Milliseconds(), detail(step, sealing))
		}
		last = at
	}
	if w.step == deal.Done {
		s.say("  %-10s %d ms from first seen in a poll to written fields", w.crm.kind, sealing.Facts.Times[deal.Reported].Sub(w.noticed).Milliseconds())
		return
	}
	s.bar(fmt.Sprintf("%s is %s", w.crm.kind, w.step), float64(time.Since(w.noticed))/float64(3*time.Second))
}

func title(kind string) string {
	return map[string]string{"salesforce": "Salesforce", "hubspot": "HubSpot"}[kind]
}

// detail says what a step has brought about.
func detail(step deal.Step, s *deal.Sealing) string {
	f := s.Facts
	switch {
	case step == deal.Gathered:
		return "fields read and checked"
	case step == deal.Rendered && f.Unsigned != nil:
		return fmt.Sprintf("PDF made, %d kB", f.Unsigned.Size/1000)
	case step == deal.Sealed && f.Cert != nil:
		return "sealed by " + f.Cert.Subject
	case step == deal.Checked:
		return fmt.Sprintf("%s, PAdES %s, second reader: %s", f.Verdict, f.Level, f.SecondOpinion)
	case step == deal.Kept:
		return "archived with its evidence"
	case step == deal.Attached:
		return "contract and audit trail are on the record"
	case step == deal.Reported:
		return "fields written"
	}
	return ""
}

// places says where everything can be looked at; link logs in to the status page, and is empty if the daemon ends now.
func (s *screen) places(w *world, results []result, link string) {
	s.say("\nSealed contracts   %s", w.path("sealed"))
	for _, r := range results {
		s.say("                   %s  PAdES %s", r.File, r.Level)
	}
	s.say("                   their pages say that they are tests: both accounts are sandboxes (tenant.test_mark)")
	s.say("Trust them with    %s", w.path("trust/root.pem"))
	s.say("Check one          %s verify --trust %s %s", w.dealseal, w.path("trust/root.pem"), w.path(results[0].File))
	s.say("Status page        %s", w.page)
	if link != "" {
		s.say("Log in to it       %s", link)
		s.say("                   (good once, for five minutes; later: %s admin login --config %s)", w.dealseal, w.path("config/dealseal.yaml"))
	}
	for _, r := range results {
		s.say("%-18s %s %s: status %q, %d fields written", title(r.CRM), r.Object, r.Record, r.Status, len(r.Fields))
	}
	s.say("Everything else    %s", w.dir)
}

// keyPresses sends one value per key until ctx ends. Without a terminal it waits for lines.
func keyPresses(ctx context.Context) (keys <-chan struct{}, raw bool, restore func()) {
	in := int(os.Stdin.Fd())
	restore = func() {}
	if term.IsTerminal(in) {
		if old, err := term.MakeRaw(in); err == nil {
			raw, restore = true, func() { term.Restore(in, old) }
		}
	}
	c := make(chan struct{})
	go func() {
		defer close(c)
		b := make([]byte, 1)
		for {
			n, err := os.Stdin.Read(b)
			if err != nil || n == 0 {
				return
			}
			if b[0] == 3 { // Ctrl-C in raw mode
				restore()
				p, err := os.FindProcess(os.Getpid())
				if err == nil {
					p.Signal(os.Interrupt)
				}
				return
			}
			select {
			case c <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return c, raw, restore
}
