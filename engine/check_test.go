package engine

import (
	"testing"

	"github.com/dealseal/dealseal/signing/verify"
)

// TestTheConclusionIsThatOfOurSignatureAndOfTheDocument says in the words of the standard what the verdict says.
func TestTheConclusionIsThatOfOurSignatureAndOfTheDocument(t *testing.T) {
	seal := func(v verify.Verdict, sub verify.SubIndication) []verify.Signature {
		return []verify.Signature{{Kind: verify.KindSignature, ByteRange: []int64{0, 1, 2, 3}, Verdict: v, SubIndication: sub}}
	}
	for want, report := range map[string]*verify.Report{
		"TOTAL-PASSED":               {Signatures: seal(verify.Valid, "")},
		"TOTAL-FAILED, HASH_FAILURE": {Signatures: seal(verify.Invalid, verify.HashFailure)},
		"INDETERMINATE, TRY_LATER":   {Signatures: seal(verify.Indeterminate, verify.TryLater)},
		"INDETERMINATE, SIG_CONSTRAINTS_FAILURE": {Signatures: seal(verify.Valid, ""),
			Reasons: []verify.Reason{{Verdict: verify.Indeterminate, SubIndication: verify.SigConstraintsFailure, Text: "bytes behind the end"}}},
		"INDETERMINATE": {},
	} {
		f, err := findingOf(report, "")
		if err != nil || f.conclusion != want || f.valid != (want == "TOTAL-PASSED") {
			t.Errorf("%q, valid %v, %v; want %q", f.conclusion, f.valid, err, want)
		}
	}
}
