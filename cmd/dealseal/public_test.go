package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	secrets "github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/web"
)

// issued is a certificate with its key.
type issued struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue makes a certificate for a name; without an issuer it is a root.
func issue(t *testing.T, by *issued, name string) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, DNSNames: []string{name}}
	made := &issued{template, key}
	if by == nil {
		by = made
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage, template.ExtKeyUsage, template.DNSNames = true, true, x509.KeyUsageCertSign, nil, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key)
	must(t, err)
	made.Certificate, err = x509.ParseCertificate(der)
	must(t, err)
	return made
}

func (i *issued) pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{i.Raw}, PrivateKey: i.key}
}

func certPool(of ...*issued) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range of {
		p.AddCert(c.Certificate)
	}
	return p
}

// keptAll is an inbox that keeps everything.
type keptAll struct{ n atomic.Int64 }

func (k *keptAll) Receive(context.Context, deal.Arrival) ([]deal.Ref, bool, error) {
	k.n.Add(1)
	return nil, false, nil
}

func (k *keptAll) LogPushes(context.Context, []deal.Push) error { return nil }

// outside is a public listener with TLS, whose only sender proves itself by a client certificate.
type outside struct {
	t          *testing.T
	dir        string
	root       *issued // of the listener
	serials    *issued
	service    *service
	inbox      *keptAll
	complaints atomic.Int64
}

const publicHost = "seal.example"

func newOutside(t *testing.T, minimum string, senderRoots *x509.CertPool) *outside {
	t.Helper()
	o := &outside{t: t, dir: t.TempDir(), root: issue(t, nil, "listener's root"), inbox: &keptAll{}}
	o.serials = issue(t, o.root, publicHost)
	o.put(o.serials)
	key, err := secrets.ParseRef("file:" + filepath.Join(o.dir, "key.pem"))
	must(t, err)
	sender := &web.Sender{Tenant: "acme", Source: config.PushOutbound, Path: "/webhooks/acme/salesforce-outbound", MaxBody: 1 << 10, Answer: accepted,
		Origin: web.Origin{Roots: senderRoots, Names: []string{"proxy.salesforce.com"}},
		Read:   func([]byte, deal.Account) (web.Pushed, error) { return web.Pushed{}, nil }}
	shared := *sender
	shared.Source, shared.Path = config.PushOpportunity, "/webhooks/acme/opportunity"
	h := &house{cfg: &config.Config{File: filepath.Join(o.dir, "dealseal.yaml"), Listen: config.Listen{Public: "127.0.0.1:0", URL: "https://" + publicHost,
		TLS: &config.TLS{Certificate: "chain.pem", Key: key, MinVersion: minimum}}}, tenants: []tenant{{senders: []*web.Sender{sender, &shared}}}}
	h.senders = bySenderPath(h.tenants)
	d := &service{house: h, log: slog.New(slog.DiscardHandler)}
	d.residents.settle(&residence{house: h})
	d.public, d.certificate, err = h.listenPublic()
	must(t, err)
	d.certificate.log = func(error) { o.complaints.Add(1) }
	d.ingress = &web.Ingress{Senders: func() map[string][]*web.Sender { return h.senders }, URL: h.cfg.Listen.URL, Inbox: o.inbox, Now: time.Now, Log: d.log,
		Account: func(deal.TenantID) (deal.Account, bool) { return deal.Account{}, false }, Wake: func(deal.TenantID, ...deal.Ref) bool { return true }}
	o.service = d
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.servePublic(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("it ends with %v", err)
		}
	})
	return o
}

