package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/store"
)

// An evidence bundle is a zip file of files that are stored as they are. The manifest names each by its hash, and the
// manifest is signed.
const (
	bundleForm      = "dealseal evidence bundle 1"
	bundleManifest  = "manifest.json"
	bundleSignature = "manifest.p7s"
	bundleContract  = "contract.pdf"
	bundleRecord    = "record.json"
	bundleAudit     = "audit.json"
)

// What a bundle may have at most.
const (
	maxBundleFiles     = 2500 // a security store has up to 1000 of each kind
	maxBundleManifest  = 4 << 20
	maxBundleSignature = 1 << 20
)

// bundleName is what the files of a bundle are called.
var bundleName = regexp.MustCompile(`^(manifest\.json|manifest\.p7s|contract\.pdf|record\.json|audit\.json|evidence/[A-Za-z0-9][A-Za-z0-9._-]{0,99})$`)

// manifest is what is signed of a bundle.
type manifest struct {
	Form     string    `json:"form"` // bundleForm
	Tx       deal.TxID `json:"tx"`
	Tenant   string    `json:"tenant"`
	Account  string    `json:"account"`
	Record   string    `json:"record"`
	Rule     string    `json:"rule"`
	Made     time.Time `json:"made"`
	Dealseal string    `json:"dealseal"`
	// Template is what the document was made with, and TemplateSHA256 the hash of all of it; empty for an attachment.
	Template       string    `json:"template,omitempty"`
	TemplateSHA256 string    `json:"template_sha256,omitempty"`
	RenderKey      string    `json:"render_key,omitempty"`
	Level          string    `json:"level"`
	SealedAt       time.Time `json:"sealed_at"`
	SignedDigest   string    `json:"signed_digest,omitempty"`
	// Second is the second seal of a contract that was made during a rollover.
	Second *secondSealOf `json:"second_seal,omitempty"`
	// Unsigned is set where the key of the seal could not be used any more, or just then: then nobody vouches for the manifest.
	Unsigned bool                  `json:"unsigned,omitempty"`
	Files    map[string]bundleFile `json:"files"`
}

// secondSealOf is what a manifest says of the second seal; Level of the manifest is then the lower one.
type secondSealOf struct {
	Level        string `json:"level"`
	SignedDigest string `json:"signed_digest"`
	Certificate  string `json:"cert_sha256"`
}

type bundleFile struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

func bundleFileOf(b []byte) bundleFile {
	sum := sha256.Sum256(b)
	return bundleFile{hex.EncodeToString(sum[:]), int64(len(b))}
}

// bundle is one that is being read. Nothing in it is proven by being there.
type bundle struct {
	files    map[string]*io.SectionReader
	manifest manifest
	signed   []byte // the manifest as it stands there
}

// bundleError says that a file is no bundle.
type bundleError struct{ reason string }

func (e *bundleError) Error() string { return "it is not an evidence bundle: " + e.reason }

// openBundle reads the directory and the manifest.
func openBundle(r io.ReaderAt, size int64) (*bundle, error) {
	bad := func(format string, args ...any) error { return &bundleError{fmt.Sprintf(format, args...)} }
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, bad("%v", err)
	}
	if len(z.File) > maxBundleFiles {
		return nil, bad("it has %d files, at most %d are expected", len(z.File), maxBundleFiles)
	}
	b := &bundle{files: map[string]*io.SectionReader{}}
	for _, f := range z.File {
		at, err := f.DataOffset()
		switch {
		case !bundleName.MatchString(f.Name) || b.files[f.Name] != nil:
			return nil, bad("a file is called %q", f.Name)
		case err != nil:
			return nil, bad("%s: %v", f.Name, err)
		case f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 || at < 0 || f.UncompressedSize64 > uint64(size-min(at, size)):
			return nil, bad("%s is not stored as it is", f.Name)
		}
		b.files[f.Name] = io.NewSectionReader(r, at, int64(f.UncompressedSize64))
	}
	if b.signed, err = b.read(bundleManifest, maxBundleManifest); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b.signed, &b.manifest); err != nil {
		return nil, bad("its manifest: %v", err)
	}
	if b.manifest.Form != bundleForm {
		return nil, bad("its form is %q, %q is known", b.manifest.Form, bundleForm)
	}
	return b, nil
}

