package main

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/store"
)

// renew has the key ask for a certificate, and the authority give it one, as a person would.
func (s *hsmStage) renew(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	file := s.path(name + ".csr")
	s.mustRun(t, "certs", "csr", "--key", "house", "-o", file)
	text, err := os.ReadFile(file)
	must(t, err)
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		t.Fatalf("the request is %q", text)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	must(t, err)
	must(t, csr.CheckSignature())
	if csr.Subject.CommonName != sealSubject.CommonName {
		t.Errorf("it asks for %q", csr.Subject)
	}
	chain, err := s.authority.IssueSigner(csr.PublicKey, csr.Subject)
	must(t, err)
	must(t, os.WriteFile(s.path(name+".pem"), pki.PEM(chain...), 0o600))
	s.mustRun(t, "certs", "import", s.path(name+".pem"), "--key", "house")
	return chain[0]
}

// mustBeSealedWith compares the certificate of a deal's contract.
func mustBeSealedWith(t *testing.T, story *store.Story, want string) {
	t.Helper()
	if got := story.Sealing.Facts.Cert.SHA256; got != want {
		t.Errorf("%s was sealed with certificate %s, want %s", story.Sealing.Tx, short(got), short(want))
	}
}

// TestTheRegistryDecidesWithWhichCertificateAKeySeals takes a key through a renewal, with a deal in flight, and through a
// revocation.
func TestTheRegistryDecidesWithWhichCertificateAKeySeals(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, tireless, func(*faultyToken) {})
	c := s.crms[0]
	configured, err := readCertificates(s.path("seal.pem"))
	must(t, err)
	first := thumbprint(configured[0])
	mustBeSealedWith(t, awaitDone(t, s.ops, enterMemo(c)), first)
	s.mustList(t, first, "active", "no, on ")
	second := thumbprint(s.renew(t, "second"))

	// A deal whose digest is committed ends with the certificate that it names, whatever becomes active meanwhile.
	s.key.order("device")
	flying := enterMemo(c)
	inFlight := awaitTrouble(t, s.ops, flying, deal.Retrying, "CKR_DEVICE_ERROR")
	s.mustRun(t, "certs", "activate", second, "--why", "renewed")
	s.key.order("")
	landed := awaitDone(t, s.ops, flying)
	mustBeSealedWith(t, landed, first)
	if landed.Sealing.Facts.Digest != inFlight.Sealing.Facts.Digest {
		t.Error("another digest was signed than the one that was committed")
	}
	mustBeSealedWith(t, awaitDone(t, s.ops, enterMemo(c)), second)
	s.mustList(t, first, "retiring", "")
	s.daemon.stop(t)

	// The issuer revokes what is in use. The next start asks, and says so; nothing is sealed.
	all, err := readCertificates(s.path("second.pem"))
	must(t, err)
	s.authority.Revoke(all[0], time.Now(), 1)
	s.stage = s.begin(t)
	uses := len(s.key.signatures())
	waiting := enterMemo(c)
	held := awaitHeld(t, s.ops, waiting, 1, "[revoked]", "was revoked", "dealseal certs activate")
	if held.Sealing.Facts.Digest != "" {
		t.Error("a digest was committed with a revoked certificate")
	}
	s.mustList(t, second, "revoked", "yes")
	mustContain(t, "the metrics", s.daemon.get(t, "/metrics"), `dealseal_certificate_revoked{key="house"} 1`)
	mustContain(t, "the page", s.daemon.see(t, "/"), "revoked", second)

	// Another certificate lets the deal go on by itself. The one that was retired would do as well; the revoked one never.
	if _, stderr, code := s.run(t, "certs", "activate", second, "--why", "it was a mistake"); code != exitFailed || !strings.Contains(stderr, "never used again") {
		t.Errorf("the revoked certificate is activated: exit code %d\n%s", code, stderr)
	}
	third := thumbprint(s.renew(t, "third"))
	s.mustRun(t, "certs", "activate", third, "--why", "the second was revoked")
	mustBeSealedWith(t, awaitDone(t, s.ops, waiting), third)
	mustContain(t, "the metrics", s.daemon.get(t, "/metrics"), `dealseal_certificate_revoked{key="house"} 0`)
	found, _, _ := s.run(t, "doctor")
	mustContain(t, "doctor", found, "signing.keys.house.certificates has "+short(first), short(third), "import and activate it")

	// Of what the key has signed, each digest that is no document's and no trial's is a request's, and is in the log.
	signed := s.key.signatures()[uses:]
	s.daemon.stop(t)
	state := s.openState(t)
	certs, err := state.Certificates(t.Context())
	must(t, err)
	if len(certs) != 3 {
		t.Errorf("the registry has %d certificates", len(certs))
	}
	if !slices.Contains(signed, awaited(t, state, waiting).Facts.Digest) {
		t.Error("the module has not signed the deal's digest")
	}
	if _, err := state.VerifyAudit(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// awaited is the only sealing of a record.
func awaited(t *testing.T, state *store.Store, record string) *deal.Sealing {
	t.Helper()
	sealing, err := state.Load(t.Context(), sealings(t, &local{Store: state}, record)[0].Tx)
	must(t, err)
	return sealing
}

func mustContain(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s lacks %q:\n%s", what, word, text)
		}
	}
}

