package pades

import (
	"encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// tlv encodes one element in DER (X.690, 10): its tag, its length, and the parts that it is made of.
func tlv(tag cbasn1.Tag, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := append(make([]byte, 0, n+6), byte(tag))
	switch {
	case n < 1<<7:
		b = append(b, byte(n))
	case n < 1<<8:
		b = append(b, 0x81, byte(n))
	case n < 1<<16:
		b = append(b, 0x82, byte(n>>8), byte(n))
	case n < 1<<24:
		b = append(b, 0x83, byte(n>>16), byte(n>>8), byte(n))
	default:
		b = append(b, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func sequence(parts ...[]byte) []byte { return tlv(cbasn1.SEQUENCE, parts...) }

func octets(content []byte) []byte { return tlv(cbasn1.OCTET_STRING, content) }

// integer encodes a number of any size.
func integer(n *big.Int) []byte {
	var b cryptobyte.Builder
	b.AddASN1BigInt(n)
	return b.BytesOrPanic() // a number can always be encoded
}

// small encodes a number from 0 to 127.
func small(n byte) []byte { return tlv(cbasn1.INTEGER, []byte{n}) }

func object(oid asn1.ObjectIdentifier) []byte {
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(oid)
	return b.BytesOrPanic() // all of ours can be encoded
}

var null = tlv(cbasn1.NULL)

func explicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
