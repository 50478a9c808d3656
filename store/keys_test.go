package store

import (
	"bytes"
	"io"
	"testing"

	"filippo.io/age"
	"github.com/dealseal/dealseal/deal"
)

func decrypted(stored []byte, id age.Identity) (string, error) {
	r, err := age.Decrypt(bytes.NewReader(stored), id)
	if err != nil {
		return "", err
	}
	plain, err := io.ReadAll(r)
	return string(plain), err
}

func TestFilesAreOpenedByWhoeverHasTheKeyAndNotOnceTheyWereAltered(t *testing.T) {
	const tx, text = deal.TxID("DS-2026-0123456789"), "what is agreed"
	made, err := newDataKey()
	if err != nil {
		t.Fatal(err)
	}
	var stored bytes.Buffer
	if _, err := encrypt(&stored, made, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
		t.Fatal(err)
	}
	tenantKey := make([]byte, 32)
	read, err := unwrapDataKey(tenantKey, tx, made.wrap(tenantKey, tx)) // knows the key of no file
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]age.Identity{"who wrote it": made, "another process": read, "that, once more": read, "age": made.identity} {
		plain, err := decrypted(stored.Bytes(), id)
		if err != nil || plain != text {
			t.Errorf("%s reads %q, %v", name, plain, err)
		}
	}
	for i := range stored.Bytes() {
		altered := bytes.Clone(stored.Bytes())
		altered[i] ^= 1
		if plain, err := decrypted(altered, made); err == nil {
			t.Fatalf("with byte %d altered %q is read", i, plain)
		}
	}
	other, err := newDataKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decrypted(stored.Bytes(), other); err == nil {
		t.Error("another deal's key opens it")
	}
}
