package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/notify"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store"
)

// channels makes those that notify names. Nothing is asked of anybody yet.
func (h *house) channels() (all []notify.Channel, err error) {
	n := h.cfg.Notify
	var errs []error
	for i, c := range n.Channels {
		path := fmt.Sprintf("notify.channels.%d", i)
		f := notify.Filter{Channel: c.ID, Tenants: c.Tenants, Names: c.Names, Gather: n.Gather, Again: n.Again, Ends: c.Shape == config.ShapePagerDuty}
		for _, kind := range c.Kinds {
			if !slices.Contains(notify.Kinds, notify.Kind(kind)) {
				errs = append(errs, h.cfg.At(path+".kinds", "%s.kinds: there is no kind %q: it must be one of %s", path, kind, joinKinds()))
			}
			f.Kinds = append(f.Kinds, notify.Kind(kind))
		}
		s, err := h.sender(path, c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, notify.Channel{Filter: f, Sender: s})
	}
	return all, errors.Join(errs...)
}

func joinKinds() string {
	var list []string
	for _, k := range notify.Kinds {
		list = append(list, string(k))
	}
	return strings.Join(list, ", ")
}

func (h *house) sender(path string, c config.Channel) (notify.Sender, error) {
	if c.Mail != "" {
		return h.mailbox(c.Mail)
	}
	hook := &notify.Hook{Headers: c.Headers, HeadersFrom: map[string]func() (string, error){}, Version: version, URL: readAddress(c)}
	for name, from := range c.HeadersFrom {
		hook.HeadersFrom[name] = func() (string, error) { return reveal("header "+name, from) }
	}
	switch c.Shape {
	case config.ShapePagerDuty:
		hook.Form, hook.Single = notify.PagerDuty{RoutingKey: func() (string, error) { return reveal("key", c.Key) }}, true
	case config.ShapeSlack:
		hook.Form = notify.Slack{}
	default:
		shape, err := notify.ParseShape(c.Body)
		if err != nil {
			return nil, h.cfg.At(path+".body", "%s.body: %v", path, err)
		}
		hook.Form = shape
	}
	d, err := newDeliverer(h.cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	encrypted := true
	if u, err := url.Parse(c.URL); c.URL != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		return nil, h.cfg.At(path+".url", "%s.url is no address: it begins with https://", path)
	} else if u != nil && u.Scheme == "http" {
		encrypted = false
	}
	hook.Client = d.Guard.Client(encrypted, d.Trust)
	return hook, nil
}

func reveal(what string, from secret.Ref) (string, error) {
	s, err := from.Resolve()
	if err != nil {
		return "", fmt.Errorf("its %s cannot be read: %w", what, err)
	}
	return strings.TrimSpace(s.RevealString()), nil
}

// readAddress reads an address that is a secret for each call.
func readAddress(c config.Channel) func() (string, error) {
	return func() (string, error) {
		if c.URLFrom.IsZero() {
			return cmp.Or(c.URL, notify.PagerDutyURL), nil
		}
		address, err := reveal("url_from", c.URLFrom)
		if err == nil && !strings.HasPrefix(address, "https://") {
			err = errors.New("what url_from names does not begin with https://")
		}
		return address, err
	}
}

func (h *house) mailbox(to string) (*notify.Mailbox, error) {
	m := h.cfg.Notify.Mail
	host, port, err := m.HostPort()
	if err != nil {
		return nil, h.cfg.At("notify.mail.server", "notify.mail.server: %v", err)
	}
	b := &notify.Mailbox{Host: host, Port: port, Security: m.Security, User: m.User, Password: m.Password, From: m.From, To: to}
	b.Roots, err = h.rootsWith("notify.mail.ca", m.CA)
	return b, err
}

// names is whom messages come from.
func (h *house) names() notify.House {
	return notify.House{Name: h.cfg.Notify.Name, Page: cmp.Or(h.cfg.Notify.Page, "http://"+h.cfg.Listen.Admin)}
}

// newNotifier makes what tells people, and has the ledger know whom.
func (d *service) newNotifier(ctx context.Context) error {
	channels, err := d.house.channels()
	if err != nil {
		return err
	}
	d.messages = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dealseal_notify_messages_total", Help: "Messages to people, by whether they were taken: sent or failed."}, []string{"channel", "result"})
	d.notifier = notify.New(d.store, d.log)
	d.notifier.Sent = func(channel string, ok bool) { d.messages.WithLabelValues(channel, sentOrFailed[ok]).Inc() }
	return d.tellThese(ctx, d.house, channels)
}

var sentOrFailed = map[bool]string{true: "sent", false: "failed"}

