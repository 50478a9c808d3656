package hubspot

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// TestATaskIsLookedForAmongTheNewest makes a deal that has thousands of tasks: a few calls find ours, or that there is none.
func TestATaskIsLookedForAmongTheNewest(t *testing.T) {
	w := newWorld(t, FlowToken)
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	others := func(n int) {
		for range n {
			task, err := w.portal.Create("tasks", map[string]string{"hs_task_subject": "Call them", "hs_timestamp": stampOf(w.Now()), "hs_task_status": "NOT_STARTED"})
			w.must(err)
			w.must(w.portal.Associate("tasks", task, "deals", id, ""))
		}
	}
	crm := w.Connector(quiet()).(connectors.Tasker)
	about := deal.Task{Tx: "aaaaaaaaaaaaaaaaaaaaaaaaaa", Number: 1, Subject: "Contract needs attention", Body: "It is held", Due: w.Now().Add(time.Hour)}
	reads := func() (n int) {
		w.portal.ResetRequests()
		if _, err := crm.Task(t.Context(), deal.Ref{Object: Object, ID: id}, about); err != nil {
			t.Fatal(err)
		}
		for _, q := range w.portal.Requests() {
			if q.Method == http.MethodPost && strings.Contains(q.Path, "/tasks/batch/read") {
				n++
			}
		}
		return n
	}
	others(2 * mostMarked)
	if n := reads(); n != mostMarked/objectBatch {
		t.Errorf("%d calls read tasks of a deal that has none of ours, want %d", n, mostMarked/objectBatch)
	}
	others(objectBatch)
	if n := reads(); n != 2 {
		t.Errorf("%d calls read tasks of a deal that has ours among the newest, want 2", n)
	}
	tasks, err := w.portal.Tasks(id)
	w.must(err)
	if n := len(tasks); n != 2*mostMarked+objectBatch+1 {
		t.Errorf("the deal has %d tasks, want one of ours", n)
	}
}
