package verify

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/signing/verify/cms"
)

// Sub-filters of ISO 32000-2 that are judged. ETSI.CAdES.detached alone can reach a PAdES level.
const (
	subFilterPAdES     = "ETSI.CAdES.detached"
	subFilterPKCS7     = "adbe.pkcs7.detached"
	subFilterTimestamp = "ETSI.RFC3161"
)

// check is the judgement of one signature in the making.
type check struct {
	*verifier
	Signature
	found
	covers byteRange
	value  []byte // what the hole stands for, padding included
	signed *cms.SignedData
	signer *cms.Signer
	hash   crypto.Hash // what the covered bytes are to be hashed with; 0 when that proves nothing
	digest []byte      // of the covered bytes
	cert   *x509.Certificate
	sound  bool       // the cryptography holds, so that it makes sense to look at certificate and time
	stamps []*stamp   // of the signature, or the document time-stamp itself
	token  *tsa.Token // that proves the time; nil if none does
}

// read takes a signature apart. Errors are those of reading; everything else is a reason.
func (v *verifier) read(f found) (*check, error) {
	c := &check{verifier: v, found: f}
	c.Field, c.Verdict = f.field.Name, Valid
	c.describe()
	for _, step := range []func() (bool, error){c.checkRange, c.checkRevision, c.checkValue, c.checkForm} {
		if ok, err := step(); err != nil || !ok {
			return c, err
		}
	}
	return c, nil
}

// describe copies what the signature says of itself.
func (c *check) describe() {
	c.Kind = KindSignature
	name, _ := c.dict.Get("SubFilter").(pdf.Name)
	c.SubFilter = string(name)
	if c.SubFilter == subFilterTimestamp {
		c.Kind = KindDocumentTimestamp
	}
	c.Name, c.Reason, c.Location = words(c.dict.Get("Name")), words(c.dict.Get("Reason")), words(c.dict.Get("Location"))
	if at, err := parseDate(pdf.Text(c.dict.Get("M"))); err == nil {
		c.ClaimedTime = &at
	}
}

// maxWords bounds each of the texts that a report repeats from the document.
const maxWords = 500

func words(v any) string {
	text := []rune(pdf.Text(v))
	return string(text[:min(len(text), maxWords)])
}

// checkRange makes sure that all but the signature's own value is covered.
func (c *check) checkRange() (bool, error) {
	list, _ := c.dict.Get("ByteRange").(pdf.Array)
	b, err := parseByteRange(list, c.doc.Size())
	if err != nil {
		c.add(CodeByteRange, Invalid, err.Error())
		return false, nil
	}
	value, err := readHole(c.doc, b)
	var bad *holeError
	switch {
	case errors.As(err, &bad):
		c.add(CodeByteRange, Invalid, err.Error())
		return false, nil
	case err != nil:
		return false, err
	}
	contents, ok := pdf.StringBytes(c.dict.Get("Contents"))
	if !ok || !bytes.Equal(contents, value) {
		c.add(CodeByteRange, Invalid, "what the ByteRange leaves out is not the value of this signature")
		return false, nil
	}
	c.covers, c.value, c.ByteRange = b, value, b.list()
	c.CoversWholeFile = b.end == c.doc.Size()
	return true, nil
}

// checkRevision reads the document as it was when it was signed, that is the covered bytes alone, and looks for this very signature in it. A signature
// dictionary that was added later and points back at the value of another one is found out here: it is not in the revision that it claims to sign. From
// here on the dictionary of that revision is the one that counts.
func (c *check) checkRevision() (bool, error) {
	then, err := c.revision(c.covers.end)
	var fields []found
	if err == nil {
		fields, err = then.signatures()
	}
	var bad documentError
	switch {
	case errors.As(err, &bad):
		c.add(CodeByteRange, Invalid, "the covered bytes are not a whole document by themselves: "+err.Error())
		return false, nil
	case err != nil:
		return false, err
	}
	for i, end := range c.ends {
		// The line end behind %%EOF may have come later.
		if c.covers.end <= end && c.covers.end >= end-2 {
			c.Revision = i + 1
		}
	}
	for _, f := range fields {
		if c.verifier.identity(f) == c.verifier.identity(c.found) && f.field.Name == c.Field {
			c.found = f
			c.describe()
			return true, nil
		}
	}
	c.add(CodeByteRange, Invalid, "the signature is not in the revision that it covers: it was put there later")
	return false, nil
}

