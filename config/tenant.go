package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/dealseal/dealseal/pins"
)

// Tenant is one tenant file: one CRM account and its rules. A reload takes every change of it. Deals that are known
// already keep the plan that they were noticed with, but take a changed crm from their next step on.
type Tenant struct {
	Tenant Identity `yaml:"tenant"`
	CRM    CRM      `yaml:"crm"`
	Rules  []Rule   `yaml:"rules"`
	// Guard limits the deals of all rules together. See Guard.
	Guard Caps `yaml:"guard"`
	// Reconcile is when and how far back the CRM is compared with the ledger.
	Reconcile Reconcile `yaml:"reconcile"`
	// Tasks are given to people in the CRM.
	Tasks Tasks `yaml:"tasks"`
	// Webhooks are told what becomes of this tenant's deals.
	Webhooks []Webhook `yaml:"webhooks"`
	// Push are senders that may have the account looked at at once instead of at the next poll. What they tell is never
	// believed: the CRM is asked. Default: none; everything works without.
	Push []Push `yaml:"push"`

	// Vendors have people sign documents in the place of dealseal, for rules that say so. Default: none.
	Vendors []Vendor `yaml:"vendors"`

	// File is the path that was read.
	File string `yaml:"-"`

	root *yaml.Node
}

// Identity names a tenant.
type Identity struct {
	// ID is immutable: it is part of the archive's layout and of the data keys. Lower-case letters, digits, hyphens.
	ID string `yaml:"id"`
	// Name is for people. Default: the id.
	Name string `yaml:"name"`
	// Environment is production or sandbox, and the CRM must agree. Required.
	Environment string `yaml:"environment"`
	// TestMark runs across every page of what is sealed in a sandbox: words of at most 60 characters, or "off". A file that people
	// have attached and that is signed already cannot be marked, and is held. Default in a sandbox "TEST – not a contract".
	TestMark string `yaml:"test_mark"`
	// TimeZone is an IANA name, for dates in documents. Default UTC.
	TimeZone string `yaml:"time_zone"`
	// Seller are details of the house for documents: seller.address in a template is address here.
	Seller map[string]string `yaml:"seller"`
	// Currency is the ISO 4217 code of money that the CRM gives without one. Default: none, such a document is held.
	Currency string `yaml:"currency"`
}

// Unmarked is Identity.TestMark for a sandbox whose documents look as those of production do.
const Unmarked = "off"

// usualTestMark is for readers who have never heard of a sandbox.
const usualTestMark = "TEST – not a contract"

// Mark is what runs across every page; empty for nothing.
func (i Identity) Mark() string {
	if i.TestMark == Unmarked {
		return ""
	}
	return i.TestMark
}

// Never is Reconcile.At for a tenant that is reconciled only when somebody asks for it.
const Never = "never"

// TimeOfDay is the form of Reconcile.At.
const TimeOfDay = "15:04"

// MaxReconcileDays bounds Reconcile.Days.
const MaxReconcileDays = 400

// Reconcile says when and how far back the CRM is compared with the ledger ("dealseal reconcile").
type Reconcile struct {
	// At is the time of day, in the tenant's time zone, such as 03:00, or "never". Each tenant begins up to half an hour
	// later than that, always by the same. Default 03:00.
	At string `yaml:"at"`
	// Days is how far back stage entries and finished deals are looked at: each of these costs two to ten calls and the
	// download of its files. 1 to 400, default 3.
	Days int `yaml:"days"`
}

// Tasks says who is given a task in the CRM when a deal waits for a person: held, or given up. There is one for each time that
// it comes to wait, and none for what the guard holds.
type Tasks struct {
	// Owner gives it to the owner of the record. dealseal's user then needs the right to make tasks. Default false.
	Owner bool `yaml:"owner"`
	// Due is in how many days it is due. 0 to 365, default 0: on the same day.
	Due int `yaml:"due"`
	// Subject is what its subject begins with, at most 150 characters. Default "Contract needs attention".
	Subject string `yaml:"subject"`
}

// CRM says which connector reads the account.
type CRM struct {
	// Kind is salesforce or hubspot.
	Kind string `yaml:"kind"`
	// With is the connector's own configuration.
	With yaml.Node `yaml:"with"`
	// Pins are, by the host of the CRM that is called, keys one of which has to be in the chain of certificates that it
	// presents, sha256/BASE64 of their public key (RFC 7469); two at least are advised. Default: any key that the machine
	// trusts. docs/threats.md says why to think twice.
	Pins map[string]pins.Set `yaml:"pins"`
}

