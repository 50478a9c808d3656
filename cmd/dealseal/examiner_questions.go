package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/webhooks"
)

// The answers.
const (
	yes    = "yes"
	no     = "no"
	notYet = "not yet"
)

// questions answers what anybody should be able to answer before a house seals for real. An answer is no better than what
// was found, and what this version cannot do is said.
func (x *examiner) questions(found []doctor.Finding) []doctor.Answer {
	return []doctor.Answer{
		x.keysAreProtected(found),
		x.webhooksAreProven(),
		x.revocationIsKept(found),
		x.resultsAreAttached(found),
		certificatesAreRenewed(found),
	}
}

func (x *examiner) keysAreProtected(found []doctor.Finding) doctor.Answer {
	a := doctor.Answer{Question: "Are the signing keys protected?"}
	var soft, hard, distant []string
	for _, name := range slices.Sorted(maps.Keys(x.cfg.Signing.Keys)) {
		switch x.cfg.Signing.Keys[name].Kind {
		case "soft":
			soft = append(soft, name)
		case "pkcs11":
			hard = append(hard, name)
		default:
			distant = append(distant, name)
		}
	}
	broken := subjects(found, checkOpened, checkSignature)
	switch {
	case len(soft)+len(hard)+len(distant) == 0:
		a.Answer, a.Reason = no, "no key is configured"
	case len(soft) > 0:
		a.Answer, a.Reason = no, fmt.Sprintf("%s is kept in an encrypted file, which is for evaluation: production needs a key in an HSM", quotedList(soft))
	case len(broken) > 0:
		a.Answer, a.Reason = no, fmt.Sprintf("%s could not be opened or used: see above", quotedList(broken))
	default:
		var reasons []string
		if len(hard) > 0 {
			reasons = append(reasons, fmt.Sprintf("%s never leaves its HSM; a process of its own, which alone knows the PIN, asks it to sign", quotedList(hard)))
		}
		if len(distant) > 0 {
			reasons = append(reasons, fmt.Sprintf("%s is kept by a key service, which is given digests and returns signatures; whether it is in an HSM there is the service's to say", quotedList(distant)))
		}
		a.Answer, a.Reason = yes, strings.Join(reasons, "; ")
	}
	return a
}

// webhooksAreProven goes by the files: endpoints that were added by command are signed as their dialects say.
func (x *examiner) webhooksAreProven() doctor.Answer {
	a := doctor.Answer{Question: "Are webhooks signed, time-stamped and protected against replay?", Answer: yes,
		Reason: "what is taken is verified, refused more than 5 minutes from our time, and taken once; what is sent is signed anew, with its time, for each attempt"}
	var weak []string
	for _, t := range x.tenants {
		for _, s := range t.senders {
			name := fmt.Sprintf("%q of tenant %q", s.Source, s.Tenant)
			switch {
			case len(s.Dialects) == 0:
				weak = append(weak, name+" bears no signature, only an address or a certificate")
			case slices.ContainsFunc(s.Dialects, func(d *webhooks.Dialect) bool { return !d.Timed() }):
				weak = append(weak, name+" may come with a signature that proves no time, and is known when it comes again only for seven days")
			}
		}
		for _, w := range t.file.Webhooks {
			if w.Dialect == "sdf" || w.Dialect == "custom" && !strings.Contains(w.Signed, "{timestamp") {
				weak = append(weak, fmt.Sprintf("the deliveries to %q of tenant %q prove no time: their dialect signs the body alone", w.ID, t.file.Tenant.ID))
			}
		}
	}
	if len(weak) > 0 {
		a.Answer, a.Reason = no, strings.Join(weak, "; ")
	}
	return a
}

