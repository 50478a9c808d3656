package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// TamperedError means that the audit log is not what it was.
type TamperedError struct {
	Index  int64 // of the entry, -1 when it is not about one entry
	Reason string
}

func (e *TamperedError) Error() string {
	if e.Index < 0 {
		return "the audit log was altered: " + e.Reason
	}
	return fmt.Sprintf("the audit log was altered at entry %d: %s", e.Index, e.Reason)
}

// Permanent is always true.
func (e *TamperedError) Permanent() bool { return true }

// AuditReport is what VerifyAudit has established.
type AuditReport struct {
	Head        deal.TreeHead
	Sealings    int64 // whose state agrees with their last entry
	Checkpoints int   // own and given, all consistent with the tree
	Erased      int64 // entries whose who and why went with a data key
}

// VerifyAudit recomputes the tree from its rows and compares it with the stored hashes, with every stored checkpoint
// and with old, a checkpoint that was kept elsewhere (nil for none); then each sealing with its last entry. Only a
// checkpoint from elsewhere proves that nobody rewrote everything. The error is a *TamperedError if something differs.
func (s *Store) VerifyAudit(ctx context.Context, old []byte) (report AuditReport, err error) {
	err = s.view(ctx, func(t *txn) error {
		v := &auditor{txn: t, report: &report, last: map[deal.TxID]leaf{}}
		if err := v.entries(); err != nil {
			return err
		}
		if err := v.checkpoints(old); err != nil {
			return err
		}
		return v.sealings()
	})
	return report, err
}

// auditor holds what is recomputed on the way.
type auditor struct {
	*txn
	report *AuditReport
	hashes []tlog.Hash
	last   map[deal.TxID]leaf // the newest entry that states a step
	key    *dataKey
	keyOf  deal.TxID
	size   int64
}

func (v *auditor) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(v.hashes)) {
			return nil, fmt.Errorf("no hash %d", index)
		}
		out[i] = v.hashes[index]
	}
	return out, nil
}

func (v *auditor) entries() error {
	if err := v.each(v.entry, `SELECT n, tx, shared, leaf, private FROM audit ORDER BY n`); err != nil {
		return err
	}
	if err := v.storedHashes(); err != nil {
		return err
	}
	root, err := tlog.TreeHash(v.size, v)
	if err != nil {
		return err
	}
	v.report.Head = deal.TreeHead{Size: v.size, Root: root.String()}
	return nil
}

func (v *auditor) entry(r *sql.Rows) error {
	e, err := scanEntry(r)
	if err != nil {
		return err
	}
	if e.n != v.size || e.leaf.N != e.n {
		return &TamperedError{Index: v.size, Reason: "it is missing or out of order"}
	}
	if e.leaf.Tx != e.tx {
		return &TamperedError{Index: e.n, Reason: "it is filed under another transaction"}
	}
	if err := v.testimony(e); err != nil {
		return err
	}
	hashes, err := tlog.StoredHashes(e.n, e.text, v)
	if err != nil {
		return err
	}
	v.hashes = append(v.hashes, hashes...)
	v.size++
	if e.leaf.Step != "" {
		v.last[e.leaf.Tx] = e.leaf
	}
	return nil
}

func (v *auditor) testimony(e *entry) error {
	if !e.shared && e.tx != v.keyOf {
		key, err := v.dataKey(e.tx)
		if errors.Is(err, errDamaged) {
			return &TamperedError{Index: e.n, Reason: "the data key is not the one that its tenant's key wraps"}
		}
		if err != nil && !isErased(err) {
			return err
		}
		v.key, v.keyOf = key, e.tx
	}
	_, readable, err := e.open(v.s.master, v.key)
	if err == nil && !readable {
		v.report.Erased++
	}
	return err
}

func (v *auditor) storedHashes() error {
	var n int
	err := v.each(func(r *sql.Rows) error {
		var i int64
		var h []byte
		if err := r.Scan(&i, &h); err != nil {
			return err
		}
		if i != int64(n) || n >= len(v.hashes) || !bytes.Equal(h, v.hashes[n][:]) {
			return &TamperedError{Index: -1, Reason: fmt.Sprintf("stored hash %d is not that of the entries", i)}
		}
		n++
		return nil
	}, `SELECT i, hash FROM audit_hashes ORDER BY i`)
	if err == nil && n != len(v.hashes) {
		return &TamperedError{Index: -1, Reason: "stored hashes are missing"}
	}
	return err
}

func (v *auditor) checkpoints(old []byte) error {
	verifier, err := note.NewVerifier(v.s.vkey)
	if err != nil {
		return err
	}
	notes, err := column[[]byte](v.txn, `SELECT note FROM checkpoints ORDER BY size`)
	if err != nil {
		return err
	}
	if old != nil {
		notes = append(notes, old)
	}
	for _, n := range notes {
		head, _, err := openCheckpoint(n, verifier)
		if err != nil {
			return err
		}
		if err := v.contains(head); err != nil {
			return err
		}
		v.report.Checkpoints++
	}
	return nil
}

func (v *auditor) contains(head tlog.Tree) error {
	if head.N > v.size {
		return &TamperedError{Index: v.size, Reason: fmt.Sprintf("the log ends here, but a signed checkpoint has %d entries", head.N)}
	}
	root, err := tlog.TreeHash(head.N, v)
	if err != nil {
		return err
	}
	if root != head.Hash {
		return &TamperedError{Index: -1, Reason: fmt.Sprintf("the first %d entries are not those of a signed checkpoint", head.N)}
	}
	return nil
}

func (v *auditor) sealings() error {
	err := v.each(func(r *sql.Rows) error {
		var l leaf
		if err := r.Scan(&l.Tx, &l.Step, &l.Condition, &l.Version, &l.N, &l.Tenant); err != nil {
			return err
		}
		last, ok := v.last[l.Tx]
		if !ok || last.N != l.N || last.Step != l.Step || last.Condition != l.Condition || last.Version != l.Version || last.Tenant != l.Tenant {
			return &TamperedError{Index: l.N, Reason: fmt.Sprintf("%s is %s, %s (version %d) in the ledger, its last entry says otherwise", l.Tx, l.Step, l.Condition, l.Version)}
		}
		delete(v.last, l.Tx)
		v.report.Sealings++
		return nil
	}, `SELECT tx, step, condition, version, last_entry, tenant FROM sealings ORDER BY seq`)
	if err != nil {
		return err
	}
	for tx, l := range v.last {
		return &TamperedError{Index: l.N, Reason: fmt.Sprintf("%s has entries but is missing from the ledger", tx)}
	}
	return nil
}

func isErased(err error) bool {
	var e *ErasedError
	return errors.As(err, &e)
}
