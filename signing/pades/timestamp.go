package pades

import (
	"context"
	"crypto"

	"github.com/dealseal/dealseal/pdf"
)

// TimestampOptions say what document time-stamp to make.
type TimestampOptions struct {
	Hash    crypto.Hash // of the imprint: SHA-256, SHA-384 or SHA-512; 0 means SHA-256
	Reserve int         // space for the token in bytes; 0 means 12 KiB
}

// PreparedTimestamp is a DocTimeStamp that lacks its token. It goes through JSON unchanged, so that it can be staged and
// survive a restart.
type PreparedTimestamp struct {
	Staged
	Hash   crypto.Hash
	Digest []byte // over the file without the hexadecimal string: the imprint of the token
}

// PrepareTimestamp stages a document time-stamp (ISO 32000-2, 12.8.5) over all of doc, in an invisible field of its own.
// It is no change that a certification could forbid: it adds proof and nothing else. Errors are those of [Prepare].
func PrepareTimestamp(ctx context.Context, doc Document, o TimestampOptions) (*PreparedTimestamp, error) {
	if o.Hash == 0 {
		o.Hash = crypto.SHA256
	}
	if _, err := hashOID(o.Hash); err != nil {
		return nil, err
	}
	if o.Reserve == 0 {
		o.Reserve = defaultTimestampReserve
	}
	if o.Reserve < 0 {
		return nil, refuse("the reserved space cannot be negative")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := pdf.Open(doc, doc.Size())
	if err != nil {
		return nil, err
	}
	b := &builder{file: file, update: file.Update(), o: Options{Page: 1}, contents: contentsPlaceholder(o.Reserve), byteRange: byteRangePlaceholder()}
	if err := b.buildTimestamp(); err != nil {
		return nil, err
	}
	p := &PreparedTimestamp{Hash: o.Hash}
	if p.Staged, err = b.stage(); err != nil {
		return nil, err
	}
	p.Digest, err = p.digest(ctx, doc, o.Hash)
	return p, err
}

// buildTimestamp makes a document time-stamp: like a signature, but that nobody has signed.
func (b *builder) buildTimestamp() error {
	if err := b.open(); err != nil {
		return err
	}
	ref := b.update.Alloc()
	b.fieldName = b.freeName("Timestamp")
	if err := b.newField(ref); err != nil {
		return err
	}
	b.update.Put(ref, pdf.D(
		"Type", pdf.Name("DocTimeStamp"),
		"Filter", pdf.Name("Adobe.PPKLite"),
		"SubFilter", pdf.Name("ETSI.RFC3161"),
		"ByteRange", b.byteRange,
		"Contents", b.contents,
	))
	return b.finish()
}

// Embed completes the time-stamp with the DER of an RFC 3161 TimeStampToken over Digest, whose check is the caller's. It
// returns the bytes to append to the original. The receiver is not changed.
func (p *PreparedTimestamp) Embed(token []byte) (tail []byte, err error) {
	if err := p.checkPlace(); err != nil {
		return nil, err
	}
	if len(p.Digest) != p.Hash.Size() {
		return nil, refuse("the staged time-stamp has a digest of %d bytes", len(p.Digest))
	}
	if err := checkToken(token); err != nil {
		return nil, err
	}
	return p.fill(token)
}
