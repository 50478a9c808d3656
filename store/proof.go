package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Proof shows to whoever has no access to the daemon that the audit entries of a sealing are in the log that a checkpoint
// signs (as in RFC 6962), and what each of them says. CheckProof checks it.
type Proof struct {
	Form string    `json:"form"` // proofForm
	Tx   deal.TxID `json:"tx"`
	// Key is the public key of the log, in the form of golang.org/x/mod/sumdb/note; Checkpoint is a note that it signs.
	Key        string       `json:"key"`
	Checkpoint string       `json:"checkpoint"`
	Entries    []ProofEntry `json:"entries"`
}

// ProofEntry is one audit entry.
type ProofEntry struct {
	// Leaf is the exact text that the tree commits to.
	Leaf string `json:"leaf"`
	// Testimony is a salt and what the leaf commits to: who, why and details. Absent once the data key is destroyed.
	Testimony []byte `json:"testimony,omitempty"`
	// Path are the hashes that lead from the leaf to the root.
	Path tlog.RecordProof `json:"path"`
}

const proofForm = "dealseal audit proof 1"

// MaxProof is more than any proof needs, in bytes.
const MaxProof = 8 << 20

// Proof returns the proof for all entries of a sealing, of which who fetches it is the last, as JSON. It takes a
// checkpoint for it.
func (s *Store) Proof(ctx context.Context, tx deal.TxID, who string) ([]byte, error) {
	if err := s.Witness(ctx, tx, deal.Entry{Who: who, What: entryDownloaded, Why: "audit proof"}); err != nil {
		return nil, err
	}
	if _, err := s.Checkpoint(ctx); err != nil {
		return nil, err
	}
	p := Proof{Form: proofForm, Tx: tx, Key: s.vkey}
	err := s.view(ctx, func(t *txn) error {
		c, err := t.newestCheckpoint()
		if err != nil {
			return err
		}
		p.Checkpoint = string(c.Note)
		p.Entries, err = t.proofEntries(tx, c.Size)
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(p, "", "  ")
}

func (t *txn) proofEntries(tx deal.TxID, size int64) (list []ProofEntry, err error) {
	key, err := t.dataKey(tx)
	if err != nil && !isErased(err) {
		return nil, err
	}
	var entries []*entry
	err = t.each(func(r *sql.Rows) error {
		e, err := scanEntry(r)
		entries = append(entries, e)
		return err
	}, `SELECT n, tx, shared, leaf, private FROM audit WHERE tx = $1 AND n < $2 ORDER BY n`, tx, size)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		p := ProofEntry{Leaf: string(e.text)}
		if p.Testimony, err = e.salted(t.s.master, key); err != nil {
			return nil, err
		}
		if p.Path, err = tlog.ProveRecord(size, e.n, tlog.HashReaderFunc(t.readHashes)); err != nil {
			return nil, fmt.Errorf("audit tree: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// Proven is what a proof proves.
type Proven struct {
	Tx   deal.TxID
	Log  string // the name of the key that signed the checkpoint
	Size int64  // of the log
	Root string
	At   time.Time // when the checkpoint says that it was made
	// Entries are in the order of the log. Who and Why are empty where they were erased.
	Entries []deal.TrailLine
}

// ProofError says what of a proof does not hold.
type ProofError struct{ Reason string }

func (e *ProofError) Error() string { return "the proof does not hold: " + e.Reason }

// Permanent is always true.
func (e *ProofError) Permanent() bool { return true }

func unproven(format string, args ...any) error { return &ProofError{fmt.Sprintf(format, args...)} }

// CheckProof checks a proof without the log. Its key is the one that it names itself unless kept is not nil: a checkpoint
// that was kept elsewhere, which must be signed by the same key. The error is a *ProofError.
func CheckProof(text, kept []byte) (*Proven, error) {
	if len(text) > MaxProof {
		return nil, unproven("it has %d bytes, at most %d are expected", len(text), MaxProof)
	}
	var p Proof
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, unproven("it is no JSON: %v", err)
	}
	if p.Form != proofForm {
		return nil, unproven("its form is %q, %q is known", p.Form, proofForm)
	}
	verifier, err := note.NewVerifier(p.Key)
	if err != nil {
		return nil, unproven("its key cannot be read: %v", err)
	}
	tree, at, err := openCheckpoint([]byte(p.Checkpoint), verifier)
	if err != nil {
		return nil, unproven("%v", err)
	}
	if kept != nil {
		if _, _, err := openCheckpoint(kept, verifier); err != nil {
			return nil, unproven("the checkpoint that was kept is not of the same log: %v", err)
		}
	}
	proven := &Proven{Tx: p.Tx, Log: verifier.Name(), Size: tree.N, Root: tree.Hash.String(), At: at}
	last := int64(-1)
	for i, e := range p.Entries {
		line, err := e.check(p.Tx, tree)
		if err != nil {
			return nil, unproven("entry %d: %v", i+1, err)
		}
		if line.Index <= last {
			return nil, unproven("entry %d: it is not behind the one before", i+1)
		}
		last = line.Index
		proven.Entries = append(proven.Entries, line)
	}
	if len(proven.Entries) == 0 {
		return nil, unproven("it has no entries")
	}
	return proven, nil
}

func (p *ProofEntry) check(tx deal.TxID, tree tlog.Tree) (line deal.TrailLine, err error) {
	var l leaf
	if err := json.Unmarshal([]byte(p.Leaf), &l); err != nil {
		return line, fmt.Errorf("its text is no JSON: %w", err)
	}
	if l.Tx != tx {
		return line, fmt.Errorf("it is of another transaction")
	}
	if err := tlog.CheckRecord(p.Path, tree.N, tree.Hash, l.N, tlog.RecordHash([]byte(p.Leaf))); err != nil {
		return line, fmt.Errorf("it is not in the log: %w", err)
	}
	line = deal.TrailLine{Index: l.N, At: fromMillis(l.At), What: l.What, Cert: l.Cert, Step: l.Step}
	if p.Testimony == nil {
		return line, nil
	}
	said, err := readTestimony(p.Testimony, l.Commit)
	line.Who, line.Why = said.Who, said.Why
	return line, err
}

// readTestimony reads a salted testimony that is the committed one.
func readTestimony(salted []byte, commit string) (said testimony, err error) {
	if len(salted) < saltSize || commitment(salted) != commit {
		return said, fmt.Errorf("who and why are not what was committed to")
	}
	d := json.NewDecoder(bytes.NewReader(salted[saltSize:]))
	if err := d.Decode(&said); err != nil {
		return said, fmt.Errorf("who and why cannot be read")
	}
	return said, nil
}
