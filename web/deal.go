package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// dealView is the page of one deal: what a person needs to see that the seal is good, and what is still to be done.
// Whatever it shows is named here one by one: nothing of the contract, and nothing of deal.Private, gets in by itself.
type dealView struct {
	Tx       string
	State    state
	Step     string
	Reason   string
	Attempt  int
	Next     *moment
	Moved    *moment
	Commands []string
	Prepare  string // makes the document anew, where that is possible
	Erased   bool
	Decide   *deedForm // nil where there is nothing to decide, or not for this person
	Decider  decider

	Timeline []stepView
	Total    string
	Verdict  *state // of the seal; nil while there is none
	Says     string // what the verdict means
	Seal     []fact
	CRM      crmView
	Made     []fileView // what was made, by its bytes
	Kept     []fileView // what is in the archive
	Damaged  bool       // it is not what was kept there
	Fields   bool       // there is something that was read of the record
	Origin   []fact
	Earlier  []string
	Trail    []trailView
}

// fact is a name with a value; facts without a value are not shown.
type fact struct {
	Name, Text, Link string
	Mark             string // a shape before the text
	Code             bool   // for machines: in the type of IDs
	When             *moment
}

// stepView is one step of the timeline.
type stepView struct {
	Name, Means string
	Mark        string
	Word        string // reached, or what became of it
	At          *moment
	Took        string // since the step before
}

type crmView struct {
	Word, Mark string
	Status     string // what the record shows or should show
	Note       string
	Facts      []fact
	Later      string // the deal that the record speaks of, if it is another one
}

type fileView struct {
	Name, SHA256, Size, Where, Link string
}

type trailView struct {
	Index          int64
	At             *moment
	Who, What, Why string
	Cert           string
}

// stepMeaning goes on where the name of a reached step ends: "kept in the archive".
var stepMeaning = map[deal.Step]string{
	deal.Noticed:  "in the CRM's history",
	deal.Gathered: "from the record",
	deal.Rendered: "as a document",
	deal.Sealed:   "with the key",
	deal.Checked:  "by reading it back",
	deal.Kept:     "in the archive",
	deal.Attached: "to the record",
	deal.Reported: "in the record's fields",
}

// txOf reads the transaction ID of a page's path.
func txOf(r *http.Request) (deal.TxID, error) {
	tx, err := deal.ParseTxID(r.PathValue("tx"))
	if err != nil {
		return "", &problem{status: http.StatusNotFound, Title: "That is not a transaction ID",
			What: short(err.Error(), 300) + ".", Do: "Copy the ID from the record's transaction field or from this list:", Command: "dealseal jobs list --all"}
	}
	return tx, nil
}

// noDeal puts into words what the House says of a deal that it cannot show.
func noDeal(tx deal.TxID, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return &problem{status: http.StatusNotFound, Title: "There is no such deal here",
			What: fmt.Sprintf("This daemon's ledger does not know %s, or has no such file of it. Another daemon may have sealed it, or the ledger was rebuilt from the archive without it.", tx),
			Do:   "List what it knows:", Command: "dealseal jobs list --all"}
	case errors.Is(err, ErrErased):
		return &problem{status: http.StatusGone, Title: "This was erased",
			What: fmt.Sprintf("The data key of %s is destroyed: its values and documents can be read by nobody any more.", tx),
			Do:   "What remains, IDs, hashes and the audit log, is on the deal's page.", Again: "/deals/" + string(tx)}
	case errors.Is(err, ErrDamaged):
		return &problem{status: http.StatusInternalServerError, Title: "The archive's copy is damaged",
			What: fmt.Sprintf("What the archive holds of %s is missing, or is not what was sealed, so it is not handed out. Its seal and its audit log are on the deal's page, and the copy on the record is another one.", tx),
			Do:   "Restore the deal's folder of the archive from a backup. The daemon's log names the file, and this checks a backup:", Command: "dealseal backup verify FILE", cause: err}
	}
	return fmt.Errorf("deal %s: %w", tx, err)
}

func (s *server) deal(ctx context.Context, r *http.Request) (*frame, error) {
	tx, err := txOf(r)
	if err != nil {
		return nil, err
	}
	d, err := s.House.Deal(ctx, tx)
	if err != nil {
		return nil, noDeal(tx, err)
	}
	v := viewDeal(d, s.Now())
	v.Decide, v.Decider = s.decideForm(ctx, d), s.decider(ctx)
	return &frame{Title: "Deal " + string(tx), Here: "deals", Live: v.Decide == nil, Deal: v}, nil // nobody's words are lost while they are written
}

