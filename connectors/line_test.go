package connectors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// calls are what a line has asked.
type calls struct {
	mu  sync.Mutex
	all [][]string
}

func (c *calls) line(took time.Duration) *Line[string, string] {
	return &Line[string, string]{Most: 3, Together: func(ctx context.Context, group string, asked []string) []Answer[string] {
		c.mu.Lock()
		c.all = append(c.all, slices.Clone(asked))
		c.mu.Unlock()
		answers := make([]Answer[string], len(asked))
		select {
		case <-time.After(took):
		case <-ctx.Done():
		}
		for i, q := range asked {
			answers[i] = Answer[string]{Value: group + q, Err: ctx.Err()}
			if q == "bad" {
				answers[i].Err = errors.New("is bad")
			}
			if q == "panic" {
				panic("oops")
			}
		}
		return answers
	}}
}

func (c *calls) shape() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sizes []string
	for _, call := range c.all {
		sizes = append(sizes, fmt.Sprint(len(call)))
	}
	return strings.Join(sizes, " ")
}

func TestWhoComesWhileTheFirstGathersIsAskedWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		l := c.line(100 * time.Millisecond)
		l.Gather = func() { time.Sleep(20 * time.Millisecond) } // of the bubble's clock: nobody waits
		var g sync.WaitGroup
		for _, q := range []string{"1", "2", "gone", "3"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if q == "gone" {
				ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
			}
			g.Go(func() {
				defer cancel()
				got, err := l.Ask(ctx, "a", q)
				var never *NotAskedError
				if q == "gone" && !errors.As(err, &never) || q != "gone" && (err != nil || got != "a"+q) {
					t.Errorf("%s got %q, %v", q, got, err)
				}
			})
			synctest.Wait()
		}
		g.Wait()
		time.Sleep(straggle) // of the bubble's clock, until nobody waits for more
		if got := c.shape(); got != "3" {
			t.Errorf("calls of %s questions, want one of three", got)
		}
	})
}

func TestWhoWaitsForACallIsAskedTogetherAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		l := c.line(100 * time.Millisecond)
		var g sync.WaitGroup
		ask := func(group, q, want string) {
			g.Go(func() {
				got, err := l.Ask(t.Context(), group, q)
				if want == "" && err == nil || want != "" && (err != nil || got != want) {
					t.Errorf("%s of group %s got %q, %v", q, group, got, err)
				}
			})
			synctest.Wait()
		}
		ask("a", "first", "afirst")
		for _, q := range []string{"1", "bad", "3", "4"} {
			ask("a", q, map[bool]string{false: "a" + q}[q == "bad"])
		}
		ask("b", "other", "bother")
		g.Wait()
		if got := c.shape(); got != "1 1 3 1" {
			t.Errorf("calls of %s questions, want one alone in each group, then three, then the rest", got)
		}
		synctest.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.groups) != 0 {
			t.Errorf("groups without questions are kept: %v", l.groups)
		}
	})
}

func TestACallThatHangsKeepsNobodyWaitingForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		l := c.line(time.Hour)
		slow, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var g sync.WaitGroup
		g.Go(func() {
			if _, err := l.Ask(slow, "", "slow"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a call that hangs gives %v", err)
			}
		})
		synctest.Wait()
		short, cancelShort := context.WithTimeout(t.Context(), patience/2)
		defer cancelShort()
		var never *NotAskedError
		if _, err := l.Ask(short, "", "given up"); !errors.As(err, &never) {
			t.Errorf("a question that was never asked gives %v", err)
		}
		next, cancelNext := context.WithTimeout(t.Context(), 2*patience)
		defer cancelNext()
		for _, q := range []string{"x", "y"} {
			g.Go(func() {
				if _, err := l.Ask(next, "", q); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &never) {
					t.Errorf("%s was asked while the first call hung, and gives %v", q, err)
				}
			})
		}
		g.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		slices.Sort(c.all[1])
		if len(c.all) != 2 || fmt.Sprint(c.all[1]) != "[x y]" {
			t.Errorf("asked were %v", c.all)
		}
	})
}

func TestThePanicOfACallIsThatOfWhoAsks(t *testing.T) {
	var c calls
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "oops") || !strings.Contains(got, "line_test.go") {
			t.Errorf("recovered %s", got)
		}
	}()
	_, _ = c.line(0).Ask(t.Context(), "", "panic")
	t.Error("no panic")
}
