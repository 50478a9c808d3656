package verify_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pdf"
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

func TestAStoreSaysForWhichSignatureItsEvidenceIs(t *testing.T) {
	a := served(t)
	doc := seal(t, contract(), sealOf(a).stamped(a))
	indexed := func(doc []byte, v pades.Validation) []byte {
		t.Helper()
		tail, err := pades.AddIndexedValidation(t.Context(), bytes.NewReader(doc), v)
		if err != nil {
			t.Fatal(err)
		}
		return append(bytes.Clone(doc), tail...)
	}
	all := evidence(t, a)
	lt := indexed(doc, all)
	level(t, lt, trust(a), pades.BLT)
	entries := storeEntries(t, lt)
	if want := []string{valueHash(t, doc, 0)}; !slices.Equal(slices.Sorted(maps.Keys(entries)), want) {
		t.Fatalf("entries %v, want one of the signature, %v", entries, want)
	}
	if got, want := entries[valueHash(t, doc, 0)], [3]int{len(all.Certs), len(all.OCSPs), len(all.CRLs)}; got != want {
		t.Errorf("the entry names %v certificates, responses and lists, want %v", got, want)
	}
	if again := indexed(lt, all); len(again) != len(lt) {
		t.Error("the same evidence changes the store once more")
	}
	// What was put there without an index gets one; a time-stamp that came since is a signature too.
	lta := archived(t, secured(t, doc, all), a)
	if entries = storeEntries(t, indexed(lta, all)); len(entries) != 2 || entries[valueHash(t, lta, 1)][0] != len(all.Certs) {
		t.Errorf("after a document time-stamp: %v", entries)
	}
	// Some producers name objects in the entries alone.
	bare := withoutLists(t, lt)
	level(t, bare, trust(a), pades.BLT)
	want := level(t, withoutEntries(t, bare), trust(a), pades.BT)
	if want.Verdict != verify.Valid {
		t.Error(explain(want))
	}
}

// TestEntriesThatShareALongListAreRefused has entries that would take a look at a million references each.
func TestEntriesThatShareALongListAreRefused(t *testing.T) {
	a := served(t)
	lt := secured(t, seal(t, contract(), sealOf(a).stamped(a)), evidence(t, a))
	file, ref, store := storeOf(t, lt)
	u := file.Update()
	long, entries := make(pdf.Array, 2000), pdf.D()
	for i := range long {
		long[i] = pdf.Ref{Num: 1}
	}
	list := u.Alloc()
	u.Put(list, long)
	for i := range 500 {
		entries.Set(pdf.Name(fmt.Sprintf("%040X", i)), pdf.D("Cert", list, "OCSP", list, "CRL", list))
	}
	store.Set("VRI", entries)
	u.Put(ref, store)
	tail, err := u.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	doc := append(bytes.Clone(lt), tail...)
	want(t, check(t, doc, trust(a)), verify.Indeterminate, verify.CodeBudget)
	if _, err := pades.AddIndexedValidation(t.Context(), bytes.NewReader(withoutEntries(t, doc)), pades.Validation{}); err != nil {
		t.Errorf("without the entries: %v", err)
	}
}

// storeOf is the security store of a document.
func storeOf(t *testing.T, doc []byte) (file *pdf.File, ref pdf.Ref, store *pdf.Dict) {
	t.Helper()
	file, err := pdf.Open(bytes.NewReader(doc), int64(len(doc)))
	if err != nil {
		t.Fatal(err)
	}
	_, catalog, err := file.Catalog()
	if err != nil {
		t.Fatal(err)
	}
	store, err = file.ResolveDict(catalog.Get("DSS"))
	if err != nil {
		t.Fatal(err)
	}
	return file, catalog.Get("DSS").(pdf.Ref), store.Clone()
}

// storeEntries counts what the entries about signatures name.
func storeEntries(t *testing.T, doc []byte) map[string][3]int {
	t.Helper()
	file, _, store := storeOf(t, doc)
	all, err := file.ResolveDict(store.Get("VRI"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][3]int{}
	for _, name := range all.Keys() {
		entry, err := file.ResolveDict(all.Get(name))
		if err != nil {
			t.Fatal(err)
		}
		var n [3]int
		for i, key := range []pdf.Name{"Cert", "OCSP", "CRL"} {
			list, err := file.ResolveArray(entry.Get(key))
			if err != nil {
				t.Fatal(err)
			}
			n[i] = len(list)
		}
		out[string(name)] = n
	}
	return out
}

// valueHash is the name of the n-th signature of a document in its store.
func valueHash(t *testing.T, doc []byte, n int) string {
	t.Helper()
	file, err := pdf.Open(bytes.NewReader(doc), int64(len(doc)))
	if err != nil {
		t.Fatal(err)
	}
	fields, err := file.Form()
	if err != nil {
		t.Fatal(err)
	}
	fields = slices.DeleteFunc(fields, func(f pdf.Field) bool { return f.Type != "Sig" || f.Value == nil })
	d, err := file.ResolveDict(fields[n].Value)
	if err != nil {
		t.Fatal(err)
	}
	value, _ := pdf.StringBytes(d.Get("Contents"))
	return fmt.Sprintf("%X", sha1.Sum(value))
}

func withoutLists(t *testing.T, doc []byte) []byte { return without(t, doc, "Certs", "OCSPs", "CRLs") }

func withoutEntries(t *testing.T, doc []byte) []byte { return without(t, doc, "VRI") }

// without takes keys out of the store.
func without(t *testing.T, doc []byte, keys ...pdf.Name) []byte {
	t.Helper()
	file, ref, store := storeOf(t, doc)
	for _, key := range keys {
		store.Delete(key)
	}
	u := file.Update()
	u.Put(ref, store)
	tail, err := u.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(doc), tail...)
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
