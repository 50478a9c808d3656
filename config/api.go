package config

import (
	"net"
	"net/netip"
)

// API says where programs may ask, and how often; docs/api.md says what. Nothing answers them without listen.
type API struct {
	// Listen is an address of its own, such as 127.0.0.1:8485 or ":8444". Without tls it must be on a loopback interface.
	// Default: none.
	Listen string `yaml:"listen"`
	// TLS is the certificate of the listener. Callers may show client certificates there in the place of tokens.
	TLS *TLS `yaml:"tls"`
	// Proxies are believed when they name the client certificate of a caller. Default: nobody is.
	Proxies *Proxies `yaml:"proxies"`
	// PerToken and PerAddress are how many requests a minute are answered of each token, and of each address (of IPv6, each
	// /64). Behind a proxy all callers have the proxy's address. Default 600 and 3000.
	PerToken   int `yaml:"per_token"`
	PerAddress int `yaml:"per_address"`
}

// What a minute can be asked to have at most: what is more is no limit.
const mostRequests = 1_000_000

func (a *API) defaults() {
	if a.TLS != nil {
		orDefault(&a.TLS.MinVersion, "1.3")
	}
	orDefault(&a.PerToken, 600)
	orDefault(&a.PerAddress, 3000)
}

// checkAPI looks at the listener of the API.
func (c *Config) checkAPI() (errs []error) {
	fail := func(path, format string, args ...any) {
		errs = append(errs, c.At("api."+path, "api."+path+format, args...))
	}
	a := c.API
	for path, n := range map[string]int{"per_token": a.PerToken, "per_address": a.PerAddress} {
		if n < 1 || n > mostRequests {
			fail(path, " is %d: it must be from 1 to %d requests a minute", n, mostRequests)
		}
	}
	if a.Listen == "" {
		if c.says("api") {
			fail("listen", " is missing: name the address that programs ask at, such as 127.0.0.1:8485")
		}
		return errs
	}
	errs = append(errs, c.checkProxies()...)
	host, port, err := net.SplitHostPort(a.Listen)
	if err != nil || port == "" {
		fail("listen", " is %q: it must be an address with a port, such as 127.0.0.1:8485", a.Listen)
	}
	if a.TLS != nil {
		return append(errs, c.checkTLS("api.tls", *a.TLS)...)
	}
	if at, _ := netip.ParseAddr(host); host != "localhost" && !at.IsLoopback() {
		fail("tls", " is missing: without it the API must be on a loopback interface, such as 127.0.0.1:8485: tokens are never sent in plain text")
	}
	return errs
}