// Rule says what happens when a record enters a stage.
type Rule struct {
	// ID is immutable: it is part of every transaction ID. Lower-case letters, digits, hyphens.
	ID string `yaml:"id"`
	// Object is the CRM's object (docs/objects.md). Default Opportunity (Salesforce), deals (HubSpot).
	Object string `yaml:"object"`
	When   When   `yaml:"when"`
	// Detect is how entries into the stage are found: history reads them from the CRM's own history, snapshot infers them from what
	// records show at each poll, for objects whose history nobody keeps. It misses short stays (docs/objects.md). For Salesforce
	// Quote, Contract and Order; the same for all rules of one object, and for ever for one rule. Default history.
	Detect string `yaml:"detect"`
	// StartFrom is "now" (the CRM's clock at the first start with this rule) or an RFC 3339 time; earlier entries are
	// never sealed. Only the first start counts. Default now.
	StartFrom string   `yaml:"start_from"`
	Document  Document `yaml:"document"`
	// Delegated has a vendor do the signing, in the place of Document and Seal (docs/delegated.md). Default: nobody.
	Delegated *Delegated `yaml:"delegated"`
	// Seal is a name under signing.profiles. Required.
	Seal      string    `yaml:"seal"`
	WriteBack WriteBack `yaml:"write_back"`
	// IfLeft says what happens to a deal that left its stage before it was sealed: hold, void or seal. Default hold.
	IfLeft string `yaml:"if_left"`
	// ReEntry says what happens to a record that enters the stage a second time: hold or seal. Default hold.
	ReEntry string `yaml:"re_entry"`
	// Move is the stage that the record is moved to when its deal comes to a status: signed, refused, action_required, failed or
	// held. Signed means done. A stage is named as in when.stage; none of a rule will do, because each record that comes there
	// would be a new deal. A record that somebody has moved meanwhile stays where it is. What the guard holds is not moved.
	// Default: nowhere (docs/move.md).
	Move map[string]string `yaml:"move"`
	// AuditTrail is id@version of the bundle that the deal's audit trail is made with; it is attached beside the
	// contract. "none" attaches none. Default audit-trail@1.
	AuditTrail string `yaml:"audit_trail"`
	// Signer is where records name the person for whom a contract is, so that whoever asks for one (POST /v1/signatures) may
	// name that person, and is refused if it is another. Without it a signer is refused.
	Signer Signer `yaml:"signer"`
	// Guard limits the deals of the rule.
	Guard Guard `yaml:"guard"`
}

// Signer names fields of one object, which may be a list of the record's: contacts.email, OpportunityContactRoles.Contact.Email.
type Signer struct {
	// Email is the path of the address.
	Email string `yaml:"email"`
	// Name are paths that make the name with spaces between them. Default: names are refused.
	Name []string `yaml:"name"`
}

// Caps limit the deals of a tenant, over all its rules. See Guard.
type Caps struct {
	// PerHour, default 500, and PerDay, default 2000, are how many deals are sealed unasked.
	PerHour Limit `yaml:"per_hour"`
	PerDay  Limit `yaml:"per_day"`
}

// Guard limits the deals of a rule that are sealed unasked, by the CRM's clock, in UTC. What is above a limit is held, and
// with it all of the rule that comes until a person decides; the CRM is told nothing of it. After the decision all is counted
// from nothing. A data loader that moves thousands of deals by mistake should meet a limit, a company at work none. Each is a
// number from 1 on, or off.
type Guard struct {
	// PerHour, default 200, and PerDay, default 1000, are how many deals may enter the stage.
	PerHour Limit `yaml:"per_hour"`
	PerDay  Limit `yaml:"per_day"`
	// Learned is how many times as many deals may come on a day as on a usual one, which is the median of the last four
	// weeks' days that had any; it takes five of those, and fewer than 50 deals are never unusual. Default 10.
	Learned Limit `yaml:"learned"`
	// SameSecond is how many deals may have entered the stage in the same second. Default 50.
	SameSecond Limit `yaml:"same_second"`
	// SameUser is how many deals one user may move into the stage within an hour. Default 100.
	SameUser Limit `yaml:"same_user"`
	// FirstRun is how many deals may be found when the rule is watched for the first time, which with start_from in the past
	// are all that have entered the stage since. Until they are counted they wait; more are held. Default 20.
	FirstRun Limit `yaml:"first_run"`
}

