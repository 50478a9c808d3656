package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify"
)

// issue has a key of an authority certify another one.
func issue(t *testing.T, public crypto.PublicKey, by *x509.Certificate, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "Certified by hand"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, by, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestAWeakKeyAboveTheSignerProvesNothing has an authority between a good root and a good signer that could be factored.
func TestAWeakKeyAboveTheSignerProvesNothing(t *testing.T) {
	a := authority()
	for bits, verdict := range map[int]verify.Verdict{1024: verify.Indeterminate, 2048: verify.Valid} {
		between, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		ca := issue(t, between.Public(), a.Root.Certificate, a.Root.Key, func(c *x509.Certificate) {
			c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "Between", true, true, x509.KeyUsageCertSign
		})
		own := newKey(t)
		signer := issue(t, own.Public(), ca, between, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
		r := check(t, seal(t, contract(), sealing{key: own, chain: []*x509.Certificate{signer, ca}}), trust(a))
		code := verify.CodeWeak
		if verdict == verify.Valid {
			code = verify.CodeRevocationUnchecked
		}
		want(t, r, verdict, code)
		if bad := verify.CheckSigner([]*x509.Certificate{signer, ca}, trust(a).Roots, time.Now()); (bad == nil) != (verdict == verify.Valid) {
			t.Errorf("with %d bits the signer is judged before the seal as %v", bits, bad)
		}
	}
}

// authorityBelow is one that an authority of the test has certified, with its key.
func authorityBelow(t *testing.T, name string, by *x509.Certificate, key crypto.Signer) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	own := newKey(t)
	return issue(t, own.Public(), by, key, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = name, true, true, x509.KeyUsageCertSign
	}), own
}

// TestNamesakesKeepNoChainFromBeingFound has certificates beside a signature that bear the name of its authority, and are another's.
func TestNamesakesKeepNoChainFromBeingFound(t *testing.T) {
	stranger, rootKey := authority(), newKey(t)
	self := &x509.Certificate{Subject: pkix.Name{CommonName: "Root"}}
	root := issue(t, rootKey.Public(), self, rootKey, func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = self.Subject, true, true, x509.KeyUsageCertSign
	})
	upper, upperKey := authorityBelow(t, "Upper", root, rootKey)
	lower, lowerKey := authorityBelow(t, "Lower", upper, upperKey)
	own := newKey(t)
	signer := issue(t, own.Public(), lower, lowerKey, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	wrong, wrongKey := authorityBelow(t, "Upper", stranger.Root.Certificate, stranger.Root.Key)
	var namesakes []*x509.Certificate
	var added pades.Validation
	for range 70 {
		c, _ := authorityBelow(t, "Lower", wrong, wrongKey)
		namesakes, added.Certs = append(namesakes, c), append(added.Certs, c.Raw)
	}
	with := func(chain ...*x509.Certificate) sealing {
		return sealing{key: own, chain: append([]*x509.Certificate{signer}, chain...)}
	}
	trusted := verify.Options{Roots: []*x509.Certificate{root}}
	operators := trusted
	operators.Intermediates = []*x509.Certificate{lower, upper}
	for name, c := range map[string]struct {
		doc     []byte
		options verify.Options
	}{
		"the operator names its authorities":        {storing(t, seal(t, contract(), with(namesakes[:60]...)), added), operators},
		"the signature has its authorities":         {storing(t, seal(t, contract(), with(lower, upper)), added), trusted},
		"another signature has the wrong authority": {seal(t, seal(t, contract(), with(namesakes[0], wrong)), with(lower, upper)), trusted},
		"another signature has the right authority": {seal(t, seal(t, contract(), with(lower, upper)), with(namesakes[0], wrong)), trusted},
		"a document time-stamp covers its authorities": {storing(t, update(t, archived(t, storing(t, seal(t, contract(), with()), pades.Validation{Certs: [][]byte{lower.Raw, upper.Raw}}), stranger), dropStore(t)), added),
			verify.Options{Roots: []*x509.Certificate{root, stranger.Root.Certificate}}},
		"the signature has them in another sequence": {seal(t, contract(), with(append(slices.Clone(namesakes[:10]), upper, lower)...)), trusted},
	} {
		good := 0
		r := check(t, c.doc, c.options)
		for i := range r.Signatures {
			if r.Signatures[i].Kind == verify.KindSignature && r.Signatures[i].Verdict == verify.Valid {
				good++
			}
		}
		if good == 0 {
			t.Errorf("%s: no signature is valid: %s", name, explain(r))
		}
	}
}

