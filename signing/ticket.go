package signing

import (
	"bytes"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

// Ticket is a staged seal: the right to one signature over one digest. It goes through JSON unchanged, and what was
// committed of it is used again by every retry.
type Ticket struct {
	Profile    Profile
	SPKISHA256 []byte    // of the key that must redeem it
	CertSHA256 []byte    // of the signer's certificate in it
	Time       time.Time // claimed time of signing, in the document
	By         string    `json:",omitempty"` // the key that has redeemed it, where several stand in for each other

	// Second is the chain of the certificate that a second seal is to be made with, once this one is: decided when this one was
	// staged, whatever becomes of the rollover meanwhile.
	Second [][]byte `json:",omitempty"`

	Prepared *pades.Prepared
}

// Digest is what the key signs: the intent to record before [Sealer.Redeem].
func (t *Ticket) Digest() []byte { return t.Prepared.Digest }

// check finds a ticket that was damaged in storage. The reason is for the log.
func (t *Ticket) check() error {
	if t == nil || t.Prepared == nil {
		return &TicketError{Reason: "it is empty"}
	}
	chain, err := t.Prepared.Certificates()
	if err != nil {
		return &TicketError{Reason: err.Error()}
	}
	switch {
	case !bytes.Equal(t.CertSHA256, digest(chain[0].Raw)):
		return &TicketError{Reason: "its certificate is not the one that it names"}
	case !bytes.Equal(t.SPKISHA256, digest(chain[0].RawSubjectPublicKeyInfo)):
		return &TicketError{Reason: "its key is not the one that it names"}
	}
	if err := t.Prepared.Check(); err != nil {
		return &TicketError{Reason: err.Error()}
	}
	return nil
}

// TicketError says that a ticket is damaged. A new one must be prepared, which needs a person's reason: it is permanent.
type TicketError struct{ Reason string }

func (e *TicketError) Error() string { return "signing: the staged seal is damaged: " + e.Reason }

// Permanent is true: the stored bytes stay as they are.
func (e *TicketError) Permanent() bool { return true }
