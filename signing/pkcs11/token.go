package pkcs11

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/dealseal/dealseal/secret"
)

// token is a module that has been initialised, with the slot and key that were
// configured. Its methods may be called concurrently on different sessions.
type token struct {
	setup
	ctx    *pkcs11.Ctx
	slot   uint
	label  string
	serial string
	pin    secret.Secret
	needs  bool // a login
	login  sync.Mutex
	logins atomic.Int64 // that the token accepted
	out    io.Writer    // for the daemon's log
}

// Bounds on what a token is asked for.
const (
	maxCertificates = 64
	maxCertificate  = 64 << 10
	maxShownTokens  = 8
)

// openToken loads the module and finds the token.
func openToken(s setup, out io.Writer) (*token, error) {
	ctx := pkcs11.New(s.Module)
	if ctx == nil {
		return nil, configError("%s is not a PKCS#11 library that can be loaded here: wrong architecture, or a library that it needs is missing or outside the sandbox", s.Module)
	}
	if err := ctx.Initialize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return nil, escalated("the module does not initialise", err)
	}
	t := &token{setup: s, ctx: ctx, out: out}
	if err := t.find(); err != nil {
		return nil, err
	}
	if s.PIN.IsZero() {
		if t.needs {
			return nil, configError("token %q wants a login and no PIN is configured", t.label)
		}
		return t, nil
	}
	pin, err := s.PIN.Resolve()
	if err != nil {
		return nil, configError("the PIN: %v", err)
	}
	t.pin = pin
	return t, nil
}

// find looks for the one token with the configured label and serial number.
// Not to find it is no permanent error: it may come back.
func (t *token) find() error {
	slots, err := t.ctx.GetSlotList(true)
	if err != nil {
		return escalated("the list of slots", err)
	}
	var found int
	var seen []string
	for _, slot := range slots {
		info, err := t.ctx.GetTokenInfo(slot)
		if err != nil {
			continue // a token that cannot be read is not ours
		}
		label, serial := strings.TrimRight(info.Label, " \x00"), strings.TrimRight(info.SerialNumber, " \x00")
		if label == "" && serial == "" {
			continue // SoftHSM shows an empty slot as a token that is not initialised
		}
		if len(seen) < maxShownTokens {
			seen = append(seen, fmt.Sprintf("%q (serial %q)", label, serial))
		}
		if t.Token != "" && label != t.Token || t.Serial != "" && serial != t.Serial {
			continue
		}
		found++
		t.slot, t.label, t.serial = slot, label, serial
		t.needs = info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0
	}
	switch {
	case found > 1:
		return configError("%d tokens fit: configure the serial number too", found)
	case found == 1:
		return nil
	case len(seen) == 0:
		return &agentError{code: codeDevice, text: "the module shows no token: is it plugged in or reachable? (A module that speaks to a service needs local_sockets or network; its own configuration may need read paths)"}
	}
	return &agentError{code: codeDevice, text: "the configured token is not there; the module shows " + strings.Join(seen, ", ")}
}

// ensureLogin logs in on any session; it counts for all of the process.
func (t *token) ensureLogin(session pkcs11.SessionHandle) error {
	if t.pin.IsZero() {
		return nil
	}
	t.login.Lock()
	defer t.login.Unlock()
	// Most calls come while others are logged in; a state says so without
	// presenting the PIN.
	in, err := t.loggedIn(session)
	if in {
		return nil
	}
	if err != nil && cureOf(err) == cureSession {
		return err // no PIN is presented over a session that has gone
	}
	if err := t.presentPIN(session, pkcs11.CKU_USER); err != nil {
		return err
	}
	t.logins.Add(1)
	return nil
}

func (t *token) loggedIn(session pkcs11.SessionHandle) (bool, error) {
	info, err := t.ctx.GetSessionInfo(session)
	return err == nil && (info.State == pkcs11.CKS_RO_USER_FUNCTIONS || info.State == pkcs11.CKS_RW_USER_FUNCTIONS), err
}

