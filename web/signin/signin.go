// Package signin lets people sign in to the status page at an OpenID provider: the authorization code flow (OpenID Connect
// Core 1.0, 3.1) with state, nonce and PKCE (RFC 7636, S256).
//
// A browser that is sent to the provider takes a ticket with it, which only this process can open and which is good once. The
// tokens that a code is exchanged for are looked at and forgotten: none is kept, and no error tells of one. Which role a
// person has here is what the configuration makes of one claim of the ID token; who has none is not let in.
package signin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/dealseal/dealseal/deal"
)

// Options say which provider it is, and who of its people may do what.
type Options struct {
	// Issuer is the provider's address, as it calls itself. ClientID is what it calls us.
	Issuer, ClientID string
	// Secret returns what we show to it with each code.
	Secret func() (string, error)
	// Page is the address of the status page as browsers know it, without a slash at its end.
	Page string
	// Scopes are asked for beside openid.
	Scopes []string
	// Claim is that of the ID token whose values have roles: its name, or a path with dots.
	Claim string
	// Roles are looked through in this order: a person has the first that one of the claim's values stands for.
	Roles []Grant
	// Who is the claim that people are called by beside the subject.
	Who string
	// Roots are those of the provider's certificate; nil: the system's.
	Roots *x509.CertPool
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Grant gives a role to those whose claim has a value.
type Grant struct {
	Value string
	Role  deal.TokenRole
}

// Person is somebody whom the provider vouches for and who has a role here.
type Person struct {
	Who  string
	Role deal.TokenRole
	// To is the page that was wanted.
	To string
}

// Provider is safe for concurrent use.
type Provider struct {
	o      Options
	client *http.Client
	// places are for those who wait for the provider: whoever reaches the page can have it asked.
	places  chan struct{}
	tickets tickets

	mu    sync.Mutex
	known *provider
}

// mostAsking is how many may wait for the provider at the same time.
const mostAsking = 8

// New asks nothing of the provider, which may be down.
func New(o Options) *Provider {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Provider{o: o, client: newClient(o.Roots), places: make(chan struct{}, mostAsking), tickets: newTickets(o.Now)}
}

// Back is the path of the page at which people come back from the provider.
const Back = "/sign-in/back"

// Encrypted reports whether browsers know the page by https.
func (p *Provider) Encrypted() bool { return strings.HasPrefix(p.o.Page, "https:") }

// Start is the address at which somebody who wants a page begins to sign in. Under another one than the page's own the
// browser would come back without its ticket.
func (p *Provider) Start(to string) string {
	return p.o.Page + "/sign-in?" + url.Values{"to": {safe(to)}}.Encode()
}

// Host is the name that the page is opened under.
func (p *Provider) Host() string {
	u, err := url.Parse(p.o.Page)
	if err != nil {
		return ""
	}
	return u.Host
}

// Begin returns where the browser goes, and the ticket that it brings back within TicketLasts. The error is a *DownError.
func (p *Provider) Begin(ctx context.Context, to string) (address, ticket string, err error) {
	release, err := p.place(ctx)
	if err != nil {
		return "", "", err
	}
	defer release()
	known, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	t := journey{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), To: safe(to)}
	ticket, err = p.tickets.seal(t)
	return p.flow(known, "").AuthCodeURL(t.State, oidc.Nonce(t.Nonce), oauth2.S256ChallengeOption(t.Verifier)), ticket, err
}

// Finish looks at what a browser has come back with. Errors are *DownError and *RefusedError.
func (p *Provider) Finish(ctx context.Context, ticket string, q url.Values) (Person, error) {
	t, ok := p.tickets.open(ticket)
	switch {
	case !ok:
		return Person{}, refused("the browser brings no ticket of ours, or one that is too old")
	case subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(t.State)) != 1:
		return Person{}, refused("the state is not that of the ticket")
	case !p.tickets.spend(t):
		return Person{}, refused("the ticket was used before")
	}
	release, err := p.place(ctx)
	if err != nil {
		return Person{}, err
	}
	defer release()
	known, err := p.discover(ctx)
	if err != nil {
		return Person{}, err
	}
	switch iss := q.Get("iss"); {
	case iss != p.o.Issuer && (iss != "" || known.NamesItself):
		return Person{}, refused("the answer is in the name of another issuer, or of none") // RFC 9207, 2.4
	case q.Get("error") != "":
		return Person{}, refused("the provider says " + word(q.Get("error")))
	}
	token, err := p.exchange(ctx, known, q.Get("code"), t.Verifier)
	if err != nil {
		return Person{}, err
	}
	claims, err := p.verify(ctx, known, token, t.Nonce)
	if err != nil {
		return Person{}, err
	}
	return p.admit(claims, t.To)
}

func (p *Provider) place(ctx context.Context) (release func(), err error) {
	select {
	case p.places <- struct{}{}:
		return func() { <-p.places }, nil
	case <-ctx.Done():
		return nil, &DownError{"others wait for it already"}
	}
}

// flow is how the provider is spoken to.
func (p *Provider) flow(known *provider, secret string) *oauth2.Config {
	return &oauth2.Config{ClientID: p.o.ClientID, ClientSecret: secret, Endpoint: known.endpoint, RedirectURL: p.o.Page + Back, Scopes: append([]string{oidc.ScopeOpenID}, p.o.Scopes...)}
}

// admit finds the person's role and name.
func (p *Provider) admit(c claims, to string) (Person, error) {
	sub := c.text("sub")
	if !tellable(sub, 255) { // Core 2: at most 255 ASCII characters
		return Person{}, refused("the subject is missing, or is no text that the audit log could hold")
	}
	if p.o.Claim == "email" && !c.yes("email_verified") {
		return Person{}, refused(fmt.Sprintf("the provider does not say that the email of the subject %s is verified", sub))
	}
	values := c.list(p.o.Claim)
	for _, g := range p.o.Roles {
		if slices.Contains(values, g.Value) {
			return Person{Who: called(c, p.o.Who, sub), Role: g.Role, To: to}, nil
		}
	}
	if values == nil {
		return Person{}, refused(fmt.Sprintf("the ID token of the subject %s has no claim %s", sub, p.o.Claim))
	}
	return Person{}, refused(fmt.Sprintf("no value of the claim %s of the subject %s has a role", p.o.Claim, sub))
}

// called is what a person is called in the audit log. The subject is always in it: the rest may change hands.
func called(c claims, claim, sub string) string {
	name := c.text(claim)
	if claim == "email" && !c.yes("email_verified") || claim == "sub" || !tellable(name, 128) {
		return "oidc:" + sub
	}
	return name + " (oidc:" + sub + ")"
}

// safe is a path of our own, without what stands in its query: the start page for everything else.
func safe(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || len(u.Path) > 256 || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.ContainsAny(u.Path, "\\;") || !tellable(u.Path, 256) {
		return "/"
	}
	return u.EscapedPath()
}
