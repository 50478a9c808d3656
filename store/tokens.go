package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// longestToken is how long a token may be good for.
const longestToken = 366 * 24 * time.Hour

// usedEvery is how exactly it is known when a token was last used.
const usedEvery = time.Minute

var (
	tokenName        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	tokenFingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// TokenError means that a token cannot be what it is asked to be. Trying again cannot help.
type TokenError struct{ Reason string }

func (e *TokenError) Error() string { return e.Reason }

// Permanent is always true.
func (e *TokenError) Permanent() bool { return true }

func checkToken(t deal.Token, now time.Time) error {
	switch {
	case !tokenFingerprint.MatchString(t.Fingerprint):
		return &TokenError{"a fingerprint is a SHA-256 in hexadecimal"}
	case t.Kind != deal.BearerToken && t.Kind != deal.ClientCertificate:
		return &TokenError{fmt.Sprintf("%q is no kind of token", t.Kind)}
	case !tokenName.MatchString(t.Name):
		return &TokenError{fmt.Sprintf("the name is %q: it must be 1 to 63 letters, digits, dots, hyphens and underscores", t.Name)}
	case !slices.Contains(deal.TokenRoles, t.Role):
		return &TokenError{fmt.Sprintf("the role is %q: it must be one of %v", t.Role, deal.TokenRoles)}
	case !t.Until.After(now) || t.Until.After(now.Add(longestToken)):
		return &TokenError{"it must end in the future, and within 366 days"}
	}
	return nil
}

// AddToken enters a token that a person has made. Who and why go into the audit log.
func (s *Store) AddToken(ctx context.Context, token deal.Token, who, why string) error {
	if who == "" || why == "" {
		return errors.New("say who and why: both go into the audit log")
	}
	return s.update(ctx, "commit/operate", func(t *txn) error {
		if err := checkToken(token, t.now); err != nil {
			return err
		}
		tenants, err := json.Marshal(append([]deal.TenantID{}, token.Tenants...))
		if err != nil {
			return err
		}
		added, err := t.execOne(`INSERT INTO tokens (fingerprint, kind, name, live, role, tenants, made, maker, until, used, revoked)
			SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM tokens WHERE fingerprint = $1 OR (name = $3 AND revoked = 0 AND until > $7))`,
			token.Fingerprint, token.Kind, token.Name, token.Live, token.Role, string(tenants), t.now.UnixMilli(), who, token.Until.UnixMilli())
		if err == nil && !added {
			err = &TokenError{fmt.Sprintf("there is a token %q already, or one that is the same: revoke it first, or choose another name", token.Name)}
		}
		if err != nil {
			return err
		}
		return t.auditToken(token, "token.created", who, why)
	})
}

// auditToken names the token, and what it is good for.
func (t *txn) auditToken(token deal.Token, what, who, why string) error {
	tenant, names := deal.TenantID(""), []string{}
	if len(token.Tenants) == 1 {
		tenant = token.Tenants[0]
	}
	for _, id := range token.Tenants {
		names = append(names, string(id))
	}
	return t.auditShared(tenant, "", deal.Entry{Who: who, What: what, Why: why, Detail: map[string]string{"fingerprint": token.Fingerprint, "kind": string(token.Kind), "name": token.Name,
		"role": string(token.Role), "live": fmt.Sprint(token.Live), "tenants": strings.Join(names, ","), "until": token.Until.UTC().Format(time.RFC3339)}})
}

// RevokeToken ends the token with a name or the beginning of a fingerprint, for ever.
func (s *Store) RevokeToken(ctx context.Context, id, who, why string) (revoked deal.Token, err error) {
	if who == "" || why == "" {
		return revoked, errors.New("say who and why: both go into the audit log")
	}
	err = s.update(ctx, "commit/operate", func(t *txn) error {
		all, err := t.tokens(`WHERE revoked = 0`)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(one deal.Token) bool {
			return !(one.Name == id && one.Counts(t.now)) && !(len(id) >= deal.MinThumbprint && strings.HasPrefix(one.Fingerprint, strings.ToLower(id)))
		})
		if len(all) != 1 {
			return &TokenError{fmt.Sprintf("%d tokens that are not revoked are called %q: name one by the ID that \"dealseal tokens list\" shows", len(all), id)}
		}
		revoked = all[0]
		revoked.Revoked = t.now
		if err := t.exec(`UPDATE tokens SET revoked = $2 WHERE fingerprint = $1`, revoked.Fingerprint, t.now.UnixMilli()); err != nil {
			return err
		}
		return t.auditToken(revoked, "token.revoked", who, why)
	})
	return revoked, err
}

