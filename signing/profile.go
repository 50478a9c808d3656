package signing

import (
	"crypto"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

// Downgrade is the answer to a seal that misses the level asked for when all retries are over.
type Downgrade string

// The answers.
const (
	Fail          Downgrade = "fail"            // the sealing ends with an error
	Hold          Downgrade = "hold"            // it waits for a person
	AcceptAndFlag Downgrade = "accept-and-flag" // it goes on with the lower level, which is shown
)

// Profile says how a kind of document is sealed. It is plain data, and is stored with each deal that uses it.
type Profile struct {
	Name        string
	Key         string      // name of the key, for Keys.Open
	Level       pades.Level // to be reached
	OnDowngrade Downgrade   // empty means hold
	Reason      string      // shown in the signature's properties, as are the next three; may be empty
	Location    string
	SignerName  string      // the organisation whose seal it is
	ContactInfo string      // how to reach it
	Hash        crypto.Hash // SHA-256, SHA-384 or SHA-512; 0 means SHA-256
	PSS         bool        // RSA-PSS in the place of PKCS #1 v1.5; for RSA keys only
	Certify     int         // 0: approval signature; 1 to 3: certification (see pades.Options)
	Dual        bool        // during a rollover documents get a second seal, with the certificate that was followed
	VRI         bool        // the security store says for which signature its evidence is; B-LT and above
	// MinValidity is how long the certificate has to be valid yet; 0 means 14 days, or a third of its life if that is less.
	MinValidity time.Duration
	Floor       Floor

	// Reserve and TimestampReserve are bytes kept free in the document for the signature and its time-stamp token; 0
	// computes the first and takes 12 KiB for the second.
	Reserve, TimestampReserve int
}

// ProfileError says what is wrong with a profile.
type ProfileError struct {
	Profile string // its name
	Reason  string
}

func (e *ProfileError) Error() string {
	return fmt.Sprintf("signing: profile %q: %s", e.Profile, e.Reason)
}

// Permanent is true: the profile stays as it is until someone changes it.
func (e *ProfileError) Permanent() bool { return true }

// Check finds what is wrong with a profile before anything is sealed with it. The error is a *ProfileError.
func (p *Profile) Check() error {
	bad := func(format string, args ...any) error {
		return &ProfileError{Profile: p.Name, Reason: fmt.Sprintf(format, args...)}
	}
	if p.Key == "" {
		return bad("the key is missing")
	}
	if _, err := pades.ParseLevel(string(p.Level)); err != nil {
		return bad("%v", err)
	}
	switch p.OnDowngrade {
	case "", Fail, Hold, AcceptAndFlag:
	default:
		return bad("on_downgrade is %q; it can be %s, %s or %s", p.OnDowngrade, Fail, Hold, AcceptAndFlag)
	}
	switch p.Hash {
	case 0, crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return bad("the digest %s is not supported; use SHA-256, SHA-384 or SHA-512", p.Hash)
	}
	if err := p.Floor.check(p.Hash); err != nil {
		return bad("%v", err)
	}
	if p.MinValidity < 0 {
		return bad("the least remaining validity cannot be negative")
	}
	if p.Certify < 0 || p.Certify > 3 {
		return bad("certify is %d; it can be 0 (no), 1, 2 or 3", p.Certify)
	}
	if p.Dual && p.Certify == 1 {
		return bad("certify 1 lets nothing be added to the document, and a second seal is something added")
	}
	if p.VRI && !p.Level.AtLeast(pades.BLT) {
		return bad("vri is about the security store, which a document of %s does not have", p.Level)
	}
	if p.Reserve < 0 || p.TimestampReserve < 0 {
		return bad("the reserved bytes cannot be negative")
	}
	return nil
}
