package web

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// noon is when the tests look.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// canary stands wherever the House holds what pages must not show: values, names and files of a contract.
const canary = "Zofia Canary-Żółć"

// village is a House in memory. Its deals are in every state that there is.
type village struct {
	tenants     []Tenant
	deals       []*Deal // oldest first
	quarantined []deal.Quarantine
	guards      []deal.GuardHold
	differing   []deal.Discrepancy
	passes      []deal.Pass
	pushes      []deal.Push
	mu          sync.Mutex // of untold, for those who change it while a browser looks
	untold      int64
	keys        []Key
	stampers    []Stamper
	figures     deal.Figures
	signed      deal.Checkpoint
	checkup     Checkup
	asked       []Search // by Find
	witnessed   []string // who was put into the audit log for what
	err         error    // of every method, when set
}

func (v *village) Tenants(context.Context) ([]Tenant, error) { return v.tenants, v.err }
func (v *village) Keys(context.Context) ([]Key, error)       { return v.keys, v.err }

func (v *village) Stampers(context.Context) ([]Stamper, error) { return v.stampers, v.err }

func (v *village) Checkup(context.Context) (Checkup, error) { return v.checkup, v.err }

func (v *village) TreeHead(context.Context) (deal.TreeHead, error) {
	return deal.TreeHead{Size: 1234, Root: "Vn3cM5b2m0tRk1Q0kqk1b8X3u1R8m1cG6lJ8nZ2Qx0Y="}, v.err
}

func (v *village) Quarantined(_ context.Context, limit int) ([]deal.Quarantine, error) {
	return v.quarantined[:min(limit, len(v.quarantined))], v.err
}

func (v *village) Guards(context.Context) ([]deal.GuardHold, error) { return v.guards, v.err }
func (v *village) Pushes(_ context.Context, limit int) ([]deal.Push, error) {
	return v.pushes[:min(limit, len(v.pushes))], v.err
}

func (v *village) Discrepancies(_ context.Context, _ deal.TenantID, limit int) ([]deal.Discrepancy, error) {
	return v.differing[:min(limit, len(v.differing))], v.err
}

func (v *village) DiscrepancyCounts(context.Context) (counts []deal.DiscrepancyCount, err error) {
	for _, d := range v.differing {
		counts = append(counts, deal.DiscrepancyCount{Tenant: d.Tenant, Kind: d.Kind, N: 1})
	}
	return counts, v.err
}

func (v *village) Passes(context.Context) ([]deal.Pass, error) { return v.passes, v.err }

func (v *village) Untold(context.Context) (int64, time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.untold, time.Time{}, v.err
}

