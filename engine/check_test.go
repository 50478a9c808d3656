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

// Of what a vendor has had signed each signature counts, wherever it stands in the document.
func TestOfAVendorsDocumentTheWorstSignatureCounts(t *testing.T) {
	one := func(v verify.Verdict, sub verify.SubIndication) verify.Signature {
		return verify.Signature{Kind: verify.KindSignature, Verdict: v, SubIndication: sub}
	}
	good, unproven, broken := one(verify.Valid, ""), one(verify.Indeterminate, verify.TryLater), one(verify.Invalid, verify.HashFailure)
	for _, c := range []struct {
		want       string
		signatures []verify.Signature
	}{
		{"TOTAL-PASSED", []verify.Signature{good, good}},
		{"INDETERMINATE, TRY_LATER", []verify.Signature{good, unproven}},
		{"INDETERMINATE, TRY_LATER", []verify.Signature{unproven, good}},
		{"TOTAL-FAILED, HASH_FAILURE", []verify.Signature{unproven, broken, good}},
	} {
		f := finding{valid: true, conclusion: "TOTAL-PASSED"}
		f.everySignature(&verify.Report{Signatures: c.signatures})
		if f.conclusion != c.want || f.valid != (c.want == "TOTAL-PASSED") {
			t.Errorf("%q, valid %v; want %q", f.conclusion, f.valid, c.want)
		}
	}
}
