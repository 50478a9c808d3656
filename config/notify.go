package config

import (
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// Notify says who is told of what needs a person (docs/notify.md). Without channels nobody is. A reload takes
// all of it.
type Notify struct {
	// Page is the address of the status page that messages link to, without a slash at its end. Default: http:// and
	// listen.admin.
	Page string `yaml:"page"`
	// Name is that of this daemon in messages, where there are several. Default: none.
	Name string `yaml:"name"`
	// Gather is how long an incident is left to grow before it is told, so that a hundred deals that fail together are one
	// message. Default 30s, at most 10m.
	Gather time.Duration `yaml:"gather"`
	// Again is how long after a message what is new of the same incident is told. Default 15m, at least 1m.
	Again time.Duration `yaml:"again"`
	// Weekly is when the summary of the week is told, in UTC, such as "Mon 07:00", or never. Default Mon 07:00.
	Weekly string `yaml:"weekly"`
	// Mail is the server that mail goes through. Required where a channel has mail.
	Mail *Mail `yaml:"mail"`
	// Channels are those who are told.
	Channels []Channel `yaml:"channels"`
}

// Mail is a mail server (submission, RFC 6409).
type Mail struct {
	// Server is its address with the port, such as smtp.example.com:587. Required.
	Server string `yaml:"server"`
	// Security is starttls, tls (from the first byte, usual on port 465) or, for a server on this machine, none. Default: tls
	// on port 465, else starttls. Nothing is said in the clear where TLS fails.
	Security string `yaml:"security"`
	// User and Password log in; the password is read for each message. Default: no login.
	User     string     `yaml:"user"`
	Password secret.Ref `yaml:"password"`
	// From is the sender, such as "dealseal <dealseal@example.com>". Required.
	From string `yaml:"from"`
	// CA is a PEM file with further roots that the server's certificate may lead to. Default: the system's roots alone.
	CA string `yaml:"ca"`
}

// Channel is somebody who is told. It has either mail or a shape.
type Channel struct {
	// ID names it. Lower-case letters, digits, hyphens. Required.
	ID string `yaml:"id"`
	// Mail is the address that is written to: one, which may be a list.
	Mail string `yaml:"mail"`
	// Shape is pagerduty (Events API v2), slack (incoming webhooks, also of Mattermost) or custom.
	Shape string `yaml:"shape"`
	// URL begins with https://, with http:// for a receiver on this machine. Exactly one of URL and URLFrom, for an address that
	// is a secret itself; pagerduty needs none. outbound.allow says which networks beside the internet it may be in.
	URL     string     `yaml:"url"`
	URLFrom secret.Ref `yaml:"url_from"`
	// Key is the integration key of pagerduty.
	Key secret.Ref `yaml:"key"`
	// Body is the template of a custom body, JSON (docs/notify.md has the names); Headers are set beside our own.
	Body    string            `yaml:"body"`
	Headers map[string]string `yaml:"headers"`
	// HeadersFrom are headers whose values are secrets, such as Authorization; they are read for each call.
	HeadersFrom map[string]secret.Ref `yaml:"headers_from"`
	// Kinds and Tenants are those that it is told of. Default: all. What concerns the whole house goes to channels of all tenants.
	Kinds   []string `yaml:"kinds"`
	Tenants []string `yaml:"tenants"`
	// Names has the record's ID and the contract's file name in messages, which may hold names of people. Default false:
	// transaction IDs, reasons and links.
	Names bool `yaml:"names"`
}

// Shapes of calls.
const (
	ShapePagerDuty = "pagerduty"
	ShapeSlack     = "slack"
	ShapeCustom    = "custom"
)

func (n *Notify) defaults() {
	orDefault(&n.Gather, 30*time.Second)
	orDefault(&n.Again, 15*time.Minute)
	orDefault(&n.Weekly, "Mon 07:00")
	if n.Mail != nil && n.Mail.Security == "" {
		n.Mail.Security = "starttls"
		if _, port, err := net.SplitHostPort(n.Mail.Server); err == nil && port == "465" {
			n.Mail.Security = "tls"
		}
	}
}

// HostPort are those of Server.
func (m *Mail) HostPort() (host string, port int, err error) {
	host, text, err := net.SplitHostPort(m.Server)
	if err == nil && host != "" {
		port, err = strconv.Atoi(text)
	}
	if err != nil || host == "" || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("%q is no address with a port, such as smtp.example.com:587", m.Server)
	}
	return host, port, nil
}

// WeeklyAt is the day and the time of Weekly; ok is false for never.
func (n *Notify) WeeklyAt() (day time.Weekday, at time.Duration, ok bool, err error) {
	if n.Weekly == Never {
		return 0, 0, false, nil
	}
	name, clock, _ := strings.Cut(n.Weekly, " ")
	i := slices.Index([]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}, name)
	t, err := time.Parse("15:04", clock)
	if i < 0 || err != nil {
		return 0, 0, false, fmt.Errorf("%q is no time of the week, such as \"Mon 07:00\", nor %q", n.Weekly, Never)
	}
	return time.Weekday(i), time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, true, nil
}

var channelForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// checkNotify looks at what does not depend on what kinds and shapes mean.
func (c *Config) checkNotify() (errs []error) {
	n := c.Notify
	fail := func(path, format string, args ...any) {
		errs = append(errs, c.At("notify."+path, "notify."+path+format, args...))
	}
	if n.Page != "" && !isAddress(n.Page) {
		fail("page", " is %q: it must be the address of the status page, such as https://seal.example.com", n.Page)
	}
	if n.Gather < 0 || n.Gather > 10*time.Minute {
		fail("gather", " is %s: it must be at most 10m", n.Gather)
	}
	if n.Again < time.Minute {
		fail("again", " is %s: it must be at least 1m", n.Again)
	}
	if _, _, _, err := n.WeeklyAt(); err != nil {
		fail("weekly", ": %v", err)
	}
	if n.Mail != nil {
		errs = append(errs, c.checkMail()...)
	}
	lines := map[string]int{}
	for i, ch := range n.Channels {
		path := fmt.Sprintf("channels.%d", i)
		if line, twice := lines[ch.ID]; twice {
			fail(path+".id", " %q is already that of the one in line %d", ch.ID, line)
		}
		lines[ch.ID] = lineOf(c.root, "notify."+path+".id")
		errs = append(errs, c.checkChannel(path, ch)...)
	}
	return errs
}

func isAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") && u.RawQuery == "" && u.Fragment == "" && u.User == nil && !strings.HasSuffix(text, "/")
}

func (c *Config) checkMail() (errs []error) {
	m := c.Notify.Mail
	fail := func(key, format string, args ...any) {
		errs = append(errs, c.At("notify.mail."+key, "notify.mail."+key+format, args...))
	}
	host, _, err := m.HostPort()
	if err != nil {
		fail("server", ": %v", err)
	}
	at, _ := netip.ParseAddr(host)
	switch {
	case !slices.Contains([]string{"starttls", "tls", "none"}, m.Security):
		fail("security", " is %q: it must be starttls, tls or none", m.Security)
	case m.Security == "none" && host != "localhost" && !at.IsLoopback():
		fail("security", " is none: that is for a mail server on this machine, such as 127.0.0.1:25")
	}
	if _, err := mail.ParseAddress(m.From); err != nil {
		fail("from", " is %q: it must be an address, such as \"dealseal <dealseal@example.com>\"", m.From)
	}
	if (m.User == "") != m.Password.IsZero() {
		fail("user", ": user and password belong together")
	}
	if m.Security == "none" && m.User != "" {
		fail("user", ": no password is sent without TLS")
	}
	return errs
}

func (c *Config) checkChannel(path string, ch Channel) (errs []error) {
	fail := func(key, format string, args ...any) {
		path := "notify." + strings.TrimSuffix(path+"."+key, ".")
		errs = append(errs, c.At(path, path+format, args...))
	}
	if !channelForm.MatchString(ch.ID) {
		fail("id", " is %q: it must be lower-case letters, digits and hyphens", ch.ID)
	}
	call := ch.URL != "" || !ch.URLFrom.IsZero()
	switch {
	case (ch.Mail == "") == (ch.Shape == ""):
		fail("", ": a channel has either mail or a shape")
	case ch.Mail != "" && c.Notify.Mail == nil:
		fail("mail", ": notify.mail is missing: name the mail server")
	case ch.Mail != "" && (call || !ch.Key.IsZero() || ch.Body != "" || ch.Headers != nil || ch.HeadersFrom != nil):
		fail("mail", ": url, key, body, headers and headers_from are those of a shape")
	case ch.Shape == "" && ch.Mail != "":
		if _, err := mail.ParseAddress(ch.Mail); err != nil {
			fail("mail", " is %q: it must be one address", ch.Mail)
		}
	case !slices.Contains([]string{ShapePagerDuty, ShapeSlack, ShapeCustom}, ch.Shape):
		fail("shape", " is %q: it must be pagerduty, slack or custom", ch.Shape)
	case ch.URL != "" && !ch.URLFrom.IsZero():
		fail("url", ": give url or url_from, not both")
	case ch.Shape != ShapePagerDuty && !call:
		fail("url", " is missing: give url or, for an address that is a secret itself, url_from")
	case (ch.Shape == ShapePagerDuty) == ch.Key.IsZero():
		fail("key", ": key is that of pagerduty, and needed there")
	case (ch.Shape == ShapeCustom) == (ch.Body == ""):
		fail("body", ": body is the template of a custom shape, and needed there")
	}
	errs = append(errs, c.checkHeaders("notify."+path, ch)...)
	for i, tenant := range ch.Tenants {
		if tenant == "" {
			fail(fmt.Sprintf("tenants.%d", i), " is empty")
		}
	}
	return errs
}

var (
	// headerForm is a token (RFC 9110, 5.6.2), as names of headers are.
	headerForm = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	// secretHeader is a name whose value opens something.
	secretHeader = regexp.MustCompile(`(?i)authorization|cookie|token|secret|password|api-?key|signature`)
)

// checkHeaders sees to it that each is given once, and none of those that open something in plain text.
func (c *Config) checkHeaders(path string, ch Channel) (errs []error) {
	fail := func(key, name, format string, args ...any) {
		errs = append(errs, c.At(path+"."+key+"."+name, "%s.%s: "+format, append([]any{path, key}, args...)...))
	}
	given := map[string]bool{}
	for _, name := range keysOf(ch.Headers) {
		given[strings.ToLower(name)] = true
		switch {
		case !headerForm.MatchString(name):
			fail("headers", name, "%q is no name of a header", name)
		case secretHeader.MatchString(name):
			fail("headers", name, "what %s holds is a secret: say under headers_from where it is, such as credential:%s", name, ch.ID)
		}
	}
	for _, name := range keysOf(ch.HeadersFrom) {
		switch {
		case !headerForm.MatchString(name):
			fail("headers_from", name, "%q is no name of a header", name)
		case given[strings.ToLower(name)]:
			fail("headers_from", name, "%s is under headers as well", name)
		case ch.HeadersFrom[name].IsZero():
			fail("headers_from", name, "%s is empty: say where its value is, such as credential:%s", name, ch.ID)
		}
		given[strings.ToLower(name)] = true
	}
	return errs
}