// tellThese has channels told from now on, and no others.
func (d *service) tellThese(ctx context.Context, h *house, channels []notify.Channel) error {
	var names []string
	for _, c := range channels {
		names = append(names, c.Filter.Channel)
	}
	if err := d.store.ConfigureChannels(ctx, names); err != nil {
		return err
	}
	for _, name := range names {
		for _, result := range sentOrFailed {
			d.messages.WithLabelValues(name, result)
		}
	}
	d.notifier.Set(h.names(), channels)
	return nil
}

// audience tells the ledger whom certificates and templates concern.
func (h *house) audience() (keys map[string][]deal.TenantID, templates []store.Template) {
	keys = map[string][]deal.TenantID{}
	users := map[string][]deal.TenantID{} // of templates, by hash
	for _, t := range h.tenants {
		id := deal.TenantID(t.file.Tenant.ID)
		for _, r := range t.file.Rules {
			if key := h.keyOf(r); key != "" {
				keys[key] = append(keys[key], id)
			}
		}
		for _, r := range t.rules {
			for _, hash := range []string{r.Plan.Bundle, r.Plan.AuditTrail} {
				users[hash] = append(users[hash], id)
			}
		}
	}
	for key, all := range keys {
		keys[key] = slices.Compact(slices.Sorted(slices.Values(all)))
	}
	for _, name := range slices.Sorted(maps.Keys(h.bundles)) {
		b := h.bundles[name]
		templates = append(templates, store.Template{Name: b.Name(), Hash: b.Hash(), Tenants: slices.Compact(slices.Sorted(slices.Values(users[b.Hash()])))})
	}
	return keys, templates
}

