package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/softkey"
	"github.com/dealseal/dealseal/signing/verify"
)

// countedKey is one key under every name, which counts its signatures.
type countedKey struct {
	signing.Key
	signed int
}

func (k *countedKey) Open(context.Context, string) (signing.Key, error) { return k, nil }

func (k *countedKey) Close() error { return nil }

func (k *countedKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.signed++
	return k.Key.Sign(random, digest, opts)
}

// newTestPress seals at level B-B with a key that counts, and reads for as long as timeout; 0 is enough.
func newTestPress(t *testing.T, timeout time.Duration) (*press, *countedKey) {
	t.Helper()
	authority, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	soft, err := softkey.Generate(softkey.P256)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := authority.IssueSigner(soft.Public(), pkix.Name{CommonName: "Office Seal"})
	if err != nil {
		t.Fatal(err)
	}
	if soft, err = soft.WithChain(chain); err != nil {
		t.Fatal(err)
	}
	checker := &checker{verify.NewChecker(verify.CheckerOptions{Timeout: timeout, Log: slog.New(slog.DiscardHandler)}), []*x509.Certificate{authority.Root.Certificate}}
	t.Cleanup(func() { _ = checker.Close() })
	key := &countedKey{Key: soft}
	return &press{sealer: signing.NewSealer(key, nil, time.Now), checker: checker, profile: signing.Profile{Name: "memo", Key: "house", Level: pades.BB}, stderr: io.Discard}, key
}

func TestSignRehearsesBeforeItUsesTheKey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		timeout time.Duration // of the reader; 0 is enough
		signed  int
		says    string
	}{
		"read":     {signed: 1},
		"not read": {timeout: time.Nanosecond, says: "a rehearsal of the seal: "},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := openFile("testdata/contract.pdf")
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			p, key := newTestPress(t, c.timeout)
			folder := t.TempDir()
			_, err = sealFile(t, p, in, filepath.Join(folder, "sealed.pdf"))
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("sealing says %v, want %q", err, c.says)
			}
			if key.signed != c.signed {
				t.Errorf("the key signed %d times, want %d", key.signed, c.signed)
			}
			left, err := os.ReadDir(folder)
			if err != nil || len(left) != c.signed {
				t.Errorf("the folder has %v (%v), want %d files", left, err, c.signed)
			}
		})
	}
}

// TestAByteThatTheDiskHasChangedIsFound changes what was copied after it was hashed: a rehearsal does not read that again, and
// the check of the sealed file must.
func TestAByteThatTheDiskHasChangedIsFound(t *testing.T) {
	t.Parallel()
	p, key := newTestPress(t, 0)
	folder := t.TempDir()
	in, err := openFile("testdata/contract.pdf")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	d, err := newDraft(in, filepath.Join(folder, "sealed.pdf"))
	if err != nil {
		t.Fatal(err)
	}
	d.hash(t.Context(), 0)
	<-d.copied
	if _, err := d.temp.WriteAt([]byte("#"), 12); err != nil { // in the comment behind the header
		t.Fatal(err)
	}
	_, err = p.seal(t.Context(), d)
	d.close()
	if err == nil || !strings.Contains(err.Error(), "our own verification") {
		t.Errorf("sealing says %v", err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 || key.signed != 1 {
		t.Errorf("the folder has %v (%v) after %d signatures", left, err, key.signed)
	}
}

// TestADraftWritesNothingTwice has somebody read what stands behind the copy while more is put there.
func TestADraftWritesNothingTwice(t *testing.T) {
	t.Parallel()
	in, err := openFile("testdata/contract.pdf")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	d, err := newDraft(in, filepath.Join(t.TempDir(), "out.pdf"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	<-d.copied
	for _, step := range []struct{ tail, mark, want string }{
		{"a rehearsal of some length", "", "a rehearsal of some length"},
		{"a seal", "", "a seal"},
		{"a seal", "A", "A seal"}, // what was changed meanwhile shows what is written
		{"a seal and evidence", "", "A seal and evidence"},
		{"another", "", "another"},
	} {
		if _, err := d.temp.WriteAt([]byte(step.mark), in.size); err != nil {
			t.Fatal(err)
		}
		made, err := d.with([]byte(step.tail))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(io.NewSectionReader(d.reading, in.size, 100)); err != nil || string(b) != step.want || made.size != in.size+int64(len(step.tail)) {
			t.Errorf("behind the copy stands %q (%v), %d bytes; want %q", b, err, made.size-in.size, step.want)
		}
	}
}

// sealFile seals as the command does.
func sealFile(t *testing.T, p *press, in *file, out string) ([]*verify.Signature, error) {
	t.Helper()
	d, err := newDraft(in, out)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	d.hash(t.Context(), p.profile.Hash)
	return p.seal(t.Context(), d)
}

// TestReadersOfADraftCannotWriteIt has what a child is handed be the file itself, for reading: a copy would be memory of the
// file's size, and whoever took the child over must not change what it has called good.
func TestReadersOfADraftCannotWriteIt(t *testing.T) {
	t.Parallel()
	in, err := openFile("testdata/contract.pdf")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out := filepath.Join(t.TempDir(), "out.pdf")
	d, err := newDraft(in, out)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := d.finish([]byte("tail"), func(made *file) error {
		handed := pades.Document(made).(interface{ File() *os.File }).File()
		if _, err := handed.WriteAt([]byte("x"), 0); err == nil {
			t.Error("the file of a draft can be written by who reads it")
		}
		if b, err := io.ReadAll(io.NewSectionReader(handed, in.size, 100)); err != nil || string(b) != "tail" {
			t.Errorf("behind the original stands %q (%v)", b, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(out); err != nil || info.Size() != in.size+4 {
		t.Errorf("what was made: %v, %v", info, err)
	}
}
