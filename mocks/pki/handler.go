package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Service is one of the network services, for faults and counters.
type Service string

const (
	ServiceTSA  Service = "tsa"
	ServiceOCSP Service = "ocsp"
	ServiceCRL  Service = "crl"
)

// Fault is a way to misbehave. Those of the first group fit every service, those of the second only the TSA.
type Fault string

const (
	Down        Fault = "down"        // the connection is cut without an answer
	Unavailable Fault = "unavailable" // 503 with Retry-After: 7
	Slow        Fault = "slow"        // the answer comes after Options.Hang
	Garbage     Fault = "garbage"     // the right content type around bytes that are not DER
	Endless     Fault = "endless"     // a body that does not end

	OtherData      Fault = "other-data"       // a valid token over another imprint
	WrongNonce     Fault = "wrong-nonce"      // a valid token with another nonce
	NoNonce        Fault = "no-nonce"         // a valid token without a nonce
	ClockOff       Fault = "clock-off"        // genTime is two days ahead
	Rejection      Fault = "rejection"        // PKIStatus rejection, systemFailure
	BadAlgorithm   Fault = "bad-algorithm"    // PKIStatus rejection, badAlg
	WrongEKU       Fault = "wrong-eku"        // signed by a certificate that is not for time-stamping
	WrongCertID    Fault = "wrong-cert-id"    // signing-certificate-v2 names another certificate
	BadSignature   Fault = "bad-signature"    // one bit of the signature is flipped
	OtherType      Fault = "other-type"       // Content-Type text/html
	WithoutCertReq Fault = "without-cert-req" // the certificate is left out although asked for
)

type armed struct {
	fault Fault
	left  int
}

// SetFault makes the next n requests to a service misbehave, all of them if n is negative; an empty fault ends it.
func (a *Authority) SetFault(s Service, f Fault, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f == "" || n == 0 {
		delete(a.faults, s)
		return
	}
	a.faults[s] = &armed{fault: f, left: n}
}

// Requests returns how many requests a service has got, faulty answers included.
func (a *Authority) Requests(s Service) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests[s]
}

// arrive counts a request and takes the fault that it has to suffer.
func (a *Authority) arrive(s Service) Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests[s]++
	f := a.faults[s]
	if f == nil {
		return ""
	}
	if f.left--; f.left == 0 {
		delete(a.faults, s)
	}
	return f.fault
}

// ServeHTTP serves the TSA (POST), OCSP (POST and GET), both CRLs and the CA certificates.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case path == PathTSA:
		a.serve(w, r, ServiceTSA, "application/timestamp-reply", a.answerTSA)
	case path == PathOCSP || strings.HasPrefix(path, PathOCSP+"/"):
		a.serve(w, r, ServiceOCSP, "application/ocsp-response", a.answerOCSP)
	case path == PathRootCRL:
		a.serve(w, r, ServiceCRL, "application/pkix-crl", func(*http.Request, []byte, Fault) ([]byte, error) { return a.crl(a.Root) })
	case path == PathIssuingCRL:
		a.serve(w, r, ServiceCRL, "application/pkix-crl", func(*http.Request, []byte, Fault) ([]byte, error) { return a.crl(a.Issuing) })
	case path == PathRoot:
		writeDER(w, "application/pkix-cert", a.Root.Certificate.Raw)
	case path == PathIssuing:
		writeDER(w, "application/pkix-cert", a.Issuing.Certificate.Raw)
	default:
		http.NotFound(w, r)
	}
}

// badRequest is an error that the client made.
type badRequest struct {
	status int
	reason string
}

func (e *badRequest) Error() string { return e.reason }

