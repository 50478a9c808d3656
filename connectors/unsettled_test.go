package connectors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func TestARecordIsLeftAloneAfterAWriteThatTookTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := connectors.NewUnsettled(time.Minute)
		u.Note("cut", fmt.Errorf("write: %w", io.ErrUnexpectedEOF))
		u.Note("slow", fmt.Errorf("write: %w", context.DeadlineExceeded))
		u.Note("well", nil)
		for _, record := range []string{"cut", "well", "other"} {
			if err := u.Check(record); err != nil {
				t.Errorf("%s: %v", record, err)
			}
		}
		time.Sleep(59 * time.Second)
		if left := deal.RetryAfter(u.Check("slow")); left != time.Second {
			t.Errorf("left alone for %s, want 1s", left)
		}
		time.Sleep(time.Second)
		if err := u.Check("slow"); err != nil {
			t.Errorf("after the pause: %v", err)
		}
	})
}

// Deals that share a call share its error, wrapped or not: what one of them makes of it is not seen by the others.
func TestAWriteThatMayBeCarriedOutLateIsMarkedForOneDealOnly(t *testing.T) {
	shared := fmt.Errorf("put the file on the record: %w", context.DeadlineExceeded)
	text := shared.Error()
	marked := make(chan error, 8)
	for range cap(marked) {
		go func() { marked <- connectors.Late(connectors.Late(shared, time.Minute), time.Minute) }()
	}
	for range cap(marked) {
		err := <-marked
		if deal.Unsettled(err) != time.Minute || deal.RetryAfter(err) != time.Minute || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: to be left alone for %s", err, deal.Unsettled(err))
		}
		if strings.Count(err.Error(), "may still be carried out") != 1 {
			t.Errorf("it is not said once: %v", err)
		}
	}
	if shared.Error() != text || deal.Unsettled(shared) != 0 {
		t.Errorf("the error that they share is another now: %v", shared)
	}
}
