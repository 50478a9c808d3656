package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/signing/verify"
)

func TestReportPassesNothingThatSteersATerminal(t *testing.T) {
	const hostile = "good\x1b[2K\r\nsecond.pdf: VALID\u202e"
	at := time.Unix(0, 0)
	r := &verify.Report{
		Verdict: verify.Indeterminate, SHA256: "00", Reasons: []verify.Reason{{Code: verify.CodeUntrusted, Verdict: verify.Indeterminate, Text: hostile}},
		Signatures: []verify.Signature{{Field: hostile, Kind: verify.KindSignature, Verdict: verify.Indeterminate, Name: hostile, Reason: hostile, Location: hostile,
			Algorithm: hostile, Signer: &verify.Certificate{Subject: hostile, Issuer: hostile, Serial: "01"}, ClaimedTime: &at, Timestamp: &verify.Timestamp{TSA: hostile}}},
		SecondOpinion: &verify.Opinion{Reader: "reader", Verdict: verify.OpinionCrashed, Detail: hostile},
	}
	var out bytes.Buffer
	if err := printReport(&out, "first.pdf", r, true); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\r\u202e") || strings.Contains(out.String(), "\nsecond.pdf") {
		t.Errorf("the report is\n%q", out.String())
	}
	if n := strings.Count(out.String(), "good"); n != 10 {
		t.Errorf("%d of 10 texts are shown:\n%s", n, out.String())
	}
}