// stayedLoggedIn reports whether nobody had to log in again since the count was so much. A token ends the login of all
// sessions at once: what one of them saw meanwhile, half of a key or none, says nothing about the token.
func (t *token) stayedLoggedIn(session pkcs11.SessionHandle, logins int64) bool {
	if t.pin.IsZero() {
		return true
	}
	t.login.Lock()
	defer t.login.Unlock()
	in, _ := t.loggedIn(session)
	return in && t.logins.Load() == logins
}

// authenticateOperation is the login that keys with CKA_ALWAYS_AUTHENTICATE
// want between C_SignInit and C_Sign.
func (t *token) authenticateOperation(session pkcs11.SessionHandle) error {
	t.login.Lock()
	defer t.login.Unlock()
	return t.presentPIN(session, pkcs11.CKU_CONTEXT_SPECIFIC)
}

// presentPIN is the only place that gives the PIN to the token.
func (t *token) presentPIN(session pkcs11.SessionHandle, user uint) error {
	memory, err := openRefusals(t.StateDir, t.serial, t.label)
	if err != nil {
		return err
	}
	defer memory.close()
	if err := t.mayTry(memory); err != nil {
		return err
	}
	err = t.ctx.Login(session, user, t.pin.RevealString())
	switch {
	case err == nil, errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)):
		if err := memory.clear(); err != nil {
			return escalated("forgetting refused PINs", err)
		}
		return nil
	case cureOf(err) == curePerson:
		refusal := &agentError{code: codePIN, permanent: true, cause: err,
			text: fmt.Sprintf("token %q refuses the PIN of %s; it is not presented again until it is another one", t.label, t.PIN)}
		if err := memory.add(t.pin.Reveal()); err != nil {
			refusal.text += fmt.Sprintf(" (but that could not be remembered: %v)", err)
		}
		return refusal
	}
	return escalated("login", err)
}

// mayTry refuses to present a PIN that was refused before, or that would be
// the last try.
func (t *token) mayTry(memory *refusals) error {
	at, known, err := memory.has(t.pin.Reveal())
	if err != nil {
		return err
	}
	if known {
		return &agentError{code: codePIN, permanent: true, text: fmt.Sprintf(
			"token %q refused the PIN of %s at %s; it is not presented again, so that the token does not lock: correct the PIN, or, if the token's PIN has been changed to it since, remove %s",
			t.label, t.PIN, at.Format(time.RFC3339), memory.file.Name())}
	}
	info, err := t.ctx.GetTokenInfo(t.slot)
	if err != nil {
		return escalated("the state of the token", err)
	}
	if info.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0 {
		// Not by us with this PIN, or we would remember. It may be right.
		fmt.Fprintf(t.out, "token %q: a wrong PIN has been presented since the last login\n", t.label)
	}
	switch {
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return &agentError{code: codePIN, permanent: true, text: fmt.Sprintf("the PIN of token %q is locked: unlock it with the vendor's tool", t.label)}
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return &agentError{code: codePIN, permanent: true, text: fmt.Sprintf("token %q has one try left before it locks, and that one is not for a program: log in once with the vendor's tool, which resets the count", t.label)}
	}
	return nil
}

// key is the private key as one session sees it.
type key struct {
	handle pkcs11.ObjectHandle
	always bool   // CKA_ALWAYS_AUTHENTICATE
	public []byte // PKIX DER, nil if the token does not give it
}

// findKey searches the one private key with the configured label and ID.
func (t *token) findKey(session pkcs11.SessionHandle) (key, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}
	if t.Label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.Label))
	}
	if t.ID != "" {
		id, err := hex.DecodeString(t.ID)
		if err != nil {
			return key{}, configError("the key's id: %v", err)
		}
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	}
	handles, err := t.search(session, template, 2)
	if err != nil {
		return key{}, err
	}
	switch len(handles) {
	case 0:
		return key{}, configError("token %q has no private key with label %q and id %q (an empty one means any)", t.label, t.Label, t.ID)
	case 2:
		return key{}, configError("token %q has several private keys with label %q and id %q: give the other one too", t.label, t.Label, t.ID)
	}
	k := key{handle: handles[0]}
	// Both attributes may be missing; the default of this one is false.
	if value, ok := t.attribute(session, k.handle, pkcs11.CKA_ALWAYS_AUTHENTICATE); ok && len(value) == 1 {
		k.always = value[0] != 0
	}
	if k.public, err = t.publicKey(session, k.handle); err != nil {
		return key{}, err
	}
	return k, nil
}

