package salesforce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// pubSubPath begins the paths of the gRPC service, which needs HTTP/2: over TLS,
// or without it where the server allows it.
const pubSubPath = "/eventbus.v1.PubSub/"

const (
	maxWanted       = 100
	eventTopic      = "/data/OpportunityChangeEvent"
	allEventsTopic  = "/data/ChangeEvents"
	defaultKeep     = 270 * time.Second
	unwantedLimit   = 70 * time.Second      // of a stream that asks for nothing
	visibilityCheck = 20 * time.Millisecond // of events that are not committed yet
)

// The messages of pubsub_api.proto, as far as they are used.
type (
	topicQuery  struct{ topic string }
	schemaQuery struct{ id string }
	fetch       struct {
		topic  string
		preset uint64
		replay []byte
		want   int
	}
	topicAnswer  struct{ topic, org, schema string }
	schemaAnswer struct{ json, id string }
	delivery     struct {
		events  []busEvent
		latest  uint64
		pending int
	}
)

func (m *topicQuery) read(b []byte) error {
	return fieldsOf(b, func(n protowire.Number, _ uint64, s []byte) {
		if n == 1 {
			m.topic = string(s)
		}
	})
}

func (m *schemaQuery) read(b []byte) error {
	return fieldsOf(b, func(n protowire.Number, _ uint64, s []byte) {
		if n == 1 {
			m.id = string(s)
		}
	})
}

func (m *fetch) read(b []byte) error {
	return fieldsOf(b, func(n protowire.Number, v uint64, s []byte) {
		switch n {
		case 1:
			m.topic = string(s)
		case 2:
			m.preset = v
		case 3:
			m.replay = slices.Clone(s)
		case 4:
			m.want = int(int32(v))
		}
	})
}

func (m *topicAnswer) write() []byte {
	b := field(nil, 1, []byte(m.topic))
	b = field(b, 2, []byte(m.org))
	b = number(b, 4, 1)
	b = field(b, 5, []byte(m.schema))
	return field(b, 6, []byte(rpcID()))
}

func (m *schemaAnswer) write() []byte {
	return field(field(field(nil, 1, []byte(m.json)), 2, []byte(m.id)), 3, []byte(rpcID()))
}

func (m *delivery) write() (b []byte) {
	for _, e := range m.events {
		producer := field(field(field(nil, 1, []byte(e.id)), 2, []byte(e.schema)), 3, e.payload)
		b = field(b, 1, field(field(nil, 1, producer), 2, replayID(e.replay)))
	}
	b = field(b, 2, replayID(m.latest))
	return number(field(b, 3, []byte(rpcID())), 4, uint64(m.pending))
}

func rpcID() string { return fmt.Sprintf("%08x-mock", time.Now().UnixNano()&0xffffffff) }

func field(b []byte, n protowire.Number, s []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func number(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func fieldsOf(b []byte, use func(n protowire.Number, v uint64, s []byte)) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var v uint64
		var s []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			s, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		use(n, v, s)
	}
	return nil
}

// wireCodec is protobuf for the messages above and for those of gRPC itself.
type wireCodec struct{}

func (wireCodec) Name() string { return "proto" }

