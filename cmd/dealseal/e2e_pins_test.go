package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/store"
)

// loopbackTLS makes a CA, and a certificate of it for servers on this machine.
func loopbackTLS(t *testing.T) (pair *tls.Certificate, leaf, root *x509.Certificate) {
	t.Helper()
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	make := func(name string, by *x509.Certificate, public, signer any) *x509.Certificate {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour), BasicConstraintsValid: true}
		if by == nil {
			c.IsCA, by = true, c
		} else {
			c.IPAddresses, c.DNSNames = []net.IP{{127, 0, 0, 1}}, []string{"localhost"}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, by, public, signer)
		must(t, err)
		c, err = x509.ParseCertificate(der)
		must(t, err)
		return c
	}
	root = make("Test Web CA", nil, rootKey.Public(), rootKey)
	leaf = make("127.0.0.1", root, key.Public(), rootKey)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}, leaf, root
}

// TestPinnedKeysHoldACRMAndATSA: without one of them nothing is asked, the reason says what was presented, and a reload mends it.
func TestPinnedKeysHoldACRMAndATSA(t *testing.T) {
	t.Parallel()
	pair, leaf, root := loopbackTLS(t)
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.HubSpot}, attempts: tireless, tls: pair})
	must(t, os.WriteFile(w.path("web-root.pem"), pki.PEM(root), 0o600))
	const stranger = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	c := w.crms[0].(*hubspotCRM)
	file := "tenants/" + c.tenant() + ".yaml"
	good := "kind: hubspot, pins: {127.0.0.1: [" + stranger + ", \"" + pins.Of(leaf).String() + "\"]}"
	bad := "kind: hubspot, pins: {127.0.0.1: [" + stranger + "]}"
	w.rewrite(t, file, "kind: hubspot", good)
	tsa := fmt.Sprintf("{url: %q", w.authority.URL(pki.PathTSA))
	stamped, unstamped := tsa+", pins: [\""+pins.Of(root).String()+"\"]", tsa+", pins: ["+stranger+"]"
	w.rewrite(t, "dealseal.yaml", tsa, stamped)
	s := &stage{world: w, daemon: w.start(t, "SSL_CERT_FILE="+w.path("web-root.pem")), ops: w.control(t, w.stateDir)}
	first := c.open(sale{quote: quotation(1)})
	c.move(first, ruleQuote)
	awaitDone(t, s.ops, first)

	stdout, _, _ := s.run(t, "doctor", "--json")
	for _, says := range []string{"1 of 2 pins match its chain: " + pins.Of(leaf).String(), "the only pin " + pins.Of(root).String() + " matches"} {
		if !strings.Contains(stdout, says) {
			t.Errorf("the check-up does not say %q:\n%s", says, stdout)
		}
	}
	presented := "127.0.0.1 has none of the keys that are pinned, and was told nothing; it presented " + pins.Of(leaf).String()

	w.rewrite(t, "dealseal.yaml", stamped, unstamped)
	s.reload(t, exitOK, "changed: pins in signing.tsa")
	second := c.open(sale{quote: quotation(2)})
	c.move(second, ruleQuote)
	await(t, s.ops, second, 1, "waiting for a TSA whose key is pinned", func(m store.Summary) bool {
		return m.Condition == deal.Retrying && strings.Contains(m.Reason, presented)
	})
	w.rewrite(t, "dealseal.yaml", unstamped, stamped)
	s.reload(t, exitOK, "changed: pins in signing.tsa")
	awaitDone(t, s.ops, second)

	w.rewrite(t, file, good, bad)
	s.reload(t, exitOK, "changed: "+c.tenant())
	third := c.open(sale{quote: quotation(3)})
	c.move(third, ruleQuote)
	eventually(t, "the CRM is asked nothing", func() (bool, string) {
		log := s.daemon.log()
		return strings.Contains(log, "127.0.0.1 has none of the keys") && strings.Contains(log, "crm.pins in "), log
	})
	if stdout, _, _ := s.run(t, "doctor", "--json"); !strings.Contains(stdout, "none of 1 pin is in the chain") {
		t.Errorf("the check-up says\n%s", stdout)
	}
	w.rewrite(t, file, bad, good)
	s.reload(t, exitOK, "changed: "+c.tenant())
	awaitDone(t, s.ops, third)
	s.daemon.stop(t)
}

// TestPinnedKeysHoldSalesforceAndWhatItTells: its login and its change events, which are at hosts of their own.
func TestPinnedKeysHoldSalesforceAndWhatItTells(t *testing.T) {
	t.Parallel()
	pair, leaf, root := loopbackTLS(t)
	w := newWorld(t, worldOptions{tenants: []tenantOptions{{id: "acme", kind: deal.Salesforce, with: ", change_events: /data/OpportunityChangeEvent"}}, tls: pair})
	must(t, os.WriteFile(w.path("web-root.pem"), pki.PEM(root), 0o600))
	events := strings.Replace(w.crms[0].(*salesforceCRM).url, "127.0.0.1", "localhost", 1)
	w.rewrite(t, "tenants/acme.yaml", "change_events:", fmt.Sprintf("pubsub_url: %q, change_events:", events))
	const stranger = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	its, before := "\""+pins.Of(leaf).String()+"\"", "kind: salesforce"
	for _, c := range []struct{ login, events, says string }{
		{stranger, its, "127.0.0.1 has none of the keys that are pinned, and was told nothing"},
		{its, stranger, "localhost has none of the keys that are pinned, and was told nothing"},
		{its, its, "the CRM tells of changes itself"},
	} {
		now := fmt.Sprintf("kind: salesforce, pins: {127.0.0.1: [%s], localhost: [%s]}", c.login, c.events)
		w.rewrite(t, "tenants/acme.yaml", before, now)
		before = now
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cmd := w.command(ctx, w.config, "doctor", "--json")
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+w.path("web-root.pem"))
		out, _ := cmd.CombinedOutput() // it has something to mend, which is looked for
		cancel()
		for _, says := range []string{c.says, "none of 1 pin is in the chain"} {
			if want := says == c.says || c.login == stranger || c.events == stranger; strings.Contains(string(out), says) != want {
				t.Errorf("with %s and %s the check-up says %q: %t\n%s", c.login, c.events, says, !want, out)
			}
		}
	}
}
