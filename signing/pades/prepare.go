package pades

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dealseal/dealseal/pdf"
)

// Options say what signature to make.
type Options struct {
	Level Level // to be reached in the end; from B-T on, space for a time-stamp is reserved

	// Field is the name of the signature field. An empty field of that name is signed in its place on the page; where
	// there is none, one is made. Empty: a new field with a free name.
	Field string

	// Page (counted from 1; 0 means 1) and Rect (left, bottom, right, top in points of the page's own coordinates) are
	// for a new field only. A zero Rect makes it invisible.
	Page int
	Rect [4]float64

	// Text is shown in the field's box, the first line as a headline. It needs a box; a new visible field needs Text.
	Text []string

	// Picture is a PNG or JPEG that is shown beside Text, and Link is shown as a QR code; both may be empty.
	Picture []byte
	Link    string

	Name, Reason, Location, ContactInfo string    // of the signature dictionary; empty ones are left out
	Time                                time.Time // claimed time of signing, with the zone to show it in; required

	Hash  crypto.Hash         // SHA-256, SHA-384 or SHA-512; 0 means SHA-256
	PSS   bool                // RSA-PSS in the place of PKCS #1 v1.5; for RSA keys only
	Chain []*x509.Certificate // the signer's certificate, then those above it

	// Certify makes this a certification of the document, with 1 = no changes, 2 = forms and signatures or 3 = also
	// annotations allowed afterwards. It must be the first signature. 0: an approval signature.
	Certify int

	// Reserve is the space for the CMS in bytes; 0 computes it from the chain, the key and TimestampReserve, which is
	// the space for the time-stamp token; 0 means 12 KiB. More costs two bytes in the file each.
	Reserve, TimestampReserve int
}

const defaultTimestampReserve = 12 << 10

// Prepare stages a signature for doc. It reads doc twice at most: some objects of it, and once all bytes for the
// digests; it holds only the tail. Errors are *RefusedError and those of package pdf, all permanent, or those of
// reading doc and of ctx.
func Prepare(ctx context.Context, doc Document, o Options) (*Prepared, error) {
	algorithm, err := o.check()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := pdf.Open(doc, doc.Size())
	if err != nil {
		return nil, err
	}
	reserve, err := o.reserve(algorithm)
	if err != nil {
		return nil, err
	}
	b := &builder{file: file, update: file.Update(), o: o, contents: contentsPlaceholder(reserve), byteRange: byteRangePlaceholder()}
	if err := b.build(); err != nil {
		return nil, err
	}
	p := &Prepared{Algorithm: algorithm}
	if p.Staged, err = b.stage(); err != nil {
		return nil, err
	}
	p.setChain(o.Chain)
	if p.DocumentDigest, err = p.digest(ctx, doc, algorithm.Hash); err != nil {
		return nil, err
	}
	return p, p.setDigest(o.Chain[0])
}

// check refuses options that cannot be met, and sets the defaults.
func (o *Options) check() (Algorithm, error) {
	switch {
	case !o.Level.AtLeast(BB):
		return Algorithm{}, refuse("there is no level %q; use %s, %s, %s or %s", o.Level, BB, BT, BLT, BLTA)
	case len(o.Chain) == 0 || o.Chain[0] == nil:
		return Algorithm{}, refuse("there is no signer certificate")
	case o.Time.IsZero():
		return Algorithm{}, refuse("the time of signing is missing")
	case o.Certify < 0 || o.Certify > 3:
		return Algorithm{}, refuse("certify is %d; it can be 0 (no), 1, 2 or 3", o.Certify)
	case o.Page < 0:
		return Algorithm{}, refuse("there is no page %d; pages are counted from 1", o.Page)
	case o.Reserve < 0 || o.TimestampReserve < 0:
		return Algorithm{}, refuse("the reserved space cannot be negative")
	}
	if err := o.checkStrings(); err != nil {
		return Algorithm{}, err
	}
	if o.Hash == 0 {
		o.Hash = crypto.SHA256
	}
	if o.Page == 0 {
		o.Page = 1
	}
	return AlgorithmFor(o.Chain[0].PublicKey, o.Hash, o.PSS)
}

// checkStrings refuses strings that would come out of the document different from what they are.
func (o *Options) checkStrings() error {
	for _, s := range []struct{ what, text string }{
		{"the field's name", o.Field}, {"the signer's name", o.Name}, {"the reason", o.Reason},
		{"the location", o.Location}, {"the contact", o.ContactInfo},
	} {
		if !utf8.ValidString(s.text) || strings.ContainsFunc(s.text, unicode.IsControl) {
			return refuse("%s has a control character, or is not UTF-8", s.what)
		}
	}
	return nil
}

