package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
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
	s := newHSMStage(t, 12, func(*faultyToken) {})
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
	s := newHSMStage(t, 12, func(*faultyToken) {})
	c := s.crms[0]
	configured, err := readCertificates(s.path("seal.pem"))
	must(t, err)
	first := thumbprint(configured[0])
	second := thumbprint(s.renew(t, "second"))
	mustBeSealedWith(t, awaitDone(t, s.ops, enterMemo(c)), first)
	soon := func(sha256 string) time.Time {
		at := time.Now().Add(10 * time.Second) // time enough for the command that says so
		s.mustRun(t, "certs", "activate", sha256, "--at", at.Format(time.RFC3339Nano), "--why", "renewed")
		return at
	}
	at := soon(second)
	s.mustList(t, second, "next")
	eventually(t, "its time has come", func() (bool, string) { return time.Now().After(at), "" })
	mustBeSealedWith(t, awaitDone(t, s.ops, enterMemo(c)), second)
	s.mustList(t, first, "retiring")
	s.mustList(t, second, "active")

	// Without any deal that opens the key, and for one that only waits.
	s.mustRun(t, "certs", "retire", second, "--why", "it was a mistake")
	third := thumbprint(s.renew(t, "third"))
	soon(third)
	eventually(t, "the third is active", func() (bool, string) {
		list := s.mustRun(t, "certs", "list")
		return strings.Contains(lineOf(list, third), "active") && !strings.Contains(lineOf(list, third), "next"), list
	})
	s.daemon.stop(t)
	if log := s.daemon.log(); strings.Count(log, "certificates became active at their time") != 2 {
		t.Errorf("the log does not tell of both:\n%s", log)
	}
}

// lineOf is the line of "dealseal certs list" about a certificate.
func lineOf(list, sha256 string) string {
	for line := range strings.Lines(list) {
		if strings.Contains(line, short(sha256)) {
			return line
		}
	}
	return ""
}
