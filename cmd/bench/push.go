package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

const (
	pushDeals = 25               // per CRM, one after the other
	pushPoll  = 10 * time.Minute // whatever is seen earlier was pushed
)

// push takes one deal after the other the whole way, in both CRMs, with a push as the only thing that tells of it.
func (b *bench) push() error {
	s, err := b.newStageIn(scene{Tenants: []sceneTenant{{"acme", "salesforce"}, {"contoso", "hubspot"}}, Poll: pushPoll, Push: true}, seedOptions{})
	if err != nil {
		return err
	}
	defer s.close()
	to, err := s.address(sendersLine)
	if err != nil {
		return err
	}
	told := map[string]map[string]time.Time{}
	for _, t := range s.scene.Tenants {
		if told[t.ID], err = s.pushOneByOne(t.ID, to); err != nil {
			return err
		}
	}
	if err := s.stop(true); err != nil {
		return err
	}
	for _, t := range s.scene.Tenants {
		all, err := s.sealed(t.ID)
		if err != nil {
			return err
		}
		var took sample
		for _, sl := range all[1:] { // the first starts the children
			took = append(took, sl.Facts.Times[deal.Reported].Sub(told[t.ID][sl.Change.Ref.ID]))
		}
		b.figure(kindName(t.Kind)+", push sent to fields written, p95", ms(took.quantile(0.95)), "ms", atMost(1000), "p50 %s ms; %d order forms, one after the other, polled every %s",
			short(ms(took.quantile(0.5))), len(took), pushPoll)
	}
	return nil
}

// pushOneByOne returns when each record was pushed.
func (s *stage) pushOneByOne(tenant, to string) (told map[string]time.Time, err error) {
	if err := s.wait(time.Minute, soon, "polling", func() (bool, error) {
		by, err := s.calls(tenant)
		return by[pollCall] > 0, err
	}); err != nil {
		return nil, err
	}
	if err := s.open(tenant, ruleOrderForm, dealLines, pushDeals); err != nil {
		return nil, err
	}
	for i := range pushDeals {
		var got int
		if err := s.order("POST", "/close", url.Values{"tenant": {tenant}, "n": {"1"}, "push": {to}}, &got); err != nil {
			return nil, err
		}
		if err := s.waitDone(tenant, i+1, time.Minute, soon); err != nil {
			return nil, err
		}
	}
	return told, s.order("GET", "/pushed", url.Values{"tenant": {tenant}}, &told)
}

// publicURL is what senders are told; the daemon answers on a port of this machine, as behind a proxy.
const publicURL = "https://seal.example.com"

// sender pushes what happens in a CRM.
type sender struct {
	configured string // as in a tenant's file
	path       string
	dialect    *webhooks.Dialect
	secret     secret.Secret
	body       func(record string) []byte
	client     *http.Client
	told       map[string]time.Time // when a push of a record was sent
	pushes     atomic.Int64
}

// stormConnections are open while many pushes are sent.
const stormConnections = 64

func (w *world) newSender(t sceneTenant) (*sender, error) {
	key := rand.Text()
	file := w.path(t.ID + "-push")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		return nil, err
	}
	s := &sender{secret: secret.New([]byte(key)), told: map[string]time.Time{}, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: stormConnections}}}
	source, dialect := "salesforce-flow", "standard-webhooks"
	s.body = func(record string) []byte { return fmt.Appendf(nil, `{"recordId": %q}`, record) }
	if t.Kind == "hubspot" {
		source, dialect = "hubspot", "hubspot"
		s.body = func(record string) []byte {
			return fmt.Appendf(nil, `[{"eventId": %d, "subscriptionId": 1, "portalId": 62515, "appId": 1, "occurredAt": %d, "subscriptionType": "deal.propertyChange", "attemptNumber": 0, "objectId": %s, "propertyName": "dealstage", "propertyValue": "contractsent", "changeSource": "CRM_UI"}]`,
				s.pushes.Load(), time.Now().UnixMilli(), record)
		}
	}
	s.path, s.dialect = "/webhooks/"+t.ID+"/"+source, webhooks.Find(dialect)
	s.configured = fmt.Sprintf("{source: %s, dialect: %s, secrets: [%q]}", source, dialect, "file:"+file)
	return s, nil
}

// tell pushes a record once.
func (s *sender) tell(ctx context.Context, to, record string) error {
	s.told[record] = time.Now().UTC()
	status, err := s.post(ctx, to, record)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("a push is answered %d", status)
	}
	return err
}

func (s *sender) post(ctx context.Context, to, record string) (status int, err error) {
	id := "bench-" + strconv.FormatInt(s.pushes.Add(1), 10)
	r := webhooks.Request{Method: "POST", URL: publicURL + s.path, Header: http.Header{"Content-Type": {"application/json"}}, Body: s.body(record)}
	if err := s.dialect.Sign(r, id, time.Now(), s.secret); err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, to+s.path, bytes.NewReader(r.Body))
	if err != nil {
		return 0, err
	}
	req.Header = r.Header
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// stormed is what came of many pushes.
type stormed struct {
	Statuses map[int]int   `json:"statuses"`
	Took     sample        `json:"took"` // of each, from when it was to be sent
	Lasted   time.Duration `json:"lasted"`
}

// storm pushes another record each time, so many a second or, with rate 0, each as soon as a connection is free.
func (s *sender) storm(ctx context.Context, to string, rate int, lasts time.Duration) (out stormed, err error) {
	out.Statuses = map[int]int{}
	var next atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	begun := time.Now()
	for range stormConnections {
		all.Go(func() {
			for {
				n := next.Add(1) - 1
				due := time.Now()
				if rate > 0 {
					due = begun.Add(time.Duration(n) * time.Second / time.Duration(rate))
				}
				if due.Sub(begun) >= lasts {
					return
				}
				time.Sleep(time.Until(due)) // the pace of the load, which is what the answers are measured at
				status, failed := s.post(ctx, to, fmt.Sprintf("0065g00%08d", s.pushes.Load()%100_000_000))
				took := time.Since(due)
				mu.Lock()
				out.Statuses[status]++
				out.Took = append(out.Took, took)
				if failed != nil {
					err = failed
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	out.Lasted = time.Since(begun)
	return out, err
}
