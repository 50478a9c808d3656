package connectors_test

import (
	"context"
	"fmt"
	"io"
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