func (b *bundle) read(name string, limit int64) ([]byte, error) {
	f := b.files[name]
	if f == nil {
		return nil, &bundleError{name + " is missing"}
	}
	if f.Size() > limit {
		return nil, &bundleError{fmt.Sprintf("%s has %d bytes, at most %d are expected", name, f.Size(), limit)}
	}
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
}

// bundleFinding is one thing that was checked.
type bundleFinding struct {
	What    string         `json:"what"`
	Verdict verify.Verdict `json:"verdict"`
	Text    string         `json:"text"`
}

// bundleReport is what can be said of a bundle without asking anybody.
type bundleReport struct {
	Verdict  verify.Verdict      `json:"verdict"` // the worst of all
	Tx       deal.TxID           `json:"tx"`
	Findings []bundleFinding     `json:"findings"`
	Signer   *verify.Attestation `json:"manifest_signature,omitempty"`
	Contract *verify.Report      `json:"contract,omitempty"`
}

func (r *bundleReport) say(what string, v verify.Verdict, format string, args ...any) {
	r.Findings = append(r.Findings, bundleFinding{what, v, fmt.Sprintf(format, args...)})
	if v == verify.Invalid || v == verify.Indeterminate && r.Verdict == verify.Valid {
		r.Verdict = v
	}
}

// judge checks all of a bundle.
func (b *bundle) judge(ctx context.Context, checker *verify.Checker, o verify.Options) (*bundleReport, error) {
	r := &bundleReport{Verdict: verify.Valid, Tx: b.manifest.Tx}
	b.judgeManifest(r, o)
	if err := b.judgeFiles(ctx, r); err != nil {
		return nil, err
	}
	if err := b.judgeContract(ctx, r, checker, o); err != nil {
		return nil, err
	}
	b.judgeAudit(r)
	return r, nil
}

func (b *bundle) judgeManifest(r *bundleReport, o verify.Options) {
	if b.files[bundleSignature] == nil {
		r.say("manifest", verify.Indeterminate, "nobody has signed it: %s is missing", bundleSignature)
		return
	}
	value, err := b.read(bundleSignature, maxBundleSignature)
	if err != nil {
		r.say("manifest", verify.Invalid, "%v", err)
		return
	}
	a, err := verify.CheckAttestation(value, b.signed, o)
	var bad *verify.AttestationError
	if errors.As(err, &bad) {
		r.say("manifest", bad.Verdict, "its signature: %v", bad)
		return
	}
	r.Signer = a
	when := "no time-stamp proves when"
	if a.Stamped {
		when = "time-stamped " + a.At.UTC().Format(time.RFC3339)
	}
	r.say("manifest", verify.Valid, "signed by %s, %s", a.Signer.Subject, when)
}

// judgeFiles compares what is there with what was signed, both ways.
func (b *bundle) judgeFiles(ctx context.Context, r *bundleReport) error {
	wrong := 0
	for name := range b.files {
		if _, named := b.manifest.Files[name]; !named && name != bundleManifest && name != bundleSignature {
			wrong++
			r.say("files", verify.Invalid, "%s is not named in the manifest", name)
		}
	}
	for name, want := range b.manifest.Files {
		f := b.files[name]
		if f == nil {
			wrong++
			r.say("files", verify.Invalid, "%s is missing", printable(name))
			continue
		}
		sum := sha256.New()
		if err := copyUntil(ctx, sum, io.NewSectionReader(f, 0, f.Size())); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != want.SHA256 || f.Size() != want.Size {
			wrong++
			r.say("files", verify.Invalid, "%s has another content than the manifest says", name)
		}
	}
	if wrong == 0 {
		r.say("files", verify.Valid, "%d files are those that the manifest names", len(b.manifest.Files))
	}
	return nil
}

