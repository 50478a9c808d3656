package pki

import (
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"net/http"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PathEST is where EST is spoken.
const PathEST = "/.well-known/est"

// EST returns a handler that issues document-signing certificates over EST (RFC 7030) to whoever knows a name and a password. The
// first pending requests are answered with 202, as if somebody had to agree.
func (a *Authority) EST(user, password string, pending int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathEST+"/cacerts", func(w http.ResponseWriter, _ *http.Request) {
		writeCertsOnly(w, []*x509.Certificate{a.Issuing.Certificate, a.Root.Certificate})
	})
	mux.HandleFunc("POST "+PathEST+"/simpleenroll", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		got, secret, _ := r.BasicAuth()
		if subtle.ConstantTimeCompare([]byte(got+"\x00"+secret), []byte(user+"\x00"+password)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="EST"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if r.Header.Get("Content-Type") != "application/pkcs10" {
			http.Error(w, "not application/pkcs10", http.StatusUnsupportedMediaType)
			return
		}
		a.mu.Lock()
		wait := pending > 0
		pending--
		a.mu.Unlock()
		if wait {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		a.enrol(w, body)
	})
	return mux
}

func (a *Authority) enrol(w http.ResponseWriter, body []byte) {
	der, err := base64.StdEncoding.DecodeString(string(body))
	var csr *x509.CertificateRequest
	if err == nil {
		csr, err = x509.ParseCertificateRequest(der)
	}
	if err == nil {
		err = csr.CheckSignature()
	}
	var chain []*x509.Certificate
	if err == nil {
		chain, err = a.IssueSigner(csr.PublicKey, csr.Subject)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeCertsOnly(w, chain[:1])
}

// writeCertsOnly writes a CMS message that holds certificates and is signed by nobody (RFC 5652, section 5.1).
func writeCertsOnly(w http.ResponseWriter, certs []*x509.Certificate) {
	var b cryptobyte.Builder
	zero := casn1.Tag(0).ContextSpecific().Constructed()
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2})
		b.AddASN1(zero, func(b *cryptobyte.Builder) {
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(casn1.SET, func(*cryptobyte.Builder) {})
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1})
				})
				b.AddASN1(zero, func(b *cryptobyte.Builder) {
					for _, c := range certs {
						b.AddBytes(c.Raw)
					}
				})
				b.AddASN1(casn1.SET, func(*cryptobyte.Builder) {})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
	w.Header().Set("Content-Transfer-Encoding", "base64")
	io.WriteString(w, base64.StdEncoding.EncodeToString(der))
}
