package verify

import "slices"

// Indication is the main result of a validation in the words of ETSI EN 319 102-1, clause 5.1.3.
type Indication string

// The indications.
const (
	TotalPassed        Indication = "TOTAL-PASSED"
	TotalIndeterminate Indication = "INDETERMINATE"
	TotalFailed        Indication = "TOTAL-FAILED"
)

// SubIndication says why a signature has not passed, in the words of the same clause.
type SubIndication string

// Sub-indications of TOTAL-FAILED.
const (
	FormatFailure    SubIndication = "FORMAT_FAILURE"     // not what PDF, CMS and PAdES ask for, or changed against what was signed
	HashFailure      SubIndication = "HASH_FAILURE"       // the covered bytes are not the signed ones
	SigCryptoFailure SubIndication = "SIG_CRYPTO_FAILURE" // the value does not fit the key
	Revoked          SubIndication = "REVOKED"            // proven to have been made after the revocation
)

// Sub-indications of INDETERMINATE. NO_POE means that nothing proves the signature to be from before what spoils it.
const (
	SigConstraintsFailure         SubIndication = "SIG_CONSTRAINTS_FAILURE"
	ChainConstraintsFailure       SubIndication = "CHAIN_CONSTRAINTS_FAILURE"
	CryptoConstraintsFailureNoPOE SubIndication = "CRYPTO_CONSTRAINTS_FAILURE_NO_POE"
	Expired                       SubIndication = "EXPIRED"       // proven to have been made after the certificate ended
	NotYetValid                   SubIndication = "NOT_YET_VALID" // proven to have been made before the certificate began
	TimestampOrderFailure         SubIndication = "TIMESTAMP_ORDER_FAILURE"
	NoSigningCertificateFound     SubIndication = "NO_SIGNING_CERTIFICATE_FOUND"
	NoCertificateChainFound       SubIndication = "NO_CERTIFICATE_CHAIN_FOUND"
	RevokedNoPOE                  SubIndication = "REVOKED_NO_POE"
	RevokedCANoPOE                SubIndication = "REVOKED_CA_NO_POE"
	OutOfBoundsNoPOE              SubIndication = "OUT_OF_BOUNDS_NO_POE"
	TryLater                      SubIndication = "TRY_LATER"
	Generic                       SubIndication = "GENERIC"
)

// Indication is the verdict in the words of the standard. Both have three values that mean the same.
func (v Verdict) Indication() Indication {
	switch v {
	case Valid:
		return TotalPassed
	case Invalid:
		return TotalFailed
	}
	return TotalIndeterminate
}

// subIndications are what the codes mean in the words of the standard. PDF's updates are unknown to it: a change against what was
// signed is a failure of the format, one that may have been allowed a constraint that is not met.
var subIndications = map[Code]SubIndication{
	CodeMalformedPDF:        FormatFailure,
	CodeByteRange:           FormatFailure,
	CodeMalformedCMS:        FormatFailure,
	CodeContentChanged:      FormatFailure,
	CodeSignatureReplaced:   FormatFailure,
	CodeForbiddenChange:     FormatFailure,
	CodeNotBound:            FormatFailure,
	CodeDigest:              HashFailure,
	CodeSignature:           SigCryptoFailure,
	CodeRevoked:             Revoked,
	CodeRevokedUnproven:     RevokedNoPOE,
	CodeRevokedCA:           RevokedCANoPOE,
	CodeSigningCert:         NoSigningCertificateFound,
	CodeNoCertificate:       NoSigningCertificateFound,
	CodeUntrusted:           NoCertificateChainFound,
	CodeExpired:             OutOfBoundsNoPOE,
	CodeSignedLate:          Expired,
	CodeNotYetValid:         NotYetValid,
	CodeKeyUsage:            ChainConstraintsFailure,
	CodeWeak:                CryptoConstraintsFailureNoPOE,
	CodeTimestampBroken:     SigConstraintsFailure,
	CodeTimestampOrder:      TimestampOrderFailure,
	CodeChangedAfterwards:   SigConstraintsFailure,
	CodeCovered:             SigConstraintsFailure,
	CodeTrailingData:        SigConstraintsFailure,
	CodeRevocationUnknown:   TryLater,
	CodeTimestampUnproven:   OutOfBoundsNoPOE,
	CodeTimestampRevoked:    RevokedNoPOE,
	CodeTimestampUntrusted:  NoCertificateChainFound,
	CodeNotLongTerm:         TryLater,
	CodeUnsupported:         Generic,
	CodeEncrypted:           Generic,
	CodeBudget:              Generic,
	CodeNoSignature:         Generic,
	CodeNotBaseline:         "",
	CodeLaterSignatures:     "",
	CodePermitted:           "",
	CodeRevocationUnchecked: "",
}

// reason makes a finding. What does no harm has no sub-indication.
func reason(code Code, v Verdict, text string) Reason {
	r := Reason{Code: code, Verdict: v, Text: text}
	if v != Valid {
		r.SubIndication = subIndications[code]
	}
	return r
}

// decisive is the sub-indication of the finding that a verdict rests on: the first of those that are as bad as it, in the order in which
// the standard has things checked.
func decisive(list []Reason, v Verdict) SubIndication {
	i := slices.IndexFunc(list, func(r Reason) bool { return r.Verdict == v })
	if v == Valid || i < 0 {
		return ""
	}
	return list[i].SubIndication
}

// conclude puts the report and its signatures into the words of the standard.
func (r *Report) conclude() {
	r.Indication, r.SubIndication = r.Verdict.Indication(), decisive(r.Reasons, r.Verdict)
	for i := range r.Signatures {
		s := &r.Signatures[i]
		s.Indication, s.SubIndication = s.Verdict.Indication(), decisive(s.Reasons, s.Verdict)
		if r.SubIndication == "" && s.Verdict == r.Verdict {
			r.SubIndication = s.SubIndication
		}
	}
}