func viewDeal(d *Deal, now time.Time) *dealView {
	s := d.Sealing
	v := &dealView{Tx: string(s.Tx), State: stateOf(s.Step, s.Condition), Step: string(s.Step), Reason: short(s.Reason, 1000), Moved: at(s.Updated, now),
		Commands: commands(s.Tx, s.Step, s.Condition), Prepare: prepare(s), Erased: d.Erased, Timeline: timeline(s, now), Seal: seal(d, now), CRM: viewCRM(d), Made: files(s), Origin: origin(s, now),
		Damaged: d.Damaged, Fields: !d.Erased && !s.Facts.Gathered.IsZero()}
	v.Verdict, v.Says = verdict(s)
	for _, f := range d.Kept {
		v.Kept = append(v.Kept, fileView{Name: keptName(f.Name), SHA256: f.SHA256, Size: number(f.Size) + " bytes", Link: "/deals/" + string(s.Tx) + "/files/" + f.Name})
	}
	if s.Condition == deal.Retrying {
		v.Attempt, v.Next = s.Attempts+1, at(s.Next, now)
	}
	if end := s.Facts.Times[deal.Done]; s.Step == deal.Done && !end.IsZero() {
		v.Total = took(end.Sub(s.Noticed))
	}
	v.CRM.Facts = append(v.CRM.Facts, errands(d.Errands)...)
	for _, tx := range d.Earlier {
		v.Earlier = append(v.Earlier, string(tx))
	}
	for _, l := range d.Trail {
		v.Trail = append(v.Trail, trailView{Index: l.Index, At: at(l.At, now), Who: l.Who, What: l.What, Why: short(l.Why, 300), Cert: l.Cert})
	}
	return v
}

// timeline lists every step: those behind with their times, the one that is next with what keeps it, those ahead.
func timeline(s *deal.Sealing, now time.Time) []stepView {
	var steps []stepView
	here, before := slices.Index(deal.Steps, s.Step), s.Noticed
	for i, step := range deal.Steps {
		v := stepView{Name: string(step), Means: stepMeaning[step], Mark: "ahead", Word: "not yet"}
		switch {
		case i <= here:
			t := s.Facts.Times[step]
			if step == deal.Noticed {
				t = s.Noticed
			}
			v.Mark, v.Word, v.At = "done", "reached", at(t, now)
			if v.At != nil {
				v.Took = tookSince(before, t)
				before = t
			}
		case i == here+1 && s.Condition == deal.Running:
			v.Mark, v.Word = "running", "under way"
		case i == here+1:
			v.Mark, v.Word = string(s.Condition), string(s.Condition)
		}
		steps = append(steps, v)
	}
	return steps
}

// tookSince is empty for the first step, and for times out of order, which a clock that was set back can leave.
func tookSince(before, t time.Time) string {
	if !t.After(before) {
		return ""
	}
	return took(t.Sub(before))
}

// verdict sums up what both readers say of the sealed file.
func verdict(s *deal.Sealing) (*state, string) {
	f := s.Facts
	ours, theirs := verdictMark(f.Verdict), verdictMark(f.SecondOpinion)
	switch {
	case f.Verdict == "" && f.Contract == nil:
		return nil, ""
	case f.Verdict == "":
		return &state{Mark: "running", Word: "sealed, not yet checked"}, "The file is read back before anything is released."
	case ours == "dead" || theirs == "dead":
		return &state{Mark: "dead", Word: "not a valid seal"}, "A reader refuses the file. It was not released, unless a person let it go on."
	case ours != "done":
		return &state{Mark: "retrying", Word: "not proven"}, "What is missing to prove the seal is in the report."
	case f.Second != nil && f.Second.GivenUp != "":
		return &state{Mark: "retrying", Word: "valid seal, one of two"}, "The file is intact, and the seal was made with the certificate below. A second one was asked for and could not be made."
	case f.Flagged != "":
		return &state{Mark: "retrying", Word: "valid seal, below the level asked for"}, "The file is intact, and the seal was made with the certificate below."
	case theirs != "done":
		return &state{Mark: "done", Word: "valid seal"}, "The file is intact, and the seal was made with the certificate below. The second reader does not judge this kind of file."
	}
	return &state{Mark: "done", Word: "valid seal"}, "Two independent readers agree: the file is intact, and the seal was made with the certificate below."
}

