package webhooks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// isMAC compares in constant time.
func isMAC(key secret.Secret, got []byte, parts [][]byte) bool {
	return hmac.Equal(got, mac(key.Reveal(), parts...))
}

// isDigest compares with the SHA-256 of the secret and the parts.
func isDigest(key secret.Secret, got []byte, parts [][]byte) bool {
	h := sha256.New()
	h.Write(key.Reveal())
	for _, p := range parts {
		h.Write(p)
	}
	return subtle.ConstantTimeCompare(got, h.Sum(nil)) == 1
}

// isSignature reports whether sig is a signature over the parts: PKCS #1 v1.5 or ECDSA (ASN.1) with SHA-256, or Ed25519.
func isSignature(key crypto.PublicKey, sig []byte, parts [][]byte) bool {
	var message []byte
	for _, p := range parts {
		message = append(message, p...)
	}
	sum := sha256.Sum256(message)
	switch k := key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], sig)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	}
	return false
}

// stampBytes is a time in seconds as eight bytes, the most significant first.
func stampBytes(seconds int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(seconds)) }

// hex64 reads the 64 lower- or upper-case digits of an HMAC.
func hex64(text string) ([]byte, error) {
	if len(text) != 2*sha256.Size {
		return nil, errors.New("it has another length than an HMAC")
	}
	return hex.DecodeString(text)
}

// base64Strict reads one spelling of each value only.
func base64Strict(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // which the decoder passes over
		return nil, errors.New("it holds a line break")
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}

// parseStamp reads a time of the given unit (a second or a millisecond). Each unit has a length of its own, so that none
// is taken for the other.
func parseStamp(text string, unit time.Duration) (time.Time, error) {
	digits := 10
	if unit == time.Millisecond {
		digits = 13
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || len(text) != digits || n <= 0 || text[0] == '+' {
		return time.Time{}, errors.New("it is no time")
	}
	if unit == time.Millisecond {
		return time.UnixMilli(n), nil
	}
	return time.Unix(n, 0), nil
}

func formatStamp(t time.Time, unit time.Duration) string {
	if unit == time.Millisecond {
		return strconv.FormatInt(t.UnixMilli(), 10)
	}
	return strconv.FormatInt(t.Unix(), 10)
}
