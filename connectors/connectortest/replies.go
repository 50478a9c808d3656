package connectortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// replyMark parts the replies of a conversation. It begins with a byte that stands in no header and in no JSON text.
const replyMark = "\x1ereply "

// maxConversation is how many bytes of a conversation are looked at.
const maxConversation = 256 << 10

// RecordReplies takes a deal its whole way through a connector and returns what the CRM replied, in the form that Replay
// takes: the seed for fuzzing. over makes a connector whose calls go through the given transport.
func RecordReplies(t testing.TB, w World, over func(http.RoundTripper) connectors.CRM) []byte {
	traits := w.Traits()
	id := w.CreateDeals(1, traits.Other)[0]
	w.AddLine(id, "Seat", "3", "10.50")
	w.Advance(time.Minute)
	w.Move(id, traits.Stage)
	w.AddFile(id, "Quote 1.pdf", []byte("%PDF-1.7 quote"))
	w.Advance(time.Minute)
	r := &recorder{through: &http.Transport{DisableKeepAlives: true}}
	(&traveller{t: t, crm: over(r), w: w, traits: traits, ref: deal.Ref{Object: traits.Object, ID: id}, clean: true}).travel(t.Context())
	return append([]byte(id), r.heard...)
}

// Replay drives a connector whose CRM gives these replies, one for each call in turn and a 503 once they are used up, in
// simulated time. It fails the test if a call outlasts its context, or if what the connector makes of the replies
// breaks its contract. Errors are expected, unless the replies are clean: what RecordReplies has returned.
func Replay(t *testing.T, w World, replies []byte, clean bool, over func(http.RoundTripper) connectors.CRM) {
	if len(replies) > maxConversation {
		return
	}
	synctest.Test(t, func(t *testing.T) { // the connector waits where it was told to
		traits, parts := w.Traits(), strings.Split(string(replies), replyMark)
		p := &player{left: parts[1:]}
		v := &traveller{t: t, crm: over(p), w: w, traits: traits, ref: deal.Ref{Object: traits.Object, ID: parts[0]}, clean: clean}
		v.travel(t.Context())
	})
}

// traveller takes one deal its way through a connector, whatever the CRM says.
type traveller struct {
	t      testing.TB
	crm    connectors.CRM
	w      World
	traits Traits
	ref    deal.Ref
	clean  bool   // no call may fail
	file   string // the last one that was seen on the record
}

// watchedSince is before anything that a world dates.
var watchedSince = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// stepLimit is the context that each step gets, as the engine gives one.
const stepLimit = time.Minute

func (v *traveller) travel(ctx context.Context) {
	v.step(ctx, "identity", v.identity)
	v.step(ctx, "probe", v.probe)
	v.step(ctx, "changes", v.changes)
	v.step(ctx, "record", v.record)
	v.step(ctx, "attach", v.attach)
	v.step(ctx, "record again", v.record)
	v.step(ctx, "write back", v.writeBack)
	v.step(ctx, "download", v.download)
}

func (v *traveller) step(ctx context.Context, name string, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	began := time.Now()
	if err := do(ctx); err != nil && v.clean {
		v.complain("%s: %v", name, err)
	}
	if took := time.Since(began); took > stepLimit+time.Second {
		v.complain("%s went on for %s, longer than its context", name, took)
	}
}

func (v *traveller) complain(format string, args ...any) {
	v.t.Helper()
	v.t.Errorf(format, args...)
}

func (v *traveller) identity(ctx context.Context) error {
	a, err := v.crm.Identity(ctx)
	if err == nil && (a.ID == "" || a.Clock.IsZero()) {
		v.complain("an account without ID or clock: %+v", a)
	}
	return err
}

func (v *traveller) watches() []deal.Watch {
	return []deal.Watch{{Rule: "r", Object: v.traits.Object, Stage: v.traits.Stage, Since: watchedSince}}
}

func (v *traveller) fields() []string {
	return []string{v.traits.Amount, v.traits.Lines + "." + v.traits.LineName, v.traits.Lines + "." + v.traits.LineQuantity, v.traits.WriteBack.TransactionID}
}

func (v *traveller) probe(ctx context.Context) error {
	p, ok := v.crm.(connectors.Prober)
	if !ok {
		return nil
	}
	problems, err := p.Probe(ctx, connectors.Probe{Object: v.traits.Object, Watches: v.watches(), Read: v.fields(), WriteBack: []deal.WriteBack{v.traits.WriteBack}})
	for _, q := range problems {
		if q.What == "" || q.Cure == "" {
			v.complain("a problem without words: %+v", q)
		}
	}
	return err
}

