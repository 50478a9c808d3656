package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Story is everything that the ledger knows of one sealing.
type Story struct {
	Sealing *deal.Sealing
	Erased  bool
	Trail   []deal.TrailLine
	Intents []IntentLine
	Receipt deal.ReceiptState
	Outbox  []OutboxLine
	Earlier []deal.TxID
	// Callbacks are workflows of the CRM that wait, or have waited, for it.
	Callbacks []deal.Callback `json:",omitempty"`
	// Errands are what was to be done in the CRM because of what became of it.
	Errands []deal.Errand `json:",omitempty"`
}

// IntentLine is one effect that was about to happen.
type IntentLine struct {
	At, Until time.Time // when it was committed, and until when it held the lease
	Step      deal.Step
	What      string
	Digest    string
	Key       string
}

// OutboxLine is one event that others may be told.
type OutboxLine struct {
	ID   string
	N    int64 // per sealing, from 1
	Type string
	At   time.Time
	Data map[string]string // nil once the data key is gone, or when it is damaged
	// Damaged is set when the data cannot be read. The rest of the story can.
	Damaged bool `json:",omitempty"`
}

// Story returns all of one sealing, as of one moment.
func (s *Store) Story(ctx context.Context, tx deal.TxID) (story *Story, err error) {
	err = s.view(ctx, func(t *txn) error {
		sl, key, err := t.load(tx)
		if err != nil {
			return err
		}
		story = &Story{Sealing: sl, Erased: key == nil}
		if story.Trail, err = t.trail(tx); err != nil {
			return err
		}
		if story.Intents, err = t.intents(tx); err != nil {
			return err
		}
		if story.Receipt, err = t.receipt(tx); err != nil {
			return err
		}
		if story.Outbox, err = t.outbox(tx, key); err != nil {
			return err
		}
		if story.Callbacks, err = t.callbacks(sl.Tenant, callbacksOfQuery, tx); err != nil {
			return err
		}
		if story.Errands, err = t.errandsOf(tx); err != nil {
			return err
		}
		story.Earlier, err = t.earlierThan(sl)
		return err
	})
	return story, err
}

func (t *txn) intents(tx deal.TxID) (lines []IntentLine, err error) {
	err = t.each(func(r *sql.Rows) error {
		var l IntentLine
		var at, until int64
		err := r.Scan(&at, &until, &l.Step, &l.What, &l.Digest, &l.Key)
		l.At, l.Until = fromMillis(at), fromMillis(until)
		lines = append(lines, l)
		return err
	}, `SELECT at, until, step, what, digest, key FROM intents WHERE tx = $1 ORDER BY version`, tx)
	return lines, err
}

func (t *txn) outbox(tx deal.TxID, key *dataKey) (lines []OutboxLine, err error) {
	err = t.each(func(r *sql.Rows) error {
		var l OutboxLine
		var at int64
		var data []byte
		if err := r.Scan(&l.ID, &l.N, &l.Type, &at, &data); err != nil {
			return err
		}
		l.At = fromMillis(at)
		if key != nil {
			text, err := unbox(key.rows, "outbox/"+l.ID, data)
			l.Damaged = err != nil || json.Unmarshal(text, &l.Data) != nil
		}
		lines = append(lines, l)
		return nil
	}, `SELECT id, n, type, at, data FROM outbox WHERE tx = $1 ORDER BY n`, tx)
	return lines, err
}
