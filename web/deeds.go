package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/role"
)

// Deeds are what people do from the pages. Who and why go into the audit log in the transaction that does it. ErrNotFound
// and *RefusedError are told to the person; the texts of other errors are logged and never shown.
type Deeds interface {
	// Decide retries, releases, prepares anew or drops ("retry", "release", "prepare", "drop") a deal.
	Decide(ctx context.Context, verb string, tx deal.TxID, who, why string) error
	// Turn pauses a tenant or has it go on ("pause", "resume").
	Turn(ctx context.Context, verb string, tenant deal.TenantID, who, why string) error
	// DecideGuarded releases or drops ("release", "drop") all that the guard holds of a scope, and returns how many deals that
	// were. What was begun is brought to its end although ctx ends.
	DecideGuarded(ctx context.Context, verb string, scope deal.GuardScope, who, why string) (n int, err error)
	// Redeliver begins a delivery of an event anew.
	Redeliver(ctx context.Context, delivery int64, who, why string) error
}

// RefusedError means that something cannot be done as things are. Why is for people.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// maxWhy is the longest reason, in characters.
const maxWhy = 500

// decisions are the buttons of a deal, by their verbs.
var decisions = map[string]struct {
	needs       role.Permission
	Word, Means string
}{
	"retry":   {role.Decide, "Try again", "at the step that it is in"},
	"release": {role.Decide, "Release", "it goes on"},
	"prepare": {role.Prepare, "Prepare anew", "gives up what was to be signed; the document is made again"},
	"drop":    {role.Decide, "Drop", "it ends without a contract, for ever"},
}

// button is one that a person may press.
type button struct{ Verb, Word, Means string }

// decider says in whose hands decisions about deals are, as the reader sees it.
type decider struct {
	// Here is set where the reader decides on the pages.
	Here bool
	// Role is the reader's, which may not, and Others those that may; both are empty where nobody decides on the pages.
	Role, Others string
}

func (s *server) decider(ctx context.Context) decider {
	who, _ := reader(ctx)
	if s.Deeds == nil || role.May(who.Role, role.Decide) {
		return decider{Here: s.Deeds != nil}
	}
	var others []string
	for _, r := range deal.TokenRoles {
		if role.May(r, role.Decide) {
			others = append(others, string(r))
		}
	}
	last := len(others) - 1
	return decider{Role: string(who.Role), Others: strings.Join(others[:last], ", ") + " or " + others[last]}
}

// deedForm is what a person may do about a deal, a delivery, a tenant, or what the guard holds.
type deedForm struct {
	Action  string
	Buttons []button
	Episode string // that the person has looked at, of what comes again and again; else empty
	Told    bool   // the reason is told to webhooks and people, too
}

// decideForm has the buttons that fit the deal and the person's role; nil for none.
func (s *server) decideForm(ctx context.Context, d *Deal) *deedForm {
	who, _ := reader(ctx)
	if s.Deeds == nil || d.Erased {
		return nil
	}
	f := &deedForm{Action: "/deals/" + string(d.Sealing.Tx) + "/decide"}
	for _, verb := range verbsFor(d.Sealing) {
		if one := decisions[verb]; role.May(who.Role, one.needs) {
			f.Buttons = append(f.Buttons, button{verb, one.Word, one.Means})
		}
	}
	if f.Buttons == nil {
		return nil
	}
	return f
}

// verbsFor are the decisions that the ledger may take, as the commands on the page say.
func verbsFor(s *deal.Sealing) (verbs []string) {
	if s.Step == deal.Done {
		return nil
	}
	switch s.Condition {
	case deal.Held:
		verbs = []string{"release", "drop"}
	case deal.Dead, deal.Retrying:
		verbs = []string{"retry", "drop"}
	default:
		return nil
	}
	if prepare(s) != "" {
		verbs = append(verbs[:1:1], "prepare", "drop")
	}
	return verbs
}

// decide carries out what a person has decided about a deal.
func (s *server) decide(w http.ResponseWriter, r *http.Request) {
	s.deed(w, r, func(ctx context.Context, who Session, why string) (back string, err error) {
		tx, err := txOf(r)
		if err != nil {
			return "", err
		}
		verb := r.PostFormValue("verb")
		one, known := decisions[verb]
		if !known {
			return "", &problem{status: http.StatusBadRequest, Title: "That cannot be decided", What: "A deal is tried again, released, prepared anew or dropped.", Do: "Go back and use one of the buttons."}
		}
		if p := mustMay(who, one.needs); p != nil {
			return "", p
		}
		if err := s.Deeds.Decide(ctx, verb, tx, who.Who, why); err != nil {
			return "", noDeal(tx, err)
		}
		s.Log.Info("decided by a person on the page", "tx", tx, "verb", verb, "who", who.Who, "session", who.ID)
		return "/deals/" + string(tx), nil
	})
}

// redeliver begins a delivery anew.
func (s *server) redeliver(w http.ResponseWriter, r *http.Request) {
	s.deed(w, r, func(ctx context.Context, who Session, why string) (back string, err error) {
		id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if err == nil {
			err = s.Deeds.Redeliver(ctx, id, who.Who, why)
		} else {
			err = ErrNotFound
		}
		if err != nil {
			return "", noDelivery(err)
		}
		s.Log.Info("a delivery was begun anew on the page", "delivery", id, "who", who.Who, "session", who.ID)
		return "/webhooks/deliveries/" + strconv.FormatInt(id, 10), nil
	})
}

// deed does something for a person who may and says why, and leads back to where it shows.
func (s *server) deed(w http.ResponseWriter, r *http.Request, do func(ctx context.Context, who Session, why string) (back string, err error)) {
	fail := func(err error) {
		s.page(func(context.Context, *http.Request) (*frame, error) { return nil, err })(w, r)
	}
	ctx, cancel := context.WithTimeout(r.Context(), houseLimit)
	defer cancel()
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	why := strings.Join(strings.Fields(r.PostFormValue("why")), " ")
	if why == "" || !utf8.ValidString(why) || utf8.RuneCountInString(why) > maxWhy {
		fail(&problem{status: http.StatusBadRequest, Title: "Say why", What: "Nothing was done: a reason of at most 500 characters is needed. It goes into the audit log.", Do: "Go back and fill in the field."})
		return
	}
	who, _ := reader(ctx)
	back, err := do(ctx, who, why)
	if err != nil {
		fail(refusedDeed(err))
		return
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// refusedDeed puts into words what cannot be done as things are.
func refusedDeed(err error) error {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return &problem{status: http.StatusConflict, Title: "That cannot be done now", What: "Nothing was changed: " + short(refused.Why, 500) + ".", Do: "Go back and load the page again: it may have moved on."}
	}
	return err
}

// mustMay is what those get whose role does not have a permission.
func mustMay(who Session, p role.Permission) *problem {
	if role.May(who.Role, p) {
		return nil
	}
	return &problem{status: http.StatusForbidden, Title: "Your role may not do this",
		What: "You are logged in as " + string(who.Role) + ", which may not " + string(p) + ".",
		Do:   "Whoever administers the daemon gives you another role, or a link for one:", Command: loginCommand + " --role ROLE"}
}
