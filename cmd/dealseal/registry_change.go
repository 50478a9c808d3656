package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/verify"
)

// certChange is what a person has decided about a certificate.
type certChange struct {
	Verb   string    `json:"verb"` // import, activate, retire or revoke
	Key    string    `json:"key"`
	Pair   string    `json:"pair,omitempty"`  // of an import: the key whose key pair it is for; empty: Key's own
	SHA256 string    `json:"sha256"`          // not of an import
	Chain  [][]byte  `json:"chain,omitempty"` // of an import: DER, in any order
	At     time.Time `json:"at,omitzero"`     // of an activation; zero: now
	// Until is how long documents get a second seal after an activation, with the certificate that it follows; zero: they get none.
	Until time.Time `json:"until,omitzero"`
	Why   string    `json:"why"`
	// Who is filled in by whoever knows it for sure.
	Who string `json:"-"`
}

// certRequest asks for a certificate signing request.
type certRequest struct {
	Key     string `json:"key"`
	Pair    string `json:"pair,omitempty"` // the key that signs it; empty: Key
	Subject string `json:"subject"`        // RFC 4514; empty: that of the key's newest certificate
	Who     string `json:"-"`
}

// carryOut makes a change and returns the certificate as it is afterwards.
func (r *registry) carryOut(ctx context.Context, c certChange) (after deal.Certificate, err error) {
	if group := r.group(c.Key); group != c.Key {
		return after, fmt.Errorf("key %q stands in for %q and seals with that one's certificate: say --key %s", c.Key, group, group)
	}
	if c.Verb == "import" {
		return r.imported(ctx, c)
	}
	known, found := r.find(c.Key, c.SHA256)
	if !found {
		return after, fmt.Errorf("the registry has no certificate %s of key %q: \"dealseal certs list\" shows those that there are", c.SHA256, c.Key)
	}
	switch c.Verb {
	case "activate":
		err = r.activate(ctx, known, c)
	case "retire":
		err = r.change(ctx, func() error { return r.store.RetireCertificate(ctx, c.Key, c.SHA256, c.Who, c.Why) })
	case "revoke":
		_, err = r.revoke(ctx, c.SHA256, c.Who, c.Why)
	default:
		err = fmt.Errorf("%q is nothing that can be decided about a certificate", c.Verb)
	}
	known, _ = r.find(c.Key, c.SHA256)
	return known.Certificate, err
}

// imported enters a certificate as a next one, after making sure that it could be activated.
func (r *registry) imported(ctx context.Context, c certChange) (deal.Certificate, error) {
	pair := cmp.Or(c.Pair, c.Key)
	if err := r.mayPair(c.Key, pair); err != nil {
		return deal.Certificate{}, err
	}
	key, err := r.keys.Bare(ctx, pair)
	if err != nil {
		return deal.Certificate{}, err
	}
	all, err := parseChain(c.Chain)
	if err != nil {
		return deal.Certificate{}, err
	}
	chain, err := orderChain(all, key.Public())
	if err != nil {
		return deal.Certificate{}, fmt.Errorf("key %q: %w", pair, err)
	}
	now := r.now()
	at := now
	if chain[0].NotBefore.After(at) {
		at = chain[0].NotBefore
	}
	if err := r.judge(c.Key, key, chain, at); err != nil {
		return deal.Certificate{}, err
	}
	next := entry{describe(c.Key, chain, deal.CertNext), chain}
	if pair != c.Key {
		next.Pair = pair
	}
	answer, detail := r.ask(ctx, next, at)
	if answer == deal.AnswerRevoked {
		return deal.Certificate{}, fmt.Errorf("certificate %s was revoked (%s): have another one issued", short(next.SHA256), detail)
	}
	err = r.change(ctx, func() error {
		return r.store.AddCertificate(ctx, next.Certificate, c.Who, cmp.Or(c.Why, "imported"))
	})
	if err == nil {
		err = r.note(ctx, next.SHA256, answer, detail)
	}
	known, _ := r.find(c.Key, next.SHA256)
	return known.Certificate, err
}

// judge refuses a certificate that could not seal at a time.
func (r *registry) judge(name string, key signing.Key, chain []*x509.Certificate, at time.Time) error {
	if err := signing.CheckKey(name, signing.WithChain(key, chain), at); err != nil {
		return err
	}
	if err := verify.CheckSigner(chain, r.roots, at); err != nil {
		return &signing.KeyError{Key: name, Reason: fmt.Sprintf("%v: %s", err, untrustedCure)}
	}
	return r.house.suits(name, chain)
}