// keptName is what a file of the archive is, for people.
func keptName(name string) string {
	names := map[string]string{"contract.pdf": "Contract, sealed", "evidence/audit-trail.pdf": "Audit trail", "evidence/report.json": "Verification report",
		"evidence/signature.p7s": "Signature (CMS)", "evidence/timestamp.tst": "Time-stamp token (RFC 3161)",
		"evidence/second-signature.p7s": "Signature of the second seal (CMS)", "evidence/second-timestamp.tst": "Time-stamp token of the second seal (RFC 3161)"}
	if known, ok := names[name]; ok {
		return known
	}
	return strings.TrimPrefix(name, "evidence/")
}

func seal(d *Deal, now time.Time) []fact {
	f := d.Sealing.Facts
	var facts []fact
	add := func(x fact) {
		if x.Text != "" || x.When != nil {
			facts = append(facts, x)
		}
	}
	add(fact{Name: "Level asked for", Text: d.Asked})
	add(fact{Name: "Level reached", Text: f.Level})
	add(fact{Name: "Flagged", Text: f.Flagged, Mark: "retrying"})
	add(fact{Name: "Verdict", Text: strings.ToLower(f.Verdict), Mark: verdictMark(f.Verdict)})
	add(fact{Name: "EN 319 102-1", Text: f.Conclusion, Mark: verdictMark(f.Verdict)})
	add(fact{Name: "Second opinion", Text: strings.ToLower(f.SecondOpinion), Mark: verdictMark(f.SecondOpinion)})
	if f.Level == "" || f.Level == "B-B" {
		add(fact{Name: "Claimed time", When: at(f.SealedAt, now)})
	} else {
		add(fact{Name: "Proven time", When: at(f.SealedAt, now)})
	}
	if c := f.Cert; c != nil {
		add(fact{Name: "Sealed by", Text: c.Subject})
		add(fact{Name: "Issued by", Text: c.Issuer})
		add(fact{Name: "Serial number", Text: c.Serial, Code: true})
		add(fact{Name: "Fingerprint", Text: c.SHA256, Code: true})
		add(fact{Name: "Public key", Text: c.SPKI, Code: true})
		add(fact{Name: "Certificate ends", When: at(c.NotAfter, now)})
		add(fact{Name: "Digest algorithm", Text: c.Digest})
	}
	if second := f.Second; second != nil && second.GivenUp == "" {
		if c := second.Cert; c != nil {
			add(fact{Name: "Second seal by", Text: c.Subject})
			add(fact{Name: "Its issuer", Text: c.Issuer})
			add(fact{Name: "Its fingerprint", Text: c.SHA256, Code: true})
		}
		add(fact{Name: "Its level", Text: second.Level})
		add(fact{Name: "Its digest", Text: second.Digest, Code: true})
	}
	switch f.Level {
	case "":
	case "B-B", "B-T":
		add(fact{Name: "Revocation", Text: "the document carries no OCSP response or revocation list: level " + f.Level + " has none"})
	default:
		add(fact{Name: "Revocation", Text: "the OCSP responses and revocation lists are in the document"})
	}
	if f.Signature {
		add(fact{Name: "Signed digest", Text: f.Digest, Code: true})
	} else {
		add(fact{Name: "Digest to be signed", Text: f.Digest, Code: true})
	}
	if f.Generation > 1 {
		add(fact{Name: "Prepared", Text: fmt.Sprintf("%d times; one digest is signed", f.Generation)})
	}
	if f.Adopted {
		add(fact{Name: "Adopted", Text: "found on the record, not made by this ledger"})
	}
	return facts
}

// verdictMark is the shape of a verdict of either reader.
func verdictMark(verdict string) string {
	switch strings.ToLower(verdict) {
	case "valid":
		return "done"
	case "invalid":
		return "dead"
	}
	return "retrying"
}

