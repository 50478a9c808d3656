package notify

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	htmltemplate "html/template"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/dealseal/dealseal/webhooks"
)

//go:embed templates/message.txt templates/message.html
var files embed.FS

var (
	textForm = template.Must(template.ParseFS(files, "templates/message.txt"))
	htmlForm = htmltemplate.Must(htmltemplate.ParseFS(files, "templates/message.html"))
)

// House is whom messages come from.
type House struct {
	// Name tells several daemons apart, Page is the address of the status page, without a slash at its end.
	Name, Page string
}

// Message is what a channel is told at once.
type Message struct {
	// ID is the same when the same is told again.
	ID      string
	Subject string
	Items   []Item
	Name    string
	Page    string
	Test    bool
}

// Item is an incident in words.
type Item struct {
	// Key is the same for everything that is told of one incident.
	Key      string
	Kind     Kind
	Severity string // critical, warning or info
	Tenant   string
	Title    string
	Advice   string
	Link     string
	Since    time.Time
	Over     bool
	Lines    []Line
	// More is how many events are not among the lines.
	More int
}

// Line is one event.
type Line struct {
	At          time.Time
	Text        string
	Transaction string
	Link        string
	// Name is that of the contract's file, if the channel has names, and Record the CRM's ID of the record then.
	Name, Record string
}

// wording is what is said of a kind: with one event, and with several.
type wording struct {
	severity, one, many, advice, path string
}

var words = map[Kind]wording{
	Failure:     {"critical", "a deal was given up", "%d deals were given up", "mend the cause, then: dealseal jobs retry TX", "/deals?state=dead"},
	Hold:        {"warning", "a deal waits for a person", "%d deals wait for a person", "decide: dealseal jobs release TX --why \"…\", or drop", "/deals?state=held"},
	Guard:       {"critical", "so many deals came at once that nothing is sealed", "so many deals came at once that nothing is sealed", "look at what the CRM was done to, then: dealseal jobs release --guard TENANT[/RULE] --why \"…\", or drop", "/"},
	DeadLetter:  {"critical", "an event was given up", "%d events were given up", "once the receiver is mended: dealseal webhooks redeliver ENDPOINT --failed --why \"…\"", "/webhooks"},
	Endpoint:    {"warning", "a receiver of webhooks fails", "a receiver of webhooks fails", "dealseal webhooks deliveries ENDPOINT says what it answers", "/webhooks"},
	WriteBack:   {"critical", "a record does not show what is true", "%d records do not show what is true", "dealseal explain TX says what the CRM answers; it is tried again by itself", "/"},
	Login:       {"critical", "the CRM refuses the daemon", "the CRM refuses the daemon", "dealseal doctor says what is missing; deals go on by themselves once it is mended", "/"},
	Pause:       {"warning", "a person has it wait: nothing is sealed", "a person has it wait: nothing is sealed", "once its cause is mended: dealseal tenants resume TENANT --why \"…\"", "/"},
	Certificate: {"warning", "a certificate needs attention", "a certificate needs attention", "dealseal certs shows it; order the next one, import it and activate it", "/"},
	Key:         {"critical", "a key has sealed as much as it may", "a key has sealed as much as it may", "raise max_uses, or wait for the next day where it is max_uses_per_day", "/"},
	Summary:     {"info", "the week", "the week", "", "/"},
}

// Message puts incidents into words.
func (h House) Message(incidents []Incident) Message {
	m := Message{Name: h.Name, Page: h.Page}
	id := sha256.New()
	for _, in := range incidents {
		fmt.Fprintf(id, "%d/%d/%t\n", in.ID, in.Events, in.Closed.IsZero())
		m.Items = append(m.Items, h.item(in))
	}
	slices.SortStableFunc(m.Items, func(a, b Item) int { return weight[a.Severity] - weight[b.Severity] })
	m.ID = hex.EncodeToString(id.Sum(nil)[:16])
	var titles []string
	for _, i := range m.Items {
		titles = append(titles, i.headline())
	}
	m.Subject = "[dealseal] " + strings.Join(titles[:min(len(titles), 2)], "; ")
	if n := len(titles) - 2; n > 0 {
		m.Subject += fmt.Sprintf("; and %d more", n)
	}
	return m
}

var weight = map[string]int{"critical": 0, "warning": 1, "info": 2}

func (i Item) headline() string {
	head := i.Title
	if i.Tenant != "" {
		head = i.Tenant + ": " + head
	}
	if i.Over {
		head = "over: " + head
	}
	return head
}

func (h House) item(in Incident) Item {
	w := words[in.Kind]
	key := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%s\x00%s\x00%s", h.Name, in.Opened.UnixMilli(), in.Kind, in.Tenant, in.Subject))
	i := Item{Key: "dealseal-" + hex.EncodeToString(key[:16]), Kind: in.Kind, Severity: w.severity, Tenant: in.Tenant, Title: w.one, Advice: w.advice, Link: h.Page + w.path,
		Since: in.Opened, Over: !in.Closed.IsZero(), More: in.New - len(in.Newest)}
	n := max(in.New, 1)
	if n > 1 && strings.Contains(w.many, "%d") {
		i.Title = fmt.Sprintf(w.many, n)
	}
	for _, e := range in.Newest {
		line := Line{At: e.At, Text: sentence(e), Name: shorten(e.Title)}
		if e.Title != "" {
			line.Record = e.Record
		}
		if e.Transaction != "" {
			line.Transaction, line.Link = e.Transaction, h.Page+"/deals/"+e.Transaction
		}
		if e.Type == "certificate.revoked" {
			i.Severity, i.Title = "critical", "a certificate was revoked: nothing is sealed with it any more"
		}
		i.Lines = append(i.Lines, line)
	}
	if len(i.Lines) > 0 && (in.Kind == Summary || in.Kind == Certificate && in.New == 1) {
		i.Title = i.Lines[0].Text
		i.Lines = nil
	}
	if in.Kind == Summary && len(in.Newest) > 0 {
		i.Lines, i.More = byTenant(in.Newest[0])
	}
	return i
}

