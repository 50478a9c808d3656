package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/pins"
)

// checkPins is the name of the check of pinned keys.
const checkPins = "pins"

// pinLook bounds how long a server is looked at.
const pinLook = 15 * time.Second

// hostIn is the name of an address's host, as pins are for it.
func hostIn(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
}

// checkPinnedHosts refuses pins that nothing would come of.
func checkPinnedHosts(pinned map[string]pins.Set, addresses []string) error {
	called := map[string]bool{}
	var names []string
	for _, a := range addresses {
		called[hostIn(a)] = strings.HasPrefix(a, "https://")
		names = append(names, hostIn(a))
	}
	for _, name := range slices.Sorted(maps.Keys(pinned)) {
		overTLS, known := called[name]
		switch {
		case !known:
			return fmt.Errorf("crm.pins has %q, and what the connector calls is %s%s", name, strings.Join(names, " and "), config.Nearest(name, names))
		case !overTLS:
			return fmt.Errorf("crm.pins has %q, which is called without TLS: nothing is presented there that could be pinned", name)
		case len(pinned[name]) == 0:
			return fmt.Errorf("crm.pins has no pin for %q: name at least one, better two, or take it out", name)
		}
	}
	return nil
}

// pinnedTo carries the calls of a tenant's connector; nil, which leaves the choice to it, without pins.
func pinnedTo(file *config.Tenant, base func() *http.Transport) http.RoundTripper {
	if len(file.CRM.Pins) == 0 {
		return nil
	}
	return pins.NewTransport(base(), "crm.pins in "+file.File, file.CRM.Pins)
}

// stampPins are the pins of the time-stamp servers, by host.
func stampPins(cfg *config.Config) map[string]pins.Set {
	all := map[string]pins.Set{}
	for _, t := range cfg.Signing.TSA {
		if len(t.Pins) > 0 {
			all[hostIn(t.URL)] = t.Pins
		}
	}
	return all
}

// newStampTransport carries requests to time-stamp servers, whose pins a reload may change.
func newStampTransport(cfg *config.Config) *pins.Transport {
	return pins.NewTransport(http.DefaultTransport.(*http.Transport).Clone(), "signing.tsa in "+cfg.File, stampPins(cfg))
}

// stampTransport is the daemon's, or one of a command that reads the configuration alone.
func (h *house) stampTransport() *pins.Transport {
	if h.stampWire == nil {
		return newStampTransport(h.cfg)
	}
	return h.stampWire
}

// examinePins says how many of a host's pins stand in the chain that it presents now. It sends a HEAD without any login.
func examinePins(ctx context.Context, address string, set pins.Set, trust *x509.CertPool) doctor.Finding {
	const cure = "compare with what its operator says; then put the pin of the new key, or of the CA above it, beside the others and reload (docs/threats.md)"
	chains, err := presented(ctx, address, trust)
	if err != nil {
		return failed(checkPins, err, "see that this machine reaches "+hostIn(address)+" and trusts its certificate")
	}
	found := set.Matching(chains)
	switch {
	case len(found) == 0:
		return doctor.Failed(checkPins, cure, "none of %s is in the chain, and nothing is asked of it: it presents %s", plural(len(set), "pin"), pins.Describe(chains[0]))
	case len(set) == 1:
		return doctor.Warned(checkPins, "add a second: that of the CA above, or of a key that its operator keeps in reserve", "the only pin %s matches: when its key changes, nothing goes on until the pin does", set)
	}
	return doctor.Passed(checkPins, "%d of %d pins match its chain: %s", len(found), len(set), found)
}

// presented asks a server for its chains, as they lead to roots that are trusted.
func presented(ctx context.Context, address string, trust *x509.CertPool) (chains [][]*x509.Certificate, err error) {
	ctx, cancel := context.WithTimeout(ctx, pinLook)
	defer cancel()
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true
	seen := make(chan [][]*x509.Certificate, 1)
	t.TLSClientConfig = &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12, VerifyConnection: func(s tls.ConnectionState) error {
		select {
		case seen <- s.VerifiedChains:
		default:
		}
		return nil
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(r)
	if err == nil {
		resp.Body.Close()
	}
	select {
	case chains := <-seen: // whatever became of the request
		if len(chains) > 0 {
			return chains, nil
		}
	default:
	}
	if err == nil {
		err = errors.New("it presented no chain")
	}
	return nil, fmt.Errorf("%s: %w", hostIn(address), err)
}