// files lists what was made, by its bytes. Names are left out: they are made of the record's values.
func files(s *deal.Sealing) []fileView {
	f := s.Facts
	var list []fileView
	add := func(name string, file *deal.FileFact, on *deal.Attachment) {
		if file == nil && on == nil {
			return
		}
		v := fileView{Name: name, Where: "staged"}
		if file != nil {
			v.SHA256, v.Size = file.SHA256, number(file.Size)+" bytes"
		}
		if f.Archive != "" {
			v.Where = "archived"
		}
		if on != nil {
			v.Where, v.Link = "on the record, file "+on.ID, link(on.URL)
		}
		list = append(list, v)
	}
	if f.Contract == nil {
		add("Document, not sealed", f.Unsigned, nil)
	}
	add("Contract, sealed", f.Contract, f.Attachment)
	add("Audit trail", f.Trail, f.AuditTrail)
	return list
}

func origin(s *deal.Sealing, now time.Time) []fact {
	kind, account := s.Account.Split()
	document := fact{Name: "Template", Text: s.Plan.Template}
	switch d := s.Plan.Delegated; {
	case d != nil:
		document = fact{Name: "Signed at", Text: strings.TrimSpace(d.Vendor + " " + s.Facts.Envelope)}
	case s.Plan.Attachment != "":
		document = fact{Name: "Document", Text: "newest file of the record that matches " + s.Plan.Attachment}
	}
	all := []fact{
		{Name: "Record", Text: s.Change.Ref.String(), Link: link(s.Facts.RecordURL), Code: true},
		{Name: "CRM", Text: crmName(kind) + " " + account},
		{Name: "Tenant", Text: string(s.Tenant)},
		{Name: "Rule", Text: s.Plan.Rule},
		{Name: "Stage", Text: s.Plan.Stage},
		{Name: "Stage entered", When: at(s.Change.At, now)},
		{Name: "Occurrence", Text: s.Change.Occurrence, Code: true},
		{Name: "Found", Text: found(s.Change)},
		document,
		{Name: "Bundle", Text: s.Plan.Bundle, Code: true},
		{Name: "Record fingerprint", Text: s.Facts.Record, Code: true},
		{Name: "Render key", Text: s.Facts.RenderKey, Code: true},
		{Name: "Archive folder", Text: s.Facts.Archive, Code: true},
		{Name: "Released holds", Text: strings.Join(s.Facts.Released, ", ")},
	}
	var known []fact
	for _, f := range all {
		if f.Text != "" || f.When != nil {
			known = append(known, f)
		}
	}
	return known
}

// found says how an entry was found of which no history tells.
func found(c deal.Change) string {
	if c.Inferred == nil {
		return ""
	}
	return deal.Inferred
}

// viewCRM says whether the record shows what is true.
func viewCRM(d *Deal) crmView {
	s, r := d.Sealing, d.Receipt
	word := "“" + s.Plan.WriteBack.Word(r.Status) + "”"
	v := crmView{Mark: "retrying", Word: "CRM not told", Status: "should show " + word}
	switch {
	case r.Sequence == 0:
		return crmView{Mark: "ahead", Word: "nothing to tell yet"}
	case r.Owner != "" && r.Owner != s.Tx:
		v = crmView{Mark: "ended", Word: "the record speaks of a later deal", Later: string(r.Owner)}
	case !r.Due():
		v = crmView{Mark: "done", Word: "CRM told", Status: "shows " + word}
	case !s.Step.Before(deal.Kept):
		v.Word, v.Note = notTold, "The contract is sealed and in the archive. Only the record does not show it yet."
	}
	v.Facts = []fact{{Name: "Newest receipt", Text: fmt.Sprint(r.Sequence), Code: true}}
	if r.Sent > 0 {
		v.Facts = append(v.Facts, fact{Name: "Receipt that the CRM has", Text: fmt.Sprint(r.Sent), Code: true})
	}
	return v
}

// errandMarks are the shapes of the fates.
var errandMarks = map[deal.ErrandFate]string{deal.ErrandDone: "done", deal.ErrandLeft: "ended", deal.ErrandOvertaken: "ended", deal.ErrandRefused: "dead"}

// errands says what else was done in the CRM, and what is still to be done.
func errands(all []deal.Errand) (facts []fact) {
	for _, e := range all {
		f := fact{Name: "Stage", Mark: "running", Text: "to do: " + e.String()}
		switch {
		case e.Fate != "":
			f.Mark, f.Text = errandMarks[e.Fate], short(cmp.Or(e.Outcome, string(e.Fate)+": "+e.String()), 300)
		case e.Problem != "":
			f.Mark, f.Text = "retrying", short(e.String()+": "+e.Problem, 300)
		}
		facts = append(facts, f)
	}
	return facts
}
