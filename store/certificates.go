package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/notify"
)

// CertificateError means that the registry does not take a change. Trying again cannot help.
type CertificateError struct {
	SHA256 string
	Reason string
}

func (e *CertificateError) Error() string {
	return fmt.Sprintf("certificate %s: %s", e.SHA256, e.Reason)
}

// Permanent is always true.
func (e *CertificateError) Permanent() bool { return true }

func refuseCertificate(c deal.Certificate, format string, args ...any) error {
	return &CertificateError{c.SHA256, fmt.Sprintf(format, args...)}
}

const selectCertificates = `SELECT key, sha256, spki, serial, subject, issuer, purpose, not_before, not_after, chain, state, since, activate_at,
	checked, answered, answer, detail, told_days, beside_until, pair FROM certificates `

// registered is a row of the registry.
type registered struct {
	deal.Certificate
	told int // days
}

func scanCertificate(scan func(...any) error) (c registered, err error) {
	var from, until, since, at, checked, answered, beside int64
	var chain string
	if err := scan(&c.Key, &c.SHA256, &c.SPKI, &c.Serial, &c.Subject, &c.Issuer, &c.Purpose, &from, &until, &chain, &c.State, &since, &at,
		&checked, &answered, &c.Answer, &c.Detail, &c.told, &beside, &c.Pair); err != nil {
		return c, err
	}
	c.From, c.Until, c.Since = fromMillis(from), fromMillis(until), fromMillis(since)
	c.ActivateAt, c.BesideUntil, c.Checked, c.Answered = fromMillis(at), fromMillis(beside), fromMillis(checked), fromMillis(answered)
	if err := json.Unmarshal([]byte(chain), &c.Chain); err != nil {
		return c, fmt.Errorf("the chain of certificate %s: %w", c.SHA256, errDamaged)
	}
	return c, nil
}

// Certificates returns the registry: by key, what is in use first, then what ends last.
func (s *Store) Certificates(ctx context.Context) (all []deal.Certificate, err error) {
	err = s.view(ctx, func(t *txn) error {
		rows, err := t.certificates("")
		all = certificatesOf(rows)
		return err
	})
	return all, err
}

func certificatesOf(rows []registered) []deal.Certificate {
	all := []deal.Certificate{} // JSON: an empty list, not null
	for _, r := range rows {
		all = append(all, r.Certificate)
	}
	return all
}

const orderCertificates = ` ORDER BY key, state <> 'active', state <> 'next', not_after DESC, sha256`

func (t *txn) certificates(where string, args ...any) (all []registered, err error) {
	return t.readCertificates(selectCertificates+where+orderCertificates, args...)
}

func (t *txn) readCertificates(query string, args ...any) (all []registered, err error) {
	err = t.each(func(r *sql.Rows) error {
		c, err := scanCertificate(r.Scan)
		all = append(all, c)
		return err
	}, query, args...)
	return all, err
}

func (t *txn) certificate(key, sha256 string) (c registered, err error) {
	all, err := t.certificates(`WHERE key = $1 AND sha256 = $2`, key, sha256)
	if err == nil && len(all) == 0 {
		err = &CertificateError{sha256, fmt.Sprintf("the registry has no such certificate for key %q", key)}
	}
	if err != nil {
		return c, err
	}
	return all[0], nil
}

// AddCertificate enters a certificate that the registry does not have, as a next one or, for a key that has no active one,
// as active. One that is known to be revoked, under whatever key, is refused. Who goes into the audit log.
func (s *Store) AddCertificate(ctx context.Context, c deal.Certificate, who, why string) error {
	if who == "" || c.Key == "" || c.SHA256 == "" || c.SPKI == "" || len(c.Chain) == 0 || c.State != deal.CertNext && c.State != deal.CertActive {
		return refuseCertificate(c, "it is incomplete, or in state %q", c.State)
	}
	chain, err := json.Marshal(c.Chain)
	if err != nil {
		return err
	}
	return s.update(ctx, "commit/operate", func(t *txn) error {
		known, err := t.certificates(`WHERE sha256 = $1`, c.SHA256)
		if err != nil {
			return err
		}
		for _, k := range known {
			if k.Key == c.Key || k.State == deal.CertRevoked {
				return refuseCertificate(c, "it is in the registry already: %s, for key %q", k.State, k.Key)
			}
		}
		if err := t.noOtherActive(c); err != nil {
			return err
		}
		if err := t.exec(`INSERT INTO certificates (key, sha256, spki, serial, subject, issuer, purpose, not_before, not_after, chain, state, since, activate_at, checked, answered, answer, detail, told_days, pair)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, 0, 0, '', '', 0, $13)`,
			c.Key, c.SHA256, c.SPKI, c.Serial, c.Subject, c.Issuer, c.Purpose, millis(c.From), millis(c.Until), string(chain), c.State, t.now.UnixMilli(), c.Pair); err != nil {
			return err
		}
		if c.State == deal.CertActive {
			if err := t.calmRevoked(c.Key); err != nil {
				return err
			}
		}
		what := map[deal.CertState]string{deal.CertNext: "certificate-imported", deal.CertActive: "certificate-adopted"}[c.State]
		return t.auditCertificate(c, what, who, why, nil)
	})
}

