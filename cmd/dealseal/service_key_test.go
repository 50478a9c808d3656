package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/kms"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/store"
)

// serviceStage is a running daemon whose key is kept by a service on the network.
type serviceStage struct {
	*stage
	keys *kms.Store
	key  *ecdsa.PrivateKey // the one that it has
}

func newServiceStage(t *testing.T, config func(w *world, s *serviceStage) string) *serviceStage {
	t.Helper()
	s := &serviceStage{keys: kms.NewStore()}
	s.stage = newStage(t, worldOptions{attempts: 3, key: func(w *world) string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		s.keys.Add("seal", key)
		s.key = key
		chain, err := w.authority.IssueSigner(key.Public(), sealSubject)
		must(t, err)
		must(t, os.WriteFile(w.path("seal.pem"), pki.PEM(chain...), 0o600))
		return config(w, s)
	}})
	return s
}

// uses counts how often the service signed a deal's digest.
func (s *serviceStage) uses(digest string) (n int) {
	for _, d := range s.keys.Signed() {
		if hex.EncodeToString(d) == digest {
			n++
		}
	}
	return n
}

// seals lets a deal enter and counts the uses of the key.
func (s *serviceStage) seals(t *testing.T, c crm, by string, uses int) {
	t.Helper()
	r := enterMemo(c)
	story := awaitDone(t, s.ops, r)
	signedDigests(t, story)
	mustBear(t, c, r, 1)
	if n := s.uses(story.Sealing.Facts.Digest); n != uses {
		t.Errorf("%s: its digest was signed %d times, want %d", story.Sealing.Tx, n, uses)
	}
	for _, l := range story.Trail {
		if l.What == "signed" && !strings.Contains(l.Why, by) {
			t.Errorf("the audit log does not say %q: %s", by, l.Why)
		}
	}
}

// TestAVaultSealsAndItsTroubleIsWaitedFor has the daemon's key in a transit engine that fails to order.
func TestAVaultSealsAndItsTroubleIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newServiceStage(t, func(w *world, s *serviceStage) string {
		server := httptest.NewServer(s.keys.Vault())
		w.t.Cleanup(server.Close)
		return fmt.Sprintf("{kind: vault-transit, certificates: %q, timeout: 5s, vault: {address: %q, key: seal, version: 1, token: %q}}", w.path("seal.pem"), server.URL, w.secretFile("vault-token", kms.Token))
	})
	c := s.crms[0]
	const place = "transit/seal version 1"
	s.seals(t, c, place, 1)
	for fault, uses := range map[kms.Fault]int{kms.Down: 1, kms.Hang: 1, kms.Damaged: 2, kms.Lost: 2, kms.OtherDigest: 1} {
		s.keys.SetFault(fault, 1)
		s.seals(t, c, place, uses)
	}

	s.keys.SetToken("the token of tomorrow")
	r := enterMemo(c)
	story := awaitTrouble(t, s.ops, r, deal.Retrying, "permission denied", "the token of file:")
	if story.Sealing.Attempts != 0 {
		t.Errorf("%d attempts of a deal were used up by a token that all deals share", story.Sealing.Attempts)
	}
	if log := s.daemon.log(); strings.Contains(log, kms.Token) {
		t.Error("the log holds the token")
	}
	must(t, os.WriteFile(s.path("vault-token"), []byte("the token of tomorrow"), 0o600))
	conclude(t, s.ops, "retry", story.Sealing.Tx)
	awaitDone(t, s.ops, r)
	out, _, _ := s.run(t, "doctor")
	if !strings.Contains(out, place) {
		t.Errorf("the doctor does not say where the key is:\n%s", out)
	}
	s.daemon.stop(t)
}

// TestDealsAreHeldWhenAKeyHasReachedItsLimitAndGoOnWhenItIsRaised counts at the key's service.
func TestDealsAreHeldWhenAKeyHasReachedItsLimitAndGoOnWhenItIsRaised(t *testing.T) {
	t.Parallel()
	s := newServiceStage(t, func(w *world, s *serviceStage) string {
		server := httptest.NewServer(s.keys.Vault())
		w.t.Cleanup(server.Close)
		return fmt.Sprintf("{kind: vault-transit, max_uses: 2, max_uses_per_day: 1000, certificates: %q, vault: {address: %q, key: seal, version: 1, token: %q}}", w.path("seal.pem"), server.URL, w.secretFile("vault-token", kms.Token))
	})
	c := s.crms[0]
	s.keys.SetFault(kms.Lost, 1) // an attempt more of the same document
	s.seals(t, c, "house", 2)
	s.seals(t, c, "house", 1)
	r := enterMemo(c)
	held := awaitHeld(t, s.ops, r, 1, "[spent]", `key "house" has sealed 2 documents`)
	conclude(t, s.ops, "release", held.Sealing.Tx)
	before := held.Sealing.Updated
	held = await(t, s.ops, r, 1, "held again", func(m store.Summary) bool { return m.Condition == deal.Held && m.Updated.After(before) })
	if n := s.uses(held.Sealing.Facts.Digest); n != 0 {
		t.Errorf("the digest was signed %d times", n)
	}
	mustShow(t, c, r, deal.StatusHeld)
	metrics := s.daemon.get(t, "/metrics")
	for _, want := range []string{`dealseal_key_limit_used_ratio{key="house"} 1`, `dealseal_key_documents_total{key="house"} 2`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics do not say %s", want)
		}
	}
	s.daemon.stop(t)
	file, err := os.ReadFile(s.config)
	must(t, err)
	must(t, os.WriteFile(s.config, []byte(strings.Replace(string(file), "max_uses: 2", "max_uses: 3", 1)), 0o600))
	s.daemon = s.start(t)
	s.ops = s.control(t, s.stateDir)
	awaitDone(t, s.ops, r)
	mustBear(t, c, r, 1)
	s.daemon.stop(t)
}

