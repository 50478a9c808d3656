package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// What a CA for development makes.
const (
	caRootBits, caBits = 4096, 2048
	caRootDays, caDays = 3650, 825
	caClient           = "crm-integration-client"
)

// caHosts are the names of this machine to itself.
var caHosts = []string{"localhost", "127.0.0.1", "::1"}

// caName is what may stand in a certificate's common name, and in the name of a file.
var caName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ca makes certificates for development: those of a CA, of servers on this machine, and of programs that call the API. The
// root's key lies in a file and nothing can be revoked, so that it is never for production.
func ca(_ context.Context, c *call) error {
	if len(c.args) == 0 {
		return usagef("say in which folder the CA is, or is to be")
	}
	a := &devCA{dir: c.args[0]}
	switch rest := c.args[1:]; {
	case len(rest) == 0:
		return a.begin(c)
	case rest[0] == "client" && len(rest) == 2:
		return a.client(c, rest[1])
	case rest[0] == "server" && len(rest) == 2:
		return a.server(c, strings.Split(rest[1], ","))
	}
	return usagef("%q cannot be made: after the folder stands nothing, client NAME, or server HOST[,HOST]", strings.Join(c.args[1:], " "))
}

// devCA is a CA in a folder.
type devCA struct {
	dir  string
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

const caWarning = `This CA is for development and tests only: its key lies in a file, and what it has signed cannot be revoked.
In production have a CA of your own certify clients, and let certificates be short-lived (docs/api.md).
`

// begin makes the CA, a certificate for servers on this machine, and one for a client.
func (a *devCA) begin(c *call) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	if err := a.isFree("root", "server", caClient); err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, caRootBits)
	if err != nil {
		return err
	}
	a.key = key
	a.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "dealseal development CA"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := a.sign(a.cert, key, caRootDays)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	if err := a.save("root", der, key); err != nil {
		return err
	}
	if err := a.issue("server", serverForm(caHosts)); err != nil {
		return err
	}
	if err := a.issue(caClient, clientForm(caClient)); err != nil {
		return err
	}
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, `%[1]s
In %[2]s are root.pem, server.pem (for %[3]s) and %[4]s.pem, each with its key. In dealseal.yaml:

    api: {listen: "127.0.0.1:8444", tls: {certificate: %[2]s/server.pem, key: "file:%[2]s/server-key.pem"}}

and once the daemon runs with it:

    dealseal tokens create %[4]s --role viewer --all --test --certificate %[2]s/%[4]s.pem --why "…"
    curl --cacert %[2]s/root.pem --cert %[2]s/%[4]s.pem --key %[2]s/%[4]s-key.pem https://localhost:8444/v1/token
`, caWarning, dir, strings.Join(caHosts, ", "), caClient)
	return err
}

func (a *devCA) client(c *call, name string) error {
	if !caName.MatchString(name) {
		return usagef("%q is no name for a client: it is 1 to 64 letters, digits, dots, hyphens and underscores", name)
	}
	return a.another(c, name, clientForm(name))
}

func (a *devCA) server(c *call, hosts []string) error {
	for _, h := range hosts {
		if net.ParseIP(h) == nil && !caName.MatchString(h) {
			return usagef("%q is neither the name nor the address of a host", h)
		}
	}
	return a.another(c, strings.ReplaceAll(hosts[0], ":", "-"), serverForm(hosts))
}

// another has the CA that is there make one more certificate.
func (a *devCA) another(c *call, name string, form *x509.Certificate) error {
	if err := a.load(); err != nil {
		return err
	}
	if err := a.isFree(name); err != nil {
		return err
	}
	if err := a.issue(name, form); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "%s\nmade: %s, and its key %s\n", caWarning, a.path(name, ".pem"), a.path(name, "-key.pem"))
	return err
}

func clientForm(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

func serverForm(hosts []string) *x509.Certificate {
	form := &x509.Certificate{Subject: pkix.Name{CommonName: hosts[0]}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			form.IPAddresses = append(form.IPAddresses, ip)
		} else {
			form.DNSNames = append(form.DNSNames, h)
		}
	}
	return form
}

// issue makes a key and a certificate for it.
func (a *devCA) issue(name string, form *x509.Certificate) error {
	key, err := rsa.GenerateKey(rand.Reader, caBits)
	if err != nil {
		return err
	}
	form.KeyUsage, form.BasicConstraintsValid = x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, true
	der, err := a.sign(form, key, caDays)
	if err != nil {
		return err
	}
	return a.save(name, der, key)
}

func (a *devCA) sign(form *x509.Certificate, key *rsa.PrivateKey, days int) (der []byte, err error) {
	if form.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	form.NotBefore = time.Now().Add(-5 * time.Minute)
	form.NotAfter = form.NotBefore.AddDate(0, 0, days)
	return x509.CreateCertificate(rand.Reader, form, a.cert, key.Public(), a.key)
}

func (a *devCA) path(name, end string) string { return filepath.Join(a.dir, name+end) }

// isFree refuses names of which there is a file already.
func (a *devCA) isFree(names ...string) error {
	for _, name := range names {
		for _, end := range []string{".pem", "-key.pem"} {
			if _, err := os.Lstat(a.path(name, end)); err == nil {
				return alreadyThere(a.path(name, end))
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func (a *devCA) save(name string, der []byte, key *rsa.PrivateKey) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeNew(a.path(name, "-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})); err != nil {
		return err
	}
	cert := a.path(name, ".pem")
	if err := writeNew(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return err
	}
	return os.Chmod(cert, 0o644) // no secret
}

// load reads the CA, and nothing else that may lie in the folder.
func (a *devCA) load() error {
	certs, err := readCertificates(a.path("root", ".pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: \"dealseal ca %s\" makes a CA there", err, a.dir)
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(a.path("root", "-key.pem"))
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s holds no PEM key", a.path("root", "-key.pem"))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	own, ok := key.(*rsa.PrivateKey)
	if err != nil || !ok || !own.PublicKey.Equal(certs[0].PublicKey) || !certs[0].IsCA {
		return fmt.Errorf("%s is not the key of %s", a.path("root", "-key.pem"), a.path("root", ".pem"))
	}
	a.cert, a.key = certs[0], own
	return nil
}
