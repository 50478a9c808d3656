package pades

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// identity is a key with its chain: signer, issuing CA.
type identity struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

// authority is the throw-away PKI of all tests.
type authority struct {
	root, ca *x509.Certificate
	caKey    crypto.Signer
}

var throwAway = sync.OnceValue(func() authority {
	rootKey, root := issue("Throw-away Root", nil, nil, nil)
	caKey, ca := issue("Throw-away Issuing CA", nil, rootKey, root)
	return authority{root: root, ca: ca, caKey: caKey}
})

var ecIdentity = sync.OnceValue(func() identity { return newIdentity(ecKey(elliptic.P256())) })

var rsaIdentity = sync.OnceValue(func() identity {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return newIdentity(key)
})

func ecKey(curve elliptic.Curve) crypto.Signer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func newIdentity(signer crypto.Signer) identity {
	a := throwAway()
	_, leaf := issue(fmt.Sprintf("Żółć & Søn (%T)", signer), signer, a.caKey, a.ca)
	return identity{key: signer, chain: []*x509.Certificate{leaf, a.ca}}
}

// issue makes a certificate: a CA when key is nil, self-signed when parent is nil.
func issue(name string, key, parentKey crypto.Signer, parent *x509.Certificate) (crypto.Signer, *x509.Certificate) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err)
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"Acme Ltd"}, Country: []string{"FR"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
	}
	if key == nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			panic(err)
		}
		t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	}
	if parent == nil {
		parent, parentKey = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), parentKey)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return key, cert
}

func document(b []byte) Document { return bytes.NewReader(b) }

// options are good ones for id.
func options(id identity) Options {
	return Options{
		Level: BB, Chain: id.chain,
		Name: "Acme Ltd", Reason: "Contract (draft) \\ 006-€", Location: "Paris",
		Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 2*3600)),
	}
}

// sign makes a sealed file of doc.
func sign(t *testing.T, doc []byte, id identity, o Options) []byte {
	t.Helper()
	p, err := Prepare(context.Background(), document(doc), o)
	if err != nil {
		t.Fatal(err)
	}
	return complete(t, doc, id, p, nil)
}

func complete(t *testing.T, doc []byte, id identity, p *Prepared, token []byte) []byte {
	t.Helper()
	value, err := id.key.Sign(rand.Reader, p.Digest, p.Algorithm.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	tail, _, err := p.Embed(value, token)
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(doc), tail...)
}

// run calls a tool that `make test` installs, and fails with its output.
func run(t *testing.T, debianPackage, tool string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatalf("%s is not installed: apt-get install %s", tool, debianPackage)
	}
	out, err := exec.Command(tool, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func writeFile(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func writePEM(t *testing.T, certs ...*x509.Certificate) string {
	t.Helper()
	var b bytes.Buffer
	for _, c := range certs {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	return writeFile(t, "certs.pem", b.Bytes())
}
