package api

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// The headers in which a proxy may say which client certificate it was shown.
const (
	// HeaderPEM holds a PEM certificate with what is special in URLs escaped, as nginx's $ssl_client_escaped_cert does.
	HeaderPEM = "X-Client-Cert"
	// HeaderDER is that of RFC 9440, section 2.2: DER as a byte sequence of structured fields (RFC 8941, section 3.3.5).
	HeaderDER = "Client-Cert"
	// headerChain is that of RFC 9440, section 2.3: what the client sent beside its own certificate, in the same form.
	headerChain = "Client-Cert-Chain"
)

const (
	// longestForwarded bounds a header with certificates: an RSA certificate of 4096 bits has some 3 kB when it is escaped.
	longestForwarded = 8 << 10
	// mostBetween is how many certificates are read of a chain.
	mostBetween = 5
	// largestRSA is what TLS takes of whoever connects by itself, in bits: what a proxy forwards is checked with these keys, and the time
	// grows with the square.
	largestRSA = 8192
	// mostRefusals bounds how many kinds of refused certificates are counted between two entries of the audit log.
	mostRefusals = 1000
)

// Proxies are those that are believed when they say which client certificate a caller has shown to them.
type Proxies struct {
	// Addresses are where they connect from.
	Addresses []netip.Prefix
	// Certificates are the fingerprints of their own client certificates; without any the address alone counts.
	Certificates []string
	// Header is HeaderPEM or HeaderDER. No other is looked at.
	Header string
	// Roots are those that a forwarded certificate has to chain to, whatever the proxy has checked.
	Roots *x509.CertPool
}

// shown is the client certificate that a request stands for.
type shown struct {
	certificate *x509.Certificate // nil: none
	via         string            // the proxy that was shown it; empty for a connection of the caller's own
}

// refusedCertificate is what a proxy has forwarded and nobody can be known by. The caller is told the status alone.
type refusedCertificate struct {
	status      int
	via, reason string
}

func (e *refusedCertificate) Error() string { return "a forwarded client certificate: " + e.reason }

// shownBy finds the client certificate of a request. A proxy's own is never that of a caller, with or without the header:
// all that comes through the proxy would be let in. From whoever is no proxy the header says nothing.
func (p *Proxies) shownBy(r *http.Request, now time.Time) (shown, error) {
	var peer *x509.Certificate
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		peer = r.TLS.PeerCertificates[0] // the handshake has proven that whoever connects has its key
	}
	if p == nil {
		return shown{certificate: peer}, nil
	}
	own := peer != nil && slices.Contains(p.Certificates, Fingerprint(peer.Raw))
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	at := from.Addr().Unmap().WithZone("")
	listed := err == nil && slices.ContainsFunc(p.Addresses, func(n netip.Prefix) bool { return n.Contains(at) })
	via := at.String()
	switch {
	case listed && own && !inTime(peer, now):
		return shown{}, &refusedCertificate{http.StatusUnauthorized, via, "the proxy's own certificate is out of date"}
	case listed && own:
		via += " (" + Fingerprint(peer.Raw)[:16] + ")"
	case listed && len(p.Certificates) == 0:
	case own:
		return shown{}, nil
	default:
		return shown{certificate: peer}, nil
	}
	c, err := p.forwarded(r.Header, now)
	if refused, ok := err.(*refusedCertificate); ok {
		refused.via = via
	}
	return shown{c, via}, err
}

// forwarded reads and judges the certificate that a proxy was shown; nil if it was shown none.
func (p *Proxies) forwarded(h http.Header, now time.Time) (*x509.Certificate, error) {
	values := h.Values(p.Header)
	if len(values) == 0 || len(values) == 1 && values[0] == "" { // which some send when they were shown none
		return nil, nil
	}
	malformed := func(err error) error {
		return &refusedCertificate{status: http.StatusBadRequest, reason: err.Error()}
	}
	if len(values) > 1 {
		return nil, malformed(fmt.Errorf("%s is there more than once", p.Header))
	}
	read := readPEMHeader
	if p.Header == HeaderDER {
		read = readDERHeader
	}
	c, err := read(values[0])
	if err != nil {
		return nil, malformed(err)
	}
	between := x509.NewCertPool()
	if p.Header == HeaderDER {
		if err := readChainHeader(h.Values(headerChain), between); err != nil {
			return nil, malformed(err)
		}
	}
	if !inTime(c, now) {
		return nil, &refusedCertificate{status: http.StatusUnauthorized, reason: "it is out of date"}
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: p.Roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, &refusedCertificate{status: http.StatusUnauthorized, reason: "it is none of the client CA's, or not for clients"}
	}
	return c, nil
}

