package verify_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// signedBlob is the form of certificates and revocation lists.
type signedBlob struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// forged is a certificate or list whose signature nobody has made: so many bytes that may be one of an RSA key.
func forged(t *testing.T, der []byte, size int) []byte {
	t.Helper()
	var b signedBlob
	if _, err := asn1.Unmarshal(der, &b); err != nil {
		t.Fatal(err)
	}
	b.Signature = asn1.BitString{Bytes: bytes.Repeat([]byte{1}, size), BitLength: 8 * size}
	der, err := asn1.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// hugeKey has a modulus of so many bytes.
func hugeKey(size, exponent int) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(bytes.Repeat([]byte{0xff}, size)), E: exponent}
}

// longest is the greatest exponent that Go takes.
const longest = 1<<31 - 1

// storing adds to the security store of a document.
func storing(t *testing.T, doc []byte, v pades.Validation) []byte {
	t.Helper()
	tail, err := pades.AddValidation(t.Context(), bytes.NewReader(doc), v)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(doc, tail)
}

// TestHostileCertificatesCostNoMoreThanTheirBytes has what a stranger may put beside a signature of his own: each document is
// judged within the budget, and none of them passes.
func TestHostileCertificatesCostNoMoreThanTheirBytes(t *testing.T) {
	house := authority()
	maker, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ca := func(name string) func(c *x509.Certificate) {
		return func(c *x509.Certificate) {
			c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = name, true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		}
	}
	named := &x509.Certificate{Subject: pkix.Name{CommonName: "Issuer"}}
	leaf := func(size int) sealing {
		own := newKey(t)
		cert := issue(t, own.Public(), named, maker, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
		cert, err := x509.ParseCertificate(forged(t, cert.Raw, size))
		if err != nil {
			t.Fatal(err)
		}
		return sealing{key: own, chain: []*x509.Certificate{cert}}
	}
	many := func(n int, make func(i int) []byte) (list [][]byte) {
		for i := range n {
			list = append(list, make(i))
		}
		return list
	}
	for name, doc := range map[string]func() []byte{
		"moduli of a megabit": func() []byte {
			key := hugeKey(1<<17, longest)
			return storing(t, seal(t, contract(), leaf(1<<17)), pades.Validation{Certs: many(8, func(int) []byte { return issue(t, key, named, maker, ca("Issuer")).Raw })})
		},
		"moduli of 16,384 bits": func() []byte {
			key := hugeKey(1<<11, longest)
			return storing(t, seal(t, contract(), leaf(1<<11)), pades.Validation{Certs: many(200, func(int) []byte { return issue(t, key, named, maker, ca("Issuer")).Raw })})
		},
		"many signers, and the heaviest keys that are taken": func() []byte {
			key, doc := hugeKey(1<<10, 1<<16+1), contract()
			for range 16 {
				doc = seal(t, doc, leaf(1<<10))
			}
			return storing(t, doc, pades.Validation{Certs: many(200, func(int) []byte { return issue(t, key, named, maker, ca("Issuer")).Raw })})
		},
		"ten thousand certificates": func() []byte {
			one := issue(t, maker.Public(), named, maker, ca("Issuer")).Raw
			return storing(t, seal(t, contract(), leaf(1<<8)), pades.Validation{Certs: many(10000, func(i int) []byte { return forged(t, one, 200+i%8000) })})
		},
		"issuers that issue each other": func() []byte {
			return storing(t, seal(t, contract(), leaf(1<<8)), pades.Validation{Certs: many(200, func(i int) []byte {
				by := fmt.Sprint("Ring ", (i*7)%20)
				if i%20 == 0 {
					by = "Issuer"
				}
				return issue(t, maker.Public(), &x509.Certificate{Subject: pkix.Name{CommonName: by}}, maker, ca(fmt.Sprint("Ring ", i%20))).Raw
			})})
		},
		"thousands of extensions": func() []byte {
			own := newKey(t)
			cert := issue(t, own.Public(), named, maker, func(c *x509.Certificate) {
				for i := range 20000 {
					c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, i}, Value: []byte{5, 0}})
				}
			})
			return storing(t, seal(t, contract(), sealing{key: own, chain: []*x509.Certificate{cert}}), pades.Validation{Certs: [][]byte{cert.Raw}})
		},
		"constraints of names": func() []byte {
			own := newKey(t)
			between := issue(t, maker.Public(), house.Issuing.Certificate, house.Issuing.Key, func(c *x509.Certificate) {
				ca("Between")(c)
				for i := range 2000 {
					c.PermittedDNSDomains = append(c.PermittedDNSDomains, fmt.Sprintf("a%d.example.com", i))
				}
			})
			cert := issue(t, own.Public(), between, maker, func(c *x509.Certificate) {
				c.KeyUsage = x509.KeyUsageDigitalSignature
				for i := range 20000 {
					c.DNSNames = append(c.DNSNames, fmt.Sprintf("b%d.example.net", i))
				}
			})
			return seal(t, contract(), sealing{key: own, chain: []*x509.Certificate{cert, between}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			doc := doc()
			hostile.Budget(t)
			r := check(t, doc, trust(house))
			if r.Verdict == verify.Valid {
				t.Errorf("it passes: %s", explain(r))
			}
		})
	}
}
