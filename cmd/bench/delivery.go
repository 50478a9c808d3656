package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/webhooks"
)

const (
	endpoints    = 200 // of which every tenth hangs, and every tenth fails
	together     = 4   // are one tenant's: each of its events goes to all of them
	eventsEvery  = 20 * time.Millisecond
	eventsLasted = 20 * time.Second
)

// delivery commits events and has the product's deliverer bring them to receivers on this machine, of which some never
// answer and some always refuse.
func (b *bench) delivery() (err error) {
	dir, err := os.MkdirTemp("", "dealseal-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	master, err := masterKey(filepath.Join(dir, "master-key"))
	if err != nil {
		return err
	}
	s, err := store.Open(b.ctx, store.Options{Dir: filepath.Join(dir, "state"), MasterKey: master})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	receivers, err := serveHTTP(ctx, receiver(ctx))
	if err != nil {
		return err
	}
	deals, err := b.subscribed(s, receivers)
	if err != nil {
		return err
	}
	p := new(post)
	d := &webhooks.Deliverer{Ledger: s, Bell: s.Bell(), Guard: webhooks.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}),
		Log: slog.New(slog.DiscardHandler), Version: "bench", Attempted: p.attempted}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() { cancel(); <-ended }() // before the store is closed

	healthy := endpoints - 2*endpoints/10
	if err := p.wait(ctx, healthy); err != nil { // each has had its first, that its deal was noticed
		return err
	}
	p.forget()
	cpu := ownCPU()
	sent, err := b.tellAll(s, deals)
	if err != nil {
		return err
	}
	if err := p.wait(ctx, sent); err != nil {
		return err
	}
	cpu = ownCPU() - cpu
	took := p.delivered()
	b.figure("commit to delivered, median", ms(took.quantile(0.5)), "ms", atMost(200), "until the answer is written down, too; %s events/s, each to %d of %d endpoints, of which %d hang and %d fail; %s ms of processor time per event, with receivers and load",
		short(float64(time.Second)/float64(eventsEvery)), together, endpoints, endpoints/10, endpoints/10, short(ms(cpu)/(eventsLasted.Seconds()*float64(time.Second)/float64(eventsEvery))))
	b.figure("commit to delivered, p99", ms(took.quantile(0.99)), "ms", atMost(1000), "%d deliveries; slowest %s ms", len(took), short(ms(took.quantile(1))))
	return nil
}

// kindOf is how the receiver of an endpoint behaves.
func kindOf(i int) string {
	switch i % 10 {
	case 0:
		return "hangs"
	case 5:
		return "fails"
	}
	return "takes"
}

// receiver takes, refuses, or never answers as long as ctx lasts.
func receiver(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/takes", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	})
	return mux
}

// subscribed makes tenants with a deal and some endpoints each.
func (b *bench) subscribed(s *store.Store, receivers string) (deals []*deal.Sealing, err error) {
	for first := 0; first < endpoints; first += together {
		h := houses[0]
		h.tenant = deal.TenantID(fmt.Sprintf("tenant-%03d", first))
		h.account = deal.AccountID(fmt.Sprintf("salesforce:00D5g0000000%03dEAA", first))
		at := time.Now().UTC().Truncate(time.Millisecond)
		if _, err := s.Activate(b.ctx, h.tenant, h.account, h.watch(), at.Add(-time.Hour)); err != nil {
			return nil, err
		}
		for i := first; i < first+together; i++ {
			if err := b.subscribe(s, h.tenant, fmt.Sprintf("hook-%d", i), receivers+"/"+kindOf(i)); err != nil {
				return nil, err
			}
		}
		sl, err := b.notice(s, &h, fmt.Sprintf(h.recordPlaces, first), at)
		if err != nil {
			return nil, err
		}
		deals = append(deals, sl)
	}
	return deals, nil
}

func (b *bench) subscribe(s *store.Store, tenant deal.TenantID, name, url string) error {
	e := webhooks.Endpoint{ID: string(tenant) + "/" + name, Tenant: string(tenant), URL: url}
	e.Defaults()
	key, err := e.NewSecret()
	if err != nil {
		return err
	}
	e.Secrets = []webhooks.Secret{{Value: key}}
	return s.AddEndpoint(b.ctx, e, "bench", "to be measured")
}

// tellAll commits events at an even pace, of one deal after the other, and returns how many healthy receivers get.
func (b *bench) tellAll(s *store.Store, deals []*deal.Sealing) (healthy int, err error) {
	tick := time.NewTicker(eventsEvery)
	defer tick.Stop()
	for i := range int(eventsLasted / eventsEvery) {
		n := i % len(deals)
		if err := s.Advance(b.ctx, deals[n], deal.Entry{Who: "daemon", What: "attached", Events: []deal.Event{{Type: "document.attached", Data: map[string]string{"sha256": hexOf("contract")}}}}); err != nil {
			return 0, err
		}
		for endpoint := n * together; endpoint < (n+1)*together; endpoint++ {
			if kindOf(endpoint) == "takes" {
				healthy++
			}
		}
		select {
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		case <-tick.C:
		}
	}
	return healthy, nil
}

// post keeps how long deliveries took.
type post struct {
	mu   sync.Mutex
	took sample
}

func (p *post) attempted(_ webhooks.Endpoint, o webhooks.Outcome, since time.Duration) {
	if o.Fate != webhooks.Delivered {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = append(p.took, since)
}

func (p *post) delivered() sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.took)
}

func (p *post) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = nil
}

// wait waits until so many were delivered.
func (p *post) wait(ctx context.Context, n int) error {
	over := time.After(time.Minute)
	for len(p.delivered()) < n {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return fmt.Errorf("%d of %d deliveries were made within a minute", len(p.delivered()), n)
		case <-time.After(soon):
		}
	}
	return nil
}