// Limit is a number from 1 on, or off.
type Limit int

// off stands for "off": the zero Limit is one that was not given.
const off Limit = -1

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Limit) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*l = off
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 || n > 1_000_000 {
		return errors.New("must be a whole number from 1 to 1000000, or off")
	}
	*l = Limit(n)
	return nil
}

// Or returns the limit, usual when it was not given, and 0 when it is off.
func (l Limit) Or(usual int) int {
	switch l {
	case 0:
		return usual
	case off:
		return 0
	}
	return int(l)
}

// When names the stage.
type When struct {
	// Stage is the API name (Salesforce) or the internal ID (HubSpot). Required. A label that only one stage bears is
	// understood, with a warning: another stage may get the label.
	Stage string `yaml:"stage"`
	// Pipeline is a HubSpot pipeline ID. Default: any.
	Pipeline string `yaml:"pipeline"`
	// Filter is a condition that the record must meet, such as Amount > 10000 AND RecordType.DeveloperName = 'New': a small
	// part of SOQL's WHERE, for HubSpot over names of properties (docs/filters.md). It is asked once, when the entry is
	// noticed. Default: none.
	Filter string `yaml:"filter"`
}

// Document says what is sealed: exactly one of Template and Attachment.
type Document struct {
	// Template is id@version of a bundle.
	Template string `yaml:"template"`
	// Fields are sources that replace or add to the bundle's own, in the syntax of template.yaml.
	Fields map[string]any `yaml:"fields"`
	// Attachment is a file-name pattern; the newest matching file on the record is sealed. * and ? as in a shell.
	Attachment string `yaml:"attachment"`
}

// WriteBack names the CRM fields that are written. An empty name is not written.
type WriteBack struct {
	TransactionID string `yaml:"transaction_id"`
	Status        Status `yaml:"status"`
	SignedAt      string `yaml:"signed_at"`
	URL           string `yaml:"url"`
	// Audit takes the compact JSON audit record: a long text field of at least 1,000 characters. It is also what keeps
	// an older status from overwriting a newer one after a restart.
	Audit string `yaml:"audit"`
	// Drift is told when fields of a record say something else than its contract, and which, and is cleared when they agree.
	Drift Drift `yaml:"drift"`
	// FollowUp is told when the deal has had no outcome for too long, and is cleared when it has one. Default: never.
	FollowUp *FollowUp `yaml:"follow_up"`
	// Timeline are the statuses of which a short note is left on the record's timeline, once each time that the deal comes to one
	// (docs/timeline.md). Default: none.
	Timeline []string `yaml:"timeline"`
}

// FollowUp says how long is too long (docs/followup.md).
type FollowUp struct {
	// After is for how long. 1h to 365d, default 7d.
	After time.Duration `yaml:"after"`
	// Field is a date/time field, which is given the moment. Default: none; then webhooks alone are told.
	Field string `yaml:"field"`
}

