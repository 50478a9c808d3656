package salesforce

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

const testChannel = "/data/OpportunityChangeEvent"

// notebook is a connectors.Memory.
type notebook struct {
	mu      sync.Mutex
	values  map[string][]byte
	version map[string]int64
}

func newNotebook() *notebook {
	return &notebook{values: map[string][]byte{}, version: map[string]int64{}}
}

func (n *notebook) Get(_ context.Context, key string) ([]byte, int64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.values[key], n.version[key], nil
}

func (n *notebook) Put(_ context.Context, key string, value []byte, version int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.version[key] != version {
		return deal.ErrStale
	}
	n.values[key] = value
	n.version[key]++
	return nil
}

// ear is a daemon that listens with one connector after the other, all with the same memory.
type ear struct {
	*world
	memory *notebook
	log    *slog.Logger

	heard     chan deal.Heard
	connected chan struct{}
	lost      chan struct{}
	refuse    func(deal.Heard) error // nil: everything is taken
	stop      context.CancelFunc
	ended     chan error
}

func newEar(t testing.TB) *ear {
	return &ear{world: newWorld(t, ""), memory: newNotebook(), log: slog.New(slog.DiscardHandler)}
}

func (e *ear) account() deal.Account { return deal.Account{Kind: deal.Salesforce, ID: e.org.ID()} }

func (e *ear) listening() *Connector {
	cfg := e.config()
	cfg.ChangeEvents = testChannel
	c, err := New(cfg, Deps{Log: e.log, Now: e.Now, Memory: e.memory})
	e.must(err)
	e.t.Cleanup(c.Retire)
	return c
}

// begin listens and waits until the org has taken the subscription.
func (e *ear) begin() {
	e.t.Helper()
	e.start(e.listening())
	e.awaitStreams(1)
}

func (e *ear) start(c *Connector) {
	ctx, stop := context.WithCancel(e.t.Context())
	e.stop, e.ended = stop, make(chan error, 1)
	e.heard, e.connected, e.lost = make(chan deal.Heard, 100), make(chan struct{}, 10), make(chan struct{}, 10)
	go func() {
		e.ended <- c.Wake(ctx, e.account(), connectors.Listener{
			Connected: func() { e.connected <- struct{}{} },
			Heard: func(_ context.Context, h deal.Heard) error {
				if e.refuse != nil {
					if err := e.refuse(h); err != nil {
						return err
					}
				}
				e.heard <- h
				return nil
			},
			Lost: func() { e.lost <- struct{}{} },
		})
	}()
}

