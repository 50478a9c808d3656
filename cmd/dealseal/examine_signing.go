package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/signing/verify"
)

// Names of the checks of signing.
const (
	checkOpened      = "key"
	checkCertificate = "certificate"
	checkTrusted     = "trust"
	checkRegistry    = "registry"
	checkSignature   = "signature"
	checkStandIn     = "stand-in"
	checkOCSP        = "ocsp"
	checkEvidence    = "evidence"
	checkTSA         = "tsa"
	checkQuota       = "quota"
)

// fewDays is when a certificate's end should be on somebody's list.
const fewDays = 60

func (x *examiner) examineKey(name string) doctor.Examination {
	return examination(doctor.Signing, checkOpened, name, keyLimit, func(ctx context.Context, all func(doctor.Finding)) {
		report := func(f doctor.Finding) { all(f.On(name)) }
		r, err := x.registry(ctx, name)
		var key signing.Key
		if err == nil {
			key, err = r.alone(name).Open(ctx, name)
		}
		by := ""
		if r != nil {
			by = r.followedBy(r.group(name))
		}
		if err != nil && by != "" {
			report(doctor.Warned(checkOpened, fmt.Sprintf("if deals that were staged with it wait for it, bring it back; else let the profiles name %s, and take it out of signing.keys", by),
				"the key pair of %q has followed it, and it cannot be used: %v", by, err))
			return
		}
		if err != nil && r != nil && r.awaitsCertificate(ctx, name) {
			report(doctor.Warned(checkOpened, fmt.Sprintf("have its certificate issued and import it: dealseal certs csr --key NAME --pair %s, NAME being the key that it is to follow", name),
				"it is there, has no certificate yet, and no profile names it"))
			return
		}
		if err != nil {
			report(failed(checkOpened, err, fmt.Sprintf("see that the token is there and unlocked, and check signing.keys.%s", name)))
			return
		}
		report(doctor.Passed(checkOpened, "%s", whereIs(key, x.cfg.Signing.Keys[name])))
		served := r.serves(r.group(name))
		x.examinePart(r, r.group(name), report)
		if by != "" { // nothing is sealed anew with its certificate, which may have ended
			x.examineSignatures(ctx, name, served, key, report)
			return
		}
		lasting := served
		if e, found := r.part(r.group(name)); found && r.partOf(e) == partBeside {
			lasting = nil // second seals are made to the end, and the next certificate is there
		}
		if !x.examineCertificate(name, lasting, key, r.from(r.group(name)), report) {
			return
		}
		x.examineConfigured(name, key, report)
		x.examineStandIn(name, key, report)
		x.examineSignatures(ctx, name, served, key, report)
		if profile := x.lasting(served...); profile != "" {
			report(x.collect(ctx, profile, revocation.Subject{Cert: key.Chain()[0], With: key.Chain()[1:], Usage: "the seal"}))
			return
		}
		report(x.askResponder(ctx, key.Chain()))
	})
}

// whereIs says in whose keeping a key is.
func whereIs(key signing.Key, c config.Key) string {
	switch c.Kind {
	case "soft":
		return "in a file, for evaluation only"
	case "pkcs11":
		return "in the HSM, token " + c.Token
	}
	if n, named := signing.Ability[signing.Named](key); named {
		return n.Name()
	}
	return "at a service of kind " + c.Kind
}

// examinePart says what a key is used for by a rollover to another key pair.
func (x *examiner) examinePart(r *registry, key string, report func(doctor.Finding)) {
	e, found := r.part(key)
	if !found {
		return
	}
	active, _ := r.active(e.Key)
	words := map[int]string{
		partActive: fmt.Sprintf("profiles that name key %q seal with it", e.Key),
		partBeside: fmt.Sprintf("it makes second seals until %s: key %q seals with the key pair of %q", e.BesideUntil.UTC().Format(time.RFC3339), e.Key, active.Signer()),
		partNext:   fmt.Sprintf("it is to follow the key pair of %q: %s", e.Key, stateWords(e.Certificate)),
		partPast:   fmt.Sprintf("it finishes what was staged with it: key %q seals with the key pair of %q", e.Key, active.Signer()),
	}
	if part := r.partOf(e); e.Pair != "" || active.Signer() != key {
		report(doctor.Passed(checkRegistry, "%s", words[part]))
	}
}