// changes reads up to three pages, and what a cursor says must be read back alike.
func (v *traveller) changes(ctx context.Context) error {
	var at deal.Cursor
	for range 3 {
		page, err := v.crm.Changes(ctx, at, v.watches())
		if err != nil {
			return err
		}
		if len(page.Entries) > 500 {
			v.complain("%d entries on one page", len(page.Entries))
		}
		for _, e := range page.Entries {
			if e.Ref.ID == "" || e.Occurrence == "" || e.Rule != "r" || e.At.Before(watchedSince) {
				v.complain("an entry that cannot be: %+v", e)
			}
		}
		for _, q := range page.Quarantined {
			if q.Row == "" || q.Reason == "" {
				v.complain("a quarantined row without a name or reason: %+v", q)
			}
		}
		if again, err := deal.ParseCursor(page.Next.String()); err != nil || again.String() != page.Next.String() {
			v.complain("the cursor %q is not read back: %v", page.Next.String(), err)
		}
		at = page.Next
		if !page.More {
			break
		}
	}
	return nil
}

func (v *traveller) record(ctx context.Context) error {
	rec, err := v.crm.Record(ctx, v.ref, v.fields())
	if err != nil {
		return err
	}
	if rec.Ref.ID == "" {
		v.complain("a record without an ID")
	}
	for _, f := range rec.Files {
		if f.ID == "" {
			v.complain("a file without an ID: %+v", f)
		}
		v.file = f.ID
	}
	return nil
}

func (v *traveller) attach(ctx context.Context) error {
	at, err := v.crm.Attach(ctx, v.ref, txFor(v.ref.ID), deal.RoleContract, file(v.t, "contract.pdf", 64))
	if err == nil && (at.ID == "" || at.URL == "") {
		v.complain("attached without ID or URL: %+v", at)
	}
	return err
}

func (v *traveller) writeBack(ctx context.Context) error {
	return v.crm.WriteBack(ctx, v.ref, receipt(v.w, txFor(v.ref.ID), v.w.Now().UnixMilli(), deal.StatusSigned))
}

func (v *traveller) download(ctx context.Context) error {
	files, ok := v.crm.(connectors.Files)
	if !ok {
		return nil
	}
	const limit = 1 << 10
	var got bytes.Buffer
	err := files.Download(ctx, v.ref, v.file, &got, limit)
	if err == nil && got.Len() > limit {
		v.complain("%d bytes were downloaded, %d is the limit", got.Len(), limit)
	}
	return err
}

// keptHeaders are those that connectors read.
var keptHeaders = []string{"Content-Type", "Date", "Retry-After", "Sforce-Limit-Info", "Location", "Last-Modified"}

// recorder notes what passes through it.
type recorder struct {
	through http.RoundTripper
	mu      sync.Mutex
	heard   []byte
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.through.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var head strings.Builder
	fmt.Fprintf(&head, "%s%d %s\n", replyMark, resp.StatusCode, request(req))
	for name, values := range resp.Header {
		if slices.Contains(keptHeaders, name) || strings.HasPrefix(name, "X-Hubspot-Ratelimit") {
			fmt.Fprintf(&head, "%s: %s\n", name, values[0])
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(append(append(r.heard, head.String()...), '\n'), body...)
	return resp, nil
}

// request names what was asked, without what differs from one run to the next.
func request(r *http.Request) string { return r.Method + " " + r.URL.Path }

// player replies with what is left: with the first reply that was recorded for such a request, since a connector may ask
// several things at once, or else the first of all.
type player struct {
	mu   sync.Mutex
	left []string
}

func (p *player) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil, err
		}
		if err := req.Body.Close(); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	reply := "503 \n\n<html>"
	if len(p.left) > 0 {
		i := max(0, slices.IndexFunc(p.left, func(text string) bool {
			line, _, _ := strings.Cut(text, "\n")
			return strings.HasSuffix(line, " "+request(req))
		}))
		reply = p.left[i]
		p.left = slices.Delete(p.left, i, i+1)
	}
	return parseReply(reply, req), nil
}

func parseReply(text string, req *http.Request) *http.Response {
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	code, _, _ := strings.Cut(lines[0], " ")
	status, err := strconv.Atoi(code)
	if err != nil || status < 200 || status > 599 {
		status = http.StatusOK
	}
	header := http.Header{}
	for _, line := range lines[1:] {
		if name, value, ok := strings.Cut(line, ": "); ok {
			header.Set(name, value)
		}
	}
	return &http.Response{StatusCode: status, Status: strconv.Itoa(status) + " " + http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}
}