func (a *Authority) serve(w http.ResponseWriter, r *http.Request, s Service, contentType string, answer func(*http.Request, []byte, Fault) ([]byte, error)) {
	fault := a.arrive(s)
	// The body is read whatever happens next: the server notices a client that leaves only after that.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "request body: "+err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	switch fault {
	case Down:
		panic(http.ErrAbortHandler)
	case Unavailable:
		w.Header().Set("Retry-After", "7")
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	case Garbage:
		writeDER(w, contentType, []byte("0\x82\xff\xffthis is not DER"))
		return
	case Endless:
		writeEndless(w, r, contentType)
		return
	case OtherType:
		contentType = "text/html"
	case Slow:
		if !pause(r, a.options.Hang) {
			return
		}
	}
	der, err := answer(r, body, fault)
	var bad *badRequest
	switch {
	case errors.As(err, &bad):
		http.Error(w, bad.reason, bad.status)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		writeDER(w, contentType, der)
	}
}

// pause reports whether the client was still there after d.
func pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func writeDER(w http.ResponseWriter, contentType string, der []byte) {
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(der) // a client that left is no concern of the mock
}

func writeEndless(w http.ResponseWriter, r *http.Request, contentType string) {
	w.Header().Set("Content-Type", contentType)
	block := bytes.Repeat([]byte{0x30}, 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// crl makes a fresh list at every request: it is as new as the clock.
func (a *Authority) crl(issuer *Identity) ([]byte, error) {
	a.mu.Lock()
	a.crls++
	now := a.now().UTC()
	list := &x509.RevocationList{Number: big.NewInt(a.crls), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(7 * 24 * time.Hour)}
	for id, entry := range a.revoked {
		if strings.HasPrefix(id, string(issuer.Certificate.SubjectKeyId)+"/") {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, entry)
		}
	}
	a.mu.Unlock()
	return x509.CreateRevocationList(rand.Reader, list, issuer.Certificate, issuer.Key)
}

func (a *Authority) answerOCSP(r *http.Request, body []byte, _ Fault) ([]byte, error) {
	der, err := ocspRequest(r, body)
	if err != nil {
		return nil, err
	}
	req, err := ocsp.ParseRequest(der)
	if err != nil {
		return ocsp.MalformedRequestErrorResponse, nil
	}
	for _, issuer := range []*Identity{a.Issuing, a.Root} {
		h := req.HashAlgorithm.New()
		h.Write(issuer.Certificate.RawSubject)
		if !bytes.Equal(h.Sum(nil), req.IssuerNameHash) {
			continue
		}
		// The root answers for itself: the responder was delegated by the issuing CA, and RFC 6960 binds the delegation to its issuer.
		signer := a.Responder
		if issuer == a.Root {
			signer = a.Root
		}
		return a.ocspAnswer(req, issuer, signer)
	}
	return ocsp.UnauthorizedErrorResponse, nil
}

func (a *Authority) ocspAnswer(req *ocsp.Request, issuer, signer *Identity) ([]byte, error) {
	now := a.clock()
	answer := ocsp.Response{
		Status: ocsp.Good, SerialNumber: req.SerialNumber, IssuerHash: req.HashAlgorithm,
		ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(24 * time.Hour), Certificate: signer.Certificate,
	}
	a.mu.Lock()
	entry, found := a.revoked[revocationKey(issuer.Certificate.SubjectKeyId, req.SerialNumber)]
	a.mu.Unlock()
	if found {
		answer.Status, answer.RevokedAt, answer.RevocationReason = ocsp.Revoked, entry.RevocationTime, entry.ReasonCode
	}
	return ocsp.CreateResponse(issuer.Certificate, signer.Certificate, answer, signer.Key)
}

// ocspRequest takes the request from a POST body or, as RFC 6960 describes, from the path of a GET.
func ocspRequest(r *http.Request, body []byte) ([]byte, error) {
	switch r.Method {
	case http.MethodPost:
		return body, nil
	case http.MethodGet:
		der, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.URL.Path, PathOCSP+"/"))
		if err != nil {
			return nil, &badRequest{http.StatusBadRequest, fmt.Sprintf("OCSP request in path: %v", err)}
		}
		return der, nil
	}
	return nil, &badRequest{http.StatusMethodNotAllowed, "OCSP wants GET or POST"}
}