// examineCertificate reports whether it is good enough at a time for a signature to be tried. served are the names that it has to
// last for; nil: it need not.
func (x *examiner) examineCertificate(name string, served []string, key signing.Key, now time.Time, report func(doctor.Finding)) bool {
	if err := signing.CheckKey(name, key, now); err != nil {
		report(failed(checkCertificate, err, fmt.Sprintf("give the key a certificate that fits it and is valid: signing.keys.%s.certificates, or the object on the token", name)))
		return false
	}
	cert := key.Chain()[0]
	days := int(cert.NotAfter.Sub(now) / (24 * time.Hour))
	least, profile := x.minValidity(served, cert)
	text := fmt.Sprintf("%q, issued by %q, %d days left (until %s)", cert.Subject.CommonName, cert.Issuer.CommonName, days, cert.NotAfter.UTC().Format(time.DateOnly))
	if cert.NotAfter.Sub(now) < least {
		report(doctor.Failed(checkCertificate, fmt.Sprintf("install the next certificate (signing.keys.%s), or lower signing.profiles.%s.min_validity: until then the profile's deals are held", name, profile),
			"%s, and profile %s asks for %d", text, profile, int(least/(24*time.Hour))))
	} else if days < fewDays && served != nil {
		report(doctor.Warned(checkCertificate, "order the next certificate now, and have it take over at its time (dealseal certs rollover)", "%s", text))
	} else {
		report(doctor.Passed(checkCertificate, "%s", text))
	}
	if err := verify.CheckSigner(key.Chain(), x.roots, now); err != nil {
		report(failed(checkTrusted, err, untrustedCure))
	} else {
		report(doctor.Passed(checkTrusted, "leads to a root of signing.trust, and is for signing documents"))
	}
	return true
}

// examineConfigured compares the certificate that a file names with the one that is used, which the registry decides.
func (x *examiner) examineConfigured(name string, key signing.Key, report func(doctor.Finding)) {
	file := x.cfg.Signing.Keys[name].Certificates
	if file == "" {
		return
	}
	named, err := readCertificates(relativeTo(x.cfg.File, file))
	if err != nil {
		report(doctor.Warned(checkRegistry, fmt.Sprintf("correct signing.keys.%s.certificates: it counts again when the registry is lost", name), "%v", err))
		return
	}
	if used := key.Chain()[0]; !named[0].Equal(used) {
		report(doctor.Warned(checkRegistry,
			fmt.Sprintf("if the file's is the next one, import and activate it (dealseal certs import %s --key %s); else put the chain of the active one into the file, so that a registry that is lost begins with it", file, x.firstOf(name)),
			"signing.keys.%s.certificates has %s (%q), and the registry has %s (%q) as the active one, which is used", name, short(thumbprint(named[0])), named[0].Subject.CommonName, short(thumbprint(used)), used.Subject.CommonName))
	}
}

// firstOf is the key that a key stands in for, or itself.
func (x *examiner) firstOf(name string) string {
	for first, k := range x.cfg.Signing.Keys {
		if slices.Contains(k.FallBack, name) {
			return first
		}
	}
	return name
}

