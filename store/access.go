package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

// What audit entries are called that say who looked at what.
const (
	entryViewed     = "viewed"
	entryDownloaded = "downloaded"
)

// Witness puts into the audit log that a person has seen something of a sealing, or, with an empty tx, has done something
// that concerns none. The entry does not go with the sealing's data key: who has read a contract is still known when
// nobody can read it any more. It is durable when Witness returns.
func (s *Store) Witness(ctx context.Context, tx deal.TxID, e deal.Entry) error {
	return s.update(ctx, "commit/operate", func(t *txn) error { return t.witness(tx, e) })
}

func (t *txn) witness(tx deal.TxID, e deal.Entry) error {
	if e.Who == "" || e.What == "" {
		return fmt.Errorf("an entry must say who and what")
	}
	var tenant deal.TenantID
	if tx != "" {
		found, err := t.get([]any{&tenant}, `SELECT tenant FROM sealings WHERE tx = $1`, tx)
		if err != nil {
			return err
		}
		if !found {
			return &NotFoundError{tx}
		}
	}
	return t.auditShared(tenant, tx, e)
}

// Values returns what was read of a sealing's record, after putting into the audit log who asked. The error is a
// *NotFoundError or an *ErasedError if there is nothing to return.
func (s *Store) Values(ctx context.Context, tx deal.TxID, who string) (deal.Private, error) {
	sl, err := s.Load(ctx, tx)
	if err != nil {
		return deal.Private{}, err
	}
	if _, err := s.dataKey(ctx, tx); err != nil {
		return deal.Private{}, err
	}
	if err := s.Witness(ctx, tx, deal.Entry{Who: who, What: entryViewed, Why: "the fields that went into the document"}); err != nil {
		return deal.Private{}, err
	}
	return sl.Private, nil
}

// KeptFiles lists what is in a folder of the archive, the contract first. The error is an *archive.DamagedError for a
// folder that is not as it was kept, and fs.ErrNotExist for one that is gone.
func (s *Store) KeptFiles(folder string) (list []deal.FileFact, err error) {
	m, err := s.archive.Read(folder, s.master.manifest)
	if err != nil {
		return nil, err
	}
	for name, f := range m.Files {
		list = append(list, deal.FileFact{Name: name, Size: f.Size, SHA256: f.SHA256, MD5: f.MD5})
	}
	slices.SortFunc(list, func(a, b deal.FileFact) int { return strings.Compare(a.Name, b.Name) }) // "contract.pdf" comes before "evidence/"
	return list, nil
}

// Fetch opens a kept document of a sealing for a person, after putting into the audit log who asked and for what. The
// returned file is named as the contract was on the record, or after the transaction. The caller closes it.
func (s *Store) Fetch(ctx context.Context, tx deal.TxID, name, who string) (*File, error) {
	sl, err := s.Load(ctx, tx)
	if err != nil {
		return nil, err
	}
	if sl.Facts.Archive == "" {
		return nil, &NotKeptError{tx}
	}
	f, err := s.OpenKept(ctx, sl.Facts.Archive, name)
	if err != nil {
		return nil, err
	}
	e := deal.Entry{Who: who, What: entryDownloaded, Why: name, Detail: map[string]string{"sha256": f.SHA256}}
	if err := s.Witness(ctx, tx, e); err != nil {
		f.Close()
		return nil, err
	}
	if name == contractName && sl.Private.FileName != "" {
		f.Name = sl.Private.FileName
	} else {
		f.Name = string(tx) + " " + f.Name
	}
	return f, nil
}

// NotKeptError means that nothing of the sealing is in the archive yet.
type NotKeptError struct{ Tx deal.TxID }

func (e *NotKeptError) Error() string { return fmt.Sprintf("%s is not in the archive yet", e.Tx) }

// NewestCheckpoint returns the newest checkpoint, the zero Checkpoint if there is none.
func (s *Store) NewestCheckpoint(ctx context.Context) (c deal.Checkpoint, err error) {
	err = s.view(ctx, func(t *txn) error {
		c, err = t.newestCheckpoint()
		return err
	})
	return c, err
}

func (t *txn) newestCheckpoint() (c deal.Checkpoint, err error) {
	var at int64
	_, err = t.get([]any{&c.Size, &at, &c.Note}, `SELECT size, at, note FROM checkpoints ORDER BY size DESC LIMIT 1`)
	c.At = fromMillis(at)
	return c, err
}
