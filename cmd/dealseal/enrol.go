package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/secret"
)

// enrolOptions are the flags of "certs enrol" alone.
type enrolOptions struct {
	est, ca, user, password, clientCert, clientKey, pins string
	within                                               int
}

// enrolCertificate has a key ask a CA for its next certificate and imports what the CA issues. With --within it does nothing
// while the certificates that there are last longer, so that a timer may call it every day.
func enrolCertificate(ctx context.Context, c *call) error {
	if c.certs.key == "" || c.enrol.est == "" {
		return usagef("name the key with --key, and the CA's EST service with --est")
	}
	ca, err := c.estCA()
	if err != nil {
		return err
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	all, err := c.certificates(ctx, ops)
	if err != nil {
		return err
	}
	if c.certs.pair == "" {
		c.certs.pair = sealingPair(all)
	} else {
		all = slices.DeleteFunc(all, func(one deal.Certificate) bool { return one.Signer() != c.certs.pair })
	}
	if c.enrol.within > 0 {
		if last := lastUntil(all); time.Until(last) > time.Duration(c.enrol.within)*24*time.Hour {
			_, err := fmt.Fprintf(c.stdout, "key %s has a certificate until %s: nothing was asked for\n", c.certs.key, last.Format(time.DateOnly))
			return err
		}
	}
	csr, err := ops.RequestCertificate(ctx, certRequest{Key: c.certs.key, Pair: c.certs.pair, Subject: c.subject})
	if err != nil {
		return err
	}
	issued, err := ca.enrol(ctx, csr)
	if err != nil {
		return err
	}
	return importChain(ctx, c, ops, issued, "what the CA has issued")
}

// sealingPair is the key whose key pair a key seals with, by its certificates; empty: its own. A timer that renews must not lead
// back to a key pair that another one has followed.
func sealingPair(all []deal.Certificate) string {
	for _, one := range all {
		if one.State == deal.CertActive {
			return one.Pair
		}
	}
	return ""
}

// lastUntil is when the certificates end that are used, or will be.
func lastUntil(all []deal.Certificate) (last time.Time) {
	for _, one := range all {
		if (one.State == deal.CertActive || one.State == deal.CertNext) && one.Until.After(last) {
			last = one.Until
		}
	}
	return last
}

// estCA is the CA of the flags.
func (c *call) estCA() (*estCA, error) {
	o := c.enrol
	var roots *x509.CertPool
	if o.ca != "" {
		all, err := readCertificates(o.ca)
		if err != nil {
			return nil, err
		}
		roots = x509.NewCertPool()
		for _, one := range all {
			roots.AddCert(one)
		}
	}
	var client *tls.Certificate
	switch {
	case (o.clientCert == "") != (o.clientKey == ""):
		return nil, usagef("--client-cert and --client-key belong together")
	case o.clientCert != "":
		key, err := resolved(o.clientKey)
		if err != nil {
			return nil, fmt.Errorf("--client-key: %w", err)
		}
		chain, err := os.ReadFile(o.clientCert)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(chain, key.Reveal())
		if err != nil {
			return nil, fmt.Errorf("--client-cert: %w", err)
		}
		client = &pair
	}
	var pinned pins.Set
	if o.pins != "" {
		for text := range strings.SplitSeq(o.pins, ",") {
			p, err := pins.Parse(strings.TrimSpace(text))
			if err != nil {
				return nil, usagef("--pins: %v", err)
			}
			pinned = append(pinned, p)
		}
	}
	ca, err := newESTCA(o.est, roots, client, pinned)
	if err != nil {
		return nil, err
	}
	if (o.user == "") != (o.password == "") {
		return nil, usagef("--user and --password belong together")
	}
	if ca.user = o.user; o.user != "" {
		if ca.password, err = resolved(o.password); err != nil {
			return nil, fmt.Errorf("--password: %w", err)
		}
	}
	return ca, nil
}

// resolved reads a secret that a flag refers to.
func resolved(text string) (secret.Secret, error) {
	ref, err := secret.ParseRef(text)
	if err != nil {
		return secret.Secret{}, err
	}
	return ref.Resolve()
}
