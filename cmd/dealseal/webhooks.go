package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/webhooks"
)

// hookOptions are the flags of webhooks alone.
type hookOptions struct {
	dialect, format, events, secret, event, state, since string
	publicKey, url, at                                   string // of debug
	asymmetric, title, callbacks, failed                 bool
}

// hookChange is what a person wants of an endpoint.
type hookChange struct {
	Verb string `json:"verb"` // add, remove, enable, disable, rotate, test or redeliver
	ID   string `json:"id,omitempty"`
	// Endpoint is the one to add. Secret is one that was chosen; empty: one is made.
	Endpoint *webhooks.Endpoint `json:"endpoint,omitempty"`
	Secret   []byte             `json:"secret,omitempty"`
	// Event is the type to test with.
	Event string           `json:"event,omitempty"`
	Again store.Redelivery `json:"again,omitzero"`
	Why   string           `json:"why,omitempty"`
	// Who is filled in by whoever knows it for sure.
	Who string `json:"-"`
}

// hookAnswer is what came of it.
type hookAnswer struct {
	// Secret is what the receiver has to be given: it is shown this once.
	Secret string `json:"secret,omitempty"`
	// Deliveries is how many are made again.
	Deliveries int64 `json:"deliveries,omitempty"`
	// Status, Problem, Answer and Took are what came of a test.
	Status  int           `json:"status,omitempty"`
	Problem string        `json:"problem,omitempty"`
	Answer  string        `json:"answer,omitempty"`
	Took    time.Duration `json:"took,omitempty"`
}

const hookUsage = "list, add TENANT/NAME URL, remove ENDPOINT, enable ENDPOINT, disable ENDPOINT, rotate ENDPOINT, test ENDPOINT, deliveries [ENDPOINT], attempts DELIVERY, redeliver DELIVERY, redeliver ENDPOINT --failed or --since TIME, events [TYPE], secret, or debug DIALECT HEADERS BODY"

// webhooksCommand shows the endpoints of webhooks, or decides about one.
func webhooksCommand(ctx context.Context, c *call) error {
	verb, args := "list", []string(nil)
	if len(c.args) > 0 {
		verb, args = c.args[0], c.args[1:]
	}
	switch {
	case verb == "list" && len(args) == 0:
		return listHooks(ctx, c)
	case verb == "events" && len(args) <= 1:
		return printEvents(c, args)
	case verb == "secret" && len(args) == 0:
		return printSecret(c)
	case verb == "deliveries" && len(args) <= 1:
		return listDeliveries(ctx, c, args)
	case verb == "attempts" && len(args) == 1:
		return listAttempts(ctx, c, args[0])
	case verb == "debug" && len(args) == 3:
		return debugHook(c, args[0], args[1], args[2])
	case verb == "add" && len(args) == 2:
		return addHook(ctx, c, args[0], args[1])
	case slices.Contains([]string{"remove", "enable", "disable", "rotate", "test", "redeliver"}, verb) && len(args) == 1:
		return changeHook(ctx, c, verb, args[0])
	}
	return usagef("%q cannot be done with webhooks: it is %s", strings.Join(c.args, " "), hookUsage)
}

func listHooks(ctx context.Context, c *call) error {
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	all, err := ops.Webhooks(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, all)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.stdout, "there are none: name them in a tenant's file, or add one with \"dealseal webhooks add\"")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENDPOINT\tSTATE\tWAITING\tFAILED\tIN A ROW\tLAST TAKEN\tDIALECT\tEVENTS\tHOST")
	for _, e := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", e.ID, e.State, e.Pending, e.Failed, e.Failures, orNever(e.Succeeded), e.Dialect, eventsOf(e), e.Host)
		if e.Reason != "" {
			fmt.Fprintf(w, "\t  %s\n", printable(e.Reason))
		}
	}
	return w.Flush()
}

func eventsOf(e store.EndpointState) string {
	events := cmp.Or(strings.Join(e.Events, ","), "all")
	if e.Callbacks {
		events += " of callbacks"
	}
	return events
}

func orNever(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.Format(time.RFC3339)
}

