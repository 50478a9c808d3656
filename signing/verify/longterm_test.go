package verify_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify"
)

// served is an authority whose services can be asked.
func served(t testing.TB) *pki.Authority {
	t.Helper()
	var a *pki.Authority
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	a = mustAuthority(pki.Options{BaseURL: server.URL})
	return a
}

// evidence gets what the document's signer and time-stamping authority are checked with later.
func evidence(t testing.TB, a *pki.Authority) pades.Validation {
	t.Helper()
	return collect(t, a, time.Now)
}

func collect(t testing.TB, a *pki.Authority, now func() time.Time) pades.Validation {
	t.Helper()
	m, err := asker(t, now).Collect(t.Context(), revocation.Anchors{Roots: []*x509.Certificate{a.Root.Certificate}}, []revocation.Subject{
		{Cert: a.Signer.Certificate, With: a.Signer.Chain(), At: time.Now()}, {Cert: a.TSA.Certificate, With: a.TSA.Chain(), At: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	return pades.Validation(m)
}

func asker(t testing.TB, now func() time.Time) *revocation.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return revocation.NewClient(revocation.Options{HTTP: &http.Client{Transport: transport}, Now: now})
}

func secured(t testing.TB, doc []byte, v pades.Validation) []byte {
	t.Helper()
	tail, err := pades.AddValidation(t.Context(), bytes.NewReader(doc), v)
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(doc), tail...)
}

// archived puts a document time-stamp on a document.
func archived(t testing.TB, doc []byte, a *pki.Authority) []byte {
	t.Helper()
	p, err := pades.PrepareTimestamp(t.Context(), bytes.NewReader(doc), pades.TimestampOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.Token(p.Digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	tail, err := p.Embed(token)
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(doc), tail...)
}

func level(t testing.TB, doc []byte, o verify.Options, want pades.Level) *verify.Report {
	t.Helper()
	r := check(t, doc, o)
	if r.Verdict != verify.Valid || r.Level() != want {
		t.Errorf("%s %s, want VALID %s\n%s", r.Verdict, r.Level(), want, explain(r))
	}
	return r
}

func TestLevelsAreThoseThatWhatTheDocumentCarriesProves(t *testing.T) {
	a := served(t)
	o, all := trust(a), evidence(t, a)
	stamped := seal(t, contract(), sealOf(a).stamped(a))
	level(t, stamped, o, pades.BT)
	lt := secured(t, stamped, all)
	level(t, lt, o, pades.BLT)
	level(t, archived(t, lt, a), o, pades.BLTA)

	t.Run("a later time-stamp goes on", func(t *testing.T) {
		level(t, archived(t, archived(t, lt, a), a), o, pades.BLTA)
	})
	t.Run("evidence behind the last time-stamp is not yet archived", func(t *testing.T) {
		level(t, secured(t, archived(t, stamped, a), all), o, pades.BLT)
	})
	t.Run("without a time-stamp of the signature no evidence helps", func(t *testing.T) {
		level(t, archived(t, secured(t, seal(t, contract(), sealOf(a)), all), a), o, pades.BB)
	})
	t.Run("without evidence about the time-stamping authority", func(t *testing.T) {
		if len(all.OCSPs) != 2 || len(all.CRLs) != 1 {
			t.Fatalf("%d responses and %d lists", len(all.OCSPs), len(all.CRLs))
		}
		for i := range all.OCSPs {
			less := all
			less.OCSPs = append(append([][]byte(nil), all.OCSPs[:i]...), all.OCSPs[i+1:]...)
			want(t, level(t, archived(t, secured(t, stamped, less), a), o, pades.BT), verify.Valid, verify.CodeNotLongTerm)
		}
	})
	t.Run("the evidence of another authority proves nothing", func(t *testing.T) {
		level(t, secured(t, stamped, evidence(t, served(t))), o, pades.BT)
	})
	t.Run("two signatures are proven each by itself", func(t *testing.T) {
		level(t, secured(t, seal(t, lt, sealOf(a).stamped(a)), all), o, pades.BLT)
	})
	t.Run("evidence that is too old does not speak of the time of the seal", func(t *testing.T) {
		old := served(t)
		earlier := func() time.Time { return time.Now().Add(-40 * 24 * time.Hour) }
		old.SetNow(earlier)
		stale := collect(t, old, earlier)
		old.SetNow(time.Now)
		r := check(t, secured(t, seal(t, contract(), sealOf(old).stamped(old)), stale), trust(old))
		if r.Level() != pades.BT {
			t.Errorf("level %s\n%s", r.Level(), explain(r))
		}
	})
}

func TestASealOfARevokedCertificateIsNotValidAndOneFromBeforeIs(t *testing.T) {
	a := served(t)
	stamped := seal(t, contract(), sealOf(a).stamped(a))
	good := evidence(t, a)
	a.Revoke(a.Signer.Certificate, time.Now().Add(-time.Hour), 1)
	_, err := asker(t, nil).Collect(t.Context(), revocation.Anchors{Roots: []*x509.Certificate{a.Root.Certificate}},
		[]revocation.Subject{{Cert: a.Signer.Certificate, With: a.Signer.Chain(), At: time.Now()}})
	if err == nil || !strings.Contains(err.Error(), "was revoked at") {
		t.Errorf("evidence of a revocation is taken for validation data: %v", err)
	}
	e, err := asker(t, nil).Check(t.Context(), a.Signer.Certificate, a.Issuing.Certificate, time.Time{})
	if err != nil || !e.Revoked {
		t.Fatalf("%+v, %v", e, err)
	}
	revoked := good
	revoked.OCSPs = append(append([][]byte(nil), good.OCSPs...), e.DER)
	r := check(t, secured(t, stamped, revoked), trust(a))
	want(t, r, verify.Indeterminate, verify.CodeRevokedUnproven)
	if r.SubIndication != verify.RevokedNoPOE {
		t.Errorf("sub-indication %s", r.SubIndication)
	}
	// A time-stamp that the signature covers proves it to have been made after the revocation.
	late := seal(t, archived(t, contract(), a), sealOf(a).stamped(a))
	r = check(t, secured(t, late, revoked), trust(a))
	want(t, r, verify.Invalid, verify.CodeRevoked)
	if r.Indication != verify.TotalFailed || r.SubIndication != verify.Revoked {
		t.Errorf("%s/%s", r.Indication, r.SubIndication)
	}

	later := served(t)
	before := seal(t, contract(), sealOf(later).stamped(later))
	later.Revoke(later.Signer.Certificate, time.Now().Add(time.Hour), 1)
	e, err = asker(t, nil).Check(t.Context(), later.Signer.Certificate, later.Issuing.Certificate, time.Time{})
	if err != nil || !e.Revoked {
		t.Fatalf("%+v, %v", e, err)
	}
	if r := check(t, secured(t, before, pades.Validation{OCSPs: [][]byte{e.DER}}), trust(later)); r.Verdict != verify.Valid {
		t.Errorf("a seal from before the revocation: %s", explain(r))
	}
}

func TestValidationDataIsAddedOnce(t *testing.T) {
	a := served(t)
	lt := secured(t, seal(t, contract(), sealOf(a).stamped(a)), evidence(t, a))
	again, err := pades.AddValidation(t.Context(), bytes.NewReader(lt), evidence(t, a))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(again, a.Signer.Certificate.Raw) {
		t.Error("a certificate is added that is there already")
	}
	tail, err := pades.AddValidation(t.Context(), bytes.NewReader(lt), pades.Validation{Certs: [][]byte{a.Signer.Certificate.Raw, a.Signer.Certificate.Raw}})
	if err != nil || tail != nil {
		t.Errorf("nothing new makes %d bytes, %v", len(tail), err)
	}
}

func TestADocumentIsExtendedByWhatItsSignaturesRestOn(t *testing.T) {
	a := served(t)
	extender := &signing.Extender{Revocation: asker(t, nil), Timestamper: stamper{a}, Anchors: revocation.Anchors{Roots: []*x509.Certificate{a.Root.Certificate}}}
	extend := func(doc []byte, to pades.Level) []byte {
		t.Helper()
		r, subjects, err := verify.Subjects(t.Context(), bytes.NewReader(doc), trust(a))
		if err != nil || r.Verdict != verify.Valid {
			t.Fatalf("%v\n%s", err, explain(r))
		}
		tail, err := extender.Extend(t.Context(), bytes.NewReader(doc), to, subjects)
		if err != nil {
			t.Fatal(err)
		}
		return append(bytes.Clone(doc), tail...)
	}
	stamped := seal(t, seal(t, contract(), sealOf(a).stamped(a)), sealOf(a).stamped(a))
	level(t, extend(stamped, pades.BLT), trust(a), pades.BLT)
	archived := extend(stamped, pades.BLTA)
	level(t, archived, trust(a), pades.BLTA)
	r := level(t, extend(archived, pades.BLTA), trust(a), pades.BLTA)
	if n := len(r.Signatures); n != 4 {
		t.Errorf("%d signatures and time-stamps after two extensions, want 4", n)
	}
	if _, err := extender.Extend(t.Context(), bytes.NewReader(stamped), pades.BT, nil); err == nil {
		t.Error("a document is raised to B-T afterwards")
	}
}

// stamper is an authority as a client sees it.
type stamper struct{ *pki.Authority }

func (s stamper) Timestamp(_ context.Context, digest []byte, h crypto.Hash) ([]byte, error) {
	return s.Token(digest, h)
}