func (e *ear) awaitStreams(n int) {
	e.t.Helper()
	for deadline := time.Now().Add(time.Minute); e.org.EventStreams() != n; time.Sleep(time.Millisecond) {
		select {
		case err := <-e.ended:
			e.t.Fatalf("it has ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("%d streams are open, want %d", e.org.EventStreams(), n)
		}
	}
}

// end stops listening and returns why it has ended.
func (e *ear) end() error {
	e.t.Helper()
	e.stop()
	err := e.awaitEnd()
	e.awaitStreams(0)
	return err
}

func (e *ear) awaitEnd() error {
	e.t.Helper()
	select {
	case err := <-e.ended:
		return err
	case <-time.After(time.Minute):
		e.t.Fatal("it does not end")
		return nil
	}
}

// next is the next thing that was told, without what only says that somebody is there.
func (e *ear) next() deal.Heard {
	e.t.Helper()
	for {
		select {
		case h := <-e.heard:
			if h.N > 0 {
				return h
			}
		case err := <-e.ended:
			e.t.Fatalf("it has ended: %v", err)
		case <-time.After(time.Minute):
			e.t.Fatal("nothing was told")
		}
	}
}

// woken are the records that the next n events wake for.
func (e *ear) woken(n int) (ids []string) {
	e.t.Helper()
	for n > 0 {
		h := e.next()
		n -= h.N
		for _, p := range h.Events {
			ids = append(ids, p.Ref.ID)
		}
	}
	return ids
}

func TestAChangeOfTheStageWakes(t *testing.T) {
	e := newEar(t)
	early := e.CreateDeals(1, "Prospecting")[0]
	e.begin()
	e.Move(early, "Closed Won")
	h := e.next()
	if len(h.Events) != 1 || h.Events[0].Ref != (deal.Ref{Object: Object, ID: early}) || !h.Events[0].Wakes || h.Events[0].Key == "" || h.All || !h.At.Equal(e.Now()) {
		t.Errorf("it tells %+v", h)
	}
	select {
	case <-e.connected:
	case <-time.After(time.Minute):
		t.Error("it does not say that it is connected")
	}
	e.SetAmount(early, "7")
	if ids := e.woken(1); ids != nil {
		t.Errorf("an amount wakes %v", ids)
	}
	made := e.CreateDeals(2, "Closed Won")
	if ids := e.woken(2); !slices.Equal(ids, made) {
		t.Errorf("new deals wake %v, want %v", ids, made)
	}
	e.Delete(made[0])
	if ids := e.woken(1); ids != nil {
		t.Errorf("a deletion wakes %v", ids)
	}
	if err := e.end(); !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	e.awaitStreams(0)
}

// What was told while nobody listened is told after a restart; what was taken is not told again.
func TestListeningGoesOnWhereItStopped(t *testing.T) {
	e := newEar(t)
	ids := e.CreateDeals(3, "Prospecting")
	e.begin()
	e.Move(ids[0], "Closed Won")
	e.woken(1)
	e.end()
	e.Move(ids[1], "Closed Won")
	e.begin()
	if woken := e.woken(1); !slices.Equal(woken, ids[1:2]) {
		t.Errorf("after a restart it wakes for %v", woken)
	}
	e.end()
	trouble := errors.New("the disk is full")
	e.refuse = func(h deal.Heard) error {
		if h.N > 0 {
			return trouble
		}
		return nil
	}
	e.begin()
	e.Move(ids[2], "Closed Won")
	if err := e.awaitEnd(); !errors.Is(err, trouble) {
		t.Errorf("what could not be kept ends it with %v", err)
	}
	e.refuse = nil
	e.begin()
	if woken := e.woken(1); !slices.Equal(woken, ids[2:]) {
		t.Errorf("what could not be kept is told again as %v", woken)
	}
	e.end()
}

func TestAPlaceThatIsTooOldHasEverythingLookedAt(t *testing.T) {
	e := newEar(t)
	ids := e.CreateDeals(2, "Prospecting")
	e.begin()
	e.Move(ids[0], "Closed Won")
	e.woken(1)
	e.end()
	e.org.SpoilEvents(mock.EventFaults{Expire: true})
	e.Move(ids[1], "Closed Won")
	e.begin()
	if woken := e.woken(1); !slices.Equal(woken, ids[1:]) {
		t.Errorf("from the oldest that is kept it wakes for %v", woken)
	}
	select {
	case <-e.lost:
	default:
		t.Error("it does not say that something may be lost")
	}
	e.end()
	e.begin() // the new place is good
	e.end()
	if len(e.lost) > 0 {
		t.Error("it is lost again")
	}
	key := "change events of " + e.org.ID() + " " + testChannel
	if e.memory.values[key] == nil {
		t.Fatal("no place was kept")
	}
	e.memory.values[key] = []byte(`{"from":"AAE="}`)
	e.begin()
	if len(e.lost) != 1 {
		t.Error("a corrupted place is not lost")
	}
	e.end()
}

func TestGapsOverflowsAndEchoes(t *testing.T) {
	e := newEar(t)
	ids := e.CreateDeals(3, "Prospecting")
	c := e.listening()
	e.start(c)
	e.awaitStreams(1)
	e.org.SpoilEvents(mock.EventFaults{Gap: 1})
	e.SetAmount(ids[0], "9")
	if woken := e.woken(1); !slices.Equal(woken, ids[:1]) {
		t.Errorf("a gap wakes for %v", woken)
	}
	e.org.SpoilEvents(mock.EventFaults{Overflow: true})
	if h := e.next(); !h.All || len(h.Events) > 0 {
		t.Errorf("an overflow tells %+v", h)
	}
	e.org.SpoilEvents(mock.EventFaults{Gap: 1})
	e.must(c.WriteBack(e.t.Context(), deal.Ref{Object: Object, ID: ids[1]}, deal.Receipt{Tx: testTx, Sequence: 1, Fields: []deal.Field{{Name: "DealSeal_Transaction_ID__c", Value: string(testTx)}}}))
	if woken := e.woken(1); woken != nil {
		t.Errorf("our own write wakes for %v", woken)
	}
	e.Move(ids[2], "Closed Won")
	first := e.next()
	e.org.SpoilEvents(mock.EventFaults{Repeat: 1})
	again := e.next()
	if len(again.Events) != 1 || again.Events[0].Ref != first.Events[0].Ref {
		t.Errorf("it tells %v, and again %v", first.Events, again.Events)
	}
	e.end()
}

func TestListeningEndsWithAReason(t *testing.T) {
	e := newEar(t)
	e.begin()
	e.org.SpoilEvents(mock.EventFaults{Cut: true})
	if err := e.awaitEnd(); err == nil || deal.IsPermanent(err) || !strings.Contains(err.Error(), "unavailable service.unavailable") {
		t.Errorf("a cut ends it with %v", err)
	}
	e.org.SpoilEvents(mock.EventFaults{Off: true})
	e.start(e.listening())
	if err := e.awaitEnd(); !deal.IsPermanent(err) || !strings.Contains(err.Error(), "Change Data Capture") {
		t.Errorf("a channel that is not there: %v", err)
	}
	e.org.SpoilEvents(mock.EventFaults{On: true})

	c := e.listening()
	e.must(c.Reach(t.Context(), e.account()))
	e.org.KillSessions()
	err := c.Reach(t.Context(), e.account())
	if !connectors.IsLogin(err) || deal.IsPermanent(err) || connectors.LoginTrouble(err) != connectors.LoginExpired {
		t.Errorf("an ended session: %v", err)
	}
	e.must(c.Reach(t.Context(), e.account())) // with a new one

	silent := httptest.NewServer(nil)
	silent.Close()
	cfg := e.config()
	cfg.ChangeEvents, cfg.PubSubURL = testChannel, silent.URL
	gone, err := New(cfg, Deps{})
	e.must(err)
	if err := gone.Reach(t.Context(), e.account()); err == nil || deal.IsPermanent(err) || strings.Contains(err.Error(), silent.URL) {
		t.Errorf("nobody there: %v", err)
	}
	if quiet := e.connector(e.log); quiet.Wakes() {
		t.Error("without a channel it listens")
	}
}

// More events than may be on their way at once.
func TestAllOfManyEventsAreHeard(t *testing.T) {
	e := newEar(t)
	e.begin()
	const n = 3*mostWanted + 7
	e.CreateDeals(n, "Closed Won")
	if woken := e.woken(n); len(woken) != n {
		t.Errorf("%d of %d were told", len(woken), n)
	}
	e.end()
}

func TestWhatAnEventMeans(t *testing.T) {
	const ours, theirs = "com/salesforce/api/rest/66.0;client=dealseal", "com/salesforce/api/rest/66.0;client=dealseal2"
	for name, c := range map[string]struct {
		h          changeHeader
		stage      int
		wakes, all bool
	}{
		"another object":                {changeHeader{entity: "Account", kind: "CREATE"}, 2, false, false},
		"the stage":                     {changeHeader{kind: "UPDATE", changed: []string{"0x14"}}, 2, true, false},
		"the stage among inner fields":  {changeHeader{kind: "UPDATE", changed: []string{"0x14", "4-0x10"}}, 2, true, false},
		"another field":                 {changeHeader{kind: "UPDATE", changed: []string{"0x10"}}, 2, false, false},
		"inner fields only":             {changeHeader{kind: "UPDATE", changed: []string{"2-0x10"}}, 2, false, false},
		"far behind":                    {changeHeader{kind: "UPDATE", changed: []string{"0x650004E0"}}, 30, true, false},
		"no such position":              {changeHeader{kind: "UPDATE", changed: []string{"0x650004E0"}}, 300, false, false},
		"a bitmap that is none":         {changeHeader{kind: "UPDATE", changed: []string{"0xZZ"}}, 2, true, false},
		"no bitmap":                     {changeHeader{kind: "UPDATE"}, 2, true, false},
		"no bitmap, and ours":           {changeHeader{kind: "UPDATE", origin: ours}, 2, false, false},
		"a stage that the user may see": {changeHeader{kind: "UPDATE", changed: []string{"0x10"}}, -1, true, false},
		"their automation, in ours":     {changeHeader{kind: "UPDATE", origin: ours, changed: []string{"0x14"}}, 2, true, false},
		"a gap":                         {changeHeader{kind: "GAP_UPDATE", origin: theirs}, 2, true, false},
		"a gap of ours":                 {changeHeader{kind: "GAP_UPDATE", origin: ours}, 2, false, false},
		"a gap of a deletion":           {changeHeader{kind: "GAP_DELETE"}, 2, false, false},
		"an overflow":                   {changeHeader{kind: "GAP_OVERFLOW"}, 2, false, true},
		"what nobody knows":             {changeHeader{kind: "GAP_MERGE"}, 2, false, true},
	} {
		if c.h.entity == "" {
			c.h.entity = Object
		}
		if wakes, all := c.h.means(c.stage); wakes != c.wakes || all != c.all {
			t.Errorf("%s: wakes %v, all %v", name, wakes, all)
		}
	}
}

func TestChannelsAndAddresses(t *testing.T) {
	base := Config{MyDomain: "https://acme.my.salesforce.com", Auth: Auth{Flow: FlowClientCredentials, ConsumerKey: "k", ClientSecret: secretFile(t, "s")}}
	for _, c := range []struct{ channel, url, wrong string }{
		{"", "", ""}, {testChannel, "", ""}, {"/data/Deals__chn", "https://api.deu.pubsub.salesforce.com:7443/", ""},
		{"", "https://api.pubsub.salesforce.com:7443", "pubsub_url: is for change_events"},
		{"OpportunityChangeEvent", "", "change_events: "}, {"/data/OrderChangeEvent", "", "tells of no opportunities"}, {"/topic/x", "", "change_events: "},
		{testChannel, "http://api.pubsub.salesforce.com", "pubsub_url: "}, {testChannel, "api.pubsub.salesforce.com:7443", "pubsub_url: "},
	} {
		cfg := base
		cfg.ChangeEvents, cfg.PubSubURL = c.channel, c.url
		cfg = cfg.withDefaults()
		err := cfg.Validate()
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%q at %q: %v", c.channel, c.url, err)
		}
		if c.channel == testChannel && c.url == "" && cfg.PubSubURL != publicPubSub {
			t.Errorf("events are at %q", cfg.PubSubURL)
		}
	}
}

