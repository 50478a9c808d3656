package webhooks

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/pins"
)

// issue writes a certificate of its own with a name, and its key.
func issue(t *testing.T, name, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAClientCertificateIsReadWhenItIsShown: it may be put there late, and is renewed once in a while.
func TestAClientCertificateIsReadWhenItIsShown(t *testing.T) {
	shown := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown <- r.TLS.PeerCertificates[0].Subject.CommonName }))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	e := endpointWith(t, "standard-webhooks", standardSecretOf("a secret that is long enough"))
	e.URL, e.ClientCert, e.ClientKey = server.URL, filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	l := &shelf{endpoints: []Endpoint{*e}, waiting: map[string][]Delivery{}, settled: make(chan Outcome, 10)}
	d := &Deliverer{Ledger: l, Bell: NewBell(), Guard: NewGuard(allow("127.0.0.0/8")), Log: slog.New(slog.DiscardHandler), Trust: &tls.Config{RootCAs: roots}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	n := int64(0)
	delivered := func() Outcome {
		n++
		l.mu.Lock()
		l.waiting[e.ID] = append(l.waiting[e.ID], Delivery{ID: n, Attempt: 1, Event: Sample(Catalogue[0], "acme", noon)})
		l.mu.Unlock()
		d.Bell.Ring(AllEndpoints)
		return <-l.settled
	}
	if o := delivered(); o.Fate != Again || !strings.Contains(o.Problem, "client_cert") {
		t.Errorf("without a certificate: %+v", o)
	}
	for _, name := range []string{"the first", "the next"} {
		issue(t, name, e.ClientCert, e.ClientKey)
		server.CloseClientConnections()
		o := delivered()
		for o.Problem != "" && !strings.Contains(o.Problem, "client_cert") { // it did not know yet that its connection was closed
			o = delivered()
		}
		if o.Fate != Delivered {
			t.Fatalf("with %s: %+v", name, o)
		}
		if got := <-shown; got != name {
			t.Errorf("it is shown %s, want %s", got, name)
		}
	}
	cancel()
	<-ended
}

// TestAReceiverWithoutAPinnedKeyIsToldNothing, and which keys it has is in the reason.
func TestAReceiverWithoutAPinnedKeyIsToldNothing(t *testing.T) {
	t.Parallel()
	told := make(chan bool, 10)
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told <- true }))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	d := &Deliverer{Guard: NewGuard(allow("127.0.0.0/8")), Log: slog.New(slog.DiscardHandler), Trust: &tls.Config{RootCAs: roots}}
	for name, c := range map[string]struct {
		pins pins.Set
		ok   bool
	}{
		"none": {nil, true}, "its own": {pins.Set{{7}, pins.Of(server.Certificate())}, true}, "another": {pins.Set{{7}}, false},
	} {
		e := endpointWith(t, "standard-webhooks", standardSecretOf("a secret that is long enough"))
		e.URL, e.Pins = server.URL, c.pins
		client, err := d.client(*e)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Post(e.URL, "application/json", nil)
		if err == nil {
			resp.Body.Close()
		}
		client.CloseIdleConnections()
		reason := ""
		if err != nil {
			reason = Reason(err)
		}
		if (err == nil) != c.ok || c.ok != (len(told) == 1) || !c.ok && (!strings.Contains(reason, "it presented "+pins.Of(server.Certificate()).String()) || !strings.Contains(reason, "the pins of this endpoint")) {
			t.Errorf("%s: %v, told %d times: %s", name, err, len(told), reason)
		}
		for len(told) > 0 {
			<-told
		}
	}
}
