package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/softkey"
)

var hashes = map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}

// keygen makes the files that a first installation needs. It never overwrites one.
func keygen(_ context.Context, c *call) error {
	if len(c.args) != 2 {
		return usagef("say what to make and where")
	}
	switch file := c.args[1]; c.args[0] {
	case "master":
		return makeMasterKey(c, file)
	case "soft":
		return makeSoftKey(c, file)
	}
	return usagef("%q cannot be made: it is master or soft", c.args[0])
}

func makeMasterKey(c *call, file string) error {
	key := make([]byte, 32)
	rand.Read(key)
	if err := writeNew(file, []byte(base64.StdEncoding.EncodeToString(key)+"\n")); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "%s holds a new master key. Keep a copy in a safe place: without it nothing that dealseal stores can be read again.\n", file)
	return err
}

// makeSoftKey makes a self-signed key for evaluation, with its certificate beside it to be trusted.
func makeSoftKey(c *call, file string) error {
	ref, err := secret.ParseRef(c.passphrase)
	if err != nil {
		return usagef("name where the passphrase is, such as --passphrase file:/etc/dealseal/passphrase: %v", err)
	}
	passphrase, err := ref.Resolve()
	if err != nil {
		return err
	}
	cert := file + ".crt"
	for _, f := range []string{file, cert} {
		if _, err := os.Lstat(f); err == nil {
			return alreadyThere(f)
		}
	}
	key, err := softkey.Generate(softkey.P256)
	if err != nil {
		return err
	}
	now := time.Now()
	if key, err = key.SelfSigned(pkix.Name{CommonName: c.subject}, now.Add(-time.Hour), now.AddDate(1, 0, 0)); err != nil {
		return err
	}
	if err := key.Save(file, passphrase); err != nil {
		return err
	}
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: key.Chain()[0].Raw}), 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s holds a new key for evaluation, %s its certificate: name that under signing.trust\n", file, cert)
	return err
}

// writeNew writes a file for its owner only, and only if there is none.
func writeNew(file string, content []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return alreadyThere(file)
	}
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func alreadyThere(file string) error {
	return fmt.Errorf("%s is already there: it is not overwritten", file)
}

// minMasterKey is the least number of bytes in a master key.
const minMasterKey = 32

// masterKey reads the key that all others hang on: raw bytes, or base64 of at least 32.
func masterKey(ref secret.Ref) (secret.Secret, error) {
	s, err := ref.Resolve()
	if err != nil {
		return s, fmt.Errorf("master_key: %w", err)
	}
	if decoded, err := base64.StdEncoding.DecodeString(string(s.Reveal())); err == nil && len(decoded) >= minMasterKey {
		return secret.New(decoded), nil
	}
	if n := len(s.Reveal()); n < minMasterKey {
		return s, fmt.Errorf("master_key: %s holds %d bytes, at least %d random ones are needed: \"dealseal keygen master FILE\" makes such a file", ref, n, minMasterKey)
	}
	return s, nil
}