// TestAKeyAtGoogleSeals has the daemon log in as a service account.
func TestAKeyAtGoogleSeals(t *testing.T) {
	t.Parallel()
	s := newServiceStage(t, func(w *world, s *serviceStage) string {
		server := httptest.NewServer(s.keys.Google(false))
		w.t.Cleanup(server.Close)
		return fmt.Sprintf("{kind: gcp-kms, certificates: %q, gcp: {version: %s, credentials: %q, endpoint: %q}}",
			w.path("seal.pem"), kms.GoogleVersion(1), w.secretFile("account", kms.GoogleCredentials(server.URL)), server.URL)
	})
	s.seals(t, s.crms[0], kms.GoogleVersion(1), 1)
	s.keys.SetToken("the next token")
	s.seals(t, s.crms[0], kms.GoogleVersion(1), 1)
	s.daemon.stop(t)
}

// TestAKeyAtAzureSeals has the daemon log in as an application.
func TestAKeyAtAzureSeals(t *testing.T) {
	t.Parallel()
	s := newServiceStage(t, func(w *world, s *serviceStage) string {
		server := httptest.NewServer(s.keys.Azure())
		w.t.Cleanup(server.Close)
		return fmt.Sprintf("{kind: azure-keyvault, certificates: %q, azure: {key: %q, tenant: %q, client_id: %q, client_secret: %q, authority: %q}}",
			w.path("seal.pem"), server.URL+kms.AzureVersion(1), kms.AzureTenant, kms.AzureClient, w.secretFile("azure-secret", kms.AzureSecret), server.URL)
	})
	s.seals(t, s.crms[0], kms.AzureVersion(1), 1)
	s.keys.SetToken("the next token")
	s.seals(t, s.crms[0], kms.AzureVersion(1), 1)
	s.daemon.stop(t)
	for _, secret := range []string{kms.Token, "the next token", kms.AzureSecret} {
		if strings.Contains(s.daemon.log(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestAKeyAtAnotherServiceStandsIn has the same key pair in a vault and in AWS KMS.
func TestAKeyAtAnotherServiceStandsIn(t *testing.T) {
	t.Parallel()
	spare := kms.NewStore()
	s := newServiceStage(t, func(w *world, s *serviceStage) string {
		first, second := httptest.NewServer(s.keys.Vault()), httptest.NewServer(spare.AWS())
		w.t.Cleanup(first.Close)
		w.t.Cleanup(second.Close)
		spare.Add("seal", s.key)
		credentials := w.secretFile("aws", "[default]\naws_access_key_id="+kms.AWSAccessKey+"\naws_secret_access_key="+kms.Token+"\n")
		return fmt.Sprintf("{kind: vault-transit, fall_back: [spare], certificates: %q, vault: {address: %q, key: seal, version: 1, token: %q}}, "+
			"spare: {kind: aws-kms, certificates: %q, aws: {region: eu-central-1, key: %s, credentials: %q, endpoint: %q}}",
			w.path("seal.pem"), first.URL, w.secretFile("vault-token", kms.Token), w.path("seal.pem"), kms.AWSKeyID, credentials, second.URL)
	})
	c := s.crms[0]
	s.seals(t, c, "transit/seal version 1", 1)
	s.keys.SetFault(kms.Lost, -1)
	before := len(spare.Signed())
	s.seals(t, c, "AWS KMS eu-central-1", 1) // it was signed there, unheard
	if n := len(spare.Signed()) - before; n != 1 {
		t.Errorf("the second service signed %d times, want once", n)
	}
	s.keys.SetFault("", 0)
	out, _, _ := s.run(t, "doctor")
	if !strings.Contains(out, `the key pair of "house": it can stand in`) || !strings.Contains(out, "AWS KMS") {
		t.Errorf("the doctor does not say who stands in:\n%s", out)
	}
	s.daemon.stop(t)
}