func (wireCodec) Marshal(v any) ([]byte, error) {
	switch m := v.(type) {
	case interface{ write() []byte }:
		return m.write(), nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("salesforce mock: cannot send a %T", v)
}

func (wireCodec) Unmarshal(b []byte, v any) error {
	switch m := v.(type) {
	case interface{ read([]byte) error }:
		return m.read(b)
	case proto.Message:
		return proto.Unmarshal(b, m)
	}
	return fmt.Errorf("salesforce mock: cannot read a %T", v)
}

func (o *Org) pubSubHandler() http.Handler {
	mux, codec := http.NewServeMux(), connect.WithCodec(wireCodec{})
	mux.Handle(pubSubPath+"GetTopic", connect.NewUnaryHandler(pubSubPath+"GetTopic", o.getTopic, codec))
	mux.Handle(pubSubPath+"GetSchema", connect.NewUnaryHandler(pubSubPath+"GetSchema", o.getSchema, codec))
	mux.Handle(pubSubPath+"Subscribe", connect.NewBidiStreamHandler(pubSubPath+"Subscribe", o.subscribe, codec))
	return mux
}

// grpcError is a refusal with the API's own code in the trailer.
func grpcError(code connect.Code, name, message string) error {
	id := rpcID()
	e := connect.NewError(code, errors.New(message+" rpcId: "+id))
	e.Meta().Set("rpc-id", id)
	if name != "" {
		e.Meta().Set("error-code", "sfdc.platform.eventbus.grpc."+name)
	}
	return e
}

// mayCall checks the headers that every call bears.
func (o *Org) mayCall(h http.Header) error {
	if _, ok := o.useToken(h.Get("accesstoken")); !ok || h.Get("tenantid") != o.orgID || !strings.HasPrefix(h.Get("instanceurl"), "http") {
		return grpcError(connect.CodeUnauthenticated, "service.auth.error", "Authentication exception occurred. Make sure that provided accessToken, instanceUrl and tenantId are valid.")
	}
	return nil
}

func (o *Org) topicKnown(topic string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if (topic == eventTopic || topic == allEventsTopic) && !o.bus.off {
		return nil
	}
	return grpcError(connect.CodeNotFound, "topic.not.found", "The topic "+topic+" can't be found.")
}

func (o *Org) getTopic(_ context.Context, r *connect.Request[topicQuery]) (*connect.Response[topicAnswer], error) {
	if err := o.mayCall(r.Header()); err != nil {
		return nil, err
	}
	if err := o.topicKnown(r.Msg.topic); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return connect.NewResponse(&topicAnswer{topic: r.Msg.topic, org: o.orgID, schema: o.eventSchema().id}), nil
}

func (o *Org) getSchema(_ context.Context, r *connect.Request[schemaQuery]) (*connect.Response[schemaAnswer], error) {
	if err := o.mayCall(r.Header()); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.bus.schemas[r.Msg.id]
	if s == nil {
		return nil, grpcError(connect.CodeNotFound, "schema.not.found", "The schema can't be found.")
	}
	return connect.NewResponse(&schemaAnswer{json: s.json, id: s.id}), nil
}

// start is the replay ID after which a subscription begins.
func (o *Org) start(m *fetch) (after uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := &o.bus
	switch m.preset {
	case 1:
		return b.oldest - 1, nil
	case 2:
		if len(m.replay) != 8 {
			return 0, grpcError(connect.CodeInvalidArgument, "subscription.fetch.replayid.corrupted", "The Replay ID is corrupted.")
		}
		after = binary.BigEndian.Uint64(m.replay)
		if after < b.oldest-1 || after >= b.next {
			return 0, grpcError(connect.CodeInvalidArgument, "subscription.fetch.replayid.validation.failed", "The Replay ID validation failed. Ensure that the Replay ID is valid.")
		}
		return after, nil
	}
	return b.next - 1, nil
}

// due returns what may be sent after a replay ID: at most n events, the ID up
// to which there is nothing more, what is closed when that changes, and whether
// there are events that are not committed yet. An event that waits holds back
// those behind it.
func (o *Org) due(after uint64, n int) (events []busEvent, latest uint64, changed <-chan struct{}, waiting bool, cuts int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, now := &o.bus, o.now()
	latest = after
	for _, e := range b.events {
		if e.replay <= after {
			continue
		}
		if e.visible.After(now) {
			waiting = true
			break
		}
		if len(events) == n {
			break
		}
		events, latest = append(events, e), e.replay
	}
	return events, latest, b.changed, waiting, b.cuts
}

func (o *Org) streams(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bus.streams += n
}

// subscribe sends events for as long as some are asked for.
func (o *Org) subscribe(ctx context.Context, stream *connect.BidiStream[fetch, delivery]) error {
	if err := o.mayCall(stream.RequestHeader()); err != nil {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	if err := o.topicKnown(first.topic); err != nil {
		return err
	}
	after, err := o.start(first)
	if err != nil {
		return err
	}
	if first.want <= 0 {
		return grpcError(connect.CodeInvalidArgument, "fetch.requested.events.invalid", "The number of requested events must be greater than zero.")
	}
	o.streams(1)
	defer o.streams(-1)
	asked, ended := make(chan *fetch), make(chan error, 1)
	go func() {
		for {
			m, err := stream.Receive()
			if err != nil {
				ended <- err
				return
			}
			select {
			case asked <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	return o.send(ctx, stream, first, after, asked, ended)
}

func (o *Org) send(ctx context.Context, stream *connect.BidiStream[fetch, delivery], first *fetch, after uint64, asked <-chan *fetch, ended <-chan error) error {
	_, _, _, _, cuts := o.due(after, 0)
	wanted := min(first.want, maxWanted)
	quiet := time.NewTimer(o.opt.EventKeepAlive)
	defer quiet.Stop()
	for {
		events, latest, changed, waiting, now := o.due(after, wanted)
		if now != cuts {
			return grpcError(connect.CodeUnavailable, "service.unavailable", "The service is unavailable.")
		}
		if len(events) > 0 {
			after, wanted = latest, wanted-len(events)
			if err := stream.Send(&delivery{events: events, latest: latest, pending: wanted}); err != nil {
				return err
			}
			quiet.Reset(o.opt.EventKeepAlive)
			continue
		}
		var soon, unwanted <-chan time.Time
		if waiting {
			soon = time.After(visibilityCheck)
		}
		if wanted == 0 {
			unwanted = time.After(unwantedLimit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return nil // the client has finished
		case m := <-asked:
			if m.topic != "" && m.topic != first.topic {
				return grpcError(connect.CodeInvalidArgument, "fetch.topic.changed", "The topic can't be changed.")
			}
			wanted = min(wanted+max(m.want, 0), maxWanted)
		case <-changed:
		case <-soon:
		case <-unwanted:
			return grpcError(connect.CodeUnavailable, "", "No events were requested for too long.")
		case <-quiet.C:
			if err := stream.Send(&delivery{latest: latest, pending: wanted}); err != nil {
				return err
			}
			quiet.Reset(o.opt.EventKeepAlive)
		}
	}
}
