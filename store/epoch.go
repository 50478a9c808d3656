package store

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// noteEpoch begins an epoch if the database is not the one that last worked here, and remembers what it has seen.
func (t *txn) noteEpoch(here string) error {
	ahead, err := t.archiveAhead()
	if err != nil {
		return err
	}
	why, err := t.whyEpoch(here, ahead)
	if err != nil {
		return err
	}
	if why != "" {
		if err := t.beginEpoch(why); err != nil {
			return err
		}
	}
	if err := t.setMeta("place", []byte(here)); err != nil {
		return err
	}
	if err := t.setMeta("archive_ahead", strconv.AppendInt(nil, ahead, 10)); err != nil {
		return err
	}
	if err := t.loadInstance(); err != nil {
		return err
	}
	at, err := t.meta("epoch")
	if err != nil || at == nil {
		return err
	}
	began, err := time.Parse(time.RFC3339Nano, string(at))
	t.s.epoch.Store(millis(began))
	return err
}

// whyEpoch says why what the CRM shows may be newer than what is known here, "" if it is not.
func (t *txn) whyEpoch(here string, ahead int64) (string, error) {
	last, err := t.meta("place")
	if err != nil {
		return "", err
	}
	size, err := t.treeSize()
	if err != nil {
		return "", err
	}
	text, err := t.meta("archive_ahead")
	if err != nil {
		return "", err
	}
	var known int64
	if text != nil {
		if known, err = strconv.ParseInt(string(text), 10, 64); err != nil {
			return "", fmt.Errorf("stored size of the archive's tree: %w", errDamaged)
		}
	}
	switch {
	case last == nil && t.s.archive.Exists():
		return "a new database beside an existing archive: run recover", nil
	case last != nil && string(last) != here:
		return "the database was copied, restored or moved", nil
	case size < t.s.mark.size:
		return "the database is older than what was done with it: it was restored in place", nil
	case ahead > max(size, known):
		return "the archive has contracts that the database does not know: run recover", nil
	}
	return "", nil
}

// archiveAhead returns the largest size that the audit tree had when a contract was kept that the ledger does not know as
// kept, 0 if it knows them all. What it does know was kept while its own tree was smaller than it is now.
func (t *txn) archiveAhead() (size int64, err error) {
	since, err := t.unkeptSince()
	if err != nil {
		return 0, err
	}
	err = t.s.archive.Sweep(t.ctx, since, func(folder string) error {
		var step deal.Step
		found, err := t.get([]any{&step}, `SELECT step FROM sealings WHERE tx = $1`, path.Base(folder))
		if err != nil || found && !step.Before(deal.Kept) {
			return err
		}
		m, err := t.s.archive.Read(folder, t.s.master.manifest)
		if err != nil {
			t.s.log.Warn("a manifest of the archive cannot be used", "err", err)
			return nil
		}
		size = max(size, m.Tree.Size)
		return nil
	})
	return size, err
}

// clockSlack is how far the clocks of time-stamp servers and of this host may ever have been apart.
const clockSlack = 31 * 24 * time.Hour

// unkeptSince is a time after which everything was noticed or sealed that may be in the archive and that the ledger does
// not know as kept: what it does not know at all came after the newest entry that it knows.
func (t *txn) unkeptSince() (time.Time, error) {
	var noticed int64
	found, err := t.get([]any{&noticed}, `SELECT noticed FROM sealings ORDER BY seq DESC LIMIT 1`)
	if err != nil || !found {
		return time.Time{}, err
	}
	var oldest sql.NullInt64
	if _, err := t.get([]any{&oldest}, `SELECT min(noticed) FROM sealings
		WHERE step IN ('noticed', 'gathered', 'rendered', 'sealed', 'checked') AND condition <> 'ended'`); err != nil {
		return time.Time{}, err
	}
	if oldest.Valid {
		noticed = min(noticed, oldest.Int64)
	}
	return fromMillis(noticed).Add(-clockSlack), nil
}

func (t *txn) beginEpoch(why string) error {
	t.s.log.Warn("a new epoch begins: older deals without proof are held", "reason", why)
	if err := t.setMeta("epoch", []byte(t.now.Format(time.RFC3339Nano))); err != nil {
		return err
	}
	t.s.epoch.Store(t.now.UnixMilli())
	if err := t.nameInstance(); err != nil {
		return err
	}
	if err := t.auditShared("", "", deal.Entry{Who: "daemon", What: "epoch", Why: why}); err != nil {
		return err
	}
	// What is still to be done may have been done after the copy was made.
	if err := t.exec(`UPDATE errands SET tries = 1 WHERE fate = '' AND tries = 0`); err != nil {
		return err
	}
	return t.reconsider()
}

// reconsider has the records looked at of all that waits for a person: whoever had this state before may have released it,
// and its record then says what became of it. No receipt is desired before that: the record may show more than is known here.
func (t *txn) reconsider() error {
	waiting, err := column[deal.TxID](t, `SELECT tx FROM sealings WHERE condition IN ('held', 'dead') ORDER BY seq`)
	if err != nil {
		return err
	}
	for _, tx := range waiting {
		sl, key, err := t.load(tx)
		if err != nil {
			return err
		}
		if key == nil {
			continue
		}
		r, err := t.row(tx)
		if err != nil {
			return err
		}
		if sl.Facts.Waited == nil {
			sl.Facts.Waited = &deal.Waited{Condition: sl.Condition, Reason: sl.Reason}
		}
		resume(sl)
		if err := t.advance(r, sl, key, deal.Entry{Who: "daemon", What: "reconsidered", Why: "this copy of the state is new, and the record may say more"}); err != nil {
			return err
		}
	}
	return nil
}

// instanceLength is enough to tell the copies of one database apart, and short for a field of a CRM.
const instanceLength = 8

// nameInstance gives the database a new name: its copies have the old one.
func (t *txn) nameInstance() error {
	name := strings.ToLower(rand.Text()[:instanceLength])
	t.s.instance.Store(&name)
	return t.setMeta("instance", []byte(name))
}

// loadInstance reads the name that an earlier start has given.
func (t *txn) loadInstance() error {
	name, err := t.meta("instance")
	if err != nil {
		return err
	}
	if name == nil {
		return t.nameInstance()
	}
	text := string(name)
	t.s.instance.Store(&text)
	return nil
}

// Instance is the name of this database. A copy that is opened elsewhere, and a restored one, has another.
func (s *Store) Instance() string { return *s.instance.Load() }

// Epoch is when this database began to live where it is, if it was copied or restored; otherwise the zero time. An
// entry that was noticed before it and bears no proof of what became of it must be held, not sealed.
func (s *Store) Epoch() time.Time { return fromMillis(s.epoch.Load()) }
