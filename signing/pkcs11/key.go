package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/dealseal/dealseal/worker"
)

// Key is a private key in an HSM. It implements signing.Key and
// signing.ContextSigner, and is safe for concurrent use.
type Key struct {
	name    string
	token   string // as it is configured
	pool    *worker.Pool
	timeout time.Duration
	public  crypto.PublicKey
	spki    []byte // PKIX DER of public
	chain   []*x509.Certificate
	forget  func() // what is known of the key, because it is wrong
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Chain returns the certificate of the key and its issuers without the root;
// nothing if the key came from Bare.
func (k *Key) Chain() []*x509.Certificate { return append([]*x509.Certificate(nil), k.chain...) }

// Sign is SignContext without an outer context; the configured timeout bounds
// it. The reader is not used: the HSM has its own.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// SignContext signs digest, which opts.HashFunc has made: with RSA by PKCS#1
// v1.5, or PSS if opts is an *rsa.PSSOptions, with ECDSA otherwise, whose
// signature is ASN.1 DER. The value has been checked with the public key.
//
// A device that fails is tried once more, in a new process, within the
// timeout. The HSM may thus sign the same digest twice; one value is returned.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	r, data, err := k.request(digest, opts)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: key %q: %w", k.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	frame := worker.Frame{Op: opSign, Header: r.encode(), Body: data}
	reply, err := k.pool.Call(ctx, frame)
	if err != nil && isDeviceFailure(err) {
		reply, err = k.pool.Call(ctx, frame)
	}
	if hasCode(err, codeKey) {
		k.forget()
	}
	if err != nil {
		return nil, fmt.Errorf("pkcs11: key %q: %w", k.name, err)
	}
	value, err := k.check(r, digest, reply.Body, opts)
	if err != nil {
		k.forget()
		return nil, fmt.Errorf("pkcs11: key %q: %w", k.name, err)
	}
	return value, nil
}

// Touch asks the token whether the key is there, over every session that is idle, without using it. What can be mended is
// mended: a session that timed out, a login that was lost, a process that died or hangs.
func (k *Key) Touch(ctx context.Context) error {
	own := sha256.Sum256(k.spki)
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	frame := worker.Frame{Op: opTouch, Header: request{Key: own[:]}.encode()}
	_, err := k.pool.Call(ctx, frame)
	if err != nil && isDeviceFailure(err) {
		_, err = k.pool.Call(ctx, frame)
	}
	if hasCode(err, codeKey) {
		k.forget()
	}
	if err != nil {
		return fmt.Errorf("pkcs11: key %q: %w", k.name, err)
	}
	return nil
}

// Name says which key this is, and on which token, for the audit log.
func (k *Key) Name() string { return fmt.Sprintf("%s (token %s)", k.name, k.token) }

// isDeviceFailure reports whether a new process may cure err at once.
func isDeviceFailure(err error) bool {
	var crash *worker.CrashError
	if errors.As(err, &crash) {
		return true
	}
	var remote *worker.RemoteError
	return errors.As(err, &remote) && remote.Code() == codeDevice && !remote.Permanent()
}

func hasCode(err error, code string) bool {
	var coded interface{ Code() string }
	return errors.As(err, &coded) && coded.Code() == code
}

// request says how digest is to be signed, and with which bytes.
func (k *Key) request(digest []byte, opts crypto.SignerOpts) (request, []byte, error) {
	if opts == nil || !opts.HashFunc().Available() || opts.HashFunc().Size() != len(digest) {
		return request{}, nil, configError("a digest of %d bytes does not belong to its hash function", len(digest))
	}
	hash := opts.HashFunc()
	own := sha256.Sum256(k.spki)
	switch public := k.Public().(type) {
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return request{Key: own[:], Scheme: schemePSS, Hash: uint(hash), Salt: saltLength(pss, public)}, digest, nil
		}
		prefix, ok := digestInfo(hash)
		if !ok {
			return request{}, nil, configError("PKCS#1 v1.5 with %v is not supported", hash)
		}
		return request{Key: own[:], Scheme: schemePKCS1}, append(prefix, digest...), nil
	case *ecdsa.PublicKey:
		// FIPS 186-5, section 6.4.1: the leftmost bits, as many as the order
		// has. All our orders but that of P-521 have whole bytes, and no digest
		// is longer than that one.
		size := (public.Curve.Params().BitSize + 7) / 8
		return request{Key: own[:], Scheme: schemeECDSA}, digest[:min(len(digest), size)], nil
	}
	return request{}, nil, configError("keys of type %T are not supported", k.Public())
}

func saltLength(o *rsa.PSSOptions, public *rsa.PublicKey) int {
	switch o.SaltLength {
	case rsa.PSSSaltLengthAuto:
		return (public.N.BitLen()-1+7)/8 - 2 - o.Hash.Size()
	case rsa.PSSSaltLengthEqualsHash:
		return o.Hash.Size()
	}
	return o.SaltLength
}

// digestInfo is the DER in front of a digest in PKCS#1 v1.5 (RFC 8017, section
// 9.2, note 1).
func digestInfo(h crypto.Hash) ([]byte, bool) {
	var last byte // of the object identifier 2.16.840.1.101.3.4.2.x
	switch h {
	case crypto.SHA256:
		last = 1
	case crypto.SHA384:
		last = 2
	case crypto.SHA512:
		last = 3
	default:
		return nil, false
	}
	size := byte(h.Size())
	return []byte{0x30, 17 + size, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, last, 5, 0, 4, size}, true
}

// check brings raw into the form that callers expect and verifies it.
func (k *Key) check(r request, digest, raw []byte, opts crypto.SignerOpts) ([]byte, error) {
	valid, value := false, raw
	switch public := k.Public().(type) {
	case *rsa.PublicKey:
		if r.Scheme == schemePSS {
			valid = rsa.VerifyPSS(public, opts.HashFunc(), digest, raw, &rsa.PSSOptions{SaltLength: r.Salt, Hash: opts.HashFunc()}) == nil
		} else {
			valid = rsa.VerifyPKCS1v15(public, opts.HashFunc(), digest, raw) == nil
		}
	case *ecdsa.PublicKey:
		der, err := derSignature(raw)
		if err != nil {
			return nil, err
		}
		value, valid = der, ecdsa.VerifyASN1(public, digest, der)
	}
	if !valid {
		return nil, errors.New("the HSM returned a signature that its public key does not verify: the certificate is for another key, or the device is faulty")
	}
	return value, nil
}

// derSignature makes the Ecdsa-Sig-Value of RFC 3279, section 2.2.3, from r
// and s side by side, as CKM_ECDSA gives them.
func derSignature(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fmt.Errorf("the HSM returned an ECDSA signature of %d bytes", len(raw))
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}