// reserve computes the space for the CMS: what it will be with the longest value, and the time-stamp.
func (o *Options) reserve(algorithm Algorithm) (int, error) {
	attributes, err := signedAttributes(make([]byte, o.Hash.Size()), o.Hash, o.Chain[0])
	if err != nil {
		return 0, err
	}
	longest := signedData{
		algorithm:  algorithm,
		chain:      o.Chain,
		attributes: attributes,
		value:      make([]byte, algorithm.maxValue(o.Chain[0].PublicKey)),
	}
	if o.Level.AtLeast(BT) {
		longest.token = make([]byte, o.TimestampReserve)
		if o.TimestampReserve == 0 {
			longest.token = make([]byte, defaultTimestampReserve)
		}
	}
	der, err := longest.encode()
	if err != nil {
		return 0, err
	}
	if o.Reserve == 0 {
		return len(der), nil
	}
	if need := len(der) - len(longest.token); o.Reserve < need {
		return 0, refuse("%d bytes are reserved for the signature, but even without a time-stamp it may need %d: raise the reserve", o.Reserve, need)
	}
	return o.Reserve, nil
}

// contentsPlaceholder is a hexadecimal string of zeros with space for so many bytes.
func contentsPlaceholder(bytes int) *pdf.Placeholder {
	return &pdf.Placeholder{Text: emptyPlace(2*bytes + 2)}
}

// byteRangePlaceholder has space for four numbers, of which the first is always 0.
func byteRangePlaceholder() *pdf.Placeholder {
	return &pdf.Placeholder{Text: fmt.Appendf(nil, "[0 %[1]*d %[1]*d %[1]*d]", byteRangeDigits, 0)}
}

const byteRangeDigits = 12

// stage writes the update, and the range of the file that its signature covers.
func (b *builder) stage() (s Staged, err error) {
	s = Staged{OriginalSize: b.file.Size(), ContentsLength: len(b.contents.Text), Field: b.fieldName}
	if s.Tail, err = b.update.Bytes(); err != nil {
		return s, err
	}
	s.ContentsOffset = int(b.contents.Offset - s.OriginalSize)
	return s, s.setByteRange(b.byteRange)
}

// setByteRange writes the range that covers the whole sealed file except for the contents (ISO 32000-1, 12.8.1).
func (s *Staged) setByteRange(placeholder *pdf.Placeholder) error {
	before := s.OriginalSize + int64(s.ContentsOffset)
	after := before + int64(s.ContentsLength)
	end := s.OriginalSize + int64(len(s.Tail))
	text := "[0 " + strconv.FormatInt(before, 10) + " " + strconv.FormatInt(after, 10) + " " + strconv.FormatInt(end-after, 10) + "]"
	if len(text) > len(placeholder.Text) {
		return refuse("the document is too long: %d bytes", end)
	}
	at := placeholder.Offset - s.OriginalSize
	space := s.Tail[at : at+int64(len(placeholder.Text))]
	for i := range space {
		space[i] = ' '
	}
	copy(space, text)
	return nil
}

// digest reads the original once, keeps its SHA-256, and returns the digest of all that is covered.
func (s *Staged) digest(ctx context.Context, doc Document, h crypto.Hash) ([]byte, error) {
	kinds := []crypto.Hash{crypto.SHA256, h}
	if h == crypto.SHA256 {
		// Sum leaves the state as it is, so one hash gives the digest of the original and then goes on.
		kinds = kinds[:1]
	}
	hashes, err := hashDocument(ctx, doc, kinds)
	if err != nil {
		return nil, err
	}
	s.OriginalSHA256 = hashes[0].Sum(nil)
	all := hashes[len(hashes)-1]
	all.Write(s.Tail[:s.ContentsOffset])
	all.Write(s.Tail[s.ContentsOffset+s.ContentsLength:])
	return all.Sum(nil), nil
}

// setDigest makes the signed attributes and their digest.
func (p *Prepared) setDigest(signer *x509.Certificate) error {
	var err error
	if p.SignedAttrs, err = signedAttributes(p.DocumentDigest, p.Algorithm.Hash, signer); err != nil {
		return err
	}
	h := p.Algorithm.Hash.New()
	h.Write(p.SignedAttrs)
	p.Digest = h.Sum(nil)
	p.made = &made{
		signer: signer, hash: p.Algorithm.Hash,
		documentDigest: bytes.Clone(p.DocumentDigest), attributes: bytes.Clone(p.SignedAttrs), digest: bytes.Clone(p.Digest),
	}
	return nil
}
