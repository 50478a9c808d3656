package revocation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/mocks/pki"
)

// serve starts an authority whose certificates name the address that it is served at.
func serve(t *testing.T, o pki.Options) *pki.Authority {
	t.Helper()
	var a *pki.Authority
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	o.BaseURL = server.URL
	var err error
	if a, err = pki.New(o); err != nil {
		t.Fatal(err)
	}
	return a
}

func client(t *testing.T, now func() time.Time) *Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return NewClient(Options{HTTP: &http.Client{Transport: transport}, Now: now})
}

func TestEvidenceIsHadOfEveryCertificateOfAChain(t *testing.T) {
	a := serve(t, pki.Options{})
	c := client(t, nil)
	for name, pair := range map[string][2]*x509.Certificate{
		"signer":  {a.Signer.Certificate, a.Issuing.Certificate},
		"TSA":     {a.TSA.Certificate, a.Issuing.Certificate},
		"issuing": {a.Issuing.Certificate, a.Root.Certificate},
	} {
		e, err := c.Check(t.Context(), pair[0], pair[1], time.Time{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kind, source, parse := OCSP, a.URL(pki.PathOCSP), ParseOCSP
		if pair[0].IsCA {
			kind, source, parse = CRL, a.URL(pki.PathRootCRL), ParseCRL
		}
		if e.Kind != kind || e.Revoked || e.Source != source || e.NextUpdate.IsZero() || (e.Responder != nil) != (kind == OCSP) {
			t.Errorf("%s: %+v", name, e)
		}
		if _, err := parse(e.DER, pair[0], pair[1]); err != nil {
			t.Errorf("%s: what was returned is not evidence: %v", name, err)
		}
	}
	a.SetFault(pki.ServiceCRL, pki.Down, -1)
	if e, err := client(t, nil).Check(t.Context(), a.Issuing.Certificate, a.Root.Certificate, time.Time{}); err != nil || e.Kind != OCSP || e.Responder != nil {
		t.Errorf("without a list: %+v, %v", e, err)
	}
	if NeedsNone(a.Signer.Certificate) || NeedsNone(a.Issuing.Certificate) || !NeedsNone(a.Root.Certificate) || !NeedsNone(a.Responder.Certificate) {
		t.Error("evidence is needed of all but the root and a responder whose issuer waives it")
	}
}

func TestListsAreReadWhereNoResponderAnswers(t *testing.T) {
	for _, fault := range []pki.Fault{pki.Down, pki.Unavailable, pki.Garbage, pki.Endless} {
		t.Run(string(fault), func(t *testing.T) {
			a := serve(t, pki.Options{})
			a.SetFault(pki.ServiceOCSP, fault, -1)
			e, err := client(t, nil).Check(t.Context(), a.Signer.Certificate, a.Issuing.Certificate, time.Time{})
			if err != nil || e.Kind != CRL || e.Revoked || e.Source != a.URL(pki.PathIssuingCRL) {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}

func TestAResponderThatHangsIsGivenUp(t *testing.T) {
	a := serve(t, pki.Options{Hang: time.Minute})
	a.SetFault(pki.ServiceOCSP, pki.Slow, -1)
	var c *Client
	for limit := 50 * time.Millisecond; ; limit *= 4 { // on a busy machine the list, which has as long, may need longer
		c = NewClient(Options{HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, Timeout: limit})
		e, err := c.Check(t.Context(), a.Signer.Certificate, a.Issuing.Certificate, time.Time{})
		if err == nil && e.Kind == CRL {
			break
		}
		if err == nil || limit > 10*time.Second {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Check(ctx, a.TSA.Certificate, a.Issuing.Certificate, time.Time{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestARevokedCertificateIsCalledRevoked(t *testing.T) {
	a := serve(t, pki.Options{})
	at := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	a.Revoke(a.Signer.Certificate, at, ocsp.KeyCompromise)
	for _, kind := range []Kind{OCSP, CRL} {
		if kind == CRL {
			a.SetFault(pki.ServiceOCSP, pki.Down, -1)
		}
		e, err := client(t, nil).Check(t.Context(), a.Signer.Certificate, a.Issuing.Certificate, time.Time{})
		if err != nil || e.Kind != kind || !e.Revoked || !e.RevokedAt.Equal(at) || e.Reason != ocsp.KeyCompromise {
			t.Errorf("%s: %+v, %v", kind, e, err)
		}
	}
}

func TestWithoutEvidenceTheErrorNamesEverySource(t *testing.T) {
	a := serve(t, pki.Options{})
	a.SetFault(pki.ServiceOCSP, pki.Unavailable, -1)
	a.SetFault(pki.ServiceCRL, pki.Garbage, -1)
	_, err := client(t, nil).Check(t.Context(), a.Signer.Certificate, a.Issuing.Certificate, time.Time{})
	var e *Error
	if !errors.As(err, &e) || len(e.Sources) != 2 || e.Permanent() {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{a.URL(pki.PathOCSP) + ": HTTP status 503", a.URL(pki.PathIssuingCRL) + ": the revocation list cannot be read", "Mock Trust Seal"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	silent := serve(t, pki.Options{NoLocations: true})
	_, err = client(t, nil).Check(t.Context(), silent.Signer.Certificate, silent.Issuing.Certificate, time.Time{})
	if !errors.As(err, &e) || !e.Permanent() || !strings.Contains(err.Error(), "names neither") {
		t.Errorf("without addresses: %v", err)
	}
}

func TestEvidenceIsKeptUntilNewerIsDueOrAsked(t *testing.T) {
	now := time.Now()
	a := serve(t, pki.Options{})
	c := client(t, func() time.Time { return now })
	ask := func(since time.Time) (asked int) {
		t.Helper()
		before := a.Requests(pki.ServiceOCSP)
		if _, err := c.Check(t.Context(), a.Signer.Certificate, a.Issuing.Certificate, since); err != nil {
			t.Fatal(err)
		}
		return a.Requests(pki.ServiceOCSP) - before
	}
	if n := ask(time.Time{}); n != 1 {
		t.Errorf("the first time %d requests", n)
	}
	if n := ask(now.Add(-time.Hour)); n != 0 {
		t.Errorf("with evidence at hand %d requests", n)
	}
	if n := ask(now.Add(time.Hour)); n != 1 {
		t.Errorf("for newer evidence %d requests", n)
	}
	now = now.Add(25 * time.Hour)
	a.SetNow(func() time.Time { return now })
	if n := ask(time.Time{}); n != 1 {
		t.Errorf("after its time %d requests", n)
	}
}

func TestEvidenceOfAnotherTimeIsRefused(t *testing.T) {
	for name, offset := range map[string]time.Duration{"future": time.Hour, "out of date": -30 * 24 * time.Hour} {
		a := serve(t, pki.Options{})
		a.SetNow(func() time.Time { return time.Now().Add(offset) })
		_, err := client(t, nil).Check(t.Context(), a.Signer.Certificate, a.Issuing.Certificate, time.Time{})
		var age *AgeError
		if !errors.As(err, &age) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// answer makes an OCSP response that says "good".
func answer(t *testing.T, issuer *x509.Certificate, by *pki.Identity, embed bool, serial *big.Int) []byte {
	t.Helper()
	r := ocsp.Response{Status: ocsp.Good, SerialNumber: serial, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	if embed {
		r.Certificate = by.Certificate
	}
	der, err := ocsp.CreateResponse(issuer, by.Certificate, r, by.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func issue(t *testing.T, a *pki.Authority, template *x509.Certificate) *pki.Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.Subject = pkix.Name{CommonName: "Other"}
	chain, err := a.IssueLeaf(key.Public(), template)
	if err != nil {
		t.Fatal(err)
	}
	return &pki.Identity{Certificate: chain[0], Key: key}
}

func TestAnswersOfTheWrongPeopleOrAboutOthersAreRefused(t *testing.T) {
	a, other := serve(t, pki.Options{}), serve(t, pki.Options{})
	cert, issuer := a.Signer.Certificate, a.Issuing.Certificate
	now := time.Now()
	plain := issue(t, a, &x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	late := issue(t, a, &x509.Certificate{NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}})
	good := answer(t, issuer, a.Responder, true, cert.SerialNumber)
	if _, err := ParseOCSP(good, cert, issuer); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseOCSP(answer(t, issuer, a.Issuing, false, cert.SerialNumber), cert, issuer); err != nil {
		t.Fatalf("signed by the issuer itself: %v", err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-len(a.Responder.Certificate.Raw)-40] ^= 1
	for name, c := range map[string]struct {
		der  []byte
		want string
	}{
		"another certificate":              {answer(t, issuer, a.Responder, true, a.TSA.Certificate.SerialNumber), ""},
		"the same number, another issuer":  {answer(t, other.Issuing.Certificate, a.Responder, true, cert.SerialNumber), "another issuer"},
		"a responder of another authority": {answer(t, issuer, other.Responder, true, cert.SerialNumber), "not named"},
		"a certificate for other purposes": {answer(t, issuer, plain, true, cert.SerialNumber), "not for that purpose"},
		"a responder whose time is over":   {answer(t, issuer, late, true, cert.SerialNumber), "not valid then"},
		"a responder that hides":           {answer(t, issuer, a.Responder, false, cert.SerialNumber), "does not verify"},
		"a signature that was changed":     {flipped, ""},
		"an error":                         {ocsp.TryLaterErrorResponse, ""},
		"something behind it":              {append(bytes.Clone(good), 0), ""},
	} {
		var format *FormatError
		if _, err := ParseOCSP(c.der, cert, issuer); !errors.As(err, &format) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWhatIsCriticalInAnAnswerHasToBeKnown looks at the extensions of a response, which package ocsp passes over.
func TestWhatIsCriticalInAnAnswerHasToBeKnown(t *testing.T) {
	unknown := asn1.ObjectIdentifier{1, 2, 3}
	nonce := pkix.Extension{Id: oidNonce, Value: der(t, []byte("nonce"))}
	for name, c := range map[string]struct {
		list []pkix.Extension
		ok   bool
	}{
		"a nonce":                           {[]pkix.Extension{nonce}, true},
		"one that may be passed over":       {[]pkix.Extension{{Id: unknown, Value: []byte{5, 0}}, nonce}, true},
		"a critical one before the nonce":   {[]pkix.Extension{{Id: unknown, Critical: true, Value: []byte{5, 0}}, nonce}, false},
		"a critical one behind the nonce":   {[]pkix.Extension{nonce, {Id: unknown, Critical: true, Value: []byte{5, 0}}}, false},
		"a nonce that has to be understood": {[]pkix.Extension{{Id: oidNonce, Critical: true, Value: nonce.Value}}, true},
	} {
		got, err := readNonce(der(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: der(t, c.list)}))
		if (err == nil) != c.ok || c.ok && string(got) != "nonce" || !c.ok && !strings.Contains(err.Error(), "1.2.3") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestListsThatDoNotSayEnoughAreRefused(t *testing.T) {
	a, other := serve(t, pki.Options{}), serve(t, pki.Options{})
	cert, issuer := a.Signer.Certificate, a.Issuing
	point := func(address string) asn1.RawValue {
		uri := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(address)}
		full := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der(t, uri)}
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der(t, full)}
	}
	flag := func(tag int) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte{0xff}}
	}
	scope := func(parts ...asn1.RawValue) []pkix.Extension {
		return []pkix.Extension{{Id: oidScope, Critical: true, Value: der(t, parts)}}
	}
	for name, c := range map[string]struct {
		by    *pki.Identity
		more  []pkix.Extension
		entry []pkix.Extension // of the entry of another certificate
		want  string           // empty: it is good
	}{
		"a plain list":                 {by: issuer},
		"a list of this point":         {by: issuer, more: scope(point(cert.CRLDistributionPoints[0]))},
		"a list of users":              {by: issuer, more: scope(flag(1))},
		"a list of another point":      {by: issuer, more: scope(point("http://pki.invalid/other.crl")), want: "another distribution point"},
		"a list of authorities":        {by: issuer, more: scope(flag(2)), want: "another sort"},
		"a list of attributes":         {by: issuer, more: scope(flag(5)), want: "another sort"},
		"a list in another's name":     {by: issuer, more: scope(flag(4)), want: "name of others"},
		"a list of some reasons":       {by: issuer, more: scope(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 3, Bytes: []byte{1, 2}}), want: "some reasons"},
		"a scope that cannot be read":  {by: issuer, more: []pkix.Extension{{Id: oidScope, Critical: true, Value: []byte{0x30}}}, want: "cannot be read"},
		"changes only":                 {by: issuer, more: []pkix.Extension{{Id: oidDeltaCRL, Critical: true, Value: []byte{2, 1, 1}}}, want: "changes only"},
		"a critical unknown extension": {by: issuer, more: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}, want: "1.2.3"},
		"an entry with what is known": {by: issuer, entry: []pkix.Extension{{Id: oidInvalidity, Critical: true, Value: der(t, time.Now().UTC())},
			{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}},
		"an entry with a critical unknown extension": {by: issuer, entry: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}, want: "1.2.3"},
		"an entry of another issuer":                 {by: issuer, entry: []pkix.Extension{{Id: oidCRLIssuer, Critical: true, Value: []byte{0x30, 0}}}, want: "other issuers"},
		"a list of another authority":                {by: other.Issuing, want: "not signed by the issuer"},
		"a list of the root":                         {by: a.Root, want: "another issuer"},
	} {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour), ExtraExtensions: c.more}
		if c.entry != nil {
			list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: time.Now(), ExtraExtensions: c.entry}}
		}
		crl, err := x509.CreateRevocationList(rand.Reader, list, c.by.Certificate, c.by.Key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = ParseCRL(crl, cert, issuer.Certificate)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestEvidenceFromBehindTheEndOfACertificateSaysWhetherItKnowsIt has authorities forget certificates that have ended, as they may.
func TestEvidenceFromBehindTheEndOfACertificateSaysWhetherItKnowsIt(t *testing.T) {
	a, now := serve(t, pki.Options{}), time.Now().UTC().Truncate(time.Second)
	hours := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	cert := issue(t, a, &x509.Certificate{NotBefore: hours(-100), NotAfter: hours(-50)}).Certificate
	since := func(at time.Time) []byte {
		b, err := asn1.MarshalWithParams(at, "generalized")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		made           time.Time
		since          []byte // nil: it does not say
		revoked        bool
		known, refused bool
	}{
		"from before its end":                            {made: hours(-60), known: true},
		"from behind it":                                 {made: hours(-10)},
		"that remembers those that ended earlier":        {made: hours(-10), since: since(hours(-51)), known: true},
		"that remembers those that ended then":           {made: hours(-10), since: since(hours(-50)), known: true},
		"that remembers those only that ended later":     {made: hours(-10), since: since(hours(-49))},
		"that names it":                                  {made: hours(-10), revoked: true, known: true},
		"that says what it remembers in another form":    {made: hours(-10), since: []byte{5, 0}, refused: true},
		"that says what it remembers and something else": {made: hours(-10), since: append(since(hours(-51)), 0), refused: true},
	} {
		extension := func(oid asn1.ObjectIdentifier) (list []pkix.Extension) {
			if c.since != nil {
				list = []pkix.Extension{{Id: oid, Value: c.since}}
			}
			return list
		}
		response := ocsp.Response{SerialNumber: cert.SerialNumber, ThisUpdate: c.made, NextUpdate: hours(1), ExtraExtensions: extension(oidCutoff), Certificate: a.Responder.Certificate}
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: c.made, NextUpdate: hours(1), ExtraExtensions: extension(oidExpired)}
		if c.revoked {
			response.Status, response.RevokedAt = ocsp.Revoked, hours(-70)
			list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: cert.SerialNumber, RevocationTime: hours(-70)}}
		}
		answer, err := ocsp.CreateResponse(a.Issuing.Certificate, a.Responder.Certificate, response, a.Responder.Key)
		if err != nil {
			t.Fatal(err)
		}
		crl, err := x509.CreateRevocationList(rand.Reader, list, a.Issuing.Certificate, a.Issuing.Key)
		if err != nil {
			t.Fatal(err)
		}
		for kind, parse := range map[Kind]func() (*Evidence, error){
			OCSP: func() (*Evidence, error) { return ParseOCSP(answer, cert, a.Issuing.Certificate) },
			CRL:  func() (*Evidence, error) { return ParseCRL(crl, cert, a.Issuing.Certificate) },
		} {
			e, err := parse()
			if c.refused {
				var format *FormatError
				if !errors.As(err, &format) || !strings.Contains(err.Error(), "remembers") {
					t.Errorf("%s %s: %v", kind, name, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s %s: %v", kind, name, err)
			}
			var age *AgeError
			if err := e.Knows(cert); (err == nil) != c.known || err != nil && !errors.As(err, &age) {
				t.Errorf("%s %s: %v", kind, name, err)
			}
		}
	}
}

func der(t *testing.T, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openSSL runs the judge that nobody here wrote.
func openSSL(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is missing: install the Debian package openssl")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestOpenSSLUnderstandsTheQuestionAndIsUnderstood(t *testing.T) {
	a := serve(t, pki.Options{})
	dir := t.TempDir()
	nonce := []byte("0123456789abcdef")
	question, err := request(a.Signer.Certificate, a.Issuing.Certificate, nonce)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(a.Responder.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"question.der": question, "issuing.pem": pki.PEM(a.Issuing.Certificate), "responder.pem": pki.PEM(a.Responder.Certificate), "responder.key": key,
		"index.txt": fmt.Appendf(nil, "V\t%s\t\t%X\tunknown\t/CN=Seal\n", a.Signer.Certificate.NotAfter.UTC().Format("060102150405Z"), a.Signer.Certificate.SerialNumber),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openSSL(t, dir, "pkey", "-inform", "DER", "-in", "responder.key", "-out", "responder.key.pem")
	openSSL(t, dir, "ocsp", "-index", "index.txt", "-CA", "issuing.pem", "-rsigner", "responder.pem", "-rkey", "responder.key.pem",
		"-reqin", "question.der", "-respout", "answer.der", "-ndays", "1")
	answer, err := os.ReadFile(filepath.Join(dir, "answer.der"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseOCSP(answer, a.Signer.Certificate, a.Issuing.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if e.Revoked || hex.EncodeToString(e.Nonce) != hex.EncodeToString(nonce) || e.Responder == nil || e.NextUpdate.Sub(e.ThisUpdate) != 24*time.Hour {
		t.Errorf("%+v", e)
	}
	t.Run("and an answer to another question is refused", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/ocsp-response")
			w.Write(answer)
		}))
		defer server.Close()
		asked := *a.Signer.Certificate
		asked.OCSPServer, asked.CRLDistributionPoints = []string{server.URL + "?secret"}, nil
		_, err := client(t, nil).Check(t.Context(), &asked, a.Issuing.Certificate, time.Time{})
		if err == nil || !strings.Contains(err.Error(), "nonce") || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	})
}

// fixed makes evidence once for a fuzz target.
func fixed(f *testing.F) (cert, issuer *x509.Certificate, response, list []byte) {
	f.Helper()
	a, err := pki.New(pki.Options{})
	if err != nil {
		f.Fatal(err)
	}
	cert, issuer = a.Signer.Certificate, a.Issuing.Certificate
	response, err = ocsp.CreateResponse(issuer, a.Responder.Certificate, ocsp.Response{Status: ocsp.Revoked, RevokedAt: time.Now(), SerialNumber: cert.SerialNumber,
		ThisUpdate: time.Now(), IssuerHash: crypto.SHA256, Certificate: a.Responder.Certificate}, a.Responder.Key)
	if err != nil {
		f.Fatal(err)
	}
	list, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: cert.SerialNumber, RevocationTime: time.Now(), ReasonCode: 1}}}, issuer, a.Issuing.Key)
	if err != nil {
		f.Fatal(err)
	}
	return cert, issuer, response, list
}

func FuzzParseOCSP(f *testing.F) {
	cert, issuer, response, _ := fixed(f)
	f.Add(response)
	for _, mutant := range hostile.Mutants(1, response, 300) {
		f.Add(mutant)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		hostile.Budget(t)
		e, err := ParseOCSP(der, cert, issuer)
		if err == nil && (!e.Revoked || e.ThisUpdate.IsZero()) {
			t.Errorf("damage made good evidence: %+v", e)
		}
		if readData, err := readResponseData(der, cert.SerialNumber); err == nil && readData.id.serial == nil {
			t.Error("an answer about nobody")
		}
	})
}

// TestAListOfAMillionCostsNoMoreThanItsBytes looks for the last entry, for one that is not there, and in one that nobody has signed.
func TestAListOfAMillionCostsNoMoreThanItsBytes(t *testing.T) {
	a := serve(t, pki.Options{})
	cert, issuer, now := a.Signer.Certificate, a.Issuing, time.Now().UTC().Truncate(time.Second)
	var entries cryptobyte.Builder
	entry := func(serial *big.Int) {
		entries.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1BigInt(serial)
			b.AddASN1UTCTime(now)
		})
	}
	for i := range int64(1_000_000) {
		entry(big.NewInt(1<<40 + i))
	}
	without := entries.BytesOrPanic()
	entry(cert.SerialNumber)
	empty, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour)}, issuer.Certificate, issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := splitList(empty)
	if err != nil {
		t.Fatal(err)
	}
	// list has the entries and, if it is signed, the signature that goes with them.
	list := func(entries []byte, signed bool) []byte {
		tbs := der(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(parts.before, der(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: entries}), parts.rest)})
		behind := parts.behind
		if signed {
			var algorithm asn1.RawValue
			if _, err := asn1.Unmarshal(behind, &algorithm); err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(tbs)
			value, err := issuer.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			behind = slices.Concat(algorithm.FullBytes, der(t, asn1.BitString{Bytes: value, BitLength: 8 * len(value)}))
		}
		return der(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(tbs, behind)})
	}
	for name, c := range map[string]struct {
		der     []byte
		revoked bool
		says    string
	}{
		"the last one":             {der: list(entries.BytesOrPanic(), true), revoked: true},
		"none":                     {der: list(without, true)},
		"nobody has signed":        {der: list(without, false), says: "not signed by the issuer"},
		"many times":               {der: list(bytes.Repeat(entries.BytesOrPanic()[len(without):], 100_000), true), says: "more than 16 entries"},
		"a number in another form": {der: list(append(bytes.Clone(without), 0x30, 0x13, 2, 2, 0, 1, 23, 13, '2', '6', '0', '1', '0', '1', '0', '0', '0', '0', '0', '0', 'Z'), true), says: "not the DER"},
	} {
		t.Run(name, func(t *testing.T) {
			hostile.Budget(t)
			e, err := ParseCRL(c.der, cert, issuer.Certificate)
			switch {
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("%v, want %q", err, c.says)
			case c.says == "" && (err != nil || e.Revoked != c.revoked):
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}

// sameEntries compares what is found in a list with what crypto/x509 reads, where that reads all of it.
func sameEntries(t *testing.T, der []byte, cert *x509.Certificate) {
	t.Helper()
	all, err := x509.ParseRevocationList(der)
	if err != nil {
		return
	}
	parts, err := splitList(der)
	if err != nil {
		return // crypto/x509 is less strict, and refused is on the safe side
	}
	own, err := parts.entriesOf(cert)
	if err != nil {
		return
	}
	short, err := parts.parse(own)
	if err != nil {
		return
	}
	if !bytes.Equal(short.RawTBSRevocationList, all.RawTBSRevocationList) || !bytes.Equal(short.Signature, all.Signature) || !short.ThisUpdate.Equal(all.ThisUpdate) {
		t.Fatal("the list is another one without the entries of others")
	}
	others := slices.DeleteFunc(slices.Clone(all.RevokedCertificateEntries), func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 })
	if len(short.RevokedCertificateEntries)+len(others) != len(all.RevokedCertificateEntries) {
		t.Errorf("%d entries were found, and %d of %d are others'", len(short.RevokedCertificateEntries), len(others), len(all.RevokedCertificateEntries))
	}
}

func FuzzParseCRL(f *testing.F) {
	cert, issuer, _, list := fixed(f)
	f.Add(list)
	for _, mutant := range hostile.Mutants(1, list, 300) {
		f.Add(mutant)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		hostile.Budget(t)
		if e, err := ParseCRL(der, cert, issuer); err == nil && !e.Revoked {
			t.Errorf("damage made good evidence: %+v", e)
		}
		_ = checkScope(der, cert) // refused or not
		sameEntries(t, der, cert)
	})
}

func TestEvidenceSignedWithSHA1IsRefused(t *testing.T) {
	a, now := serve(t, pki.Options{}), time.Now()
	for algorithm, good := range map[x509.SignatureAlgorithm]bool{x509.ECDSAWithSHA256: true, x509.ECDSAWithSHA1: false} {
		der, err := ocsp.CreateResponse(a.Issuing.Certificate, a.Issuing.Certificate, ocsp.Response{Status: ocsp.Good, SerialNumber: a.Signer.Certificate.SerialNumber,
			ThisUpdate: now, NextUpdate: now.Add(time.Hour), SignatureAlgorithm: algorithm}, a.Issuing.Key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseOCSP(der, a.Signer.Certificate, a.Issuing.Certificate); (err == nil) != good {
			t.Errorf("a response signed with %v: %v", algorithm, err)
		}
	}
}
