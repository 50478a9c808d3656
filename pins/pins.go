// Package pins has calls to others go through only while one of some known keys stands in the chain of certificates that is
// presented, beside all that TLS checks anyhow: the pins of RFC 7469, kept in a configuration instead of a header.
package pins

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469, section 2.4).
type Pin [sha256.Size]byte

const form = "sha256/"

// Of is the pin of a certificate's key.
func Of(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Parse reads "sha256/" and 44 characters of base64.
func Parse(text string) (p Pin, err error) {
	encoded, ok := strings.CutPrefix(text, form)
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(b) != len(p) || len(encoded) != base64.StdEncoding.EncodedLen(len(p)) {
		return p, fmt.Errorf("%.60q is no pin: it must be sha256/ and the SHA-256 of the certificate's public key in base64, such as %s", text, Pin{})
	}
	return Pin(b), nil
}

func (p Pin) String() string { return form + base64.StdEncoding.EncodeToString(p[:]) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Pin) UnmarshalText(text []byte) (err error) {
	*p, err = Parse(string(text))
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Set are the pins of a host; one that matches is enough.
type Set []Pin

// Matching are those of the set whose key stands in one of the chains.
func (s Set) Matching(chains [][]*x509.Certificate) (found Set) {
	for _, p := range s {
		if slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
			return slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return Of(c) == p })
		}) {
			found = append(found, p)
		}
	}
	return found
}

func (s Set) String() string {
	var all []string
	for _, p := range s {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// MismatchError is a server whose chain is trusted and has none of the keys. It may be another one than was meant, or have a new
// key. The call was not made. Trying again helps once the server or the pins have changed.
type MismatchError struct {
	Host string
	// Presented is the chain as it was verified, the server's own certificate first.
	Presented []*x509.Certificate
	// Where says where the pins are configured.
	Where string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s has none of the keys that are pinned, and was told nothing; it presented %s: %s", e.Host, Describe(e.Presented), e.Cure())
}

// Cure says what mends it.
func (e *MismatchError) Cure() string {
	return "if its operator confirms one of these keys, add it to " + e.Where + "; if not, somebody may stand between"
}

// longestName bounds what is repeated of a certificate's name.
const longestName = 60

// Describe names the keys of a chain, the server's own first.
func Describe(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return "no chain that is trusted"
	}
	var all []string
	for _, c := range chain {
		name := c.Subject.CommonName
		if name == "" {
			name = c.Subject.String()
		}
		if len(name) > longestName {
			name = strings.ToValidUTF8(name[:longestName], "") + "…"
		}
		all = append(all, fmt.Sprintf("%s (%q)", Of(c), name))
	}
	return strings.Join(all, ", ")
}

// Verify is for tls.Config.VerifyConnection, which is asked for sessions that are taken up again as well.
func (s Set) Verify(host, where string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(s.Matching(state.VerifiedChains)) > 0 {
			return nil
		}
		e := &MismatchError{Host: host, Where: where}
		if len(state.VerifiedChains) > 0 {
			e.Presented = state.VerifiedChains[0]
		}
		return e
	}
}