// suits refuses a certificate that a profile of a key could not seal with: another key pair may be too weak for it.
func (h *house) suits(name string, chain []*x509.Certificate) error {
	for _, profile := range slices.Sorted(maps.Keys(h.cfg.Signing.Profiles)) {
		p, err := h.profile(profile)
		if err == nil && p.Key == name {
			err = p.Suits(chain)
		}
		if err != nil {
			return fmt.Errorf("profile %q cannot seal with it: %w", profile, err)
		}
	}
	return nil
}

// activate judges a certificate as of the time from which it is to seal.
func (r *registry) activate(ctx context.Context, known entry, c certChange) error {
	if known.State == deal.CertNext || known.State == deal.CertRetiring {
		at := r.now()
		if c.At.After(at) {
			at = c.At
		}
		if err := r.tried(ctx, known, at); err != nil {
			return err
		}
		if _, err := r.check(ctx, known); err != nil {
			return err // that it is revoked is found below
		}
	}
	if err := r.judgeTwoSeals(known, c); err != nil {
		return err
	}
	err := r.change(ctx, func() error {
		return r.store.ActivateCertificate(ctx, c.Key, c.SHA256, c.At, c.Until, c.Who, c.Why)
	})
	if err == nil && !c.At.After(r.now()) {
		r.tellActivated()
	}
	return err
}

// tried judges a certificate as of a time. Has its key pair never sealed under this name, it signs a test for each profile:
// a key that is there and does not sign must not follow one that does.
func (r *registry) tried(ctx context.Context, known entry, at time.Time) error {
	signer, err := r.signer(known)
	if err != nil {
		return err
	}
	key, err := r.keys.Bare(ctx, signer)
	if err != nil {
		return err
	}
	if err := r.judge(known.Key, key, known.chain, at); err != nil || known.Pair == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, keyLimit)
	defer cancel()
	algorithms, err := r.house.algorithms([]string{known.Key}, key)
	for _, a := range algorithms {
		err = errors.Join(err, signing.Try(ctx, signer, signing.WithChain(key, known.chain), a))
	}
	return err
}