// examineStandIn compares a key that stands in for another with that one's certificate.
func (x *examiner) examineStandIn(name string, key signing.Key, report func(doctor.Finding)) {
	groups, err := x.keyGroups()
	if err != nil {
		report(failed(checkStandIn, err, "name a PEM file with the key's certificate first"))
		return
	}
	for first, g := range groups {
		if len(g.Members) < 2 || !slices.Contains(g.Members, name) {
			continue
		}
		if err := g.Admits(name, key); err != nil {
			report(failed(checkStandIn, err, fmt.Sprintf("put the same key pair on both tokens, or take %q out of signing.keys.%s.fall_back", name, first)))
		} else if name != first {
			report(doctor.Passed(checkStandIn, "the key pair of %q: it can stand in", first))
		}
	}
}

// minValidity is what the strictest of the profiles that use one of the keys asks for; 0 if none uses any.
func (x *examiner) minValidity(keys []string, cert *x509.Certificate) (least time.Duration, profile string) {
	for _, name := range slices.Sorted(maps.Keys(x.cfg.Signing.Profiles)) {
		if p, err := x.profile(name); err == nil && slices.Contains(keys, p.Key) && p.MinValidityOf(cert) > least {
			least, profile = p.MinValidityOf(cert), name
		}
	}
	return least, profile
}

func (x *examiner) examineSignatures(ctx context.Context, name string, served []string, key signing.Key, report func(doctor.Finding)) {
	algorithms, err := x.algorithms(served, key)
	if err != nil {
		report(failed(checkSignature, err, "choose another hash or key in signing.profiles"))
		return
	}
	var made []string
	for _, a := range algorithms {
		began := time.Now()
		if err := signing.Try(ctx, name, key, a); err != nil {
			report(failed(checkSignature, err, "see the HSM's own log; nothing can be sealed with this key until it signs"))
			return
		}
		made = append(made, fmt.Sprintf("%s in %d ms", a, time.Since(began).Milliseconds()))
	}
	report(doctor.Passed(checkSignature, "a test was signed and verified: %s", strings.Join(made, ", ")))
}

// algorithms are those of the profiles that use a key by one of its names; for a key that none uses, the usual one.
func (h *house) algorithms(names []string, key signing.Key) (list []pades.Algorithm, err error) {
	for _, profile := range slices.Sorted(maps.Keys(h.cfg.Signing.Profiles)) {
		p := h.cfg.Signing.Profiles[profile]
		if !slices.Contains(names, p.Key) {
			continue
		}
		a, err := pades.AlgorithmFor(key.Public(), hashes[p.Hash], p.PSS)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	if list == nil {
		a, err := pades.AlgorithmFor(key.Public(), crypto.SHA256, false)
		return []pades.Algorithm{a}, err
	}
	return list, nil
}

// lasting names a profile of B-LT or B-LTA that names one of the keys, or any if none is given; empty if none does.
func (x *examiner) lasting(keys ...string) (profile string) {
	for _, name := range slices.Sorted(maps.Keys(x.cfg.Signing.Profiles)) {
		if p := x.cfg.Signing.Profiles[name]; pades.Level(p.Level).AtLeast(pades.BLT) && (len(keys) == 0 || slices.Contains(keys, p.Key)) {
			return name
		}
	}
	return ""
}

// collect gets the evidence that a profile puts into its documents, about one certificate and all above it.
func (x *examiner) collect(ctx context.Context, profile string, s revocation.Subject) doctor.Finding {
	s.At, s.New = time.Now(), true
	m, err := revocation.NewClient(revocation.Options{HTTP: x.http}).Collect(ctx, revocation.Anchors{Roots: x.roots}, []revocation.Subject{s})
	var revoked *revocation.RevokedError
	switch {
	case errors.As(err, &revoked):
		return doctor.Failed(checkOCSP, "take it out of use, and have another certificate issued", "%v", err)
	case err != nil:
		return doctor.Failed(checkEvidence, fmt.Sprintf("see that this machine may reach the responders and lists that the certificates name: profile %s puts their answers into its documents", profile), "%v", err)
	}
	return doctor.Passed(checkOCSP, "not revoked: %d OCSP responses and %d revocation lists about %d certificates", len(m.OCSPs), len(m.CRLs), len(m.Certs))
}

// askResponder asks whether the certificate is revoked. The key's seals carry no such evidence, so that whoever does not
// answer keeps nothing from being sealed; a certificate that is revoked does.
func (x *examiner) askResponder(ctx context.Context, chain []*x509.Certificate) doctor.Finding {
	const notNeeded = "no profile of this key puts it into documents"
	cert := chain[0]
	issuer := x.issuerOf(chain)
	if len(cert.OCSPServer) == 0 || issuer == nil {
		return doctor.Warned(checkOCSP, "watch the issuer's revocation list by other means: "+notNeeded, "the certificate names no OCSP responder, or its issuer is not known")
	}
	e, err := revocation.NewClient(revocation.Options{HTTP: x.http}).AskResponders(ctx, cert, issuer)
	var source *revocation.SourceError
	switch {
	case errors.As(err, &source):
		return doctor.Warned(checkOCSP, "see that this machine may reach the responder; "+notNeeded, "%s: %v", hostOf(source.Source), source.Err)
	case err != nil:
		return doctor.Warned(checkOCSP, "watch the issuer's revocation list by other means: "+notNeeded, "%v", err)
	case e.Revoked:
		return doctor.Failed(checkOCSP, "stop sealing with this key, and have another certificate issued", "%s: revoked at %s", hostOf(e.Source), e.RevokedAt.UTC().Format(time.RFC3339))
	}
	return doctor.Passed(checkOCSP, "%s: not revoked", hostOf(e.Source))
}

// issuerOf looks behind the certificate, then among the roots.
func (h *house) issuerOf(chain []*x509.Certificate) *x509.Certificate {
	for _, c := range slices.Concat(chain[1:], h.roots) {
		if chain[0].CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}

// hostOf names a server without what its address may hold besides.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "the address"
	}
	return u.Host
}

