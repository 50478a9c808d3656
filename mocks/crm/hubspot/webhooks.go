package hubspot

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Webhooks are the subscriptions of an app and what goes wrong with them.
type Webhooks struct {
	// TargetURL is where they are posted to, and what is signed of the address.
	TargetURL string `json:"targetUrl"`
	// Secret is the app's client secret.
	Secret string `json:"secret"`
	// Properties are those of deals that are told of; nil means dealstage.
	Properties []string `json:"properties,omitempty"`
	// Objects makes the newer form of events: object.propertyChange instead of deal.propertyChange.
	Objects bool `json:"objects,omitempty"`
	// LoseEvery loses each n-th request for good, as after ten attempts. 0 loses none.
	LoseEvery int `json:"loseEvery,omitempty"`
	// Double posts everything twice, Reverse what waits in the wrong order.
	Double  bool `json:"double,omitempty"`
	Reverse bool `json:"reverse,omitempty"`
	// Backoff is the wait before the second attempt, doubled each time; HubSpot spreads ten over a day. 0 means 50 ms.
	Backoff time.Duration `json:"-"`
	// Client posts; nil means one with HubSpot's limit of 5 s that follows no redirect.
	Client *http.Client `json:"-"`
}

// Delivery is one attempt.
type Delivery struct {
	Attempt int             `json:"attempt"`
	Status  int             `json:"status"` // 0 when there was no answer
	Took    time.Duration   `json:"took"`
	Body    json.RawMessage `json:"body"`
}

// mostAttempts is how often a request is posted in all.
const mostAttempts = 11

// webhooks is the sender of one portal.
type webhooks struct {
	mu       sync.Mutex
	set      Webhooks
	of       map[string][]string // the properties that are told of, by the type of their records
	changes  bool                // tell of changes alone, and not of new records
	events   []webhookEvent
	eventID  int64
	requests int // made so far
	log      []Delivery
	ready    chan struct{}
	pending  sync.WaitGroup // requests that are to be posted again
}

type webhookEvent struct {
	EventID          int64  `json:"eventId"`
	SubscriptionID   int64  `json:"subscriptionId"`
	PortalID         int64  `json:"portalId"`
	AppID            int64  `json:"appId"`
	OccurredAt       int64  `json:"occurredAt"`
	SubscriptionType string `json:"subscriptionType"`
	AttemptNumber    int    `json:"attemptNumber"`
	ObjectID         int64  `json:"objectId"`
	ObjectTypeID     string `json:"objectTypeId,omitempty"`
	PropertyName     string `json:"propertyName,omitempty"`
	PropertyValue    string `json:"propertyValue,omitempty"`
	ChangeSource     string `json:"changeSource"`
	SourceID         string `json:"sourceId,omitempty"`
	ChangeFlag       string `json:"changeFlag,omitempty"`
}