func (v *village) Deal(_ context.Context, tx deal.TxID) (*Deal, error) {
	if v.err != nil {
		return nil, v.err
	}
	for _, d := range v.deals {
		if d.Sealing.Tx == tx {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", tx, ErrNotFound)
}

func (v *village) Find(_ context.Context, q Search) (f Found, err error) {
	v.asked = append(v.asked, q)
	for i, d := range slices.Backward(v.deals) {
		s := d.Sealing
		state := string(s.Condition)
		if s.Step == deal.Done {
			state = "done"
		}
		if q.State != "" && q.State != state || q.Tenant != "" && q.Tenant != s.Tenant || q.Text != "" && q.Text != s.Change.Ref.ID || q.Before > 0 && int64(i) >= q.Before {
			continue
		}
		if len(f.Rows) == q.Limit {
			f.Next = int64(i) + 1
			break
		}
		f.Rows = append(f.Rows, Row{Tx: s.Tx, Tenant: s.Tenant, Account: s.Account, Ref: s.Change.Ref, RecordURL: s.Facts.RecordURL, Rule: s.Plan.Rule,
			Step: s.Step, Condition: s.Condition, Reason: s.Reason, Attempts: s.Attempts, Next: s.Next, At: s.Change.At, Updated: s.Updated})
	}
	if q.Text != "" {
		f.By = "record"
	}
	return f, v.err
}

func (v *village) Figures(context.Context, time.Time) (deal.Figures, error) { return v.figures, v.err }
func (v *village) AuditKey() string                                         { return "dealseal/village+1+AQ" }
func (v *village) NewestCheckpoint(context.Context) (deal.Checkpoint, error) {
	return v.signed, v.err
}

func (v *village) Values(ctx context.Context, tx deal.TxID, who string) (*Values, error) {
	d, err := v.private(ctx, tx, who+" viewed "+string(tx))
	if err != nil {
		return nil, err
	}
	return &Values{Document: d.Sealing.Private.Document, Record: d.Sealing.Private.Values, FileName: d.Sealing.Private.FileName, Differences: d.Sealing.Private.Differences}, nil
}

func (v *village) Fetch(ctx context.Context, tx deal.TxID, name, who string) (deal.File, io.Closer, error) {
	d, err := v.private(ctx, tx, who+" downloaded "+name)
	if err != nil {
		return deal.File{}, nil, err
	}
	if !slices.ContainsFunc(d.Kept, func(f deal.FileFact) bool { return f.Name == name }) {
		return deal.File{}, nil, ErrNotFound
	}
	content := "%PDF " + canary
	return deal.File{ReaderAt: strings.NewReader(content), Name: d.Sealing.Private.FileName, MediaType: "application/pdf", Length: int64(len(content))}, io.NopCloser(nil), nil
}

func (v *village) Proof(ctx context.Context, tx deal.TxID, who string) ([]byte, error) {
	_, err := v.private(ctx, tx, who+" downloaded the proof")
	return []byte(`{"form":"village"}`), err
}

// private is what is written down before anything personal is handed out.
func (v *village) private(ctx context.Context, tx deal.TxID, what string) (*Deal, error) {
	d, err := v.Deal(ctx, tx)
	if err != nil {
		return nil, err
	}
	if d.Erased {
		return nil, ErrErased
	}
	v.witnessed = append(v.witnessed, what)
	return d, nil
}

func (v *village) Counts(context.Context) (counts []Count, err error) {
	for _, d := range v.deals {
		s := d.Sealing
		i := slices.IndexFunc(counts, func(c Count) bool { return c.Tenant == s.Tenant && c.Step == s.Step && c.Condition == s.Condition })
		if i < 0 {
			counts = append(counts, Count{Tenant: s.Tenant, Step: s.Step, Condition: s.Condition, Oldest: s.Updated})
			i = len(counts) - 1
		}
		counts[i].N++
		if s.Updated.Before(counts[i].Oldest) {
			counts[i].Oldest = s.Updated
		}
	}
	return counts, v.err
}

// settle makes the village: every step with every condition, and some deals that are done.
func settle() *village {
	v := &village{
		stampers: []Stamper{{Server: "https://tsa.example/rfc3161", Quota: 2000, Used: 1999, Asked: noon.Add(-time.Minute)},
			{Server: "https://second.example/tsa", Asked: noon.Add(-time.Minute), Why: "HTTP status 503", Rests: true},
			{Server: "https://third.example/tsa", Quota: 3, Used: 3}},
		keys: []Key{{Name: "house", Subject: "CN=Acme Ltd Contract Seal,O=Acme Ltd,C=GB", Issuer: "CN=Example Trust Issuing CA 2,O=Example Trust,C=DE", SHA256: hash("cert", 0), NotAfter: noon.AddDate(1, 2, 3), State: deal.CertActive, Answer: deal.AnswerGood, Answered: noon.Add(-3 * time.Hour)},
			{Name: "house", Subject: "CN=Acme Ltd Contract Seal,O=Acme Ltd,C=GB", SHA256: hash("cert", 1), NotAfter: noon.AddDate(2, 2, 3), State: deal.CertNext, ActivateAt: time.Date(2027, 1, 1, 6, 0, 0, 0, time.UTC)},
			{Name: "house", Subject: "CN=Acme Ltd Contract Seal,O=Acme Ltd,C=GB", SHA256: hash("cert", 2), NotAfter: noon.AddDate(0, 0, 9), State: deal.CertRetiring},
			{Name: "seized", Subject: "CN=Acme Ltd Old Seal,O=Acme Ltd,C=GB", SHA256: hash("cert", 3), NotAfter: noon.AddDate(0, 9, 0), State: deal.CertRevoked, Answer: deal.AnswerRevoked},
			{Name: "spare", Subject: "CN=Acme Ltd Spare Seal,O=Acme Ltd,C=GB", NotAfter: noon.AddDate(0, 0, 41)}, {Name: "vault", Silent: true}},
		signed: deal.Checkpoint{Size: 1180, At: noon.Add(-23 * time.Minute)},
		checkup: Checkup{At: noon.Add(-5 * time.Hour), Passes: 41, Trouble: []Trouble{
			{Group: "tenant acme", Check: "write_back", Fails: true, What: "write_back.transaction_id: field DealSeal_Transaction_ID__c holds 20 characters, 26 are needed", Cure: "make the field longer in Salesforce"},
			{Group: "signing", Check: "ocsp house", What: "ocsp.example.com: HTTP status 503", Cure: "see that this machine may reach the responder; sealing does not need it in this version"}}},
		figures: busyMonth(),
	}
	for _, t := range []Tenant{
		{ID: "acme", Name: "Acme Ltd", Kind: deal.Salesforce, Environment: "production", Every: time.Minute,
			Poll:      deal.PollState{Account: "salesforce:00D5g000004XyZAEA0", Name: "Acme Limited", At: noon.Add(-12 * time.Second), Budget: deal.Budget{Used: 12345, Max: 100000}},
			Listening: &deal.Listening{Connected: true, Since: noon.Add(-7 * time.Hour), At: noon.Add(-time.Minute), Event: noon.Add(-4 * time.Minute), N: 271, Lag: 1500 * time.Millisecond}},
		{ID: "nordwind", Name: "Nordwind GmbH", Kind: deal.HubSpot, Environment: "production", Every: time.Minute,
			Poll:    deal.PollState{Account: "hubspot:147332109", Name: "nordwind.example", At: noon.Add(-31 * time.Second), Lag: 3 * time.Minute, Budget: deal.Budget{Used: 510233, Max: 625000}},
			Errands: Errands{Open: 3, Failing: 2, Problem: "HubSpot answers 502", Oldest: noon.Add(-2 * time.Hour), Refused: 1}},
		{ID: "acme-test", Name: "Acme sandbox", Kind: deal.Salesforce, Environment: "sandbox", Every: time.Minute,
			Poll: deal.PollState{Account: "salesforce:00D5g000009AbCdEAK", At: noon.Add(-3 * time.Hour), Since: noon.Add(-3*time.Hour + time.Minute),
				Err: "Salesforce refuses the token: INVALID_SESSION_ID: log in again or renew the connected app's certificate"},
			Listening: &deal.Listening{Since: noon.Add(-3 * time.Hour), Err: "salesforce: ask for the change events: log in: HTTP 400 invalid_grant"}},
		{ID: "fabrikam", Name: "Fabrikam", Kind: deal.HubSpot, Environment: "sandbox", Every: time.Minute},
	} {
		t.Poll.Tenant, t.Poll.Kind = t.ID, t.Kind
		v.tenants = append(v.tenants, t)
	}
	for i, step := range deal.Steps {
		for j, condition := range []deal.Condition{deal.Running, deal.Retrying, deal.Held, deal.Dead, deal.Ended} {
			if step == deal.Done && condition != deal.Running {
				continue
			}
			v.move(step, condition, i*5+j)
		}
	}
	for n := range 4 {
		v.move(deal.Done, deal.Running, 60+n)
	}
	v.pushes = []deal.Push{
		{At: noon.Add(-time.Minute), Tenant: "contoso", Source: "hubspot", Verdict: deal.PushTaken, Ref: deal.Ref{Object: "deals", ID: "30212"}, N: 1},
		{At: noon.Add(-time.Hour), Source: "opportunity", Verdict: "refused: forged", N: 17},
	}
	v.quarantined = []deal.Quarantine{{Ref: deal.Ref{Object: "deals", ID: "30211"}, Row: "closedwon@2026-11-20T09:00:00.000Z", Reason: "the history entry has no time stamp", At: noon.Add(-time.Hour)}}
	return v
}

var reasons = map[deal.Condition]string{
	deal.Retrying: "time-stamp server http://tsa.example.com answers 503 Service Unavailable",
	deal.Held:     "field customer.registration_number is blank: fill it in on the record and release the deal",
	deal.Dead:     "FIELD_CUSTOM_VALIDATION_EXCEPTION: a validation rule of the org refuses DealSeal_Status__c",
	deal.Ended:    "voided: the deal left its stage before it was sealed",
}

// busyMonth is a month with weekends, one bad day, one on which much was sealed, and one on which little was, after others
// like it.
func busyMonth() (f deal.Figures) {
	f.Earlier, f.First = map[string]int64{}, noon.AddDate(0, -6, 0).Format(time.DateOnly)
	for i := range 7 * deal.VolumeWeeks {
		day := noon.AddDate(0, 0, -chartDays-i)
		f.Earlier[day.Format(time.DateOnly)] = int64(190 + (i*29)%70)
		if day.Weekday() == time.Saturday || day.Weekday() == time.Sunday {
			f.Earlier[day.Format(time.DateOnly)] = int64(i % 9)
		}
	}
	for i := range chartDays {
		day := noon.AddDate(0, 0, i-chartDays+1)
		n := int64(180 + (i*37)%90)
		if day.Weekday() == time.Saturday || day.Weekday() == time.Sunday {
			n = int64(i % 9)
		}
		switch i {
		case 12:
			n *= 3
		case 22:
			n /= 6
		}
		if n == 0 {
			continue
		}
		d := deal.Day{Day: day.Format(time.DateOnly), Noticed: n + 2, Sealed: n, Done: n, Calls: n * 8, FailedCalls: int64(i%4) * n / 160}
		if i == 17 {
			d.FailedCalls = n / 6
		}
		d.Reported, d.Returned = n, time.Duration(n)*time.Duration(900+(i*773)%5000)*time.Millisecond
		if i%6 == 2 {
			d.Ended = 1 + n/40
		}
		d.Flow = deal.Quantiles{N: n, P50: time.Duration(520+i*5) * time.Millisecond, P95: time.Duration(1100+(i*113)%700) * time.Millisecond, P99: time.Duration(1700+(i*311)%2900) * time.Millisecond}
		f.Days = append(f.Days, d)
	}
	f.Flow = deal.Quantiles{N: 4200, P50: 610 * time.Millisecond, P95: 1480 * time.Millisecond, P99: 3900 * time.Millisecond}
	for i, s := range deal.Steps[1:] {
		f.Steps = append(f.Steps, deal.StepTimes{Step: s, Quantiles: deal.Quantiles{N: 1012, P50: usualTimes[i], P95: 2 * usualTimes[i], P99: 5 * usualTimes[i]}})
	}
	return f
}

// move adds a deal in the given state; n tells it from the others.
func (v *village) move(step deal.Step, condition deal.Condition, n int) *Deal {
	t := v.tenants[n%2]
	ref := deal.Ref{Object: "Opportunity", ID: fmt.Sprintf("0065g00000%05dAAA", 1000+n)}
	page := "https://acme.my.salesforce.com/" + ref.ID
	if t.Kind == deal.HubSpot {
		ref = deal.Ref{Object: "deals", ID: fmt.Sprint(9300211000 + n)}
		page = "https://app.hubspot.com/contacts/147332109/record/0-3/" + ref.ID
	}
	entered := noon.Add(-time.Duration(70-n) * 7 * time.Minute)
	s := &deal.Sealing{Tx: deal.NewTxID(t.Poll.Account, ref, "order-form", fmt.Sprint(n)), Tenant: t.ID, Account: t.Poll.Account, Step: step, Condition: condition,
		Change: deal.Change{Rule: "order-form", Ref: ref, Stage: "Closed Won", Occurrence: fmt.Sprintf("0085g00000%05dAAA", n), At: entered},
		Plan: deal.Plan{TenantName: t.Name, Rule: "order-form", Stage: "Closed Won", Template: "order-form@1", Bundle: hash("bundle", 0),
			Seller: map[string]string{"signatory": canary}, WriteBack: deal.WriteBack{Status: "DealSeal_Status__c"}},
		Reason: reasons[condition], Noticed: entered.Add(1200 * time.Millisecond),
		Private: deal.Private{Values: json.RawMessage(`{"name":"` + canary + `"}`), Document: json.RawMessage(`"` + canary + `"`), FileName: canary + ".pdf"},
	}
	if condition == deal.Retrying {
		s.Attempts, s.Next = 2, noon.Add(40*time.Second)
	}
	s.Facts = factsAt(step, n, page, s.Noticed)
	s.Updated = s.Facts.Times[step]
	d := &Deal{Sealing: s, Receipt: receiptOf(s), Trail: trailOf(s), Asked: "B-T"}
	if s.Facts.Archive != "" {
		d.Kept = []deal.FileFact{{Name: "contract.pdf", Size: 90411, SHA256: hash("contract", n)}, {Name: "evidence/audit-trail.pdf", Size: 31877, SHA256: hash("trail", n)},
			{Name: "evidence/report.json", Size: 4211, SHA256: hash("report", n)}, {Name: "evidence/signature.p7s", Size: 9120, SHA256: hash("p7s", n)}, {Name: "evidence/timestamp.tst", Size: 5310, SHA256: hash("tst", n)}}
	}
	v.deals = append(v.deals, d)
	return d
}

func receiptOf(s *deal.Sealing) deal.ReceiptState {
	r := deal.ReceiptState{Owner: s.Tx, Status: deal.ShownAs(s.Step, s.Condition), Sequence: 1763640000000, Sent: 1763640000000}
	if s.Step.Before(deal.Reported) && s.Condition != deal.Running {
		r.Sent--
	}
	return r
}

// usualTimes is how long each step takes in the village.
var usualTimes = []time.Duration{180 * time.Millisecond, 105 * time.Millisecond, 640 * time.Millisecond, 90 * time.Millisecond, 31 * time.Millisecond,
	720 * time.Millisecond, 310 * time.Millisecond, 12 * time.Millisecond}

// factsAt is what is known of a deal that has reached a step.
func factsAt(step deal.Step, n int, page string, noticed time.Time) deal.Facts {
	f := deal.Facts{Times: map[deal.Step]time.Time{}}
	when := noticed
	for i, s := range deal.Steps {
		if step.Before(s) {
			break
		}
		if i > 0 {
			when = when.Add(usualTimes[i-1] + time.Duration(n)*time.Millisecond)
		}
		f.Times[s] = when
	}
	reached := func(s deal.Step) bool { return !step.Before(s) }
	if reached(deal.Gathered) {
		f.Record, f.RecordURL, f.Gathered = hash("record", n), page, f.Times[deal.Gathered]
	}
	if reached(deal.Rendered) {
		f.Unsigned, f.RenderKey = &deal.FileFact{SHA256: hash("unsigned", n), Size: 70211, Name: canary + ".pdf"}, hash("render", n)
	}
	if reached(deal.Sealed) {
		f.Contract, f.Digest, f.Signature, f.Generation = &deal.FileFact{SHA256: hash("contract", n), Size: 90411, Name: canary + ".pdf"}, hash("digest", n), true, 1
		f.Cert = &deal.CertFact{SHA256: hash("cert", 0), SPKI: hash("spki", 0), Serial: "4f1d0c77a2b95e3310", Subject: "CN=Acme Ltd Contract Seal,O=Acme Ltd,C=GB",
			Issuer: "CN=Example Trust Issuing CA 2,O=Example Trust,C=DE", NotAfter: noon.AddDate(1, 2, 3), Digest: "SHA-256"}
	}
	if reached(deal.Checked) {
		f.Level, f.Verdict, f.Conclusion, f.SecondOpinion, f.SealedAt = "B-T", "VALID", "TOTAL-PASSED", "valid", f.Times[deal.Sealed].Truncate(time.Second)
	}
	if reached(deal.Kept) {
		f.Archive, f.Trail = "archive/acme/2026/11/"+hash("tx", n)[:26], &deal.FileFact{SHA256: hash("trail", n), Size: 31877, Name: canary + ".pdf"}
	}
	if reached(deal.Attached) {
		f.Attachment, f.AuditTrail = &deal.Attachment{ID: fmt.Sprintf("0695g0000%06dAAA", n), URL: page}, &deal.Attachment{ID: fmt.Sprintf("0695g0001%06dAAA", n), URL: page}
	}
	return f
}

func trailOf(s *deal.Sealing) (trail []deal.TrailLine) {
	for i, step := range deal.Steps {
		if s.Step.Before(step) {
			break
		}
		line := deal.TrailLine{Index: int64(1000 + i), At: s.Facts.Times[step], Who: "daemon", What: string(step), Step: step}
		if step == deal.Sealed {
			line.Cert = s.Facts.Cert.SHA256
		}
		trail = append(trail, line)
	}
	if s.Reason != "" {
		trail = append(trail, deal.TrailLine{Index: 1100, At: s.Updated, Who: "daemon", What: string(s.Condition), Why: s.Reason, Step: s.Step})
	}
	return trail
}

// hash is 64 hex digits that look like some.
func hash(kind string, n int) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, kind, n)))
}
