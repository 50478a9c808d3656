package salesforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The wire of the Pub/Sub API, the gRPC service eventbus.v1.PubSub. Of its messages only what is used is read and written
// here, by the field numbers of pubsub_api.proto: six small messages are less to trust than a generator and what it links.

const (
	// publicPubSub is where the API is for all orgs.
	publicPubSub = "https://api.pubsub.salesforce.com:7443"
	// maxMessage is what gRPC servers send at most to clients that ask for no more.
	maxMessage = 4 << 20
	// mostEvents are far more than were asked for, maxReplay far longer than a replay ID, which is kept.
	mostEvents = 10 * mostWanted
	maxReplay  = 1 << 10
	// What is not answered for so long is dead: the transport asks, and the server speaks at least every 270 s.
	pingAfter, pingLimit = 30 * time.Second, 15 * time.Second
)

// Where a subscription begins; see ReplayPreset.
const (
	replayLatest   = 0
	replayEarliest = 1
	replayCustom   = 2
)

type topicRequest struct{ topic string }

func (m *topicRequest) encode() []byte { return putText(nil, 1, m.topic) }

type topicInfo struct {
	mayHear bool // can_subscribe
	schema  string
}

func (m *topicInfo) decode(b []byte) error {
	return eachField(b, func(n protowire.Number, v uint64, content []byte) error {
		switch n {
		case 4:
			m.mayHear = v != 0
		case 5:
			m.schema = string(content)
		}
		return nil
	})
}

type schemaRequest struct{ id string }

func (m *schemaRequest) encode() []byte { return putText(nil, 1, m.id) }

type schemaInfo struct{ json []byte }

func (m *schemaInfo) decode(b []byte) error {
	return eachField(b, func(n protowire.Number, _ uint64, content []byte) error {
		if n == 1 {
			m.json = content
		}
		return nil
	})
}

// fetchRequest asks for more events. Where they begin is only heard in the first one of a stream.
type fetchRequest struct {
	topic  string
	preset uint64
	replay []byte
	want   int
}

func (m *fetchRequest) encode() []byte {
	b := putText(nil, 1, m.topic)
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, m.preset)
	if len(m.replay) > 0 {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendBytes(b, m.replay)
	}
	b = protowire.AppendTag(b, 4, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(m.want))
}

type fetchResponse struct {
	events  []busEvent
	latest  []byte // replay ID up to which there is no more for us
	pending int    // of what was asked for
}

// busEvent is a ConsumerEvent with its ProducerEvent.
type busEvent struct {
	schema  string
	payload []byte
	replay  []byte
}

func (m *fetchResponse) decode(b []byte) error {
	return eachField(b, func(n protowire.Number, v uint64, content []byte) error {
		switch n {
		case 1:
			var e busEvent
			if err := e.decode(content); err != nil {
				return err
			}
			if len(m.events) == mostEvents {
				return errProto
			}
			m.events = append(m.events, e)
		case 2:
			if len(content) > maxReplay {
				return errProto
			}
			m.latest = content
		case 4:
			m.pending = int(min(v, mostWanted))
		}
		return nil
	})
}

func (e *busEvent) decode(b []byte) error {
	return eachField(b, func(n protowire.Number, _ uint64, content []byte) error {
		switch n {
		case 1:
			return eachField(content, func(n protowire.Number, _ uint64, content []byte) error {
				switch n {
				case 2:
					e.schema = string(content)
				case 3:
					e.payload = content
				}
				return nil
			})
		case 2:
			if len(content) > maxReplay {
				return errProto
			}
			e.replay = content
		}
		return nil
	})
}

func putText(b []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

var errProto = errors.New("it is no message of the Pub/Sub API")

// eachField hands over the fields of a message: numbers in v, everything else that has a length in content, which is a part
// of b. Other fields are none of the API's, and left out.
func eachField(b []byte, use func(n protowire.Number, v uint64, content []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errProto
		}
		b = b[n:]
		var v uint64
		var content []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			content, n = protowire.ConsumeBytes(b)
		default:
			number, n = 0, protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return errProto
		}
		b = b[n:]
		if number == 0 {
			continue
		}
		if err := use(number, v, content); err != nil {
			return err
		}
	}
	return nil
}

// codec reads and writes these messages for connect, which also asks it for the details of a refusal.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) ([]byte, error) {
	switch m := v.(type) {
	case interface{ encode() []byte }:
		return m.encode(), nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("a %T is no message of the Pub/Sub API", v)
}

