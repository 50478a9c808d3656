package pkcs11

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/dealseal/dealseal/secret"
)

// setup is what an agent is told. It names the PIN's place only.
type setup struct {
	Module   string     `json:"module"`
	Token    string     `json:"token"`
	Serial   string     `json:"serial"`
	Label    string     `json:"label"`
	ID       string     `json:"id"`
	PIN      secret.Ref `json:"pin"`
	Sessions int        `json:"sessions"`
	StateDir string     `json:"state_dir"`
}

// The ops of an agent.
const (
	opDescribe = "describe" // reply: description in the header
	opSign     = "sign"     // request in the header, what to sign in the body; reply: signature in the body
	opTouch    = "touch"    // request in the header, of which only the key counts
)

// maxFrame bounds what goes between agent and daemon, which is certificates at
// the most.
const maxFrame = 8 << 20

// description is what an agent says of its key.
type description struct {
	PublicKey    []byte   `json:"public_key"`   // PKIX DER; nil if the token does not give it
	Certificates [][]byte `json:"certificates"` // DER, all that are on the token
}

// request says how to sign.
type request struct {
	Key    []byte // SHA-256 of the public key, PKIX DER: no other one signs this
	Scheme scheme
	Hash   uint // crypto.Hash; for PSS
	Salt   int  // bytes; for PSS
}

// requestSize is that of a request on the wire: key, scheme and hash of a byte each, salt of two, big-endian. It is the header of every signature, and
// the same binary is at both ends.
const requestSize = sha256.Size + 4

func (r request) encode() []byte {
	b := append(make([]byte, 0, requestSize), r.Key...)
	return binary.BigEndian.AppendUint16(append(b, byte(r.Scheme), byte(r.Hash)), uint16(max(r.Salt, 0)))
}

func decodeRequest(b []byte) (request, error) {
	if len(b) != requestSize {
		return request{}, fmt.Errorf("a request of %d bytes, and not of %d", len(b), requestSize)
	}
	key, rest := b[:sha256.Size], b[sha256.Size:]
	return request{Key: key, Scheme: scheme(rest[0]), Hash: uint(rest[1]), Salt: int(binary.BigEndian.Uint16(rest[2:]))}, nil
}

type scheme byte

const (
	schemePKCS1 scheme = iota + 1 // the body is a DigestInfo
	schemePSS                     // the body is a digest
	schemeECDSA                   // the body is a digest, not longer than the order of the curve
)

// Codes of an agent's errors.
const (
	codePIN    = "pin"    // refused, locked, or not tried again
	codeConfig = "config" // what is configured is not there
	codeDevice = "device"
	codeKey    = "key" // the token holds another key than the one that was asked for
)

// agentError is an error of the agent.
type agentError struct {
	text      string
	code      string
	permanent bool
	fatal     bool
	cause     error
}

func (e *agentError) Error() string {
	if e.cause == nil {
		return e.text
	}
	return e.text + ": " + e.cause.Error()
}

func (e *agentError) Unwrap() error   { return e.cause }
func (e *agentError) Code() string    { return e.code }
func (e *agentError) Permanent() bool { return e.permanent }
func (e *agentError) Fatal() bool     { return e.fatal }

// configError is for what a person has to change.
func configError(format string, args ...any) error {
	return &agentError{text: fmt.Sprintf(format, args...), code: codeConfig, permanent: true}
}

// IsPINError reports whether err says that a token has refused its PIN, that
// the PIN is locked, or that it was not tried because of that.
func IsPINError(err error) bool { return hasCode(err, codePIN) }
