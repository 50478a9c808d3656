package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The garbage collector looks at what lives each time that as much again has been allocated. A daemon at rest is small, and
// should be; but while many deals are worked that is dozens of times a second, a fifth of all that the daemon then does. So it
// runs seldom for as long as there is much to collect, and the memory goes back when that is over.

const (
	collectorLook = 5 * time.Second
	// collectorBusy is how many collections between two looks are many.
	collectorBusy = 10
	// collectorSeldom is GOGC meanwhile: what lives is a few dozen megabytes at most, since documents travel in files.
	collectorSeldom = 400
)

// collector is the pace of the garbage collector.
type collector struct {
	cycles  func() uint64         // that began because enough had been allocated
	percent func(percent int) int // debug.SetGCPercent
	release func()                // debug.FreeOSMemory
	last    uint64
	usual   int // GOGC while it does not run seldom
	seldom  bool
}

func newCollector() *collector {
	return &collector{cycles: collections, percent: debug.SetGCPercent, release: debug.FreeOSMemory, last: collections()}
}

// collections is how often the collector has run by itself.
func collections() uint64 {
	s := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// watch keeps looking until ctx ends. Whoever sets GOGC has chosen a pace, which is left alone.
func (c *collector) watch(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	tick := time.NewTicker(collectorLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.look()
		}
	}
}

// look changes the pace if there was much, or nothing, to collect since the last look.
func (c *collector) look() {
	now := c.cycles()
	since := now - c.last
	c.last = now
	switch {
	case !c.seldom && since >= collectorBusy:
		c.seldom, c.usual = true, c.percent(collectorSeldom)
	case c.seldom && since == 0:
		c.percent(c.usual)
		c.release()
		c.seldom = false
	}
}
