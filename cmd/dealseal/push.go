package main

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors/hubspot"
	"github.com/dealseal/dealseal/connectors/salesforce"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/web"
	"github.com/dealseal/dealseal/webhooks"
)

// sharedPath is the address that the first description of such a service gave to everybody. Whose key has signed a request
// is whose tenant it is for.
const sharedPath = "/webhook/opportunity"

// ingestPath is the one of the second description, for those who prove by a client certificate who they are.
const ingestPath = "/ingest"

// Most bytes of a body. A hundred events of HubSpot have some 40 kB; an Outbound Message has as many fields as somebody has
// chosen.
const (
	jsonBody     = 256 << 10
	outboundBody = 2 << 20
)

// pushSource is what all senders of a kind have in common.
type pushSource struct {
	dialects []string // usual ones
	body     int64
	read     func(body []byte, account deal.Account) (web.Pushed, error)
	answer   web.Answer
}

var accepted = web.Answer{Status: http.StatusAccepted}

var pushSources = map[string]pushSource{
	config.PushHubSpot: {[]string{"hubspot"}, jsonBody, func(body []byte, account deal.Account) (web.Pushed, error) {
		p, err := hubspot.ReadWebhook(body, account.ID)
		return web.Pushed{Events: p.Events}, err
	}, web.Answer{Status: http.StatusOK}},
	config.PushHubSpotWorkflow: {[]string{"hubspot", "hubspot-v2"}, jsonBody, func(body []byte, _ deal.Account) (web.Pushed, error) {
		p, err := hubspot.ReadWorkflow(body)
		return web.Pushed{Events: p.Events}, err
	}, web.Answer{Status: http.StatusOK}},
	config.PushHubSpotAction: {[]string{"hubspot", "hubspot-v2"}, jsonBody, func(body []byte, account deal.Account) (web.Pushed, error) {
		p, err := hubspot.ReadAction(body, account.ID)
		if errors.Is(err, hubspot.ErrOtherPortal) {
			err = webhooks.Refuse(webhooks.Stranger, "%v", err)
		}
		return web.Pushed{Events: p.Events, Callbacks: p.Callbacks}, err
	}, web.Answer{Status: http.StatusOK, ContentType: "application/json"}}, // its body says for how long: see understandPushes
	config.PushOutbound: {nil, outboundBody, func(body []byte, account deal.Account) (web.Pushed, error) {
		events, err := salesforce.ReadOutbound(body, account.ID)
		if errors.Is(err, salesforce.ErrOtherOrg) {
			err = webhooks.Refuse(webhooks.Stranger, "%v", err)
		}
		return web.Pushed{Events: events}, err
	}, web.Answer{Status: http.StatusOK, ContentType: "text/xml; charset=utf-8", Body: salesforce.Acknowledgement}},
	config.PushFlow: {nil, jsonBody, func(body []byte, _ deal.Account) (web.Pushed, error) {
		events, err := salesforce.ReadCallout(body)
		return web.Pushed{Events: events}, err
	}, accepted},
	config.PushOpportunity: {[]string{"x-signature"}, jsonBody, nil, // its body is the same for every CRM: see readOpportunity
		// As it was described: 200 says that it was accepted, not that anything is signed.
		web.Answer{Status: http.StatusOK, ContentType: "application/json", Body: `{"success":true}`, Failed: `{"error":"signing_failed"}`}},
}

// understandPushes turns the senders of a tenant into what the listener asks.
func (h *house) understandPushes(t *tenant) error {
	for i, p := range t.file.Push {
		path := fmt.Sprintf("push.%d", i)
		kind := pushSources[p.Source]
		s := &web.Sender{Tenant: deal.TenantID(t.file.Tenant.ID), Source: p.Source, Path: "/webhooks/" + t.file.Tenant.ID + "/" + p.Source,
			Origin: web.Origin{Addresses: p.Addresses, Names: p.ClientNames}, MaxBody: kind.body, Read: kind.read, Answer: kind.answer}
		if s.Read == nil {
			s.Read = opportunityReader(deal.Kind(t.file.CRM.Kind))
		}
		if p.Source == config.PushHubSpotAction {
			s.Block = cmp.Or(p.Block, config.UsualBlock)
			s.Answer.Body = hubspot.Blocked(int(s.Block / time.Hour))
		}
		names := kind.dialects
		if p.Dialect != "" {
			names = []string{p.Dialect}
		}
		for _, name := range names {
			d := webhooks.Find(name)
			if d == nil {
				return t.file.At(path+".dialect", "dialect %q is not known%s", name, config.Nearest(name, webhooks.Names()))
			}
			s.Dialects = append(s.Dialects, d)
		}
		live := &liveKeys{refs: p.Secrets}
		for j, name := range p.PublicKeys {
			keys, err := readPublicKeys(relativeTo(t.file.File, name))
			if err != nil {
				return t.file.At(fmt.Sprintf("%s.public_keys.%d", path, j), "%v", err)
			}
			live.public = append(live.public, keys...)
		}
		s.Keys = live.get
		if p.ClientCA != "" {
			roots, err := readCertificates(relativeTo(t.file.File, p.ClientCA))
			if err != nil {
				return t.file.At(path+".client_ca", "%v", err)
			}
			s.Origin.Roots = x509.NewCertPool()
			for _, c := range roots {
				s.Origin.Roots.AddCert(c)
			}
		}
		t.senders, t.live = append(t.senders, s), append(t.live, live)
	}
	return nil
}

