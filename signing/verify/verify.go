// Package verify judges the signatures of a PDF: what they cover, whether they fit, whom they lead to, at what time that has to hold, what was changed
// after them, and which PAdES baseline level they reach. It trusts nothing that a document says of itself.
//
// Verify runs in the calling process. Documents are foreign bytes, so the product runs it in a child process through Checker, which also asks a reader
// that others wrote for its opinion.
//
// The result is that of ETSI EN 319 102-1: TOTAL-PASSED, INDETERMINATE or TOTAL-FAILED, with a sub-indication. Time-stamps are judged from the newest to
// the oldest, each at the time by which those behind it prove it to have existed, and a signature at the time that they leave it with (the past signature
// validation of that standard).
//
// Nobody is asked for revocation: it is judged by what the document carries, and the levels B-LT and B-LTA are reached by what proves them only.
package verify

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
)

// The budget of one document beyond that of package pdf.
const (
	maxSignatures = 64
	maxRevisions  = 128
)

// Options say whom to trust and when.
type Options struct {
	Roots         []*x509.Certificate // whom a signer's certificate has to lead to
	TSARoots      []*x509.Certificate // the same for time-stamps; nil means Roots
	Intermediates []*x509.Certificate // beside those in the document; not trusted by themselves
	Now           time.Time           // the time of checking; zero means the clock

	// RequireRevocation makes a signature INDETERMINATE (TRY_LATER) when the document does not carry evidence that its certificates were good at the
	// time that counts. Without it only evidence that is there is judged: signatures of levels B-B and B-T carry none.
	RequireRevocation bool

	// Known is for a rehearsal, whose beginning the seal was staged on a moment ago: it is not hashed again. Whether the bytes are still these is then for
	// the reading of what was sealed, which must know nothing.
	Known *Known
}

// Known is the beginning of a document as it was hashed before; see pades.Behind.
type Known struct {
	Size   int64  `json:"size"`
	SHA256 []byte `json:"sha256"` // the state of the hash behind it
}

