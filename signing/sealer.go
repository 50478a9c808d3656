package signing

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/tsa"
)

// Sealer makes seals. It is safe for concurrent use, and keeps nothing of them between calls: the Ticket holds it all.
type Sealer struct {
	keys      Keys
	tsa       Timestamper
	now       func() time.Time
	throwAway throwAwayKeys
	issued    issuance
}

// NewSealer returns a Sealer. tsa may be nil when no profile needs time-stamps; now tells the time, against which
// certificates are checked.
func NewSealer(keys Keys, tsa Timestamper, now func() time.Time) *Sealer {
	return &Sealer{keys: keys, tsa: tsa, now: now}
}

// Request says what to seal and how.
type Request struct {
	Profile Profile
	Reason  string     // in the place of the profile's reason, when not empty
	Field   string     // signature field to fill or to make; empty makes one with a free name
	Page    int        // of a new field, counted from 1; 0 means 1
	Rect    [4]float64 // of a new field, in points: left, bottom, right, top; zero is invisible
	Text    []string   // shown in the field's box; the first line is a headline
	Picture []byte     // PNG or JPEG, shown beside Text; may be empty
	Link    string     // shown beside Text as a QR code; may be empty
	Time    time.Time  // claimed time of signing, with the zone to show it in; zero means now in UTC
}

// Prepare stages a seal on doc. It asks the key store for the certificate, but does not use the key. An existing ticket
// must be used rather than a second Prepare for the same document.
func (s *Sealer) Prepare(ctx context.Context, doc pades.Document, r Request) (*Ticket, error) {
	p := r.Profile
	if err := p.Check(); err != nil {
		return nil, err
	}
	key, err := s.open(ctx, p.Key)
	if err != nil {
		return nil, err
	}
	if err := p.checkValidity(key.Chain()[0], s.now()); err != nil {
		return nil, err
	}
	if err := p.Floor.certificates(key.Chain()); err != nil {
		return nil, &KeyError{Key: p.Key, Reason: err.Error()}
	}
	t, err := s.stage(ctx, doc, key.Chain(), r)
	if err != nil {
		return nil, err
	}
	t.Second = s.beside(p, key.Chain()[0])
	return t, nil
}

