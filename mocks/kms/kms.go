// Package kms is key management services that speak the wire of the real ones, and misbehave on demand. All of them share
// their keys, so that one test can ask each for the same.
package kms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Fault is how a request goes wrong.
type Fault string

// What goes wrong before the key is used.
const (
	Down      Fault = "down"      // 503: sealed, or overloaded
	Busy      Fault = "busy"      // throttled, with a time to wait where the service has one
	Forbidden Fault = "forbidden" // the login is refused
	Redirect  Fault = "redirect"  // elsewhere
	Garbage   Fault = "garbage"   // an answer that is none
	Huge      Fault = "huge"      // an answer without an end
	Hang      Fault = "hang"      // no answer
	Disabled  Fault = "disabled"  // the key may not be used
)

// What goes wrong when it is used.
const (
	Lost         Fault = "lost"          // it signs, and the answer never comes
	Damaged      Fault = "damaged"       // a bit of the signature is another one
	OtherDigest  Fault = "other-digest"  // it signs something else
	OtherVersion Fault = "other-version" // it signs with another key, and says so where it can
)

// Token is the login that the services take; its form is that of the service.
const Token = "s.the-token-of-the-mock"

// Store holds keys, each with versions from 1 on. It is safe for concurrent use.
type Store struct {
	mu     sync.Mutex
	keys   map[string][]crypto.Signer
	fault  Fault
	left   int
	asked  []Call
	signed [][]byte
	token  string
}

// Call is one request that came in.
type Call struct {
	What   string // the operation, in the words of the service
	Login  string // what it was authorised with
	Header http.Header
	Body   string
}

// NewStore returns an empty one.
func NewStore() *Store { return &Store{keys: map[string][]crypto.Signer{}, token: Token} }

// Add gives a key another version, and returns its number.
func (s *Store) Add(name string, key crypto.Signer) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[name] = append(s.keys[name], key)
	return len(s.keys[name])
}

// Replace puts another key in the place of a version.
func (s *Store) Replace(name string, version int, key crypto.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[name][version-1] = key
}

// Remove deletes a key with all its versions.
func (s *Store) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, name)
}

// SetToken changes the login that is taken.
func (s *Store) SetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// SetFault makes the next n requests go wrong, all of them if n is negative; an empty fault ends it.
func (s *Store) SetFault(f Fault, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.left = f, n
}

// Signed are the digests that were signed, in order, also those whose answer was lost.
func (s *Store) Signed() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.signed)
}

// Calls are the requests that came in, faulty answers included.
func (s *Store) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// arrive notes a request and takes the fault that it has to suffer.
func (s *Store) arrive(c Call) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, c)
	if s.left == 0 {
		return ""
	}
	f := s.fault
	if strings.HasPrefix(c.What, "read") && f.strikesUse() {
		return ""
	}
	s.left--
	return f
}

func (f Fault) strikesUse() bool {
	return f == Lost || f == Damaged || f == OtherDigest || f == OtherVersion
}

func (s *Store) loginIs(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return token == s.token
}

// versions returns those of a key.
func (s *Store) versions(name string) []crypto.Signer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys[name])
}

// sign uses a version of a key as f says.
func (s *Store) sign(key crypto.Signer, digest []byte, opts crypto.SignerOpts, f Fault) ([]byte, error) {
	if f == OtherDigest {
		digest = slices.Clone(digest)
		digest[0] ^= 1
	}
	s.mu.Lock()
	s.signed = append(s.signed, digest)
	s.mu.Unlock()
	value, err := key.Sign(rand.Reader, digest, opts)
	if err == nil && f == Damaged {
		value[len(value)-1] ^= 1
	}
	return value, err
}

// suffer lets a request go wrong in a way that is the same for every service. It reports whether it did.
func suffer(w http.ResponseWriter, r *http.Request, f Fault) bool {
	switch f {
	case Hang:
		<-r.Context().Done()
	case Huge:
		w.Header().Set("Content-Type", "application/json")
		chunk := []byte(`{"data":"` + strings.Repeat("x", 64<<10))
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return true
			}
		}
	case Garbage:
		_, _ = w.Write([]byte("<html>It works!</html>")) // whoever asked has gone, or reads it
	case Redirect:
		http.Redirect(w, r, "/elsewhere"+r.URL.Path, http.StatusTemporaryRedirect)
	case Lost:
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}

// kindOf tells keys apart as all services do.
func kindOf(key crypto.Signer) (isRSA bool, bits int) {
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		return true, public.N.BitLen()
	case *ecdsa.PublicKey:
		return false, public.Curve.Params().BitSize
	}
	return false, 0
}
