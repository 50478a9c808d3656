package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// run serves until ctx ends and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(stderr, "mockcrm:", err)
		return exitUsage
	}
	if err := o.serve(ctx, stdout); err != nil {
		fmt.Fprintln(stderr, "mockcrm:", err)
		return exitError
	}
	return exitOK
}

func (o *options) serve(ctx context.Context, stdout io.Writer) error {
	var c credentials
	org, sf, err := o.org()
	if err != nil {
		return err
	}
	portal, hs, err := o.portal()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	c.Salesforce, c.HubSpot = sf, hs
	tlsConfig, certificate, err := selfSigned()
	if err != nil {
		return err
	}
	c.Salesforce.PubSubCertificate = certificate
	for _, s := range []struct {
		addr, scheme string
		url          *string
		handler      http.Handler
	}{
		{o.salesforce, "http://", &c.Salesforce.URL, org},
		{o.pubsub, "https://", &c.Salesforce.PubSub, org},
		{o.hubspot, "http://", &c.HubSpot.URL, portal},
		{o.admin, "http://", &c.Admin, newAdmin(org, portal, &c)},
	} {
		l, err := net.Listen("tcp", s.addr)
		if err != nil {
			return err
		}
		*s.url = s.scheme + l.Addr().String()
		if s.scheme == "https://" {
			l = tls.NewListener(l, tlsConfig)
		}
		defer l.Close() // when a later address is taken; otherwise the server has closed it
		g.Go(func() error { return listen(ctx, l, s.handler) })
	}
	g.Go(func() error { org.Send(ctx); return nil })
	g.Go(func() error { portal.Deliver(ctx); return nil })
	enc := json.NewEncoder(stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(c); err != nil {
		return fmt.Errorf("printing the credentials: %w", err)
	}
	return g.Wait()
}

// selfSigned is for clients that speak gRPC over TLS only. The certificate is returned as PEM, too.
func selfSigned() (*tls.Config, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mockcrm"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, "", fmt.Errorf("making a certificate for the Pub/Sub API: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2", "http/1.1"}}
	return config, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

// grace is how long calls in flight may take to end after a signal.
const grace = 2 * time.Second

// listen serves l until ctx ends.
func listen(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true) // the Pub/Sub API speaks nothing else
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if s.Shutdown(shut) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
