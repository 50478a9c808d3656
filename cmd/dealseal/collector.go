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
//
// What lives grows a little with the deals, up to the bounds of what is remembered of each. A share of that, as GOGC is, would
// make several times as much of it: the garbage that may lie about meanwhile has a bound of its own.

const (
	collectorLook = 5 * time.Second
	// collectorBusy is how many collections between two looks are many.
	collectorBusy = 10
	// collectorSeldom is GOGC meanwhile, at most: what lives is a few dozen megabytes, since documents travel in files.
	collectorSeldom = 400
	// collectorGarbage is how many bytes of garbage GOGC may then come to, and collectorLeast what it is set to at least: Go's own.
	collectorGarbage = 64 << 20
	collectorLeast   = 100
)

// collector is the pace of the garbage collector.
type collector struct {
	cycles  func() uint64         // that began because enough had been allocated
	live    func() uint64         // how many bytes the last of them left
	percent func(percent int) int // debug.SetGCPercent
	release func()                // debug.FreeOSMemory
	last    uint64
	usual   int // GOGC while it does not run seldom
	seldom  int // GOGC while it does, otherwise 0
}

func newCollector() *collector {
	return &collector{cycles: collections, live: lives, percent: debug.SetGCPercent, release: debug.FreeOSMemory, last: collections()}
}

// collections is how often the collector has run by itself.
func collections() uint64 { return measured("/gc/cycles/automatic:gc-cycles") }

// lives is how many bytes the last collection left.
func lives() uint64 { return measured("/gc/heap/live:bytes") }

func measured(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
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

// look changes the pace if there was much, or nothing, to collect since the last look, or if more lives now.
func (c *collector) look() {
	now := c.cycles()
	since := now - c.last
	c.last = now
	switch pace := c.pace(); {
	case c.seldom == 0 && since >= collectorBusy:
		c.seldom, c.usual = pace, c.percent(pace)
	case c.seldom != 0 && since == 0:
		c.percent(c.usual)
		c.release()
		c.seldom = 0
	case c.seldom != 0 && c.seldom != pace:
		c.percent(pace)
		c.seldom = pace
	}
}

// pace is what GOGC is while there is much to collect.
func (c *collector) pace() int {
	return int(min(collectorSeldom, max(collectorLeast, 100*collectorGarbage/max(c.live(), 1))))
}
