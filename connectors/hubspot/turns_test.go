package hubspot

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestOneTurnAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		release, err := turns.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := turns.take(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		other()

		second := false
		go func() {
			release, err := turns.take(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			second = true
			release()
		}()
		cancelled, cancel := context.WithCancel(t.Context())
		go func() {
			if _, err := turns.take(cancelled, "a"); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled while waiting: %v", err)
			}
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if second {
			t.Error("two have the turn")
		}
		release()
		synctest.Wait()
		if !second || len(turns.keys) != 0 {
			t.Errorf("the second had its turn: %t; %d keys are left", second, len(turns.keys))
		}
	})
}
