package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// checkpointHead is the first line of a checkpoint.
const checkpointHead = "dealseal audit tree"

// maxCheckpoint is more than any checkpoint needs, in bytes.
const maxCheckpoint = 4096

// loadSigner opens the key that signs checkpoints; it is made with the database and kept encrypted.
func (t *txn) loadSigner() error {
	boxed, err := t.meta("checkpoint_key")
	if err != nil {
		return err
	}
	if boxed == nil {
		if boxed, err = t.makeSigner(); err != nil {
			return err
		}
	}
	skey, err := unbox(t.s.master.shared(), "checkpoint-key", boxed)
	if err != nil {
		return fmt.Errorf("checkpoint key: %w", err)
	}
	if t.s.signer, err = note.NewSigner(string(skey)); err != nil {
		return fmt.Errorf("checkpoint key: %w", errDamaged)
	}
	vkey, err := t.meta("checkpoint_verifier")
	t.s.vkey = string(vkey)
	return err
}

func (t *txn) makeSigner() ([]byte, error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "dealseal/"+strings.ToLower(rand.Text()[:10]))
	if err != nil {
		return nil, fmt.Errorf("make the checkpoint key: %w", err)
	}
	boxed := box(t.s.master.shared(), "checkpoint-key", []byte(skey))
	return boxed, errors.Join(t.setMeta("checkpoint_key", boxed), t.setMeta("checkpoint_verifier", []byte(vkey)))
}

// AuditKey is the public key of the checkpoints, in the form of golang.org/x/mod/sumdb/note.
func (s *Store) AuditKey() string { return s.vkey }

// Checkpoint signs the audit tree as it is now and keeps the result; if nothing was added since the last one it returns
// that. Copies kept elsewhere are what VerifyAudit can be held against.
func (s *Store) Checkpoint(ctx context.Context) (signed []byte, err error) {
	var head deal.TreeHead
	err = s.update(ctx, "commit/checkpoint", func(t *txn) error {
		if head, err = t.treeHead(); err != nil {
			return err
		}
		found, err := t.get([]any{&signed}, `SELECT note FROM checkpoints WHERE size = $1`, head.Size)
		if found || err != nil {
			return err
		}
		text := fmt.Sprintf("%s\n%d\n%s\n%s\n", checkpointHead, head.Size, head.Root, t.now.Format(checkpointTime))
		if signed, err = note.Sign(&note.Note{Text: text}, s.signer); err != nil {
			return fmt.Errorf("sign checkpoint: %w", err)
		}
		return t.exec(`INSERT INTO checkpoints (size, at, note) VALUES ($1, $2, $3)`, head.Size, t.now.UnixMilli(), signed)
	})
	if err == nil {
		err = s.raiseHighWater(head.Size)
	}
	return signed, err
}

// openCheckpoint checks the signature and reads size, root and time.
func openCheckpoint(signed []byte, verifier note.Verifier) (tlog.Tree, time.Time, error) {
	if len(signed) > maxCheckpoint {
		return tlog.Tree{}, time.Time{}, &TamperedError{Index: -1, Reason: fmt.Sprintf("a checkpoint has %d bytes, at most %d are expected", len(signed), maxCheckpoint)}
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, time.Time{}, &TamperedError{Index: -1, Reason: fmt.Sprintf("a checkpoint is not signed by this log's key %s: %v", verifier.Name(), err)}
	}
	return parseCheckpoint(n.Text)
}

// checkpointTime is how a checkpoint writes when it was made.
const checkpointTime = "2006-01-02T15:04:05.000Z07:00"

func parseCheckpoint(text string) (tree tlog.Tree, at time.Time, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 5 || lines[0] != checkpointHead {
		return tree, at, &TamperedError{Index: -1, Reason: "a signed note is not a checkpoint of this log"}
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil || tree.N < 0 {
		return tree, at, &TamperedError{Index: -1, Reason: fmt.Sprintf("line 2 of a checkpoint is not a size: %q", lines[1])}
	}
	if tree.Hash, err = tlog.ParseHash(lines[2]); err != nil {
		return tree, at, &TamperedError{Index: -1, Reason: fmt.Sprintf("line 3 of a checkpoint is not a hash: %q", lines[2])}
	}
	if at, err = time.Parse(checkpointTime, lines[3]); err != nil {
		return tree, at, &TamperedError{Index: -1, Reason: fmt.Sprintf("line 4 of a checkpoint is not a time: %q", lines[3])}
	}
	return tree, at, nil
}
