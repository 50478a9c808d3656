package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/revocation"
)

// When certificates are looked after. Issuers are asked every day, and sooner again where somebody did not answer.
const (
	everyLook      = time.Minute // for certificates that end
	leastLook      = time.Second // between two tries to write down that one has become active
	everyAsking    = 24 * time.Hour
	anotherAsking  = time.Hour
	firstAskLimit  = 5 * time.Second // of the start, which waits for it
	askingLimit    = time.Minute     // of one certificate with its issuers
	revokedAdvice  = "nothing is sealed with it any more: have another one issued, import and activate it"
	mendedReasonOf = "a certificate became active"
)

// endDays are when the end of a certificate is entered into the audit log.
var endDays = []int{60, 30, 14, 7, 1}

// ask asks the issuers of a certificate, and of those above it, whether they have revoked it.
func (r *registry) ask(ctx context.Context, e entry, at time.Time) (answer deal.CertAnswer, detail string) {
	ctx, cancel := context.WithTimeout(ctx, askingLimit)
	defer cancel()
	intermediates := x509.NewCertPool()
	for _, c := range e.chain[1:] {
		intermediates.AddCert(c)
	}
	chains, err := e.chain[0].Verify(x509.VerifyOptions{Roots: pool(r.roots), Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return deal.AnswerUnreachable, "its issuer is not known: it leads to no root of signing.trust"
	}
	chain := chains[0]
	answer = deal.AnswerGood
	for i, c := range chain[:len(chain)-1] {
		if revocation.NeedsNone(c) {
			continue
		}
		evidence, err := r.issuers.Check(ctx, c, chain[i+1], r.now())
		var none *revocation.Error
		switch {
		case err == nil && evidence.Revoked:
			return deal.AnswerRevoked, fmt.Sprintf("%q at %s, reason code %d, says %s", c.Subject.CommonName, evidence.RevokedAt.UTC().Format(time.RFC3339), evidence.Reason, hostOf(evidence.Source))
		case err == nil && i == 0:
			detail = "says " + hostOf(evidence.Source)
		case err == nil:
		case errors.As(err, &none) && none.Permanent() && i == 0:
			answer, detail = deal.AnswerNobody, "it names neither an OCSP responder nor a revocation list that can be had over HTTP"
		case errors.As(err, &none) && none.Permanent():
		case answer == deal.AnswerGood:
			answer, detail = deal.AnswerUnreachable, err.Error()
		}
	}
	return answer, detail
}

// check asks and takes down the answer. An error means that it could not be written down.
func (r *registry) check(ctx context.Context, e entry) (deal.CertAnswer, error) {
	answer, detail := r.ask(ctx, e, r.now())
	if ctx.Err() != nil {
		return "", ctx.Err() // which says nothing about the certificate
	}
	if answer != deal.AnswerRevoked {
		return answer, r.note(ctx, e.SHA256, answer, detail)
	}
	fresh, err := r.revoke(ctx, e.SHA256, "daemon", detail)
	if fresh {
		r.log.Error("a certificate was revoked: "+revokedAdvice, "key", e.Key, "certificate", e.SHA256, "subject", e.chain[0].Subject.CommonName, "detail", detail)
	}
	return answer, err
}

func (r *registry) note(ctx context.Context, sha256 string, answer deal.CertAnswer, detail string) error {
	return r.change(ctx, func() error { return r.store.NoteCertificateCheck(ctx, sha256, answer, detail) })
}

func (r *registry) revoke(ctx context.Context, sha256, who, why string) (fresh bool, err error) {
	return fresh, r.change(ctx, func() (err error) {
		fresh, err = r.store.RevokeCertificate(ctx, sha256, who, why)
		return err
	})
}

// checkAll checks every certificate that seals or may still; heard reports whether nobody was left without an answer.
func (r *registry) checkAll(ctx context.Context) (heard bool) {
	heard = true
	asked := map[string]bool{}
	for _, e := range r.entries() {
		if e.State == deal.CertRevoked || r.now().After(e.Until) || asked[e.SHA256] {
			continue
		}
		asked[e.SHA256] = true
		heard = r.hear(ctx, e) && heard
	}
	return heard
}

// hear is check for whoever goes on whatever comes of it; it reports whether there was an answer, and it is written down.
func (r *registry) hear(ctx context.Context, e entry) bool {
	answer, err := r.check(ctx, e)
	if err != nil && ctx.Err() == nil {
		r.log.Error("it could not be written down whether a certificate is revoked", "certificate", e.SHA256, "err", err)
	}
	if answer == deal.AnswerUnreachable {
		r.log.Warn("nobody says whether a certificate is revoked; it is used all the same", "key", e.Key, "certificate", e.SHA256)
	}
	return err == nil && answer != deal.AnswerUnreachable
}

// watchful has the registry hear of it when an issuer says, of a seal that was just made, that its certificate was revoked: the
// key is not to be used once for each deal until the day is over.
type watchful struct {
	engine.Extender
	registry *registry
}

// Collect implements engine.Extender.
func (w watchful) Collect(ctx context.Context, subjects []revocation.Subject) (revocation.Material, error) {
	m, err := w.Extender.Collect(ctx, subjects)
	if revoked := (*revocation.RevokedError)(nil); errors.As(err, &revoked) {
		for _, s := range subjects {
			if e, known := w.registry.find("", thumbprint(s.Cert)); known && s.Usage == signing.UsageSeal && revoked.Usage == s.Usage {
				w.registry.hear(ctx, e)
			}
		}
	}
	return m, err
}

// look does what is due by the clock alone.
func (r *registry) look(ctx context.Context) error {
	told, err := r.store.TellCertificateEnds(ctx, endDays)
	for _, c := range told {
		r.log.Warn("a certificate ends: order the next one", "key", c.Key, "certificate", c.SHA256, "days", c.Days, "end", c.Until)
	}
	return errors.Join(err, r.activateDue(ctx))
}

// beforeTheFirstSeal looks after certificates once before any deal is sealed, as far as issuers answer quickly.
func (d *service) beforeTheFirstSeal(ctx context.Context) (heard bool) {
	ctx, cancel := context.WithTimeout(ctx, firstAskLimit)
	defer cancel()
	if err := d.registry.look(ctx); err != nil {
		d.log.Error("the certificates could not be looked after", "err", err)
	}
	return d.registry.checkAll(ctx)
}

// lookAfterCertificates runs until ctx ends. heard says whether all issuers have answered already.
func (d *service) lookAfterCertificates(ctx context.Context, heard bool) error {
	asking := time.NewTimer(nextAsking(heard))
	defer asking.Stop()
	look := time.NewTimer(d.registry.untilNext())
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-asking.C:
			asking.Reset(nextAsking(d.registry.checkAll(ctx)))
		case <-look.C:
			if err := d.registry.look(ctx); err != nil && ctx.Err() == nil {
				d.log.Error("the certificates could not be looked after", "err", err)
			}
			look.Reset(d.registry.untilNext())
		case <-d.registry.came: // what its issuer said when somebody decided that may be weeks old
			asking.Reset(nextAsking(d.registry.checkAll(ctx)))
		case <-d.registry.changed:
			look.Reset(d.registry.untilNext())
		case <-d.registry.activated:
			for _, t := range d.residents.house().tenants {
				d.goOn(ctx, deal.TenantID(t.file.Tenant.ID), mendedReasonOf, true, engine.HoldRevoked)
			}
		}
	}
}

func nextAsking(heard bool) time.Duration {
	if heard {
		return everyAsking
	}
	return anotherAsking
}
