package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web"
)

// Row is a deal in a list.
type Row struct {
	Tx        deal.TxID      `json:"transaction"`
	Tenant    deal.TenantID  `json:"tenant"`
	Rule      string         `json:"rule"`
	Object    string         `json:"object"`
	Record    string         `json:"record" doc:"its ID in the CRM"`
	RecordURL string         `json:"record_url,omitempty"`
	Status    deal.Status    `json:"status" doc:"what the CRM shows, or is about to" enum:"queued,awaiting_signature,signed,refused,action_required,failed,held"`
	Step      deal.Step      `json:"step" doc:"how far it has come" enum:"noticed,gathered,rendered,sealed,checked,kept,attached,reported,done"`
	Condition deal.Condition `json:"condition" doc:"how it is doing there" enum:"running,retrying,held,dead,ended"`
	Reason    string         `json:"reason,omitempty" doc:"why it waits or has ended"`
	Attempts  int            `json:"attempts,omitempty"`
	Next      time.Time      `json:"next_attempt_at,omitzero"`
	Entered   time.Time      `json:"entered_at" doc:"when the record entered its stage, on the CRM's clock"`
	Updated   time.Time      `json:"updated_at"`
}

// Deals is a page of deals.
type Deals struct {
	Deals []Row  `json:"deals"`
	Next  string `json:"next_cursor,omitempty" doc:"where older ones are; a page that is not full may have one"`
}

// Deal is all that may be said of a deal without saying what is on the record.
type Deal struct {
	Row
	Stage       string        `json:"stage"`
	Template    string        `json:"template,omitempty"`
	Noticed     time.Time     `json:"noticed_at"`
	Asked       string        `json:"level_asked,omitempty"`
	Level       string        `json:"level,omitempty" doc:"the level that the seal has reached"`
	Flagged     string        `json:"flagged,omitempty" doc:"why the level is below the one that was asked for"`
	Verdict     string        `json:"verdict,omitempty"`
	Second      string        `json:"second_opinion,omitempty"`
	Conclusion  string        `json:"conclusion,omitempty" doc:"in the words of ETSI EN 319 102-1"`
	SealedAt    time.Time     `json:"sealed_at,omitzero"`
	Digest      string        `json:"digest,omitempty" doc:"what was signed, or is about to be; hexadecimal"`
	Contract    *Bytes        `json:"contract,omitempty"`
	Certificate *Sealer       `json:"certificate,omitempty"`
	Documents   []Document    `json:"documents" doc:"what can be fetched from the archive"`
	Damaged     bool          `json:"damaged,omitempty" doc:"the archive's folder cannot be read"`
	Erased      bool          `json:"erased,omitempty"`
	Told        bool          `json:"told" doc:"the CRM shows what is true"`
	Earlier     []deal.TxID   `json:"earlier,omitempty" doc:"deals of the same record and rule that came before"`
	Actions     []string      `json:"actions" doc:"what may be decided about it now"`
	Steps       []ReachedStep `json:"steps"`
}

// Bytes names a file by its bytes.
type Bytes struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// Sealer is the certificate that a deal was sealed with.
type Sealer struct {
	SHA256   string    `json:"sha256"`
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
}

// Document is a file of the archive.
type Document struct {
	Name string `json:"name" doc:"behind /v1/deals/{tx}/documents/"`
	Bytes
}

// ReachedStep is one that a deal has reached.
type ReachedStep struct {
	Step deal.Step `json:"step"`
	At   time.Time `json:"at"`
}

// Story is what happened to a deal, and who did it.
type Story struct {
	Tx      deal.TxID `json:"transaction"`
	Now     string    `json:"now" doc:"in a sentence"`
	Actions []string  `json:"actions"`
	Trail   []Line    `json:"trail"`
}

// Line is an entry of the audit log.
type Line struct {
	Index       int64     `json:"index"`
	At          time.Time `json:"at"`
	Who         string    `json:"who"`
	What        string    `json:"what"`
	Why         string    `json:"why,omitempty"`
	Certificate string    `json:"certificate,omitempty"`
}

// Values is what went into a document.
type Values struct {
	Tx       deal.TxID       `json:"transaction"`
	FileName string          `json:"file_name,omitempty"`
	Record   json.RawMessage `json:"record,omitempty" doc:"what was read of the CRM's record"`
	Document json.RawMessage `json:"document,omitempty" doc:"what was made of it"`
}

// Decision is why somebody decides.
type Decision struct {
	Why string `json:"why" doc:"goes into the audit log" least:"1" most:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"`
}

// actions are what may be decided about a deal, as the ledger will have it.
func actions(s *deal.Sealing) []string {
	all := []string{}
	if s.Step == deal.Done {
		return all
	}
	fresh := s.Facts.Digest != "" && !s.Facts.Signature && s.Step.Before(deal.Sealed)
	switch s.Condition {
	case deal.Held:
		all = append(all, "release", "drop")
		fresh = fresh || s.Facts.Adopted && s.Step == deal.Sealed
	case deal.Dead, deal.Retrying:
		all = append(all, "retry", "drop")
	default:
		return all
	}
	if fresh {
		all = append(all, "prepare")
	}
	return all
}