// copyUntil reads to the end unless ctx ends before.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.CopyN(w, r, 1<<20); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (b *bundle) judgeContract(ctx context.Context, r *bundleReport, checker *verify.Checker, o verify.Options) error {
	f := b.files[bundleContract]
	if f == nil {
		r.say("contract", verify.Invalid, "%s is missing", bundleContract)
		return nil
	}
	report, err := checker.Check(ctx, f, o)
	if err != nil {
		return err
	}
	r.Contract = report
	seal := report.Newest()
	second := b.manifest.Second
	if second != nil { // then the newest is that one
		if seal = firstOfTwo(report); seal == nil || string(report.Newest().Level) != second.Level || report.Newest().Signer == nil || report.Newest().Signer.SHA256 != second.Certificate {
			r.say("contract", verify.Invalid, "the manifest speaks of two seals, the second of level %q with the certificate %q, and the contract does not have them", second.Level, printable(second.Certificate))
			return nil
		}
	}
	switch {
	case report.Verdict != verify.Valid:
		r.say("contract", report.Verdict, "%s: %s", report.Indication, firstReason(allReasons(report)))
	case seal == nil || !strings.Contains(seal.Reason, string(b.manifest.Tx)):
		r.say("contract", verify.Invalid, "its seal does not name the transaction %s", printable(string(b.manifest.Tx)))
	case string(lowerLevel(seal, report.Newest())) != b.manifest.Level:
		r.say("contract", verify.Invalid, "its seal is of level %s, and the manifest says %q", lowerLevel(seal, report.Newest()), b.manifest.Level)
	default:
		same := "with the key that signed the manifest"
		if r.Signer == nil || seal.Signer == nil || r.Signer.Signer.SPKI != seal.Signer.SPKI {
			same = "with another key than the manifest's"
		}
		r.say("contract", verify.Valid, "sealed by %s, %s, PAdES %s", seal.Signer.Subject, same, seal.Level)
		if second != nil {
			r.say("contract", verify.Valid, "and a second time by %s with certificate %s, PAdES %s", report.Newest().Signer.Subject, second.Certificate, second.Level)
		}
	}
	return nil
}

// firstOfTwo is the seal before the newest one, which names the same transaction; nil if there is none.
func firstOfTwo(report *verify.Report) (first *verify.Signature) {
	newest := report.Newest()
	for i := range report.Signatures {
		s := &report.Signatures[i]
		if s != newest && newest != nil && s.Kind == verify.KindSignature && s.Reason == newest.Reason && s.Signer != nil && (first == nil || s.Revision > first.Revision) {
			first = s
		}
	}
	return first
}

// lowerLevel is that of the weaker of two seals.
func lowerLevel(a, b *verify.Signature) pades.Level {
	if a.Level.AtLeast(b.Level) {
		return b.Level
	}
	return a.Level
}

// judgeAudit checks the slice of the audit log, and that it speaks of this contract.
func (b *bundle) judgeAudit(r *bundleReport) {
	text, err := b.read(bundleAudit, store.MaxProof)
	if err != nil {
		r.say("audit log", verify.Invalid, "%v", err)
		return
	}
	proven, err := store.CheckProof(text, nil)
	if err != nil {
		r.say("audit log", verify.Invalid, "%v", err)
		return
	}
	if proven.Tx != b.manifest.Tx {
		r.say("audit log", verify.Invalid, "it speaks of the transaction %s", proven.Tx)
		return
	}
	for _, line := range proven.Entries {
		if line.What == "sealed" && line.Why != "" && !strings.Contains(line.Why, b.manifest.Files[bundleContract].SHA256) {
			r.say("audit log", verify.Invalid, "entry %d says that another contract was sealed", line.Index)
			return
		}
	}
	r.say("audit log", verify.Valid, "%d entries are in the log %s as it was signed at %s", len(proven.Entries), proven.Log, proven.At.UTC().Format(time.RFC3339))
}

// isBundle looks at how a file begins.
func isBundle(r io.ReaderAt) bool {
	var head [4]byte
	n, _ := r.ReadAt(head[:], 0) // what is too short is none
	return n == len(head) && bytes.Equal(head[:], []byte("PK\x03\x04"))
}
