package pkcs11

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/scrypt"
	"golang.org/x/sys/unix"
)

// refusals is the file in which the PINs that one token has refused are
// remembered, held under an exclusive lock: two agents of one token take turns
// to log in, so that they cannot both present the same wrong PIN.
//
// A PIN has few digits and would be found again from a fast hash, and a wrong
// PIN may be next to the right one. Hence scrypt, which costs only where there
// was a refusal.
type refusals struct {
	file *os.File
	record
}

// record is the content of the file.
type record struct {
	Version int       `json:"version"`
	Token   string    `json:"token"` // for people
	Salt    []byte    `json:"salt,omitempty"`
	Refused []refused `json:"refused"`
}

type refused struct {
	Hash []byte    `json:"hash"`
	At   time.Time `json:"at"`
}

const (
	recordVersion = 1
	maxRecord     = 64 << 10
	maxRefused    = 16 // the oldest is forgotten: no token lets anybody get that far
)

// openRefusals opens and locks the file of a token, before any PIN is tried:
// what cannot be remembered must not be tried. A nil error makes close the
// caller's duty.
func openRefusals(dir, serial, label string) (*refusals, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(serial), serial, label))
	path := filepath.Join(dir, "refused-pins-"+hex.EncodeToString(sum[:8])+".json")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, configError("refused PINs could not be remembered, therefore none is tried: %v", err)
	}
	r := &refusals{file: file}
	if err := r.load(label); err != nil {
		_ = file.Close()
		return nil, err
	}
	return r, nil
}

func (r *refusals) load(label string) error {
	for {
		err := unix.Flock(int(r.file.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return configError("%s cannot be locked: %v", r.file.Name(), err)
		}
	}
	content, err := io.ReadAll(io.LimitReader(r.file, maxRecord+1))
	if err != nil {
		return configError("%v", err)
	}
	if len(content) == 0 {
		r.record = record{Version: recordVersion, Token: label}
		return nil
	}
	if err := json.Unmarshal(content, &r.record); err != nil || len(content) > maxRecord || r.Version != recordVersion {
		return configError("%s is damaged or of another version, therefore no PIN is tried: check that the PIN is right, then remove the file", r.file.Name())
	}
	return nil
}

// close releases the lock.
func (r *refusals) close() { _ = r.file.Close() } // what matters was synced

// has reports when pin was refused.
func (r *refusals) has(pin []byte) (at time.Time, ok bool, err error) {
	if len(r.Refused) == 0 {
		return time.Time{}, false, nil
	}
	hash, err := hashPIN(pin, r.Salt)
	if err != nil {
		return time.Time{}, false, err
	}
	for _, known := range r.Refused {
		if subtle.ConstantTimeCompare(hash, known.Hash) == 1 {
			return known.At, true, nil
		}
	}
	return time.Time{}, false, nil
}

// add remembers pin. When it returns nil, the disk has it.
func (r *refusals) add(pin []byte) error {
	if len(r.Salt) == 0 {
		r.Salt = make([]byte, 16)
		_, _ = rand.Read(r.Salt) // never fails
	}
	hash, err := hashPIN(pin, r.Salt)
	if err != nil {
		return err
	}
	r.Refused = append(r.Refused, refused{hash, time.Now().UTC()})
	if over := len(r.Refused) - maxRefused; over > 0 {
		r.Refused = r.Refused[over:]
	}
	return r.save()
}

// clear forgets everything: the token has accepted a PIN and counts anew.
func (r *refusals) clear() error {
	if len(r.Refused) == 0 {
		return nil
	}
	r.Refused, r.Salt = nil, nil
	return r.save()
}

// save writes in place, because the lock is on this very file.
func (r *refusals) save() error {
	content, err := json.Marshal(r.record)
	if err != nil {
		return err
	}
	if err := r.file.Truncate(0); err != nil {
		return err
	}
	if _, err := r.file.WriteAt(append(content, '\n'), 0); err != nil {
		return err
	}
	return r.file.Sync()
}

func hashPIN(pin, salt []byte) ([]byte, error) {
	return scrypt.Key(pin, salt, 1<<15, 8, 1, 32)
}
