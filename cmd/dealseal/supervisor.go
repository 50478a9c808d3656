package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/dealseal/dealseal/deal"
)

// supervisor is what started the daemon, as far as it wants to be told how things are: systemd, through the socket that
// sd_notify(3) describes. Without that socket nothing is told.
type supervisor struct {
	log *slog.Logger

	mu     sync.Mutex
	status string // that was last told
	warned bool
}

// ready tells that the daemon works, at the start and after a reload.
func (s *supervisor) ready(status string) { s.tell(status, daemon.SdNotifyReady) }

// reloading is followed by ready, however the reload ends.
func (s *supervisor) reloading() {
	s.tell("reading the configuration", daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
}

func (s *supervisor) stopping(status string) { s.tell(status, daemon.SdNotifyStopping) }

// alive keeps the watchdog from ending the daemon.
func (s *supervisor) alive() { s.tell("", daemon.SdNotifyWatchdog) }

// say shows a status, if it is another.
func (s *supervisor) say(status string) {
	s.mu.Lock()
	same := s.status == status
	s.mu.Unlock()
	if !same {
		s.tell(status, "")
	}
}

func (s *supervisor) tell(status, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if status != "" {
		s.status, state = status, state+"\nSTATUS="+status
	}
	if _, err := daemon.SdNotify(false, state); err != nil && !s.warned {
		s.warned = true
		s.log.Warn("systemd cannot be told how the daemon is", "err", err)
	}
}

// status is what "systemctl status" shows.
func (d *service) status(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	counts, err := d.store.Counts(ctx)
	if err != nil {
		return fmt.Sprintf("the database does not answer: %v", err)
	}
	var moving, person int64
	for _, c := range counts {
		switch {
		case c.Step == deal.Done || c.Condition == deal.Ended:
		case c.Condition.Waiting():
			person += c.N
		default:
			moving += c.N
		}
	}
	text := fmt.Sprintf("%s, %s in the works", counted(int64(len(d.residents.house().tenants)), "tenant"), counted(moving, "deal"))
	if person > 0 {
		text += fmt.Sprintf(", %d waiting for a person", person)
	}
	if d.reloads.failure() != nil {
		text += "; the last reload failed"
	}
	return text
}

func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

const (
	// statusEvery is how often the status is looked at when there is no watchdog to be fed.
	statusEvery = 10 * time.Second
	statusLimit = 5 * time.Second
)
