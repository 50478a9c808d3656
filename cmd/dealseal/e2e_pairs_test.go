package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/kms"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
)

// anotherPair makes an RSA key in a token of its own, behind the same faulty module, that has no certificate yet, and configures
// it as "house-2".
func (k *faultyToken) anotherPair() *faultyToken {
	w := k.w
	other := &faultyToken{&token{w: w, module: k.module, pin: k.pin, pinRef: k.pinRef, conf: w.path("token/other.conf")}}
	must(w.t, os.Mkdir(w.path("token/other"), 0o700))
	must(w.t, os.WriteFile(other.conf, fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", w.path("token/other")), 0o600))
	other.env = []string{"SOFTHSM2_CONF=" + other.conf}
	other.tool("softhsm2-util", "--init-token", "--free", "--label", "e2e", "--pin", k.pin, "--so-pin", "so-pin-of-a-test")
	other.object("--keypairgen", "--key-type", "RSA:2048", "--label", "seal", "--id", "01", "--usage-sign")
	other.env = append(other.env, "FAULTY_MODULE="+softHSM(w.t), "FAULTY_SIGNATURES="+w.path("token/other-signatures"))
	config := strings.Replace(other.config(), fmt.Sprintf(" certificates: %q,", w.path("seal.pem")), "", 1)
	k.extra = "}, house-2: " + strings.TrimSuffix(config, "}") + ", max_uses: 3"
	return other
}

func (k *faultyToken) hasSigned(digest string) int { return countOf(k.signatures(), digest) }

func (k *faultyToken) otherHasSigned(digest string) int {
	n := 0
	for _, signed := range k.lines("token/other-signatures") { // with RSA, the name of the hash and the digest
		if strings.HasSuffix(signed, digest) {
			n++
		}
	}
	return n
}

// TestARolloverToAnotherKeyPairGivesTwoSealsForAWhile takes the profiles' key from one token to another by the commands: a
// deal in flight, a deal that was signed and not finished, one that waits for the old key during the window, and what either
// revocation leaves.
func TestARolloverToAnotherKeyPairGivesTwoSealsForAWhile(t *testing.T) {
	t.Parallel()
	s := &hsmStage{}
	w := newWorld(t, worldOptions{attempts: tireless, dual: true, level: "B-LTA", crms: []deal.Kind{deal.Salesforce}, key: func(w *world) string {
		s.key = newFaultyToken(w)
		s.key.anotherPair()
		return s.key.config()
	}})
	s.stage = w.begin(t)
	c := s.crms[0]
	configured, err := readCertificates(s.path("seal.pem"))
	must(t, err)
	first := thumbprint(configured[0])

	// Before: the new key asks for its certificate, with the subject of the old one's, which is refused for the old key.
	if waits, _, code := s.run(t, "doctor"); code != exitOK || !strings.Contains(waits, "has no certificate yet, and no profile names it") {
		t.Errorf("doctor: exit code %d\n%s", code, waits)
	}
	s.refuses(t, `signing.keys has no key "house-3"`, "csr", "--key", "house", "--pair", "house-3", "-o", s.path("no.csr"))
	second := s.certifyPair(t)
	s.refuses(t, "none of 2 certificates is for this key", "import", s.path("second.pem"), "--key", "house")
	s.mustRun(t, "certs", "import", s.path("second.pem"), "--key", "house", "--pair", "house-2")
	s.mustList(t, second, "house by house-2", "next")
	found, _, _ := s.run(t, "doctor")
	mustContain(t, "doctor", found, `it is to follow the key pair of "house"`)
	mustContain(t, "the page", s.daemon.see(t, "/"), "house-2", "for profiles with house")

	// A daemon that dies between the signature and its time-stamp, and the switch before the next one.
	signed := s.signedAndKilled(t, c)
	until := time.Now().Add(24 * time.Hour)
	at := time.Now().Add(soon)
	s.mustRun(t, "certs", "rollover", second, "--at", at.UTC().Format(time.RFC3339Nano), "--dual-until", until.UTC().Format(time.RFC3339), "--why", "another key")
	eventually(t, "its time has come", func() (bool, string) { return time.Now().After(at), "" })
	s.stage = w.begin(t)
	story := awaitDone(t, s.ops, signed)
	mustBeSealedWith(t, story, first)
	if facts := story.Sealing.Facts; facts.Second != nil || s.key.hasSigned(facts.Digest) != 1 || s.key.otherHasSigned(facts.Digest) != 0 {
		t.Errorf("a stored signature was not used again: %+v", facts)
	}

	// During: the new key's seal, then the old key's over it, which is waited for.
	s.key.order("device")
	both := enterMemo(c)
	awaitTrouble(t, s.ops, both, deal.Retrying, "CKR_DEVICE_ERROR")
	s.key.order("")
	story = awaitDone(t, s.ops, both)
	facts := story.Sealing.Facts
	mustBeSealedWith(t, story, second)
	if facts.Second == nil || facts.Second.Cert.SHA256 != first || facts.Level != "B-LTA" || facts.Second.Level != "B-LTA" || facts.SecondOpinion != "valid" {
		t.Fatalf("it was sealed as %+v, %+v", facts, facts.Second)
	}
	for what, n := range map[string]int{"the new key, the first digest": s.key.otherHasSigned(facts.Digest), "the old key, the second": s.key.hasSigned(facts.Second.Digest),
		"the old key, the first": 1 + s.key.hasSigned(facts.Digest), "the new key, the second": 1 + s.key.otherHasSigned(facts.Second.Digest)} {
		if n != 1 {
			t.Errorf("%s: signed %d times", what, n)
		}
	}
	for _, f := range c.files(both) {
		if f.sealed() {
			s.bothHold(t, f.content)
		}
	}
	found, _, _ = s.run(t, "doctor")
	mustContain(t, "doctor", found, `profiles that name key "house" seal with it`, "it makes second seals until")
	mustContain(t, "the page", s.daemon.see(t, "/"), "for profiles with house", "makes second seals until")
	metrics := s.daemon.get(t, "/metrics")
	mustContain(t, "the metrics", metrics, `dealseal_key_documents_total{key="house-2"} 1`, `dealseal_certificate_two_seals_until_timestamp_seconds{key="house"}`)
	s.provesItselfByTheNewKey(t, story.Sealing.Tx, first)

	// After: the old key is revoked, the limit of the new one counts, and the old certificate never comes back.
	s.mustRun(t, "certs", "retire", first, "--revoked", "--why", "the token was stolen")
	one := awaitDone(t, s.ops, enterMemo(c))
	mustBeSealedWith(t, one, second)
	if one.Sealing.Facts.Second != nil {
		t.Errorf("it has a second seal: %+v", one.Sealing.Facts.Second)
	}
	s.refuses(t, "never used again", "activate", first, "--why", "it was found")
	metrics = s.daemon.get(t, "/metrics")
	mustContain(t, "the metrics", metrics, `dealseal_certificate_revoked{key="house"} 0`, `dealseal_certificate_not_after_seconds{key="house-2"}`)
	if strings.Contains(metrics, `dealseal_certificate_not_after_seconds{key="house"}`) {
		t.Error("somebody is to order a certificate for a key that another has followed")
	}
	found, _, code := s.run(t, "doctor")
	if code != exitOK || !strings.Contains(found, `the key pair of "house-2" has followed it`) {
		t.Errorf("doctor: exit code %d\n%s", code, found)
	}
	spent := awaitHeld(t, s.ops, enterMemo(c), 1, "[spent]", `key "house-2" has sealed 3 documents`)
	if n := s.key.otherHasSigned(spent.Sealing.Facts.Digest); n != 0 {
		t.Errorf("the digest above the limit was signed %d times", n)
	}
	s.daemon.stop(t)

	// A key that the registry needs and the configuration has no more is told at once.
	w.rewrite(t, "dealseal.yaml", "house-2:", "house-3:")
	if _, stderr, code := s.run(t, "serve"); code == exitOK || !strings.Contains(stderr, `the key pair of "house-2", which is not under signing.keys`) {
		t.Errorf("serve without the key: exit code %d\n%s", code, stderr)
	}
}

// certifyPair has the new key ask for a certificate, and the authority give it one.
func (s *hsmStage) certifyPair(t *testing.T) (sha256 string) {
	t.Helper()
	s.mustRun(t, "certs", "csr", "--key", "house", "--pair", "house-2", "-o", s.path("second.csr"))
	text, err := os.ReadFile(s.path("second.csr"))
	must(t, err)
	block, _ := pem.Decode(text)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	must(t, err)
	must(t, csr.CheckSignature())
	if csr.PublicKeyAlgorithm != x509.RSA || csr.Subject.CommonName != sealSubject.CommonName {
		t.Errorf("it asks for a certificate of %s for %q", csr.PublicKeyAlgorithm, csr.Subject)
	}
	chain, err := s.authority.IssueSigner(csr.PublicKey, csr.Subject)
	must(t, err)
	must(t, os.WriteFile(s.path("second.pem"), pki.PEM(chain...), 0o600))
	return thumbprint(chain[0])
}

// signedAndKilled ends the daemon when it asks for the time-stamp of a seal whose value is committed.
func (s *hsmStage) signedAndKilled(t *testing.T, c crm) (record string) {
	t.Helper()
	s.at(0, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/tsa") }, s.daemon.kill)
	record = enterMemo(c)
	select {
	case <-s.daemon.ended:
	case <-time.After(patience):
		t.Fatal("no time-stamp was asked for")
	}
	return record
}

// provesItselfByTheNewKey has a bundle judged, whose manifest the key signs that makes new seals.
func (s *hsmStage) provesItselfByTheNewKey(t *testing.T, tx deal.TxID, second string) {
	t.Helper()
	before := s.key.lines("token/other-signatures")
	bundle := s.path("bundle.zip")
	s.mustRun(t, "evidence", string(tx), "-o", bundle)
	content, err := os.ReadFile(bundle)
	must(t, err)
	s.mustJudge(t, "the bundle", content, exitOK, "VALID", "with the key that signed the manifest", "and a second time by", second)
	if after := s.key.lines("token/other-signatures"); len(after) != len(before)+1 {
		t.Errorf("the new key has signed %d times for the manifest", len(after)-len(before))
	}
}

// TestAKeyAtAServiceFollowsOneInAnHSM has it refused first: a soft one, and one whose service does not sign.
func TestAKeyAtAServiceFollowsOneInAnHSM(t *testing.T) {
	t.Parallel()
	s, vault := &hsmStage{}, kms.NewStore()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}, key: func(w *world) string {
		s.key = newFaultyToken(w)
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(w.t, err)
		vault.Add("seal", key)
		server := httptest.NewServer(vault.Vault())
		w.t.Cleanup(server.Close)
		s.key.extra = "}, soft: " + strings.TrimSuffix(w.newSoftKey(), "}") + fmt.Sprintf("}, house-2: {kind: vault-transit, vault: {address: %q, key: seal, version: 1, token: %q}",
			server.URL, w.secretFile("vault-token", kms.Token))
		return s.key.config()
	}})
	s.stage = w.begin(t)
	second := s.certifyPair(t)
	s.refuses(t, "which is for evaluation", "import", s.path("second.pem"), "--key", "house", "--pair", "soft")
	s.mustRun(t, "certs", "import", s.path("second.pem"), "--key", "house", "--pair", "house-2")
	vault.SetFault(kms.Damaged, 1)
	s.refuses(t, "no signature of this key over our digest", "activate", second, "--why", "another key")
	s.mustList(t, second, "next")
	s.mustRun(t, "certs", "activate", second, "--why", "another key")
	for _, digest := range vault.Signed()[1:] { // the first was the request
		if !bytes.Equal(digest, signing.Trial(crypto.SHA256)) {
			t.Errorf("before it is active it has signed %x", digest)
		}
	}
	mustBeSealedWith(t, awaitDone(t, s.ops, enterMemo(s.crms[0])), second)

	// Back again, without a restart.
	configured, err := readCertificates(s.path("seal.pem"))
	must(t, err)
	s.mustRun(t, "certs", "activate", thumbprint(configured[0]), "--why", "the readers do not take RSA")
	mustBeSealedWith(t, awaitDone(t, s.ops, enterMemo(s.crms[0])), thumbprint(configured[0]))
	s.daemon.stop(t)
}

func (s *hsmStage) refuses(t *testing.T, says string, args ...string) {
	t.Helper()
	if _, stderr, code := s.run(t, append([]string{"certs"}, args...)...); code == exitOK || !strings.Contains(stderr, says) {
		t.Errorf("%q: exit code %d, want %q\n%s", args, code, says, stderr)
	}
}