// anyClock lets a token's time be judged here, with a finding of its own.
const anyClock = 100 * 365 * 24 * time.Hour

func (x *examiner) examineTSA(i int) doctor.Examination {
	server := x.cfg.Signing.TSA[i]
	name := hostOf(server.URL)
	return examination(doctor.Signing, checkTSA, name, max(stampLimit, server.Timeout+time.Second), func(ctx context.Context, all func(doctor.Finding)) {
		report := func(f doctor.Finding) { all(f.On(name)) }
		policy, err := parseOID(server.Policy)
		if err != nil {
			report(failed(checkTSA, err, fmt.Sprintf("correct signing.tsa[%d].policy", i)))
			return
		}
		if len(server.Pins) > 0 {
			report(examinePins(ctx, server.URL, server.Pins, nil))
		}
		counter, left := x.examineQuota(ctx, i, report)
		if !left {
			return
		}
		client, err := tsa.NewClient([]tsa.Server{{URL: server.URL, Timeout: server.Timeout, Policy: policy, Quota: server.Quota}},
			tsa.Options{HTTP: &http.Client{Transport: x.stampTransport()}, Roots: pool(x.roots), Skew: anyClock, Counter: counter})
		if err != nil {
			report(failed(checkTSA, err, fmt.Sprintf("correct signing.tsa[%d].url", i)))
			return
		}
		digest := make([]byte, crypto.SHA256.Size())
		rand.Read(digest)
		before := time.Now()
		der, err := client.Timestamp(ctx, digest, crypto.SHA256)
		after := time.Now()
		if err != nil {
			report(x.refusedStamp(i, err))
			return
		}
		token, err := tsa.ParseToken(der)
		if err != nil {
			report(failed(checkTSA, err, "use another TSA"))
			return
		}
		report(doctor.Passed(checkTSA, "a token of policy %s in %d ms, signed by %q", token.Policy, after.Sub(before).Milliseconds(), token.Certificate.Subject.CommonName))
		at, tolerance := token.Time, token.Accuracy
		if at.Nanosecond() == 0 { // most TSAs cut to the second
			at, tolerance = at.Add(500*time.Millisecond), tolerance+500*time.Millisecond
		}
		report(clockFinding("the TSA's clock", at, before, after, tolerance))
		if profile := x.lasting(); profile != "" {
			report(x.collect(ctx, profile, revocation.Subject{Cert: token.Certificate, With: token.Certificates(), Usage: "the TSA"}))
		}
	})
}