// judgeTwoSeals refuses a time of two seals in which there would not be two.
func (r *registry) judgeTwoSeals(next entry, c certChange) error {
	if c.Until.IsZero() {
		return nil
	}
	from := r.now()
	if c.At.After(from) {
		from = c.At
	}
	before, found := r.active(c.Key)
	switch {
	case !c.Until.After(from):
		return fmt.Errorf("two seals are to end at %s, before they begin", c.Until.Format(time.RFC3339))
	case !r.dual[c.Key]:
		return fmt.Errorf("no profile with the key %q has dual_seal: true, so that no document would get a second seal: set it in the profile (then restart), or leave --dual-until out", c.Key)
	case !found || before.SHA256 == next.SHA256:
		return fmt.Errorf("key %q has no other active certificate that this one would follow", c.Key)
	case c.Until.After(before.Until):
		return fmt.Errorf("the certificate %s that it follows ends at %s: let two seals end before that", short(before.SHA256), before.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// orderChain puts the certificate of a key first, then each one's issuer, without the root. Certificates that do not belong
// to it are refused: they would be a mistake.
func orderChain(all []*x509.Certificate, public crypto.PublicKey) (chain []*x509.Certificate, err error) {
	rest := map[*x509.Certificate]bool{}
	for _, c := range all {
		own, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		switch {
		case !ok || !own.Equal(public):
			rest[c] = true
		case chain != nil:
			return nil, fmt.Errorf("the file has two certificates of this key, %s and %s: import one at a time", short(thumbprint(chain[0])), short(thumbprint(c)))
		default:
			chain = []*x509.Certificate{c}
		}
	}
	if chain == nil {
		return nil, fmt.Errorf("none of %s is for this key: the public keys differ", plural(len(all), "certificate"))
	}
	for last := chain[0]; !selfSigned(last); {
		next := issuerAmong(last, rest)
		if next == nil {
			break
		}
		delete(rest, next)
		if last = next; !selfSigned(last) {
			chain = append(chain, last)
		}
	}
	for c := range rest {
		return nil, fmt.Errorf("the certificate %q in the file is not in the chain of %q: leave it out", c.Subject, chain[0].Subject)
	}
	return chain, nil
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

func issuerAmong(c *x509.Certificate, all map[*x509.Certificate]bool) *x509.Certificate {
	for candidate := range all {
		if bytes.Equal(candidate.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(candidate) == nil {
			return candidate
		}
	}
	return nil
}

// request has a key sign a request for a certificate (PKCS #10). What it signs is made here and begins with another byte
// than the attributes of a document's seal, so that it can never be one; its digest is in the audit log, under a name of its
// own, before the key is used.
func (r *registry) request(ctx context.Context, c certRequest) (csr []byte, err error) {
	signer := cmp.Or(c.Pair, c.Key)
	if err := r.mayPair(c.Key, signer); err != nil {
		return nil, err
	}
	key, err := r.keys.Bare(ctx, signer)
	if err != nil {
		return nil, err
	}
	subject, err := r.subject(c)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	audited := &auditedSigner{Key: key, ctx: ctx, before: func(digest []byte) error {
		return r.store.AuditKeyUse(ctx, "certificate-requested", signer, hex.EncodeToString(sum[:]), hex.EncodeToString(digest), c.Who, "for "+subject.String())
	}}
	raw, err := asn1.Marshal(subject)
	if err != nil {
		return nil, err
	}
	if csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: raw}, audited); err != nil {
		return nil, err
	}
	made, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	return csr, made.CheckSignature()
}

// subject is the one asked for, or that of the key's newest certificate.
func (r *registry) subject(c certRequest) (name pkix.RDNSequence, err error) {
	if c.Subject != "" {
		return parseSubject(c.Subject)
	}
	newest, any := r.newest(c.Key)
	if !any {
		return nil, errors.New("the registry has no certificate of this key to take the subject from: say --subject \"CN=…,O=…,C=…\"")
	}
	_, err = asn1.Unmarshal(newest.chain[0].RawSubject, &name)
	return name, err
}

// auditedSigner lets a key sign only what has been written down before.
type auditedSigner struct {
	signing.Key
	ctx    context.Context
	before func(digest []byte) error
}

func (s *auditedSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := s.before(digest); err != nil {
		return nil, err
	}
	if k, ok := s.Key.(signing.ContextSigner); ok {
		return k.SignContext(s.ctx, digest, opts)
	}
	return s.Key.Sign(random, digest, opts)
}

// subjectTypes are the attributes that people write by name; others by their OID, such as 2.5.4.97=VATFR-12345678901.
var subjectTypes = map[string]asn1.ObjectIdentifier{
	"CN": {2, 5, 4, 3}, "SERIALNUMBER": {2, 5, 4, 5}, "C": {2, 5, 4, 6}, "L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8}, "STREET": {2, 5, 4, 9},
	"O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "ORGANIZATIONIDENTIFIER": {2, 5, 4, 97},
}

// parseSubject reads a name as RFC 4514 writes it, the most specific part first; a backslash takes the next character as
// it is. Attributes of one part joined by "+" are not known.
func parseSubject(text string) (name pkix.RDNSequence, err error) {
	for _, part := range splitUnescaped(text) {
		key, value, ok := strings.Cut(part, "=")
		key, value = strings.ToUpper(strings.TrimSpace(key)), strings.TrimSpace(unescape(value))
		if !ok || value == "" {
			return nil, fmt.Errorf("subject %q: %q is not NAME=VALUE", text, part)
		}
		oid, known := subjectTypes[key]
		if !known {
			if oid, err = parseOID(key); err != nil || len(oid) < 2 {
				return nil, fmt.Errorf("subject %q: %q is no attribute that is known: write CN, O, OU, C, L, ST, STREET, SERIALNUMBER, ORGANIZATIONIDENTIFIER or an OID", text, key)
			}
		}
		if key == "C" && len(value) != 2 {
			return nil, fmt.Errorf("subject %q: C is %q: it must be a country's code of two letters", text, value)
		}
		name = append(pkix.RDNSequence{{{Type: oid, Value: value}}}, name...) // DER has the least specific part first
	}
	return name, nil
}

// splitUnescaped cuts at commas that no backslash precedes.
func splitUnescaped(text string) (parts []string) {
	start, escaped := 0, false
	for i, c := range text {
		switch {
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == ',':
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}

func unescape(text string) string {
	var b strings.Builder
	escaped := false
	for _, c := range text {
		if c == '\\' && !escaped {
			escaped = true
			continue
		}
		escaped = false
		b.WriteRune(c)
	}
	return b.String()
}
