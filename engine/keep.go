package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
)

// keep archives the contract with its evidence and audit trail. The archive is the truth; what the CRM gets is a copy.
func (r *run) keep(ctx context.Context) error {
	s := r.s
	var auditTrail []byte
	if s.Plan.AuditTrail != "" {
		var err error
		if auditTrail, err = r.makeTrail(ctx); err != nil {
			return err
		}
	}
	if err := r.begin(ctx, *r.toKeep()); err != nil {
		return err
	}
	evidence := map[string][]byte{"report.json": s.Private.Report}
	add := func(name string, b []byte) {
		if len(b) > 0 {
			evidence[name] = b
		}
	}
	add("signature.p7s", s.Private.CMS)
	add("timestamp.tst", s.Private.Token)
	if second := s.Private.Second; second != nil {
		add("second-signature.p7s", second.CMS)
		add("second-timestamp.tst", second.Token)
	}
	add("archive-timestamp.tst", s.Private.ArchiveToken)
	add("audit-trail.pdf", auditTrail)
	proof, err := r.material(ctx)
	if err != nil {
		return err
	}
	for name, list := range map[string][][]byte{"certificate-%d.cer": proof.Certs, "ocsp-%d.ors": proof.OCSPs, "revocation-list-%d.crl": proof.CRLs} {
		for i, der := range list {
			add(fmt.Sprintf(name, i+1), der)
		}
	}
	folder, err := r.Files.Keep(ctx, s, fileContract, evidence)
	if err != nil {
		return err
	}
	s.Facts.Archive = folder
	return r.advance(ctx, "kept", deal.Kept, deal.Entry{What: "archived", Why: folder, Cert: certOf(s), Detail: map[string]string{"sha256": s.Facts.Contract.SHA256}})
}

// makeTrail stages the audit trail as it stands now; later entries stay in the house's own log. A retry takes the
// committed one, so that archive and CRM get the same bytes.
func (r *run) makeTrail(ctx context.Context) ([]byte, error) {
	s := r.s
	if s.Facts.Trail == nil {
		if err := r.stageTrail(ctx); err != nil {
			return nil, err
		}
	}
	f, closer, err := r.Files.OpenStaged(ctx, s.Tx, fileTrail, *s.Facts.Trail)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return io.ReadAll(f.Open())
}

func (r *run) stageTrail(ctx context.Context) error {
	bundle, err := r.Bundles.Bundle(r.s.Plan.AuditTrail)
	if err != nil {
		return err
	}
	var b []byte
	err = r.renderInTurn(ctx, bundle, func() error {
		if err := r.begin(ctx, deal.Intent{What: "trail", Lease: trailLease}); err != nil {
			return err
		}
		lines, err := r.Ledger.Trail(ctx, r.s.Tx)
		if err != nil {
			return err
		}
		return r.call(ctx, "trail", renderLimit, func(ctx context.Context) (err error) {
			b, err = r.renderTrail(ctx, bundle, lines)
			return err
		})
	})
	if err != nil {
		return err
	}
	fact, err := r.Files.Stage(ctx, r.s.Tx, fileTrail, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	r.s.Facts.Trail = &fact
	r.made[fileTrail] = true
	return r.advance(ctx, "trail", "", deal.Entry{What: "audit-trail-made", Detail: map[string]string{"sha256": fact.SHA256}, Then: r.toKeep()})
}

// trail is the record of an audit-trail bundle.
type trail struct {
	Tx       string      `json:"tx"`
	Tenant   string      `json:"tenant"`
	Account  string      `json:"account"`
	Record   string      `json:"record"`
	Rule     string      `json:"rule"`
	Stage    string      `json:"stage"`
	Entered  string      `json:"entered"`
	Document trailFile   `json:"document"`
	Seal     trailSeal   `json:"seal"`
	Entries  []trailLine `json:"entries"`
	Printed  string      `json:"date"`
}

type trailFile struct {
	Name     string `json:"name"`
	SHA256   string `json:"sha256"`
	Size     string `json:"size"`
	Template string `json:"template"`
}

type trailSeal struct {
	Level    string `json:"level"`
	At       string `json:"at"`
	Verdict  string `json:"verdict"`
	Opinion  string `json:"second_opinion"`
	Note     string `json:"note"`
	Subject  string `json:"subject"`
	Issuer   string `json:"issuer"`
	Serial   string `json:"serial"`
	SHA256   string `json:"sha256"`
	NotAfter string `json:"not_after"`
}

type trailLine struct {
	Index string `json:"index"`
	At    string `json:"at"`
	Who   string `json:"who"`
	What  string `json:"what"`
	Why   string `json:"why"`
}

// trailTime is how the audit trail writes times: UTC, to the millisecond, sortable.
const trailTime = "2006-01-02 15:04:05.000 UTC"

func (r *run) renderTrail(ctx context.Context, bundle *documents.Bundle, lines []deal.TrailLine) ([]byte, error) {
	s := r.s
	t := trail{
		Tx: string(s.Tx), Tenant: s.Plan.TenantName, Account: string(s.Account), Record: s.Change.Ref.String(), Rule: s.Plan.Rule, Stage: s.Plan.Stage,
		Entered: s.Change.At.UTC().Format(trailTime), Printed: s.Change.At.UTC().Format(time.RFC3339),
		Document: trailFile{Name: s.Private.FileName, SHA256: s.Facts.Contract.SHA256, Size: fmt.Sprintf("%d bytes", s.Facts.Contract.Size), Template: sourceOf(s.Plan)},
		Seal:     trailSeal{Level: s.Facts.Level, At: s.Facts.SealedAt.UTC().Format(trailTime), Verdict: s.Facts.Verdict, Opinion: s.Facts.SecondOpinion, Note: s.Facts.Flagged},
	}
	if c := s.Facts.Cert; c != nil {
		t.Seal.Subject, t.Seal.Issuer, t.Seal.Serial, t.Seal.SHA256 = c.Subject, c.Issuer, c.Serial, c.SHA256
		t.Seal.NotAfter = c.NotAfter.UTC().Format(trailTime)
	}
	for _, l := range lines {
		t.Entries = append(t.Entries, trailLine{Index: fmt.Sprint(l.Index), At: l.At.UTC().Format(trailTime), Who: l.Who, What: l.What, Why: l.Why})
	}
	record, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	out, err := r.layOut(ctx, bundle, record)
	return out.PDF, err
}
