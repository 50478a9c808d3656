package main

import (
	"strings"
	"testing"

	"github.com/dealseal/dealseal/pins"
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