func printEvents(c *call, args []string) error {
	if len(args) == 1 {
		kind, known := webhooks.Known(args[0])
		if !known {
			return usagef("there is no event %q: \"dealseal webhooks events\" lists them", args[0])
		}
		return printJSON(c.stdout, kind.Schema())
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, kind := range webhooks.Catalogue {
		fmt.Fprintf(w, "%s\t%s\n", kind.Name, kind.Summary)
	}
	return w.Flush()
}

func printSecret(c *call) error {
	e := webhooks.Endpoint{Dialect: c.hooks.dialect, Asymmetric: c.hooks.asymmetric}
	e.Defaults()
	s, err := e.NewSecret()
	if err != nil {
		return err
	}
	if c.hooks.asymmetric {
		public, err := e.Shown(s)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.stderr, "for the receiver: %s\n", public)
	}
	_, err = fmt.Fprintf(c.stdout, "%s\n", s.Reveal())
	return err
}

func listDeliveries(ctx context.Context, c *call, args []string) error {
	if !slices.Contains([]string{"", "pending", "delivered", "failed"}, c.hooks.state) {
		return usagef("--state is %q: it must be pending, delivered or failed", c.hooks.state)
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	endpoint := ""
	if len(args) == 1 {
		endpoint = args[0]
	}
	all, err := ops.Deliveries(ctx, endpoint, c.hooks.state, c.limit)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, all)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DELIVERY\tENDPOINT\tTYPE\tTRANSACTION\tOCCURRED\tSTATE\tATTEMPTS\tLAST ANSWER")
	for _, d := range all {
		state := d.State
		if !d.Due.IsZero() {
			state += ", due " + d.Due.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", d.ID, d.Endpoint, d.Type, d.Tx, d.At.Format(time.RFC3339), state, d.Attempts, answerOf(d.Status, d.Problem))
	}
	return w.Flush()
}

func answerOf(status int, problem string) string {
	if problem != "" {
		return printable(problem)
	}
	if status != 0 {
		return strconv.Itoa(status)
	}
	return ""
}

func listAttempts(ctx context.Context, c *call, delivery string) error {
	id, err := strconv.ParseInt(delivery, 10, 64)
	if err != nil {
		return usagef("%q is no delivery: \"dealseal webhooks deliveries\" lists their numbers", delivery)
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	all, err := ops.Attempts(ctx, id)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, all)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ATTEMPT\tAT\tTOOK\tANSWER\tBEGINS WITH")
	for _, a := range all {
		took := a.Took.Round(time.Millisecond).String()
		if a.Took == 0 {
			took = "nobody knows: it is under way, or the daemon ended meanwhile"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", a.N, a.At.Format(time.RFC3339), took, answerOf(a.Status, a.Problem), printable(strings.Join(strings.Fields(a.Answer), " ")))
	}
	return w.Flush()
}

// addHook makes an endpoint. An address that holds a token is read from standard input, because command lines can be seen.
func addHook(ctx context.Context, c *call, id, address string) error {
	if c.why == "" {
		return usagef("say why with --why \"…\": it goes into the audit log")
	}
	if address == "-" {
		line, err := bufio.NewReader(io.LimitReader(c.in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		address = strings.TrimSpace(line)
	}
	tenant, _, _ := strings.Cut(id, "/")
	e := webhooks.Endpoint{ID: id, Tenant: tenant, URL: address, Dialect: c.hooks.dialect, Format: c.hooks.format, Asymmetric: c.hooks.asymmetric, Title: c.hooks.title, Callbacks: c.hooks.callbacks}
	if c.hooks.events != "" {
		e.Events = strings.Split(c.hooks.events, ",")
	}
	return carryOutHook(ctx, c, hookChange{Verb: "add", ID: id, Endpoint: &e, Why: c.why})
}

func changeHook(ctx context.Context, c *call, verb, id string) error {
	change := hookChange{Verb: verb, ID: id, Event: c.hooks.event, Why: c.why}
	if c.why == "" && verb != "test" {
		return usagef("say why with --why \"…\": it goes into the audit log")
	}
	if verb == "redeliver" {
		change.Again = store.Redelivery{Endpoint: id, Failed: c.hooks.failed}
		if n, err := strconv.ParseInt(id, 10, 64); err == nil {
			change.Again = store.Redelivery{Delivery: n}
		}
		if c.hooks.since != "" {
			since, err := time.Parse(time.RFC3339, c.hooks.since)
			if err != nil {
				return usagef("--since is %q: write it as 2027-01-31T06:00:00Z", c.hooks.since)
			}
			change.Again.Since = since
		}
	}
	return carryOutHook(ctx, c, change)
}

func carryOutHook(ctx context.Context, c *call, change hookChange) error {
	if c.hooks.secret != "" {
		from, err := secret.ParseRef(c.hooks.secret)
		if err != nil {
			return usagef("--secret: %v", err)
		}
		s, err := from.Resolve()
		if err != nil {
			return fmt.Errorf("--secret: %w", err)
		}
		change.Secret = s.Reveal()
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	a, err := ops.ChangeWebhook(ctx, change)
	if err != nil {
		return err
	}
	return printHookAnswer(c, change, a)
}

func printHookAnswer(c *call, change hookChange, a hookAnswer) (err error) {
	switch {
	case change.Verb == "test" && a.Problem != "":
		return fmt.Errorf("%s: %s after %s %s", change.ID, printable(a.Problem), a.Took.Round(time.Millisecond), printable(a.Answer))
	case change.Verb == "test":
		_, err = fmt.Fprintf(c.stdout, "%s: it answered %d after %s\n", change.ID, a.Status, a.Took.Round(time.Millisecond))
	case change.Verb == "redeliver":
		_, err = fmt.Fprintf(c.stdout, "deliveries that are made again: %d\n", a.Deliveries)
	case a.Secret != "":
		fmt.Fprintf(c.stderr, "%s: give this to the receiver; it is shown this once\n", change.ID)
		_, err = fmt.Fprintln(c.stdout, a.Secret)
	default:
		_, err = fmt.Fprintf(c.stdout, "%s: %s\n", change.ID, map[string]string{"add": "added, with the secret that was given", "remove": "removed", "enable": "enabled", "disable": "disabled; its events wait", "rotate": "the secret that was given counts, and for a day the one before"}[change.Verb])
	}
	return err
}

// ChangeWebhook carries out what a person wants of an endpoint.
func (l *local) ChangeWebhook(ctx context.Context, c hookChange) (a hookAnswer, err error) {
	c.Who = cmp.Or(c.Who, l.who)
	switch c.Verb {
	case "add":
		return l.addWebhook(ctx, c)
	case "rotate":
		return l.rotateWebhook(ctx, c)
	case "test":
		return l.testWebhook(ctx, c)
	case "remove":
		return a, l.RemoveEndpoint(ctx, c.ID, c.Who, c.Why)
	case "enable", "disable":
		return a, l.SetEndpoint(ctx, c.ID, c.Verb == "enable", c.Who, c.Why)
	case "redeliver":
		a.Deliveries, err = l.Redeliver(ctx, c.Again, c.Who, c.Why)
		return a, err
	}
	return a, fmt.Errorf("%q is nothing that can be done with a webhook", c.Verb)
}

func (l *local) addWebhook(ctx context.Context, c hookChange) (a hookAnswer, err error) {
	if c.Endpoint == nil {
		return a, errors.New("no endpoint was given")
	}
	e := *c.Endpoint
	e.Defaults()
	tenants, err := l.configured()
	if err != nil {
		return a, err
	}
	var known []string
	for _, t := range tenants {
		known = append(known, t.Tenant.ID)
	}
	if !slices.Contains(known, e.Tenant) {
		return a, fmt.Errorf("%q is no configured tenant: an endpoint is called TENANT/NAME, with one of %s", e.Tenant, strings.Join(known, ", "))
	}
	s, shown, err := chosenSecret(e, c.Secret)
	if err != nil {
		return a, err
	}
	e.Secrets = []webhooks.Secret{{Value: s}}
	return hookAnswer{Secret: shown}, l.AddEndpoint(ctx, e, c.Who, c.Why)
}

// chosenSecret is the secret that was given, or a new one and what is shown of it.
func chosenSecret(e webhooks.Endpoint, given []byte) (s secret.Secret, shown string, err error) {
	if len(given) > 0 {
		return secret.New(given), "", nil
	}
	if s, err = e.NewSecret(); err != nil {
		return s, "", err
	}
	shown, err = e.Shown(s)
	return s, shown, err
}

func (l *local) rotateWebhook(ctx context.Context, c hookChange) (a hookAnswer, err error) {
	e, err := l.Endpoint(ctx, c.ID)
	if err != nil {
		return a, err
	}
	s, shown, err := chosenSecret(e, c.Secret)
	if err != nil {
		return a, err
	}
	return hookAnswer{Secret: shown}, l.RotateEndpoint(ctx, c.ID, s, c.Who, c.Why)
}

// testWebhook sends an event that never was, signed as all others are.
func (l *local) testWebhook(ctx context.Context, c hookChange) (a hookAnswer, err error) {
	e, err := l.Endpoint(ctx, c.ID)
	if err != nil {
		return a, err
	}
	i := slices.IndexFunc(webhooks.Catalogue, func(t webhooks.EventType) bool {
		return e.Wants(t.Name) && (c.Event == "" || c.Event == t.Name)
	})
	if i < 0 {
		return a, &store.EndpointError{ID: c.ID, Reason: fmt.Sprintf("it takes no event %q", c.Event)}
	}
	d, err := l.deliverer()
	if err != nil {
		return a, err
	}
	o, err := d.Try(ctx, e, webhooks.Sample(webhooks.Catalogue[i], e.Tenant, time.Now()))
	return hookAnswer{Status: o.Status, Problem: o.Problem, Answer: string(o.Answer), Took: o.Took}, err
}

func (l *local) Webhooks(ctx context.Context) ([]store.EndpointState, error) {
	return l.EndpointStates(ctx)
}

// hookRoutes are the part of the control socket that is about webhooks.
func hookRoutes(log *slog.Logger, ops operations) func(*http.ServeMux) {
	return func(mux *http.ServeMux) {
		mux.HandleFunc("GET /webhooks", func(w http.ResponseWriter, r *http.Request) {
			all, err := ops.Webhooks(r.Context())
			answer(w, all, err)
		})
		mux.HandleFunc("GET /webhooks/deliveries", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			limit, err := strconv.Atoi(q.Get("limit"))
			if err != nil {
				answer(w, nil, err)
				return
			}
			all, err := ops.Deliveries(r.Context(), q.Get("endpoint"), q.Get("state"), limit)
			answer(w, all, err)
		})
		mux.HandleFunc("GET /webhooks/deliveries/{id}", func(w http.ResponseWriter, r *http.Request) {
			id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
			if err != nil {
				answer(w, nil, err)
				return
			}
			all, err := ops.Attempts(r.Context(), id)
			answer(w, all, err)
		})
		mux.HandleFunc("POST /webhooks", func(w http.ResponseWriter, r *http.Request) {
			var c hookChange
			if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&c); err != nil {
				answer(w, nil, err)
				return
			}
			if c.Who = peerOf(r.Context()); c.Who == "" {
				answer(w, nil, errNoPeer)
				return
			}
			a, err := ops.ChangeWebhook(r.Context(), c)
			if err == nil {
				log.Info("decided about a webhook", "verb", c.Verb, "endpoint", c.ID, "who", c.Who)
			}
			answer(w, a, err)
		})
	}
}

func (r *remote) Webhooks(ctx context.Context) (all []store.EndpointState, err error) {
	return all, r.ask(ctx, "GET", "/webhooks", nil, &all)
}

func (r *remote) ChangeWebhook(ctx context.Context, c hookChange) (a hookAnswer, err error) {
	body, err := json.Marshal(c)
	if err != nil {
		return a, err
	}
	return a, r.ask(ctx, "POST", "/webhooks", body, &a)
}

func (r *remote) Deliveries(ctx context.Context, endpoint, state string, limit int) (all []store.DeliveryState, err error) {
	return all, r.ask(ctx, "GET", fmt.Sprintf("/webhooks/deliveries?endpoint=%s&state=%s&limit=%d", url.QueryEscape(endpoint), url.QueryEscape(state), limit), nil, &all)
}

func (r *remote) Attempts(ctx context.Context, delivery int64) (all []store.AttemptState, err error) {
	return all, r.ask(ctx, "GET", fmt.Sprintf("/webhooks/deliveries/%d", delivery), nil, &all)
}
