package engine

import (
	"context"
	"time"
)

const (
	// followUpFirst is when after a start it is first looked for deals to follow up: what the daemon only has to go on with
	// has come to an outcome by then.
	followUpFirst = time.Minute
	followUpEvery = 5 * time.Minute
)

// followUp looks for deals that have had no outcome for too long, until ctx ends.
func (e *Engine) followUp(ctx context.Context) error {
	timer := time.NewTimer(followUpFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		n, err := e.Ledger.FollowUps(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			e.Log.ErrorContext(ctx, "deals to follow up could not be looked for", "again", followUpEvery, "err", err)
		}
		if n > 0 {
			e.Log.InfoContext(ctx, "deals have had no outcome for as long as their rule waits", "n", n)
		}
		timer.Reset(followUpEvery)
	}
}
