package salesforce

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

func inferredOrders(since time.Time) []deal.Watch {
	w := orders(since)
	w[0].Snapshot = true
	return w
}

// lookout reads sightings page by page, as the poll does.
type lookout struct {
	w       *world
	c       *Connector
	cursor  deal.Cursor
	watches []deal.Watch
	stays   map[string]deal.Stay
}

// look reads one page, and returns the records of which an entry follows that was not known.
func (l *lookout) look() (page deal.Page, entered []string) {
	l.w.t.Helper()
	page, err := l.c.Changes(l.w.t.Context(), l.cursor, l.watches)
	l.w.must(err)
	for _, x := range page.Sightings {
		was := l.stays[x.Ref.ID]
		stay := was.See(x, l.cursor.Since)
		l.stays[x.Ref.ID] = stay
		if c, is := stay.Entry(x, l.watches[0], false); is && !stay.Entered.Equal(was.Entered) {
			entered = append(entered, c.Ref.ID)
		}
	}
	l.cursor = page.Next
	return page, entered
}

func (l *lookout) poll() (sightings int, entered []string) {
	l.w.t.Helper()
	for {
		page, found := l.look()
		sightings, entered = sightings+len(page.Sightings), append(entered, found...)
		if !page.More {
			return sightings, entered
		}
	}
}

func newLookout(w *world) *lookout {
	return &lookout{w: w, c: w.connector(nil), watches: inferredOrders(w.Now()), stays: map[string]deal.Stay{}}
}

func TestTheFirstReadingIsOfAllRecordsAndTheNextOfThoseThatWereChanged(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	w.org.Track("Order.Status", false)
	w.org.FreezeStamp(w.Now()) // all have one stamp
	const all = pageRows + 20
	ids := w.CreateDeals(all, "Activated")
	w.org.FreezeStamp(time.Time{})
	w.Advance(time.Hour)
	l := newLookout(w)
	page, _ := l.look()
	if len(page.Sightings) != pageRows || !page.More {
		t.Fatalf("the first page has %d records, more: %v", len(page.Sightings), page.More)
	}
	l.c = w.connector(nil) // a restart in the middle
	n, entered := l.poll()
	if n != all-pageRows || len(entered) > 0 || len(l.stays) != all {
		t.Fatalf("the rest is %d records, %d entries, %d known of %d", n, len(entered), len(l.stays), all)
	}
	before := len(w.org.Requests())
	w.Advance(time.Hour)
	if n, _ := l.poll(); n != 0 || len(w.org.Requests())-before != 1 {
		t.Errorf("an idle poll reads %d records with %d calls", n, len(w.org.Requests())-before)
	}
	l.c = w.connector(nil)
	w.SetAmount(ids[0], "5")
	w.Advance(time.Second)
	if n, entered := l.poll(); n != 1 || len(entered) != 0 {
		t.Errorf("after an edit %d records are read, %v have entered", n, entered)
	}
	// With another rule for the object what was seen still counts; without any it does not.
	l.watches = append(l.watches, deal.Watch{Rule: "s", Object: "Order", Stage: "Draft", Since: w.Now(), Snapshot: true})
	if n, _ := l.poll(); n != 1 {
		t.Errorf("after a rule was added %d records are read", n)
	}
	orders := l.watches
	l.watches = watch(w.Now())
	l.poll()
	l.watches = orders
	if n, _ := l.poll(); n != all {
		t.Errorf("after a time without rules %d records are read, want all", n)
	}
}

// What else is watched does not wait for the first reading of a large object, which goes on over restarts and misses nothing that is
// changed meanwhile. Where rows may still be shown late it reads on.
func TestAFirstReadingTakesTurns(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	w.org.Track("Order.Status", false)
	w.org.FreezeStamp(w.Now())
	const turn, rest = firstPages * pageRows, 100
	ids := w.CreateDeals(turn+rest, "Draft")
	won, err := w.org.CreateOpportunity(nil)
	w.must(err)
	w.org.FreezeStamp(time.Time{})
	w.Advance(time.Second)
	if n, _ := newLookout(w).poll(); n != turn+rest {
		t.Fatalf("of what was changed just now %d records are read, want all", n)
	}

	w.Advance(time.Hour)
	l := newLookout(w)
	l.watches = append(l.watches, watch(w.Now())...)
	began, turns := w.Now(), 0
	read := map[string]int{}
	var found []string
	for unread := []string{"Order"}; len(unread) > 0; turns++ {
		for more := true; more; {
			page, _ := l.look()
			more, unread = page.More, page.Unread
			for _, x := range page.Sightings {
				read[x.Ref.ID]++
			}
			for _, x := range page.Entries {
				found = append(found, x.Ref.ID)
				if turns != 1 || len(read) != turn {
					t.Errorf("an opportunity is found in turn %d, behind %d orders", turns, len(read))
				}
			}
			if more && len(unread) > 0 {
				t.Error("it is said before the end of a round what is unread")
			}
		}
		if turns == 0 {
			if len(unread) == 0 || l.cursor.Since.After(began) {
				t.Fatalf("after a turn of %d records the cursor is %s", len(read), l.cursor)
			}
			w.Move(ids[0], "Activated") // it was read before
			w.must(w.org.MoveStage(won, "Closed Won"))
			w.Advance(time.Second)
		}
		l.c = w.connector(nil)
	}
	if turns != 2 || len(found) != 1 || len(read) != turn+rest || read[ids[0]] != 2 || l.stays[ids[0]].Stage != "Activated" {
		t.Errorf("after %d turns %v are found, and %d orders read, %s %d times", turns, found, len(read), ids[0], read[ids[0]])
	}
	w.Advance(time.Hour)
	if n, _ := l.poll(); n != 1 {
		t.Errorf("of what was changed within the overlap %d records are read again", n)
	}
	w.Advance(time.Hour)
	before := len(w.org.Requests())
	if n, _ := l.poll(); n != 0 || len(w.org.Requests())-before != 2 {
		t.Errorf("an idle poll reads %d records with %d calls", n, len(w.org.Requests())-before)
	}
}

