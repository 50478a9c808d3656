package engine

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
)

// collect gets what a seal of B-LT is checked with when nobody can be asked any more. It comes after the time-stamp, so
// that the evidence can speak of the time that the time-stamp proves, and is committed before it is used.
func (r *run) collect(ctx context.Context, t *signing.Ticket, p part) error {
	s := r.s
	if !t.Profile.Level.AtLeast(pades.BLT) || *p.evidence != nil || s.Facts.Flagged != "" {
		return nil
	}
	subjects, err := signing.Subjects(t, *p.token)
	if err != nil {
		return err
	}
	if err := r.begin(ctx, deal.Intent{What: p.point + "evidence", Lease: evidenceLease}); err != nil {
		return err
	}
	var material revocation.Material
	err = r.ask(ctx, p.point+"revocation", evidenceLimit, func(ctx context.Context) (err error) {
		material, err = r.Extender.Collect(ctx, subjects)
		return err
	})
	var revoked *revocation.RevokedError
	if errors.As(err, &revoked) {
		return r.stopRevoked(ctx, revoked, p)
	}
	if err != nil {
		return r.lacks(ctx, err, lack{"evidence of revocation" + p.which, "see that the OCSP responders and revocation lists can be reached, then release: they are asked", pades.BT, p.point + "evidence"})
	}
	fact, err := r.Files.Stage(ctx, s.Tx, p.file, func(w io.Writer) error { return json.NewEncoder(w).Encode(material) })
	if err != nil {
		return err
	}
	*p.evidence = &fact
	return r.advance(ctx, p.point+"evidence", "", deal.Entry{What: p.point + "evidence-collected", Detail: map[string]string{"sha256": fact.SHA256},
		Why: fmt.Sprintf("%d certificates, %d OCSP responses, %d revocation lists", len(material.Certs), len(material.OCSPs), len(material.CRLs))})
}

// stopRevoked holds a deal whose seal nobody would take for valid. A release asks again, and nothing else leads on. A
// time-stamp of an authority that was revoked proves nothing: then another one is asked for. A second seal can be left out.
func (r *run) stopRevoked(ctx context.Context, revoked *revocation.RevokedError, p part) error {
	r.Log.ErrorContext(ctx, "a certificate was revoked", "certificate", revoked.Subject, "at", revoked.At)
	if revoked.Usage != signing.UsageTimestamp && p.point != "" {
		return revoked
	}
	if revoked.Usage != signing.UsageTimestamp {
		return deal.Hold("%v, and the seal rests on it: nothing was released; take the key out of use, find out why it was revoked, and drop the deal (a release asks again whether it is revoked)", revoked)
	}
	*p.token = nil
	if err := r.advance(ctx, p.point+"evidence", "", deal.Entry{What: p.point + "time-stamp-given-up", Why: revoked.Error()}); err != nil {
		return err
	}
	return deal.Hold("%v, and the time-stamp of the seal rests on it: take that TSA out of signing.tsa, start anew, then release: another time-stamp is asked for, over the same signature", revoked)
}

// material reads the evidence that was committed, of both seals if there are two. What proves both is in it once.
func (r *run) material(ctx context.Context) (m revocation.Material, err error) {
	facts := map[string]*deal.FileFact{fileEvidence: r.s.Facts.Evidence}
	if second := r.s.Facts.Second; second != nil && second.GivenUp == "" {
		facts[fileSecondEvidence] = second.Evidence
	}
	for _, name := range []string{fileEvidence, fileSecondEvidence} {
		if facts[name] == nil {
			continue
		}
		more, err := r.readMaterial(ctx, name, *facts[name])
		if err != nil {
			return m, err
		}
		m.Certs, m.OCSPs, m.CRLs = addMissing(m.Certs, more.Certs), addMissing(m.OCSPs, more.OCSPs), addMissing(m.CRLs, more.CRLs)
	}
	return m, nil
}

func (r *run) readMaterial(ctx context.Context, name string, fact deal.FileFact) (m revocation.Material, err error) {
	f, closer, err := r.Files.OpenStaged(ctx, r.s.Tx, name, fact)
	if err != nil {
		return m, err
	}
	defer closer.Close()
	if err := json.NewDecoder(f.Open()).Decode(&m); err != nil {
		return m, &permanentError{fmt.Errorf("the staged evidence is damaged: %w", err)}
	}
	return m, nil
}