// mustList looks at a certificate's line of "dealseal certs".
func (s *hsmStage) mustList(t *testing.T, sha256 string, words ...string) {
	t.Helper()
	line := lineOf(s.mustRun(t, "certs", "list"), sha256)
	if line == "" {
		t.Errorf("dealseal certs does not list %s", sha256)
		return
	}
	mustContain(t, "the line of "+short(sha256), line, words...)
}

// TestACertificateBecomesActiveAtItsTimeWhileTheDaemonRuns has one become active between two deals, and another for a deal
// that waits, which nobody wakes.
func TestACertificateBecomesActiveAtItsTimeWhileTheDaemonRuns(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, tireless, func(*faultyToken) {})
	c := s.crms[0]
	configured, err := readCertificates(s.path("seal.pem"))
	must(t, err)
	first := thumbprint(configured[0])
	second := thumbprint(s.renew(t, "second"))
	mustBeSealedWith(t, awaitDone(t, s.ops, enterMemo(c)), first)
	activateSoon := func(sha256 string) time.Time {
		at := time.Now().Add(soon) // time enough for the command that says so
		s.mustRun(t, "certs", "activate", sha256, "--at", at.Format(time.RFC3339Nano), "--why", "renewed")
		return at
	}
	at := activateSoon(second)
	if list := lineOf(s.mustRun(t, "certs", "list"), second); time.Now().Before(at) {
		mustContain(t, "the line before its time", list, "next")
	}
	eventually(t, "its time has come", func() (bool, string) { return time.Now().After(at), "" })
	mustBeSealedWith(t, awaitDone(t, s.ops, enterMemo(c)), second)
	s.mustList(t, first, "retiring")
	s.mustList(t, second, "active")

	// Without any deal that opens the key, and for one that only waits.
	s.mustRun(t, "certs", "retire", second, "--why", "it was a mistake")
	third := thumbprint(s.renew(t, "third"))
	activateSoon(third)
	eventually(t, "the third is active", func() (bool, string) {
		list := s.mustRun(t, "certs", "list")
		return strings.Contains(lineOf(list, third), "active") && !strings.Contains(lineOf(list, third), "next"), list
	})
	s.daemon.stop(t)
	if log := s.daemon.log(); strings.Count(log, "certificates became active at their time") != 2 {
		t.Errorf("the log does not tell of both:\n%s", log)
	}
}

// soon is when something is to happen by itself that commands have to be told of before: they may take seconds to start.
const soon = 20 * time.Second

// lineOf is the line of "dealseal certs list" about a certificate.
func lineOf(list, sha256 string) string {
	for line := range strings.Lines(list) {
		if strings.Contains(line, short(sha256)) {
			return line
		}
	}
	return ""
}

// rollOver has another certificate follow the one that the house's key seals with, which goes on beside it: at once, without a
// daemon.
func (w *world) rollOver(t *testing.T, until time.Time) (first, second string) {
	t.Helper()
	w.start(t).stop(t) // enters the configured certificate into the registry
	s := w.openState(t)
	defer s.Close()
	all, err := s.Certificates(t.Context())
	must(t, err)
	if len(all) != 1 || all[0].State != deal.CertActive {
		t.Fatalf("the registry has %+v", all)
	}
	old, err := parseChain(all[0].Chain)
	must(t, err)
	chain, err := w.authority.IssueSigner(old[0].PublicKey, sealSubject)
	must(t, err)
	next := describe("house", chain[:len(chain):len(chain)], deal.CertNext)
	must(t, s.AddCertificate(t.Context(), next, "anna", "renewed"))
	must(t, s.ActivateCertificate(t.Context(), "house", next.SHA256, time.Time{}, until, "anna", "rollover"))
	return all[0].SHA256, next.SHA256
}