func (o Options) withDefaults() Options {
	if o.TSARoots == nil {
		o.TSARoots = o.Roots
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	o.Now = o.Now.UTC()
	return o
}

// Verify reports on every signature that the document has in any of its revisions. An error means that the document could not be read or ctx ended; all
// that is wrong with the document itself stands in the report. The document must not change meanwhile. Verify may be called concurrently.
func Verify(ctx context.Context, doc pades.Document, o Options) (*Report, error) {
	v, err := judge(ctx, doc, o)
	if err != nil {
		return nil, err
	}
	return v.report, nil
}

func judge(ctx context.Context, doc pades.Document, o Options) (*verifier, error) {
	o = o.withDefaults()
	v := &verifier{ctx: ctx, doc: doc, options: o, revisions: map[int64]*revision{}, identities: map[*pdf.Dict]string{}, trust: newTrust(o)}
	v.report = &Report{Verdict: Valid, Signatures: []Signature{}, Size: doc.Size(), CheckedAt: o.Now}
	defer v.report.conclude()
	err := v.run()
	if v.report.SHA256 == "" && err == nil || isFault(err) {
		// Whatever is wrong with the document, the report says which document it is about.
		if hashErr := v.hash(); hashErr != nil {
			return nil, hashErr
		}
	}
	if err != nil && !isFault(err) {
		return nil, err
	}
	if err != nil {
		v.report.add(codeOf(err), verdictOf(err), err.Error())
	}
	return v, nil
}

// isFault tells what is wrong with the document from a failure to read it.
func isFault(err error) bool {
	var bad documentError
	return errors.As(err, &bad)
}

// documentError is what package pdf says when the document is at fault, as opposed to reading it.
type documentError interface {
	error
	Permanent() bool
}

// isLimit reports whether a budget of the document is used up.
func isLimit(err error) bool {
	var limit *pdf.LimitError
	return errors.As(err, &limit)
}

func codeOf(err error) Code {
	var encrypted *pdf.EncryptedError
	switch {
	case isLimit(err):
		return CodeBudget
	case errors.As(err, &encrypted):
		return CodeEncrypted
	}
	return CodeMalformedPDF
}

func verdictOf(err error) Verdict {
	if codeOf(err) == CodeMalformedPDF {
		return Invalid
	}
	return Indeterminate
}

type verifier struct {
	ctx        context.Context
	doc        pades.Document
	options    Options
	file       *pdf.File            // the document as it is now
	ends       []int64              // where its revisions end, oldest first
	revisions  map[int64]*revision  // those that were looked at, by their length
	identities map[*pdf.Dict]string // of signature dictionaries
	checks     []*check             // of all signatures
	proofs     []proof              // of the document time-stamps that hold
	trust      *trust
	report     *Report
}

// revision is the document as it once was.
type revision struct {
	file   *pdf.File
	list   []found
	err    error
	listed bool
	store  *security
}

// revision opens the document as it was when it had end bytes; once.
func (v *verifier) revision(end int64) (*revision, error) {
	if r := v.revisions[end]; r != nil {
		return r, nil
	}
	file := v.file
	if end != v.file.Size() {
		var err error
		if file, err = v.file.Earlier(end); err != nil {
			return nil, err
		}
	}
	v.revisions[end] = &revision{file: file}
	return v.revisions[end], nil
}

// signatures lists those of a revision; once.
func (r *revision) signatures() ([]found, error) {
	if !r.listed {
		r.list, r.err = signatureFields(r.file)
		r.listed = true
	}
	return r.list, r.err
}

// found is a signature field with a value, as it stands in one revision.
type found struct {
	field pdf.Field
	dict  *pdf.Dict // the signature dictionary
	file  *pdf.File // the revision that it was found in
}

func (v *verifier) run() error {
	var err error
	if v.file, err = pdf.Open(v.doc, v.doc.Size()); err != nil {
		return err
	}
	revisions := v.file.Revisions()
	v.report.Revisions = len(revisions)
	if len(revisions) > maxRevisions {
		v.report.add(CodeBudget, Indeterminate, fmt.Sprintf("the document has %d revisions, more than the %d that are looked at", len(revisions), maxRevisions))
		return nil
	}
	for _, r := range revisions {
		v.ends = append(v.ends, r.End)
	}
	signatures, err := v.find()
	if err != nil {
		return err
	}
	if len(signatures) == 0 {
		v.report.add(CodeNoSignature, Indeterminate, "the document has no signature")
		return nil
	}
	for _, s := range signatures {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		c, err := v.read(s)
		if err != nil {
			return err
		}
		v.checks = append(v.checks, c)
	}
	// All that is covered is hashed at once; from here on nothing is read twice.
	if err := v.hash(); err != nil {
		return err
	}
	for _, step := range []func() error{v.prove, v.judgeTimes, v.judgeCertificates, v.judgeChanges, v.judgeLevels} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, c := range v.checks {
		v.report.Signatures = append(v.report.Signatures, c.Signature)
		v.report.Verdict = worse(v.report.Verdict, c.Verdict)
	}
	slices.SortStableFunc(v.report.Signatures, func(a, b Signature) int { return a.Revision - b.Revision })
	v.tellHistory()
	return v.checkTail()
}

// prove checks the cryptography of all signatures.
func (v *verifier) prove() error {
	for _, c := range v.checks {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		c.checkProof()
	}
	return nil
}

// judgeChanges looks at what came after each signature.
func (v *verifier) judgeChanges() error {
	for _, c := range v.checks {
		if err := c.checkLater(); err != nil {
			return err
		}
	}
	return nil
}

// tellHistory lists the revisions, with what ends there and what proves them.
func (v *verifier) tellHistory() {
	for i, end := range v.ends {
		r := Revision{Number: i + 1, End: end}
		for _, s := range v.report.Signatures {
			if s.Revision == r.Number {
				r.Signatures = append(r.Signatures, s.Field)
			}
		}
		if p := v.provenBy(end); p != nil {
			r.ProvenAt = &p.at
		}
		v.report.History = append(v.report.History, r)
	}
}

// find lists the signatures of the document as it is now and those of older revisions that are no longer there.
func (v *verifier) find() ([]found, error) {
	now, err := v.revision(v.file.Size())
	if err != nil {
		return nil, err
	}
	list, err := now.signatures()
	if err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	seen := map[string]bool{}
	for _, s := range list {
		seen[v.identity(s)] = true
	}
	for i := len(v.ends) - 2; i >= 0; i-- {
		if err := v.ctx.Err(); err != nil {
			return nil, err
		}
		old, err := v.oldSignatures(v.ends[i])
		if err != nil {
			return nil, err
		}
		for _, s := range old {
			if id := v.identity(s); !seen[id] {
				seen[id] = true
				list = append(list, s)
			}
		}
		if len(list) > maxSignatures {
			break
		}
	}
	if len(list) > maxSignatures {
		return nil, &pdf.LimitError{What: "the document has too many signatures", Limit: maxSignatures}
	}
	return list, nil
}

// oldSignatures reads the document as it once was. A revision that cannot be read by itself, such as the first half of a linearized file, holds no
// signature that anyone could have checked.
func (v *verifier) oldSignatures(end int64) ([]found, error) {
	if end <= 0 || end > v.doc.Size() {
		return nil, nil
	}
	old, err := v.revision(end)
	if err == nil {
		var list []found
		if list, err = old.signatures(); err == nil {
			return list, nil
		}
	}
	if isFault(err) && !isLimit(err) {
		return nil, nil
	}
	return nil, err
}

// identity tells signatures apart across revisions.
func (v *verifier) identity(s found) string {
	id, ok := v.identities[s.dict]
	if !ok {
		contents, _ := s.dict.Get("Contents").(pdf.Raw)
		sum := sha256.Sum256(contents)
		id = fmt.Sprintf("%v %x", s.dict.Get("ByteRange"), sum)
		v.identities[s.dict] = id
	}
	return id
}

// signatureFields lists the fields of type Sig that have a signature dictionary as value.
func signatureFields(file *pdf.File) ([]found, error) {
	fields, err := file.Form()
	if err != nil {
		return nil, err
	}
	var list []found
	for _, field := range fields {
		if field.Type != "Sig" {
			continue
		}
		dict, err := signatureDict(file, field.Value)
		if err != nil {
			return nil, err
		}
		if dict != nil {
			list = append(list, found{field: field, dict: dict, file: file})
		}
	}
	return list, nil
}

// signatureDict returns a signature dictionary with its entries resolved one level, or nil when v is none. One that is the same in two revisions is the
// same one here, unless an entry stands elsewhere.
func signatureDict(file *pdf.File, v any) (*pdf.Dict, error) {
	dict, err := file.ResolveDict(v)
	if err != nil || dict == nil {
		return nil, err
	}
	resolved := dict
	for _, key := range []pdf.Name{"ByteRange", "Contents", "SubFilter", "Filter", "M", "Name", "Reason", "Location", "Cert"} {
		ref, ok := dict.Get(key).(pdf.Ref)
		if !ok {
			continue
		}
		value, err := file.Resolve(ref)
		if err != nil {
			return nil, err
		}
		if resolved == dict {
			resolved = dict.Clone()
		}
		if value == nil {
			resolved.Delete(key)
		} else {
			resolved.Set(key, value)
		}
	}
	return resolved, nil
}

// checkTail looks for bytes behind the last revision: no part of the document, and covered by nothing.
func (v *verifier) checkTail() error {
	if len(v.ends) == 0 {
		return nil
	}
	end := v.ends[len(v.ends)-1]
	for _, s := range v.report.Signatures {
		if len(s.ByteRange) == 4 {
			end = max(end, s.ByteRange[2]+s.ByteRange[3])
		}
	}
	blank, err := isBlank(v.doc, end, v.doc.Size())
	if err == nil && !blank {
		v.report.add(CodeTrailingData, Indeterminate, fmt.Sprintf("bytes %d to %d stand behind the end of the document", end, v.doc.Size()))
	}
	return err
}

// maxTail is how many bytes of white space may follow a document.
const maxTail = 64 << 10

func isBlank(r io.ReaderAt, from, to int64) (bool, error) {
	if to-from > maxTail {
		return false, nil
	}
	b := make([]byte, max(to-from, 0))
	if _, err := io.ReadFull(io.NewSectionReader(r, from, int64(len(b))), b); err != nil {
		return false, fmt.Errorf("read the end of the document: %w", err)
	}
	return !slices.ContainsFunc(b, func(c byte) bool { return c != ' ' && c != '\r' && c != '\n' && c != '\t' && c != 0 && c != '\f' }), nil
}