func addMissing(list, more [][]byte) [][]byte {
	for _, b := range more {
		if !slices.ContainsFunc(list, func(known []byte) bool { return bytes.Equal(known, b) }) {
			list = append(list, b)
		}
	}
	return list
}

// prove returns what makes a sealed document last: its evidence and, for B-LTA, a document time-stamp over both.
func (r *run) prove(ctx context.Context, t *signing.Ticket, sealed pades.Document) (tail []byte, err error) {
	if r.s.Facts.Evidence == nil {
		return nil, nil
	}
	m, err := r.material(ctx)
	if err != nil {
		return nil, err
	}
	add := pades.AddValidation
	if t.Profile.VRI {
		add = pades.AddIndexedValidation
	}
	if tail, err = add(ctx, sealed, pades.Validation(m)); err != nil {
		return nil, err
	}
	if !t.Profile.Level.AtLeast(pades.BLTA) || r.s.Facts.Flagged != "" {
		return tail, nil
	}
	stamp, err := signing.ArchiveStamp(ctx, pades.Appended{Document: sealed, Tail: tail}, t, r.s.Private.Token)
	if err != nil {
		return nil, err
	}
	if err := r.stampArchive(ctx, stamp); err != nil || r.s.Facts.Flagged != "" {
		return tail, err
	}
	more, err := stamp.Embed(r.s.Private.ArchiveToken)
	return append(tail, more...), err
}

// stampArchive gets the token of the document time-stamp, unless there is one over the same bytes: another version of
// this program may arrange the evidence in another way, and then the token is over what no longer is.
func (r *run) stampArchive(ctx context.Context, stamp *pades.PreparedTimestamp) error {
	s := r.s
	if len(s.Private.ArchiveToken) > 0 && bytes.Equal(s.Private.ArchiveDigest, stamp.Digest) {
		return nil
	}
	s.Private.ArchiveToken, s.Private.ArchiveDigest = nil, nil
	if err := r.begin(ctx, deal.Intent{What: "archive-timestamp", Digest: hex.EncodeToString(stamp.Digest)}); err != nil {
		return err
	}
	var token []byte
	err := r.ask(ctx, "archive-tsa", stampLimit, func(ctx context.Context) (err error) {
		token, err = r.Extender.Stamp(ctx, stamp)
		return err
	})
	if err != nil {
		return r.lacks(ctx, err, lack{"document time-stamp", "mend the TSA, then release: it is asked", pades.BLT, "archive-token"})
	}
	s.Private.ArchiveToken, s.Private.ArchiveDigest = token, stamp.Digest
	return r.advance(ctx, "archive-token", "", deal.Entry{What: "archive-time-stamped", Why: fmt.Sprintf("token of %d bytes", len(token))})
}

// lack is what a level needs and what cannot be had.
type lack struct {
	what   string      // it is
	cure   string      // and who is asked once more
	leaves pades.Level // reached without it
	point  string      // at which going on without it is committed
}

// lacks is for trouble with what the level needs. It is retried to the end of the schedule; only then does the profile
// say whether to go on without. That the certificate of the seal was revoked is an answer, and no trouble.
func (r *run) lacks(ctx context.Context, cause error, l lack) error {
	s := r.s
	over := deal.IsPermanent(cause) || s.Attempts+1 >= r.Retry.Attempts || r.released(holdLevel)
	if !over || ctx.Err() != nil || signing.IsRevoked(cause) {
		return cause
	}
	profile, err := profileOf(s.Plan)
	if err != nil {
		return err
	}
	switch {
	case profile.OnDowngrade == signing.AcceptAndFlag || r.released(holdLevel):
		s.Facts.Flagged = "no " + l.what + " could be had: " + cause.Error()
		return r.advance(ctx, l.point, "", deal.Entry{What: "downgraded", Why: s.Facts.Flagged})
	case profile.OnDowngrade == signing.Fail:
		return &permanentError{fmt.Errorf("level %s was asked for and no %s could be had: %w", profile.Level, l.what, cause)}
	default:
		return held(holdLevel, "level %s was asked for and no %s could be had (%v): %s once more, and if that fails the deal goes on at %s", profile.Level, l.what, cause, l.cure, l.leaves)
	}
}