// tellWeekly tells how the week was, once each week, until ctx ends.
func (d *service) tellWeekly(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	var told time.Time
	for {
		var err error
		if told, err = d.summarise(ctx, time.Now().UTC(), told); err != nil && ctx.Err() == nil {
			d.log.Error("the week could not be summed up", "err", err)
		}
		if _, err := d.store.PruneIncidents(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("old incidents could not be forgotten", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// summarise tells of the seven days before the last time that a summary was due, however long ago that was: a daemon that was down
// then tells late. It returns that time, for the next call. What an earlier daemon has told is not told again, and of a week
// before all that the ledger knows there is nothing to tell.
func (d *service) summarise(ctx context.Context, now, told time.Time) (time.Time, error) {
	h := d.residents.house()
	day, clock, on, err := h.cfg.Notify.WeeklyAt()
	if err != nil || !on || len(h.cfg.Notify.Channels) == 0 {
		return told, err
	}
	midnight := now.Truncate(24*time.Hour).AddDate(0, 0, -int((now.Weekday()-day+7)%7))
	due := midnight.Add(clock)
	if due.After(now) {
		due = due.AddDate(0, 0, -7)
	}
	if due.Equal(told) {
		return told, nil
	}
	first := due.Truncate(24*time.Hour).AddDate(0, 0, -7)
	last := first.AddDate(0, 0, 6)
	w, err := d.store.Week(ctx, first, last)
	if err != nil || !w.Known {
		return told, err
	}
	for _, t := range h.tenants {
		id := deal.TenantID(t.file.Tenant.ID)
		w.Tenants[id] = w.Tenants[id] // that nothing came of one is worth knowing, too
	}
	if err := d.store.Announce(ctx, "house.summary", "", last.Format(time.DateOnly), inWords(w, first, last)); err != nil {
		return told, err
	}
	return due, nil
}

// inWords adds the tenants up, and says the same of each: those first that need somebody.
func inWords(w deal.Week, first, last time.Time) map[string]string {
	var sum deal.Day
	var lines []string
	for _, id := range slices.SortedFunc(maps.Keys(w.Tenants), func(a, b deal.TenantID) int {
		x, y := w.Tenants[a], w.Tenants[b]
		return cmp.Or(cmp.Compare(y.Dead, x.Dead), cmp.Compare(y.Held, x.Held), cmp.Compare(y.Noticed, x.Noticed), cmp.Compare(a, b))
	}) {
		one := w.Tenants[id]
		sum.Noticed, sum.Sealed, sum.Done, sum.Held, sum.Dead = sum.Noticed+one.Noticed, sum.Sealed+one.Sealed, sum.Done+one.Done, sum.Held+one.Held, sum.Dead+one.Dead
		sum.Calls, sum.FailedCalls = sum.Calls+one.Calls, sum.FailedCalls+one.FailedCalls
		lines = append(lines, fmt.Sprintf("%s: %d came, %d were sealed, %d ended well, %d were held, %d were given up", id, one.Noticed, one.Sealed, one.Done, one.Held, one.Dead))
	}
	success := "none"
	if sum.Calls > 0 {
		success = fmt.Sprintf("%.2f %%", 100*float64(sum.Calls-sum.FailedCalls)/float64(sum.Calls))
	}
	return map[string]string{"from": first.Format(time.DateOnly), "until": last.Format(time.DateOnly), "noticed": fmt.Sprint(sum.Noticed), "sealed": fmt.Sprint(sum.Sealed),
		"done": fmt.Sprint(sum.Done), "held": fmt.Sprint(sum.Held), "dead": fmt.Sprint(sum.Dead), "success": success,
		"p50": w.Flow.P50.Round(time.Millisecond).String(), "p95": w.Flow.P95.Round(time.Millisecond).String(), "tenants": strings.Join(lines, "\n")}
}

// notifyWatch tells Prometheus how channels are doing.
type notifyWatch struct{ store *store.Store }

var channelTriesDesc = prometheus.NewDesc("dealseal_notify_failures", "Messages to a channel in a row that were not taken; they are tried again.", []string{"channel"}, nil)

// Describe implements prometheus.Collector.
func (w notifyWatch) Describe(ch chan<- *prometheus.Desc) { ch <- channelTriesDesc }

// Collect implements prometheus.Collector.
func (w notifyWatch) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := w.store.Channels(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(channelTriesDesc, err)
		return
	}
	for _, c := range all {
		ch <- prometheus.MustNewConstMetric(channelTriesDesc, prometheus.GaugeValue, float64(c.Tries), c.Name)
	}
}

// channelsAnswer reports which channels take no messages.
func (d *service) channelsAnswer(ctx context.Context) error {
	all, err := d.store.Channels(ctx)
	if err != nil {
		return err
	}
	var mute []string
	for _, c := range all {
		if c.Tries > 0 {
			mute = append(mute, fmt.Sprintf("%s (%s)", c.Name, c.Problem))
		}
	}
	if mute == nil {
		return nil
	}
	return fmt.Errorf("people are not told: %s; it is tried again by itself", strings.Join(mute, ", "))
}

const checkChannel = "notify"

// examineChannel connects, encrypts and logs in, and tells nobody anything.
func (x *examiner) examineChannel(c notify.Channel) doctor.Examination {
	name := c.Filter.Channel
	return examination(doctor.Machine, checkChannel, name, keyLimit, func(ctx context.Context, report func(doctor.Finding)) {
		f := doctor.Passed(checkChannel, "it answers; \"dealseal notify test %s\" sends something", name)
		if err := c.Sender.Probe(ctx); err != nil {
			f = doctor.Failed(checkChannel, "mend notify in dealseal.yaml, or what it names, and reload: nobody is told of trouble here", "%s", notify.Problem(err))
		}
		f.Subject = name
		report(f)
	})
}

// notifyCommand lists the channels, or has one told something.
func notifyCommand(ctx context.Context, c *call) error {
	verb := "list"
	if len(c.args) > 0 {
		verb = c.args[0]
	}
	switch {
	case verb == "list" && len(c.args) <= 1:
		return listChannels(ctx, c)
	case verb == "test" && len(c.args) == 2:
		return testChannel(ctx, c, c.args[1])
	}
	return usagef("%q cannot be done: it is list, or test CHANNEL", strings.Join(c.args, " "))
}

func listChannels(ctx context.Context, c *call) error {
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	all, err := ops.Channels(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, all)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.stdout, "nobody is told: name channels under notify in dealseal.yaml, and reload")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHANNEL\tLAST TAKEN\tFAILED IN A ROW\tPROBLEM")
	for _, one := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", one.Name, orNever(one.Succeeded), one.Tries, printable(one.Problem))
	}
	return w.Flush()
}

// testChannel tells by itself: it needs no daemon, and the configuration as it is now.
func testChannel(ctx context.Context, c *call, name string) error {
	cfg, err := config.LoadWithoutTenants(c.config)
	if err != nil {
		return err
	}
	h := &house{cfg: cfg}
	all, err := h.channels()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(one notify.Channel) bool { return one.Filter.Channel == name })
	if i < 0 {
		return fmt.Errorf("there is no channel %q under notify.channels of %s", name, cfg.File)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := all[i].Sender.Send(ctx, notify.Sample(h.names())); err != nil {
		return fmt.Errorf("%s: %s", name, printable(notify.Problem(err)))
	}
	_, err = fmt.Fprintf(c.stdout, "%s: a test was sent, and taken\n", name)
	return err
}

// channelRoutes are the part of the control socket that is about channels.
func channelRoutes(ops operations) func(*http.ServeMux) {
	return func(mux *http.ServeMux) {
		mux.HandleFunc("GET /channels", func(w http.ResponseWriter, r *http.Request) {
			all, err := ops.Channels(r.Context())
			answer(w, all, err)
		})
	}
}

func (r *remote) Channels(ctx context.Context) (all []store.ChannelState, err error) {
	return all, r.ask(ctx, "GET", "/channels", nil, &all)
}