// TestACertificationThatSaysNothingKnownPermitsNothing: a reader that takes 7 for more than 3 permits everything.
func TestACertificationThatSaysNothingKnownPermitsNothing(t *testing.T) {
	a := authority()
	for level, verdict := range map[any]verify.Verdict{2: verify.Valid, 7: verify.Invalid, 0: verify.Invalid, -1: verify.Invalid, pdf.Name("P"): verify.Invalid} {
		entries := baselineEntries()
		entries.Set("Reference", pdf.Array{pdf.D("Type", pdf.Name("SigRef"), "TransformMethod", pdf.Name("DocMDP"), "TransformParams", pdf.D("P", level))})
		doc := update(t, signBy(t, contract(), entries, handmade{id: a.Signer}.sign(t)), fill(t, "900"))
		code := verify.CodeForbiddenChange
		if verdict == verify.Valid {
			code = verify.CodePermitted
		}
		want(t, check(t, doc, trust(a)), verdict, code)
	}
}

// TestEvidenceFromTheFutureProvesNothing: nobody can have made it yet.
func TestEvidenceFromTheFutureProvesNothing(t *testing.T) {
	a := served(t)
	stamped := seal(t, contract(), sealOf(a).stamped(a))
	later := func() time.Time { return time.Now().Add(2 * time.Hour) }
	a.SetNow(later)
	level(t, secured(t, stamped, collect(t, a, later)), trust(a), pades.BT)
	a.SetNow(time.Now)
	level(t, secured(t, stamped, evidence(t, a)), trust(a), pades.BLT)
}

// TestADocumentTimeStampArchivesWhatItCoversOnly: one before a signature says nothing of it, though the evidence was there
// already.
func TestADocumentTimeStampArchivesWhatItCoversOnly(t *testing.T) {
	a := served(t)
	first := archived(t, secured(t, seal(t, contract(), sealOf(a).stamped(a)), evidence(t, a)), a)
	level(t, first, trust(a), pades.BLTA)
	r := level(t, seal(t, first, sealOf(a).stamped(a)), trust(a), pades.BLT)
	if s := r.Newest(); s.Level != pades.BLT {
		t.Errorf("the second signature is %s", s.Level)
	}
}

// TestTheAnswerOfARevokedResponderHasNoWeight has a responder of its own speak for the signer: a good one, of whom it is known
// that it was not revoked, one that was, and one of whom nothing is known.
func TestTheAnswerOfARevokedResponderHasNoWeight(t *testing.T) {
	a := served(t)
	stamped, all := seal(t, contract(), sealOf(a).stamped(a)), evidence(t, a)
	key := newKey(t)
	responder := issue(t, key.Public(), a.Issuing.Certificate, a.Issuing.Key, func(c *x509.Certificate) {
		c.Subject.CommonName, c.KeyUsage, c.ExtKeyUsage = "Responder", x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
	answer := func(about *x509.Certificate, status int, by *x509.Certificate, with crypto.Signer) []byte {
		t.Helper()
		template := ocsp.Response{Status: status, SerialNumber: about.SerialNumber, ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour), RevokedAt: time.Now().Add(-time.Hour)}
		if by != a.Issuing.Certificate {
			template.Certificate = by
		}
		der, err := ocsp.CreateResponse(a.Issuing.Certificate, by, template, with)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	// What the authority's own responder says of the signer is left out.
	others := slices.DeleteFunc(slices.Clone(all.OCSPs), func(der []byte) bool {
		_, err := revocation.ParseOCSP(der, a.Signer.Certificate, a.Issuing.Certificate)
		return err == nil
	})
	if len(others) != len(all.OCSPs)-1 {
		t.Fatalf("%d of %d responses are about others than the signer", len(others), len(all.OCSPs))
	}
	good := answer(a.Signer.Certificate, ocsp.Good, responder, key)
	for name, c := range map[string]struct {
		about []byte
		want  pades.Level
	}{
		"good":    {answer(responder, ocsp.Good, a.Issuing.Certificate, a.Issuing.Key), pades.BLT},
		"revoked": {answer(responder, ocsp.Revoked, a.Issuing.Certificate, a.Issuing.Key), pades.BT},
		"unknown": {nil, pades.BT},
	} {
		v := all
		v.OCSPs = append(slices.Clone(others), good)
		if c.about != nil {
			v.OCSPs = append(v.OCSPs, c.about)
		}
		if got := check(t, secured(t, stamped, v), trust(a)); got.Level() != c.want {
			t.Errorf("%s: level %s, want %s\n%s", name, got.Level(), c.want, explain(got))
		}
	}
}
