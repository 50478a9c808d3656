package hubspot

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

// What HubSpot posts. None of it is believed: it names deals whose histories are then read.

// mostEvents is how many events a webhook has at most.
const mostEvents = 100

var errPush = errors.New("it is not what HubSpot posts")

// number is an ID or a time that may be a number or a text.
type number string

func (n *number) UnmarshalJSON(b []byte) error {
	s := string(bytes.Trim(b, `"`))
	if s == "null" {
		return nil
	}
	if i, err := strconv.ParseInt(s, 10, 64); err != nil || i < 0 {
		return errPush
	}
	*n = number(s)
	return nil
}

// Push is what a request tells.
type Push struct {
	Events []deal.PushedEvent
	// Callbacks are workflows that wait for what it leads to.
	Callbacks []deal.Callback
}

// ReadWebhook reads the events of an app's subscriptions, in both of their forms. portal is ours, empty when it is not known
// yet: an app may be installed in several accounts, and has one address for all of them.
func ReadWebhook(body []byte, portal string) (Push, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil || len(list) > mostEvents {
		return Push{}, errPush
	}
	var p Push
	for _, raw := range list {
		p.Events = append(p.Events, readEvent(raw, portal))
	}
	return p, nil
}

// readEvent returns an event that wakes nobody when it is about something else, or cannot be read: others of the same
// request are not to be sent again for it.
func readEvent(raw json.RawMessage, portal string) deal.PushedEvent {
	var e struct {
		EventID          number `json:"eventId"`
		PortalID         number `json:"portalId"`
		SubscriptionType string `json:"subscriptionType"`
		EventType        string `json:"eventType"` // its name in a part of the documentation
		ObjectID         number `json:"objectId"`
		ObjectTypeID     string `json:"objectTypeId"`
		NewObjectID      number `json:"newObjectId"` // of a merge
		PropertyName     string `json:"propertyName"`
		OccurredAt       number `json:"occurredAt"`
	}
	if json.Unmarshal(raw, &e) != nil {
		return deal.PushedEvent{}
	}
	typ := cmp.Or(e.SubscriptionType, e.EventType)
	of, what, _ := strings.Cut(typ, ".")
	id := cmp.Or(e.NewObjectID, e.ObjectID)
	i := slices.IndexFunc(kinds, func(k kind) bool { return of == k.one || of == "object" && e.ObjectTypeID == k.typeID })
	if i < 0 || id == "" {
		return deal.PushedEvent{}
	}
	k := kinds[i]
	out := deal.PushedEvent{Ref: deal.Ref{Object: k.name, ID: string(id)}}
	if portal != "" && e.PortalID != "" && string(e.PortalID) != portal {
		return out
	}
	switch what {
	case "propertyChange":
		out.Wakes = slices.Contains(k.histories(), e.PropertyName)
	case "creation", "merge", "restore":
		out.Wakes = true
	}
	if e.OccurredAt != "" && out.Wakes {
		// Without the number of the attempt: it tells of the same thing each time. The ID alone is not unique.
		out.Key = fmt.Sprintf("%s %s %s %s %s %s", e.PortalID, typ, id, e.PropertyName, e.OccurredAt, e.EventID)
		if k.name != Object && of == "object" {
			out.Key += " " + e.ObjectTypeID // IDs are unique within an object only
		}
	}
	return out
}

// ReadWorkflow reads what a workflow's action "Send a webhook" posts, whose fields are up to whoever made the workflow: the
// deal's ID is looked for under the names that HubSpot gives it.
func ReadWorkflow(body []byte) (Push, error) {
	var e struct {
		ObjectID   number     `json:"objectId"`
		RecordID   number     `json:"hs_object_id"`
		DealID     number     `json:"dealId"`
		Properties properties `json:"properties"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Push{}, errPush
	}
	id := cmp.Or(e.RecordID, e.ObjectID, e.DealID, e.Properties.ID)
	if id == "" {
		return Push{}, errors.New("it names no deal: have the workflow send hs_object_id")
	}
	return Push{Events: []deal.PushedEvent{{Ref: deal.Ref{Object: Object, ID: string(id)}, Wakes: true}}}, nil
}

// properties are those of a deal, each a value or an object with it.
type properties struct{ ID number }

func (p *properties) UnmarshalJSON(b []byte) error {
	var plain struct {
		ID number `json:"hs_object_id"`
	}
	if json.Unmarshal(b, &plain) == nil {
		p.ID = plain.ID
		return nil
	}
	var nested struct {
		ID struct {
			Value number `json:"value"`
		} `json:"hs_object_id"`
	}
	if json.Unmarshal(b, &nested) == nil {
		p.ID = nested.ID.Value
	}
	return nil
}
