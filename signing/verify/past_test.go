package verify_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify"
)

// during has an authority live at a time while something is made of it.
func during(a *pki.Authority, at time.Time, make func()) {
	a.SetNow(func() time.Time { return at })
	defer a.SetNow(time.Now)
	make()
}

// shortTSA is a with another time-stamping certificate.
func shortTSA(t testing.TB, a *pki.Authority, from, to time.Time) *pki.Authority {
	t.Helper()
	other, err := a.WithTSA(from, to)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// TestThePastIsJudgedByWhatProvesIt has a signer's certificate and that of the authority that stamped it end, and asks what is left of the signature.
func TestThePastIsJudgedByWhatProvesIt(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	hours := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	a := served(t)
	chain, err := a.IssueSignerValid(a.Signer.Key.Public(), a.Signer.Certificate.Subject, hours(-100), hours(-60))
	if err != nil {
		t.Fatal(err)
	}
	signer := sealing{key: a.Signer.Key, chain: chain}
	first, second := shortTSA(t, a, hours(-100), hours(-40)), shortTSA(t, a, hours(-100), hours(-20))
	at := func(tsa *pki.Authority, n int, make func(*pki.Authority) []byte) (doc []byte) {
		during(tsa, hours(n), func() { doc = make(tsa) })
		return doc
	}
	stamped := at(first, -80, func(tsa *pki.Authority) []byte { return seal(t, contract(), signer.stamped(tsa)) })
	once := at(second, -50, func(tsa *pki.Authority) []byte { return archived(t, stamped, tsa) })
	twice := at(a, -30, func(tsa *pki.Authority) []byte { return archived(t, once, tsa) })
	for name, c := range map[string]struct {
		doc     []byte
		at      time.Time
		verdict verify.Verdict
		code    verify.Code
		sub     verify.SubIndication
		proven  time.Time // of the signature
	}{
		"all certificates are valid":                     {stamped, hours(-70), verify.Valid, "", "", hours(-80)},
		"the signer's has ended":                         {stamped, hours(-50), verify.Valid, "", "", hours(-80)},
		"so has the authority's":                         {stamped, hours(-30), verify.Indeterminate, verify.CodeExpired, verify.OutOfBoundsNoPOE, hours(-30)},
		"which another one proves to be from before":     {once, hours(-30), verify.Valid, "", "", hours(-80)},
		"whose own has ended":                            {once, hours(-10), verify.Indeterminate, verify.CodeTimestampUnproven, verify.OutOfBoundsNoPOE, hours(-10)},
		"and which a third proves to be from before":     {twice, hours(-10), verify.Valid, "", "", hours(-80)},
		"a time-stamp behind the end of the certificate": {at(second, -50, func(tsa *pki.Authority) []byte { return seal(t, contract(), signer.stamped(tsa)) }), hours(-30), verify.Indeterminate, verify.CodeExpired, verify.OutOfBoundsNoPOE, hours(-50)},
		"a signature over one from behind it": {at(a, -50, func(tsa *pki.Authority) []byte { return seal(t, archived(t, contract(), tsa), signer.stamped(tsa)) }),
			hours(-30), verify.Indeterminate, verify.CodeSignedLate, verify.Expired, hours(-50)},
		"a time-stamp from before the certificate": {at(a, -101, func(tsa *pki.Authority) []byte { return seal(t, contract(), signer.stamped(tsa)) }), hours(-70), verify.Indeterminate, verify.CodeNotYetValid, verify.NotYetValid, hours(-101)},
	} {
		t.Run(name, func(t *testing.T) {
			o := trust(a)
			o.Now = c.at
			r := check(t, c.doc, o)
			want(t, r, c.verdict, c.code)
			i := slices.IndexFunc(r.Signatures, func(s verify.Signature) bool { return s.Kind == verify.KindSignature })
			s := r.Signatures[i]
			if r.SubIndication != c.sub || s.ValidatedAt == nil || !s.ValidatedAt.Equal(c.proven) {
				t.Errorf("%s/%s, validated at %v, want %s at %v\n%s", r.Indication, r.SubIndication, s.ValidatedAt, c.sub, c.proven, explain(r))
			}
		})
	}
}

// TestATimestampBehindTheOneThatCoversItIsOutOfOrder has a document time-stamp claim that an earlier revision existed before its own time-stamp was made.
func TestATimestampBehindTheOneThatCoversItIsOutOfOrder(t *testing.T) {
	a := mustAuthority(pki.Options{})
	now := time.Now().UTC().Truncate(time.Second)
	var doc []byte
	during(a, now.Add(-time.Hour), func() { doc = seal(t, contract(), sealOf(a).stamped(a)) })
	during(a, now.Add(-3*time.Hour), func() { doc = archived(t, doc, a) })
	r := check(t, doc, trust(a))
	want(t, r, verify.Indeterminate, verify.CodeTimestampOrder)
	if r.SubIndication != verify.TimestampOrderFailure {
		t.Errorf("sub-indication %s\n%s", r.SubIndication, explain(r))
	}
}

// TestARevokedAuthorityProvesNothingUnlessItsTokenIsFromBefore revokes the authority of a signature's time-stamp.
func TestARevokedAuthorityProvesNothingUnlessItsTokenIsFromBefore(t *testing.T) {
	a := served(t)
	now := time.Now().UTC().Truncate(time.Second)
	first := shortTSA(t, a, now.Add(-100*time.Hour), now.Add(100*time.Hour))
	var doc, archive []byte
	during(first, now.Add(-50*time.Hour), func() { doc = seal(t, contract(), sealOf(a).stamped(first)) })
	during(a, now.Add(-40*time.Hour), func() { archive = archived(t, doc, a) })
	a.Revoke(first.TSA.Certificate, now.Add(-20*time.Hour), 1)
	e, err := asker(t, nil).Check(t.Context(), first.TSA.Certificate, a.Issuing.Certificate, time.Time{})
	if err != nil || !e.Revoked {
		t.Fatalf("%+v, %v", e, err)
	}
	known := pades.Validation{OCSPs: [][]byte{e.DER}}
	r := level(t, secured(t, doc, known), trust(a), pades.BB)
	want(t, r, verify.Valid, verify.CodeTimestampRevoked)
	level(t, secured(t, archive, known), trust(a), pades.BT)
}

// TestAListThatHasForgottenACertificateProvesNothing has a certificate revoked, its signature made and stamped afterwards, and a list added from when
// the certificate had ended, which does not name it any more.
func TestAListThatHasForgottenACertificateProvesNothing(t *testing.T) {
	a, now := served(t), time.Now().UTC().Truncate(time.Second)
	hours := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	chain, err := a.IssueSignerValid(a.Signer.Key.Public(), a.Signer.Certificate.Subject, hours(-100), hours(-60))
	if err != nil {
		t.Fatal(err)
	}
	var stamped []byte
	during(a, hours(-80), func() { stamped = seal(t, contract(), sealing{key: a.Signer.Key, chain: chain}.stamped(a)) })
	rest, err := asker(t, nil).Collect(t.Context(), revocation.Anchors{Roots: []*x509.Certificate{a.Root.Certificate}}, []revocation.Subject{
		{Cert: a.TSA.Certificate, With: a.TSA.Chain(), At: hours(-80)}})
	if err != nil {
		t.Fatal(err)
	}
	since, err := asn1.MarshalWithParams(hours(-1000), "generalized")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		made  time.Time
		more  []pkix.Extension
		level pades.Level
	}{
		"from before the end":           {hours(-70), nil, pades.BLT},
		"from behind it":                {hours(-10), nil, pades.BT},
		"that remembers what has ended": {hours(-10), []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 60}, Value: since}}, pades.BLT},
	} {
		t.Run(name, func(t *testing.T) {
			crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: c.made, NextUpdate: hours(1), ExtraExtensions: c.more}, a.Issuing.Certificate, a.Issuing.Key)
			if err != nil {
				t.Fatal(err)
			}
			known := pades.Validation(rest)
			known.CRLs = append(slices.Clone(known.CRLs), crl)
			known.Certs = append(slices.Clone(known.Certs), chain[0].Raw)
			level(t, secured(t, stamped, known), trust(a), c.level)
		})
	}
}

