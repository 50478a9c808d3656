package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/mod/sumdb/tlog"
)

// leaf is what the tree commits to: IDs, hashes, and a salted commitment to what people wrote. It contains nothing that
// would have to be forgotten; with the salt, which goes with the data key, the commitment says nothing any more.
type leaf struct {
	N         int64          `json:"n"`
	At        int64          `json:"at"`
	Tenant    deal.TenantID  `json:"tenant,omitempty"`
	Tx        deal.TxID      `json:"tx,omitempty"`
	What      string         `json:"what"`
	Step      deal.Step      `json:"step,omitempty"`
	Condition deal.Condition `json:"condition,omitempty"`
	Version   int64          `json:"version,omitempty"`
	Digest    string         `json:"digest,omitempty"`
	Key       string         `json:"key,omitempty"`
	Cert      string         `json:"cert,omitempty"`
	Commit    string         `json:"commit"`
}

// testimony is the part of an entry that is only committed to.
type testimony struct {
	Who    string            `json:"who"`
	Why    string            `json:"why,omitempty"`
	Detail map[string]string `json:"detail,omitempty"`
}

const saltSize = 32

// commitment binds a testimony without revealing it.
func commitment(salted []byte) string {
	sum := sha256.Sum256(append([]byte("dealseal/audit/1\x00"), salted...))
	return hex.EncodeToString(sum[:])
}

func (t testimony) salted() ([]byte, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	salted := make([]byte, saltSize, saltSize+len(text))
	rand.Read(salted)
	return append(salted, text...), nil
}

func privateContext(n int64) string { return fmt.Sprintf("audit/%d", n) }

// auditShared appends an entry that concerns no sealing or must outlive its data key.
func (t *txn) auditShared(tenant deal.TenantID, tx deal.TxID, e deal.Entry) error {
	_, err := t.appendLeaf(leaf{Tenant: tenant, Tx: tx, What: e.What, Cert: e.Cert}, testimony{e.Who, e.Why, e.Detail}, nil)
	return err
}

// appendLeaf adds an entry to the tree, at its end, and returns its index. A nil key means the store's own.
func (t *txn) appendLeaf(l leaf, private testimony, key *dataKey) (int64, error) {
	size, err := t.treeSize()
	if err != nil {
		return 0, err
	}
	rowKey, shared := t.s.master.shared(), 1
	if key != nil {
		rowKey, shared = key.rows, 0
	}
	row, err := l.row(size, t.now, private, rowKey)
	if err != nil {
		return 0, err
	}
	if err := t.exec(`INSERT INTO audit (n, tx, shared, leaf, private) VALUES ($1, $2, $3, $4, $5)`, size, l.Tx, shared, row.text, row.private); err != nil {
		return 0, fmt.Errorf("audit entry: %w", err)
	}
	return size, t.appendHashes(size, row.text)
}

// auditRow is an entry as it is stored.
type auditRow struct {
	n             int64
	text, private []byte
}

// row binds an entry to its place in the tree and to what was testified, which it encrypts.
func (l leaf) row(n int64, at time.Time, private testimony, key []byte) (auditRow, error) {
	salted, err := private.salted()
	if err != nil {
		return auditRow{}, err
	}
	l.N, l.At, l.Commit = n, at.UnixMilli(), commitment(salted)
	text, err := json.Marshal(l)
	return auditRow{n, text, box(key, privateContext(n), salted)}, err
}

func (t *txn) appendHashes(n int64, text []byte) error {
	hashes, err := tlog.StoredHashes(n, text, tlog.HashReaderFunc(t.readHashes))
	if err != nil {
		return fmt.Errorf("audit tree: %w", err)
	}
	first := tlog.StoredHashIndex(0, n)
	for i, h := range hashes {
		if err := t.exec(`INSERT INTO audit_hashes (i, hash) VALUES ($1, $2)`, first+int64(i), h[:]); err != nil {
			return fmt.Errorf("audit tree: %w", err)
		}
	}
	return nil
}