// bySenderPath finds who may post where.
func bySenderPath(tenants []tenant) map[string][]*web.Sender {
	m := map[string][]*web.Sender{}
	for _, t := range tenants {
		for _, s := range t.senders {
			m[s.Path] = append(m[s.Path], s)
			if s.Source == config.PushOpportunity {
				m[sharedPath] = append(m[sharedPath], s)
				if s.Origin.Roots != nil {
					m[ingestPath] = append(m[ingestPath], s)
				}
			}
		}
	}
	return m
}

// asksForCertificates reports whether a client certificate means anything to a sender's tenant.
func (h *house) asksForCertificates() bool {
	for _, t := range h.tenants {
		for _, s := range t.senders {
			if s.Origin.Roots != nil {
				return true
			}
		}
	}
	return false
}

// opportunityReader reads {"opportunityId": …, "data": …}. The data is not looked at: the CRM is asked.
func opportunityReader(kind deal.Kind) func([]byte, deal.Account) (web.Pushed, error) {
	return func(body []byte, _ deal.Account) (web.Pushed, error) {
		var said struct {
			ID json.RawMessage `json:"opportunityId"`
		}
		if err := json.Unmarshal(body, &said); err != nil || len(said.ID) == 0 {
			return web.Pushed{}, errors.New("it is no JSON object with an opportunityId")
		}
		if kind == deal.HubSpot {
			p, err := hubspot.ReadWorkflow([]byte(`{"dealId":` + string(said.ID) + `}`))
			return web.Pushed{Events: p.Events}, err
		}
		events, err := salesforce.ReadCallout([]byte(`{"opportunityId":` + string(said.ID) + `}`))
		return web.Pushed{Events: events}, err
	}
}

// secretsAfresh is how long the secrets of a sender are kept before they are read again.
const secretsAfresh = 5 * time.Second

// liveKeys are the keys of one sender. One secret that cannot be read takes nothing from the others: during a rotation the
// old one goes.
type liveKeys struct {
	refs   []secret.Ref
	public []crypto.PublicKey

	mu   sync.Mutex
	read time.Time
	keys webhooks.Keys
	err  error
}

func (l *liveKeys) get() (webhooks.Keys, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if since := time.Since(l.read); !l.read.IsZero() && since < secretsAfresh {
		return l.keys, l.err
	}
	keys := webhooks.Keys{Public: l.public}
	var errs []error
	for _, ref := range l.refs {
		s, err := ref.Resolve()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys.Secrets = append(keys.Secrets, s)
	}
	l.keys, l.err, l.read = keys, nil, time.Now()
	if len(keys.Secrets)+len(keys.Public) == 0 {
		l.err = errors.Join(errs...)
	}
	return l.keys, l.err
}

// unreadable says what is wrong with secrets, also when others are left.
func (l *liveKeys) unreadable() (errs []error) {
	for _, ref := range l.refs {
		if _, err := ref.Resolve(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func readPublicKeys(file string) (keys []crypto.PublicKey, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		key, err := parsePublicKey(block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no public key or certificate in PEM", file)
	}
	return keys, nil
}

func parsePublicKey(block *pem.Block) (crypto.PublicKey, error) {
	switch {
	case block.Type == "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case strings.Contains(block.Type, "PRIVATE"):
		return nil, errors.New("it holds a private key: only the sender has that")
	}
	return nil, fmt.Errorf("a %s is no public key", block.Type)
}
