package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// check reads the sealed file back with our own verifier and the second reader. Nothing is kept that did not reach the
// level asked for, unless the profile or a person said so.
func (r *run) check(ctx context.Context) error {
	s := r.s
	profile, err := profileOf(s.Plan)
	if err != nil {
		return err
	}
	sealed, closer, err := r.Files.OpenStaged(ctx, s.Tx, fileContract, *s.Facts.Contract)
	if err != nil {
		return err
	}
	defer closer.Close()
	var verdict finding
	err = r.inTurn(ctx, r.checking, func() error {
		if err := r.begin(ctx, deal.Intent{What: "check", Lease: checkLease}); err != nil {
			return err
		}
		return r.call(ctx, "verify", checkLimit, func(ctx context.Context) error {
			report, err := r.checkSealed(ctx, sealed)
			if err != nil {
				return err
			}
			verdict, err = findingOf(report, r.first())
			if s.Plan.Delegated != nil {
				verdict.everySignature(report)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	s.Private.Report = verdict.json
	s.Facts.Verdict, s.Facts.SecondOpinion, s.Facts.Level = verdict.verdict, verdict.opinion, string(verdict.level)
	s.Facts.Conclusion, s.Facts.SealedAt = verdict.conclusion, verdict.at
	if s.Facts.Cert == nil {
		s.Facts.Cert = verdict.cert
	}
	if hasTwo(s) {
		s.Facts.Second.Level = string(verdict.second)
	}
	if err := r.judge(profile, verdict); err != nil {
		return err
	}
	if second := s.Facts.Second; second != nil && second.GivenUp != "" && s.Facts.Flagged == "" {
		s.Facts.Flagged = "two seals were asked for, one was made: " + second.GivenUp
	}
	if err := r.recognise(ctx, profile, verdict); err != nil {
		return err
	}
	return r.advance(ctx, "checked", deal.Checked, deal.Entry{What: "verified", Why: fmt.Sprintf("%s, level %s, second reader: %s", verdict.verdict, verdict.level, verdict.opinion), Cert: certOf(s),
		Detail: map[string]string{"verdict": verdict.verdict, "level": string(verdict.level), "second_opinion": verdict.opinion},
		Events: []deal.Event{{Type: "document.validated", Data: withLevel(map[string]string{"verdict": verdict.verdict}, string(verdict.level))}}})
}

// judge compares what was reached with what was asked for.
func (r *run) judge(p signing.Profile, f finding) error {
	s := r.s
	switch {
	case !f.valid && s.Facts.Adopted:
		return deal.Hold("a file on the record claims to be the contract of this transaction, and our own verification of it says %s (%s): remove it and prepare the deal again (dealseal jobs prepare)", f.verdict, f.why)
	case !f.valid && s.Plan.Delegated != nil:
		return deal.Hold("our own verification of the document that was signed at %s says %s (%s): nothing was released; if its roots are missing, name them under vendors.trust and reload, then release the deal; if the vendor has another document by now, prepare the deal again (dealseal jobs prepare), or drop it", s.Plan.Delegated.Vendor, f.verdict, f.why)
	case !f.valid:
		return deal.Hold("our own verification of the sealed file says %s (%s): nothing was released", f.verdict, f.why)
	case f.opinion == "invalid" && !r.released(holdOpinion):
		return held(holdOpinion, "the second reader calls the seal invalid: compare both reports (dealseal explain %s), then release or drop", s.Tx)
	case f.level.AtLeast(p.Level), p.Level == "" && s.Plan.Delegated != nil:
		return nil
	case s.Facts.Flagged != "" || r.released(holdLevel):
		return nil
	case p.OnDowngrade == signing.AcceptAndFlag:
		s.Facts.Flagged = fmt.Sprintf("level %s was asked for, %s was reached", p.Level, f.level)
		return nil
	case p.OnDowngrade == signing.Fail:
		return &permanentError{fmt.Errorf("level %s was asked for, %s was reached", p.Level, f.level)}
	default:
		return held(holdLevel, "level %s was asked for, %s was reached: release to accept it, or drop", p.Level, f.level)
	}
}

// recognise is for a contract that was found on the record instead of being made here: whoever may attach files there can
// attach one that bears our marker. It is ours if our key sealed it and the seal names this transaction.
func (r *run) recognise(ctx context.Context, p signing.Profile, f finding) error {
	s := r.s
	if !s.Facts.Adopted || r.released(holdAdopted) {
		return nil
	}
	if s.Plan.Delegated != nil {
		return held(holdAdopted, "a file on the record claims to be the contract of this transaction, and it was not fetched from %s by this daemon: look at it, then release to accept it, or remove it and prepare the deal again (dealseal jobs prepare)", s.Plan.Delegated.Vendor)
	}
	var ours bool
	if f.cert != nil {
		ctx, cancel := context.WithTimeout(ctx, signLimit)
		defer cancel()
		var err error
		if ours, err = r.Sealer.IsKey(ctx, p.Key, f.cert.SPKI); err != nil {
			return err
		}
	}
	switch {
	case !strings.Contains(f.reason, string(s.Tx)):
		return held(holdAdopted, "a file on the record claims to be the contract of this transaction, but its seal does not name the transaction: look at it, then release to accept it, or remove it and prepare the deal again (dealseal jobs prepare)")
	case !ours:
		return held(holdAdopted, "a file on the record is the contract of this transaction, but another key than %q sealed it: release to accept it (after a change of keys), or remove it and prepare the deal again (dealseal jobs prepare)", p.Key)
	}
	return nil
}

func certOf(s *deal.Sealing) string {
	if s.Facts.Cert == nil {
		return ""
	}
	return s.Facts.Cert.SHA256
}

// first is the certificate of the first of two seals, by its SHA-256; empty where there is one.
func (r *run) first() string {
	if !hasTwo(r.s) || r.s.Facts.Cert == nil {
		return ""
	}
	return r.s.Facts.Cert.SHA256
}

// finding is what the flow needs of a verification report.
type finding struct {
	verdict    string
	conclusion string // the verdict in the words of ETSI EN 319 102-1
	valid      bool
	why        string
	level      pades.Level // of two seals the lower one
	second     pades.Level // of the second of two
	opinion    string
	at         time.Time
	cert       *deal.CertFact
	reason     string // as the seal states it
	json       []byte
}

// findingOf looks at the signature that covers the whole file, which is ours: others may have signed the file before, and
// whether theirs can be trusted is for the reader of the contract to say. Of two seals the first is found by its certificate,
// and both count.
func findingOf(report *verify.Report, first string) (f finding, err error) {
	if f.json, err = json.Marshal(report); err != nil {
		return f, err
	}
	if report.SecondOpinion != nil {
		f.opinion = string(report.SecondOpinion.Verdict)
	}
	ours := report.Newest()
	if ours == nil {
		f.conclude(verify.Indeterminate, "")
		f.why = "no signature covers the whole of it"
		return f, nil
	}
	f.conclude(ours.Verdict, ours.SubIndication)
	f.level, f.reason = ours.Level, ours.Reason
	for _, r := range slices.Concat(report.Reasons, ours.Reasons) {
		if r.Verdict != verify.Valid {
			f.conclude(r.Verdict, r.SubIndication)
			f.why = r.Text
			break
		}
	}
	f.at = madeAt(ours)
	if first != "" {
		f.both(report.By(first))
	}
	if c := ours.Signer; c != nil {
		f.cert = &deal.CertFact{SHA256: c.SHA256, SPKI: c.SPKI, Serial: c.Serial, Subject: c.Subject, Issuer: c.Issuer, NotAfter: c.NotAfter, Digest: ours.Digest}
	}
	return f, nil
}

// both adds the first of two seals to what was found of the second: what is said of the document holds for each of them.
func (f *finding) both(first *verify.Signature) {
	if first == nil {
		f.conclude(verify.Invalid, "")
		f.why = "the first of its two seals is not in it"
		return
	}
	f.second = f.level
	if f.level.AtLeast(first.Level) {
		f.level = first.Level
	}
	f.at = madeAt(first)
	if f.valid && first.Verdict != verify.Valid {
		f.conclude(first.Verdict, first.SubIndication)
		for _, r := range first.Reasons {
			if r.Verdict != verify.Valid {
				f.why = "of the first seal: " + r.Text
				break
			}
		}
	}
}

// madeAt is the time of a signature that is proven, or else the one that it claims.
func madeAt(s *verify.Signature) (at time.Time) {
	switch {
	case s.Timestamp != nil:
		return s.Timestamp.Time.UTC()
	case s.ClaimedTime != nil:
		return s.ClaimedTime.UTC()
	}
	return at
}

func (f *finding) conclude(v verify.Verdict, sub verify.SubIndication) {
	f.verdict, f.valid, f.conclusion = string(v), v == verify.Valid, string(v.Indication())
	if sub != "" {
		f.conclusion += ", " + string(sub)
	}
}