func (t *txn) noOtherActive(c deal.Certificate) error {
	if c.State != deal.CertActive {
		return nil
	}
	active, err := t.certificates(`WHERE key = $1 AND state = 'active'`, c.Key)
	if err == nil && len(active) > 0 {
		err = refuseCertificate(c, "key %q has an active certificate, %s", c.Key, active[0].SHA256)
	}
	return err
}

// auditCertificate names thumbprint and key.
func (t *txn) auditCertificate(c deal.Certificate, what, who, why string, more map[string]string) error {
	detail := map[string]string{"key": c.Key, "spki": c.SPKI, "subject": c.Subject, "not_after": c.Until.Format(time.RFC3339)}
	if c.Pair != "" {
		detail["pair"] = c.Pair
	}
	for name, value := range more {
		detail[name] = value
	}
	_, err := t.appendLeaf(leaf{What: what, Cert: c.SHA256, Key: c.SPKI}, testimony{who, why, detail}, nil)
	return err
}

// ActivateCertificate makes a next or a retiring certificate the one that its key makes new seals with, and the one that
// was active so far a retiring one, which goes on beside it until beside, if that is not zero. A time that is still to come is
// remembered; see ActivateDue.
func (s *Store) ActivateCertificate(ctx context.Context, key, sha256 string, at, beside time.Time, who, why string) error {
	return s.decideCertificate(ctx, key, sha256, who, why, func(t *txn, c registered) error {
		switch {
		case c.State == deal.CertRevoked:
			return refuseCertificate(c.Certificate, "it was revoked, and is never used again: import another one")
		case c.State == deal.CertActive:
			return refuseCertificate(c.Certificate, "it is active already")
		case at.After(t.now) && c.State != deal.CertNext:
			return refuseCertificate(c.Certificate, "it is %s: only a next one can be made active at a time that is to come", c.State)
		case at.After(t.now):
			if err := t.exec(`UPDATE certificates SET activate_at = $3, beside_until = $4 WHERE key = $1 AND sha256 = $2`, key, sha256, millis(at), millis(beside)); err != nil {
				return err
			}
			return t.auditCertificate(c.Certificate, "certificate-scheduled", who, why, untilDetail(map[string]string{"at": at.UTC().Format(time.RFC3339)}, beside))
		}
		c.BesideUntil = beside
		return t.activateCertificate(c.Certificate, who, why)
	})
}

// untilDetail adds for how long there are two seals.
func untilDetail(detail map[string]string, beside time.Time) map[string]string {
	if !beside.IsZero() {
		detail["two_seals_until"] = beside.UTC().Format(time.RFC3339)
	}
	return detail
}

// activateCertificate has c follow the active certificate of its key, which goes on beside it until c.BesideUntil: one at a
// time does, so that what went on beside it ends.
func (t *txn) activateCertificate(c deal.Certificate, who, why string) error {
	beside := c.BesideUntil
	if !beside.After(t.now) {
		beside = time.Time{}
	}
	if err := t.exec(`UPDATE certificates SET beside_until = 0 WHERE key = $1 AND state = 'retiring'`, c.Key); err != nil {
		return err
	}
	active, err := t.certificates(`WHERE key = $1 AND state = 'active'`, c.Key)
	if err != nil {
		return err
	}
	previous := ""
	for _, old := range active {
		previous = old.SHA256
		if err := t.setCertificateState(old.Certificate, deal.CertRetiring); err != nil {
			return err
		}
		if err := t.exec(`UPDATE certificates SET beside_until = $3 WHERE key = $1 AND sha256 = $2`, old.Key, old.SHA256, millis(beside)); err != nil {
			return err
		}
		if err := t.auditCertificate(old.Certificate, "certificate-retired", who, why, untilDetail(map[string]string{"successor": c.SHA256}, beside)); err != nil {
			return err
		}
	}
	if err := t.setCertificateState(c, deal.CertActive); err != nil {
		return err
	}
	if err := t.announceCertificate(c, "certificate.renewed", "", map[string]string{"until": c.Until.Format(time.RFC3339), "previous": previous}); err != nil {
		return err
	}
	return t.auditCertificate(c, "certificate-activated", who, why, nil)
}

