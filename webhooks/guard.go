package webhooks

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"github.com/dealseal/dealseal/pins"
)

// Guard says what a call to an address that somebody has configured may reach: the public internet, and what it is allowed
// beside that. It is asked with the address that is connected to, after names are resolved, so that no name server can
// lead it elsewhere.
type Guard struct{ public *ssrf.Guardian }

// NewGuard allows internal networks, such as 10.1.2.0/24; 127.0.0.0/8 for receivers on this machine.
func NewGuard(allow []netip.Prefix) Guard {
	var v4, v6 []netip.Prefix
	for _, p := range allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return Guard{ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))}
}

// forbiddenError means that an address may not be connected to.
type forbiddenError struct{ reason string }

func (e *forbiddenError) Error() string { return e.reason }

// control is for a dialer. Without TLS it lets nothing off this machine.
func (g Guard) control(encrypted bool) func(network, address string, c syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &forbiddenError{"it is no address of the internet"}
		}
		if !encrypted && !to.Addr().Unmap().IsLoopback() {
			return &forbiddenError{"http:// is for receivers on this machine: use https://"}
		}
		if err := g.public.Safe(network, address, c); err != nil {
			return &forbiddenError{fmt.Sprintf("%s is not on the public internet, and not allowed by outbound.allow", to.Addr())}
		}
		return nil
	}
}

// Client is one that connects to nothing that the guard keeps from it. trust may be nil.
func (g Guard) Client(encrypted bool, trust *tls.Config) *http.Client {
	return g.client(encrypted, 1, nil, trust)
}

// clientCertificate is what a server that asks for one is shown; nil: nothing.
type clientCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)

// client makes calls to one endpoint. It follows no redirect, takes no proxy from the environment, which would resolve names
// itself, and unpacks nothing.
func (g Guard) client(encrypted bool, connections int, certificate clientCertificate, trust *tls.Config) *http.Client {
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetClientCertificate: certificate}
	if trust != nil {
		config.RootCAs = trust.RootCAs
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: g.control(encrypted)}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, IdleConnTimeout: 90 * time.Second,
			DisableCompression: true, MaxResponseHeaderBytes: 32 << 10,
		},
	}
}

// Reason says why a call that was made with a Guard failed, without the address.
func Reason(err error) string { return reasonOf(err) }

// reasonOf says why a call failed, without the address, which may hold a token.
func reasonOf(err error) string {
	var forbidden *forbiddenError
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var pinned *pins.MismatchError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &forbidden):
		return forbidden.reason
	case errors.As(err, &dns):
		return "its name was not found"
	case errors.As(err, &pinned):
		return pinned.Error()
	case errors.As(err, &certificate):
		return "its certificate: " + certificate.Err.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	}
	return "the connection broke"
}
