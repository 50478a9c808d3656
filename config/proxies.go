package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are those in front of the API that see the client certificates of callers in the daemon's place, and say in a header
// which one it was. A certificate is no secret: whoever is believed can be any caller. From all others the header is as if it
// were not there; a listed proxy's callers that come with a token need none of this.
type Proxies struct {
	// Addresses are where they connect from: addresses, or networks such as 10.1.2.0/28. Required.
	Addresses []string `yaml:"addresses"`
	// Certificates are PEM files with the client certificates that the proxies themselves show to the API, one of which is
	// then asked for beside the address. Required where an address is on this machine, which any program on it has.
	Certificates []string `yaml:"certificates"`
	// Header is X-Client-Cert, a PEM certificate that is escaped as in URLs (nginx), or Client-Cert, that of RFC 9440. The
	// proxy has to remove what callers send in it. Required.
	Header string `yaml:"header"`
	// ClientCA is a PEM file with the CAs that callers' certificates chain to; also with single certificates that none has
	// signed. Required: it is checked here as well, whatever the proxy does.
	ClientCA string `yaml:"client_ca"`
}

var proxyHeaders = []string{"X-Client-Cert", "Client-Cert"}

// widest is the shortest prefix that is taken for a network of proxies, by the bits of an address.
var widest = map[int]int{32: 8, 128: 32}

// Networks are those of Addresses.
func (p *Proxies) Networks() (out []netip.Prefix, errs []error) {
	for _, text := range p.Addresses {
		n, err := proxyNetwork(text)
		out, errs = append(out, n), append(errs, err)
	}
	return out, errs
}

func proxyNetwork(text string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address such as 10.1.2.3, and no network such as 10.1.2.0/28", text)
		}
		n = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case n.Addr().Is4In6():
		return n, fmt.Errorf("%q is an address of IPv4 in the form of IPv6: write it as one of IPv4", text)
	case n != n.Masked():
		return n, fmt.Errorf("%q is an address within %s: write the address alone, or the network", text, n.Masked())
	case n.Bits() < widest[n.Addr().BitLen()]:
		return n, fmt.Errorf("%q is a large part of the internet, and everybody in it could be any caller: name the addresses of your proxies", text)
	}
	return n, nil
}

// checkProxies looks at the proxies before the API.
func (c *Config) checkProxies() (errs []error) {
	fail := func(key, format string, args ...any) {
		errs = append(errs, c.At(strings.TrimSuffix("api.proxies."+key, "."), strings.TrimSuffix("api.proxies."+key, ".")+format, args...))
	}
	p := c.API.Proxies
	if p == nil {
		return nil
	}
	if c.API.TLS == nil {
		fail("", " needs api.tls: without it no proxy can show who it is, and every program on this machine could say that it is one")
	}
	if len(p.Addresses) == 0 {
		fail("addresses", " is missing: name the addresses of the proxies that are believed, or nobody is; without proxies leave all of api.proxies out")
	}
	networks, wrong := p.Networks()
	for i, n := range networks {
		key := fmt.Sprintf("addresses.%d", i)
		switch {
		case wrong[i] != nil:
			fail(key, ": %v", wrong[i])
		case n.Addr().IsLoopback() && len(p.Certificates) == 0:
			fail(key, ": %s is this machine, and any program on it has that address: name the proxy's own client certificate in certificates", n)
		}
	}
	if p.Header == "" {
		fail("header", " is missing: say in which header the proxy names the certificate, X-Client-Cert (nginx) or Client-Cert (RFC 9440)")
	} else if !slices.Contains(proxyHeaders, p.Header) {
		fail("header", " is %q: it must be X-Client-Cert or Client-Cert%s", p.Header, Nearest(p.Header, slices.Clone(proxyHeaders)))
	}
	if p.ClientCA == "" {
		fail("client_ca", " is missing: name a PEM file with the CAs of the callers' certificates")
	}
	return errs
}