// TestARolloverGivesTwoSealsForAWhile takes a key through one by the commands, with documents that all judges accept.
func TestARolloverGivesTwoSealsForAWhile(t *testing.T) {
	t.Parallel()
	s := &hsmStage{}
	w := newWorld(t, worldOptions{attempts: tireless, dual: true, level: "B-LTA", crms: []deal.Kind{deal.Salesforce}, key: func(w *world) string {
		s.key = newFaultyToken(w)
		return s.key.config()
	}})
	s.stage = w.begin(t)
	c := s.crms[0]
	configured, err := readCertificates(s.path("seal.pem"))
	must(t, err)
	first := thumbprint(configured[0])
	second := thumbprint(s.renew(t, "second"))
	refused := func(says string, args ...string) {
		t.Helper()
		if _, stderr, code := s.run(t, append([]string{"certs"}, args...)...); code == exitOK || !strings.Contains(stderr, says) {
			t.Errorf("%q: exit code %d, want %q\n%s", args, code, says, stderr)
		}
	}
	until := time.Now().Add(24 * time.Hour)
	stamp := func(at time.Time) string { return at.UTC().Format(time.RFC3339) }
	refused("say with --at when", "rollover", second, "--why", "renewed")
	refused("before they begin", "rollover", second, "--at", stamp(until), "--dual-until", stamp(until.Add(-time.Hour)), "--why", "renewed")
	refused("ends at", "rollover", second, "--at", stamp(until.Add(-time.Hour)), "--dual-until", "2099-01-01", "--why", "renewed")
	refused("goes with rollover", "activate", second, "--dual-until", stamp(until), "--why", "renewed")
	at := time.Now().Add(soon)
	s.mustRun(t, "certs", "rollover", second, "--at", at.UTC().Format(time.RFC3339Nano), "--dual-until", stamp(until), "--why", "renewed")
	if list, metrics := lineOf(s.mustRun(t, "certs", "list"), second), s.daemon.get(t, "/metrics"); time.Now().Before(at) {
		mustContain(t, "the line before its time", list, "next (active from", "then two seals until "+stamp(until))
		mustContain(t, "the metrics", metrics, `dealseal_certificate_activates_timestamp_seconds{key="house"}`)
	}
	s.daemon.stop(t) // what is to come survives that
	eventually(t, "its time has come", func() (bool, string) { return time.Now().After(at), "" })
	s.stage = w.begin(t)

	record := enterMemo(c)
	story := awaitDone(t, s.ops, record)
	facts := story.Sealing.Facts
	mustBeSealedWith(t, story, second)
	if facts.Second == nil || facts.Second.Cert.SHA256 != first || facts.Level != "B-LTA" || facts.Second.Level != "B-LTA" || facts.SecondOpinion != "valid" {
		t.Fatalf("it was sealed as %+v, %+v", facts, facts.Second)
	}
	if signed := s.key.signatures(); countOf(signed, facts.Digest) != 1 || countOf(signed, facts.Second.Digest) != 1 {
		t.Error("each of the two digests is to be signed once")
	}
	s.mustList(t, first, "retiring (makes second seals until "+stamp(until))
	s.mustList(t, second, "active")
	mustContain(t, "the metrics", s.daemon.get(t, "/metrics"), `dealseal_certificate_two_seals_until_timestamp_seconds{key="house"}`)
	mustContain(t, "the page", s.daemon.see(t, "/"), "makes second seals until")
	mustContain(t, "the deal's page", s.daemon.see(t, "/deals/"+string(story.Sealing.Tx)), "Second seal by", first)
	mustContain(t, "explain", s.mustRun(t, "explain", string(story.Sealing.Tx)), "second seal", first)
	for _, f := range c.files(record) {
		if f.sealed() {
			s.bothHold(t, f.content)
		}
	}
	bundle := s.path("bundle.zip")
	s.mustRun(t, "evidence", string(story.Sealing.Tx), "-o", bundle)
	content, err := os.ReadFile(bundle)
	must(t, err)
	s.mustJudge(t, "the bundle", content, exitOK, "VALID", "and a second time by", first)
	parts := unzip(t, content)
	for _, name := range []string{"evidence/second-signature.p7s", "evidence/second-timestamp.tst"} {
		if parts[name] == nil {
			t.Errorf("the bundle lacks %s", name)
		}
	}
	must(t, os.WriteFile(s.path("in.pdf"), quotation(3), 0o600))
	if out := s.mustRun(t, "sign", "--profile", "normal", s.path("in.pdf"), "-o", s.path("out.pdf")); strings.Count(out, "sealed by") != 2 || strings.Count(out, "B-LTA") != 2 {
		t.Errorf("dealseal sign says\n%s", out)
	}
	sealed, err := os.ReadFile(s.path("out.pdf"))
	must(t, err)
	s.bothHold(t, sealed)

	// A person ends it before its time.
	s.mustRun(t, "certs", "retire", first, "--why", "all know the new one")
	one := awaitDone(t, s.ops, enterMemo(c))
	mustBeSealedWith(t, one, second)
	if one.Sealing.Facts.Second != nil {
		t.Errorf("it has a second seal: %+v", one.Sealing.Facts.Second)
	}
	s.daemon.stop(t)
	w.rewrite(t, "dealseal.yaml", "dual_seal: true,", "dual_seal: true, certify: 1,")
	if _, stderr, code := s.run(t, "check"); code == exitOK || !strings.Contains(stderr, "dealseal.yaml:") || !strings.Contains(stderr, "lets nothing be added") {
		t.Errorf("check: exit code %d\n%s", code, stderr)
	}
}