// revocationIsKept says "asked" only of keys whose responder has answered.
func (x *examiner) revocationIsKept(found []doctor.Finding) doctor.Answer {
	a := doctor.Answer{Question: "Is revocation checked, and is the proof stored with the document?", Answer: notYet}
	var without []string
	for _, name := range slices.Sorted(maps.Keys(x.cfg.Signing.Profiles)) {
		if !pades.Level(x.cfg.Signing.Profiles[name].Level).AtLeast(pades.BLT) {
			without = append(without, name)
		}
	}
	noProof := "every profile puts the answers into its documents"
	if len(without) > 0 {
		noProof = fmt.Sprintf("the documents of profile %s carry no answer: that takes level B-LT or B-LTA", quotedList(without))
	}
	var revoked, silent []string
	for _, name := range slices.Sorted(maps.Keys(x.cfg.Signing.Keys)) {
		about := func(result doctor.Result) bool {
			return slices.ContainsFunc(found, func(f doctor.Finding) bool {
				return f.Group == doctor.Signing && f.Check == checkOCSP && f.Subject == name && f.Result == result
			})
		}
		switch {
		case about(doctor.Failure):
			revoked = append(revoked, name)
		case !about(doctor.Pass):
			silent = append(silent, name)
		}
	}
	switch {
	case len(revoked) > 0:
		a.Answer, a.Reason = no, fmt.Sprintf("the certificate of %s is revoked", quotedList(revoked))
	case len(x.cfg.Signing.Keys) == 0:
		a.Reason = "no key is configured, and " + noProof
	case len(silent) > 0:
		a.Reason = fmt.Sprintf("whether the certificate of %s is revoked could not be asked just now, and %s", quotedList(silent), noProof)
	case len(without) == 0:
		a.Answer, a.Reason = yes, "the responder was asked just now and daily, and "+noProof
	default:
		a.Reason = "the responder was asked just now and daily, but " + noProof
	}
	return a
}

// proven are the checks that each tenant must have passed before its results can be said to arrive.
var proven = [...]string{checkLogin, checkEnvironment, string(connectors.AspectWrite), string(connectors.AspectAccess), string(connectors.AspectFiles)}

// provenFor reports whether a tenant has passed each of them and has no trouble with any.
func provenFor(tenant string, found []doctor.Finding) bool {
	for _, check := range proven {
		passed, troubled := false, false
		for _, f := range found {
			if f.Tenant == tenant && f.Check == check {
				passed, troubled = passed || f.Result == doctor.Pass, troubled || f.Result != doctor.Pass
			}
		}
		if !passed || troubled {
			return false
		}
	}
	return true
}

// resultsAreAttached is about all tenants: each must be able to take files and receipts, and keep the audit record. What was not asked is
// not proven.
func (x *examiner) resultsAreAttached(found []doctor.Finding) doctor.Answer {
	a := doctor.Answer{Question: "Is the sealed document attached reliably, and are the audit data written back?"}
	var bad, silent []string
	for _, t := range x.tenants {
		id := t.file.Tenant.ID
		if !provenFor(id, found) {
			bad = append(bad, id)
		}
		for _, r := range t.rules {
			if r.Plan.WriteBack.Audit == "" && !slices.Contains(silent, id) {
				silent = append(silent, id)
			}
		}
	}
	switch {
	case len(x.tenants) == 0:
		a.Answer, a.Reason = no, "no tenant is configured"
	case len(bad) > 0:
		a.Answer, a.Reason = no, fmt.Sprintf("tenant %s has not passed all of %s: see above", quotedList(bad), strings.Join(proven[:], ", "))
	case len(silent) > 0:
		a.Answer, a.Reason = no, fmt.Sprintf("tenant %s names no field write_back.audit in every rule", quotedList(silent))
	default:
		a.Answer, a.Reason = yes, "every upload is looked for before it is repeated and compared by checksum afterwards; the fields for the audit record take what will be written"
	}
	return a
}

func certificatesAreRenewed(found []doctor.Finding) doctor.Answer {
	a := doctor.Answer{Question: "Are certificates renewed and keys rotated by a plan?", Answer: notYet,
		Reason: fmt.Sprintf("the days left are watched (this report, the status page, a metric; a warning from %d days on), and the next certificate takes over at its time (dealseal certs rollover), but a person has to order it", fewDays)}
	if bad := subjects(found, checkCertificate); len(bad) > 0 {
		a.Answer, a.Reason = no, fmt.Sprintf("the certificate of %s needs somebody now: see above", quotedList(bad))
	}
	return a
}

// subjects are those of which a check of the group signing has found trouble.
func subjects(found []doctor.Finding, checks ...string) (list []string) {
	for _, f := range found {
		if f.Group == doctor.Signing && f.Result != doctor.Pass && slices.Contains(checks, f.Check) && !slices.Contains(list, f.Subject) {
			list = append(list, f.Subject)
		}
	}
	return list
}

func quotedList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(quoted, ", ")
}
