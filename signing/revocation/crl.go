package revocation

import (
	"bytes"
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
	parts, err := splitList(der)
	if err != nil {
		return nil, bad("cannot be read: %v", err)
	}
	list, err := parts.parse(nil)
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
	own, err := parts.entriesOf(cert)
	if err != nil {
		return nil, bad("%v", err)
	}
	if own == nil {
		return e, nil
	}
	if list, err = parts.parse(own); err != nil {
		return nil, bad("cannot be read: %v", err)
	}
	for _, entry := range list.RevokedCertificateEntries {
		// removeFromCRL (8) ends a hold (RFC 5280, section 5.3.1); in a complete list it stands for nothing.
		if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 && entry.ReasonCode != 8 {
			e.Revoked, e.RevokedAt, e.Reason = true, entry.RevocationTime, entry.ReasonCode
		}
	}
	return e, nil
}

// listParts are the bytes of a CertificateList (RFC 5280, section 5.1), as far as they are needed to read it without its
// entries: there may be a million, of which one counts.
type listParts struct {
	signed                []byte // tbsCertList, whole
	before, entries, rest []byte // of what is in it: up to the entries, what is in these, and what is behind them
	behind                []byte // algorithm and signature
}

var errList = fmt.Errorf("it is not the DER that RFC 5280 describes")

func splitList(der []byte) (p listParts, err error) {
	in := cryptobyte.String(der)
	var whole, signed, inner, entries cryptobyte.String
	if !in.ReadASN1(&whole, casn1.SEQUENCE) || !in.Empty() || !whole.ReadASN1Element(&signed, casn1.SEQUENCE) {
		return p, errList
	}
	p.signed, p.behind = signed, whole
	if !signed.ReadASN1(&inner, casn1.SEQUENCE) {
		return p, errList
	}
	all := []byte(inner)
	if !inner.SkipOptionalASN1(casn1.INTEGER) || !inner.SkipASN1(casn1.SEQUENCE) || !inner.SkipASN1(casn1.SEQUENCE) || !skipTime(&inner) ||
		inner.PeekASN1Tag(casn1.UTCTime) && !skipTime(&inner) || inner.PeekASN1Tag(casn1.GeneralizedTime) && !skipTime(&inner) {
		return p, errList
	}
	p.before = all[:len(all)-len(inner)]
	var present bool
	if !inner.ReadOptionalASN1(&entries, &present, casn1.SEQUENCE) {
		return p, errList
	}
	p.entries, p.rest = entries, inner
	return p, nil
}

func skipTime(in *cryptobyte.String) bool {
	return in.PeekASN1Tag(casn1.UTCTime) && in.SkipASN1(casn1.UTCTime) || in.SkipASN1(casn1.GeneralizedTime)
}

// parse reads the list as if it had those entries and no others. Its signature is that of the whole list.
func (p listParts) parse(entries []byte) (*x509.RevocationList, error) {
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(p.before)
			if entries != nil {
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(entries) })
			}
			b.AddBytes(p.rest)
		})
		b.AddBytes(p.behind)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		list.RawTBSRevocationList = p.signed
	}
	return list, err
}

// maxOwnEntries is how many entries a list may have for one certificate.
const maxOwnEntries = 16

// entriesOf returns the entries about a certificate, one behind the other; nil if there are none. Those of others are read as
// far as to know that they are.
func (p listParts) entriesOf(cert *x509.Certificate) (own []byte, err error) {
	var b cryptobyte.Builder
	b.AddASN1BigInt(cert.SerialNumber)
	wanted, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	n := 0
	for in := cryptobyte.String(p.entries); !in.Empty(); {
		var element, entry, serial, extensions cryptobyte.String
		if !in.ReadASN1Element(&element, casn1.SEQUENCE) {
			return nil, errList
		}
		whole := element
		var present bool
		if !element.ReadASN1(&entry, casn1.SEQUENCE) || !entry.ReadASN1Element(&serial, casn1.INTEGER) || !shortest(serial) || !skipTime(&entry) ||
			!entry.ReadOptionalASN1(&extensions, &present, casn1.SEQUENCE) || !entry.Empty() {
			return nil, errList
		}
		if err := checkEntryExtensions(extensions); err != nil {
			return nil, err
		}
		if bytes.Equal(serial, wanted) {
			if n++; n > maxOwnEntries {
				return nil, fmt.Errorf("has more than %d entries for the certificate", maxOwnEntries)
			}
			own = append(own, whole...)
		}
	}
	return own, nil
}

var errIndirect = fmt.Errorf("has entries of other issuers")

// shortest reports whether an INTEGER is encoded as DER demands: the same number in another form would be passed over.
func shortest(element cryptobyte.String) bool {
	var content cryptobyte.String
	if !element.ReadASN1(&content, casn1.INTEGER) || len(content) == 0 {
		return false
	}
	return len(content) == 1 || content[0] != 0 && content[0] != 0xff || (content[0] == 0) == (content[1] >= 0x80)
}

// checkEntryExtensions refuses entries that say whose certificate they are about, and those with a critical extension whose meaning
// is not known here: a list with such an entry says nothing of any certificate (RFC 5280, section 5.3).
func checkEntryExtensions(extensions cryptobyte.String) error {
	for !extensions.Empty() {
		oid, critical, _, ok := readExtension(&extensions)
		if !ok {
			return errList
		}
		switch {
		case oid.Equal(oidCRLIssuer):
			return errIndirect
		case critical && !oid.Equal(oidReason) && !oid.Equal(oidInvalidity):
			return fmt.Errorf("has an entry with the critical extension %s, whose meaning is not known here", oid)
		}
	}
	return nil
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
