package connectortest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func tasker(t *testing.T, crm connectors.CRM) connectors.Tasker {
	t.Helper()
	tasker, ok := crm.(connectors.Tasker)
	if !ok {
		t.Fatal("the connector makes no tasks: whoever owns a record is not told that its deal waits")
	}
	return tasker
}

func taskAbout(w World, id string, number int) deal.Task {
	return deal.Task{Tx: txFor(id), Number: number, Subject: "Contract needs attention", Body: "It is held: <b>field</b> \"x\" is missing\n\nMend it", Due: w.Now().AddDate(0, 0, 2)}
}

func testTask(t *testing.T, w World) {
	ids := w.CreateDeals(2, w.Traits().Stage)
	var first string
	for range 3 { // also by a connector that remembers nothing
		id, err := tasker(t, w.Connector(quiet())).Task(callContext(t), ref(w, ids[0]), taskAbout(w, ids[0], 1))
		if err != nil || id == "" || first != "" && id != first {
			t.Fatalf("the task is %q, was %q: %v", id, first, err)
		}
		first = id
	}
	tasks := w.Tasks(ids[0])
	if len(tasks) != 1 || !strings.HasPrefix(tasks[0].Subject, "Contract needs attention [dealseal ") || strings.Contains(tasks[0].Body, "<b>") && w.Traits().HTML ||
		!strings.Contains(tasks[0].Body, "is missing") || tasks[0].Owner != w.Field(ids[0], w.Traits().Owner) {
		t.Errorf("the tasks are %+v", tasks)
	}
	crm := tasker(t, w.Connector(quiet()))
	for _, number := range []int{2, 11} { // whose mark begins as that of 1
		if _, err := crm.Task(callContext(t), ref(w, ids[0]), taskAbout(w, ids[0], number)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.Tasks(ids[0])); n != 3 || len(w.Tasks(ids[1])) != 0 {
		t.Errorf("there are %d tasks about one deal, want 3, and %d about the other", n, len(w.Tasks(ids[1])))
	}
	w.Delete(ids[1])
	if _, err := crm.Task(callContext(t), ref(w, ids[1]), taskAbout(w, ids[1], 1)); !errors.Is(err, deal.ErrGone) {
		t.Errorf("about a deal that is deleted there is a task: %v", err)
	}
	if err := w.Fail(TaskCall, Forbidden, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := crm.Task(callContext(t), ref(w, ids[0]), taskAbout(w, ids[0], 3)); !deal.IsPermanent(err) {
		t.Errorf("a task that may not be made is %v, want a permanent error", err)
	}
}

func testTaskReplyLost(t *testing.T, w World) {
	id := w.CreateDeals(1, w.Traits().Stage)[0]
	crm := tasker(t, w.Connector(quiet()))
	for number, effect := range []Effect{LoseReply, CutBefore, Unavailable} {
		if err := w.Fail(TaskCall, effect, 1); err != nil {
			t.Fatal(err)
		}
		var err error
		for range 4 {
			if _, err = crm.Task(callContext(t), ref(w, id), taskAbout(w, id, number+1)); err == nil {
				break
			}
			if deal.IsPermanent(err) {
				t.Fatalf("%s: %v", effect, err)
			}
			w.Advance(11 * time.Minute)
		}
		w.Heal()
		if n := len(w.Tasks(id)); err != nil || n != number+1 {
			t.Errorf("after %q there are %d tasks, want %d: %v", effect, n, number+1, err)
		}
	}
}
