// Package esign is a vendor that has people sign documents, for tests: it tells of its envelopes as Certyneo or SDF Server do,
// with signed webhooks that are sent again until they are taken, serves what was signed to those who show its token, and
// misbehaves on demand.
package esign

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Kind is which vendor it is.
type Kind string

const (
	Certyneo Kind = "certyneo"
	// CertyneoCRM names events and header as the integration with CRMs does.
	CertyneoCRM Kind = "certyneo-crm"
	SDF         Kind = "sdf"
)

// Options of New.
type Options struct {
	Kind Kind
	// URL is where the handler will be reachable.
	URL string
	// Secret signs events, Token is what whoever fetches a document has to show.
	Secret, Token string
	// Target is where events are posted to, by Client.
	Target string
	Client *http.Client
	// Sign makes a signed document of one.
	Sign func(pdf []byte) ([]byte, error)
}

// Vendor is a vendor. Its methods may be called concurrently.
type Vendor struct {
	o Options

	mu        sync.Mutex
	envelopes map[string]*envelope
	refuse    int // so many requests for documents are still answered with status
	status    int
	fetched   int
	strangers int
}

type envelope struct {
	title    string
	document []byte
}

// New returns a vendor without envelopes.
func New(o Options) *Vendor { return &Vendor{o: o, envelopes: map[string]*envelope{}} }

// Target is where events go from now on.
func (v *Vendor) Target(url string, client *http.Client) { v.o.Target, v.o.Client = url, client }

// Send has people sign a document.
func (v *Vendor) Send(id, title string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.envelopes[id] = &envelope{title: title}
}

// Sign has everybody sign.
func (v *Vendor) Sign(id string, pdf []byte) error {
	signed, err := v.o.Sign(pdf)
	if err != nil {
		return err
	}
	v.Serve(id, signed)
	return nil
}

// Serve has bytes served as the signed document of an envelope, whatever they are.
func (v *Vendor) Serve(id string, document []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.envelopes[id].document = document
}

// Document is what is served of an envelope.
func (v *Vendor) Document(id string) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	return bytes.Clone(v.envelopes[id].document)
}

// Refuse answers the next n requests for documents with a status.
func (v *Vendor) Refuse(n, status int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refuse, v.status = n, status
}

// Fetched is how often a document was given to somebody, Strangers how often somebody came without the token.
func (v *Vendor) Fetched() (given, strangers int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fetched, v.strangers
}

// ServeHTTP gives out documents.
func (v *Vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/documents/"), "/proof.pdf")
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.envelopes[id]
	switch {
	case !v.admits(r):
		v.strangers++
		w.WriteHeader(http.StatusUnauthorized)
	case v.refuse > 0:
		v.refuse--
		w.WriteHeader(v.status)
	case !ok || e == nil || e.document == nil:
		w.WriteHeader(http.StatusNotFound)
	default:
		v.fetched++
		w.Header().Set("Content-Type", "application/pdf")
		w.Write(e.document)
	}
}

func (v *Vendor) admits(r *http.Request) bool {
	if v.o.Kind == SDF {
		return r.Header.Get("X-API-Key") == v.o.Token
	}
	return r.Header.Get("Authorization") == "Bearer "+v.o.Token
}

// names are what the kinds call what happens to an envelope.
var names = map[Kind]map[string]string{
	Certyneo: {"created": "envelope.created", "sent": "envelope.sent", "viewed": "recipient.viewed", "signed": "recipient.signed",
		"completed": "envelope.completed", "declined": "envelope.declined", "voided": "envelope.voided", "expired": "envelope.expired"},
	CertyneoCRM: {"sent": "document.sent", "viewed": "document.viewed", "signed": "document.signed", "completed": "document.completed", "declined": "document.refused", "expired": "document.expired"},
	SDF:         {"created": "document.uploaded", "sent": "document.validated", "failed": "document.validated", "completed": "document.signed", "voided": "document.deleted"},
}

// Body is the event that tells what has happened to an envelope: created, sent, viewed, signed, completed, declined, voided,
// expired or failed, as far as the kind knows that. note is the reason of somebody who declined.
func (v *Vendor) Body(id, what, note string, at time.Time) ([]byte, error) {
	name, known := names[v.o.Kind][what]
	if !known {
		return nil, fmt.Errorf("%s does not tell that an envelope is %s", v.o.Kind, what)
	}
	v.mu.Lock()
	title := ""
	if e := v.envelopes[id]; e != nil {
		title = e.title
	}
	v.mu.Unlock()
	if v.o.Kind == SDF {
		status := map[string]string{"created": "pending", "sent": "valid", "failed": "invalid", "completed": "signed", "voided": "deleted"}[what]
		data := map[string]any{"document_id": id, "document_type": "contract", "status": status}
		if what == "completed" {
			data["algorithm"] = "ECDSA-P256"
		}
		return json.Marshal(map[string]any{"event": name, "timestamp": at.UTC().Format("2006-01-02T15:04:05.000Z"), "tenant_id": "f47ac10b-58cc-4372-a567-0e02b2c3d479", "data": data})
	}
	data := map[string]any{"title": title, "status": what, "created_at": at.UTC().Format(time.RFC3339)}
	switch what {
	case "completed":
		data["completed_at"] = at.UTC().Format(time.RFC3339)
		data["signers"] = []map[string]string{{"email": "philomena@kolibri.example", "name": "Philomena Wunderlich", "method": "otp", "ip": "203.0.113.7"}}
		data["proof_pdf_url"] = v.o.URL + "/documents/" + id + "/proof.pdf"
	case "declined":
		data["decline_reason"] = note
	case "expired":
		data["missing_signers"] = []string{"philomena@kolibri.example"}
	}
	return json.Marshal(map[string]any{"event": name, "envelope_id": id, "occurred_at": at.UTC().Format(time.RFC3339Nano), "data": data})
}

// Tell posts what has happened until it is taken or ctx ends; each attempt is signed anew.
func (v *Vendor) Tell(ctx context.Context, id, what, note string) error {
	body, err := v.Body(id, what, note, time.Now())
	if err != nil {
		return err
	}
	for {
		status, err := v.Post(ctx, body, time.Now())
		if err == nil && status/100 == 2 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s of %s was not taken: answered %d, %w", what, id, status, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Post posts a body once, signed at a time.
func (v *Vendor) Post(ctx context.Context, body []byte, at time.Time) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, v.o.Target, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	v.sign(r.Header, body, at)
	resp, err := v.o.Client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (v *Vendor) sign(h http.Header, body []byte, at time.Time) {
	mac := hmac.New(sha256.New, []byte(v.o.Secret))
	if v.o.Kind == SDF {
		mac.Write(body)
		h.Set("X-SDF-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		return
	}
	stamp := fmt.Sprint(at.Unix())
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	h.Set(map[Kind]string{Certyneo: "Certyneo-Signature", CertyneoCRM: "X-Certyneo-Signature"}[v.o.Kind], "t="+stamp+",v1="+hex.EncodeToString(mac.Sum(nil)))
}
