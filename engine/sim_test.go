package engine

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/secret"
	"github.com/google/go-cmp/cmp"
)

var (
	simSeeds = flag.Int("sim.seeds", 200, "how many seeds the simulation runs")
	simSeed  = flag.Uint64("sim.seed", 1, "the first of them")
	simTrace = flag.Bool("sim.trace", false, "print the trace of every run, not only of those that fail")
)

// simKit is what a run gets from outside of its bubble.
type simKit struct {
	dir    string
	shelf  *simShelf
	secret string
	login  secret.Ref
	master secret.Secret
}

// TestSimulation lets a daemon live through the worst days that a seed can think of, in simulated time, and then asks from
// outside whether every promise was kept. A failing seed prints its trace and the command that runs it again.
func TestSimulation(t *testing.T) {
	t.Parallel()
	seeds := *simSeeds
	if testing.Short() {
		seeds = min(seeds, 5)
	}
	k := newSimKit(t)
	// Each run leaves a world behind, and collecting the garbage of many small ones costs a sixth of the time.
	before := debug.SetGCPercent(400)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	for i := range seeds {
		seed := *simSeed + uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			simulate(t, k, newScript(seed))
		})
	}
}

func TestTheScriptOfASeedIsAlwaysTheSame(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		if diff := cmp.Diff(newScript(seed), newScript(seed)); diff != "" {
			t.Fatalf("seed %d gives two scripts: %s", seed, diff)
		}
		if cmp.Equal(newScript(seed).Events, newScript(seed+1).Events) {
			t.Fatalf("seeds %d and %d give one script", seed, seed+1)
		}
	}
}

func newSimKit(t *testing.T) simKit {
	t.Helper()
	k := simKit{secret: "a secret of the CRM", master: newMaster(), shelf: &simShelf{}}
	k.login = (&world{t: t}).secretFile(k.secret)
	var err error
	k.shelf.form, err = documents.Load("../templates/order-form")
	must(t, err)
	k.shelf.trail, err = documents.Load("../templates/audit-trail")
	must(t, err)
	k.shelf.paths, err = k.shelf.form.Paths(string(deal.Salesforce), nil)
	must(t, err)
	return k
}

// stuckAfter is when a run of a second counts as one that never ends: in a bubble whose clock stands nothing else notices.
const stuckAfter = 10 * time.Minute

func simulate(t *testing.T, k simKit, s simScript) {
	k.dir = filepath.Join(memoryDir(t), "state")
	stuck := time.AfterFunc(stuckAfter, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("seed %d does not end: again: GOMAXPROCS=1 make sim SEEDS=1 SEED=%d", s.Seed, s.Seed))
	})
	defer stuck.Stop()
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, s, k)
		supervised := make(chan struct{})
		go func() {
			defer close(supervised)
			w.supervise()
		}()
		w.play()

		w.judge()
		w.end(supervised)
		w.say()
	})
}

// memoryDir is a temporary folder, in memory where the machine has such a place: the power-cut suite is about disks.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dealseal-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// say fails the test with all that was wrong.
func (w *simWorld) say() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if *simTrace {
		w.t.Log("\n" + w.log.String())
	}
	if len(w.wrong) == 0 {
		return
	}
	w.t.Errorf("%s\n\nagain: GOMAXPROCS=1 make sim SEEDS=1 SEED=%d\n\n%s", strings.Join(w.wrong, "\n"), w.script.Seed, w.log.String())
}