func inTime(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// readPEMHeader reads one PEM certificate, and nothing beside it.
func readPEMHeader(value string) (*x509.Certificate, error) {
	if len(value) > longestForwarded {
		return nil, fmt.Errorf("%s has more than %d bytes", HeaderPEM, longestForwarded)
	}
	text, err := url.PathUnescape(value) // a plus is one of base64
	if err != nil {
		return nil, fmt.Errorf("%s is not escaped as in URLs", HeaderPEM)
	}
	text = strings.TrimSpace(text)
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || len(rest) > 0 || !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----") {
		return nil, fmt.Errorf("%s holds no PEM certificate, or more than one", HeaderPEM)
	}
	return parsed(HeaderPEM, block.Bytes)
}

// readDERHeader reads one byte sequence. Parameters, of which RFC 9440 knows none, are refused.
func readDERHeader(value string) (*x509.Certificate, error) {
	return readByteSequence(HeaderDER, value)
}

func readByteSequence(header, value string) (*x509.Certificate, error) {
	if len(value) > longestForwarded {
		return nil, fmt.Errorf("%s has more than %d bytes", header, longestForwarded)
	}
	value = strings.Trim(value, " ")
	if len(value) < 2 || value[0] != ':' || value[len(value)-1] != ':' {
		return nil, fmt.Errorf("%s is no byte sequence, base64 between colons", header)
	}
	der, err := base64.StdEncoding.Strict().DecodeString(value[1 : len(value)-1])
	if err != nil {
		return nil, fmt.Errorf("%s is no byte sequence, base64 between colons", header)
	}
	return parsed(header, der)
}

// readChainHeader adds what stands in a list, which may be in several headers (RFC 8941, section 3.1), to a pool.
func readChainHeader(values []string, into *x509.CertPool) error {
	list := strings.Join(values, ",")
	if list == "" {
		return nil
	}
	if len(list) > longestForwarded {
		return fmt.Errorf("%s has more than %d bytes", headerChain, longestForwarded)
	}
	items := strings.Split(list, ",")
	if len(items) > mostBetween {
		return fmt.Errorf("%s has more than %d certificates", headerChain, mostBetween)
	}
	for _, item := range items {
		c, err := readByteSequence(headerChain, strings.Trim(item, " \t"))
		if err != nil {
			return err
		}
		into.AddCert(c)
	}
	return nil
}

func parsed(header string, der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s holds no X.509 certificate", header) // what the parser says may hold a name
	}
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > largestRSA {
		return nil, fmt.Errorf("%s holds an RSA key of more than %d bits", header, largestRSA)
	}
	return c, nil
}

// refusals counts the forwarded certificates that were refused, by proxy and reason. Who has sent them is not known, and may
// send many: the audit log has as many entries as there are kinds, every ten minutes.
type refusals struct {
	mu  sync.Mutex
	all map[[2]string]*deal.RefusedCertificates
}

func (f *refusals) add(e *refusedCertificate, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[[2]string]*deal.RefusedCertificates{}
	}
	key := [2]string{e.via, e.reason}
	if f.all[key] == nil && len(f.all) >= mostRefusals {
		key = [2]string{"others", "various reasons"}
	}
	one := f.all[key]
	if one == nil {
		one = &deal.RefusedCertificates{Via: key[0], Reason: key[1], From: at}
		f.all[key] = one
	}
	one.To = at
	one.Count++
}

func (f *refusals) take() map[[2]string]*deal.RefusedCertificates {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.all
	f.all = nil
	return all
}

// putBack is for what could not be noted.
func (f *refusals) putBack(key [2]string, one *deal.RefusedCertificates) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[[2]string]*deal.RefusedCertificates{}
	}
	if since := f.all[key]; since != nil {
		one.Count, one.To = one.Count+since.Count, since.To
	}
	f.all[key] = one
}

// auditRefusals has the audit log take note of the forwarded certificates that were refused.
func (a *API) auditRefusals(ctx context.Context) {
	for key, one := range a.refused.take() {
		if err := a.Tokens.AuditRefusedCertificates(ctx, *one); err != nil {
			a.Log.ErrorContext(ctx, "the audit log takes no note of client certificates that were refused: it is tried again", "via", one.Via, "err", err)
			a.refused.putBack(key, one)
		}
	}
}
