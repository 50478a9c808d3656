package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/store"
)

// keySource gives keys with the certificates that the configuration has for them (Open), and without any (Bare).
type keySource interface {
	signing.Keys
	Bare(ctx context.Context, name string) (signing.Key, error)
}

// registry decides with which certificate each key seals: with the one that is active in the registry of certificates.
// What the configuration names counts only for a key of which the registry has no active one, and a certificate that it
// names for the first time is entered as active. It implements signing.Keys and signing.Registry, and is safe for
// concurrent use.
type registry struct {
	keys   keySource                // the keys that stand in for each other, by the first of them
	each   keySource                // each key alone
	groups map[string]signing.Group // which stand in for which
	house  *house                   // what the profiles and keys are
	dual   map[string]bool          // keys of profiles that have dual_seal
	roots  []*x509.Certificate
	now    func() time.Time
	log    *slog.Logger
	// store is where changes go; nil for whoever only looks.
	store *store.Store
	// issuers say whether certificates are revoked.
	issuers *revocation.Client
	// changed holds a value when the registry was changed since somebody looked when the next certificate is due.
	changed chan struct{}
	// activated holds a value when a certificate became active that nobody was told of yet.
	activated chan struct{}
	// came holds a value when a certificate became active at its time, and its issuer was not asked since.
	came chan struct{}

	changing sync.Mutex // one change at a time, and its reading back
	known    atomic.Pointer[[]entry]
}

var _ signing.Registry = (*registry)(nil)

// entry is a certificate of the registry, parsed.
type entry struct {
	deal.Certificate
	chain []*x509.Certificate
}

// newRegistry reads the registry of a store.
func (h *house) newRegistry(ctx context.Context, each *keyring, keys keySource, s *store.Store, log *slog.Logger) (*registry, error) {
	r := &registry{keys: keys, each: each, groups: each.groups, house: h, dual: h.dualKeys(), roots: h.roots, now: time.Now, log: log, store: s, activated: make(chan struct{}, 1), changed: make(chan struct{}, 1), came: make(chan struct{}, 1),
		issuers: revocation.NewClient(revocation.Options{Log: log})}
	return r, r.refresh(ctx)
}

// lookAtRegistry is for whoever uses a registry that a daemon or nobody has open, and changes nothing.
func (h *house) lookAtRegistry(each *keyring, all []deal.Certificate, log *slog.Logger) (*registry, error) {
	r := &registry{keys: each.standIns(each, log), each: each, groups: each.groups, house: h, dual: h.dualKeys(), roots: h.roots, now: time.Now, log: log}
	return r, r.take(all)
}

// readRegistry is lookAtRegistry for a command: it asks the daemon, or reads the state directory as it lies there.
func (h *house) readRegistry(ctx context.Context, keys *keyring, log *slog.Logger) (*registry, error) {
	if info, err := os.Stat(h.cfg.StateDir); err == nil && !info.IsDir() {
		return h.lookAtRegistry(keys, nil, log) // no registry can be in a file, which is for the doctor to say
	}
	daemon, err := dialControl(ctx, h.cfg.StateDir)
	if err == nil {
		defer daemon.Close()
		all, err := daemon.Certificates(ctx)
		if err != nil {
			return nil, err
		}
		return h.lookAtRegistry(keys, all, log)
	}
	if !errors.Is(err, errNoDaemon) {
		return nil, err
	}
	all, err := store.CertificatesIn(ctx, h.cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("%w: which certificates may be used stands there; run the command as the daemon's user", err)
	}
	return h.lookAtRegistry(keys, all, log)
}

// refresh reads the registry anew.
func (r *registry) refresh(ctx context.Context) error {
	all, err := r.store.Certificates(ctx)
	if err != nil {
		return fmt.Errorf("the registry of certificates: %w", err)
	}
	return r.take(all)
}

