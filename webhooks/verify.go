package webhooks

import (
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// Window is how far a signed time may be from ours, either way.
const Window = 300 * time.Second

// Memory is how long a request is remembered whose signature proves no time.
const Memory = 7 * 24 * time.Hour

// slack makes a nonce outlive the window that it protects.
const slack = time.Minute

// Keys are those of one sender that are live: during a rotation there are several.
type Keys struct {
	Secrets []secret.Secret
	Public  []crypto.PublicKey
}

// Verified is a request whose sender is known.
type Verified struct {
	// ID is the sender's own of the message, the same when it tries again. It is signed. Many dialects have none.
	ID string
	// Nonce is of what was signed, however the signature is spelled. Whoever has seen it before has seen a replay.
	Nonce [32]byte
	// Until is how long the nonce has to be remembered.
	Until time.Time
	// Timed: the same request cannot come twice from an honest sender, who signs a new time when it tries again. Without that,
	// a second one may be a sender that got no answer.
	Timed bool
}

// Refusal is why a request is refused. It is for our log, never for whoever sent it.
type Refusal string

const (
	Unsigned  Refusal = "unsigned"  // a header is missing
	Malformed Refusal = "malformed" // a header or the body is not what it should be
	Stale     Refusal = "stale"     // too far from our time
	Forged    Refusal = "forged"    // no live key has made this signature
	Replayed  Refusal = "replayed"  // it was taken before
	Stranger  Refusal = "stranger"  // it does not come from where it may come from
	Another   Refusal = "another"   // whom its certificate proves it to be may not post here
)

// RefusedError says why a request is refused. Its text names headers and never what stands in them.
type RefusedError struct {
	Refusal Refusal
	why     string
}

func (e *RefusedError) Error() string { return e.why }

func refuse(r Refusal, format string, args ...any) *RefusedError {
	return &RefusedError{r, fmt.Sprintf(format, args...)}
}

// Refuse makes a refusal for a reason outside of this package.
func Refuse(r Refusal, format string, args ...any) error { return refuse(r, format, args...) }

// Verify reports who has signed the request: nobody that we know is a *RefusedError; any other error is about our own
// keys. It neither knows nor learns what came before: the caller remembers nonces.
func (d *Dialect) Verify(r Request, keys Keys, now time.Time) (v Verified, err error) {
	c, err := d.headers.read(r.Header)
	if err != nil {
		return v, err
	}
	if d.unit > 0 {
		if c.at, err = parseStamp(c.stamp, d.unit); err != nil {
			return v, refuse(Malformed, "the time in the header: %v", err)
		}
		if off := now.Sub(c.at); off > Window || off < -Window {
			return v, refuse(Stale, "it was signed %s from our time", off.Round(time.Second))
		}
	}
	parts := d.over(r, c)
	if err := d.prove(c, parts, keys); err != nil {
		return v, err
	}
	v = Verified{Nonce: nonceOf(d.Name, parts), Until: now.Add(Memory), Timed: d.Timed()}
	if d.id != "" {
		v.ID = c.id
	}
	if v.Timed {
		v.Until = c.at.Add(Window + slack)
	}
	return v, nil
}

// prove tries every live key with every signature that is offered, so that how long it takes tells nothing of which.
func (d *Dialect) prove(c claim, parts [][]byte, keys Keys) error {
	if len(keys.Secrets)+len(keys.Public) == 0 {
		return errors.New("the sender has no live secret or public key")
	}
	known := false
	for _, s := range keys.Secrets {
		key, err := d.key(s)
		if err != nil {
			return err
		}
		for _, mac := range c.macs {
			known = isMAC(key, mac, parts) || known
		}
		for _, sum := range c.digests {
			known = isDigest(key, sum, parts) || known
		}
	}
	for _, k := range keys.Public {
		for _, sig := range c.signatures {
			known = isSignature(k, sig, parts) || known
		}
	}
	if !known {
		return refuse(Forged, "no live key has made this signature")
	}
	return nil
}

// nonceOf names what was signed. Lengths stand before the parts, or bytes could move from one to the next.
func nonceOf(dialect string, parts [][]byte) [32]byte {
	h := sha256.New()
	for _, p := range append([][]byte{[]byte(dialect)}, parts...) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}