func countOf(list []string, one string) (n int) {
	for _, s := range list {
		if s == one {
			n++
		}
	}
	return n
}

// bothHold has a document with two seals judged by us and by poppler.
func (s *hsmStage) bothHold(t *testing.T, sealed []byte) {
	t.Helper()
	if !s.verifies(t, sealed) {
		t.Error("the document does not have two seals")
	}
	file := written(t, sealed)
	s.mustJudge(t, "verify", sealed, exitOK, "TOTAL-PASSED")
	b := newBench(t, s.path("root.pem"))
	out, err := exec.Command("pdfsig", "-nssdir", b.nss, file).CombinedOutput()
	if err != nil || strings.Count(string(out), "Signature is Valid.") != 2 || strings.Count(string(out), "Certificate is Trusted.") != 2 {
		t.Errorf("pdfsig: %v\n%s", err, out)
	}
}

// TestAKeyGetsItsNextCertificateFromTheCAItself over EST, once it is time.
func TestAKeyGetsItsNextCertificateFromTheCAItself(t *testing.T) {
	t.Parallel()
	s := newHSMStage(t, tireless, func(*faultyToken) {})
	ca := httptest.NewTLSServer(s.authority.EST("dealseal", "a secret of the CA", 1))
	t.Cleanup(ca.Close)
	must(t, os.WriteFile(s.path("ca-tls.pem"), pki.PEM(ca.Certificate()), 0o600))
	must(t, os.WriteFile(s.path("est-password"), []byte("a secret of the CA"), 0o600))
	must(t, os.WriteFile(s.path("wrong-password"), []byte("guessed"), 0o600))
	enrol := func(password string, more ...string) (string, string, int) {
		return s.run(t, append([]string{"certs", "enrol", "--key", "house", "--est", ca.URL + pki.PathEST, "--ca", s.path("ca-tls.pem"),
			"--user", "dealseal", "--password", "file:" + s.path(password)}, more...)...)
	}
	refused := func(says, stdout, stderr string, code int) {
		t.Helper()
		if code == exitOK || !strings.Contains(stderr, says) || strings.Contains(stderr, "guessed") {
			t.Errorf("exit code %d, want %q\n%s%s", code, says, stdout, stderr)
		}
	}
	awaitDone(t, s.ops, enterMemo(s.crms[0])) // the configured certificate is in the registry
	if stdout, stderr, code := enrol("est-password", "--within", "30"); code != exitOK || !strings.Contains(stdout, "nothing was asked for") {
		t.Errorf("before it is time: %d %s%s", code, stdout, stderr)
	}
	stdout, stderr, code := enrol("wrong-password")
	refused("does not let us in", stdout, stderr, code)
	stdout, stderr, code = enrol("est-password")
	refused("somebody there has to agree", stdout, stderr, code)
	stdout, stderr, code = s.run(t, "certs", "enrol", "--key", "house", "--est", ca.URL+pki.PathEST)
	refused("certificate", stdout, stderr, code) // an unknown authority
	const stranger = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	stdout, stderr, code = enrol("est-password", "--pins", stranger)
	refused("it presented "+pins.Of(ca.Certificate()).String(), stdout, stderr, code)
	stdout, stderr, code = enrol("est-password", "--pins", stranger+",sha256/short")
	refused("is no pin", stdout, stderr, code)
	if certs, err := s.ops.Certificates(t.Context()); err != nil || len(certs) != 1 {
		t.Fatalf("the registry has %d certificates, %v", len(certs), err)
	}
	stdout, stderr, code = enrol("est-password", "--within", "1000", "--pins", stranger+", "+pins.Of(ca.Certificate()).String())
	if code != exitOK || !strings.Contains(stdout, "imported for key house") {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	certs, err := s.ops.Certificates(t.Context())
	must(t, err)
	if len(certs) != 2 || !slices.ContainsFunc(certs, func(c deal.Certificate) bool { return c.State == deal.CertNext && len(c.Chain) > 1 }) {
		t.Errorf("the registry has %+v", certs)
	}
}