func (r *registry) take(all []deal.Certificate) error {
	entries := make([]entry, 0, len(all))
	for _, c := range all {
		chain, err := parseChain(c.Chain)
		if err != nil {
			return fmt.Errorf("the registry of certificates: %s: %w", c.SHA256, err)
		}
		entries = append(entries, entry{c, chain})
	}
	r.known.Store(&entries)
	return nil
}

func parseChain(ders [][]byte) (chain []*x509.Certificate, err error) {
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of its chain: %w", i+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("it has no certificate")
	}
	return chain, nil
}

// entries is the registry as it was last read.
func (r *registry) entries() []entry { return *r.known.Load() }

func certificatesOf(all []entry) (out []deal.Certificate) {
	for _, e := range all {
		out = append(out, e.Certificate)
	}
	return out
}

// find returns an entry by key and thumbprint; an empty key stands for any.
func (r *registry) find(key, sha256 string) (entry, bool) {
	for _, e := range r.entries() {
		if (key == "" || e.Key == key) && e.SHA256 == sha256 {
			return e, true
		}
	}
	return entry{}, false
}

// active returns what a key makes new seals with.
func (r *registry) active(key string) (entry, bool) {
	c, found := deal.ActiveCertificate(certificatesOf(r.entries()), key, r.now())
	if !found {
		return entry{}, false
	}
	return r.find(key, c.SHA256)
}

// Open implements signing.Keys.
func (r *registry) Open(ctx context.Context, name string) (signing.Key, error) {
	if err := r.activateDue(ctx); err != nil {
		return nil, err
	}
	active, found := r.active(name)
	if !found {
		return r.configured(ctx, name, r.keys, name)
	}
	signer, err := r.signer(active)
	if err != nil {
		return nil, err
	}
	return r.bound(ctx, active, r.keys, signer)
}

// membersOf are the keys of a group, each alone, with what the group seals with.
type membersOf struct {
	*registry
	group string
}

// alone gives a key by itself, without those that stand in for it or that it stands in for.
func (r *registry) alone(name string) membersOf { return membersOf{r, r.group(name)} }

func (m membersOf) Open(ctx context.Context, name string) (signing.Key, error) {
	if err := m.activateDue(ctx); err != nil {
		return nil, err
	}
	part, found := m.part(m.group)
	if !found {
		return m.configured(ctx, m.group, m.each, name)
	}
	if _, err := m.signer(part); err != nil {
		return nil, err
	}
	return m.bound(ctx, part, m.each, name)
}

// group is the name under which the registry knows what a key seals with: its own, unless it only stands in for another.
func (r *registry) group(name string) string {
	for group, g := range r.groups {
		if group != name && slices.Contains(g.Members, name) {
			return group
		}
	}
	return name
}

// bound gives a key of a group with the certificate of an entry, which is for that key pair.
func (r *registry) bound(ctx context.Context, e entry, from keySource, member string) (signing.Key, error) {
	key, err := from.Bare(ctx, member)
	if err != nil {
		return nil, err
	}
	if own, ok := e.chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(key.Public()) {
		return nil, refused(&signing.KeyError{Key: member, Reason: fmt.Sprintf("its %s certificate %s (%q) is for another key than the one that is there now: the public keys differ; "+
			"put the key back, or configure the new one under a name of its own, import its certificate (dealseal certs import --key %s --pair NAME) and activate it", e.State, short(e.SHA256), e.chain[0].Subject, e.Key)})
	}
	return signing.WithChain(key, e.chain), nil
}

