package signing

import (
	"context"
	"fmt"

	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/tsa"
)

// Extender raises documents that are signed to levels that last: it adds proof and changes nothing. It is safe for
// concurrent use.
type Extender struct {
	Revocation  Revocation
	Timestamper Timestamper // for B-LTA
	Anchors     revocation.Anchors
	// VRI has Extend say for which signatures the evidence is; see pades.AddIndexedValidation.
	VRI bool
}

// Extend returns the bytes to append to doc so that its signatures are provable at that level, B-LT or B-LTA, later.
// subjects are the certificates that the signatures in doc rest on. Extending a document again goes on from where it is:
// at B-LTA each time adds a document time-stamp, made over the proof of the one before.
func (e *Extender) Extend(ctx context.Context, doc pades.Document, to pades.Level, subjects []revocation.Subject) ([]byte, error) {
	if to != pades.BLT && to != pades.BLTA {
		return nil, &RefusedLevelError{Level: to}
	}
	material, err := e.Revocation.Collect(ctx, e.Anchors, subjects)
	if err != nil {
		return nil, err
	}
	add := pades.AddValidation
	if e.VRI {
		add = pades.AddIndexedValidation
	}
	tail, err := add(ctx, doc, pades.Validation(material))
	if err != nil || to == pades.BLT {
		return tail, err
	}
	stamp, err := pades.PrepareTimestamp(ctx, pades.Appended{Document: doc, Tail: tail}, pades.TimestampOptions{})
	if err != nil {
		return nil, err
	}
	token, err := e.Stamp(ctx, stamp)
	if err != nil {
		return nil, err
	}
	more, err := stamp.Embed(token)
	return append(tail, more...), err
}

// Collect gets what subjects are checked with when nobody can be asked any more. A certificate that was revoked is a
// *revocation.RevokedError.
func (e *Extender) Collect(ctx context.Context, subjects []revocation.Subject) (revocation.Material, error) {
	return e.Revocation.Collect(ctx, e.Anchors, subjects)
}

// Stamp gets the token of a staged document time-stamp, one that fits its place. It must be committed before it is used,
// and a token that was committed is used again rather than asking for another.
func (e *Extender) Stamp(ctx context.Context, p *pades.PreparedTimestamp) (token []byte, err error) {
	if e.Timestamper == nil {
		return nil, &TimestampError{Level: pades.BLTA}
	}
	if token, err = e.Timestamper.Timestamp(ctx, p.Digest, p.Hash); err != nil {
		return nil, err
	}
	_, err = p.Embed(token)
	return token, err
}

// What the certificates of a seal are used for, as a *revocation.RevokedError says it.
const (
	UsageSeal      = "the seal"
	UsageTimestamp = "the time-stamp of the seal"
)

// Subjects are the certificates that a seal rests on which was just made, with the time that its time-stamp proves.
func Subjects(t *Ticket, token []byte) ([]revocation.Subject, error) {
	chain, err := t.Prepared.Certificates()
	if err != nil {
		return nil, err
	}
	stamp, err := tsa.ParseToken(token)
	if err != nil {
		return nil, err
	}
	return []revocation.Subject{
		{Cert: chain[0], With: chain[1:], At: stamp.Time, Usage: UsageSeal, New: true},
		{Cert: stamp.Certificate, With: stamp.Certificates(), At: stamp.Time, Usage: UsageTimestamp, New: true},
	}, nil
}

// ArchiveStamp stages the document time-stamp that makes a seal B-LTA. doc is the sealed document with its evidence, token
// the time-stamp of the seal: what it needed for room, the next one needs too.
func ArchiveStamp(ctx context.Context, doc pades.Document, t *Ticket, token []byte) (*pades.PreparedTimestamp, error) {
	reserve := max(t.Profile.TimestampReserve, 2*len(token), 12<<10)
	return pades.PrepareTimestamp(ctx, doc, pades.TimestampOptions{Hash: t.Prepared.Algorithm.Hash, Reserve: reserve})
}

// RefusedLevelError says that a document cannot be raised to a level afterwards.
type RefusedLevelError struct{ Level pades.Level }

func (e *RefusedLevelError) Error() string {
	return fmt.Sprintf("signing: a document is raised to %s or %s; %q is made when it is sealed", pades.BLT, pades.BLTA, e.Level)
}

// Permanent is true.
func (e *RefusedLevelError) Permanent() bool { return true }
