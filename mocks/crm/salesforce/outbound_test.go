package salesforce

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAnOutboundMessageIsPostedUntilItIsAcked(t *testing.T) {
	o := New(Options{})
	answers := []struct {
		status int
		body   string
	}{{500, ""}, {200, "<x/>"}, {200, `<r xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>false</Ack></r>`}, {500, `<r xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></r>`},
		{200, `<r xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></r>`}}
	var mu sync.Mutex
	var bodies []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		n := min(len(bodies), len(answers)-1)
		bodies = append(bodies, string(body))
		w.WriteHeader(answers[n].status)
		io.WriteString(w, answers[n].body)
	}))
	defer s.Close()
	o.SetOutbound(Outbound{Endpoint: s.URL, Stage: "Closed Won", Backoff: time.Millisecond, Client: s.Client()})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); o.Send(ctx) }()
	id, err := o.CreateOpportunity(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, fields := range []map[string]any{{"Amount": 7.0}, {"StageName": "Closed Won"}, {"Amount": 8.0}} {
		if err := o.Update(id, fields); err != nil {
			t.Fatal(err)
		}
	}
	tick, late := time.NewTicker(time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for len(o.OutboundAttempts()) < len(answers) {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it is not posted again")
		}
	}
	stop()
	<-ended
	log := o.OutboundAttempts()
	if len(log) != len(answers) || !log[len(log)-1].Ack || slices.ContainsFunc(log[:len(log)-1], func(a OutboundAttempt) bool { return a.Ack }) {
		t.Fatalf("the attempts are %+v", log)
	}
	for i, a := range log {
		if a.Attempt != i+1 || !slices.Equal(a.Notifications, log[0].Notifications) || !strings.Contains(bodies[i], a.Notifications[0]) || !strings.Contains(bodies[i], id) || !strings.Contains(bodies[i], ">Closed Won<") {
			t.Errorf("attempt %d: %+v\n%s", i+1, a, bodies[i])
		}
	}
}
