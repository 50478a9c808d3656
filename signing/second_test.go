package signing

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

// rolling is a key whose certificate 8 has followed 7, which goes on beside it.
func rolling(change func(*x509.Certificate)) (s *Sealer, r *roll, p Profile) {
	signer := newEC(elliptic.P256())
	key := newKey(signer, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(8) })
	old := newKey(signer, func(c *x509.Certificate) {
		c.SerialNumber = big.NewInt(7)
		if change != nil {
			change(c)
		}
	})
	r = &roll{ring: ring{keys: map[string]Key{"house": key}}, bare: map[string]Key{"house": key}, revoked: map[string]bool{}, beside: old.Chain()}
	p = profile()
	p.Level, p.Dual = pades.BB, true
	return NewSealer(r, nil, clock), r, p
}

func TestATicketNamesTheSecondSealOnlyDuringARolloverOfAProfileThatAsksForTwo(t *testing.T) {
	s, r, p := rolling(nil)
	if got := mustPrepare(t, s, p).Second; len(got) == 0 || !bytes.Equal(got[0], r.beside[0].Raw) {
		t.Errorf("the second seal is to be made with %d certificates", len(got))
	}
	one := p
	one.Dual = false
	if got := mustPrepare(t, s, one).Second; got != nil {
		t.Error("a profile that asks for one seal gets two")
	}
	before := r.beside
	r.beside = nil
	if got := mustPrepare(t, s, p).Second; got != nil {
		t.Error("two seals when there is no rollover")
	}
	r.beside = r.keys["house"].Chain() // it was followed after the key had been opened
	if got := mustPrepare(t, s, p).Second; got != nil {
		t.Error("both seals are of one certificate")
	}
	r.beside = before
	if _, err := NewSealer(&r.ring, nil, clock).PrepareSecond(t.Context(), document(), mustPrepare(t, NewSealer(&r.ring, nil, clock), p)); err == nil || !strings.Contains(err.Error(), "no second seal") {
		t.Errorf("a ticket that asks for none: %v", err)
	}
	p.Certify = 1
	if err := p.Check(); err == nil || !strings.Contains(err.Error(), "lets nothing be added") {
		t.Errorf("a certification that forbids changes and two seals: %v", err)
	}
}

func TestASecondSealIsMadeAsItsTicketSaysAfterTheRollover(t *testing.T) {
	s, r, p := rolling(nil)
	first := mustPrepare(t, s, p)
	stored, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	first = nil
	if err := json.Unmarshal(stored, &first); err != nil {
		t.Fatal(err)
	}
	r.beside = nil // the window has closed
	tail := mustComplete(t, s, first)
	sealed := bytes.NewReader(append(content(t, document()), tail...))
	second, err := s.PrepareSecond(t.Context(), sealed, first)
	if err != nil {
		t.Fatal(err)
	}
	if second.Profile.Certify != 0 || second.Second != nil || bytes.Equal(second.CertSHA256, first.CertSHA256) || !bytes.Equal(second.SPKISHA256, first.SPKISHA256) || bytes.Equal(second.Digest(), first.Digest()) {
		t.Errorf("the ticket is %+v", second)
	}
	mustComplete(t, s, second)
}

func TestACertificateThatEndedOrWasRevokedMakesNoSecondSeal(t *testing.T) {
	s, r, p := rolling(func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) }) // less than any profile asks for
	first := mustPrepare(t, s, p)
	doc := bytes.NewReader(append(content(t, document()), mustComplete(t, s, first)...))
	if _, err := s.PrepareSecond(t.Context(), doc, first); err != nil {
		t.Errorf("near its end: %v", err)
	}
	late := NewSealer(r, nil, func() time.Time { return now.Add(2 * time.Hour) })
	if _, err := late.PrepareSecond(t.Context(), doc, first); !isPermanent(err) || IsUnusable(err) || !strings.Contains(err.Error(), "ended at") {
		t.Errorf("after its end: %v: new seals have another certificate, the key is good", err)
	}
	r.revoked["7"] = true
	if _, err := s.PrepareSecond(t.Context(), doc, first); !IsRevoked(err) {
		t.Errorf("revoked: %v", err)
	}
}

// content is all of a document.
func content(t *testing.T, doc *bytes.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mustComplete has the key sign a ticket and returns what is appended.
func mustComplete(t *testing.T, s *Sealer, ticket *Ticket) []byte {
	t.Helper()
	value, err := s.Redeem(t.Context(), ticket)
	if err != nil {
		t.Fatal(err)
	}
	tail, _, err := s.Complete(ticket, value, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tail
}