// Names are all fields that are written.
func (w WriteBack) Names() []string {
	names := []string{w.TransactionID, w.Status.Field, w.SignedAt, w.URL, w.Audit, w.Drift.Field}
	if w.FollowUp != nil {
		names = append(names, w.FollowUp.Field)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

// Drift names the field for differences and how they are announced.
type Drift struct {
	// Field is a text field of at least 255 characters. Default: none.
	Field string `yaml:"field"`
	// Text is what stands before the names of the fields, at most 100 characters. Default "Contract differs from CRM".
	Text string `yaml:"text"`
}

// Status names the status field and its words.
type Status struct {
	Field string `yaml:"field"`
	// Values replaces words, for restricted or localised picklists. Keys: queued, awaiting_signature, signed, refused,
	// action_required, failed, held. Defaults: for Salesforce Queued, Awaiting Signature, Signed, Refused, Action Required,
	// Failed, Held; for HubSpot, where options are written by their internal values, the keys themselves.
	Values map[string]string `yaml:"values"`
}

// At returns an error at the line of a dotted path in the tenant's file.
func (t *Tenant) At(path, format string, args ...any) error {
	return &Error{File: t.File, Line: lineOf(t.root, path), Msg: fmt.Sprintf(format, args...)}
}

// DecodeWith decodes the connector's own part into its struct, strictly.
func (t *Tenant) DecodeWith(into any) error { return Decode(t.File, &t.CRM.With, into) }

func loadTenants(dir string) ([]Tenant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, &Error{File: dir, Msg: "holds no tenant file (*.yaml): write one per CRM account"}
	}
	slices.Sort(files)
	var out []Tenant
	var errs []error
	for _, file := range files {
		t, err := loadTenant(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, t)
	}
	return out, errors.Join(errs...)
}

func loadTenant(file string) (Tenant, error) {
	root, err := parseFile(file)
	if err != nil {
		return Tenant{}, err
	}
	t := Tenant{File: file, root: root}
	if err := Decode(file, root, &t); err != nil {
		return Tenant{}, err
	}
	t.defaults()
	return t, nil
}

func (t *Tenant) defaults() {
	orDefault(&t.Tenant.Name, t.Tenant.ID)
	orDefault(&t.Tenant.TimeZone, "UTC")
	if t.Tenant.Environment == "sandbox" {
		orDefault(&t.Tenant.TestMark, usualTestMark)
	}
	orDefault(&t.Reconcile.At, "03:00")
	orDefault(&t.Reconcile.Days, 3)
	for i := range t.Rules {
		r := &t.Rules[i]
		orDefault(&r.Object, map[string]string{"salesforce": "Opportunity", "hubspot": "deals"}[t.CRM.Kind])
		orDefault(&r.Detect, "history")
		orDefault(&r.StartFrom, "now")
		if r.Delegated != nil {
			orDefault(&r.Delegated.Patience, usualPatience)
			orDefault(&r.Delegated.Level, "B-B")
		} else {
			orDefault(&r.IfLeft, "hold")
		}
		if f := r.WriteBack.FollowUp; f != nil {
			orDefault(&f.After, 7*24*time.Hour)
		}
		orDefault(&r.ReEntry, "hold")
		orDefault(&r.AuditTrail, "audit-trail@1")
	}
}

// StartTime returns the rule's activation time; the zero time means the moment of the first start.
func (r Rule) StartTime() (time.Time, error) {
	if r.StartFrom == "now" {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339, r.StartFrom)
}

var idForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

var statusKeys = []string{"queued", "awaiting_signature", "signed", "refused", "action_required", "failed", "held"}

// timelineKeys are the statuses that the timeline of a record may tell.
var timelineKeys = []string{"awaiting_signature", "signed", "refused", "action_required", "failed", "held"}

// moveKeys are the statuses of which a rule may say where the record goes.
var moveKeys = []string{"signed", "refused", "action_required", "failed", "held"}

func (c *Config) checkTenants() (errs []error) {
	files := map[string]string{}
	for i := range c.Loaded {
		t := &c.Loaded[i]
		if other, twice := files[t.Tenant.ID]; twice {
			errs = append(errs, t.At("tenant.id", "tenant id %q is already that of %s", t.Tenant.ID, other))
		}
		files[t.Tenant.ID] = t.File
		errs = append(errs, c.checkTenant(t)...)
	}
	return errs
}

func (c *Config) checkTenant(t *Tenant) (errs []error) {
	fail := func(path, format string, args ...any) { errs = append(errs, t.At(path, format, args...)) }
	if !idForm.MatchString(t.Tenant.ID) {
		fail("tenant.id", "tenant.id is %q: it must be lower-case letters, digits and hyphens, and it can never change", t.Tenant.ID)
	}
	if e := t.Tenant.Environment; e != "production" && e != "sandbox" {
		fail("tenant.environment", "tenant.environment is %q: it must be production or sandbox", e)
	}
	if m := t.Tenant.TestMark; utf8.RuneCountInString(m) > 60 || strings.ContainsFunc(m, unicode.IsControl) {
		fail("tenant.test_mark", "tenant.test_mark must be at most 60 characters in one line")
	}
	if m := t.Tenant.TestMark; m != "" && !strings.ContainsFunc(m, unicode.IsLetter) {
		fail("tenant.test_mark", "tenant.test_mark is %q, which warns nobody: write words, or off", m)
	}
	if t.Tenant.TestMark != "" && t.Tenant.Environment != "sandbox" {
		fail("tenant.test_mark", "tenant.test_mark is for environment: sandbox: what production makes is never marked")
	}
	if _, err := time.LoadLocation(t.Tenant.TimeZone); err != nil {
		fail("tenant.time_zone", "tenant.time_zone %q is not known: use an IANA name such as Europe/Paris", t.Tenant.TimeZone)
	}
	if k := t.CRM.Kind; k != "salesforce" && k != "hubspot" {
		fail("crm.kind", "crm.kind is %q: it must be salesforce or hubspot", k)
	}
	if _, err := time.Parse(TimeOfDay, t.Reconcile.At); err != nil && t.Reconcile.At != Never {
		fail("reconcile.at", "reconcile.at is %q: it must be a time of day such as 03:00, or never", t.Reconcile.At)
	}
	if d := t.Reconcile.Days; d < 1 || d > MaxReconcileDays {
		fail("reconcile.days", "reconcile.days is %d: it must be 1 to %d", d, MaxReconcileDays)
	}
	if d := t.Tasks.Due; d < 0 || d > 365 {
		fail("tasks.due", "tasks.due is %d: it must be 0 to 365 days", d)
	}
	if n := utf8.RuneCountInString(t.Tasks.Subject); n > 150 {
		fail("tasks.subject", "tasks.subject has %d characters: it must have at most 150, the mark of the deal comes behind it", n)
	}
	if !t.Tasks.Owner && t.Tasks != (Tasks{}) {
		fail("tasks", "tasks.owner is not true: nobody is given a task")
	}
	if len(t.Rules) == 0 {
		fail("rules", "rules is missing: without a rule nothing is ever sealed")
	}
	errs = append(errs, t.checkWebhooks()...)
	errs = append(errs, c.checkVendors(t)...)
	lines := map[string]int{}
	for i, r := range t.Rules {
		path := fmt.Sprintf("rules.%d", i)
		if line, twice := lines[r.ID]; twice {
			fail(path+".id", "rule id %q is already that of the rule in line %d", r.ID, line)
		}
		lines[r.ID] = lineOf(t.root, path+".id")
		if first := slices.IndexFunc(t.Rules, func(o Rule) bool { return o.Object == r.Object }); t.Rules[first].Detect != r.Detect {
			fail(path+".detect", "detect is %s here and %s in rule %q, which watches the same object: an object is polled in one way", r.Detect, t.Rules[first].Detect, t.Rules[first].ID)
		}
		errs = append(errs, c.checkRule(t, path, r)...)
	}
	return append(errs, c.checkPushes(t)...)
}

func checkSigner(t *Tenant, path string, r Rule) (errs []error) {
	s := r.Signer
	if s.Email == "" && len(s.Name) == 0 {
		return nil
	}
	fail := func(key, format string, args ...any) { errs = append(errs, t.At(path+key, format, args...)) }
	if r.Delegated != nil {
		fail("", "signer is for contracts that are asked for, and those of a delegated rule are asked for at the vendor: take it out")
	}
	object := func(field string) string { return field[:max(strings.LastIndexByte(field, '.'), 0)] }
	for _, p := range append([]string{s.Email}, s.Name...) {
		switch {
		case !signerPath.MatchString(p):
			fail("", "signer: %q is no path of a field: write it like contacts.email, without numbers of a list", p)
		case object(p) != object(s.Email):
			fail(".name", "signer.name: %s is not beside %s: name and address have to be of one person", p, s.Email)
		}
	}
	return errs
}

// signerPath is a path that picks nothing from a list.
var signerPath = regexp.MustCompile(`^[A-Za-z]\w*(\.[A-Za-z]\w*)*$`)

func (c *Config) checkRule(t *Tenant, path string, r Rule) (errs []error) {
	fail := func(key, format string, args ...any) { errs = append(errs, t.At(path+"."+key, format, args...)) }
	if !idForm.MatchString(r.ID) {
		fail("id", "rule id is %q: it must be lower-case letters, digits and hyphens, and it can never change", r.ID)
	}
	if r.When.Stage == "" {
		fail("when.stage", "when.stage is missing: name the stage by its API name or ID")
	}
	if r.When.Pipeline != "" && t.CRM.Kind != "hubspot" {
		fail("when.pipeline", "when.pipeline is for HubSpot only")
	}
	switch {
	case r.Detect != "history" && r.Detect != "snapshot":
		fail("detect", "detect is %q: it must be history or snapshot", r.Detect)
	case r.Detect == "snapshot" && t.CRM.Kind == "hubspot":
		fail("detect", "detect: snapshot is for objects without a history, and HubSpot keeps that of every property: take it out")
	case r.Detect == "snapshot" && r.Object == "Opportunity":
		fail("detect", "detect: snapshot is for objects without a history, and Salesforce keeps that of every Opportunity: take it out")
	}
	if _, err := r.StartTime(); err != nil {
		fail("start_from", "start_from is %q: it must be now or a time such as 2026-11-20T08:00:00Z", r.StartFrom)
	}
	if r.Delegated != nil {
		errs = append(errs, checkDelegated(t, path, r)...)
	} else {
		errs = append(errs, c.checkSealed(t, path, r)...)
	}
	if !slices.Contains([]string{"hold", "seal"}, r.ReEntry) {
		fail("re_entry", "re_entry is %q: it must be hold or seal", r.ReEntry)
	}
	errs = append(errs, checkSigner(t, path+".signer", r)...)
	for key, stage := range r.Move {
		switch {
		case !slices.Contains(moveKeys, key):
			fail("move."+key, "records are moved for %s, and not for %q%s", strings.Join(moveKeys, ", "), key, Nearest(key, slices.Clone(moveKeys)))
		case stage == "":
			fail("move."+key, "move.%s is empty: name the stage by its API name or ID, or take the line out", key)
		}
	}
	if r.WriteBack.TransactionID == "" || r.WriteBack.Status.Field == "" {
		fail("write_back", "write_back needs at least transaction_id and status.field: without them nobody at the CRM sees what happened")
	}
	if n := utf8.RuneCountInString(r.WriteBack.Drift.Text); n > 100 {
		fail("write_back.drift.text", "write_back.drift.text has %d characters: it must have at most 100, names of fields come behind it", n)
	}
	if r.WriteBack.Drift.Text != "" && r.WriteBack.Drift.Field == "" {
		fail("write_back.drift.field", "write_back.drift.field is missing: name the field that the text is written to")
	}
	if f := r.WriteBack.FollowUp; f != nil {
		if f.After < time.Hour || f.After > 365*24*time.Hour {
			fail("write_back.follow_up.after", "write_back.follow_up.after is %s: it must be 1h to 365d (8760h)", f.After)
		}
		if others := slices.DeleteFunc(r.WriteBack.Names(), func(n string) bool { return n != f.Field }); f.Field != "" && len(others) > 1 {
			fail("write_back.follow_up.field", "write_back.follow_up.field is %s, which write_back uses for something else: it needs a date/time field of its own", f.Field)
		}
	}
	for i, key := range r.WriteBack.Timeline {
		switch {
		case !slices.Contains(timelineKeys, key):
			fail(fmt.Sprintf("write_back.timeline.%d", i), "there are notes for %s, and not for %q%s", strings.Join(timelineKeys, ", "), key, Nearest(key, slices.Clone(timelineKeys)))
		case slices.Contains(r.WriteBack.Timeline[:i], key):
			fail(fmt.Sprintf("write_back.timeline.%d", i), "%s is listed twice", key)
		}
	}
	for key := range r.WriteBack.Status.Values {
		if !slices.Contains(statusKeys, key) {
			fail("write_back.status.values."+key, "unknown status %q%s", key, Nearest(key, slices.Clone(statusKeys)))
		}
	}
	return errs
}

// checkSealed looks at what says how a rule's documents are made and sealed.
func (c *Config) checkSealed(t *Tenant, path string, r Rule) (errs []error) {
	fail := func(key, format string, args ...any) { errs = append(errs, t.At(path+"."+key, format, args...)) }
	if (r.Document.Template == "") == (r.Document.Attachment == "") {
		fail("document", "document needs exactly one of template and attachment")
	}
	if len(r.Document.Fields) > 0 && r.Document.Attachment != "" {
		fail("document.fields", "document.fields is for templates: an attachment is sealed as it is")
	}
	if _, err := filepath.Match(r.Document.Attachment, ""); err != nil {
		fail("document.attachment", "document.attachment %q is not a valid pattern", r.Document.Attachment)
	}
	if p, ok := c.Signing.Profiles[r.Seal]; !ok {
		fail("seal", "%s", c.unknownProfile(r.Seal))
	} else if c.Signing.Keys[p.Key].Kind == "soft" && t.Tenant.Environment == "production" {
		fail("seal", "profile %q uses a soft key, which is for evaluation: a production tenant needs a key in an HSM", r.Seal)
	}
	if !slices.Contains([]string{"hold", "void", "seal"}, r.IfLeft) {
		fail("if_left", "if_left is %q: it must be hold, void or seal", r.IfLeft)
	}
	return errs
}