// checkValue takes the CMS structure out of its padding.
func (c *check) checkValue() (bool, error) {
	length, err := cms.ElementLength(c.value)
	if err == nil && len(bytes.Trim(c.value[length:], "\x00")) > 0 {
		err = errors.New("bytes other than zero follow it")
	}
	if err == nil {
		c.signed, err = cms.Parse(c.value[:length])
	}
	if err == nil && len(c.signed.Signers) != 1 {
		err = fmt.Errorf("it has %d signers instead of one", len(c.signed.Signers))
	}
	if err != nil {
		c.add(CodeMalformedCMS, Invalid, "the signature value: "+err.Error())
		return false, nil
	}
	c.value = c.value[:length]
	c.signer = c.signed.Signers[0]
	c.Digest, c.Algorithm = c.signer.DigestName(), c.signer.AlgorithmName()
	return true, nil
}

// checkForm finds out what the covered bytes are to be hashed with.
func (c *check) checkForm() (bool, error) {
	if c.Kind == KindDocumentTimestamp {
		token, err := tsa.ParseToken(c.value)
		if err != nil {
			c.add(CodeMalformedCMS, Invalid, err.Error())
			return false, nil
		}
		c.hash, c.stamps = token.Hash, []*stamp{{token: token, check: c}}
		return true, nil
	}
	if c.SubFilter != subFilterPAdES && c.SubFilter != subFilterPKCS7 {
		c.add(CodeUnsupported, Indeterminate, fmt.Sprintf("signatures of sub-filter %q are not judged", c.SubFilter))
		return false, nil
	}
	if c.signed.Content != nil {
		c.add(CodeMalformedCMS, Invalid, "the signature carries a content of its own beside the document")
		return false, nil
	}
	c.hash = c.signer.Hash
	return c.judge(c.signer.CheckDigest(), CodeUnsupported), nil
}

// checkProof checks the cryptography, once the covered bytes have been hashed.
func (c *check) checkProof() {
	switch {
	case c.digest == nil: // there was nothing to hash
	case c.Kind == KindDocumentTimestamp:
		c.sound = c.checkDocumentTimestamp()
	default:
		if c.sound = c.checkSigner(); c.sound {
			c.readTimestamps()
		}
	}
}

// checkSigner checks the signature itself: digest, attributes, key.
func (c *check) checkSigner() bool {
	if !c.judge(c.signer.CheckContent(cms.OIDData, c.digest), CodeDigest) {
		return false
	}
	if c.cert = c.signed.Certificate(c.signer); c.cert == nil {
		c.add(CodeNoCertificate, Indeterminate, "the certificate of the signer is not in the signature")
		return false
	}
	described := describeCertificate(c.cert)
	c.Signer = &described
	if !c.judge(c.signer.CheckSignature(c.cert), CodeSignature) {
		return false
	}
	switch err := c.signer.CheckSigningCertificate(c.cert); {
	case c.signer.HasSigningCertificate() && errors.Is(err, cms.ErrUnsupported):
		return c.judge(err, CodeUnsupported)
	case c.signer.HasSigningCertificate() && err != nil:
		c.add(CodeSigningCert, Indeterminate, err.Error())
		return false
	case c.SubFilter == subFilterPAdES:
		return c.judge(err, CodeNotBound)
	}
	return true
}

// judge turns an error of the CMS reader into a reason and reports whether there was none.
func (c *check) judge(err error, code Code) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, cms.ErrWeak):
		c.add(CodeWeak, Indeterminate, err.Error())
	case errors.Is(err, cms.ErrUnsupported):
		c.add(CodeUnsupported, Indeterminate, err.Error())
	default:
		c.add(code, Invalid, err.Error())
	}
	return false
}

