package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/api"
)

// TestTortureLosesNoEventAndNoRequest kills the daemon in the middle of deliveries, of which there are always many, while a
// program asks for contracts and may hear nothing. In the end each event of the outbox has arrived at each receiver, always with
// the same id and body, also where an attempt was refused; and what was asked for, however often, is one contract.
//
// KILLS says how often (4 here, 50 at most, which are 300 deals), SEED repeats the choice of moments.
func TestTortureLosesNoEventAndNoRequest(t *testing.T) {
	t.Parallel()
	kills, seed := min(number(t, "KILLS", 4), 50), uint64(number(t, "SEED", rand.Uint32N(1<<31)))
	x := newStorm(t)
	rnd := rand.New(rand.NewPCG(seed, 2))
	for range kills {
		x.gust(t, 1+rnd.IntN(20))
	}
	s := x.begin(t)
	p := s.letIn(t, "asker-again", "--role", "signer-admin", "--tenant", "acme")
	for record := range x.asked {
		p.key = "order of " + record
		var first, again api.Signature
		must(t, json.Unmarshal(p.asks(202, "POST", "/v1/signatures", orderOf(record)), &first))
		must(t, json.Unmarshal(p.asks(202, "POST", "/v1/signatures", orderOf(record)), &again))
		if first.ID != again.ID {
			t.Errorf("SEED=%d: asked for twice, %s is %s and %s", seed, record, first.ID, again.ID)
		}
	}
	ours := map[string]bool{}
	for record := range x.asked {
		x.records = append(x.records, record)
	}
	for _, record := range x.records {
		for _, e := range awaitDone(t, s.ops, record).Outbox {
			ours[e.ID] = true
		}
		if n := contracts(s.crms[0], record); n != 1 {
			t.Errorf("SEED=%d: %s bears %d contracts", seed, record, n)
		}
	}
	for _, r := range []*receiver{x.willing, x.reluctant} {
		everyEvent(t, r, ours)
	}
	fmt.Printf("storm: %d kills, %d events, %d and %d attempts, SEED=%d\n", kills, len(ours), len(x.willing.seen()), len(x.reluctant.seen()), seed)
	s.daemon.stop(t)
}

// everyEvent waits until a receiver has them all, and wants nothing else and nothing in two ways.
func everyEvent(t *testing.T, r *receiver, ours map[string]bool) {
	t.Helper()
	eventually(t, "every event has arrived", func() (bool, string) {
		arrived := map[string]bool{}
		for _, d := range r.seen() {
			arrived[d.ID] = true
		}
		missing := 0
		for id := range ours {
			if !arrived[id] {
				missing++
			}
		}
		return missing == 0, fmt.Sprintf("%d of %d are missing", missing, len(ours))
	})
	bodies := map[string]string{}
	for _, d := range r.seen() {
		if body, again := bodies[d.ID]; again && body != string(d.body) || d.Tx != "" && !ours[d.ID] {
			t.Errorf("%s was told as %s and as %s, or is in no outbox", d.ID, body, d.body)
		}
		bodies[d.ID] = string(d.body)
	}
}

// storm is a world in which much is delivered.
type storm struct {
	*world
	willing, reluctant *receiver
	records            []string
	asked              map[string]bool // records

	mu     sync.Mutex
	left   int           // attempts until the daemon is to die
	struck chan struct{} // then closed
}

func newStorm(t *testing.T) *storm {
	t.Helper()
	x := &storm{asked: map[string]bool{}}
	x.willing = newReceiver(t, func(_ http.ResponseWriter, r *http.Request, _ received) { x.attempt(r.Context()) })
	var mu sync.Mutex
	seen := map[string]bool{}
	x.reluctant = newReceiver(t, func(w http.ResponseWriter, _ *http.Request, d received) {
		mu.Lock()
		defer mu.Unlock()
		// Never five in a row, after which it would be left in peace.
		if !seen[d.ID] && len(seen)%3 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		seen[d.ID] = true
	})
	secretFile := filepath.Join(t.TempDir(), "hook")
	must(t, os.WriteFile(secretFile, []byte(standardSecret), 0o600))
	var hooks strings.Builder
	hooks.WriteString("webhooks:\n")
	for id, r := range map[string]*receiver{"willing": x.willing, "reluctant": x.reluctant} {
		fmt.Fprintf(&hooks, "  - {id: %s, url: %q, secret: %q, retry: [0s, 100ms, 100ms, 100ms, 100ms, 1s, 1s]}\n", id, r.URL, "file:"+secretFile)
	}
	x.world = newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}, attempts: 40, webhooks: hooks.String(), house: "api: {listen: \"127.0.0.1:0\"}\n"})
	return x
}

// attempt counts one. That with which the daemon is to die is not answered before it has.
func (x *storm) attempt(ctx context.Context) {
	x.mu.Lock()
	x.left--
	strikes := x.left == 0
	struck := x.struck
	x.mu.Unlock()
	if strikes {
		close(struck)
		<-ctx.Done()
	}
}

// gust has deals become true and one be asked for, and kills the daemon at the n-th attempt from now.
func (x *storm) gust(t *testing.T, n int) {
	t.Helper()
	struck := make(chan struct{})
	x.mu.Lock()
	x.left, x.struck = n, struck
	x.mu.Unlock()
	s := x.begin(t)
	record := s.crms[0].open(sale{})
	x.asked[record] = true
	asker := s.letIn(t, "asker-"+strings.ToLower(record), "--role", "signer-admin", "--tenant", "acme")
	asker.key = "order of " + record
	for range 5 {
		x.records = append(x.records, x.enter(ruleMemo))
	}
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		asker.asksInVain(t.Context(), orderOf(record))
	}()
	<-struck
	s.daemon.kill()
	<-asking
}

func orderOf(record string) string {
	return fmt.Sprintf(`{"template_id":"order-form","record_id":%q}`, record)
}

// asksInVain asks for a contract, whether or not an answer comes.
func (p program) asksInVain(ctx context.Context, body string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+"/v1/signatures", strings.NewReader(body))
	if err != nil {
		return
	}
	r.Header.Set("Authorization", "Bearer "+p.token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", p.key)
	if resp, err := http.DefaultClient.Do(r); err == nil {
		resp.Body.Close()
	}
}
