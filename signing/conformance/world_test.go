//go:build conformance

// Package conformance has our seals judged by validators that nobody here wrote, and judges theirs. It is run by
// make conformance; see README.md.
package conformance

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
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dealseal/dealseal/documents/typst"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/worker"
)

// TestMain lets this test binary be the child that renders documents.
func TestMain(m *testing.M) {
	if worker.IsChild() {
		os.Exit(worker.Main(map[string]worker.Program{typst.WorkerName: typst.Program}))
	}
	os.Exit(m.Run())
}

// work is where everything that is made or fetched goes.
func work(t testing.TB, parts ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(append([]string{"..", "..", "build", "conformance"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// house is a signer with all services that it needs, alive on a loopback address.
type house struct {
	authority *pki.Authority
	root      string // its certificate's file
	keys      keyring
	sealer    *signing.Sealer
	extender  *signing.Extender
}

func newHouse(t *testing.T) *house {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := pki.New(pki.Options{BaseURL: "http://" + listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: httptest.NewUnstartedServer(a).Config}
	server.Start()
	t.Cleanup(server.Close)
	h := &house{authority: a, root: work(t, "root.pem"), keys: keyring{}}
	if err := os.WriteFile(h.root, a.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, generate := range algorithms {
		for n := range maxSignatures {
			key, err := generate()
			if err != nil {
				t.Fatal(err)
			}
			party := signer(name, n)
			chain, err := a.IssueSigner(key.Public(), pkix.Name{Country: []string{"FR"}, Organization: []string{"Example"}, CommonName: "Example Seal " + party})
			if err != nil {
				t.Fatal(err)
			}
			h.keys[party] = &houseKey{Signer: key, chain: chain}
			if n > 0 {
				continue
			}
			if h.keys[party].before, err = a.IssueSigner(key.Public(), pkix.Name{Country: []string{"FR"}, Organization: []string{"Example"}, CommonName: "Example Seal " + party + ", before"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	stamper, err := tsa.NewClient([]tsa.Server{{URL: a.URL(pki.PathTSA)}}, tsa.Options{Roots: a.Roots()})
	if err != nil {
		t.Fatal(err)
	}
	h.sealer = signing.NewSealer(h.keys, stamper, time.Now)
	h.extender = &signing.Extender{Revocation: revocation.NewClient(revocation.Options{}), Timestamper: stamper,
		Anchors: revocation.Anchors{Roots: []*x509.Certificate{a.Root.Certificate}}}
	return h
}

// maxSignatures are how many parties sign one file, each with a certificate of its own.
const maxSignatures = 3

// signer names the key of a party.
func signer(algorithm string, party int) string { return fmt.Sprintf("%s/%d", algorithm, party+1) }

// algorithms are the keys by the names that the cover gives them.
var algorithms = map[string]func() (crypto.Signer, error){
	"RSA-2048": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
	"RSA-3072": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) },
	"P-256":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
	"P-384":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
	"P-521":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
}

type houseKey struct {
	crypto.Signer
	chain  []*x509.Certificate
	before []*x509.Certificate // which chain has followed; of the first party
}

func (k *houseKey) Chain() []*x509.Certificate { return k.chain }

type keyring map[string]*houseKey

func (k keyring) Open(_ context.Context, name string) (signing.Key, error) { return k[name], nil }
func (k keyring) Close() error                                             { return nil }

// OpenFor, MayFinish and Beside are those of a registry in the middle of a rollover.
func (k keyring) OpenFor(_ context.Context, name string, chain []*x509.Certificate) (signing.Key, error) {
	return signing.WithChain(k[name], chain), nil
}

var _ signing.Registry = keyring{}

func (k keyring) HasSealed(string, string) bool { return false }

func (k keyring) MayFinish(string, *x509.Certificate) error { return nil }

func (k keyring) Beside(name string) []*x509.Certificate { return k[name].before }

// roots are whom our verifier trusts: those whom the others trust.
func (h *house) roots() verify.Options {
	return verify.Options{Roots: []*x509.Certificate{h.authority.Root.Certificate}}
}

// seal appends one signature, and the second one if the profile asks for it.
func (h *house) seal(ctx context.Context, doc []byte, r signing.Request) ([]byte, error) {
	first, err := h.sealer.Prepare(ctx, bytes.NewReader(doc), r)
	if err != nil {
		return nil, err
	}
	if doc, err = h.complete(ctx, doc, first); err != nil || !r.Profile.Dual {
		return doc, err
	}
	second, err := h.sealer.PrepareSecond(ctx, bytes.NewReader(doc), first)
	if err != nil {
		return nil, err
	}
	return h.complete(ctx, doc, second)
}

func (h *house) complete(ctx context.Context, doc []byte, ticket *signing.Ticket) ([]byte, error) {
	value, err := h.sealer.Redeem(ctx, ticket)
	if err != nil {
		return nil, err
	}
	token, err := h.sealer.Timestamp(ctx, ticket, value)
	if err != nil {
		return nil, err
	}
	tail, _, err := h.sealer.Complete(ticket, value, token)
	if err != nil {
		return nil, err
	}
	return append(bytes.Clone(doc), tail...), nil
}

// extend raises a document to a level that lasts.
func (h *house) extend(ctx context.Context, doc []byte, to pades.Level, vri bool) ([]byte, error) {
	_, subjects, err := verify.Subjects(ctx, bytes.NewReader(doc), h.roots())
	if err != nil {
		return nil, err
	}
	extender := *h.extender
	extender.VRI = vri
	tail, err := extender.Extend(ctx, bytes.NewReader(doc), to, subjects)
	if err != nil {
		return nil, fmt.Errorf("extend to %s: %w", to, err)
	}
	return append(bytes.Clone(doc), tail...), nil
}