func (codec) Unmarshal(b []byte, v any) error {
	switch m := v.(type) {
	case interface{ decode(b []byte) error }:
		return m.decode(bytes.Clone(b)) // what is decoded are parts of it, and connect reads the next message into b
	case proto.Message:
		return proto.Unmarshal(b, m)
	}
	return fmt.Errorf("a %T is no message of the Pub/Sub API", v)
}

// pubSub is the service, for one connector.
type pubSub struct {
	http      *http.Client
	topics    *connect.Client[topicRequest, topicInfo]
	schemas   *connect.Client[schemaRequest, schemaInfo]
	subscribe *connect.Client[fetchRequest, fetchResponse]
}

func newPubSub(cfg Config, transport http.RoundTripper) *pubSub {
	if transport == nil {
		transport = NewStreamTransport()
	}
	p := &pubSub{http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}
	options := []connect.ClientOption{connect.WithGRPC(), connect.WithCodec(codec{}), connect.WithReadMaxBytes(maxMessage)}
	at := cfg.PubSubURL + "/eventbus.v1.PubSub/"
	p.topics = connect.NewClient[topicRequest, topicInfo](p.http, at+"GetTopic", options...)
	p.schemas = connect.NewClient[schemaRequest, schemaInfo](p.http, at+"GetSchema", options...)
	p.subscribe = connect.NewClient[fetchRequest, fetchResponse](p.http, at+"Subscribe", options...)
	return p
}

// NewStreamTransport is what carries streams when nothing else is given. It speaks HTTP/2 only, and finds out when the other side has gone without a word.
func NewStreamTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetUnencryptedHTTP2(true) // for loopback addresses only: see Config.Validate
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit}
	t.MaxResponseHeaderBytes = maxErrorReply
	return t
}

// ask makes a call that has one answer.
func ask[Req, Res any](ctx context.Context, c *Connector, org string, client *connect.Client[Req, Res], m *Req) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	token, err := c.wire.session.get(ctx)
	if err != nil {
		return nil, err
	}
	r := connect.NewRequest(m)
	c.sign(r.Header(), org, token)
	resp, err := client.CallUnary(ctx, r)
	if err != nil {
		return nil, c.busFailure(ctx, token, err)
	}
	return resp.Msg, nil
}

// sign puts on a call whose it is.
func (c *Connector) sign(h http.Header, org, token string) {
	h.Set("accesstoken", token)
	h.Set("instanceurl", c.cfg.MyDomain)
	h.Set("tenantid", org)
	h.Set("User-Agent", clientName)
}

// busCodeForm is that of the API's own codes. What else a refusal says may quote anything and is not repeated.
var busCodeForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,120}$`)

const (
	busCodes     = "sfdc.platform.eventbus.grpc."
	replayCodes  = "subscription.fetch.replayid."
	limitedPause = 15 * time.Minute
)

// busFailure is the error of a call to the Pub/Sub API. A token that was refused is forgotten.
func (c *Connector) busFailure(ctx context.Context, token string, err error) error {
	var refused *connect.Error
	if !errors.As(err, &refused) || !connect.IsWireError(err) {
		var call *url.Error
		if errors.As(err, &call) {
			err = call.Err // without the address
		}
		return noAnswer(ctx, err)
	}
	e := &Error{cause: errors.New("the Pub/Sub API refuses: " + refused.Code().String())}
	if code := refused.Meta().Get("error-code"); busCodeForm.MatchString(code) {
		e.Code = strings.TrimPrefix(code, busCodes)
	}
	switch refused.Code() {
	case connect.CodeUnauthenticated:
		c.wire.session.drop(token)
		e.class, e.login = expired, true
		e.cure = "a fresh login is tried; if it goes on, check that the integration user may use the API, and my_domain"
	case connect.CodePermissionDenied, connect.CodeNotFound:
		e.class = permanent
		e.cure = "select Opportunity in Setup, Change Data Capture, and give the integration user View All on it; or correct change_events"
	case connect.CodeResourceExhausted:
		e.after, e.cure = limitedPause, "the org's allowance of events or of subscribers is used up: polling finds what happens"
	case connect.CodeInvalidArgument:
		if !strings.HasPrefix(e.Code, replayCodes) {
			e.class, e.cure = permanent, "correct change_events: it is the channel's name, case included"
		}
	}
	return e
}

// isLostPlace reports whether the place in the stream is not known any more.
func isLostPlace(err error) bool {
	var e *Error
	return errors.As(err, &e) && strings.HasPrefix(e.Code, replayCodes)
}
