package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors/connectortest"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web"
)

// TestWhoeverIsSlowIsCutOff at the public listener, as docs/push.md says: five seconds for headers, ten for all. Nothing of it
// is taken in, and the connection is gone. The clock is that of a bubble.
func TestWhoeverIsSlowIsCutOff(t *testing.T) {
	t.Parallel()
	const head = "POST /webhooks/acme/flow HTTP/1.1\r\nHost: seal.example\r\nContent-Length: 500\r\n\r\n"
	for name, c := range map[string]struct {
		begins  string
		trickle bool // a byte each second
		after   time.Duration
	}{
		"headers that stop":   {head[:30], false, 5 * time.Second},
		"headers that drip":   {head[:30], true, 5 * time.Second},
		"a body that stops":   {head + "{", false, 10 * time.Second},
		"a body that drips":   {head + "{", true, 10 * time.Second},
		"nothing at all":      {"", false, 5 * time.Second},
		"a body never begins": {head, false, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, inbox, taken := connectortest.NewPipe("public"), &keptAll{}, &atomic.Int64{}
				sender := &web.Sender{Tenant: "acme", Source: config.PushFlow, Path: "/webhooks/acme/flow", MaxBody: 1 << 10, Answer: accepted,
					Read: func([]byte, deal.Account) (web.Pushed, error) { taken.Add(1); return web.Pushed{}, nil }}
				d := &service{house: &house{cfg: &config.Config{}}, log: slog.New(slog.DiscardHandler), public: p}
				d.ingress = &web.Ingress{Senders: func() map[string][]*web.Sender { return map[string][]*web.Sender{sender.Path: {sender}} }, URL: "https://seal.example", Inbox: inbox, Now: time.Now, Log: d.log,
					Account: func(deal.TenantID) (deal.Account, bool) { return deal.Account{}, false }, Wake: func(deal.TenantID, ...deal.Ref) bool { return true }}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- d.servePublic(ctx) }()
				conn, err := p.Dial(ctx)
				must(t, err)
				began := time.Now()
				var writer sync.WaitGroup
				writer.Go(func() {
					_, err := io.WriteString(conn, c.begins)
					for err == nil && c.trickle {
						time.Sleep(time.Second) // of the bubble's clock, so nobody waits: a byte each second is what a slow sender does
						_, err = io.WriteString(conn, "x")
					}
				})
				answer, _ := io.ReadAll(conn) // to its end: the connection is closed
				if took := time.Since(began); took < c.after || took > c.after+time.Second {
					t.Errorf("it is cut off after %s, want %s", took, c.after)
				}
				if status, _, _ := strings.Cut(string(answer), "\r\n"); strings.Contains(status, " 2") || inbox.n.Load() != 0 || taken.Load() != 0 {
					t.Errorf("it is answered %q, and %d were kept", status, inbox.n.Load())
				}
				if strings.Contains(string(answer), "acme") {
					t.Errorf("it is told %s", answer)
				}
				conn.Close()
				writer.Wait()
				stop()
				if err := <-ended; err != nil {
					t.Error(fmt.Errorf("the listener ends with %w", err))
				}
			})
		})
	}
}
