package engine

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify"
)

// During a rollover a document gets two seals: the first with the certificate that is active, the second, over it, with the
// one that was followed. The ticket of the first says so, and with which: whatever becomes of the rollover between the
// staging and the end, a deal goes on as it began.
//
// The second digest covers the first seal with its time-stamp. So it is staged only when nothing of that can change any more:
// a time-stamp is given up when its authority turns out to be revoked, which is found while the evidence is collected, and
// that is behind us. From then on it goes the way of the first, with a committed digest and intents of its own.

// asksForTwo reports whether a second seal is to be made that was not given up.
func asksForTwo(s *deal.Sealing, first *signing.Ticket) bool {
	return len(first.Second) > 0 && (s.Facts.Second == nil || s.Facts.Second.GivenUp == "")
}

// hasTwo reports whether the document that was made here bears two seals.
func hasTwo(s *deal.Sealing) bool { return s.Facts.Second != nil && s.Facts.Second.GivenUp == "" }

func (r *run) secondSeal() part {
	f, p := r.s.Facts.Second, r.s.Private.Second
	return part{point: "second-", which: " of the second seal", file: fileSecondEvidence,
		digest: &f.Digest, signature: &f.Signature, cert: &f.Cert, evidence: &f.Evidence, value: &p.Value, token: &p.Token}
}

// addSecond makes the second seal on the document with the tail that completes the first, and returns the tail of both, or
// that of the first alone if the second was given up.
func (r *run) addSecond(ctx context.Context, first *signing.Ticket, unsigned deal.File, doc pades.Document, tail []byte) ([]byte, error) {
	more, err := r.makeSecond(ctx, first, joined{unsigned, tail}, pades.Appended{Document: doc, Tail: tail})
	if err != nil {
		return tail, r.lacksSecond(ctx, err)
	}
	return append(tail, more...), nil
}

// makeSecond returns what is appended to the document that bears the first seal, which both arguments are.
func (r *run) makeSecond(ctx context.Context, first *signing.Ticket, file joined, doc pades.Document) (tail []byte, err error) {
	t, err := r.prepareSecond(ctx, first, doc)
	if err != nil {
		return nil, err
	}
	if err := r.rehearseSecond(ctx, first, t, file); err != nil {
		return nil, err
	}
	if err := r.commitSecond(ctx, t); err != nil {
		return nil, err
	}
	if err := r.fulfil(ctx, t, r.secondSeal()); err != nil {
		return nil, err
	}
	tail, r.s.Private.Second.CMS, err = r.embed(t, r.secondSeal())
	return tail, err
}

// prepareSecond makes the ticket once, as prepare does.
func (r *run) prepareSecond(ctx context.Context, first *signing.Ticket, doc pades.Document) (*signing.Ticket, error) {
	s := r.s
	if s.Private.Second != nil {
		var t signing.Ticket
		if err := json.Unmarshal(s.Private.Second.Ticket, &t); err != nil {
			return nil, &permanentError{fmt.Errorf("the staged second signature is damaged: %w", err)}
		}
		if s.Facts.Second.Digest != "" || r.Now().Sub(t.Time) < ticketLife {
			return &t, nil
		}
	}
	if err := r.begin(ctx, deal.Intent{What: "second-prepare"}); err != nil {
		return nil, err
	}
	prepareCtx, cancel := context.WithTimeout(ctx, signLimit)
	defer cancel()
	t, err := r.Sealer.PrepareSecond(prepareCtx, doc, first)
	if err != nil {
		return nil, err
	}
	ticket, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	s.Facts.Second, s.Private.Second = &deal.SecondSeal{}, &deal.PrivateSecond{Ticket: ticket}
	return t, r.advance(ctx, "second-prepared", "", deal.Entry{What: "second-prepared", Why: "a rollover asks for two seals: the second with certificate " + hex.EncodeToString(t.CertSHA256),
		Detail: map[string]string{"digest": hex.EncodeToString(t.Digest())}})
}

