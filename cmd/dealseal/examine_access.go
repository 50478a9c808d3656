package main

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/signing/revocation"
)

// Names of the checks of who and what comes in from outside.
const (
	checkListener = "listener"
	checkToken    = "token"
)

// endsSoon reports whether what lasts from one time to another ends within two weeks, or, of what lives less than six, in the
// last third of its life: it would else be new and about to end.
func endsSoon(from, until, now time.Time) bool {
	return until.Sub(now) <= min(14*24*time.Hour, until.Sub(from)/3)
}

// listeners are the certificates of listeners, by where they are configured.
func (x *examiner) listeners() map[string]config.TLS {
	all := map[string]config.TLS{}
	for path, t := range map[string]*config.TLS{"listen.tls": x.cfg.Listen.TLS, "api.tls": x.cfg.API.TLS} {
		if t != nil {
			all[path] = *t
		}
	}
	return all
}

// examineListener looks at the files as a listener would read them now.
func (x *examiner) examineListener(path string, t config.TLS) doctor.Examination {
	return examination(doctor.Machine, checkListener, path, machineLimit, func(ctx context.Context, report func(doctor.Finding)) {
		c := newCertificate(x.cfg, t)
		f := listenerFinding(c, time.Now())
		if f.Result == doctor.Pass {
			f = x.stapleFinding(ctx, c, f)
		}
		f.Subject = path
		report(f)
	})
}

// stapleFinding is what else is to be said of a good certificate: what its CA says, where it offers that.
func (x *examiner) stapleFinding(ctx context.Context, c *certificate, good doctor.Finding) doctor.Finding {
	pair, err := c.read()
	if err != nil {
		return failed(checkListener, err, "leave the files as they are while they are looked at")
	}
	_, err = fetchStaple(ctx, revocation.NewClient(revocation.Options{HTTP: x.http}), pair)
	var revoked *revocation.RevokedError
	switch {
	case errors.Is(err, errNoResponder):
		return good
	case errors.As(err, &revoked):
		return doctor.Failed(checkListener, "put a certificate of a new key in its place", "its CA says that it was revoked at %s", revoked.At.UTC().Format(time.RFC3339))
	case err != nil:
		return doctor.Warned(checkListener, "see that this machine may reach the CA's OCSP responder: whoever connects has to ask it himself until then", "%s, and there is no OCSP response to send along: %v", good.What, err)
	}
	good.What += ", and says so with an OCSP response"
	return good
}

func listenerFinding(c *certificate, now time.Time) doctor.Finding {
	const cure = "put a new certificate in the place of the old one: its files are read again by themselves"
	pair, err := c.read()
	var leaf *x509.Certificate
	if err == nil {
		leaf, err = x509.ParseCertificate(pair.Certificate[0])
	}
	switch {
	case err != nil:
		return failed(checkListener, err, cure)
	case now.After(leaf.NotAfter), now.Before(leaf.NotBefore):
		return doctor.Failed(checkListener, cure, "its certificate is good from %s to %s, and not now: whoever calls turns away", leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	case endsSoon(leaf.NotBefore, leaf.NotAfter, now):
		return doctor.Warned(checkListener, cure, "its certificate ends at %s", leaf.NotAfter.Format(time.RFC3339))
	}
	return doctor.Passed(checkListener, "its certificate is good until %s", leaf.NotAfter.Format(time.DateOnly))
}

// examineCallers looks at what the certificates that a proxy names have to chain to.
func (x *examiner) examineCallers() doctor.Examination {
	const path = "api.proxies.client_ca"
	return examination(doctor.Machine, checkListener, path, machineLimit, func(_ context.Context, report func(doctor.Finding)) {
		report(authoritiesFinding(checkListener, relativeTo(x.cfg.File, x.cfg.API.Proxies.ClientCA), "then restart", time.Now()).On(path))
	})
}

// authoritiesFinding says how long those that have issued callers' certificates are good. When the last is over everybody is turned
// away; before that, whoever has a certificate of the one that is.
func authoritiesFinding(check, file, then string, now time.Time) doctor.Finding {
	all, err := readCertificates(file)
	if err != nil {
		return failed(check, err, "mend "+file+", "+then)
	}
	good, first := 0, all[0]
	for _, c := range all {
		if !now.Before(c.NotBefore) && !now.After(c.NotAfter) {
			good++
		}
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	cure := "put its successor into " + file + ", beside it while callers have certificates of both, " + then
	switch {
	case good == 0:
		return doctor.Failed(check, cure, "none of the certificates in %s is good now, the first until %s: every caller is turned away", file, first.NotAfter.Format(time.RFC3339))
	case now.After(first.NotAfter):
		return doctor.Warned(check, "take it out of "+file+", "+then, "%s has ended at %s: callers with a certificate of it are turned away", first.Subject, first.NotAfter.Format(time.RFC3339))
	case endsSoon(first.NotBefore, first.NotAfter, now):
		return doctor.Warned(check, cure, "%s ends at %s", first.Subject, first.NotAfter.Format(time.RFC3339))
	}
	return doctor.Passed(check, "callers' certificates have an issuer until %s", first.NotAfter.Format(time.DateOnly))
}

// examineTokens looks for programs that will soon be turned away.
func (x *examiner) examineTokens() doctor.Examination {
	return examination(doctor.Machine, checkToken, "", machineLimit, func(ctx context.Context, report func(doctor.Finding)) {
		all, err := x.tokens(ctx)
		if err != nil {
			report(failed(checkToken, err, "look at the database"))
			return
		}
		for _, t := range all {
			if f, ok := tokenFinding(t, time.Now()); ok {
				report(f)
			}
		}
	})
}

// tokenFinding says nothing of what is revoked, was never used, or ended long ago.
func tokenFinding(t deal.Token, now time.Time) (f doctor.Finding, ok bool) {
	const cure = "dealseal tokens create makes the next one, under another name; revoke this one when the program has it"
	switch {
	case !t.Revoked.IsZero(), t.Until.Before(now.Add(-14 * 24 * time.Hour)), t.Used.IsZero() && !t.Counts(now):
		return f, false
	case !t.Counts(now):
		f = doctor.Warned(checkToken, cure, "it has ended at %s, and its program is turned away; it was last used at %s", t.Until.Format(time.RFC3339), t.Used.Format(time.RFC3339))
	case endsSoon(t.Made, t.Until, now):
		f = doctor.Warned(checkToken, cure, "it ends at %s", t.Until.Format(time.RFC3339))
	default:
		f = doctor.Passed(checkToken, "%s, until %s", t.Role, t.Until.Format(time.DateOnly))
	}
	f.Subject = t.Name
	return f, true
}
