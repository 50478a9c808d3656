package salesforce

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Outbound is an outbound message on Opportunity: what a workflow or a Flow
// posts when a deal enters a stage.
type Outbound struct {
	Endpoint string `json:"endpoint"`
	// Stage is the one that must be entered; empty: any other than before.
	Stage string `json:"stage,omitempty"`
	// Double posts every message twice, as the real service may.
	Double bool `json:"double,omitempty"`
	// Backoff is the wait after the first attempt without an Ack, doubled each
	// time; 0: 50 ms. The real service tries for 24 hours, up to two hours apart.
	Backoff time.Duration `json:"-"`
	// Client posts; nil: one with a limit of 10 s.
	Client *http.Client `json:"-"`
}

// OutboundAttempt is one post of a message.
type OutboundAttempt struct {
	Notifications []string `json:"notifications"` // their IDs, the same in each attempt
	Attempt       int      `json:"attempt"`       // 1 is the first
	Status        int      `json:"status"`        // 0: no answer
	Ack           bool     `json:"ack"`
}

const (
	maxNotifications  = 100
	outboundAttempts  = 12
	outboundNamespace = "http://soap.sforce.com/2005/09/outbound"
)

// outbox is the sender of outbound messages.
type outbox struct {
	mu      sync.Mutex
	set     Outbound
	waiting []notification
	log     []OutboundAttempt
	ready   chan struct{}
	again   sync.WaitGroup // messages that are to be posted again
}

// notification names a record; its fields are read when it is sent.
type notification struct{ id, record string }

// SetOutbound puts a message in the place of the one before; without an
// endpoint nothing is sent. Notifications wait until Send runs.
func (o *Org) SetOutbound(m Outbound) {
	if m.Backoff == 0 {
		m.Backoff = 50 * time.Millisecond
	}
	if m.Client == nil {
		m.Client = &http.Client{Timeout: 10 * time.Second}
	}
	o.outbox.mu.Lock()
	defer o.outbox.mu.Unlock()
	o.outbox.set = m
}

// OutboundAttempts returns what was posted, oldest first.
func (o *Org) OutboundAttempts() []OutboundAttempt {
	o.outbox.mu.Lock()
	defer o.outbox.mu.Unlock()
	return slices.Clone(o.outbox.log)
}

// notify puts a message into the line for each record whose stage has changed.
func (t *tx) notify() {
	b := &t.o.outbox
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.set.Endpoint == "" {
		return
	}
	for _, c := range t.changes {
		stage := c.after["StageName"]
		if stage == c.before["StageName"] || b.set.Stage != "" && stage != b.set.Stage || c.after["IsDeleted"] == true {
			continue
		}
		b.waiting = append(b.waiting, notification{t.o.newID("04l"), c.row.id})
	}
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// Send posts outbound messages until ctx ends.
func (o *Org) Send(ctx context.Context) {
	defer o.outbox.again.Wait()
	for {
		b := &o.outbox
		b.mu.Lock()
		waiting := b.waiting
		b.waiting = nil
		b.mu.Unlock()
		for list := range slices.Chunk(waiting, maxNotifications) {
			o.sendUntilAcked(ctx, list)
		}
		select {
		case <-ctx.Done():
			return
		case <-b.ready:
		}
	}
}

// sendUntilAcked makes the first attempt at once and leaves the others to a
// goroutine, so that messages may overtake each other.
func (o *Org) sendUntilAcked(ctx context.Context, list []notification) {
	o.outbox.mu.Lock()
	set := o.outbox.set
	o.outbox.mu.Unlock()
	acked := o.attempt(ctx, set, list, 1)
	if set.Double {
		acked = o.attempt(ctx, set, list, 2) && acked
	}
	if acked {
		return
	}
	o.outbox.again.Go(func() {
		wait := set.Backoff
		for n := 2; n <= outboundAttempts; n++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			if wait *= 2; o.attempt(ctx, set, list, n) {
				return
			}
		}
	})
}

func (o *Org) attempt(ctx context.Context, set Outbound, list []notification, n int) (acked bool) {
	status, acked := postOutbound(ctx, set, o.outboundBody(list))
	entry := OutboundAttempt{Attempt: n, Status: status, Ack: acked}
	for _, one := range list {
		entry.Notifications = append(entry.Notifications, one.id)
	}
	o.outbox.mu.Lock()
	defer o.outbox.mu.Unlock()
	if len(o.outbox.log) == maxLog {
		o.outbox.log = slices.Delete(o.outbox.log, 0, maxLog/10)
	}
	o.outbox.log = append(o.outbox.log, entry)
	return acked
}

// outboundBody has the values of the moment at which it is sent.
func (o *Org) outboundBody(list []notification) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><notifications xmlns="%s"><OrganizationId>%s</OrganizationId><ActionId>%s</ActionId><SessionId xsi:nil="true"/><EnterpriseUrl>https://acme.my.salesforce.com/services/Soap/c/66.0</EnterpriseUrl><PartnerUrl>https://acme.my.salesforce.com/services/Soap/u/66.0</PartnerUrl>`,
		outboundNamespace, o.orgID, ID18("04kWs0000000001"))
	for _, n := range list {
		stage := ""
		if r, err := o.rowOf(n.record); err == nil {
			stage, _ = r.latest()["StageName"].(string)
		}
		fmt.Fprintf(&b, `<Notification><Id>%s</Id><sObject xsi:type="sf:Opportunity" xmlns:sf="urn:sobject.enterprise.soap.sforce.com"><sf:Id>%s</sf:Id><sf:StageName>`, n.id, n.record)
		_ = xml.EscapeText(&b, []byte(stage)) // a strings.Builder takes everything
		b.WriteString(`</sf:StageName></sObject></Notification>`)
	}
	b.WriteString(`</notifications></soapenv:Body></soapenv:Envelope>`)
	return b.String()
}

// postOutbound reports whether the answer has the Ack; anything else is posted again.
func postOutbound(ctx context.Context, set Outbound, body string) (status int, acked bool) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, set.Endpoint, strings.NewReader(body))
	if err != nil {
		return 0, false
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.Header.Set("SOAPAction", `""`)
	resp, err := set.Client.Do(r)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	answer, err := readAck(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, err == nil && resp.StatusCode == http.StatusOK && answer
}

func readAck(r io.Reader) (bool, error) {
	d := xml.NewDecoder(r)
	for {
		token, err := d.Token()
		if err != nil {
			return false, errors.New("no Ack")
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name != (xml.Name{Space: outboundNamespace, Local: "Ack"}) {
			continue
		}
		var ack bool
		err = d.DecodeElement(&ack, &start)
		return ack, err
	}
}
