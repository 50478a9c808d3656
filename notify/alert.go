package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Form makes the body of a call.
type Form interface {
	Body(m Message) ([]byte, error)
}

// Hook is a channel that is called.
type Hook struct {
	// Client is guarded against addresses inside.
	Client *http.Client
	// URL returns the address, which may be a secret, and is read for each call.
	URL func() (string, error)
	// Form makes the body, Single has each incident in a call of its own.
	Form   Form
	Single bool
	// Headers are set beside our own. HeadersFrom return those that are secrets, and are asked for each call.
	Headers     map[string]string
	HeadersFrom map[string]func() (string, error)
	// Version is told to the receiver.
	Version string
}

// Digest is one incident for those who keep incidents apart themselves.
func (h *Hook) Digest() int {
	if h.Single {
		return 1
	}
	return 0
}

// Send calls. What is not answered with 2xx was not taken.
func (h *Hook) Send(ctx context.Context, m Message) error {
	body, err := h.Form.Body(m)
	if err != nil {
		return &problemError{words: err.Error()}
	}
	address, err := h.URL()
	if err != nil {
		return &problemError{words: err.Error()}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return &problemError{words: "its URL is no address"}
	}
	if err := h.setHeaders(r.Header); err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "dealseal/"+h.Version)
	resp, err := h.Client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAlert)) // the connection can be used again if it is short
	if resp.StatusCode/100 != 2 {
		wait, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
		return &problemError{words: "it answered " + strconv.Itoa(resp.StatusCode), after: time.Duration(wait) * time.Second}
	}
	return nil
}

func (h *Hook) setHeaders(to http.Header) error {
	for name, value := range h.Headers {
		to.Set(name, value)
	}
	for name, read := range h.HeadersFrom {
		value, err := read()
		if err != nil {
			return &problemError{words: err.Error()}
		}
		to.Set(name, value)
	}
	return nil
}

// Probe connects and asks for nothing that could page anybody.
func (h *Hook) Probe(ctx context.Context) error {
	address, err := h.URL()
	if err != nil {
		return &problemError{words: err.Error()}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return &problemError{words: "its URL is no address"}
	}
	if err := h.setHeaders(r.Header); err != nil {
		return err
	}
	resp, err := h.Client.Do(r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// PagerDutyURL is where PagerDuty takes events of its Events API v2.
const PagerDutyURL = "https://events.pagerduty.com/v2/enqueue"

// PagerDuty is the shape of that API: an incident is opened by one event, and resolved by another with the same key.
type PagerDuty struct {
	// RoutingKey returns the integration's key, a secret.
	RoutingKey func() (string, error)
}

// Body is the first incident of a message.
func (p PagerDuty) Body(m Message) ([]byte, error) {
	if len(m.Items) != 1 {
		return nil, errors.New("PagerDuty is told of one incident at a time")
	}
	key, err := p.RoutingKey()
	if err != nil {
		return nil, err
	}
	i := m.Items[0]
	action := "trigger"
	if i.Over || m.Test {
		action = "resolve" // of a test nobody is woken
	}
	text, err := m.Text()
	if err != nil {
		return nil, err
	}
	type link struct {
		Href string `json:"href"`
		Text string `json:"text"`
	}
	return json.Marshal(map[string]any{
		"routing_key": key, "event_action": action, "dedup_key": i.Key, "client": "dealseal", "client_url": m.Page + "/", "links": []link{{i.Link, "status page"}},
		"payload": map[string]any{
			"summary": bounded(i.headline(), 1024), "source": strings.TrimSpace("dealseal " + m.Name), "severity": i.Severity, "component": "dealseal",
			"group": i.Tenant, "class": string(i.Kind), "timestamp": i.Since.UTC().Format(time.RFC3339), "custom_details": map[string]string{"text": bounded(text, 16<<10)},
		},
	})
}

// Slack is the shape of incoming webhooks of Slack, which Mattermost and others take as well.
type Slack struct{}

// slackEscapes are the three characters that mean something there.
var slackEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// Body is all of a message as one text.
func (Slack) Body(m Message) ([]byte, error) {
	var b strings.Builder
	if m.Test {
		b.WriteString("This is a test: nothing happened.\n")
	}
	for _, i := range m.Items {
		fmt.Fprintf(&b, "*%s*\n", slackEscapes.Replace(i.headline()))
		for _, l := range i.Lines {
			fmt.Fprintf(&b, "• %s", slackEscapes.Replace(l.Text))
			if l.Name != "" {
				fmt.Fprintf(&b, " (%s)", slackEscapes.Replace(l.Name))
			}
			if l.Link != "" {
				fmt.Fprintf(&b, " <%s|%s>", slackEscapes.Replace(l.Link), slackEscapes.Replace(l.Transaction))
			}
			b.WriteByte('\n')
		}
		if i.More > 0 {
			fmt.Fprintf(&b, "and %d more: <%s|the list>\n", i.More, slackEscapes.Replace(i.Link))
		}
		if i.Advice != "" && !i.Over {
			fmt.Fprintf(&b, "_%s_\n", slackEscapes.Replace(i.Advice))
		}
	}
	return json.Marshal(map[string]string{"text": bounded(b.String(), 30<<10)})
}

// bounded cuts text off at so many bytes, between characters.
func bounded(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "…"
}
