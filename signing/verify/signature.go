package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

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
	cert   *x509.Certificate
	token  *tsa.Token // that proves the time; nil if none does
}

// signature judges one signature by itself. Errors are those of reading; everything else is a reason.
func (v *verifier) signature(f found) error {
	c := &check{verifier: v, found: f}
	c.Field, c.Verdict = f.field.Name, Valid
	c.describe()
	for _, step := range []func() (bool, error){c.checkRange, c.checkRevision, c.checkValue, c.checkProof, c.checkLater} {
		ok, err := step()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
	}
	c.judgeLevel()
	v.checks = append(v.checks, c)
	return nil
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
	file, err := pdf.Open(c.doc, c.covers.end)
	var fields []found
	if err == nil {
		fields, err = signatureFields(file)
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
		if f.identity() == c.identity() && f.field.Name == c.Field {
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

// checkProof checks what the kind of signature is to prove.
func (c *check) checkProof() (bool, error) {
	if c.Kind == KindDocumentTimestamp {
		return c.checkDocumentTimestamp()
	}
	if ok, err := c.checkSigner(); err != nil || !ok {
		return false, err
	}
	c.checkCertificate()
	return true, nil
}

// checkSigner checks the signature itself: digest, attributes, key.
func (c *check) checkSigner() (bool, error) {
	if c.SubFilter != subFilterPAdES && c.SubFilter != subFilterPKCS7 {
		c.add(CodeUnsupported, Indeterminate, fmt.Sprintf("signatures of sub-filter %q are not judged", c.SubFilter))
		return false, nil
	}
	if c.signer.Hash == 0 {
		c.add(CodeUnsupported, Indeterminate, "digest algorithm "+c.Digest)
		return false, nil
	}
	digest, err := c.covers.digest(c.ctx, c.doc, c.signer.Hash.New())
	if err != nil {
		return false, err
	}
	if c.signed.Content != nil {
		c.add(CodeMalformedCMS, Invalid, "the signature carries a content of its own beside the document")
		return false, nil
	}
	if !c.judge(c.signer.CheckContent(cms.OIDData, digest), CodeDigest) {
		return false, nil
	}
	if c.cert = c.signed.Certificate(c.signer); c.cert == nil {
		c.add(CodeNoCertificate, Indeterminate, "the certificate of the signer is not in the signature")
		return false, nil
	}
	described := describeCertificate(c.cert)
	c.Signer = &described
	if !c.judge(c.signer.CheckSignature(c.cert), CodeSignature) {
		return false, nil
	}
	if c.SubFilter == subFilterPAdES || c.signer.HasSigningCertificate() {
		return c.judge(c.signer.CheckSigningCertificate(c.cert), CodeSigningCert), nil
	}
	return true, nil
}

// judge turns an error of the CMS reader into a reason and reports whether there was none.
func (c *check) judge(err error, code Code) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, cms.ErrUnsupported):
		c.add(CodeUnsupported, Indeterminate, err.Error())
	default:
		c.add(code, Invalid, err.Error())
	}
	return false
}

// checkDocumentTimestamp judges a token over the document (ISO 32000-2).
func (c *check) checkDocumentTimestamp() (bool, error) {
	token, err := tsa.ParseToken(c.value)
	if err != nil {
		c.add(CodeMalformedCMS, Invalid, err.Error())
		return false, nil
	}
	digest, err := c.covers.digest(c.ctx, c.doc, token.Hash.New())
	if err != nil {
		return false, err
	}
	err = c.checkToken(token, digest)
	var refused *tsa.TokenError
	switch {
	case err == nil:
		c.prove(token)
	case errors.As(err, &refused) && refused.Code == tsa.CodeImprint:
		c.add(CodeDigest, Invalid, err.Error())
	case errors.As(err, &refused) && refused.Code == tsa.CodeSignature:
		c.add(CodeSignature, Invalid, err.Error())
	default:
		c.add(CodeUntrusted, Indeterminate, err.Error())
	}
	return true, nil
}

