package main

import (
	"testing"
)

func TestATemplateDealIsSealedAttachedAndShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	d := w.start(t)
	ops := w.control(t, w.stateDir)
	for _, c := range w.crms {
		r := c.open(sale{quote: quotation(1)})
		c.move(r, ruleContract)
		s := awaitDone(t, ops, r)
		t.Log(s.Sealing.Facts.Times, c.shown(r))
		r = c.open(sale{quote: quotation(1)})
		c.move(r, ruleMemo)
		s = awaitDone(t, ops, r)
		t.Log(s.Sealing.Facts.Times, c.shown(r))
	}
	d.stop(t)
}