// Orders move at random, some within one second, replies are lost, and the connector begins anew: an entry follows from each move
// that a poll can see, and from nothing else.
func TestNoStayThatAPollCanSeeIsMissed(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			w := newWorldOf(t, kinds[3], "")
			w.org.Track("Order.Status", false)
			ids := append(w.CreateDeals(20, "Draft"), w.CreateDeals(10, "Activated")...)
			w.Advance(time.Minute)
			l := newLookout(w)
			l.poll()
			want, got := map[string]int{}, map[string]int{}
			stage := map[string]string{}
			for i, id := range ids {
				stage[id] = map[bool]string{true: "Draft", false: "Activated"}[i < 20]
			}
			for range 60 {
				for range r.IntN(6) {
					id := ids[r.IntN(len(ids))]
					switch r.IntN(3) {
					case 0:
						w.SetAmount(id, fmt.Sprint(r.IntN(1000)))
					default:
						next := []string{"Draft", "In Review", "Activated"}[r.IntN(3)]
						if next == "Activated" && stage[id] != next {
							want[id]++
						}
						stage[id] = next
						w.Move(id, next)
					}
					w.Advance(time.Duration(r.IntN(2)) * time.Second)
				}
				w.Advance(time.Duration(1+r.IntN(90)) * time.Second)
				if r.IntN(4) == 0 { // the reply is lost
					_, err := l.c.Changes(t.Context(), l.cursor, l.watches)
					w.must(err)
				}
				if r.IntN(8) == 0 {
					l.c = w.connector(nil)
				}
				moved := map[string]string{}
				for id, s := range l.stays {
					moved[id] = s.Stage
				}
				_, entered := l.poll()
				for _, id := range entered {
					got[id]++
				}
				for _, id := range ids {
					if s := l.stays[id]; s.Stage != stage[id] {
						t.Fatalf("%s was last seen in %q and is in %q", id, s.Stage, stage[id])
					}
					if entered := stage[id] == "Activated" && moved[id] != "Activated"; entered && got[id] == 0 {
						t.Fatalf("%s has entered, and no entry followed", id)
					}
					if got[id] > want[id] {
						t.Fatalf("%s: %d entries follow, it has entered %d times", id, got[id], want[id])
					}
				}
			}
		})
	}
}

func TestARecordThatIsShownLateIsSeen(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	w.org.Track("Order.Status", false)
	id := w.CreateDeals(1, "Draft")[0]
	l := newLookout(w)
	l.poll()
	w.DelayVisibility(8 * time.Minute)
	w.Move(id, "Activated")
	w.DelayVisibility(0)
	for range 7 {
		w.Advance(time.Minute)
		if _, entered := l.poll(); len(entered) > 0 {
			t.Fatal("it was seen before it was shown")
		}
	}
	w.Advance(2 * time.Minute)
	if _, entered := l.poll(); len(entered) != 1 {
		t.Errorf("the entries are %v, want that of %s", entered, id)
	}
}

func TestARowThatCannotBeUnderstoodIsQuarantinedAndPassed(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	w.org.Track("Order.Status", false)
	bad := w.CreateDeals(1, "Draft")[0]
	w.Advance(time.Second)
	good := w.CreateDeals(1, "Draft")[0]
	w.must(w.org.SetRaw(bad, "CreatedDate", "yesterday"))
	l := newLookout(w)
	page, _ := l.look()
	if len(page.Sightings) != 1 || page.Sightings[0].Ref.ID != good || len(page.Quarantined) != 1 || page.Quarantined[0].Ref.ID != bad || !strings.Contains(page.Quarantined[0].Reason, "CreatedDate") {
		t.Errorf("seen are %+v, quarantined %+v", page.Sightings, page.Quarantined)
	}
}

func TestOfAnInferredObjectNoHistoryIsReadAndItIsSaidWhatIsMissed(t *testing.T) {
	w := newWorldOf(t, kinds[3], "")
	w.org.Track("Order.Status", false)
	w.org.Hide("OrderHistory")
	w.CreateDeals(1, "Activated")
	c, watches := w.connector(nil), inferredOrders(w.Now().Add(-time.Hour))
	problems, err := c.Probe(t.Context(), connectors.Probe{Object: "Order", Watches: watches})
	w.must(err)
	expectProblem(t, problems, "inferred from snapshots", connectors.SnapshotBlindness, "Set History Tracking")
	if !problems[0].Warning || problems[0].Rule != "r" {
		t.Errorf("the problem is %+v, want a warning about the rule", problems[0])
	}
	before := len(w.org.Requests())
	page, err := c.Entries(t.Context(), w.Now().Add(-time.Hour), w.Now().Add(time.Hour), deal.Cursor{}, watches)
	w.must(err)
	if len(page.Entries)+len(page.Sightings) > 0 || page.More || len(w.org.Requests()) != before {
		t.Errorf("a history that nobody keeps has %+v", page)
	}
	w.org.Track("Order.Status", true)
	problems, err = c.Probe(t.Context(), connectors.Probe{Object: "Order", Watches: watches})
	w.must(err)
	expectProblem(t, problems, "inferred from snapshots", "is tracked by now")
	opportunity := watch(w.Now())
	opportunity[0].Snapshot = true
	problems, err = c.Probe(t.Context(), connectors.Probe{Object: Object, Watches: opportunity})
	w.must(err)
	expectProblem(t, problems, "every org keeps the history of opportunities", "detect")
}
