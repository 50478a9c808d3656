package verify_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

var (
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

// handmade is a CMS in which every part can be wrong. The zero value but for key and chain makes a good baseline signature with P-256 and SHA-256.
type handmade struct {
	id        *pki.Identity
	algorithm asn1.ObjectIdentifier                    // of the signature
	essSerial int64                                    // other than 0: IssuerSerial with this number added to the right one
	essIssuer []byte                                   // the issuer in IssuerSerial
	extra     []attribute                              // more signed attributes
	tokens    func(value []byte) [][]byte              // time-stamps
	hash      func(cert *x509.Certificate) [32]byte    // in signing-certificate-v2
	change    func(attributes []attribute) []attribute // last word on the signed attributes
}

type attribute struct {
	oid    asn1.ObjectIdentifier
	values []func(*cryptobyte.Builder)
}

func single(oid asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) attribute {
	return attribute{oid, []func(*cryptobyte.Builder){value}}
}

func (a attribute) encode(t testing.TB) []byte {
	return build(t, func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(a.oid)
			b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) {
				for _, v := range a.values {
					v(b)
				}
			})
		})
	})
}

func build(t testing.TB, f func(*cryptobyte.Builder)) []byte {
	t.Helper()
	var b cryptobyte.Builder
	f(&b)
	der, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func explicit(n uint8) casn1.Tag { return casn1.Tag(n).ContextSpecific().Constructed() }

func algorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
}

func (h handmade) attributes(covered []byte) []attribute {
	cert := h.id.Certificate
	digest, certHash := sha256.Sum256(covered), sha256.Sum256(cert.Raw)
	if h.hash != nil {
		certHash = h.hash(cert)
	}
	list := append([]attribute{
		single(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1})
		}),
		single(oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) }),
		single(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}, func(b *cryptobyte.Builder) {
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1OctetString(certHash[:])
						if h.essSerial != 0 || h.essIssuer != nil {
							h.issuerSerial(b)
						}
					})
				})
			})
		}),
	}, h.extra...)
	if h.change != nil {
		list = h.change(list)
	}
	return list
}

func (h handmade) issuerSerial(b *cryptobyte.Builder) {
	issuer := h.id.Certificate.RawIssuer
	if h.essIssuer != nil {
		issuer = h.essIssuer
	}
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit(4), func(b *cryptobyte.Builder) { b.AddBytes(issuer) })
		})
		b.AddASN1Int64(h.id.Certificate.SerialNumber.Int64() + h.essSerial)
	})
}

func (h handmade) sign(t testing.TB) func(covered []byte) []byte {
	return func(covered []byte) []byte {
		var encoded [][]byte
		for _, a := range h.attributes(covered) {
			encoded = append(encoded, a.encode(t))
		}
		slices.SortFunc(encoded, bytes.Compare)
		set := build(t, func(b *cryptobyte.Builder) {
			b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(encoded...)) })
		})
		digest := sha256.Sum256(set)
		value, err := h.id.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return build(t, func(b *cryptobyte.Builder) { h.signedData(b, slices.Concat(encoded...), value) })
	}
}

func (h handmade) signedData(b *cryptobyte.Builder, attributes, value []byte) {
	signature := h.algorithm
	if signature == nil {
		signature = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	}
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2})
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) { algorithm(b, oidSHA256) })
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1})
				})
				b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
					for _, c := range h.id.Chain() {
						b.AddBytes(c.Raw)
					}
				})
				b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1Int64(1)
						b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddBytes(h.id.Certificate.RawIssuer)
							b.AddASN1BigInt(h.id.Certificate.SerialNumber)
						})
						algorithm(b, oidSHA256)
						b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddBytes(attributes) })
						algorithm(b, signature)
						b.AddASN1OctetString(value)
						h.addTokens(b, value)
					})
				})
			})
		})
	})
}

func (h handmade) addTokens(b *cryptobyte.Builder, value []byte) {
	if h.tokens == nil {
		return
	}
	b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14})
			b.AddASN1(casn1.SET, func(b *cryptobyte.Builder) {
				for _, token := range h.tokens(value) {
					b.AddBytes(token)
				}
			})
		})
	})
}

func baselineEntries() *pdf.Dict {
	return pdf.D("SubFilter", pdf.Name("ETSI.CAdES.detached"), "M", pdf.Date(time.Now()))
}

