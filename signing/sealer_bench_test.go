package signing

import (
	"context"
	"crypto"
	"testing"

	"github.com/dealseal/dealseal/signing/pades"
)

// BenchmarkSealWithoutTheKey is all that a B-B seal costs but for the key's own work: that is what the rate of seals falls
// behind the rate of the key by.
func BenchmarkSealWithoutTheKey(b *testing.B) {
	key := newKey(rsaKey(), nil)
	var value []byte // the document and the clock stand still, and so does the digest
	key.sign = func(digest []byte, opts crypto.SignerOpts) (_ []byte, err error) {
		key.signed = nil
		if value == nil {
			value, err = key.Signer.Sign(nil, digest, opts)
		}
		return value, err
	}
	s, doc := newSealer(key, nil), document()
	p := profile()
	p.Level = pades.BB
	b.ReportAllocs()
	for b.Loop() {
		t, err := s.Prepare(context.Background(), doc, Request{Profile: p})
		if err != nil {
			b.Fatal(err)
		}
		value, err := s.Redeem(context.Background(), t)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.Complete(t, value, nil); err != nil {
			b.Fatal(err)
		}
	}
}
