package signing

import (
	"bytes"
	"context"
	"fmt"

	"github.com/dealseal/dealseal/signing/pades"
)

// Attestation is the right to one signature over bytes that are no document, such as the manifest of an evidence bundle.
// What it signs can be no document: its content is not one.
type Attestation struct {
	SPKISHA256 []byte // of the key that makes it
	CertSHA256 []byte

	profile  Profile
	detached *pades.Detached
}

// Digest is what the key signs: what to record before [Sealer.Attest].
func (a *Attestation) Digest() []byte { return a.detached.Digest }

// PrepareAttestation prepares a signature over content with the key of a profile. It does not use the key.
func (s *Sealer) PrepareAttestation(ctx context.Context, p Profile, content []byte) (*Attestation, error) {
	if bytes.Contains(content[:min(len(content), 1024)], []byte("%PDF-")) {
		return nil, fmt.Errorf("signing: a document is not attested but sealed")
	}
	key, err := s.open(ctx, p.Key)
	if err != nil {
		return nil, err
	}
	d, err := pades.PrepareDetached(content, p.Hash, p.PSS, key.Chain())
	if err != nil {
		return nil, err
	}
	signer := key.Chain()[0]
	return &Attestation{SPKISHA256: digest(signer.RawSubjectPublicKeyInfo), CertSHA256: digest(signer.Raw), profile: p, detached: d}, nil
}

// Attest has the key sign, and the value time-stamped if the profile's level has a time-stamp. It returns a detached
// CMS. As with a seal, nothing is signed or time-stamped with a certificate that was revoked meanwhile.
func (s *Sealer) Attest(ctx context.Context, a *Attestation) (cms []byte, err error) {
	chain := a.detached.Chain()
	key, err := s.openFor(ctx, a.profile.Key, chain)
	if err != nil {
		return nil, err
	}
	if !samePublic(chain[0].PublicKey, key.Public()) {
		return nil, &KeyError{Key: a.profile.Key, staged: true, Reason: "it was changed since the manifest was made"}
	}
	value, _, err := signContext(ctx, key, a.Digest(), a.detached.Algorithm.SignerOpts())
	if err != nil {
		return nil, keyTrouble(a.profile.Key, err)
	}
	token, err := s.stamp(ctx, a.profile, chain[0], a.detached.Algorithm.Hash, value)
	if err != nil {
		return nil, err
	}
	return a.detached.Embed(value, token)
}