// SetWebhooks puts other subscriptions in place; without a TargetURL nothing is told. Events wait until [Portal.Deliver]
// runs.
func (p *Portal) SetWebhooks(w Webhooks) error {
	if w.TargetURL != "" && w.Secret == "" {
		return errors.New("hubspot: webhooks need the app's secret")
	}
	if w.Properties == nil {
		w.Properties = []string{"dealstage"}
	}
	if w.Backoff == 0 {
		w.Backoff = 50 * time.Millisecond
	}
	if w.Client == nil {
		w.Client = &http.Client{Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	p.hooks.mu.Lock()
	defer p.hooks.mu.Unlock()
	p.hooks.set, p.hooks.of, p.hooks.changes = w, map[string][]string{"deals": w.Properties}, false
	return nil
}

// DefineWebhooks is SetWebhooks with the address and the subscriptions of a project's file (…-hsmeta.json).
func (p *Portal) DefineWebhooks(definition []byte, w Webhooks) error {
	var d struct {
		Type   string
		Config struct {
			Settings      struct{ TargetURL string }
			Subscriptions struct {
				CRMObjects []struct {
					SubscriptionType, ObjectType, PropertyName string
					Active                                     bool
				}
			}
		}
	}
	if err := json.Unmarshal(definition, &d); err != nil {
		return fmt.Errorf("hubspot: the webhooks' definition: %w", err)
	}
	of := map[string][]string{}
	for _, s := range d.Config.Subscriptions.CRMObjects {
		t := p.objects[s.ObjectType]
		if t == nil || s.ObjectType != t.singular || s.SubscriptionType != "object.propertyChange" || !s.Active {
			return fmt.Errorf("hubspot: no subscription to %s of %q", s.SubscriptionType, s.ObjectType)
		}
		if _, ok := t.property(s.PropertyName); !ok {
			return fmt.Errorf("hubspot: %s have no property %q", t.plural, s.PropertyName)
		}
		of[t.plural] = append(of[t.plural], s.PropertyName)
	}
	if d.Type != "webhooks" || len(of) == 0 {
		return errors.New("hubspot: it subscribes to nothing")
	}
	w.TargetURL, w.Objects = d.Config.Settings.TargetURL, true
	if err := p.SetWebhooks(w); err != nil {
		return err
	}
	p.hooks.mu.Lock()
	defer p.hooks.mu.Unlock()
	p.hooks.of, p.hooks.changes = of, true
	return nil
}

// Deliveries returns what was posted, oldest first.
func (p *Portal) Deliveries() []Delivery {
	p.hooks.mu.Lock()
	defer p.hooks.mu.Unlock()
	return slices.Clone(p.hooks.log)
}

// announce puts an event of a record into the line. It is called with the portal locked.
func (p *Portal) announce(r *record, what, property, value string, by Source, at time.Time) {
	h := &p.hooks
	h.mu.Lock()
	defer h.mu.Unlock()
	properties, told := h.of[r.typ.plural]
	if h.set.TargetURL == "" || !told || what != "propertyChange" && h.changes || property != "" && !slices.Contains(properties, property) {
		return
	}
	h.eventID++
	e := webhookEvent{EventID: h.eventID, SubscriptionID: 22, PortalID: p.opt.PortalID, AppID: 1160452, OccurredAt: at.UnixMilli(), SubscriptionType: "deal." + what,
		ObjectID: r.id, PropertyName: property, PropertyValue: value, ChangeSource: by.Type, SourceID: by.ID}
	if what == "creation" {
		e.ChangeFlag = "NEW"
	}
	if h.set.Objects {
		e.SubscriptionType, e.ObjectTypeID = "object."+what, r.typ.id
	}
	h.events = append(h.events, e)
	select {
	case h.ready <- struct{}{}:
	default:
	}
}

// Deliver posts what happens until ctx ends.
func (p *Portal) Deliver(ctx context.Context) {
	defer p.hooks.pending.Wait()
	for {
		for _, events := range p.hooks.next() {
			p.hooks.post(ctx, events)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.hooks.ready:
		}
	}
}

// next takes what waits, in requests of at most 100 events.
func (h *webhooks) next() (requests [][]webhookEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.set.Reverse {
		slices.Reverse(h.events)
	}
	for chunk := range slices.Chunk(h.events, 100) {
		h.requests++
		if h.set.LoseEvery > 0 && h.requests%h.set.LoseEvery == 0 {
			continue
		}
		requests = append(requests, chunk)
		if h.set.Double {
			requests = append(requests, slices.Clone(chunk))
		}
	}
	h.events = nil
	return requests
}

// post makes the first attempt at once and leaves the others to a goroutine.
func (h *webhooks) post(ctx context.Context, events []webhookEvent) {
	if h.attempt(ctx, events) {
		return
	}
	h.pending.Go(func() {
		h.mu.Lock()
		wait := h.set.Backoff
		h.mu.Unlock()
		for n := 1; n < mostAttempts; n++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait *= 2
			for i := range events {
				events[i].AttemptNumber = n
			}
			if h.attempt(ctx, events) {
				return
			}
		}
	})
}

func (h *webhooks) attempt(ctx context.Context, events []webhookEvent) (done bool) {
	h.mu.Lock()
	set := h.set
	h.mu.Unlock()
	body, err := json.Marshal(events)
	if err != nil {
		panic(err) // of plain structs
	}
	began := time.Now()
	status := Post(ctx, set.Client, set.TargetURL, set.Secret, body, began)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, Delivery{Attempt: events[0].AttemptNumber, Status: status, Took: time.Since(began), Body: body})
	if len(h.log) > 10_000 {
		h.log = slices.Delete(h.log, 0, 1000)
	}
	return status/100 == 2
}

// Post posts a body with HubSpot's signature of the third form, and returns the status of the answer, 0 without one.
func Post(ctx context.Context, client *http.Client, target, secret string, body []byte, at time.Time) (status int) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	Sign(r, target, secret, body, at)
	resp, err := client.Do(r)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode
}

// Sign sets the headers that HubSpot signs a request to an app with.
func Sign(r *http.Request, target, secret string, body []byte, at time.Time) {
	millis := strconv.FormatInt(at.UnixMilli(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	io.WriteString(mac, r.Method+decodeSigned(target))
	mac.Write(body)
	io.WriteString(mac, millis)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "HubSpot Webhooks")
	r.Header.Set("X-HubSpot-Request-Timestamp", millis)
	r.Header.Set("X-HubSpot-Signature-v3", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// decodeSigned undoes the escapes that HubSpot documents for the signed address.
func decodeSigned(target string) string {
	for _, c := range ":/?@!$'()*,;" {
		target = strings.ReplaceAll(target, "%"+strings.ToUpper(strconv.FormatInt(int64(c), 16)), string(c))
	}
	return target
}