// rehearseSecond has both seals read, the second one by a throw-away key: it must be valid, and harm nothing of the first but
// that here nobody vouches for that one.
func (r *run) rehearseSecond(ctx context.Context, first, t *signing.Ticket, file joined) error {
	if r.s.Facts.Second.Digest != "" {
		return nil
	}
	tail, root, err := r.Sealer.Rehearse(t)
	if err != nil {
		return err
	}
	report, err := r.readRehearsal(ctx, "second-rehearsal", joined{file.File, append(file.tail[:len(file.tail):len(file.tail)], tail...)}, root)
	if err != nil {
		return err
	}
	f, err := findingOf(report, "")
	if err == nil && f.valid {
		f.harm(report, hex.EncodeToString(first.CertSHA256))
	}
	if err == nil && !f.valid {
		err = &permanentError{fmt.Errorf("a rehearsal of the second seal gives a file that our own verification calls %s (%s): the key was not used for it", f.verdict, f.why)}
	}
	return err
}

// harm takes a rehearsal for invalid that does to the first seal more than that nobody vouches for it.
func (f *finding) harm(report *verify.Report, first string) {
	s := report.By(first)
	if s == nil {
		f.conclude(verify.Invalid, "")
		f.why = "the first seal is not found any more"
		return
	}
	for _, reason := range s.Reasons {
		if reason.Verdict != verify.Valid && reason.Code != verify.CodeUntrusted {
			f.conclude(reason.Verdict, reason.SubIndication)
			f.why = "of the first seal: " + reason.Text
			return
		}
	}
}

// commitSecond is the point of no return of the second seal. What the record says does not matter any more: the first one
// is made.
func (r *run) commitSecond(ctx context.Context, t *signing.Ticket) error {
	second := r.s.Facts.Second
	if second.Digest != "" {
		return nil
	}
	second.Digest = hex.EncodeToString(t.Digest())
	return r.advance(ctx, "second-digest", "", deal.Entry{What: "second-digest-committed", Why: "this digest and no other is signed for the second seal: " + second.Digest, Cert: hex.EncodeToString(t.CertSHA256),
		Detail: map[string]string{"digest": second.Digest, "key": hex.EncodeToString(t.SPKISHA256)}})
}

// lacksSecond is for a second seal that cannot be made: the profile or a person may let the document go with the first one,
// which is whole. What passes, or is mended for all deals, is waited for as for any seal. A certificate that was revoked is
// no trouble but an answer: a person hears of it, whatever the profile accepts.
func (r *run) lacksSecond(ctx context.Context, cause error) error {
	s := r.s
	var hold *deal.HoldError
	var lost *commitError
	var revoked *revocation.RevokedError
	isRevoked := errors.As(cause, &revoked) || signing.IsRevoked(cause)
	released := r.released(holdOneSeal)
	switch {
	case ctx.Err() != nil, errors.As(cause, &hold), errors.As(cause, &lost), errors.Is(cause, deal.ErrStale):
		return cause
	case isRevoked, released:
	case mendedForAll(cause):
		return &secondKeyError{cause}
	case !deal.IsPermanent(cause) && s.Attempts+1 < r.Retry.Attempts:
		return cause
	}
	profile, err := profileOf(s.Plan)
	if err != nil {
		return err
	}
	switch {
	case released, profile.OnDowngrade == signing.AcceptAndFlag && !isRevoked:
		return r.giveUpSecond(ctx, cause)
	case profile.OnDowngrade == signing.Fail && !isRevoked:
		return &permanentError{fmt.Errorf("two seals were asked for, and the second could not be made: %w", cause)}
	}
	return held(holdOneSeal, "two seals were asked for, and the second could not be made (%v): mend that, then release: it is tried once more, and if that fails the deal goes on with one seal", cause)
}

// giveUpSecond lets the document go with one seal. What was staged or signed of the second never leaves the house.
func (r *run) giveUpSecond(ctx context.Context, cause error) error {
	s := r.s
	second := deal.SecondSeal{}
	if s.Facts.Second != nil {
		second = *s.Facts.Second
	}
	second.GivenUp = cause.Error()
	s.Facts.Second, s.Private.Second = &second, nil
	return r.advance(ctx, "second-prepared", "", deal.Entry{What: "second-seal-given-up", Why: second.GivenUp})
}
