// Package chain finds the certificate of a key, and its issuers, among those that are at hand.
package chain

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// Max is the number of certificates that a file may have.
const Max = 64

// maxPEM bounds a file of certificates, in bytes.
const maxPEM = 1 << 20

// Read reads a PEM file of certificates.
func Read(path string) ([]*x509.Certificate, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, maxPEM)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// Parse reads text in PEM form that holds certificates and nothing else.
func Parse(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is a %s: only certificates belong here", len(all)+1, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(all)+1, err)
		}
		if all = append(all, c); len(all) > Max {
			return nil, fmt.Errorf("more than %d certificates", Max)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no certificate in PEM form")
	}
	return all, nil
}

// For returns the certificate of the key and its issuers, as far as they
// are known, without the root. The certificate is chosen by its public key,
// which is spki (PKIX DER); of several, the one valid now that ends last. If
// the token does not tell the public key, the first of the file counts: each
// signature is checked with it before use.
func For(spki []byte, file, token []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	all := append(append([]*x509.Certificate(nil), file...), token...)
	var leaf *x509.Certificate
	if spki == nil && len(file) > 0 {
		leaf = file[0]
	}
	for _, c := range all {
		if spki != nil && bytes.Equal(c.RawSubjectPublicKeyInfo, spki) && (leaf == nil || better(c, leaf, now)) {
			leaf = c
		}
	}
	switch {
	case leaf != nil:
		return append([]*x509.Certificate{leaf}, issuersOf(leaf, all)...), nil
	case spki == nil:
		return nil, ErrNoPublic
	}
	return nil, fmt.Errorf("none of %d certificates on the token and %d in the file is for this key: the public keys differ", len(token), len(file))
}

// ErrNoPublic means that nobody tells a key's public half.
var ErrNoPublic = errors.New("the token does not tell the key's public half: configure its certificate as the first of a certificates file")

func better(c, than *x509.Certificate, now time.Time) bool {
	valid := func(c *x509.Certificate) bool { return !now.Before(c.NotBefore) && !now.After(c.NotAfter) }
	if valid(c) != valid(than) {
		return valid(c)
	}
	return c.NotAfter.After(than.NotAfter)
}

// issuersOf follows signatures from leaf upwards. A self-signed certificate,
// which the verifier has to have itself, is left out.
func issuersOf(leaf *x509.Certificate, all []*x509.Certificate) (issuers []*x509.Certificate) {
	for c := leaf; len(issuers) < len(all); {
		next := issuerOf(c, all)
		if next == nil || bytes.Equal(next.RawSubject, next.RawIssuer) {
			return issuers
		}
		issuers = append(issuers, next)
		c = next
	}
	return issuers
}

func issuerOf(c *x509.Certificate, all []*x509.Certificate) *x509.Certificate {
	for _, candidate := range all {
		if candidate != c && bytes.Equal(candidate.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(candidate) == nil {
			return candidate
		}
	}
	return nil
}
