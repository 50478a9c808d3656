package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/role"
)

// Hooks is what the pages need to know of webhooks. Its methods answer as those of the House do, and change nothing.
type Hooks interface {
	// Endpoints returns all endpoints, in the order in which they are to be shown.
	Endpoints(ctx context.Context) ([]Endpoint, error)
	// Deliveries returns the newest deliveries to an endpoint, or to all if it is empty, in a state, or in any if that is empty.
	Deliveries(ctx context.Context, endpoint, state string, limit int) ([]Delivery, error)
	// Attempts returns the attempts of a delivery, the first first; ErrNotFound.
	Attempts(ctx context.Context, delivery int64) ([]Attempt, error)
}

// Endpoint is where events are delivered to. It holds the host of its address and no secret.
type Endpoint struct {
	ID, Host, Dialect string
	Events            []string // none: all
	Disabled          bool
	Reason            string // why it is disabled
	Failures          int    // of attempts in a row
	Pending, Failed   int64
	Oldest, Succeeded time.Time
}

// Delivery is an event on its way to an endpoint.
type Delivery struct {
	ID             int64
	Endpoint, Type string
	Tx             deal.TxID
	At, Due, Ended time.Time
	State          string // pending, delivered or failed
	Attempts       int
	Problem        string // of the last attempt
}

// Attempt is one at a delivery.
type Attempt struct {
	N       int
	At      time.Time
	Took    time.Duration // 0: nobody knows what came of it
	Status  int
	Problem string
}

// hooksShown is how many deliveries a page has.
const hooksShown = 50

type hooksView struct {
	Endpoints []endpointView
	// Failed are the newest that were given up, Newest those of any state.
	Failed, Newest []deliveryView
}

type endpointView struct {
	Endpoint
	Link, Wants        string
	State              state
	Oldest, Last       *moment
	Pending, FailedNow string
}

type deliveryView struct {
	Delivery
	Link, Short string
	State       state
	At, Due     *moment
}

type attemptsView struct {
	ID   int64
	Deed *deedForm // nil where it cannot be delivered once more from here
	Rows []attemptView
}

type attemptView struct {
	N            int
	At           *moment
	Took, Answer string
}

// hooks shows all endpoints, or with ?endpoint= the deliveries of one.
func (s *server) hooks(ctx context.Context, r *http.Request) (*frame, error) {
	now, one := s.Now(), r.URL.Query().Get("endpoint")
	endpoints, err := s.Hooks.Endpoints(ctx)
	if err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	v := &hooksView{}
	for _, e := range endpoints {
		if one == "" || one == e.ID {
			v.Endpoints = append(v.Endpoints, viewEndpoint(e, now))
		}
	}
	for wanted, into := range map[string]*[]deliveryView{"failed": &v.Failed, "": &v.Newest} {
		all, err := s.Hooks.Deliveries(ctx, one, wanted, hooksShown)
		if err != nil {
			return nil, fmt.Errorf("deliveries: %w", err)
		}
		for _, d := range all {
			*into = append(*into, viewDelivery(d, now))
		}
	}
	return &frame{Title: "Webhooks", Here: "webhooks", Hooks: v}, nil
}

func viewEndpoint(e Endpoint, now time.Time) endpointView {
	v := endpointView{Endpoint: e, Link: "/webhooks?endpoint=" + url.QueryEscape(e.ID), Wants: strings.Join(e.Events, ", "), Oldest: at(e.Oldest, now), Last: at(e.Succeeded, now),
		Pending: number(e.Pending), FailedNow: number(e.Failed), State: state{Mark: "done", Word: "active"}}
	if v.Wants == "" {
		v.Wants = "all"
	}
	switch {
	case e.Disabled:
		v.State = state{Mark: "held", Word: "disabled"}
	case e.Failures > 0:
		v.State = state{Mark: "retrying", Word: "failing", Also: strconv.Itoa(e.Failures) + " in a row"}
	}
	return v
}

func viewDelivery(d Delivery, now time.Time) deliveryView {
	v := deliveryView{Delivery: d, Link: "/webhooks/deliveries/" + strconv.FormatInt(d.ID, 10), Short: string(d.Tx), At: at(d.At, now), Due: at(d.Due, now)}
	switch {
	case d.State == "delivered":
		v.State = state{Mark: "done", Word: "delivered"}
	case d.State == "failed":
		v.State = state{Mark: "dead", Word: "given up"}
	case d.Problem != "":
		v.State = state{Mark: "retrying", Word: "tried again"}
	default:
		v.State = state{Mark: "running", Word: "waiting"}
	}
	return v
}

func (s *server) attempts(ctx context.Context, r *http.Request) (*frame, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	var all []Attempt
	if err == nil {
		all, err = s.Hooks.Attempts(ctx, id)
	} else {
		err = ErrNotFound
	}
	if err != nil {
		return nil, noDelivery(fmt.Errorf("attempts: %w", err))
	}
	v := &attemptsView{ID: id}
	if who, _ := reader(ctx); s.Deeds != nil && role.May(who.Role, role.TryHooks) {
		v.Deed = &deedForm{Action: "/webhooks/deliveries/" + strconv.FormatInt(id, 10) + "/redeliver", Buttons: []button{{"redeliver", "Deliver once more", "with all its attempts"}}}
	}
	for _, a := range all {
		row := attemptView{N: a.N, At: at(a.At, s.Now()), Took: a.Took.Round(time.Millisecond).String(), Answer: a.Problem}
		if a.Problem == "" && a.Status != 0 {
			row.Answer = strconv.Itoa(a.Status)
		}
		if a.Took == 0 {
			row.Took, row.Answer = "", "under way, or the daemon ended meanwhile"
		}
		v.Rows = append(v.Rows, row)
	}
	return &frame{Title: "Delivery", Here: "webhooks", Attempts: v}, nil
}

// noDelivery puts into words that there is none.
func noDelivery(err error) error {
	if errors.Is(err, ErrNotFound) {
		return &problem{status: http.StatusNotFound, Title: "There is no such delivery",
			What: "Nothing is known of this delivery: it never was, or it ended more than thirty days ago.", Do: "/webhooks lists the newest."}
	}
	return err
}