// stage makes the ticket of a seal with a certificate that may be used.
func (s *Sealer) stage(ctx context.Context, doc pades.Document, chain []*x509.Certificate, r Request) (t *Ticket, err error) {
	p := r.Profile
	if r.Reason != "" {
		p.Reason = r.Reason
	}
	if r.Time.IsZero() {
		r.Time = s.now().UTC()
	}
	t = &Ticket{Profile: p, Time: r.Time.Truncate(time.Second)}
	t.CertSHA256, t.SPKISHA256 = digest(chain[0].Raw), digest(chain[0].RawSubjectPublicKeyInfo)
	t.Prepared, err = pades.Prepare(ctx, doc, pades.Options{
		Level: p.Level,
		Field: r.Field, Page: r.Page, Rect: r.Rect, Text: r.Text, Picture: r.Picture, Link: r.Link,
		Name: p.SignerName, Reason: p.Reason, Location: p.Location, ContactInfo: p.ContactInfo, Time: t.Time,
		Hash: p.Hash, PSS: p.PSS, Chain: chain, Certify: p.Certify,
		Reserve: p.Reserve, TimestampReserve: p.TimestampReserve,
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// open gets a key and makes sure that it may be used now.
func (s *Sealer) open(ctx context.Context, name string) (Key, error) {
	key, err := s.keys.Open(ctx, name)
	if err != nil {
		return nil, keyTrouble(name, err)
	}
	if err := checkKey(name, key, s.now(), s.issued.check); err != nil {
		return nil, err
	}
	return key, nil
}

// IsKey reports whether a key name stands for a public key, by its SHA-256 in hexadecimal, or has stood for it before another
// key pair followed.
func (s *Sealer) IsKey(ctx context.Context, key, spki string) (bool, error) {
	if r, ok := s.keys.(Registry); ok && r.HasSealed(key, spki) {
		return true, nil
	}
	k, err := s.keys.Open(ctx, key)
	if err != nil {
		return false, err
	}
	chain := k.Chain()
	if len(chain) == 0 {
		return false, &KeyError{Key: key, Reason: "it has no certificate"}
	}
	return hex.EncodeToString(digest(chain[0].RawSubjectPublicKeyInfo)) == spki, nil
}

// Redeem has the key sign the ticket's digest, and checks the value with the public key. The value must be committed
// before anything else is done with it; with a committed value Redeem must not be called again.
//
// A key that is not the one of the ticket is refused with a *KeyError that is not about other documents (see IsUnusable). A value that does not verify is an error that
// may be retried. t.By says afterwards which key it was.
func (s *Sealer) Redeem(ctx context.Context, t *Ticket) (value []byte, err error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	name := t.Profile.Key
	chain, err := t.Prepared.Certificates()
	if err != nil {
		return nil, err
	}
	key, err := s.openFor(ctx, name, chain)
	if err != nil {
		return nil, err
	}
	if !samePublic(chain[0].PublicKey, key.Public()) {
		return nil, &KeyError{Key: name, staged: true, Reason: fmt.Sprintf(
			"it was changed since the seal was staged: its SPKI SHA-256 is %s, the staged one %x", spkiOf(key.Public()), t.SPKISHA256)}
	}
	if now := s.now(); now.After(chain[0].NotAfter) {
		return nil, &KeyError{Key: name, staged: true, Reason: "the certificate of the staged seal ended at " + chain[0].NotAfter.UTC().Format(time.RFC3339)}
	}
	algorithm := t.Prepared.Algorithm
	value, verified, err := signContext(ctx, key, t.Digest(), algorithm.SignerOpts())
	if err != nil {
		return nil, keyTrouble(name, err)
	}
	if !verified {
		if err := algorithm.Verify(chain[0].PublicKey, t.Digest(), value); err != nil {
			return nil, fmt.Errorf("signing: key %q made a signature that its certificate does not verify: %w", name, err)
		}
	}
	t.Prepared.Vouch(value)
	t.By = nameOf(name, key)
	return value, nil
}

// openFor gets the key for what was staged with a chain. Where the keys know no others it must be usable for new seals too.
func (s *Sealer) openFor(ctx context.Context, name string, chain []*x509.Certificate) (Key, error) {
	r, ok := s.keys.(Registry)
	if !ok {
		return s.open(ctx, name)
	}
	key, err := r.OpenFor(ctx, name, chain)
	if err != nil {
		return nil, keyTrouble(name, err)
	}
	return key, nil
}

// mayFinish asks the keys whether a certificate that a seal was staged with may still be used, if they know.
func (s *Sealer) mayFinish(name string, cert *x509.Certificate) error {
	if r, ok := s.keys.(Registry); ok {
		return r.MayFinish(name, cert)
	}
	return nil
}

// Timestamp gets a time-stamp over a signature value. For a profile of level B-B it returns nil.
func (s *Sealer) Timestamp(ctx context.Context, t *Ticket, value []byte) (token []byte, err error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	chain, err := t.Prepared.Certificates()
	if err != nil {
		return nil, err
	}
	return s.stamp(ctx, t.Profile, chain[0], t.Prepared.Algorithm.Hash, value)
}

// stamp gets the time-stamp that a profile's level asks for over a value that was made with the key of a certificate.
func (s *Sealer) stamp(ctx context.Context, p Profile, cert *x509.Certificate, h crypto.Hash, value []byte) (token []byte, err error) {
	if !p.Level.AtLeast(pades.BT) {
		return nil, nil
	}
	if s.tsa == nil {
		return nil, &TimestampError{Level: p.Level}
	}
	// A time-stamp from after a revocation would prove that the signature is worth nothing.
	if err := s.mayFinish(p.Key, cert); err != nil {
		return nil, err
	}
	// The imprint is over the octets of the signature value (RFC 3161, appendix A).
	imprint := h.New()
	imprint.Write(value)
	if token, err = s.tsa.Timestamp(ctx, imprint.Sum(nil), h); err != nil {
		return nil, err
	}
	stamp, err := tsa.ParseToken(token)
	if err != nil {
		return nil, err
	}
	if err := p.Floor.certificates([]*x509.Certificate{stamp.Certificate}); err != nil {
		return nil, fmt.Errorf("signing: the time-stamp cannot be used: %w", err)
	}
	return token, nil
}

// Evidence is what proves a seal, apart from the document.
type Evidence struct {
	Level pades.Level // made: B-B without a token, whatever the profile asked for
	CMS   []byte      // DER of the SignedData in the document
	Token []byte      // DER of the TimeStampToken; nil when there is none
	Chain [][]byte    // DER of the certificates, the signer's first
}

// Complete makes the bytes to append to the original. A missing token at a level that has one is refused, unless the
// profile says accept-and-flag: Evidence.Level then tells.
func (s *Sealer) Complete(t *Ticket, value, token []byte) (tail []byte, e Evidence, err error) {
	if err := t.check(); err != nil {
		return nil, Evidence{}, err
	}
	if token == nil && t.Profile.Level.AtLeast(pades.BT) && t.Profile.OnDowngrade != AcceptAndFlag {
		return nil, Evidence{}, &TimestampError{Level: t.Profile.Level}
	}
	tail, cms, err := t.Prepared.Embed(value, token)
	if err != nil {
		return nil, Evidence{}, err
	}
	e = Evidence{Level: pades.BB, CMS: cms, Token: token, Chain: t.Prepared.Chain}
	if token != nil {
		e.Level = pades.BT
	}
	return tail, e, nil
}

// TimestampError says that a seal cannot reach its level for lack of a time-stamp.
type TimestampError struct{ Level pades.Level }

func (e *TimestampError) Error() string {
	return fmt.Sprintf("signing: the level %s needs a time-stamp, and there is none", e.Level)
}

// Permanent is true: it comes from the configuration or from the caller, not from a time-stamp authority.
func (e *TimestampError) Permanent() bool { return true }
