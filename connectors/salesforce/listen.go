package salesforce

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// Change Data Capture tells of changes a moment after their commit. It is listened to over the Pub/Sub API and only wakes:
// what is sealed, and as which transaction, the stage history says. An event may be lost for good, and then a poll finds what
// it would have told.

const (
	// mostWanted is how many events the API lets a subscriber have on their way.
	mostWanted = 100
	// silence is after which time without a word the connection counts as dead: the API says something every 270 s.
	silence = 330 * time.Second
	// settled is how long a subscription must have lasted before it counts as one, if nothing was heard meanwhile: what the API
	// refuses, it refuses at once.
	settled = 5 * time.Second
	// savedEvery is how often the place in the stream is written down, if nothing has come that wakes.
	savedEvery = time.Minute
	saveLimit  = 5 * time.Second
	// mostSchemas are remembered. One changes when somebody changes the object.
	mostSchemas = 64
	// mostRecords is how many records one event names at most; what names more is looked for as a whole.
	mostRecords = 1000
)

// errSilence ends a stream.
var errSilence = errors.New("nothing was heard for too long")

// Wakes implements connectors.Waker.
func (c *Connector) Wakes() bool { return c.bus != nil }

// Reach implements connectors.Waker: two calls, which prove login, channel and rights.
func (c *Connector) Reach(ctx context.Context, account deal.Account) error {
	info, err := ask(ctx, c, account.ID, c.bus.topics, &topicRequest{topic: c.cfg.ChangeEvents})
	if err == nil && !info.mayHear {
		err = refuse("the integration user may not subscribe to %s: give it View All on Opportunity", c.cfg.ChangeEvents)
	}
	if err == nil && strings.HasSuffix(c.cfg.ChangeEvents, "/"+Object+"ChangeEvent") {
		_, err = c.eventSchema(ctx, account.ID, info.schema)
	}
	if err != nil {
		return fmt.Errorf("salesforce: ask for the change events: %w", err)
	}
	return nil
}

// Wake implements connectors.Waker.
func (c *Connector) Wake(ctx context.Context, account deal.Account, to connectors.Listener) error {
	if err := c.Reach(ctx, account); err != nil {
		return err
	}
	s := &stream{Connector: c, org: account.ID, to: to, key: "change events of " + account.ID + " " + c.cfg.ChangeEvents}
	if err := s.recall(ctx); err != nil {
		return fmt.Errorf("salesforce: where the change events were read up to: %w", err)
	}
	err := s.listen(ctx, s.place.From)
	if isLostPlace(err) && s.place.From != nil {
		// It is too old, or of another stream: what is still kept is told again, and what was lost is looked for.
		c.log.WarnContext(ctx, "the place in the stream of changes is not known any more: all that is kept is read again", "err", err)
		to.Lost()
		s.place.From = nil
		err = s.listen(ctx, []byte{})
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("salesforce: listen for changes: %w", err)
}

// stream is one subscription.
type stream struct {
	*Connector
	org, key string
	to       connectors.Listener

	place   place
	version int64
	saved   time.Time // when place was; only differences are used
	fresh   bool      // place is not written down yet
}

// place is what Memory keeps: the replay ID of the last event that was taken in. It is opaque.
type place struct {
	From []byte `json:"from"`
}

func (s *stream) recall(ctx context.Context) error {
	if s.memory == nil {
		return nil
	}
	value, version, err := s.memory.Get(ctx, s.key)
	if err != nil {
		return err
	}
	s.version = version
	if json.Unmarshal(value, &s.place) != nil {
		s.place = place{} // as if it had never been: it is a wake-up only
	}
	return nil
}

// listen subscribes from a place (nil: from now on; empty: from the oldest that is kept) until the stream ends.
func (s *stream) listen(ctx context.Context, from []byte) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	token, err := s.wire.session.get(ctx)
	if err != nil {
		return err
	}
	watch := time.AfterFunc(silence, func() { end(errSilence) })
	defer watch.Stop()
	proven := time.AfterFunc(settled, s.to.Connected)
	defer proven.Stop()
	conn := s.bus.subscribe.CallBidiStream(ctx)
	s.sign(conn.RequestHeader(), s.org, token)
	// While net/http waits for more of the request's body it does not see that ctx has ended.
	hangUp := context.AfterFunc(ctx, func() { _ = conn.CloseRequest() })
	defer func() {
		end(nil)
		hangUp()
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
	}()
	first := &fetchRequest{topic: s.cfg.ChangeEvents, want: mostWanted}
	if from != nil {
		first.preset = replayEarliest
		if len(from) > 0 {
			first.preset, first.replay = replayCustom, from
		}
	}
	defer func() {
		if err := s.save(context.WithoutCancel(ctx), true); err != nil {
			s.log.WarnContext(ctx, "how far the changes were heard could not be kept: some are told again", "err", err)
		}
	}()
	for want := first; ; {
		if want != nil {
			_ = conn.Send(want) // why it failed is what Receive says
		}
		m, err := conn.Receive()
		switch {
		case errors.Is(context.Cause(ctx), errSilence):
			return &Error{cause: errSilence}
		case err != nil:
			return s.busFailure(ctx, token, err)
		}
		watch.Reset(silence)
		if proven.Stop() {
			s.to.Connected()
		}
		if err := s.take(ctx, m); err != nil {
			return err
		}
		if want = nil; m.pending <= mostWanted/2 {
			want = &fetchRequest{topic: s.cfg.ChangeEvents, want: mostWanted - m.pending}
		}
	}
}