// checkDocumentTimestamp checks a token over the document (ISO 32000-2).
func (c *check) checkDocumentTimestamp() bool {
	err := c.stamps[0].token.Check(c.digest, c.hash)
	var refused *tsa.TokenError
	switch {
	case err == nil:
		return true
	case errors.As(err, &refused) && refused.Code == tsa.CodeImprint:
		c.add(CodeDigest, Invalid, err.Error())
	case errors.As(err, &refused) && refused.Code == tsa.CodeSignature:
		c.add(CodeSignature, Invalid, err.Error())
	case errors.Is(err, cms.ErrWeak):
		c.add(CodeWeak, Indeterminate, err.Error())
	default:
		c.add(CodeUntrusted, Indeterminate, err.Error())
	}
	return false
}

// readTimestamps takes the signature-time-stamps, those over the signature value, from the unsigned attributes, and leaves out what is over
// something else, or damaged: that has been tampered with.
func (c *check) readTimestamps() {
	for _, value := range valuesOf(c.signer.Unsigned, cms.OIDTimeStampToken) {
		token, err := tsa.ParseToken(value)
		if err == nil {
			h := token.Hash.New()
			h.Write(c.signer.Signature)
			err = token.Check(h.Sum(nil), token.Hash)
		}
		if err != nil {
			c.refuseTimestamp(err)
			continue
		}
		c.stamps = append(c.stamps, &stamp{token: token, check: c})
	}
}

func valuesOf(l cms.Attributes, oid asn1.ObjectIdentifier) (values [][]byte) {
	for _, a := range l {
		if a.Type.Equal(oid) {
			values = append(values, a.Values...)
		}
	}
	return values
}

func (c *check) refuseTimestamp(err error) {
	var refused *tsa.TokenError
	if errors.As(err, &refused) {
		switch refused.Code {
		case tsa.CodeChain, tsa.CodePurpose, tsa.CodeUnsupported:
			c.add(CodeTimestampUntrusted, Valid, err.Error())
			return
		}
	}
	c.add(CodeTimestampBroken, Indeterminate, err.Error())
}

// checkLater looks at what came after this signature.
func (c *check) checkLater() error {
	if !c.sound {
		return nil
	}
	allowed, err := permissionsOf(c.found.file)
	if err != nil {
		return err
	}
	c.DocMDP = allowed.level
	blank, err := isBlank(c.doc, c.covers.end, c.doc.Size())
	if err != nil || blank {
		return err
	}
	reasons, changes, err := c.findChanges(c.found.file, allowed)
	if err != nil {
		return err
	}
	c.Changes = changes
	for _, r := range reasons {
		c.add(r.Code, r.Verdict, r.Text)
	}
	if len(reasons) == 0 {
		c.add(CodeLaterSignatures, Valid, "what was added afterwards is signatures, time-stamps or validation data and changes nothing else")
	}
	return nil
}

// judgeLevel finds which of the PAdES baseline levels B-B and B-T (ETSI EN 319 142-1) a signature reaches that is not disproven.
func (c *check) judgeLevel() {
	if c.Kind != KindSignature || c.Verdict == Invalid || !c.sound {
		return
	}
	why := ""
	switch {
	case c.SubFilter != subFilterPAdES:
		why = "the sub-filter is not " + subFilterPAdES
	case !c.signer.HasSigningCertificate():
		why = "there is no signing-certificate attribute"
	case c.signer.Signed.Has(cms.OIDSigningTime):
		why = "the CMS has a signing-time attribute"
	case c.ClaimedTime == nil:
		why = "the signature dictionary has no date /M"
	case c.dict.Has("Cert"):
		why = "the signature dictionary has an entry /Cert"
	case c.signer.Signed.Has(oidRevocationInfo):
		why = "the CMS has Adobe's attribute for revocation data"
	}
	for _, r := range c.Reasons {
		if r.Code == CodeUnsupported || r.Code == CodeWeak {
			return
		}
	}
	if why != "" {
		c.add(CodeNotBaseline, Valid, "no PAdES baseline level: "+why)
		return
	}
	c.Level = pades.BB
	if c.token != nil {
		c.Level = pades.BT
	}
}

var oidRevocationInfo = asn1.ObjectIdentifier{1, 2, 840, 113583, 1, 1, 8}
