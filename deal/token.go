package deal

import (
	"slices"
	"time"
)

// Token is what a program shows to be let in to the API: a bearer token or a client certificate. Only its fingerprint is
// kept, from which nobody can make it.
type Token struct {
	// Fingerprint is the SHA-256, in hexadecimal, of a token's text or of a certificate in DER.
	Fingerprint string    `json:"fingerprint"`
	Kind        TokenKind `json:"kind"`
	Name        string    `json:"name"`
	// Live tokens see tenants in production, others see sandboxes: no token is good for both.
	Live bool      `json:"live"`
	Role TokenRole `json:"role"`
	// Tenants are those that it sees; none: all of its environment.
	Tenants []TenantID `json:"tenants,omitempty"`
	Made    time.Time  `json:"made"`
	By      string     `json:"by"`
	Until   time.Time  `json:"until"`
	// Used is when it was last shown, to the minute; zero for never. Revoked is when a person ended it.
	Used    time.Time `json:"used,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
}

// Calls is what a token has asked for in a while.
type Calls struct {
	Token Token
	// Subject is that of the certificate that was shown; empty for a bearer token.
	Subject string
	// Via is the proxy that was shown it; empty for a connection of the caller's own.
	Via string
	// From and To are the times of the first and the last.
	From, To time.Time
	// Counts are how many there were, by method, route and status: "GET /v1/deals 200".
	Counts map[string]int64
}

// RefusedCertificates are client certificates that a proxy was shown in a while, and that nobody can be known by.
type RefusedCertificates struct {
	Via, Reason string
	// From and To are the times of the first and the last.
	From, To time.Time
	Count    int64
}

// TokenKind says what is shown.
type TokenKind string

// The kinds of tokens.
const (
	BearerToken       TokenKind = "token"
	ClientCertificate TokenKind = "certificate"
)

// TokenRole says what a token is good for.
type TokenRole string

// The roles of tokens.
const (
	RoleViewer      TokenRole = "viewer"       // sees states, hashes and reasons
	RoleOperator    TokenRole = "operator"     // and decides about deals that wait
	RoleSignerAdmin TokenRole = "signer-admin" // and about digests that were committed; sees contracts
	RoleAuditor     TokenRole = "auditor"      // sees contracts, evidence and the audit log, and changes nothing
	RoleAdmin       TokenRole = "admin"        // everything
)

// TokenRoles lists the roles.
var TokenRoles = []TokenRole{RoleViewer, RoleOperator, RoleSignerAdmin, RoleAuditor, RoleAdmin}

// ID is how people and the audit log name a token.
func (t Token) ID() string { return t.Fingerprint[:min(16, len(t.Fingerprint))] }

// Who is the token in the audit log.
func (t Token) Who() string { return "api:" + t.Name + " (" + t.ID() + ")" }

// Counts reports whether the token is good at a time.
func (t Token) Counts(at time.Time) bool { return t.Revoked.IsZero() && at.Before(t.Until) }

// Sees reports whether the token is good for a tenant whose environment is live or not.
func (t Token) Sees(tenant TenantID, live bool) bool {
	return t.Live == live && (len(t.Tenants) == 0 || slices.Contains(t.Tenants, tenant))
}

// State is what has become of the token, in a word.
func (t Token) State(at time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return "revoked"
	case !at.Before(t.Until):
		return "expired"
	case t.Live:
		return "live"
	}
	return "test"
}
