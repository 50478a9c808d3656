package softkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age/armor"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
)

// cheap keeps the derivation of passphrases out of the time that tests take.
const cheap = 4

var passphrase = secret.New([]byte("correct horse battery staple"))

func certified(t *testing.T, a Algorithm) *Key {
	t.Helper()
	k, err := Generate(a)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := authority.IssueSigner(k.Public(), pkix.Name{CommonName: "Acme Seal"})
	if err != nil {
		t.Fatal(err)
	}
	if k, err = k.WithChain(chain); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSavedKeyIsOpenedAgain(t *testing.T) {
	for _, algorithm := range []Algorithm{RSA2048, RSA3072, P256, P384} {
		t.Run(string(algorithm), func(t *testing.T) {
			key, path := certified(t, algorithm), filepath.Join(t.TempDir(), "key.age")
			if err := key.save(path, passphrase, cheap); err != nil {
				t.Fatal(err)
			}
			opened, err := Open(path, passphrase)
			if err != nil {
				t.Fatal(err)
			}
			if err := signing.CheckKey("house", opened, time.Now()); err != nil {
				t.Error(err)
			}
			if len(opened.Chain()) != 2 || !opened.Chain()[0].Equal(key.Chain()[0]) {
				t.Errorf("%d certificates came back", len(opened.Chain()))
			}
			checkSignature(t, opened, key.Public())
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", info.Mode())
			}
		})
	}
}

func checkSignature(t *testing.T, key *Key, pub crypto.PublicKey) {
	t.Helper()
	digest := sha256.Sum256([]byte("content"))
	value, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], value); err != nil {
			t.Error(err)
		}
		o := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		if value, err = key.Sign(rand.Reader, digest[:], o); err != nil || rsa.VerifyPSS(pub, crypto.SHA256, digest[:], value, o) != nil {
			t.Errorf("PSS: %v", err)
		}
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(pub, digest[:], value) {
			t.Error("the signature does not verify")
		}
	}
}

func TestFileOfTheRealWorkFactorOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.age")
	if err := certified(t, P256).Save(path, passphrase); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, passphrase); err != nil {
		t.Error(err)
	}
}

func TestNothingOfTheKeyStandsInTheFile(t *testing.T) {
	key, path := certified(t, P256), filepath.Join(t.TempDir(), "key.age")
	if err := key.save(path, passphrase, cheap); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(text, []byte("-----BEGIN AGE ENCRYPTED FILE-----\n")) || bytes.Contains(text, []byte("PRIVATE")) || bytes.Contains(text, []byte("CERTIFICATE")) {
		t.Errorf("the file is not an encrypted one:\n%s", text)
	}
}

func TestOpenFailsWithAReason(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := certified(t, P256).save(good, passphrase, cheap); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"text":      []byte("hello"),
		"truncated": text[:len(text)/2],
		"flipped":   bytes.Replace(text, text[len(text)-60:len(text)-50], []byte("AAAAAAAAAA"), 1),
		"costly":    costly(t, text),
		"plain PEM": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, path string
		passphrase secret.Secret
		want       string
	}{
		{"wrong passphrase", "good", secret.New([]byte("hush")), ErrPassphrase.Error()},
		{"no passphrase", "good", secret.Secret{}, "no passphrase"},
		{"missing", "nowhere", passphrase, "no such file"},
		{"text", "text", passphrase, "not an armored age file"},
		{"truncated", "truncated", passphrase, ""},
		{"flipped", "flipped", passphrase, ""},
		{"plain PEM", "plain PEM", passphrase, "not an armored age file"},
		{"higher work factor", "costly", passphrase, "work factor too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, c.path)
			_, err := Open(path, c.passphrase)
			var bad *FileError
			if !errors.As(err, &bad) || !bad.Permanent() || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Error("the error repeats the passphrase")
			}
		})
	}
}