// take has the events of a response kept, and then remembers that they were.
func (s *stream) take(ctx context.Context, m *fetchResponse) error {
	h := deal.Heard{N: len(m.events)}
	for _, e := range m.events {
		if err := s.read(ctx, e, &h); err != nil {
			return err
		}
	}
	if err := s.to.Heard(ctx, h); err != nil {
		return err
	}
	if len(m.latest) > 0 {
		s.place.From, s.fresh = m.latest, true
	} else if n := len(m.events); n > 0 {
		s.place.From, s.fresh = m.events[n-1].replay, true
	}
	return s.save(ctx, len(h.Events) > 0 || h.All)
}

// save writes the place down, if it is time to or now.
func (s *stream) save(ctx context.Context, now bool) error {
	if s.memory == nil || !s.fresh || !now && !s.saved.IsZero() && time.Since(s.saved) < savedEvery {
		return nil
	}
	value, err := json.Marshal(s.place)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, saveLimit)
	defer cancel()
	if err := s.memory.Put(ctx, s.key, value, s.version); err != nil {
		return err
	}
	s.version++
	s.saved, s.fresh = time.Now(), false
	return nil
}

// read adds to h what an event wakes for. One that cannot be understood has everything looked at.
func (s *stream) read(ctx context.Context, e busEvent, h *deal.Heard) error {
	schema, err := s.eventSchema(ctx, s.org, e.schema)
	var own *Error
	if errors.As(err, &own) {
		return err // it could not be asked for: the place stays before the event
	}
	var header changeHeader
	if err == nil {
		if schema.object != Object {
			return nil
		}
		header, err = schema.readHeader(e.payload)
	}
	if err != nil {
		s.log.WarnContext(ctx, "a change event could not be understood: everything is looked at", "err", err)
		h.All = true
		return nil
	}
	if header.committed.After(h.At) {
		h.At = header.committed
	}
	switch wakes, all := header.means(schema.stage); {
	case all || len(header.records) > mostRecords:
		h.All = true
	case wakes:
		for i, id := range header.records {
			p := pushed(id)
			p.Key = hex.EncodeToString(e.replay) + " " + strconv.Itoa(i)
			if p.Wakes {
				h.Events = append(h.Events, p)
			}
		}
	}
	return nil
}

// means says whether the history of the records should be looked at, or everything. Our own writes are dropped by their
// origin, unless the stage was changed with them: then an automation of the org has answered them.
func (h changeHeader) means(stage int) (wakes, all bool) {
	if h.entity != Object {
		return false, false
	}
	switch h.kind {
	case "CREATE", "UNDELETE":
		return true, false
	case "UPDATE":
		moved, known := changedAt(h.changed, stage)
		return moved || !known && !h.own(), false
	case "GAP_CREATE", "GAP_UPDATE", "GAP_UNDELETE": // what has changed could not be told
		return !h.own(), false
	case "DELETE", "GAP_DELETE", "SNAPSHOT":
		return false, false
	}
	return false, true // GAP_OVERFLOW, and what we do not know
}

// own reports whether the origin, such as com/salesforce/api/rest/66.0;client=dealseal, is a call of ours.
func (h changeHeader) own() bool {
	for part := range strings.SplitSeq(h.origin, ";") {
		if part == "client="+clientName {
			return true
		}
	}
	return false
}

// eventSchema returns a schema, asking for it the first time.
func (c *Connector) eventSchema(ctx context.Context, org, id string) (*eventSchema, error) {
	c.schemasMu.Lock()
	known := c.schemas[id]
	c.schemasMu.Unlock()
	if known != nil {
		return known, nil
	}
	info, err := ask(ctx, c, org, c.bus.schemas, &schemaRequest{id: id})
	if err != nil {
		return nil, err
	}
	s, err := parseEventSchema(info.json)
	if err != nil {
		return nil, err
	}
	c.schemasMu.Lock()
	defer c.schemasMu.Unlock()
	if len(c.schemas) >= mostSchemas {
		clear(c.schemas)
	}
	c.schemas[id] = s
	return s, nil
}
