// Package webhooks speaks signed HTTP events: it delivers ours to the endpoints of tenants, and verifies those of others. It
// knows nothing of deals, CRMs or the database.
package webhooks

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Headers of the dialects that are both spoken and understood here.
const (
	HeaderSDF       = "X-SDF-Signature"
	HeaderCertyneo  = "Certyneo-Signature"
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// Prefixes of keys in the form of Standard Webhooks: a shared secret, and the two halves of an Ed25519 key pair.
const (
	prefixSecret  = "whsec_"
	prefixPrivate = "whsk_"
	prefixPublic  = "whpk_"
)

// mac is the HMAC-SHA256 over parts, one behind the other.
func mac(secret []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, secret)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// stamped is what most dialects sign: what stands before the body, joined by dots, and the body.
func stamped(body []byte, before ...string) []byte {
	return append([]byte(strings.Join(before, ".")+"."), body...)
}

// seconds is a time as most dialects write it.
func seconds(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// signSDF is the value of X-SDF-Signature: it is over the body alone.
func signSDF(secret, body []byte) string { return "sha256=" + hex.EncodeToString(mac(secret, body)) }

// signCertyneo is one v1 of Certyneo-Signature, in hexadecimal, over "time.body".
func signCertyneo(secret []byte, at time.Time, body []byte) string {
	return hex.EncodeToString(mac(secret, stamped(body, seconds(at))))
}

// signStandard is one v1 of webhook-signature, over "id.time.body".
func signStandard(secret []byte, id string, at time.Time, body []byte) string {
	return "v1," + base64.StdEncoding.EncodeToString(mac(secret, stamped(body, id, seconds(at))))
}

// signStandardKey is one v1a of webhook-signature, by Ed25519 over the same.
func signStandardKey(key ed25519.PrivateKey, id string, at time.Time, body []byte) string {
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(key, stamped(body, id, seconds(at))))
}

// standardSecret reads a shared secret of Standard Webhooks: base64, usually behind whsec_.
func standardSecret(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, prefixSecret))
	if err != nil {
		return nil, errors.New("it is not base64 behind " + prefixSecret) // what was given does not belong in a message
	}
	return key, nil
}

// standardPrivate reads a private key of Standard Webhooks: 32 bytes of seed, or these and the public key.
func standardPrivate(text string) (ed25519.PrivateKey, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, prefixPrivate))
	switch {
	case err != nil:
		return nil, errors.New("it is not base64 behind " + prefixPrivate)
	case len(b) == ed25519.SeedSize:
		return ed25519.NewKeyFromSeed(b), nil
	case len(b) == ed25519.PrivateKeySize && string(ed25519.NewKeyFromSeed(b[:ed25519.SeedSize])) == string(b):
		return b, nil
	}
	return nil, fmt.Errorf("it has %d bytes, and is no Ed25519 private key", len(b))
}

// standardPublic reads a public key of Standard Webhooks.
func standardPublic(text string) (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, prefixPublic))
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, errors.New("it is not 32 bytes of base64 behind " + prefixPublic)
	}
	return b, nil
}
