package softkey

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/dealseal/dealseal/secret"
)

const (
	// workFactor is age's own choice: 2^18 costs a second and 256 MiB once at every opening. It is also the most that is accepted of a file, since each
	// step doubles both.
	workFactor = 18
	maxFile    = 64 << 10
)

// FileError says what is wrong with a key file.
type FileError struct {
	Path      string
	Err       error
	permanent bool
}

func (e *FileError) Error() string { return "softkey: " + e.Path + ": " + e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// Permanent reports whether the file itself, or its passphrase, has to be mended.
func (e *FileError) Permanent() bool { return e.permanent }

// ErrPassphrase says that the passphrase does not open the file.
var ErrPassphrase = errors.New("the passphrase is not the one that the file was encrypted with")

// Open reads and decrypts a key file. Errors are of type *FileError; a wrong passphrase wraps ErrPassphrase.
func Open(path string, passphrase secret.Secret) (*Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, &FileError{Path: path, Err: withoutPath(err), permanent: errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)}
	}
	defer func() { _ = file.Close() }()
	k, err := read(file, passphrase)
	if err != nil {
		return nil, &FileError{Path: path, Err: err, permanent: true}
	}
	return k, nil
}

func read(r io.Reader, passphrase secret.Secret) (*Key, error) {
	if passphrase.IsZero() {
		return nil, errors.New("no passphrase")
	}
	identity, err := age.NewScryptIdentity(passphrase.RevealString())
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(workFactor)
	plain, err := age.Decrypt(armor.NewReader(io.LimitReader(r, maxFile)), identity)
	var mismatch *age.NoIdentityMatchError
	switch {
	case errors.As(err, &mismatch):
		return nil, ErrPassphrase
	case err != nil:
		return nil, fmt.Errorf("not an armored age file under a passphrase: %w", err)
	}
	text, err := io.ReadAll(plain)
	if err != nil {
		return nil, fmt.Errorf("the file is damaged or longer than %d bytes: %w", maxFile, err)
	}
	defer clear(text)
	return decode(text)
}

// Save encrypts the key into a new file that only its owner can read, and makes it durable. It never overwrites: a key that is gone cannot be had back.
func (k *Key) Save(path string, passphrase secret.Secret) error {
	return k.save(path, passphrase, workFactor)
}

func (k *Key) save(path string, passphrase secret.Secret, logN int) (err error) {
	var armored bytes.Buffer
	if err := k.write(&armored, passphrase, logN); err != nil {
		return &FileError{Path: path, Err: err, permanent: true}
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &FileError{Path: path, Err: withoutPath(err), permanent: errors.Is(err, fs.ErrExist)}
	}
	_, err = file.Write(armored.Bytes())
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		_ = os.Remove(path)
		return &FileError{Path: path, Err: withoutPath(err)}
	}
	return syncDir(filepath.Dir(path))
}

func (k *Key) write(w io.Writer, passphrase secret.Secret, logN int) error {
	if passphrase.IsZero() {
		return errors.New("no passphrase")
	}
	recipient, err := age.NewScryptRecipient(passphrase.RevealString())
	if err != nil {
		return err
	}
	recipient.SetWorkFactor(logN)
	text, err := k.encode()
	if err != nil {
		return err
	}
	defer clear(text)
	armored := armor.NewWriter(w)
	plain, err := age.Encrypt(armored, recipient)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	_, err = plain.Write(text)
	return errors.Join(err, plain.Close(), armored.Close())
}

// syncDir makes the new name durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return &FileError{Path: path, Err: withoutPath(err)}
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return &FileError{Path: path, Err: withoutPath(err)}
	}
	return nil
}

// withoutPath drops the path that FileError names anyway.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
