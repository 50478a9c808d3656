package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
)

// keepSecrets is for how long a secret is known that nobody uses any more: one that is taken up again is as old as it is.
const keepSecrets = 400 * 24 * time.Hour

// secret keys what is remembered of a tenant's secrets.
func (m master) secret(id deal.TenantID) []byte { return m.derive("secret-age", string(id)) }

// SecretsSince returns since when each of a tenant's secrets is known here, by its content and wherever it is kept: at least so
// old it is. What is new is known from now on. An empty tenant stands for the house.
func (s *Store) SecretsSince(ctx context.Context, tenant deal.TenantID, secrets []secret.Secret) (since []time.Time, err error) {
	if tenant != "" {
		if err := checkTenant(tenant); err != nil {
			return nil, err
		}
	}
	commitments := make([][]byte, len(secrets))
	for i, one := range secrets {
		h := hmac.New(sha256.New, s.master.secret(tenant))
		h.Write(one.Reveal())
		commitments[i] = h.Sum(nil)[:16]
	}
	var missing bool
	read := func(t *txn) error {
		missing, since = false, make([]time.Time, len(secrets))
		for i, c := range commitments {
			var first, last int64
			found, err := t.get([]any{&first, &last}, `SELECT first, last FROM secrets WHERE tenant = $1 AND commitment = $2`, tenant, c)
			if err != nil {
				return err
			}
			missing = missing || !found || t.now.Sub(fromMillis(last)) > 24*time.Hour
			since[i] = fromMillis(first)
		}
		return nil
	}
	if err := s.view(ctx, read); err != nil || !missing {
		return since, err
	}
	err = s.update(ctx, "commit/secrets", func(t *txn) error {
		if err := t.exec(`DELETE FROM secrets WHERE tenant = $1 AND last < $2`, tenant, t.now.Add(-keepSecrets).UnixMilli()); err != nil {
			return err
		}
		for _, c := range commitments {
			if err := t.exec(`INSERT INTO secrets (tenant, commitment, first, last) VALUES ($1, $2, $3, $3)
				ON CONFLICT DO UPDATE SET last = excluded.last`, tenant, c, t.now.UnixMilli()); err != nil {
				return err
			}
		}
		return read(t)
	})
	return since, err
}
