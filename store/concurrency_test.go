package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestOfManyAtOnceOneAdvancesEachVersion(t *testing.T) {
	s := wallStore(t)
	sl := one(t, s, "006A")
	const workers, rounds = 8, 10
	var wg sync.WaitGroup
	wins := make([]int, workers)
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				mine, err := s.Load(t.Context(), sl.Tx)
				if err != nil {
					t.Error(err)
					return
				}
				mine.Attempts++
				switch err := s.Advance(t.Context(), mine, deal.Entry{Who: "daemon", What: "noted"}); {
				case err == nil:
					wins[w]++
				case !errors.Is(err, deal.ErrStale):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range wins {
		total += n
	}
	if got := load(t, s, sl.Tx); got.Attempts != total || got.Version != int64(total)+1 || total == 0 {
		t.Fatalf("%d changes were acknowledged, the ledger has %d at version %d", total, got.Attempts, got.Version)
	}
	verified(t, s)
}

func TestOfManyAtOnceOneTakesTheLease(t *testing.T) {
	s := wallStore(t)
	sl := one(t, s, "006A")
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for w := range 8 {
		wg.Go(func() {
			mine := *sl
			// Even with the newest version nobody gets past another's lease.
			mine.Version += int64(w % 2)
			err := s.Begin(otherJob(t, s), &mine, deal.Intent{Step: deal.Noticed, What: fmt.Sprint("gather ", w), Lease: time.Hour})
			if w%2 == 0 && err == nil {
				mu.Lock()
				taken++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if taken != 1 {
		t.Fatalf("%d took the lease", taken)
	}
}

func TestReadersSeeWholePagesWhileTheyAreNoticed(t *testing.T) {
	s := wallStore(t)
	stop := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			list, err := s.List(t.Context(), Filter{})
			if err != nil || len(list)%5 != 0 {
				t.Errorf("%d sealings are seen of pages with 5, %v", len(list), err)
				return
			}
		}
	})
	for p := range 8 {
		var changes []deal.Change
		for i := range 5 {
			changes = append(changes, change(fmt.Sprintf("006%d%d", p, i), "h1"))
		}
		notice(t, s, changes...)
	}
	close(stop)
	wg.Wait()
}
