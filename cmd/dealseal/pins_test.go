package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/hubspot"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/secret"
)

func TestPinsOfAHostThatIsNotCalledAreRefused(t *testing.T) {
	t.Parallel()
	addresses := []string{"https://acme.my.salesforce.com", "https://api.pubsub.salesforce.com:7443"}
	for host, c := range map[string]struct {
		addresses []string
		set       pins.Set
		says      string
	}{
		"Acme.my.salesforce.com":    {addresses, pins.Set{{1}}, `did you mean "acme.my.salesforce.com"`},
		"api.pubsub.salesforce.com": {addresses, pins.Set{{1}}, ""},
		"acme.my.salesforce.con":    {addresses, pins.Set{{1}}, "what the connector calls is acme.my.salesforce.com and api.pubsub.salesforce.com"},
		"login.salesforce.com":      {addresses, pins.Set{{1}}, "what the connector calls is"},
		"127.0.0.1":                 {[]string{"http://127.0.0.1:1"}, pins.Set{{1}}, "without TLS"},
		"acme.my.salesforce.com":    {addresses, pins.Set{}, "no pin for"},
	} {
		err := checkPinnedHosts(map[string]pins.Set{host: c.set}, c.addresses)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// nothingKept is a memory that is empty.
type nothingKept struct{ connectors.Memory }

func (nothingKept) Get(context.Context, string) ([]byte, int64, error) { return nil, 0, nil }
func (nothingKept) Put(context.Context, string, []byte, int64) error   { return nil }

// TestPinsHoldLoginsAndStreams: a server without a pinned key is given no secret to log in with, and with one it is. It knows nobody,
// and keeps what it was asked for.
func TestPinsHoldLoginsAndStreams(t *testing.T) {
	t.Parallel()
	pair, leaf, root := loopbackTLS(t)
	var mu sync.Mutex
	var asked []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Proto+" "+r.URL.Path)
		http.Error(w, "{}", http.StatusBadRequest)
	}))
	server.EnableHTTP2, server.TLS = true, &tls.Config{Certificates: []tls.Certificate{*pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	trusting := func(base func() *http.Transport) func() *http.Transport {
		return func() *http.Transport {
			b := base()
			b.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
			b.TLSClientConfig.RootCAs.AddCert(root)
			return b
		}
	}
	file := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(file, []byte("a secret of ours"), 0o600))
	ref, err := secret.ParseRef("file:" + file)
	must(t, err)
	for name, c := range map[string]struct {
		call  func(*config.Tenant) error
		asked string
	}{
		"salesforce": {func(t *config.Tenant) error {
			crm, err := salesforce.New(salesforce.Config{MyDomain: server.URL, Auth: salesforce.Auth{Flow: salesforce.FlowClientCredentials, ConsumerKey: "x", ClientSecret: ref}},
				salesforce.Deps{HTTP: pinnedTo(t, trusting(salesforce.NewTransport))})
			if err == nil {
				_, err = crm.Identity(context.Background())
			}
			return err
		}, "/services/oauth2/token"},
		"hubspot": {func(t *config.Tenant) error {
			crm, err := hubspot.New(hubspot.Config{BaseURL: server.URL, Auth: hubspot.Auth{Flow: hubspot.FlowOAuth, ClientID: "x", ClientSecret: ref, RefreshToken: ref}},
				hubspot.Deps{Memory: nothingKept{}, Transport: pinnedTo(t, trusting(hubspot.NewTransport))})
			if err == nil {
				_, err = crm.Identity(context.Background())
			}
			return err
		}, "/oauth/2026-03/token"},
		"change events": {func(t *config.Tenant) error {
			r, err := http.NewRequest(http.MethodPost, server.URL+"/eventbus.v1.PubSub/Subscribe", nil)
			if err != nil {
				return err
			}
			resp, err := pinnedTo(t, trusting(salesforce.NewStreamTransport)).RoundTrip(r)
			if err == nil {
				err = errors.Join(resp.Body.Close(), errors.New(resp.Status))
			}
			return err
		}, "/eventbus.v1.PubSub/Subscribe"},
	} {
		for _, set := range []pins.Set{{{1}}, {{1}, pins.Of(leaf)}} {
			mu.Lock()
			asked = nil
			mu.Unlock()
			tenant := &config.Tenant{File: "acme.yaml"}
			tenant.CRM.Pins = map[string]pins.Set{"127.0.0.1": set}
			err := c.call(tenant)
			strange := len(set) == 1
			says := err != nil && strings.Contains(err.Error(), "127.0.0.1 has none of the keys that are pinned")
			mu.Lock()
			got := slices.Clone(asked)
			mu.Unlock()
			if err == nil || says != strange || strange != (len(got) == 0) || !strange && got[0] != "HTTP/2.0 "+c.asked {
				t.Errorf("%s with %d pins: %v, and it was asked for %q", name, len(set), err, got)
			}
		}
	}
}
