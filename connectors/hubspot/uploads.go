package hubspot

import (
	"sync"
	"time"
)

// uploads are the deals whose files are being stored: each of them is about to have its notes made, and all of them in one
// call if the first waits for the others.
type uploads struct {
	mu       sync.Mutex
	underWay map[chan struct{}]bool
}

const (
	// notesWait is how long the notes of a deal wait for those of others: about as long as one file takes.
	notesWait = 250 * time.Millisecond
	// between is how long it takes at most from the end of one call to the next that it makes possible.
	between = 10 * time.Millisecond
	// updateWait is how long an update waits for others while deals wait for their turn.
	updateWait = 60 * time.Millisecond
)

func newUploads() *uploads { return &uploads{underWay: map[chan struct{}]bool{}} }

// begin is called before the first file of a deal is stored, end once, after the last.
func (u *uploads) begin() (end func()) {
	ended := make(chan struct{})
	u.mu.Lock()
	u.underWay[ended] = true
	u.mu.Unlock()
	return func() {
		u.mu.Lock()
		delete(u.underWay, ended)
		u.mu.Unlock()
		close(ended)
	}
}

// wait returns when the deals whose files are being stored now are about to ask for their notes, or after notesWait.
func (u *uploads) wait() {
	u.mu.Lock()
	others := make([]chan struct{}, 0, len(u.underWay))
	for ended := range u.underWay {
		others = append(others, ended)
	}
	u.mu.Unlock()
	if len(others) == 0 {
		return
	}
	enough := time.NewTimer(notesWait)
	defer enough.Stop()
	for _, ended := range others {
		select {
		case <-ended:
		case <-enough.C:
			return
		}
	}
	time.Sleep(between)
}

// waitForUpdates returns when the deals whose notes were made in one call are about to be updated; while many wait for their
// turn it lets a few more come.
func (c *Connector) waitForUpdates() {
	wait := between
	if c.fresh.comes() {
		wait = updateWait
	}
	time.Sleep(wait)
}
