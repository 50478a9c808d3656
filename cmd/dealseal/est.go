package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/secret"
)

const (
	estLimit   = time.Minute // for one answer: a CA may think
	maxEST     = 256 << 10
	maxESTCert = 16
)

// estCA is a CA that issues certificates over EST (RFC 7030).
type estCA struct {
	base     string // https://HOST[:PORT]/.well-known/est, with a label behind it where the CA has several
	http     *http.Client
	user     string
	password secret.Secret
}

// estReviewError says that a person at the CA has to agree first.
type estReviewError struct{ after string }

func (e *estReviewError) Error() string {
	text := "the CA has taken the request, and somebody there has to agree to it: ask again later"
	if e.after != "" {
		text += " (it says: after " + e.after + ")"
	}
	return text
}

// newESTCA refuses what is no address of such a CA. Without roots those of the machine count.
func newESTCA(address string, roots *x509.CertPool, client *tls.Certificate, pinned pins.Set) (*estCA, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, usagef("--est must be the https address of the CA's EST service, such as https://ca.example.com/.well-known/est")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if client != nil {
		t.TLSClientConfig.Certificates = []tls.Certificate{*client}
	}
	if pinned != nil {
		t.TLSClientConfig.VerifyConnection = pinned.Verify(u.Hostname(), "--pins")
	}
	return &estCA{base: strings.TrimSuffix(address, "/"), http: &http.Client{Transport: t, Timeout: estLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// enrol sends a request for a certificate (PKCS #10, DER; section 4.2.1) and returns the certificate, with those of the CA
// (section 4.1.2) that stand between it and a root.
func (c *estCA) enrol(ctx context.Context, csr []byte) ([]*x509.Certificate, error) {
	above, err := c.ask(ctx, http.MethodGet, "/cacerts", nil) // first: what is issued without them would be lost, and issued again
	if err != nil {
		return nil, fmt.Errorf("the CA's own certificates cannot be fetched, and nothing was asked for: %w", err)
	}
	issued, err := c.ask(ctx, http.MethodPost, "/simpleenroll", strings.NewReader(base64.StdEncoding.EncodeToString(csr)))
	if err != nil {
		return nil, err
	}
	if len(issued) == 0 {
		return nil, errors.New("the CA's answer holds no certificate")
	}
	for _, one := range above {
		if !bytes.Equal(one.RawSubject, one.RawIssuer) {
			issued = append(issued, one)
		}
	}
	return issued, nil
}

func (c *estCA) ask(ctx context.Context, method, path string, body io.Reader) ([]*x509.Certificate, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/pkcs10")
		req.Header.Set("Content-Transfer-Encoding", "base64")
	}
	if c.user != "" {
		req.SetBasicAuth(c.user, c.password.RevealString())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusAccepted:
		return nil, &estReviewError{resp.Header.Get("Retry-After")}
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("the CA does not let us in (%d): look at --user, --password and --client-cert", resp.StatusCode)
	default:
		return nil, fmt.Errorf("the CA answers %s with status %d", path, resp.StatusCode)
	}
	if got, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); got != "application/pkcs7-mime" {
		return nil, fmt.Errorf("the CA answers %s with %.80q, not application/pkcs7-mime: is that the address of its EST service?", path, got)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxEST+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxEST {
		return nil, fmt.Errorf("the CA's answer to %s is larger than %d bytes", path, maxEST)
	}
	certs, err := certsOnly(text)
	if err != nil {
		return nil, fmt.Errorf("the CA's answer to %s: %w", path, err)
	}
	return certs, nil
}

var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

// certsOnly reads the certificates of a CMS message that has nothing else, in base64 (RFC 5272, section 4.1).
func certsOnly(text []byte) (certs []*x509.Certificate, err error) {
	der, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(text), nil)))
	if err != nil {
		return nil, errors.New("it is not base64")
	}
	var content, inner, signed, list cryptobyte.String
	var kind asn1.ObjectIdentifier
	var has bool
	zero := casn1.Tag(0).ContextSpecific().Constructed()
	in := cryptobyte.String(der)
	if !in.ReadASN1(&content, casn1.SEQUENCE) || !in.Empty() || !content.ReadASN1ObjectIdentifier(&kind) || !kind.Equal(oidSignedData) ||
		!content.ReadASN1(&inner, zero) || !inner.ReadASN1(&signed, casn1.SEQUENCE) ||
		!signed.SkipASN1(casn1.INTEGER) || !signed.SkipASN1(casn1.SET) || !signed.SkipASN1(casn1.SEQUENCE) || !signed.ReadOptionalASN1(&list, &has, zero) {
		return nil, errors.New("it is no CMS message of certificates")
	}
	for !list.Empty() {
		var one cryptobyte.String
		if len(certs) == maxESTCert || !list.ReadASN1Element(&one, casn1.SEQUENCE) {
			return nil, fmt.Errorf("certificate %d in it cannot be read", len(certs)+1)
		}
		c, err := x509.ParseCertificate(one)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}
