package store

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/dealseal/dealseal/deal"
)

// Infer returns the entries that the sightings of a page tell of, those that are known included. It keeps nothing: they go into
// the page, judged by their rules' filters, and Notice infers them once more, in the transaction that takes them in.
func (s *Store) Infer(ctx context.Context, n deal.Noticing) (entries []deal.Change, err error) {
	err = s.view(ctx, func(t *txn) error {
		_, entries, err = t.infer(n)
		return err
	})
	return entries, err
}

type activatedWatch struct {
	deal.Watch
	activation
}

// infer returns the stays that the sightings of a page lead to, as far as they differ from what is stored, and the entries.
func (t *txn) infer(n deal.Noticing) (stays map[deal.Ref]deal.Stay, entries []deal.Change, err error) {
	stays = map[deal.Ref]deal.Stay{}
	var watches []activatedWatch
	for _, rule := range slices.Sorted(maps.Keys(n.Watches)) {
		w := n.Watches[rule]
		if !w.Snapshot {
			continue
		}
		a, found, err := t.activation(n.Account, w)
		if err != nil {
			return nil, nil, err
		}
		if found {
			watches = append(watches, activatedWatch{w, a})
		}
	}
	for _, x := range n.Page.Sightings {
		was, seen := stays[x.Ref]
		if !seen {
			if was, err = t.stay(n, x.Ref); err != nil {
				return nil, nil, fmt.Errorf("sighting of %s: %w", x.Ref, err)
			}
		}
		stay := was.See(x, n.Previous.Since)
		if stay != was {
			stays[x.Ref] = stay
		}
		for _, w := range watches {
			if c, ok := stay.Entry(x, w.Watch, w.seen); ok {
				entries = append(entries, c)
			}
		}
	}
	return stays, entries, nil
}

// stay is the stored one of a record, the zero value if it was never seen.
func (t *txn) stay(n deal.Noticing, ref deal.Ref) (s deal.Stay, err error) {
	var entered, origin, after, stamp int64
	found, err := t.get([]any{&s.Stage, &entered, &origin, &after, &stamp}, `SELECT stage, entered, origin, after, stamp FROM sightings
		WHERE tenant = $1 AND account = $2 AND object = $3 AND record = $4`, n.Tenant, n.Account, ref.Object, ref.ID)
	if found {
		s.Entered, s.From, s.After, s.Stamp = fromMillis(entered), fromMillis(origin), fromMillis(after), fromMillis(stamp)
	}
	return s, err
}

// see keeps what the sightings of a page lead to. deal.ErrStale means that they lead to other entries than those of the page:
// something else was seen since these were inferred.
func (t *txn) see(n deal.Noticing) error {
	stays, inferred, err := t.infer(n)
	if err != nil {
		return err
	}
	type name struct {
		rule, occurrence string
		ref              deal.Ref
	}
	of := map[name]bool{}
	for _, c := range inferred {
		of[name{c.Rule, c.Occurrence, c.Ref}] = true
	}
	given := map[name]bool{}
	for _, c := range slices.Concat(n.Page.Entries, n.Filtered) {
		if c.Inferred != nil {
			given[name{c.Rule, c.Occurrence, c.Ref}] = true
		}
	}
	if !maps.Equal(given, of) {
		return stale("other entries follow from what was seen of %s than were judged", n.Account)
	}
	for ref, s := range stays {
		if err := t.exec(`INSERT INTO sightings (tenant, account, object, record, stage, entered, origin, after, stamp) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (tenant, account, object, record) DO UPDATE SET stage = excluded.stage, entered = excluded.entered, origin = excluded.origin,
				after = excluded.after, stamp = excluded.stamp`,
			n.Tenant, n.Account, ref.Object, ref.ID, s.Stage, millis(s.Entered), millis(s.From), millis(s.After), millis(s.Stamp)); err != nil {
			return err
		}
	}
	if !n.Ended {
		return nil
	}
	for _, w := range n.Watches {
		if !w.Snapshot || slices.Contains(n.Page.Unread, w.Object) {
			continue
		}
		if err := t.exec(`UPDATE activations SET seen = 1 WHERE account = $1 AND rule = $2 AND object = $3 AND pipeline = $4 AND stage = $5 AND seen = 0`,
			n.Account, w.Rule, w.Object, w.Pipeline, w.Stage); err != nil {
			return err
		}
	}
	return nil
}

// Knows reports whether an entry is known by this name.
func (s *Store) Knows(ctx context.Context, tx deal.TxID) (known bool, err error) {
	err = s.view(ctx, func(t *txn) error {
		var owner deal.TxID
		known, err = t.get([]any{&owner}, `SELECT owner FROM known WHERE tx = $1`, tx)
		return err
	})
	return known, err
}