// The states that deals can be listed by.
var states = []string{"done", string(deal.Running), string(deal.Retrying), string(deal.Held), string(deal.Dead), string(deal.Ended)}

const (
	usualPage = 50
	mostRows  = 200
	longQuery = 200
)

// cursor is opaque to callers, so that what is behind it may change.
func cursor(at int64) string {
	if at == 0 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte("1:" + strconv.FormatInt(at, 10)))
}

// page reads limit and cursor.
func (r *request) page() (before int64, limit int, err error) {
	limit = usualPage
	if text := r.query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > mostRows {
			return 0, 0, problem(http.StatusBadRequest, fmt.Sprintf("limit must be a number from 1 to %d", mostRows))
		}
	}
	text := r.query.Get("cursor")
	if text == "" {
		return 0, limit, nil
	}
	if plain, err := base64.RawURLEncoding.DecodeString(text); err == nil {
		if number, ok := strings.CutPrefix(string(plain), "1:"); ok {
			if before, err = strconv.ParseInt(number, 10, 64); err == nil && before > 0 {
				return before, limit, nil
			}
		}
	}
	return 0, 0, problem(http.StatusBadRequest, "cursor must be a next_cursor of an earlier answer")
}

func (a *API) listDeals(ctx context.Context, r *request) (any, error) {
	before, limit, err := r.page()
	if err != nil {
		return nil, err
	}
	s := web.Search{Text: r.query.Get("q"), Tenants: r.tenants, Tenant: deal.TenantID(r.query.Get("tenant")), State: r.query.Get("state"), Rule: r.query.Get("rule"), Before: before, Limit: limit}
	if utf8.RuneCountInString(s.Text) > longQuery || !utf8.ValidString(s.Text) || strings.ContainsFunc(s.Text, unicode.IsControl) {
		return nil, problem(http.StatusBadRequest, fmt.Sprintf("q must be at most %d characters of text", longQuery))
	}
	if day := r.query.Get("day"); day != "" {
		if s.Day, err = time.Parse(time.DateOnly, day); err != nil {
			return nil, problem(http.StatusBadRequest, "day must be written as 2027-01-31")
		}
	}
	page := Deals{Deals: []Row{}}
	if len(r.tenants) == 0 || s.Tenant != "" && !r.sees(s.Tenant) {
		return page, nil
	}
	found, err := a.House.Find(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, f := range found.Rows {
		page.Deals = append(page.Deals, Row{Tx: f.Tx, Tenant: f.Tenant, Rule: f.Rule, Object: f.Ref.Object, Record: f.Ref.ID, RecordURL: f.RecordURL, Status: deal.Shown(f.Step, f.Condition, f.Reason),
			Step: f.Step, Condition: f.Condition, Reason: f.Reason, Attempts: f.Attempts, Next: f.Next, Entered: f.At, Updated: f.Updated})
	}
	page.Next = cursor(found.Next)
	return page, nil
}

// dealOf is the transaction of the path, if the token sees it.
func (a *API) dealOf(ctx context.Context, r *request) (deal.TxID, error) {
	return a.dealNamed(ctx, r, r.PathValue("tx"))
}

func (a *API) dealNamed(ctx context.Context, r *request, name string) (deal.TxID, error) {
	tx, err := deal.ParseTxID(name)
	if err != nil {
		return "", nothing()
	}
	tenant, err := a.House.TenantOf(ctx, tx)
	if err != nil {
		return "", err
	}
	if !r.sees(tenant) {
		return "", nothing()
	}
	return tx, nil
}

func (a *API) showDeal(ctx context.Context, r *request) (any, error) {
	tx, err := a.dealOf(ctx, r)
	if err != nil {
		return nil, err
	}
	return a.dealAs(ctx, tx)
}

func (a *API) dealAs(ctx context.Context, tx deal.TxID) (any, error) {
	d, err := a.House.Deal(ctx, tx)
	if err != nil {
		return nil, err
	}
	return viewDeal(d), nil
}

func viewDeal(d *web.Deal) Deal {
	s, f := d.Sealing, d.Sealing.Facts
	v := Deal{Row: Row{Tx: s.Tx, Tenant: s.Tenant, Rule: s.Change.Rule, Object: s.Change.Ref.Object, Record: s.Change.Ref.ID, RecordURL: f.RecordURL, Status: deal.Shown(s.Step, s.Condition, s.Reason),
		Step: s.Step, Condition: s.Condition, Reason: s.Reason, Attempts: s.Attempts, Next: s.Next, Entered: s.Change.At, Updated: s.Updated},
		Stage: s.Plan.Stage, Template: s.Plan.Template, Noticed: s.Noticed, Asked: d.Asked, Level: f.Level, Flagged: f.Flagged, Verdict: strings.ToLower(f.Verdict), Second: strings.ToLower(f.SecondOpinion),
		Conclusion: f.Conclusion, SealedAt: f.SealedAt, Digest: f.Digest, Documents: []Document{}, Damaged: d.Damaged, Erased: d.Erased, Told: d.Receipt.Sequence > 0 && !d.Receipt.Due(), Earlier: d.Earlier,
		Actions: actions(s), Steps: []ReachedStep{}}
	if f.Contract != nil {
		v.Contract = &Bytes{f.Contract.SHA256, f.Contract.Size}
	}
	if c := f.Cert; c != nil {
		v.Certificate = &Sealer{c.SHA256, c.Subject, c.Issuer, c.Serial, c.NotAfter}
	}
	for _, k := range d.Kept {
		v.Documents = append(v.Documents, Document{k.Name, Bytes{k.SHA256, k.Size}})
	}
	for _, step := range deal.Steps {
		if at := f.Times[step]; !at.IsZero() && !s.Step.Before(step) {
			v.Steps = append(v.Steps, ReachedStep{step, at})
		}
	}
	return v
}

func (a *API) explainDeal(ctx context.Context, r *request) (any, error) {
	tx, err := a.dealOf(ctx, r)
	if err != nil {
		return nil, err
	}
	d, err := a.House.Deal(ctx, tx)
	if err != nil {
		return nil, err
	}
	s := d.Sealing
	story := Story{Tx: tx, Now: string(s.Step) + ", " + string(s.Condition), Actions: actions(s), Trail: []Line{}}
	if s.Step == deal.Done {
		story.Now = "done"
	}
	if s.Reason != "" {
		story.Now += ": " + s.Reason
	}
	for _, l := range d.Trail {
		story.Trail = append(story.Trail, Line{l.Index, l.At, l.Who, l.What, l.Why, l.Cert})
	}
	return story, nil
}

func (a *API) showValues(ctx context.Context, r *request) (any, error) {
	tx, err := a.dealOf(ctx, r)
	if err != nil {
		return nil, err
	}
	v, err := a.House.Values(ctx, tx, r.who())
	if err != nil {
		return nil, err
	}
	return Values{tx, v.FileName, v.Record, v.Document}, nil
}

func (a *API) fetchDocument(ctx context.Context, r *request) (any, error) {
	tx, err := a.dealOf(ctx, r)
	if err != nil {
		return nil, err
	}
	d, err := a.House.Deal(ctx, tx)
	if err != nil {
		return nil, err
	}
	// Only what the deal's folder lists is asked for: names of callers reach no path.
	name := r.PathValue("name")
	if d.Damaged {
		return nil, web.ErrDamaged
	}
	if d.Erased {
		return nil, web.ErrErased
	}
	if !slices.ContainsFunc(d.Kept, func(f deal.FileFact) bool { return f.Name == name }) {
		return nil, nothing()
	}
	f, closer, err := a.House.Fetch(ctx, tx, name, r.who())
	if err != nil {
		return nil, err
	}
	return &File{MediaType: f.MediaType, Name: f.Name, Length: f.Length, Close: closer.Close, Write: func(_ context.Context, w io.Writer) error {
		_, err := io.Copy(w, f.Open())
		return err
	}}, nil
}

func (a *API) fetchProof(ctx context.Context, r *request) (any, error) {
	tx, err := a.dealOf(ctx, r)
	if err != nil {
		return nil, err
	}
	text, err := a.House.Proof(ctx, tx, r.who())
	if err != nil {
		return nil, err
	}
	return fileOf(string(tx)+" audit proof.json", "application/json", text), nil
}

func fileOf(name, media string, text []byte) *File {
	return &File{MediaType: media, Name: name, Length: int64(len(text)), Close: func() error { return nil }, Write: func(_ context.Context, w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(text))
		return err
	}}
}

