// Package delegates knows vendors that have people sign documents in the place of our key: what their events say, and how a
// signed document is fetched from them. It verifies neither: webhooks recognises who sends an event, and signing/verify says what
// a document is worth.
package delegates

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Vendor is one kind of vendor.
type Vendor struct {
	Name string
	// Dialects are the names of those in which it signs its events; the first is the usual one.
	Dialects []string
	// NamesURL: it says in its events where a document is. Otherwise the address is made of the ID.
	NamesURL bool
	read     func([]byte) (deal.VendorEvent, error)
}

// Vendors are those that there are.
var Vendors = []Vendor{
	{Name: "certyneo", Dialects: []string{"certyneo", "x-certyneo"}, NamesURL: true, read: readCertyneo},
	{Name: "sdf", Dialects: []string{"sdf"}, read: readSDF},
}

// Find returns a vendor by its name.
func Find(name string) (Vendor, bool) {
	i := slices.IndexFunc(Vendors, func(v Vendor) bool { return v.Name == name })
	if i < 0 {
		return Vendor{}, false
	}
	return Vendors[i], true
}

// Names lists the vendors.
func Names() (names []string) {
	for _, v := range Vendors {
		names = append(names, v.Name)
	}
	return names
}

// errOther means that an event is of a kind that says nothing of how an envelope stands.
var errOther = errors.New("an event of another kind")

// Read says what the body of an event tells: nothing, if it is of a kind that is not known here. An error names no part of the
// body.
func (v Vendor) Read(body []byte) ([]deal.VendorEvent, error) {
	e, err := v.read(body)
	if errors.Is(err, errOther) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !deal.IsEnvelopeID(e.Envelope) {
		return nil, errors.New("it names no envelope, or not as one: letters, digits and . _ : - are taken, at most 128")
	}
	e.Digest = sha256.Sum256(body)
	e.Reason, e.Title = cut(e.Reason, longestText), cut(e.Title, longestText)
	return []deal.VendorEvent{e}, nil
}

const (
	// longestText is how many characters of what people have written are kept.
	longestText = 500
	longestURL  = 2048
)

// cut makes one line of a text, of at most n characters.
func cut(text string, n int) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}

func decode(body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return errors.New("it is no JSON object as the vendor describes it")
	}
	return nil
}

// moment reads a time of a vendor's.
func moment(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, errors.New("its time is not written as 2026-03-15T14:32:10Z")
	}
	return at.UTC(), nil
}

// certyneoNews are Certyneo's names: those of its webhooks, and those of its CRM integration.
var certyneoNews = map[string]deal.EnvelopeNews{
	"envelope.created": deal.EnvelopeCreated, "envelope.sent": deal.EnvelopeSent, "recipient.viewed": deal.EnvelopeViewed, "recipient.signed": deal.EnvelopeSigned,
	"envelope.completed": deal.EnvelopeCompleted, "envelope.declined": deal.EnvelopeDeclined, "envelope.voided": deal.EnvelopeVoided, "envelope.expired": deal.EnvelopeExpired,

	"document.sent": deal.EnvelopeSent, "document.viewed": deal.EnvelopeViewed, "document.signed": deal.EnvelopeSigned,
	"document.completed": deal.EnvelopeCompleted, "document.refused": deal.EnvelopeDeclined, "document.expired": deal.EnvelopeExpired,
}

func readCertyneo(body []byte) (e deal.VendorEvent, err error) {
	var said struct {
		Event      string `json:"event"`
		EnvelopeID string `json:"envelope_id"`
		OccurredAt string `json:"occurred_at"`
		Data       struct {
			Title    string `json:"title"`
			ProofURL string `json:"proof_pdf_url"`
			Reason   string `json:"decline_reason"`
		} `json:"data"`
	}
	if err := decode(body, &said); err != nil {
		return e, err
	}
	news, known := certyneoNews[said.Event]
	if !known {
		return e, errOther
	}
	if e.At, err = moment(said.OccurredAt); err != nil {
		return e, err
	}
	e.Envelope, e.News, e.Title = said.EnvelopeID, news, said.Data.Title
	switch news {
	case deal.EnvelopeCompleted:
		if e.URL = said.Data.ProofURL; len(e.URL) > longestURL {
			return e, fmt.Errorf("the address of its document is longer than %d characters", longestURL)
		}
	case deal.EnvelopeDeclined:
		e.Reason = said.Data.Reason
	}
	return e, nil
}

// sdfSucceeded are the words with which SDF Server says that something has gone well.
var sdfSucceeded = []string{"", "success", "succeeded", "valid", "validated", "signed", "completed"}

func readSDF(body []byte) (e deal.VendorEvent, err error) {
	var said struct {
		Event     string `json:"event"`
		Timestamp string `json:"timestamp"`
		Data      struct {
			DocumentID string `json:"document_id"`
			Status     string `json:"status"`
		} `json:"data"`
	}
	if err := decode(body, &said); err != nil {
		return e, err
	}
	switch well := slices.Contains(sdfSucceeded, strings.ToLower(said.Data.Status)); said.Event {
	case "document.uploaded":
		e.News = deal.EnvelopeCreated
	case "document.validated", "document.signed":
		switch {
		case !well:
			e.News = deal.EnvelopeFailed
		case said.Event == "document.signed":
			e.News = deal.EnvelopeCompleted
		default:
			e.News = deal.EnvelopeSent
		}
	case "document.deleted":
		e.News = deal.EnvelopeVoided
	default:
		return e, errOther
	}
	e.Envelope = said.Data.DocumentID
	e.At, err = moment(said.Timestamp)
	return e, err
}
