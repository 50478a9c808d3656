package connectors

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestWatchesKeyCoversAllOfAWatchAndNotTheOrder(t *testing.T) {
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	a := deal.Watch{Rule: "a", Object: "deals", Pipeline: "p", Stage: "s", Since: at}
	b := deal.Watch{Rule: "b", Object: "deals", Stage: "s", Since: at}
	key := WatchesKey([]deal.Watch{a, b})
	if WatchesKey([]deal.Watch{b, a}) != key {
		t.Error("the order of the rules changes the key")
	}
	changes := map[string]func(*deal.Watch){
		"rule":     func(w *deal.Watch) { w.Rule = "c" },
		"object":   func(w *deal.Watch) { w.Object = "tickets" },
		"pipeline": func(w *deal.Watch) { w.Pipeline = "q" },
		"stage":    func(w *deal.Watch) { w.Stage = "t" },
		"since":    func(w *deal.Watch) { w.Since = at.Add(-time.Millisecond) },
	}
	for what, change := range changes {
		changed := a
		change(&changed)
		if WatchesKey([]deal.Watch{changed, b}) == key {
			t.Errorf("another %s gives the same key", what)
		}
	}
	if WatchesKey([]deal.Watch{a}) == key {
		t.Error("one watch less gives the same key")
	}
}