// announceCertificate tells people, and the tenants whose deals are sealed with its key.
func (t *txn) announceCertificate(c deal.Certificate, kind, once string, more map[string]string) error {
	data := map[string]string{"certificate": c.SHA256, "key": c.Key}
	for name, value := range more {
		data[name] = value
	}
	return t.announce(announcement{kind: kind, audience: t.audienceOf(c.Key), subject: c.SHA256, once: once, data: data})
}

func (t *txn) setCertificateState(c deal.Certificate, state deal.CertState) error {
	// What was told of its end is over: another one takes its place, or it is gone.
	over := func() error { return t.calm(notify.Certificate, "", c.SHA256) }
	if state == deal.CertActive {
		over = func() error { return t.calmRevoked(c.Key) }
	}
	if err := over(); err != nil {
		return err
	}
	return t.exec(`UPDATE certificates SET state = $3, since = $4, activate_at = 0, beside_until = 0 WHERE key = $1 AND sha256 = $2`, c.Key, c.SHA256, state, t.now.UnixMilli())
}

// calmRevoked ends what is told of certificates of a key that were revoked: another one takes their place.
func (t *txn) calmRevoked(key string) error {
	revoked, err := t.certificates(`WHERE key = $1 AND state = 'revoked'`, key)
	for _, c := range revoked {
		err = errors.Join(err, t.calm(notify.Certificate, "", c.SHA256))
	}
	return err
}

// settled is the point of what every start finds out anew about certificates: losing it costs another look. It is that of the
// start itself, so that a crash in what a person decides stays a point of its own.
const settled = "commit/open"

// ActivateDue makes those certificates active that were to be by now, in their order, and returns how many these were.
func (s *Store) ActivateDue(ctx context.Context) (n int, err error) {
	return n, s.update(ctx, settled, func(t *txn) error {
		due, err := t.certificates(`WHERE state = 'next' AND activate_at BETWEEN 1 AND $1`, t.now.UnixMilli())
		if err != nil {
			return err
		}
		slices.SortStableFunc(due, func(a, b registered) int { return a.ActivateAt.Compare(b.ActivateAt) })
		for _, c := range due {
			if err := t.activateCertificate(c.Certificate, "daemon", "its time has come: "+c.ActivateAt.Format(time.RFC3339)); err != nil {
				return err
			}
		}
		n = len(due)
		return nil
	})
}

// RetireCertificate ends the use of a certificate for new seals, second ones included. After it no certificate of its key is
// active, if it was.
func (s *Store) RetireCertificate(ctx context.Context, key, sha256, who, why string) error {
	return s.decideCertificate(ctx, key, sha256, who, why, func(t *txn, c registered) error {
		if c.State == deal.CertRetiring && !c.BesideUntil.After(t.now) || c.State == deal.CertRevoked {
			return refuseCertificate(c.Certificate, "it is %s already", c.State)
		}
		if err := t.setCertificateState(c.Certificate, deal.CertRetiring); err != nil {
			return err
		}
		return t.auditCertificate(c.Certificate, "certificate-retired", who, why, nil)
	})
}

// decideCertificate commits what a person, who must give a name and a reason, has decided.
func (s *Store) decideCertificate(ctx context.Context, key, sha256, who, why string, do func(*txn, registered) error) error {
	if who == "" || why == "" {
		return &CertificateError{sha256, "say who and why: both go into the audit log"}
	}
	return s.update(ctx, "commit/operate", func(t *txn) error {
		c, err := t.certificate(key, sha256)
		if err != nil {
			return err
		}
		return do(t, c)
	})
}

