package revocation

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ParseCRL reads a revocation list, DER, that cert's issuer signed, and checks everything but its age: that it is the
// issuer's, complete, and about certificates such as cert (RFC 5280, section 6.3.3). Lists in parts, deltas and lists in
// another's name are refused: what they do not say proves nothing. Errors are *FormatError.
func ParseCRL(der []byte, cert, issuer *x509.Certificate) (*Evidence, error) {
	bad := func(format string, args ...any) error { return &FormatError{CRL, fmt.Sprintf(format, args...)} }
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, bad("cannot be read: %v", err)
	}
	if string(list.RawIssuer) != string(cert.RawIssuer) {
		return nil, bad("is that of another issuer")
	}
	if tooWeak[list.SignatureAlgorithm] {
		return nil, bad("is signed with %v, which proves nothing any more", list.SignatureAlgorithm)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return nil, bad("is not signed by the issuer: %v", err)
	}
	e := &Evidence{Kind: CRL, DER: der, ProducedAt: list.ThisUpdate, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate}
	for _, x := range list.Extensions {
		if err := checkListExtension(x.Id, x.Critical, x.Value, cert); err != nil {
			return nil, bad("%v", err)
		}
		if x.Id.Equal(oidExpired) {
			if e.Remembers, err = rememberedSince(x.Value); err != nil {
				return nil, bad("%v", err)
			}
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, x := range entry.Extensions {
			if x.Id.Equal(oidCRLIssuer) {
				return nil, bad("has entries of other issuers")
			}
		}
		// removeFromCRL (8) ends a hold (RFC 5280, section 5.3.1); in a complete list it stands for nothing.
		if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 && entry.ReasonCode != 8 {
			e.Revoked, e.RevokedAt, e.Reason = true, entry.RevocationTime, entry.ReasonCode
		}
	}
	return e, nil
}

func checkListExtension(oid asn1.ObjectIdentifier, critical bool, value []byte, cert *x509.Certificate) error {
	switch {
	case oid.Equal(oidDeltaCRL):
		return fmt.Errorf("holds changes only")
	case oid.Equal(oidScope):
		return checkScope(value, cert)
	case critical && !oid.Equal(oidCRLNumber) && !oid.Equal(oidCRLAuthKey) && !oid.Equal(oidExpired):
		return fmt.Errorf("has the critical extension %s, whose meaning is not known here", oid)
	}
	return nil
}

// checkScope reads an IssuingDistributionPoint (RFC 5280, section 5.2.5): which certificates the list is about.
func checkScope(value []byte, cert *x509.Certificate) error {
	in := cryptobyte.String(value)
	var seq, point cryptobyte.String
	var named, someReasons bool
	var flags [6]bool // by tag; 0 and 3 are no booleans
	if !in.ReadASN1(&seq, casn1.SEQUENCE) || !in.Empty() || !seq.ReadOptionalASN1(&point, &named, explicit(0)) {
		return errScope
	}
	for _, tag := range []uint8{1, 2} {
		if !readFlag(&seq, tag, &flags[tag]) {
			return errScope
		}
	}
	var reasons cryptobyte.String
	if !seq.ReadOptionalASN1(&reasons, &someReasons, casn1.Tag(3).ContextSpecific()) {
		return errScope
	}
	for _, tag := range []uint8{4, 5} {
		if !readFlag(&seq, tag, &flags[tag]) {
			return errScope
		}
	}
	if !seq.Empty() {
		return errScope
	}
	switch onlyUsers, onlyCAs, indirect, onlyAttributes := flags[1], flags[2], flags[4], flags[5]; {
	case someReasons:
		return fmt.Errorf("is about some reasons only")
	case indirect:
		return fmt.Errorf("is kept in the name of others")
	case onlyAttributes || onlyUsers && cert.IsCA || onlyCAs && !cert.IsCA:
		return fmt.Errorf("is about certificates of another sort")
	case named && !namesPoint(point, cert):
		return fmt.Errorf("is that of another distribution point")
	}
	return nil
}

var errScope = fmt.Errorf("has an issuing distribution point that cannot be read")

func readFlag(seq *cryptobyte.String, tag uint8, flag *bool) bool {
	var value cryptobyte.String
	var present bool
	if !seq.ReadOptionalASN1(&value, &present, casn1.Tag(tag).ContextSpecific()) {
		return false
	}
	if !present {
		return true
	}
	*flag = len(value) == 1 && value[0] != 0
	return len(value) == 1
}

// namesPoint reports whether a DistributionPointName has an address that the certificate names too.
func namesPoint(point cryptobyte.String, cert *x509.Certificate) bool {
	var full cryptobyte.String
	if !point.ReadASN1(&full, explicit(0)) { // fullName; a name relative to the issuer's is not used with addresses
		return false
	}
	for !full.Empty() {
		var name cryptobyte.String
		var tag casn1.Tag
		if !full.ReadAnyASN1(&name, &tag) {
			return false
		}
		if tag == casn1.Tag(6).ContextSpecific() && slices.Contains(cert.CRLDistributionPoints, string(name)) {
			return true
		}
	}
	return false
}
