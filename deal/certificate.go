package deal

import (
	"cmp"
	"strings"
	"time"
)

// Certificate is an entry of the registry of certificates: one that a key seals with, will or did.
type Certificate struct {
	SHA256 string `json:"sha256"` // its thumbprint, hex
	Key    string `json:"key"`    // the key's name in the configuration
	// Pair is the key of the configuration whose key pair it is for, where that is not Key's own: Key then seals with that one.
	Pair    string    `json:"pair,omitempty"`
	SPKI    string    `json:"spki_sha256"`
	Serial  string    `json:"serial"` // hex
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Purpose string    `json:"purpose"` // PurposeSeal
	From    time.Time `json:"not_before"`
	Until   time.Time `json:"not_after"`
	// Chain is DER, the certificate first, then each one's issuer.
	Chain [][]byte `json:"chain"`

	State CertState `json:"state"`
	Since time.Time `json:"since"` // of State
	// ActivateAt is when a next one becomes active by itself; zero when a person has to say so.
	ActivateAt time.Time `json:"activate_at,omitzero"`
	// BesideUntil is how long a retiring one makes second seals beside those of the active one; of a next one, how long the one
	// that it follows will. Zero: no second seals.
	BesideUntil time.Time `json:"beside_until,omitzero"`

	// Checked is when its issuers were last asked whether it is revoked, Answered when there last was an answer; zero for
	// never. Answer is what came of the last time, Detail says more of it.
	Checked  time.Time  `json:"checked,omitzero"`
	Answered time.Time  `json:"answered,omitzero"`
	Answer   CertAnswer `json:"answer,omitempty"`
	Detail   string     `json:"detail,omitempty"`
}

// PurposeSeal is the purpose of a certificate whose key seals documents.
const PurposeSeal = "seal"

// CertState says what a certificate is used for.
type CertState string

// The states of a certificate.
const (
	CertNext     CertState = "next"     // known, and not used yet
	CertActive   CertState = "active"   // new seals are made with it: one of each key at a time
	CertRetiring CertState = "retiring" // no new seals but second ones (BesideUntil); what was staged with it is finished
	CertRevoked  CertState = "revoked"  // nothing, for ever
)

// CertAnswer is what came of asking whether a certificate is revoked.
type CertAnswer string

// The answers. Only that it is revoked keeps a certificate from being used.
const (
	AnswerGood        CertAnswer = "good"
	AnswerRevoked     CertAnswer = "revoked"
	AnswerUnreachable CertAnswer = "unreachable" // nobody gave an answer that can be relied on
	AnswerNobody      CertAnswer = "nobody"      // the certificate names nobody who could be asked
)

// ActiveCertificate returns the certificate that a key makes new seals with at a time: of those that are to become active
// by then the one that is to do so last, else the active one.
func ActiveCertificate(all []Certificate, key string, at time.Time) (active Certificate, found bool) {
	for _, c := range all {
		if c.Key != key || !c.Due(at) && c.State != CertActive {
			continue
		}
		if !found || c.ActivateAt.After(active.ActivateAt) {
			active, found = c, true
		}
	}
	return active, found
}

// BesideCertificate returns the certificate that a key makes second seals with at a time, beside that of ActiveCertificate.
func BesideCertificate(all []Certificate, key string, at time.Time) (beside Certificate, found bool) {
	active, found := ActiveCertificate(all, key, at)
	if !found {
		return beside, false
	}
	for _, c := range all {
		until := c.BesideUntil
		switch {
		case c.Key != key:
			continue
		case active.State == CertNext && c.State == CertActive: // it is to have been followed, and nobody has written that down yet
			until = active.BesideUntil
		case active.State == CertNext || c.State != CertRetiring:
			continue
		}
		if until.After(at) && c.Until.After(at) {
			return c, true
		}
	}
	return beside, false
}

// Signer is the key of the configuration whose key pair c is for.
func (c Certificate) Signer() string { return cmp.Or(c.Pair, c.Key) }

// Due reports whether c is to have become active by a time.
func (c Certificate) Due(at time.Time) bool {
	return c.State == CertNext && !c.ActivateAt.IsZero() && !at.Before(c.ActivateAt)
}

// MinThumbprint is how many digits of a thumbprint people have to give at least.
const MinThumbprint = 8

// Matches reports whether a thumbprint as people write it, perhaps only its beginning, is that of c.
func (c Certificate) Matches(thumbprint string) bool {
	thumbprint = strings.ToLower(strings.ReplaceAll(thumbprint, ":", ""))
	return len(thumbprint) >= MinThumbprint && strings.HasPrefix(c.SHA256, thumbprint)
}

// CertificateEnd is a certificate that ends within so many days.
type CertificateEnd struct {
	Certificate
	Days int
}

// DaysPassed returns the fewest of the given numbers of days that c has left at most, if it has as few as any of them.
func (c Certificate) DaysPassed(days []int, now time.Time) (fewest int, any bool) {
	for _, d := range days {
		if c.Until.Sub(now) <= time.Duration(d)*24*time.Hour && (!any || d < fewest) {
			fewest, any = d, true
		}
	}
	return fewest, any
}