// byTenant are the lines of a summary, and how many there are beside them.
func byTenant(e webhooks.Event) (lines []Line, more int) {
	all := strings.FieldsFunc(e.Data["tenants"], func(r rune) bool { return r == '\n' })
	for _, text := range all[:min(len(all), MostListed)] {
		lines = append(lines, Line{At: e.At, Text: shorten(text)})
	}
	return lines, len(all) - len(lines)
}

// Timed reports whether it matters when each line was.
func (i Item) Timed() bool { return i.Kind != Summary }

// sentence says what happened, of what the catalogue allows an event to hold.
func sentence(e webhooks.Event) string {
	d := func(name string) string { return d(e, name) }
	switch e.Type {
	case "document.failed", "document.held", "crm.writeback_failed", "tenant.paused":
		return d("reason")
	case "guard.held":
		return strings.TrimSpace(d("rule") + " " + d("reason"))
	case "webhook.delivery_failed":
		return fmt.Sprintf("%s to %s: %s", d("event"), d("endpoint"), d("problem"))
	case "webhook.document_failing":
		return fmt.Sprintf("%s to %s has failed %s times and is tried again: %s", d("event"), d("endpoint"), d("attempts"), d("problem"))
	case "webhook.endpoint_failing":
		return fmt.Sprintf("%s: %s attempts in a row have failed, %s %% of what makes it count as broken: %s", d("endpoint"), d("attempts"), d("percent"), d("problem"))
	case "webhook.endpoint_disabled":
		return fmt.Sprintf("%s is disabled, and its events wait: %s", d("endpoint"), d("reason"))
	case "crm.login_refused":
		return strings.TrimPrefix(d("trouble")+": "+d("reason"), ": ")
	case "certificate.expiring":
		return fmt.Sprintf("the certificate %s of key %s ends on %s: %s days or less are left", short(d("certificate")), d("key"), d("until"), d("days"))
	case "certificate.revoked":
		return fmt.Sprintf("the certificate %s of key %s was revoked: %s", short(d("certificate")), d("key"), d("reason"))
	case "key.limit_reached":
		return fmt.Sprintf("the key with public key %s has sealed %s documents, its limit %s", short(d("spki")), d("limit"), d("period"))
	case "house.summary":
		return fmt.Sprintf("%s to %s: %s deals came, %s were sealed, %s ended well, %s were held, %s were given up; %s of calls to CRMs succeeded; half of the deals took %s or less, 95 %% took %s or less",
			d("from"), d("until"), d("noticed"), d("sealed"), d("done"), d("held"), d("dead"), d("success"), d("p50"), d("p95"))
	}
	return e.Type
}

// d is a field of an event's data, in one line and not too long: a reason may hold what a CRM has answered.
func d(e webhooks.Event, name string) string { return shorten(e.Data[name]) }

func short(thumbprint string) string { return thumbprint[:min(len(thumbprint), 16)] }

// Text is the message as plain text.
func (m Message) Text() (string, error) {
	var b bytes.Buffer
	err := textForm.Execute(&b, m)
	return b.String(), err
}

// HTML is the message as a page without anything to load.
func (m Message) HTML() (string, error) {
	var b bytes.Buffer
	err := htmlForm.Execute(&b, m)
	return b.String(), err
}

// Shape is a template of a body for those whose alerts look otherwise; it makes JSON of a Message.
type Shape struct{ form *template.Template }

// ParseShape reads one, and tries it: what it makes must be JSON.
func ParseShape(text string) (Shape, error) {
	form, err := template.New("body").Option("missingkey=error").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
	}).Parse(text)
	if err != nil {
		return Shape{}, err
	}
	s := Shape{form}
	_, err = s.Body(Sample(House{Name: "dealseal", Page: "https://dealseal.example"}))
	return s, err
}

// maxAlert is the largest body that is sent.
const maxAlert = 64 << 10

// Body is a message in this shape.
func (s Shape) Body(m Message) ([]byte, error) {
	var b bytes.Buffer
	if err := s.form.Execute(&b, m); err != nil {
		return nil, err
	}
	if !json.Valid(b.Bytes()) {
		return nil, fmt.Errorf("what it makes is not JSON: put each value in with json, as in {{json .Subject}}")
	}
	if b.Len() > maxAlert {
		return nil, fmt.Errorf("it has %d bytes: at most %d are sent", b.Len(), maxAlert)
	}
	return b.Bytes(), nil
}

// Sample is a message of nothing that happened.
func Sample(h House) Message {
	m := h.Message([]Incident{{Kind: Hold, Tenant: "test", Opened: time.Now(), Events: 1, New: 1,
		Newest: []webhooks.Event{{Type: "document.held", At: time.Now(), Transaction: "test", Data: map[string]string{"reason": "this is a test: nothing happened"}}}}})
	m.Test, m.Subject = true, "[dealseal] a test: nothing happened"
	m.ID = fmt.Sprintf("test-%d", time.Now().UnixNano())
	return m
}