func TestEveryPartOfABaselineSignatureCounts(t *testing.T) {
	a := authority()
	octets := func(b *cryptobyte.Builder) { b.AddASN1OctetString(make([]byte, 32)) }
	with := func(key pdf.Name, value any) *pdf.Dict {
		d := baselineEntries()
		d.Set(key, value)
		return d
	}
	undated := baselineEntries()
	undated.Delete("M")
	for name, c := range map[string]struct {
		entries *pdf.Dict
		cms     handmade
		verdict verify.Verdict
		code    verify.Code
		level   pades.Level
	}{
		"all in order":               {baselineEntries(), handmade{}, verify.Valid, "", pades.BB},
		"right issuer and serial":    {baselineEntries(), handmade{essIssuer: a.Signer.Certificate.RawIssuer}, verify.Valid, "", pades.BB},
		"serial of another":          {baselineEntries(), handmade{essSerial: 1}, verify.Indeterminate, verify.CodeSigningCert, ""},
		"issuer of another":          {baselineEntries(), handmade{essIssuer: a.Root.Certificate.RawSubject}, verify.Indeterminate, verify.CodeSigningCert, ""},
		"hash of another":            {baselineEntries(), handmade{hash: func(*x509.Certificate) [32]byte { return [32]byte{} }}, verify.Indeterminate, verify.CodeSigningCert, ""},
		"two message digests":        {baselineEntries(), handmade{extra: []attribute{single(oidMessageDigest, octets)}}, verify.Invalid, verify.CodeDigest, ""},
		"message digest of two":      {baselineEntries(), handmade{change: func(l []attribute) []attribute { l[1].values = append(l[1].values, octets); return l }}, verify.Invalid, verify.CodeDigest, ""},
		"no message digest":          {baselineEntries(), handmade{change: func(l []attribute) []attribute { return slices.Delete(l, 1, 2) }}, verify.Invalid, verify.CodeDigest, ""},
		"no content type":            {baselineEntries(), handmade{change: func(l []attribute) []attribute { return l[1:] }}, verify.Invalid, verify.CodeDigest, ""},
		"algorithm of another hash":  {baselineEntries(), handmade{algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}}, verify.Indeterminate, verify.CodeUnsupported, ""},
		"algorithm of another key":   {baselineEntries(), handmade{algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}}, verify.Invalid, verify.CodeSignature, ""},
		"unknown algorithm":          {baselineEntries(), handmade{algorithm: asn1.ObjectIdentifier{1, 2, 3}}, verify.Indeterminate, verify.CodeUnsupported, ""},
		"no date":                    {undated, handmade{}, verify.Valid, verify.CodeNotBaseline, ""},
		"a date that is none":        {with("M", pdf.TextString("today")), handmade{}, verify.Valid, verify.CodeNotBaseline, ""},
		"a certificate in the entry": {with("Cert", pdf.HexString([]byte("x"))), handmade{}, verify.Valid, verify.CodeNotBaseline, ""},
		"Adobe's revocation data": {baselineEntries(), handmade{extra: []attribute{single(asn1.ObjectIdentifier{1, 2, 840, 113583, 1, 1, 8}, octets)}},
			verify.Valid, verify.CodeNotBaseline, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.cms.id = a.Signer
			r := check(t, signBy(t, contract(), c.entries, c.cms.sign(t)), trust(a))
			want(t, r, c.verdict, c.code)
			if r.Level() != c.level {
				t.Errorf("level %q, want %q", r.Level(), c.level)
			}
		})
	}
}

func TestEarliestTimestampCounts(t *testing.T) {
	a := mustAuthority(pki.Options{})
	now := time.Now().UTC().Truncate(time.Second)
	token := func(value []byte, age time.Duration) []byte {
		a.SetNow(func() time.Time { return now.Add(-age) })
		sum := sha256.Sum256(value)
		der, err := a.Token(sum[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	h := handmade{id: a.Signer, tokens: func(value []byte) [][]byte {
		return [][]byte{token(value, 2*time.Hour), token(value, 3*time.Hour), token(value, time.Hour)}
	}}
	r := check(t, signBy(t, contract(), baselineEntries(), h.sign(t)), trust(a))
	want(t, r, verify.Valid, "")
	if ts := r.Signatures[0].Timestamp; ts == nil || !ts.Time.Equal(now.Add(-3*time.Hour)) || r.Level() != pades.BT {
		t.Errorf("level %q, time-stamp %+v", r.Level(), ts)
	}
}
