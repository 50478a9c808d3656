package signing

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"

	"github.com/dealseal/dealseal/signing/pades"
)

// beside is the chain that a seal with the certificate signer is to be followed by another one with; nil for none.
func (s *Sealer) beside(p Profile, signer *x509.Certificate) (chain [][]byte) {
	r, ok := s.keys.(Registry)
	if !ok || !p.Dual {
		return nil
	}
	for i, c := range r.Beside(p.Key) {
		if i == 0 && bytes.Equal(c.Raw, signer.Raw) {
			return nil // the rollover came between opening the key and asking
		}
		chain = append(chain, c.Raw)
	}
	return chain
}

// PrepareSecond stages the second seal that first asks for, on doc, which bears the first one complete. Its digest covers that
// one: it must not change any more. The seal is an approval in a field of its own that shows nothing. How long the
// certificate has to be valid yet does not matter: what is followed by another is near its end.
func (s *Sealer) PrepareSecond(ctx context.Context, doc pades.Document, first *Ticket) (*Ticket, error) {
	if len(first.Second) == 0 {
		return nil, &TicketError{Reason: "it asks for no second seal"}
	}
	chain := make([]*x509.Certificate, len(first.Second))
	for i, der := range first.Second {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, &TicketError{Reason: fmt.Sprintf("certificate %d of its second seal: %v", i, err)}
		}
	}
	p := first.Profile
	p.Certify = 0
	key, err := s.openFor(ctx, p.Key, chain)
	if err != nil {
		return nil, err
	}
	if err := checkKey(p.Key, key, s.now(), s.issued.check); err != nil {
		return nil, aboutStaged(err)
	}
	if err := p.Floor.certificates(chain); err != nil {
		return nil, &KeyError{Key: p.Key, Reason: err.Error(), staged: true}
	}
	return s.stage(ctx, doc, chain, Request{Profile: p, Time: s.now().In(first.Time.Location())})
}