// Tokens returns all tokens, also those that ended, by name.
func (s *Store) Tokens(ctx context.Context) (all []deal.Token, err error) {
	err = s.view(ctx, func(t *txn) error {
		all, err = t.tokens(`WHERE TRUE`)
		return err
	})
	return all, err
}

// Token returns the one with a fingerprint, whether or not it is still good; false if there is none. It is found by the
// hash of what was shown: how long that takes says nothing of any token.
func (s *Store) Token(ctx context.Context, kind deal.TokenKind, fingerprint string) (token deal.Token, found bool, err error) {
	err = s.view(ctx, func(t *txn) error {
		all, err := t.tokens(`WHERE fingerprint = $1 AND kind = $2`, fingerprint, kind)
		if len(all) == 1 {
			token, found = all[0], true
		}
		return err
	})
	return token, found, err
}

// UseToken takes note that a token was used, unless that is known to the minute.
func (s *Store) UseToken(ctx context.Context, token deal.Token) error {
	if s.now().Sub(token.Used) < usedEvery {
		return nil
	}
	return s.update(ctx, "commit/operate", func(t *txn) error {
		return t.exec(`UPDATE tokens SET used = $2 WHERE fingerprint = $1 AND used < $2`, token.Fingerprint, t.now.UnixMilli())
	})
}

// AuditCalls puts what a token has asked for in a while into the audit log.
func (s *Store) AuditCalls(ctx context.Context, c deal.Calls) error {
	var list []string
	for _, what := range slices.Sorted(maps.Keys(c.Counts)) {
		list = append(list, fmt.Sprintf("%s: %d", what, c.Counts[what]))
	}
	detail := map[string]string{"fingerprint": c.Token.Fingerprint, "kind": string(c.Token.Kind), "from": c.From.UTC().Format(time.RFC3339), "to": c.To.UTC().Format(time.RFC3339), "calls": strings.Join(list, ", ")}
	if c.Subject != "" {
		detail["subject"] = c.Subject
	}
	if c.Via != "" {
		detail["via"] = c.Via
	}
	tenant := deal.TenantID("")
	if len(c.Token.Tenants) == 1 {
		tenant = c.Token.Tenants[0]
	}
	return s.update(ctx, "commit/operate", func(t *txn) error {
		return t.auditShared(tenant, "", deal.Entry{Who: c.Token.Who(), What: "api.called", Detail: detail})
	})
}

// AuditRefusedCertificates puts client certificates that nobody can be known by into the audit log.
func (s *Store) AuditRefusedCertificates(ctx context.Context, r deal.RefusedCertificates) error {
	detail := map[string]string{"via": r.Via, "count": strconv.FormatInt(r.Count, 10), "from": r.From.UTC().Format(time.RFC3339), "to": r.To.UTC().Format(time.RFC3339)}
	return s.update(ctx, "commit/operate", func(t *txn) error {
		return t.auditShared("", "", deal.Entry{Who: "daemon", What: "api.refused", Why: r.Reason, Detail: detail})
	})
}

func (t *txn) tokens(where string, args ...any) (all []deal.Token, err error) {
	all = []deal.Token{}
	err = t.each(func(r *sql.Rows) error {
		var one deal.Token
		var tenants []byte
		var made, until, used, revoked int64
		if err := r.Scan(&one.Fingerprint, &one.Kind, &one.Name, &one.Live, &one.Role, &tenants, &made, &one.By, &until, &used, &revoked); err != nil {
			return err
		}
		if err := json.Unmarshal(tenants, &one.Tenants); err != nil {
			return fmt.Errorf("token %s: %w", one.ID(), errDamaged) // not read as one that sees all
		}
		if len(one.Tenants) == 0 {
			one.Tenants = nil
		}
		one.Made, one.Until, one.Used, one.Revoked = fromMillis(made), fromMillis(until), fromMillis(used), fromMillis(revoked)
		all = append(all, one)
		return nil
	}, `SELECT fingerprint, kind, name, live, role, tenants, made, maker, until, used, revoked FROM tokens `+where+` ORDER BY name, made`, args...)
	return all, err
}

// TenantOf returns whose a sealing is. The error is a *NotFoundError if there is none.
func (s *Store) TenantOf(ctx context.Context, tx deal.TxID) (tenant deal.TenantID, err error) {
	err = s.view(ctx, func(t *txn) error {
		found, err := t.get([]any{&tenant}, `SELECT tenant FROM sealings WHERE tx = $1`, tx)
		if err == nil && !found {
			err = &NotFoundError{tx}
		}
		return err
	})
	return tenant, err
}