// costly rewrites the header of a file to ask for more work than is accepted.
func costly(t *testing.T, text []byte) []byte {
	t.Helper()
	binary, err := io.ReadAll(armor.NewReader(bytes.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(binary, []byte(fmt.Sprintf(" %d\n", cheap)), []byte(fmt.Sprintf(" %d\n", workFactor+1)), 1)
	if bytes.Equal(changed, binary) {
		t.Fatal("the header has no work factor where it was expected")
	}
	var out bytes.Buffer
	w := armor.NewWriter(&out)
	if _, err := w.Write(changed); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSaveNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.age")
	first := certified(t, P256)
	if err := first.save(path, passphrase, cheap); err != nil {
		t.Fatal(err)
	}
	if err := certified(t, P256).save(path, passphrase, cheap); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
	opened, err := Open(path, passphrase)
	if err != nil || !opened.Chain()[0].Equal(first.Chain()[0]) {
		t.Errorf("the first key is gone: %v", err)
	}
}

func TestCertificateOfAnotherKeyIsRefused(t *testing.T) {
	one, two := certified(t, P256), certified(t, P256)
	if _, err := one.WithChain(two.Chain()); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("got %v", err)
	}
}

func TestUnknownAlgorithmIsRefused(t *testing.T) {
	if _, err := Generate("RSA-1024"); err == nil || !strings.Contains(err.Error(), string(RSA2048)) {
		t.Errorf("got %v", err)
	}
}

func TestSelfSignedKeyIsGoodForEvaluation(t *testing.T) {
	k, err := Generate(P256)
	if err != nil {
		t.Fatal(err)
	}
	if k, err = k.SelfSigned(pkix.Name{CommonName: "Acme"}, time.Now().Add(-time.Minute), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := signing.CheckKey("house", k, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestKeysAreOpenedByName(t *testing.T) {
	dir := t.TempDir()
	path, pass := filepath.Join(dir, "key.age"), filepath.Join(dir, "passphrase")
	if err := certified(t, P256).save(path, passphrase, cheap); err != nil {
		t.Fatal(err)
	}
	bare, err := Generate(P256)
	if err != nil {
		t.Fatal(err)
	}
	if err := bare.save(filepath.Join(dir, "bare"), passphrase, cheap); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pass, append(passphrase.Reveal(), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := secret.ParseRef("file:" + pass)
	if err != nil {
		t.Fatal(err)
	}
	keys := New(map[string]Config{"house": {path, ref}, "bare": {filepath.Join(dir, "bare"), ref}})
	for _, name := range []string{"house", "bare"} {
		if k, err := keys.Bare(t.Context(), name); err != nil || len(k.Chain()) != 0 {
			t.Errorf("%s without certificates: %v", name, err)
		}
	}
	first, err := keys.Open(t.Context(), "house")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if again, err := keys.Open(t.Context(), "house"); err != nil || again != first {
		t.Errorf("the key was read again: %v", err)
	}
	for _, name := range []string{"bare", "nobody"} {
		_, err := keys.Open(t.Context(), name)
		var bad *signing.KeyError
		if !errors.As(err, &bad) || bad.Key != name {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := keys.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Open(t.Context(), "house"); err == nil {
		t.Error("opened after Close")
	}
}

func FuzzDecode(f *testing.F) {
	k, err := Generate(P256)
	if err != nil {
		f.Fatal(err)
	}
	if k, err = k.SelfSigned(pkix.Name{CommonName: "x"}, time.Unix(0, 0), time.Unix(1, 0)); err != nil {
		f.Fatal(err)
	}
	text, err := k.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		hostile.Budget(t)
		k, err := decode(text)
		if err != nil {
			return
		}
		again, err := k.encode()
		if err != nil {
			t.Fatal(err)
		}
		if same, err := decode(again); err != nil || len(same.chain) != len(k.chain) {
			t.Errorf("what was read cannot be written and read again: %v", err)
		}
	})
}
