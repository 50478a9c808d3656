package connectors

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// SnapshotBlindness is what rules do not see whose entries are inferred from snapshots, in words for people.
const SnapshotBlindness = "a record that enters the stage and leaves it between two polls is never noticed, and one that leaves it and enters again meanwhile is noticed once"

// NotBefore returns the watches as they are for entries from t on.
func NotBefore(t time.Time, watches []deal.Watch) []deal.Watch {
	later := slices.Clone(watches)
	for i := range later {
		if later[i].Since.Before(t) {
			later[i].Since = t
		}
	}
	return later
}

// WatchesKey names a set of watches, whatever their order. A connector keeps it with its position inside a window that is
// not read to its end: what that position has passed was judged for these watches and for no other, so with another key
// the window is read from its beginning.
func WatchesKey(watches []deal.Watch) string {
	lines := make([]string, len(watches))
	for i, w := range watches {
		lines[i] = fmt.Sprintf("%q %q %q %q %d\n", w.Rule, w.Object, w.Pipeline, w.Stage, w.Since.UnixMilli())
		if w.Snapshot {
			lines[i] = "snapshot " + lines[i]
		}
	}
	slices.Sort(lines)
	h := sha256.New()
	for _, line := range lines {
		h.Write([]byte(line))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
