package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/store"
)

// outcome is what became of a deal, without what differs from deal to deal: two deals that went the same way have the
// same outcome.
type outcome struct {
	Step      deal.Step
	Condition deal.Condition
	Level     string
	Verdict   string
	Second    string
	Digests   int // ever signed
	Seals     int // of the contract
	Files     []string
	Status    string
	Shown     []string // names of the fields that are set
	Errands   []string
}

// outcomeOf compares ledger, archive, CRM and file with each other, and returns what became of the deal. The state
// belongs to no daemon meanwhile.
func (w *world) outcomeOf(t *testing.T, s *store.Store, c crm, record string) outcome {
	t.Helper()
	list := sealings(t, ofTenant{&local{Store: s}, c.tenant()}, record)
	if len(list) != 1 {
		t.Fatalf("%s: %d sealings of one entry", record, len(list))
	}
	story := storyOf(t, &local{Store: s}, list[0].Tx)
	sealing := story.Sealing
	o := outcome{Step: sealing.Step, Condition: sealing.Condition, Level: sealing.Facts.Level, Verdict: sealing.Facts.Verdict, Second: sealing.Facts.SecondOpinion,
		Digests: len(signedDigests(t, story)), Seals: 1}
	timeline, notes := timelineOf(t, c, record), 0
	for _, e := range story.Errands {
		o.Errands = append(o.Errands, fmt.Sprintf("%s, %s", e, e.Fate))
		if e.Kind == deal.ErrandNote {
			notes++
			if mark := deal.NoteOf(sealing, e, story.Errands).Mark(); strings.Count(timeline, mark) != 1 {
				t.Errorf("the timeline of %s bears %s %d times, want once:\n%s", record, mark, strings.Count(timeline, mark), timeline)
			}
		}
	}
	if n := strings.Count(timeline, "[dealseal "+string(sealing.Tx)+"/"); n != notes {
		t.Errorf("the timeline of %s has %d notes, want %d:\n%s", record, n, notes, timeline)
	}
	contracts, trails := 0, 0
	for _, f := range c.files(record) {
		o.Files = append(o.Files, strings.NewReplacer(string(sealing.Tx), "TX", record, "RECORD").Replace(f.name))
		switch {
		case f.trail():
			trails++
			w.sameAsKept(t, s, sealing, "evidence/audit-trail.pdf", f.content)
		case f.sealed():
			contracts++
			w.sameAsKept(t, s, sealing, "contract.pdf", f.content)
			if w.verifies(t, f.content) {
				o.Seals = 2
			}
		}
	}
	slices.Sort(o.Files)
	wantTrails := 0
	if sealing.Plan.AuditTrail != "" {
		wantTrails = 1
	}
	if contracts != 1 || trails != wantTrails {
		t.Errorf("%s bears %d contracts and %d audit trails, want 1 and %d: %q", record, contracts, trails, wantTrails, o.Files)
	}
	shown := c.shown(record)
	for name := range shown {
		o.Shown = append(o.Shown, name)
	}
	slices.Sort(o.Shown)
	o.Status = shown["status"]
	if shown["transaction_id"] != string(sealing.Tx) {
		t.Errorf("%s shows transaction %q, want %s", record, shown["transaction_id"], sealing.Tx)
	}
	if a, ok := deal.ReadAuditRecord(shown["audit"]); !ok || a.Tx != sealing.Tx || a.Sequence != story.Receipt.Sequence {
		t.Errorf("%s shows audit record %+v, want that of %s with sequence %d", record, a, sealing.Tx, story.Receipt.Sequence)
	}
	return o
}

// signedDigests lists every digest that the key was ever about to sign; it must be the one that was committed before.
func signedDigests(t *testing.T, story *store.Story) (digests []string) {
	t.Helper()
	for _, i := range story.Intents {
		if i.What == "sign" && !slices.Contains(digests, i.Digest) {
			digests = append(digests, i.Digest)
		}
	}
	second := secondDigest(t, story)
	if second != "" {
		defer func() { digests = append(digests, second) }()
	}
	if n := entries(story, "digest-committed"); n > 1 || len(digests) > n || len(digests) == 1 && digests[0] != story.Sealing.Facts.Digest {
		t.Errorf("%s: %d digests were committed, the last is %s, signed were %q", story.Sealing.Tx, n, story.Sealing.Facts.Digest, digests)
	}
	return digests
}

// secondDigest is what the key was about to sign for the second seal of a deal: the one that was committed, or nothing.
func secondDigest(t *testing.T, story *store.Story) (digest string) {
	t.Helper()
	for _, i := range story.Intents {
		if i.What != "second-sign" {
			continue
		}
		if digest = i.Digest; story.Sealing.Facts.Second == nil || digest != story.Sealing.Facts.Second.Digest {
			t.Errorf("%s: for the second seal %s was signed, committed is %+v", story.Sealing.Tx, digest, story.Sealing.Facts.Second)
		}
	}
	if n := entries(story, "second-digest-committed"); n > 1 || n == 0 && digest != "" {
		t.Errorf("%s: %d digests were committed for the second seal", story.Sealing.Tx, n)
	}
	return digest
}

func (w *world) sameAsKept(t *testing.T, s *store.Store, sealing *deal.Sealing, name string, content []byte) {
	t.Helper()
	f, err := s.OpenKept(context.Background(), sealing.Facts.Archive, name)
	if err != nil {
		t.Errorf("%s: %v", sealing.Tx, err)
		return
	}
	defer f.Close()
	kept, err := io.ReadAll(f.Open())
	must(t, err)
	if !bytes.Equal(kept, content) {
		t.Errorf("%s: %s on the record has %d bytes, the archive's %d others", sealing.Tx, name, len(content), len(kept))
	}
}

// verifies reads a sealed file and reports whether it bears two seals of different certificates.
func (w *world) verifies(t *testing.T, content []byte) (two bool) {
	t.Helper()
	roots, err := readCertificates(w.path("root.pem"))
	must(t, err)
	report, err := verify.Verify(context.Background(), bytes.NewReader(content), verify.Options{Roots: roots})
	must(t, err)
	seals, certs := 0, map[string]bool{}
	for _, s := range report.Signatures {
		if s.Kind == verify.KindSignature {
			seals++
			certs[s.Signer.SHA256] = true
		}
	}
	if report.Verdict != verify.Valid || seals < 1 || seals > 2 || len(certs) != seals {
		t.Errorf("a sealed file is %s, with %d seals of %d certificates: %+v", report.Verdict, seals, len(certs), report.Reasons)
	}
	return seals == 2
}

// auditIsWhole checks the audit log against itself and an older checkpoint.
func auditIsWhole(t *testing.T, ops operations, checkpoint []byte) {
	t.Helper()
	if _, err := ops.VerifyAudit(context.Background(), checkpoint); err != nil {
		t.Error(fmt.Errorf("audit verify: %w", err))
	}
}
