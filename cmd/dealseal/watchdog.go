package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/dealseal/dealseal/store"
)

// watch shows the supervisor that the daemon moves, until ctx ends: a job goes through database and queue, and only when
// it has arrived the watchdog is fed. A writer or a queue that is stuck starves it, and the daemon is started anew.
func (d *service) watch(ctx context.Context) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("the watchdog's settings cannot be read: %w", err)
	}
	every := statusEvery
	if patience > 0 {
		every = patience / 3
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if patience > 0 {
			d.feed(ctx, patience)
		}
		d.supervisor.say(d.status(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// feed feeds the watchdog if the daemon moves. A full disk is no reason to starve it, nor is another program's lock: a
// new start would find the disk as full, and fail at the lock; this one goes on by itself once they are free.
func (d *service) feed(ctx context.Context, patience time.Duration) {
	limit, cancel := context.WithTimeout(ctx, patience/2)
	defer cancel()
	err := d.queue.Pulse(limit)
	var full *store.DiskFullError
	var busy *store.BusyError
	switch {
	case err == nil || errors.As(err, &full) || errors.As(err, &busy):
		d.supervisor.alive()
	case ctx.Err() == nil:
		d.log.Error("the daemon does not move: its watchdog is not fed", "err", err)
	}
}
