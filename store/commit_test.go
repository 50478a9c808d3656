package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// together has n changes wait behind one that is being committed, and returns how often the store has committed until all
// are settled, that one included.
func together(t *testing.T, s *Store, n int, change func(i int) error) (commits int64) {
	t.Helper()
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var counted atomic.Int64
	var last atomic.Value
	s.hook = func(point string) {
		if strings.HasSuffix(point, ":before") {
			once.Do(func() {
				close(entered)
				<-release
			})
		}
		if strings.HasSuffix(point, ":before") && last.Swap(point) != point {
			counted.Add(1)
		}
	}
	defer func() { s.hook = nil }()
	var all sync.WaitGroup
	all.Go(func() {
		if err := s.SetPoll(t.Context(), deal.PollState{Tenant: acme}); err != nil {
			t.Error(err)
		}
	})
	<-entered
	for i := range n {
		all.Go(func() {
			if err := change(i); err != nil {
				t.Error(err)
			}
		})
	}
	tick, over := time.NewTicker(time.Millisecond), time.After(2*time.Minute)
	defer tick.Stop()
	for s.commits.length() < n {
		select {
		case <-tick.C:
		case <-over:
			t.Fatal("the changes do not wait in line")
		}
	}
	close(release)
	all.Wait()
	return counted.Load()
}

func (l *commits) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

func TestChangesThatWaitAreCommittedTogether(t *testing.T) {
	s, _ := newStore(t)
	commits := together(t, s, 20, func(i int) error {
		return s.Memory(acme).Put(t.Context(), fmt.Sprint(i), []byte("x"), 0)
	})
	if commits != 2 {
		t.Errorf("21 changes were committed in %d groups, want 2", commits)
	}
	if n := query[int](t, s, `SELECT count(*) FROM memory`); n != 20 {
		t.Errorf("%d of 20 changes are there", n)
	}
}

// Whatever becomes of one change, the others of its group are as if it had not been there.
func TestAChangeThatFailsTakesNoOtherWithIt(t *testing.T) {
	s, _ := newStore(t)
	broken := errors.New("broken")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	together(t, s, 12, func(i int) (err error) {
		ctx, want := t.Context(), error(nil)
		switch i % 4 {
		case 1:
			want = broken
		case 2:
			defer func() {
				if recover() == nil {
					err = fmt.Errorf("the panic of change %d did not reach its caller", i)
				} else {
					err = nil
				}
			}()
		case 3:
			ctx, want = over, context.Canceled
		}
		err = s.update(ctx, "commit/memory", func(tx *txn) error {
			if err := tx.exec(`INSERT INTO memory (tenant, key, value, version) VALUES ('acme', $1, x'', 1)`, i); err != nil {
				return err
			}
			if i%4 == 2 {
				panic("torn")
			}
			return want
		})
		if !errors.Is(err, want) {
			return fmt.Errorf("change %d: %v, want %v", i, err, want)
		}
		return nil
	})
	if n := query[int](t, s, `SELECT count(*) FROM memory`); n != 3 {
		t.Errorf("%d changes are there, want the 3 that succeeded", n)
	}
	one(t, s, "006A")
	verified(t, s)
}

// A change hears of a failed commit even if another one led.
func TestAllOfAGroupHearThatItWasNotCommitted(t *testing.T) {
	s, _ := newStore(t)
	var failed atomic.Int64
	together(t, s, 5, func(i int) error {
		err := s.update(t.Context(), "commit/memory", func(tx *txn) error {
			if err := tx.exec(`INSERT INTO memory (tenant, key, value, version) VALUES ('acme', $1, x'', 1)`, i); err != nil {
				return err
			}
			if tx.last() {
				return tx.exec(`ROLLBACK`) // as SQLite does when the disk is full
			}
			return nil
		})
		if err != nil {
			failed.Add(1)
		}
		return nil
	})
	if failed.Load() != 5 {
		t.Errorf("%d of 5 changes heard that nothing was committed", failed.Load())
	}
	one(t, s, "006A")
	verified(t, s)
}

// last reports whether four changes of the group were made before.
func (t *txn) last() bool {
	var n int
	_, err := t.get([]any{&n}, `SELECT count(*) FROM memory`)
	return err == nil && n == 5
}
