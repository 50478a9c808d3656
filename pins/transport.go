package pins

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

// Transport calls hosts that have pins over connections of their own, which are closed to whoever presents none of them, and all
// others as base does. It is safe for concurrent use.
type Transport struct {
	base  *http.Transport
	where string
	hosts atomic.Pointer[map[string]host]
}

// host is one with pins.
type host struct {
	pins      Set
	transport *http.Transport
}

// NewTransport takes base as it is for hosts without pins. where says where the pins are configured, for errors.
func NewTransport(base *http.Transport, where string, all map[string]Set) *Transport {
	t := &Transport{base: base, where: where}
	t.hosts.Store(&map[string]host{})
	t.Set(all)
	return t
}

// Set has other pins count from the next call on. What is under way goes on; connections that were checked for others are not
// used again. Calls of Set must not overlap.
func (t *Transport) Set(all map[string]Set) {
	old, next := *t.hosts.Load(), map[string]host{}
	for name, set := range all {
		name = strings.ToLower(name)
		if was, known := old[name]; known && slices.Equal(was.pins, set) {
			next[name] = was
		} else if len(set) > 0 {
			next[name] = host{slices.Clone(set), t.pinned(name, set)}
		}
	}
	t.hosts.Store(&next)
	for name, was := range old {
		if next[name].transport != was.transport {
			was.transport.CloseIdleConnections()
		}
	}
	t.base.CloseIdleConnections() // of hosts that had no pins
}

func (t *Transport) pinned(name string, set Set) *http.Transport {
	one := t.base.Clone()
	if one.TLSClientConfig == nil {
		one.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	one.TLSClientConfig.VerifyConnection = set.Verify(name, t.where)
	return one
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	name := strings.TrimSuffix(strings.ToLower(r.URL.Hostname()), ".")
	h, pinned := (*t.hosts.Load())[name]
	switch {
	case !pinned:
		return t.base.RoundTrip(r)
	case r.URL.Scheme != "https":
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, fmt.Errorf("%s has pins in %s, and is to be called without TLS: use https", name, t.where)
	}
	return h.transport.RoundTrip(r)
}

// CloseIdleConnections is for http.Client.
func (t *Transport) CloseIdleConnections() {
	t.base.CloseIdleConnections()
	for h := range maps.Values(*t.hosts.Load()) {
		h.transport.CloseIdleConnections()
	}
}