// clockSkew is how far ahead of our clock a TSA's may be.
const clockSkew = 5 * time.Minute

// checkToken checks all of a token. A revoked TSA is not found out here.
func (c *check) checkToken(token *tsa.Token, digest []byte) error {
	o := tsa.VerifyOptions{Roots: poolOf(c.options.TSARoots), Intermediates: c.options.Intermediates}
	if err := token.Verify(digest, token.Hash, o); err != nil {
		return err
	}
	if token.Time.After(c.options.Now.Add(clockSkew)) {
		return &tsa.TokenError{Code: tsa.CodeTime, Err: fmt.Errorf("its time %s is in the future", token.Time.Format(time.RFC3339))}
	}
	return nil
}

// prove records a token that holds.
func (c *check) prove(token *tsa.Token) {
	c.token = token
	c.Timestamp = &Timestamp{Time: token.Time, TSA: token.Certificate.Subject.String(), Serial: token.Serial.Text(16), Policy: token.Policy.String()}
}

// checkTimestamp looks for the earliest signature-time-stamp, one over the signature value, that holds. One of a TSA that is
// not trusted here proves nothing and harms nothing; one that is over something else, or damaged, has been tampered with.
func (c *check) checkTimestamp() {
	imprint := func(t *tsa.Token) []byte {
		d := t.Hash.New()
		d.Write(c.signer.Signature)
		return d.Sum(nil)
	}
	var earliest *tsa.Token
	for _, value := range c.timestampValues() {
		token, err := tsa.ParseToken(value)
		if err == nil {
			err = c.checkToken(token, imprint(token))
		}
		if err != nil {
			c.refuseTimestamp(err)
			continue
		}
		if earliest == nil || token.Time.Before(earliest.Time) {
			earliest = token
		}
	}
	if earliest != nil {
		c.prove(earliest)
	}
}

func (c *check) timestampValues() [][]byte {
	var values [][]byte
	for _, a := range c.signer.Unsigned {
		if a.Type.Equal(cms.OIDTimeStampToken) {
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

// checkCertificate builds the chain at the time that is proven: that of the time-stamp, else now.
func (c *check) checkCertificate() {
	c.checkTimestamp()
	at := c.options.Now
	if c.Timestamp != nil {
		at = c.Timestamp.Time
	}
	c.ValidatedAt = &at
	if code, err := checkChain(c.cert, c.signed.Certificates, c.options, at); err != nil {
		c.add(code, Indeterminate, err.Error())
	}
	if err := checkUsage(c.cert); err != nil {
		c.add(CodeKeyUsage, Indeterminate, err.Error())
	}
}

// checkLater looks at what came after this signature.
func (c *check) checkLater() (bool, error) {
	blank, err := isBlank(c.doc, c.covers.end, c.doc.Size())
	if err != nil || blank {
		return true, err
	}
	changes, err := findChanges(c.ctx, c.doc, c.found)
	if err != nil {
		return false, err
	}
	for _, change := range changes {
		c.add(change.Code, change.Verdict, change.Text)
	}
	if len(changes) == 0 {
		c.add(CodeLaterSignatures, Valid, "what was added afterwards is signatures, time-stamps or validation data and changes nothing else")
	}
	return true, nil
}

// judgeLevel finds which of the PAdES baseline levels B-B and B-T (ETSI EN 319 142-1) a signature reaches that is not disproven.
func (c *check) judgeLevel() {
	if c.Kind != KindSignature || c.Verdict == Invalid || c.cert == nil {
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
		if r.Code == CodeUnsupported {
			return
		}
	}
	if why != "" {
		c.add(CodeNotBaseline, Valid, "no PAdES baseline level: "+why)
		return
	}
	c.Level = pades.BB
	if c.Timestamp != nil {
		c.Level = pades.BT
	}
}

var oidRevocationInfo = asn1.ObjectIdentifier{1, 2, 840, 113583, 1, 1, 8}
