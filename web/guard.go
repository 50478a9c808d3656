package web

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// contentPolicy lets a page load its own style sheet, icon and script, read itself again, send a form to us, and nothing
// else.
const contentPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// guard keeps other sites out: by the name that the browser believes it talks to (a name that was rebound to our address
// is not ours) and by what the browser says of where a request comes from.
func guard(hosts []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		harden(w.Header())
		switch host := hostname(r.Host); {
		case !named(hosts, host) && !sameAddress(host, r):
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusMisdirectedRequest)
			fmt.Fprintf(w, "This page does not answer to the name %q.\nOpen it as localhost, or add the name to listen.hosts in dealseal.yaml and restart.\n", host)
		case foreign(r) || !ours(r):
			http.Error(w, "Another site asked for this page. Open it from the address bar or by following a link.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// Answers reports whether requests for a host, with or without a port, are answered if they arrive under that name. An
// address is taken for one of ours: that shows when a request arrives at it. hosts are those of Options.
func Answers(hosts []string, host string) bool {
	name := hostname(host)
	_, err := netip.ParseAddr(name)
	return err == nil || named(hosts, name)
}

// named reports whether a host name is localhost or one of hosts.
func named(hosts []string, name string) bool {
	return name == "localhost" || slices.ContainsFunc(hosts, func(h string) bool { return hostname(h) == name })
}

func harden(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // with less, browsers send forms without TLS as if from nowhere
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// hostname returns a Host header without its port, its brackets and its final dot, in lower case.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// sameAddress reports whether host is a loopback address or the address that the request arrived at. Neither is a name,
// so neither can be rebound; probes and Prometheus use the latter.
func sameAddress(host string, r *http.Request) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	return err == nil && at.Addr().Unmap().WithZone("") == ip.Unmap()
}

// foreign reports whether another site caused the request, unless a person followed a link there: such a page opens in
// its own window, where the other site can read nothing of it. Ports do not make a site, so what another server on this
// host asks for is "same-site" and just as foreign. Browsers send these headers to localhost and over HTTPS; whoever does
// not is no browser, or gets no answer that its page may read.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}