func (t *token) search(session pkcs11.SessionHandle, template []*pkcs11.Attribute, limit int) ([]pkcs11.ObjectHandle, error) {
	if err := t.ctx.FindObjectsInit(session, template); err != nil {
		return nil, err
	}
	handles, _, err := t.ctx.FindObjects(session, limit)
	if final := t.ctx.FindObjectsFinal(session); err == nil {
		err = final
	}
	return handles, err
}

// attribute reads one attribute, if the object has it and shows it.
func (t *token) attribute(session pkcs11.SessionHandle, object pkcs11.ObjectHandle, kind uint) ([]byte, bool) {
	got, err := t.ctx.GetAttributeValue(session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	if err != nil || len(got) != 1 || len(got[0].Value) == 0 {
		return nil, false
	}
	return got[0].Value, true
}

// publicKey returns the public half of a private key: from the key itself,
// from the public key object with its CKA_ID, or nil if neither tells.
func (t *token) publicKey(session pkcs11.SessionHandle, private pkcs11.ObjectHandle) ([]byte, error) {
	objects := []pkcs11.ObjectHandle{private}
	if id, ok := t.attribute(session, private, pkcs11.CKA_ID); ok {
		others, err := t.search(session, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
			pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		}, 1)
		if err != nil {
			return nil, err
		}
		objects = append(objects, others...)
	}
	for _, object := range objects {
		public := t.rsaKey(session, object)
		if public == nil {
			public = t.ecKey(session, object)
		}
		if public != nil {
			return x509.MarshalPKIXPublicKey(public)
		}
	}
	return nil, nil
}

func (t *token) rsaKey(session pkcs11.SessionHandle, object pkcs11.ObjectHandle) any {
	modulus, ok := t.attribute(session, object, pkcs11.CKA_MODULUS)
	exponent, also := t.attribute(session, object, pkcs11.CKA_PUBLIC_EXPONENT)
	if !ok || !also || len(exponent) > 4 {
		return nil
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(new(big.Int).SetBytes(exponent).Int64())}
}

func (t *token) ecKey(session pkcs11.SessionHandle, object pkcs11.ObjectHandle) any {
	params, ok := t.attribute(session, object, pkcs11.CKA_EC_PARAMS)
	point, also := t.attribute(session, object, pkcs11.CKA_EC_POINT)
	if !ok || !also {
		return nil
	}
	if public, err := parsePoint(params, point); err == nil {
		return public
	}
	return nil
}

// parsePoint reads CKA_EC_PARAMS, an object identifier, and CKA_EC_POINT, an
// uncompressed point in an OCTET STRING or, from some modules, bare.
func parsePoint(params, point []byte) (*ecdsa.PublicKey, error) {
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &oid); err != nil || len(rest) > 0 {
		return nil, errors.New("the curve is not named by an object identifier")
	}
	curve := curveOf(oid)
	if curve == nil {
		return nil, fmt.Errorf("curve %v is not supported", oid)
	}
	var octets []byte
	if rest, err := asn1.Unmarshal(point, &octets); err == nil && len(rest) == 0 {
		point = octets
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

// curveOf knows the curves of RFC 5480, section 2.1.1.1, that Go has.
func curveOf(oid asn1.ObjectIdentifier) elliptic.Curve {
	switch oid.String() {
	case "1.2.840.10045.3.1.7":
		return elliptic.P256()
	case "1.3.132.0.34":
		return elliptic.P384()
	case "1.3.132.0.35":
		return elliptic.P521()
	}
	return nil
}

// certificates returns the certificates on the token, DER, unparsed.
func (t *token) certificates(session pkcs11.SessionHandle) ([][]byte, error) {
	handles, err := t.search(session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_CERTIFICATE),
		pkcs11.NewAttribute(pkcs11.CKA_CERTIFICATE_TYPE, pkcs11.CKC_X_509),
	}, maxCertificates)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, handle := range handles {
		if der, ok := t.attribute(session, handle, pkcs11.CKA_VALUE); ok && len(der) <= maxCertificate {
			all = append(all, der)
		}
	}
	return all, nil
}