// RevokeCertificate ends every use of a certificate, under whatever keys it is known, and reports whether that is new. Who
// is a person or the daemon, which was told by the certificate's issuer.
func (s *Store) RevokeCertificate(ctx context.Context, sha256, who, why string) (fresh bool, err error) {
	if who == "" || why == "" {
		return false, &CertificateError{sha256, "say who and why: both go into the audit log"}
	}
	return fresh, s.update(ctx, settled, func(t *txn) error {
		fresh = false
		all, err := t.certificates(`WHERE sha256 = $1 AND state <> 'revoked'`, sha256)
		if err != nil {
			return err
		}
		for _, c := range all {
			if err := t.setCertificateState(c.Certificate, deal.CertRevoked); err != nil {
				return err
			}
			if err := t.exec(`UPDATE certificates SET answer = $3, detail = $4 WHERE key = $1 AND sha256 = $2`, c.Key, c.SHA256, deal.AnswerRevoked, why); err != nil {
				return err
			}
			if err := t.auditCertificate(c.Certificate, "certificate-revoked", who, why, nil); err != nil {
				return err
			}
			if err := t.announceCertificate(c.Certificate, "certificate.revoked", "revoked/"+c.Key, map[string]string{"reason": why}); err != nil {
				return err
			}
			fresh = true
		}
		return nil
	})
}

// NoteCertificateCheck takes down what came of asking whether a certificate is revoked, for one that is not.
func (s *Store) NoteCertificateCheck(ctx context.Context, sha256 string, answer deal.CertAnswer, detail string) error {
	return s.update(ctx, settled, func(t *txn) error {
		return t.exec(`UPDATE certificates SET checked = $2, answered = CASE WHEN $3 = 'good' THEN $2 ELSE answered END, answer = $3, detail = $4
			WHERE sha256 = $1 AND state <> 'revoked'`, sha256, t.now.UnixMilli(), answer, detail)
	})
}

// TellCertificateEnds enters into the audit log which certificates that are active or next have at most so many days left,
// once for each of the days given and each certificate, and returns them. Where several have passed unseen, the fewest
// counts for all.
func (s *Store) TellCertificateEnds(ctx context.Context, days []int) (told []deal.CertificateEnd, err error) {
	return told, s.update(ctx, settled, func(t *txn) error {
		told = nil
		all, err := t.certificates(`WHERE state IN ('active', 'next')`)
		if err != nil {
			return err
		}
		for _, c := range all {
			passed, any := c.DaysPassed(days, t.now)
			if !any || c.told != 0 && c.told <= passed {
				continue
			}
			if err := t.exec(`UPDATE certificates SET told_days = $3 WHERE key = $1 AND sha256 = $2`, c.Key, c.SHA256, passed); err != nil {
				return err
			}
			if err := t.auditCertificate(c.Certificate, "certificate-expiring", "daemon", fmt.Sprintf("%d days or less are left", passed), map[string]string{"days": fmt.Sprint(passed)}); err != nil {
				return err
			}
			if err := t.announceCertificate(c.Certificate, "certificate.expiring", fmt.Sprintf("%s/%d", c.Key, passed), map[string]string{"until": c.Until.Format(time.DateOnly), "days": fmt.Sprint(passed)}); err != nil {
				return err
			}
			told = append(told, deal.CertificateEnd{Certificate: c.Certificate, Days: passed})
		}
		return nil
	})
}

// AuditKeyUse enters that a key is about to sign something that is no document, and what: the digest is in the leaf.
func (s *Store) AuditKeyUse(ctx context.Context, what, key, spki, digest, who, why string) error {
	return s.update(ctx, "commit/operate", func(t *txn) error {
		_, err := t.appendLeaf(leaf{What: what, Key: spki, Digest: digest}, testimony{who, why, map[string]string{"key": key}}, nil)
		return err
	})
}

// CertificatesIn reads the registry of a state directory without opening the state: certificates are public, so this takes
// neither the lock nor the master key. A directory without a registry has an empty one.
func CertificatesIn(ctx context.Context, dir string) ([]deal.Certificate, error) {
	path := filepath.Join(dir, databaseName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&_pragma=busy_timeout(10000)"}).String())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("the registry of certificates in %s: %w", dir, err)
	}
	defer tx.Rollback()
	t := &txn{Tx: tx, ctx: ctx}
	var has int
	if _, err := t.get([]any{&has}, `SELECT count(*) FROM sqlite_master WHERE name = 'certificates'`); err != nil || has == 0 {
		return nil, err
	}
	columns, err := column[string](t, `SELECT name FROM pragma_table_info('certificates')`)
	if err != nil {
		return nil, err
	}
	var since []string // what an earlier version, whose state is looked at before it is brought up to date, has not got yet
	for _, added := range []string{"0 AS beside_until", "'' AS pair"} {
		if _, name, _ := strings.Cut(added, " AS "); !slices.Contains(columns, name) {
			since = append(since, ", "+added)
		}
	}
	rows, err := t.readCertificates(strings.Replace(selectCertificates, "FROM certificates", "FROM (SELECT *"+strings.Join(since, "")+" FROM certificates)", 1) + orderCertificates)
	return certificatesOf(rows), err
}
