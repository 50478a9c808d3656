package salesforce

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

// What Salesforce posts. None of it is believed: it names records whose history is then read.

// mostNotifications is how many an Outbound Message has at most.
const mostNotifications = 100

var errPush = errors.New("it is not what Salesforce posts")

// ErrOtherOrg means that an Outbound Message comes from another org than the tenant's.
var ErrOtherOrg = errors.New("it comes from another org")

const outboundSpace = "http://soap.sforce.com/2005/09/outbound"

// Acknowledgement is the answer to an Outbound Message that was taken in.
const Acknowledgement = `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>` +
	`<notificationsResponse xmlns="` + outboundSpace + `"><Ack>true</Ack></notificationsResponse></soapenv:Body></soapenv:Envelope>`

// notification is one of an Outbound Message. The session that it may bring is not looked at.
type notification struct {
	ID      string `xml:"Id"`
	SObject struct {
		Type string `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
		ID   string `xml:"Id"`
	} `xml:"sObject"`
}

// ReadOutbound reads an Outbound Message. org is ours, empty when it is not known yet.
func ReadOutbound(body []byte, org string) ([]deal.PushedEvent, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	var events []deal.PushedEvent
	inside := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errPush
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			if _, directive := token.(xml.Directive); directive {
				return nil, errPush // a document type: nobody needs one
			}
			continue
		}
		switch {
		case start.Name == xml.Name{Space: outboundSpace, Local: "notifications"}:
			inside = true
		case !inside:
		case start.Name == xml.Name{Space: outboundSpace, Local: "OrganizationId"}:
			var id string
			if err := d.DecodeElement(&id, &start); err != nil {
				return nil, errPush
			}
			if got, err := CanonicalID(strings.TrimSpace(id)); err != nil || org != "" && got != org {
				return nil, ErrOtherOrg
			}
			org = cmp.Or(org, id)
		case start.Name == xml.Name{Space: outboundSpace, Local: "Notification"}:
			var n notification
			if err := d.DecodeElement(&n, &start); err != nil || len(events) == mostNotifications {
				return nil, errPush
			}
			events = append(events, n.event())
		}
	}
	if len(events) == 0 || org == "" {
		return nil, errPush
	}
	return events, nil
}

func (n notification) event() deal.PushedEvent {
	e := pushed(strings.TrimSpace(n.SObject.ID))
	if id, err := CanonicalID(strings.TrimSpace(n.ID)); err == nil {
		e.Key = id
	}
	return e
}

// pushed wakes for records of objects that can be watched.
func pushed(id string) deal.PushedEvent {
	canonical, err := CanonicalID(id)
	if err != nil {
		return deal.PushedEvent{}
	}
	k, ok := kindOf(canonical)
	if !ok {
		return deal.PushedEvent{}
	}
	return deal.PushedEvent{Ref: deal.Ref{Object: k.name, ID: canonical}, Wakes: true}
}

// ReadCallout reads what a Flow's HTTP callout posts, whose fields are up to whoever made the Flow: one object or a list of
// them, each with the record's ID as recordId, opportunityId or Id.
func ReadCallout(body []byte) (events []deal.PushedEvent, err error) {
	type record struct {
		RecordID      string `json:"recordId"`
		OpportunityID string `json:"opportunityId"`
		ID            string `json:"id"` // in any case
	}
	var list []record
	if json.Unmarshal(body, &list) != nil {
		list = make([]record, 1)
		if err := json.Unmarshal(body, &list[0]); err != nil {
			return nil, errPush
		}
	}
	if len(list) == 0 || len(list) > mostNotifications {
		return nil, errPush
	}
	for _, r := range list {
		id := cmp.Or(r.RecordID, r.OpportunityID, r.ID)
		if id == "" {
			return nil, errors.New("it names no record: have the Flow send recordId")
		}
		events = append(events, pushed(id))
	}
	return events, nil
}