// put makes c the listener's certificate, the key first: a pair that does not fit yet is none.
func (o *outside) put(c *issued) {
	o.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	must(o.t, err)
	o.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	o.write("chain.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (o *outside) write(name string, content []byte) {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	must(o.t, os.WriteFile(path+".new", content, 0o600))
	must(o.t, os.Rename(path+".new", path))
}

func (o *outside) post(c *tls.Config) (*http.Response, error) {
	o.t.Helper()
	return o.postTo("/webhooks/acme/salesforce-outbound", c)
}

// postTo sends one request over a connection of its own.
func (o *outside) postTo(path string, c *tls.Config) (*http.Response, error) {
	o.t.Helper()
	c.RootCAs, c.ServerName = certPool(o.root), publicHost
	transport := &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Post("https://"+o.service.public.Addr().String()+path, "text/xml", strings.NewReader("<x/>"))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	must(o.t, err)
	if len(body) > 0 {
		o.t.Errorf("it says %q", body)
	}
	return resp, nil
}

func TestTheListenerKnowsASenderByItsCertificate(t *testing.T) {
	t.Parallel()
	theirs, strangers := issue(t, nil, "their root"), issue(t, nil, "another root")
	o := newOutside(t, "1.3", certPool(theirs))
	for _, c := range []struct {
		what   string
		shown  []tls.Certificate
		status int
	}{
		{"theirs", []tls.Certificate{issue(t, theirs, "proxy.salesforce.com").pair()}, http.StatusAccepted},
		{"none", nil, http.StatusUnauthorized},
		{"one of their root, for somebody else", []tls.Certificate{issue(t, theirs, "example.com").pair()}, http.StatusForbidden},
		{"one with their name, of another root", []tls.Certificate{issue(t, strangers, "proxy.salesforce.com").pair()}, http.StatusUnauthorized},
	} {
		for _, path := range []string{"/webhooks/acme/opportunity", ingestPath} {
			resp, err := o.postTo(path, &tls.Config{Certificates: c.shown})
			must(t, err)
			if resp.StatusCode != c.status {
				t.Errorf("%s, %s: answered %d, want %d", path, c.what, resp.StatusCode, c.status)
			}
		}
		resp, err := o.post(&tls.Config{Certificates: c.shown})
		must(t, err)
		if resp.StatusCode != c.status {
			t.Errorf("%s: answered %d, want %d", c.what, resp.StatusCode, c.status)
		}
		if resp.TLS.Version != tls.VersionTLS13 || resp.Header.Get("Strict-Transport-Security") != "max-age=63072000; includeSubDomains; preload" {
			t.Errorf("%s: TLS %x, headers %v", c.what, resp.TLS.Version, resp.Header)
		}
	}
	if n := o.inbox.n.Load(); n != 3 {
		t.Errorf("%d pushes were kept", n)
	}
	if _, err := o.post(&tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
	old := newOutside(t, "1.2", certPool(theirs))
	resp, err := old.post(&tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{issue(t, theirs, "proxy.salesforce.com").pair()}})
	must(t, err)
	if resp.StatusCode != http.StatusAccepted || resp.TLS.Version != tls.VersionTLS12 {
		t.Errorf("with min_version 1.2: %d over %x", resp.StatusCode, resp.TLS.Version)
	}
	if _, err := old.post(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

func TestARenewedCertificateIsTakenAndABrokenOneIsNot(t *testing.T) {
	t.Parallel()
	o := newOutside(t, "1.3", certPool(issue(t, nil, "their root")))
	shown := func() *x509.Certificate {
		t.Helper()
		resp, err := o.post(&tls.Config{})
		must(t, err)
		return resp.TLS.PeerCertificates[0]
	}
	if !shown().Equal(o.serials.Certificate) {
		t.Fatal("another certificate is shown")
	}
	next := issue(t, o.root, publicHost)
	o.put(next)
	eventually(t, "the new certificate is shown", func() (bool, string) { return shown().Equal(next.Certificate), "the old one is" })
	was := o.complaints.Load()
	o.write("chain.pem", []byte("-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n"))
	eventually(t, "the broken file is complained of", func() (bool, string) {
		if !shown().Equal(next.Certificate) {
			t.Fatal("a broken file takes the place of the certificate")
		}
		return o.complaints.Load() > was, "nobody complains"
	})
	was = o.complaints.Load()
	o.write("chain.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issue(t, o.root, publicHost).Raw})) // of another key
	eventually(t, "a certificate of another key is complained of", func() (bool, string) {
		if !shown().Equal(next.Certificate) {
			t.Fatal("a certificate of another key is shown")
		}
		return o.complaints.Load() > was, "nobody complains"
	})
	last := issue(t, o.root, publicHost)
	o.put(last)
	eventually(t, "a good one is taken again", func() (bool, string) { return shown().Equal(last.Certificate), "it is not" })
}
