package main

import (
	"fmt"
	"log/slog"
	"sync"
)

// diskWatch keeps the daemon from filling the disk: below the floor no new deals are noticed, and below a quarter of it
// those under way wait, so that there is room to write down what becomes of them.
type diskWatch struct {
	free  func() (int64, error) // bytes
	floor int64
	log   *slog.Logger

	mu    sync.Mutex
	below int // how many of the two floors the last look was below, so that each change is logged once
}

// finishShare is the part of the floor down to which running deals go on.
const finishShare = 4

// mayNotice is nil while there is room for new deals.
func (w *diskWatch) mayNotice() error { return w.above(w.floor, "no new deals are noticed") }

// mayWork is nil while there is room to go on with deals that are under way.
func (w *diskWatch) mayWork() error {
	return w.above(w.floor/finishShare, "deals that are under way wait as well")
}

func (w *diskWatch) above(floor int64, what string) error {
	free, err := w.look()
	if err != nil {
		return err
	}
	if free < floor {
		return fmt.Errorf("less than %d MiB are free in the state directory: %s until there is room", floor>>20, what)
	}
	return nil
}

// look measures, and logs when the disk has come below one of the floors or above it again.
func (w *diskWatch) look() (int64, error) {
	free, err := w.free()
	if err != nil {
		return 0, err
	}
	below := 0
	for _, floor := range []int64{w.floor, w.floor / finishShare} {
		if free < floor {
			below++
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if below == w.below {
		return free, nil
	}
	w.below = below
	switch log := w.log.With("free_mib", free>>20, "floor_mib", w.floor>>20); below {
	case 0:
		log.Info("the state directory has room again")
	case 1:
		log.Error("the state directory is short of room: no new deals are noticed")
	default:
		log.Error("the state directory has hardly any room: deals that are under way wait as well")
	}
	return free, nil
}

// check is the readiness check.
func (w *diskWatch) check() error {
	if err := w.mayWork(); err != nil {
		return err
	}
	return w.mayNotice()
}