// configured returns a key with the certificate that the configuration has for it, if the registry does not know better,
// and enters that one.
func (r *registry) configured(ctx context.Context, name string, from keySource, member string) (signing.Key, error) {
	key, err := from.Open(ctx, member)
	if err != nil {
		return nil, r.explain(ctx, name, err, from, member)
	}
	chain := key.Chain()
	if own, found := r.find(name, thumbprint(chain[0])); found {
		if last, _ := r.newest(name); last.State != deal.CertActive { // else another key pair is asked for than has followed
			own = last
		}
		return nil, refusal(name, own)
	}
	if known, found := r.find("", thumbprint(chain[0])); found && known.State == deal.CertRevoked {
		return nil, refusal(name, known)
	}
	now := r.now()
	if r.store == nil || signing.CheckKey(name, key, now) != nil || verify.CheckSigner(chain, r.roots, now) != nil {
		return key, nil // whoever judges the key says what is wrong
	}
	return key, r.change(ctx, func() error {
		if _, found := r.find(name, thumbprint(chain[0])); found {
			return nil // by another goroutine
		}
		err := r.store.AddCertificate(ctx, describe(name, chain, deal.CertActive), "daemon", "the configuration names it, and the registry had no active one of this key")
		if err == nil {
			r.log.Info("the configured certificate was entered into the registry as active: from now on the registry says what this key seals with", "key", name, "certificate", thumbprint(chain[0]))
			r.tellActivated()
		}
		return err
	})
}

// explain says of a key that cannot be had with a configured certificate, and can be without, what the registry knows.
func (r *registry) explain(ctx context.Context, name string, err error, from keySource, member string) error {
	last, any := r.newest(name)
	if !any || !deal.IsPermanent(err) {
		return err
	}
	if _, bare := from.Bare(ctx, member); bare != nil {
		return err
	}
	return refusal(name, last)
}

// tellActivated has deals go on that waited for a certificate.
func (r *registry) tellActivated() { nudge(r.activated) }

// nudge leaves a value in a channel that holds one.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // nobody has looked since the last time
	}
}

// newest is the certificate of a key that was in use last, or a next one if none ever was.
func (r *registry) newest(key string) (newest entry, any bool) {
	return r.newestWhere(func(e entry) bool { return e.Key == key })
}

// newestOf is newest for a key pair, by the name that the configuration has for it.
func (r *registry) newestOf(signer string) (newest entry, any bool) {
	return r.newestWhere(func(e entry) bool { return e.Signer() == signer })
}

func (r *registry) newestWhere(is func(entry) bool) (newest entry, any bool) {
	rank := func(e entry) time.Time {
		if e.State == deal.CertNext {
			return time.Time{}
		}
		return e.Since
	}
	for _, e := range r.entries() {
		if is(e) && (!any || rank(e).After(rank(newest))) {
			newest, any = e, true
		}
	}
	return newest, any
}

// refusal says why a certificate that the registry knows seals nothing, and what to do.
func refusal(key string, c entry) error {
	e := &signing.KeyError{Key: key}
	switch c.State {
	case deal.CertRevoked:
		e.Revoked = true
		e.Reason = fmt.Sprintf("its certificate %s (%q) was revoked (%s): have another one issued, import it (dealseal certs import) and activate it (dealseal certs activate); its deals go on then",
			short(c.SHA256), c.chain[0].Subject, c.Detail)
	case deal.CertNext:
		e.Reason = fmt.Sprintf("its certificate %s (%q) is in the registry and not active: dealseal certs activate %s", short(c.SHA256), c.chain[0].Subject, short(c.SHA256))
	default:
		e.Reason = fmt.Sprintf("its certificate %s (%q) was retired at %s, and no other one is active: dealseal certs activate one; \"dealseal certs list\" shows those that there are",
			short(c.SHA256), c.chain[0].Subject, c.Since.Format(time.RFC3339))
	}
	return refused(e)
}

// registryError is a KeyError for what people or issuers decide while the daemon runs: no reason not to start, because it
// may be mended only then.
type registryError struct{ *signing.KeyError }

func (e *registryError) Unwrap() error { return e.KeyError }

func refused(e *signing.KeyError) error { return &registryError{e} }

// OpenFor implements signing.Registry.
func (r *registry) OpenFor(ctx context.Context, name string, chain []*x509.Certificate) (signing.Key, error) {
	if err := r.MayFinish(name, chain[0]); err != nil {
		return nil, err
	}
	signer := name
	if known, found := r.knownFor(name, chain[0]); found {
		var err error
		if signer, err = r.signer(known); err != nil {
			return nil, err
		}
	}
	key, err := r.keys.Bare(ctx, signer)
	if err != nil {
		return nil, err
	}
	return signing.WithChain(key, chain), nil
}