func (t *txn) readHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		var b []byte
		found, err := t.get([]any{&b}, `SELECT hash FROM audit_hashes WHERE i = $1`, index)
		if err != nil {
			return nil, err
		}
		if !found || len(b) != tlog.HashSize {
			return nil, fmt.Errorf("hash %d of the audit tree is missing or damaged", index)
		}
		copy(hashes[i][:], b)
	}
	return hashes, nil
}

func (t *txn) treeSize() (size int64, err error) {
	_, err = t.get([]any{&size}, `SELECT coalesce(max(n) + 1, 0) FROM audit`)
	return size, err
}

func (t *txn) treeHead() (deal.TreeHead, error) {
	size, err := t.treeSize()
	if err != nil {
		return deal.TreeHead{}, err
	}
	root, err := tlog.TreeHash(size, tlog.HashReaderFunc(t.readHashes))
	if err != nil {
		return deal.TreeHead{}, fmt.Errorf("audit tree: %w", err)
	}
	return deal.TreeHead{Size: size, Root: root.String()}, nil
}

// TreeHead returns the size and root of the audit tree as it is now.
func (s *Store) TreeHead(ctx context.Context) (head deal.TreeHead, err error) {
	err = s.view(ctx, func(t *txn) error {
		head, err = t.treeHead()
		return err
	})
	return head, err
}

// Trail returns the audit lines of a sealing that tell how it was made, oldest first. Who and Why are empty where they
// went with the data key. Who has looked at it is nothing for those who receive the contract, and is left to Story.
func (s *Store) Trail(ctx context.Context, tx deal.TxID) (lines []deal.TrailLine, err error) {
	err = s.view(ctx, func(t *txn) error {
		lines, err = t.trail(tx)
		return err
	})
	return slices.DeleteFunc(lines, func(l deal.TrailLine) bool { return l.What == entryViewed || l.What == entryDownloaded }), err
}

func (t *txn) trail(tx deal.TxID) (lines []deal.TrailLine, err error) {
	key, err := t.dataKey(tx)
	if err != nil && !isErased(err) {
		return nil, err
	}
	err = t.each(func(r *sql.Rows) error {
		entry, err := scanEntry(r)
		if err != nil {
			return err
		}
		line := deal.TrailLine{Index: entry.n, At: fromMillis(entry.leaf.At), What: entry.leaf.What, Cert: entry.leaf.Cert, Step: entry.leaf.Step}
		private, readable, err := entry.open(t.s.master, key)
		if err != nil {
			return err
		}
		if readable {
			line.Who, line.Why = private.Who, private.Why
		}
		lines = append(lines, line)
		return nil
	}, `SELECT n, tx, shared, leaf, private FROM audit WHERE tx = $1 ORDER BY n`, tx)
	return lines, err
}

// entry is a row of the audit table.
type entry struct {
	n       int64
	tx      deal.TxID
	shared  bool
	text    []byte
	private []byte
	leaf    leaf
}

func scanEntry(r *sql.Rows) (*entry, error) {
	var e entry
	if err := r.Scan(&e.n, &e.tx, &e.shared, &e.text, &e.private); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(e.text, &e.leaf); err != nil {
		return nil, &TamperedError{Index: e.n, Reason: "its text cannot be read"}
	}
	return &e, nil
}

// open decrypts the testimony and compares it with the leaf's commitment. readable is false when the data key is gone.
func (e *entry) open(m master, key *dataKey) (private testimony, readable bool, err error) {
	salted, err := e.salted(m, key)
	if err != nil || salted == nil {
		return testimony{}, false, err
	}
	if private, err = readTestimony(salted, e.leaf.Commit); err != nil {
		return testimony{}, false, &TamperedError{Index: e.n, Reason: err.Error()}
	}
	return private, true, nil
}

// salted decrypts what the leaf commits to; nil when the data key is gone.
func (e *entry) salted(m master, key *dataKey) ([]byte, error) {
	rowKey := m.shared()
	if !e.shared {
		if key == nil {
			return nil, nil
		}
		rowKey = key.rows
	}
	salted, err := unbox(rowKey, privateContext(e.n), e.private)
	if err != nil {
		return nil, &TamperedError{Index: e.n, Reason: "who and why are not what was committed to"}
	}
	return salted, nil
}