// stampCounter is what the store knows of requests to time-stamp servers.
type stampCounter interface {
	tsa.Counter
	Stamps(ctx context.Context, day string) (map[string]int64, error)
}

// stampsOf counts for a server by the name that the daemon has for it.
type stampsOf struct {
	stampCounter
	server string
}

func (s stampsOf) CountStamp(ctx context.Context, _, day string, limit int) (bool, error) {
	return s.stampCounter.CountStamp(ctx, s.server, day, limit)
}

// nearQuota is the share of a quota that leaves too little.
const nearQuota = 0.9

// examineQuota reports how much of its quota a time-stamp server has left, if it has one, and whether it may be asked. The
// examination itself takes one request of it.
func (x *examiner) examineQuota(ctx context.Context, i int, report func(doctor.Finding)) (counter tsa.Counter, left bool) {
	quota := x.cfg.Signing.TSA[i].Quota
	if quota == 0 {
		return nil, true
	}
	cure := fmt.Sprintf("name another server in signing.tsa, or raise signing.tsa[%d].quota if its operator allows", i)
	all, err := x.newStampClient(nil, x.log)
	if err != nil {
		report(failed(checkQuota, err, "correct signing.tsa"))
		return nil, false
	}
	store, err := x.stamps()
	if err != nil {
		report(failed(checkQuota, err, cure))
		return nil, true // a command: what it is sent here is one request
	}
	server := all.Health()[i].Server
	sent, err := store.Stamps(ctx, time.Now().UTC().Format(time.DateOnly))
	n := sent[server]
	switch {
	case err != nil:
		report(failed(checkQuota, err, cure))
	case n >= int64(quota):
		report(doctor.Failed(checkQuota, cure, "all %d requests of this day are used up: it is not asked before 00:00 UTC", quota))
		return nil, false
	case float64(n) >= nearQuota*float64(quota):
		report(doctor.Warned(checkQuota, cure, "%d of the %d requests of this day (UTC) are used", n, quota))
	default:
		report(doctor.Passed(checkQuota, "%d of the %d requests of this day (UTC) are used", n, quota))
	}
	return stampsOf{store, server}, true
}

func pool(roots []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range roots {
		p.AddCert(c)
	}
	return p
}

// refusedStamp says what is wrong with an answer, without naming the server again.
func (x *examiner) refusedStamp(i int, err error) doctor.Finding {
	var server *tsa.ServerError
	if errors.As(err, &server) {
		err = server.Err
	}
	cure := fmt.Sprintf("see that this machine may reach signing.tsa[%d].url, and that it is a TSA of RFC 3161", i)
	if i+1 < len(x.cfg.Signing.TSA) || i > 0 {
		cure += "; until then the others are used"
	}
	var bad *tsa.TokenError
	var refusal *tsa.Rejection
	switch {
	case errors.As(err, &bad) && bad.Code == tsa.CodeChain:
		cure = "name the root of the TSA under signing.trust: its operator publishes it"
	case errors.As(err, &bad) && bad.Code == tsa.CodePolicy:
		cure = fmt.Sprintf("correct signing.tsa[%d].policy, or leave it out", i)
	case errors.As(err, &bad):
		cure = "tell the operator of the TSA, or use another one"
	case errors.As(err, &refusal):
		cure = fmt.Sprintf("ask the operator of the TSA, and check signing.tsa[%d].policy", i)
	}
	return failed(checkTSA, err, cure)
}