// knownFor is the entry of a certificate that something was staged with under a key's name, which may be known under another
// name only, as when the profiles name the new key by now.
func (r *registry) knownFor(name string, cert *x509.Certificate) (entry, bool) {
	if known, found := r.find(name, thumbprint(cert)); found {
		return known, true
	}
	return r.find("", thumbprint(cert))
}

// MayFinish implements signing.Registry. A certificate that the registry does not know, as after a restore, may.
func (r *registry) MayFinish(name string, cert *x509.Certificate) error {
	known, found := r.find("", thumbprint(cert))
	if !found || known.State != deal.CertRevoked {
		return nil
	}
	return &signing.KeyError{Key: name, Revoked: true, Reason: fmt.Sprintf(
		"the seal was staged with the certificate %s (%q), which was revoked since (%s): nothing is sealed with it any more; once the key has another active certificate, "+
			"have the document made anew (dealseal jobs prepare), or drop the deal if its signature exists", short(known.SHA256), cert.Subject, known.Detail)}
}

// Beside implements signing.Registry.
func (r *registry) Beside(name string) []*x509.Certificate {
	c, found := deal.BesideCertificate(certificatesOf(r.entries()), name, r.now())
	if !found {
		return nil
	}
	e, _ := r.find(name, c.SHA256)
	return e.chain
}

// dualKeys are the keys of the profiles that ask for a second seal during a rollover.
func (h *house) dualKeys() map[string]bool {
	dual := map[string]bool{}
	for _, p := range h.cfg.Signing.Profiles {
		dual[p.Key] = dual[p.Key] || p.DualSeal
	}
	return dual
}

// Close implements signing.Keys.
func (r *registry) Close() error { return r.keys.Close() }

// change makes a change of the store and reads the registry back, whatever came of it.
func (r *registry) change(ctx context.Context, do func() error) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	err := errors.Join(do(), r.refresh(ctx))
	nudge(r.changed)
	return err
}

// activateDue writes down that certificates have become active whose time has come. Until it is written, Open uses none.
func (r *registry) activateDue(ctx context.Context) error {
	if r.store == nil || !r.due() {
		return nil
	}
	return r.change(ctx, func() error {
		n, err := r.store.ActivateDue(ctx)
		if n > 0 {
			r.log.Info("certificates became active at their time", "certificates", n)
			r.tellActivated()
			nudge(r.came)
		}
		return err
	})
}

// untilNext is how long it takes until a certificate is to become active, or until it is time for a look anyway.
func (r *registry) untilNext() time.Duration {
	wait := everyLook
	for _, e := range r.entries() {
		if left := e.ActivateAt.Sub(r.now()); e.State == deal.CertNext && !e.ActivateAt.IsZero() {
			wait = min(wait, left)
		}
	}
	return max(wait, leastLook)
}

func (r *registry) due() bool {
	for _, e := range r.entries() {
		if e.Due(r.now()) {
			return true
		}
	}
	return false
}

// describe makes an entry for the registry of a chain.
func describe(key string, chain []*x509.Certificate, state deal.CertState) deal.Certificate {
	c := chain[0]
	spki := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	out := deal.Certificate{SHA256: thumbprint(c), Key: key, SPKI: hex.EncodeToString(spki[:]), Serial: c.SerialNumber.Text(16), Subject: c.Subject.String(), Issuer: c.Issuer.String(),
		Purpose: deal.PurposeSeal, From: c.NotBefore.UTC(), Until: c.NotAfter.UTC(), State: state}
	for _, one := range chain {
		out.Chain = append(out.Chain, one.Raw)
	}
	return out
}

func thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// short is as much of a thumbprint as tells certificates apart.
func short(sha256 string) string { return sha256[:min(len(sha256), 16)] }