func (a *API) makeEvidence(ctx context.Context, r *request) (any, error) {
	tx, err := a.dealOf(ctx, r)
	if err != nil {
		return nil, err
	}
	if l := a.bundles.take(r.token.Fingerprint, 1, a.Now()); !l.ok {
		return nil, tooMany(l, "token, for evidence bundles, which the sealing key signs,")
	}
	write, err := a.House.Evidence(ctx, tx, r.who())
	if err != nil {
		return nil, err
	}
	return &File{MediaType: "application/zip", Name: string(tx) + " evidence.zip", Length: -1, Write: write, Close: func() error { return nil }}, nil
}

func (a *API) decide(verb string) func(context.Context, *request) (any, error) {
	return func(ctx context.Context, r *request) (any, error) {
		tx, err := a.dealOf(ctx, r)
		if err != nil {
			return nil, err
		}
		d, err := decode[Decision](r)
		if err != nil {
			return nil, err
		}
		if err := checkWhy(d.Why); err != nil {
			return nil, err
		}
		if err := a.House.Decide(ctx, tx, verb, r.who(), d.Why); err != nil {
			return nil, err
		}
		return a.dealAs(ctx, tx)
	}
}

// longestWhy is how many characters of a reason the audit log takes from here.
const longestWhy = 500

func checkWhy(why string) error {
	if strings.TrimSpace(why) == "" || utf8.RuneCountInString(why) > longestWhy || !utf8.ValidString(why) || strings.ContainsFunc(why, unicode.IsControl) {
		return problem(http.StatusUnprocessableEntity, fmt.Sprintf("say why, in one line of at most %d characters: it goes into the audit log", longestWhy))
	}
	return nil
}