// TestEvidenceThatIsTakenOutOfTheStoreStillCounts hides a revocation behind an update, where a document time-stamp has seen it.
func TestEvidenceThatIsTakenOutOfTheStoreStillCounts(t *testing.T) {
	a := served(t)
	stamped := seal(t, contract(), sealOf(a).stamped(a))
	a.Revoke(a.Signer.Certificate, time.Now().Add(-time.Hour), 1)
	e, err := asker(t, nil).Check(t.Context(), a.Signer.Certificate, a.Issuing.Certificate, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	doc := archived(t, secured(t, stamped, pades.Validation{OCSPs: [][]byte{e.DER}}), a)
	want(t, check(t, doc, trust(a)), verify.Indeterminate, verify.CodeRevokedUnproven)
	want(t, check(t, update(t, doc, dropStore(t)), trust(a)), verify.Indeterminate, verify.CodeRevokedUnproven)
}

// TestEvidenceIsDemandedOnlyIfAskedFor compares a signature that carries no evidence, or stale evidence, under both policies.
func TestEvidenceIsDemandedOnlyIfAskedFor(t *testing.T) {
	a := served(t)
	stamped := seal(t, contract(), sealOf(a).stamped(a))
	strict := trust(a)
	strict.RequireRevocation = true
	want(t, check(t, stamped, trust(a)), verify.Valid, verify.CodeRevocationUnchecked)
	r := check(t, stamped, strict)
	want(t, r, verify.Indeterminate, verify.CodeRevocationUnknown)
	if r.SubIndication != verify.TryLater {
		t.Errorf("sub-indication %s", r.SubIndication)
	}
	lt := secured(t, stamped, evidence(t, a))
	facts := level(t, lt, strict, pades.BLT).Signatures[0].Revocation
	if len(facts) == 0 || slices.ContainsFunc(facts, func(f verify.Revocation) bool { return f.Status != "good" || f.ThisUpdate == nil }) {
		t.Errorf("evidence as told: %+v", facts)
	}
	// Without a time-stamp the signature has to hold now, and that is later than what the evidence speaks of.
	untimed := secured(t, seal(t, contract(), sealOf(a)), evidence(t, a))
	strict.Now = time.Now().Add(60 * 24 * time.Hour)
	want(t, check(t, untimed, strict), verify.Indeterminate, verify.CodeRevocationUnknown)
}

func TestHistoryTellsRevisionsAndWhatProvesThem(t *testing.T) {
	a := served(t)
	doc := archived(t, secured(t, seal(t, contract(), sealOf(a).stamped(a)), evidence(t, a)), a)
	r := check(t, doc, trust(a))
	if len(r.History) != 4 || r.History[3].End != int64(len(doc)) || r.History[3].ProvenAt != nil || r.History[1].ProvenAt == nil || r.History[2].ProvenAt == nil {
		t.Fatalf("history %+v", r.History)
	}
	if len(r.History[1].Signatures) != 1 || r.History[1].Signatures[0] != r.Signatures[0].Field || len(r.History[2].Signatures) != 0 {
		t.Errorf("signatures of the revisions: %+v", r.History)
	}
}

// dropStore takes the security store out of the catalog.
func dropStore(t testing.TB) func(*pdf.File, *pdf.Update) {
	return func(f *pdf.File, u *pdf.Update) {
		ref, c, err := f.Catalog()
		if err != nil {
			t.Fatal(err)
		}
		c = c.Clone()
		c.Delete("DSS")
		u.Put(ref, c)
	}
}

// TestFlippedBytesBehindASealAreNeverValidWhereTheyAreCovered goes over files of the long-lived levels. Of B-LTA all is covered, by the document time-stamp,
// but for that one's own value. Of B-LT the store is not: what is flipped there may cost the level and add nothing.
func TestFlippedBytesBehindASealAreNeverValidWhereTheyAreCovered(t *testing.T) {
	a := served(t)
	lt := secured(t, seal(t, contract(), sealOf(a).stamped(a)), evidence(t, a))
	lta := archived(t, lt, a)
	for _, c := range []struct {
		doc   []byte
		level pades.Level
	}{{lt, pades.BLT}, {lta, pades.BLTA}} {
		r := level(t, c.doc, trust(a), c.level)
		last := r.Signatures[len(r.Signatures)-1].ByteRange
		covered := func(i int64) bool { return i < last[1] || i >= last[2] && i < last[2]+last[3] }
		// Steps are small where something stands, and large in the zeros behind a value.
		for i := 0; i < len(c.doc); i += 11 + 300*bytes.Count(c.doc[i:min(i+300, len(c.doc))], []byte("0"))/300 {
			changed := bytes.Clone(c.doc)
			changed[i] ^= 0x02
			got, err := verify.Verify(t.Context(), bytes.NewReader(changed), trust(a))
			if err != nil {
				t.Fatalf("byte %d: %v", i, err)
			}
			switch {
			case got.Verdict != verify.Valid:
			case covered(int64(i)):
				t.Fatalf("%s: byte %d is covered and was changed unnoticed\n%s", c.level, i, explain(got))
			case got.Level() != c.level && !c.level.AtLeast(got.Level()):
				t.Errorf("%s: byte %d raises the level to %s", c.level, i, got.Level())
			}
		}
	}
}
