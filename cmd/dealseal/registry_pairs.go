package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
)

// Profiles name a key, and the registry says which certificate that is. Nearly always the certificate is for the key pair that
// the configuration has under the same name. After a rollover to another key pair it is for that of another key of the
// configuration: the name in the profiles, in what was staged, and in the audit log stays, and the certificate says which key
// pair it takes. So a deal in flight ends with the key that its document names, and new ones begin with the other.

// signer is the key of the configuration that has the key pair of an entry.
func (r *registry) signer(e entry) (string, error) {
	pair := e.Signer()
	if err := r.mayPair(e.Key, pair); err != nil {
		return "", &signing.KeyError{Key: e.Key, Reason: fmt.Sprintf("its certificate %s (%q) is for the key pair of %q: %v", short(e.SHA256), e.chain[0].Subject, pair, err)}
	}
	return pair, nil
}

// mayPair refuses the key pair of another key for what a key is used for.
func (r *registry) mayPair(key, pair string) error {
	if key == pair {
		return nil
	}
	c, configured := r.house.cfg.Signing.Keys[pair]
	switch {
	case !configured:
		return fmt.Errorf("signing.keys has no key %q: configure it there, then restart", pair)
	case r.group(pair) != pair:
		return fmt.Errorf("key %q stands in for %q: say --pair %s", pair, r.group(pair), r.group(pair))
	case c.Kind == "soft" && r.house.cfg.Signing.Keys[key].Kind != "soft":
		return fmt.Errorf("key %q is a soft one, which is for evaluation: it follows none that is in an HSM", pair)
	}
	return nil
}

// The parts that a key can have, the most important first.
const (
	partActive = iota // it makes new seals
	partBeside        // it makes second seals
	partNext          // it is to follow another key
	partPast          // another key follows it: it finishes what was staged with it
	noPart
)

// partOf says which part the key of an entry has by it.
func (r *registry) partOf(e entry) int {
	all := certificatesOf(r.entries())
	active, _ := deal.ActiveCertificate(all, e.Key, r.now())
	beside, _ := deal.BesideCertificate(all, e.Key, r.now())
	switch {
	case active.SHA256 == e.SHA256:
		return partActive
	case beside.SHA256 == e.SHA256:
		return partBeside
	case e.State == deal.CertNext && e.Pair != "":
		return partNext
	case e.State == deal.CertRetiring && active.SHA256 != "" && active.Signer() != e.Signer():
		return partPast
	}
	return noPart
}

// part is the entry by which a key has the most important part. What it has under a name that no profile knows comes last: its
// own, as a rule, where it follows another key.
func (r *registry) part(key string) (best entry, found bool) {
	least := 2 * noPart
	for _, e := range r.entries() {
		p := r.partOf(e)
		if e.Signer() != key || p == noPart {
			continue
		}
		if !r.named(e.Key) {
			p += noPart
		}
		if p < least || p == least && e.Key == key {
			best, least, found = e, p, true
		}
	}
	return best, found
}

// named reports whether a profile names a key.
func (r *registry) named(key string) bool {
	for _, p := range r.house.cfg.Signing.Profiles {
		if p.Key == key {
			return true
		}
	}
	return false
}

// from is when the certificate of a key has to be good: now, unless it is to follow another one and begins later.
func (r *registry) from(key string) time.Time {
	now := r.now()
	if e, found := r.part(key); found && r.partOf(e) == partNext && e.From.After(now) {
		return e.From
	}
	return now
}

// signers are the keys that a name stands for: the one that makes new seals, then those that make second ones or are to follow.
func (r *registry) signers(name string) (first string, others []string) {
	first = name
	if active, found := r.active(name); found {
		first = active.Signer()
	}
	for _, e := range r.entries() {
		if p := r.partOf(e); e.Key == name && e.Signer() != first && (p == partBeside || p == partNext) {
			others = append(others, e.Signer())
		}
	}
	slices.Sort(others)
	return first, slices.Compact(others)
}

// serves are the names in profiles that a key has a part for, its own first.
func (r *registry) serves(key string) (names []string) {
	names = []string{key}
	for _, e := range r.entries() {
		if e.Signer() == key && !slices.Contains(names, e.Key) && r.partOf(e) < noPart {
			names = append(names, e.Key)
		}
	}
	return names
}

// followedBy is the key whose key pair has followed that of a key, which has nothing to do any more but to finish what was
// staged with it; empty: none.
func (r *registry) followedBy(key string) string {
	if e, found := r.part(key); found && r.partOf(e) != partPast {
		return ""
	}
	if active, found := r.active(key); found && active.Signer() != key {
		return active.Signer()
	}
	return ""
}

// awaitsCertificate reports whether a key that no profile names is there and nobody knows a certificate of it, as while a CA
// thinks about the one by which it is to follow another key.
func (r *registry) awaitsCertificate(ctx context.Context, key string) bool {
	if _, known := r.newestOf(key); known || r.group(key) != key || r.named(key) || r.house.cfg.Signing.Keys[key].Certificates != "" {
		return false
	}
	_, err := r.each.Bare(ctx, key)
	return err == nil
}

// HasSealed implements signing.Registry.
func (r *registry) HasSealed(name, spki string) bool {
	return slices.ContainsFunc(r.entries(), func(e entry) bool {
		return e.Key == name && e.SPKI == spki && (e.State == deal.CertActive || e.State == deal.CertRetiring)
	})
}

// limits are those of the key that a certificate with this public key is for, under the name that profiles have; of is its
// own name.
func (r *registry) limits(name, spki string) (of string, limits deal.KeyLimits) {
	of = name
	for _, e := range r.entries() {
		if e.Key == name && e.SPKI == spki {
			of = e.Signer()
			break
		}
	}
	k := r.house.cfg.Signing.Keys[of]
	return of, deal.KeyLimits{Total: k.MaxUses, Day: k.MaxUsesPerDay}
}