// Nothing of a token, an address or a record reaches the log.
func TestListeningTellsTheLogNothing(t *testing.T) {
	e := newEar(t)
	var b strings.Builder
	var mu sync.Mutex
	e.log = slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return b.Write(p)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	id := e.CreateDeals(1, "Prospecting")[0]
	e.begin()
	e.must(e.org.Update(id, map[string]any{"Name": "Hidden name", "StageName": "Closed Won"}))
	e.woken(1)
	e.org.SpoilEvents(mock.EventFaults{Expire: true, Cut: true})
	e.awaitEnd()
	e.org.KillSessions()
	e.start(e.listening())
	e.awaitStreams(1)
	e.end()
	mu.Lock()
	defer mu.Unlock()
	for _, hidden := range []string{"Hidden name", e.org.ID()[:15] + "!", testSecret, "rpcId"} {
		if strings.Contains(b.String(), hidden) {
			t.Errorf("the log holds %.10q…:\n%s", hidden, b.String())
		}
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

var _ io.Writer = writer(nil)

func TestTheStreamsMessages(t *testing.T) {
	var got fetchResponse
	if err := got.decode(nil); err != nil || !cmp.Equal(got, fetchResponse{}, cmp.AllowUnexported(fetchResponse{}, busEvent{})) {
		t.Errorf("an empty message: %+v, %v", got, err)
	}
	long := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), make([]byte, maxReplay+1))
	of := func(event []byte) string {
		return string(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), event))
	}
	for name, bad := range map[string]string{"cut": "\x0a", "cut inside": "\x0a\x05ab", "no number": "\x08", "no tag": "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "an event that is cut": "\x0a\x02\x0a\x05",
		"more events than anybody asked for": strings.Repeat(of(nil), mostEvents+1), "a place that is too long": string(long), "an event's place that is too long": of(long)} {
		if err := new(fetchResponse).decode([]byte(bad)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// TestWhatWasReadOutlivesTheNextMessage does as connect does, which reads all messages into the same bytes.
func TestWhatWasReadOutlivesTheNextMessage(t *testing.T) {
	place := []byte("a place")
	wire := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), place)
	var got fetchResponse
	if err := (codec{}).Unmarshal(wire, &got); err != nil {
		t.Fatal(err)
	}
	clear(wire)
	if !bytes.Equal(got.latest, place) {
		t.Errorf("the place has become %q", got.latest)
	}
}
