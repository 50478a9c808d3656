package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"

	p11 "github.com/miekg/pkcs11"
)

// rawToken is the token without anything of ours.
type rawToken struct {
	ctx       *p11.Ctx
	sessions  chan p11.SessionHandle
	key       p11.ObjectHandle
	mechanism uint
	prefix    []byte // of what is signed, before the digest
}

// maxSessions is the most that anything is measured with.
const maxSessions = 8

func openRaw(t *token) (*rawToken, error) {
	if err := os.Setenv("SOFTHSM2_CONF", t.conf); err != nil {
		return nil, err
	}
	r := &rawToken{ctx: p11.New(t.module), sessions: make(chan p11.SessionHandle, maxSessions), mechanism: p11.CKM_ECDSA}
	if r.ctx == nil {
		return nil, fmt.Errorf("%s cannot be loaded", t.module)
	}
	if err := r.ctx.Initialize(); err != nil {
		return nil, err
	}
	slots, err := r.ctx.GetSlotList(true)
	if err != nil || len(slots) == 0 {
		return nil, fmt.Errorf("no slot (%v)", err)
	}
	for i := range cap(r.sessions) {
		s, err := r.ctx.OpenSession(slots[0], p11.CKF_SERIAL_SESSION)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			if err := r.find(s, t.pin); err != nil {
				return nil, err
			}
		}
		r.sessions <- s
	}
	if t.keyType == rsa2048 {
		r.mechanism = p11.CKM_RSA_PKCS
		// A DigestInfo of SHA-256 (RFC 8017, section 9.2, note 1), as the product has it signed.
		r.prefix, err = hex.DecodeString("3031300d060960864801650304020105000420")
	}
	return r, err
}

func (r *rawToken) find(s p11.SessionHandle, pin string) error {
	if err := r.ctx.Login(s, p11.CKU_USER, pin); err != nil {
		return err
	}
	if err := r.ctx.FindObjectsInit(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY)}); err != nil {
		return err
	}
	found, _, err := r.ctx.FindObjects(s, 1)
	if err != nil || len(found) == 0 {
		return fmt.Errorf("no private key (%v)", err)
	}
	r.key = found[0]
	return r.ctx.FindObjectsFinal(s)
}

// sign has a digest signed that is always the same.
func (r *rawToken) sign() error {
	_, err := r.signDigest(make([]byte, crypto.SHA256.Size()))
	return err
}

func (r *rawToken) signDigest(digest []byte) ([]byte, error) {
	s := <-r.sessions
	defer func() { r.sessions <- s }()
	if err := r.ctx.SignInit(s, []*p11.Mechanism{p11.NewMechanism(r.mechanism, nil)}, r.key); err != nil {
		return nil, err
	}
	return r.ctx.Sign(s, append(slices.Clip(r.prefix), digest...))
}

// signChecked does for a document what a sealer has to do at least: hash it, have it signed and check the value.
func (r *rawToken) signChecked(doc []byte, public crypto.PublicKey) error {
	digest := sha256.Sum256(doc)
	value, err := r.signDigest(digest[:])
	if err != nil {
		return err
	}
	valid := false
	switch k := public.(type) {
	case *rsa.PublicKey:
		valid = rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], value) == nil
	case *ecdsa.PublicKey:
		half := len(value) / 2
		valid = ecdsa.Verify(k, digest[:], new(big.Int).SetBytes(value[:half]), new(big.Int).SetBytes(value[half:]))
	}
	if !valid {
		return fmt.Errorf("a value of the token does not verify with a %T", public)
	}
	return nil
}

func (r *rawToken) close() {
	r.ctx.Finalize()
	r.ctx.Destroy()
}

// rawRSA is the token's RSA key for those who take a crypto.Signer.
type rawRSA struct {
	*rawToken
	public crypto.PublicKey
}

func (r rawRSA) Public() crypto.PublicKey { return r.public }

func (r rawRSA) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return r.signDigest(digest)
}
