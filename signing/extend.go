package signing

import (
	"context"
	"fmt"

	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
)

// Extender raises documents that are signed to levels that last: it adds proof and changes nothing. It is safe for
// concurrent use.
type Extender struct {
	Revocation  Revocation
	Timestamper Timestamper // for B-LTA
	Anchors     revocation.Anchors
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
	tail, err := pades.AddValidation(ctx, doc, pades.Validation(material))
	if err != nil || to == pades.BLT {
		return tail, err
	}
	stamp, err := pades.PrepareTimestamp(ctx, pades.Appended{Document: doc, Tail: tail}, pades.TimestampOptions{})
	if err != nil {
		return nil, err
	}
	token, err := e.Timestamper.Timestamp(ctx, stamp.Digest, stamp.Hash)
	if err != nil {
		return nil, err
	}
	more, err := stamp.Embed(token)
	return append(tail, more...), err
}

// RefusedLevelError says that a document cannot be raised to a level afterwards.
type RefusedLevelError struct{ Level pades.Level }

func (e *RefusedLevelError) Error() string {
	return fmt.Sprintf("signing: a document is raised to %s or %s; %q is made when it is sealed", pades.BLT, pades.BLTA, e.Level)
}

// Permanent is true.
func (e *RefusedLevelError) Permanent() bool { return true }
