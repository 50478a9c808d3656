package revocation

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	defaultTimeout = 10 * time.Second
	defaultSkew    = 5 * time.Minute
	// maxOCSP bounds a response: one with certificates is 2 to 5 kB. maxCRL bounds a list; those of large public CAs have
	// some megabytes.
	maxOCSP = 256 << 10
	maxCRL  = 32 << 20
	// maxAddresses bounds how many addresses of one certificate are asked.
	maxAddresses = 8
	// maxCached bounds the cache; it holds one entry for each certificate in use.
	maxCached = 256
	// maxRedirects is for lists that are kept elsewhere than the certificate says.
	maxRedirects = 3
)

// Options of NewClient.
type Options struct {
	HTTP    *http.Client     // default: a client of its own
	Now     func() time.Time // default time.Now
	Skew    time.Duration    // how far other clocks may be from ours; default 5 min
	Timeout time.Duration    // of one exchange; default 10 s
	Log     *slog.Logger     // default: silent
}

// Client fetches evidence. It keeps what it has until newer evidence is due. It is safe for concurrent use.
type Client struct {
	o Options

	mu     sync.Mutex
	cached map[[sha256.Size]byte]*Evidence
}

// NewClient returns a client with an empty cache.
func NewClient(o Options) *Client {
	if o.HTTP == nil {
		o.HTTP = &http.Client{}
	}
	client := *o.HTTP
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || r.Method != http.MethodGet || via[0].Method != http.MethodGet {
			return http.ErrUseLastResponse
		}
		return nil
	}
	o.HTTP = &client
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Skew <= 0 {
		o.Skew = defaultSkew
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{o: o, cached: map[[sha256.Size]byte]*Evidence{}}
}

// Check returns fresh evidence about cert, which issuer made: Evidence.Revoked says what it says. Evidence that is kept is
// used only if it was made at since or later. The addresses are those in the certificate; what each of
// them did wrong is in an *Error if none gives evidence. A certificate that names no address is a permanent error.
func (c *Client) Check(ctx context.Context, cert, issuer *x509.Certificate, since time.Time) (*Evidence, error) {
	id := sha256.Sum256(append(bytes.Clone(cert.Raw), issuer.Raw...))
	if e := c.known(id, since); e != nil {
		return e, nil
	}
	e, err := c.ask(ctx, sources(cert), cert, issuer)
	if err == nil {
		c.keep(id, e)
	}
	return e, err
}

// AskResponders is Check of the OCSP responders alone, and of nothing that is kept.
func (c *Client) AskResponders(ctx context.Context, cert, issuer *x509.Certificate) (*Evidence, error) {
	list := slices.DeleteFunc(sources(cert), func(s source) bool { return s.kind != OCSP })
	return c.ask(ctx, list, cert, issuer)
}

// ask goes through the sources until one gives evidence.
func (c *Client) ask(ctx context.Context, list []source, cert, issuer *x509.Certificate) (*Evidence, error) {
	failed := &Error{Subject: cert.Subject.String()}
	for _, s := range list[:min(len(list), maxAddresses)] {
		if failed.cancelled = ctx.Err(); failed.cancelled != nil {
			return nil, failed
		}
		e, err := c.fetch(ctx, s, cert, issuer)
		if err == nil {
			return e, nil
		}
		c.o.Log.WarnContext(ctx, "no evidence of revocation", "kind", s.kind, "source", s.name, "error", err)
		failed.Sources = append(failed.Sources, &SourceError{Kind: s.kind, Source: s.name, Err: err})
	}
	failed.cancelled = ctx.Err()
	return nil, failed
}

// known returns what is kept and still good.
func (c *Client) known(id [sha256.Size]byte, since time.Time) *Evidence {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.cached[id]
	if e == nil || e.NextUpdate.IsZero() || !c.o.Now().Before(e.NextUpdate) || e.ProducedAt.Before(since) {
		return nil
	}
	return e
}

func (c *Client) keep(id [sha256.Size]byte, e *Evidence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.cached) >= maxCached {
		clear(c.cached)
	}
	c.cached[id] = e
}

// source is an address of evidence.
type source struct {
	kind    Kind
	address string
	name    string // for people: without a query
}

// sources lists what a certificate names: responders first, but lists for an authority's own certificate. The list of an
// authority over authorities is short, and some validators ask for one there. Only HTTP is spoken: a directory (LDAP) is
// passed over.
func sources(cert *x509.Certificate) (list []source) {
	add := func(kind Kind, addresses []string) {
		for _, a := range addresses {
			u, err := url.Parse(a)
			if err == nil && u.Host != "" && u.User == nil && (u.Scheme == "http" || u.Scheme == "https") {
				list = append(list, source{kind, a, u.Scheme + "://" + u.Host + u.Path})
			}
		}
	}
	if cert.IsCA {
		add(CRL, cert.CRLDistributionPoints)
	}
	add(OCSP, cert.OCSPServer)
	if !cert.IsCA {
		add(CRL, cert.CRLDistributionPoints)
	}
	return list
}

func (c *Client) fetch(ctx context.Context, s source, cert, issuer *x509.Certificate) (e *Evidence, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	if s.kind == OCSP {
		e, err = c.askResponder(ctx, s, cert, issuer)
	} else {
		e, err = c.readList(ctx, s, cert, issuer)
	}
	if err != nil {
		return nil, err
	}
	e.Source = s.name
	if err := e.Knows(cert); err != nil {
		return nil, err
	}
	return e, e.Fresh(c.o.Now(), c.o.Skew)
}

// askResponder demands its nonce back only of those who send one: many answer from a store.
func (c *Client) askResponder(ctx context.Context, s source, cert, issuer *x509.Certificate) (*Evidence, error) {
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	body, err := request(cert, issuer, nonce)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	der, err := c.exchange(req, "application/ocsp-response", maxOCSP)
	if err != nil {
		return nil, err
	}
	e, err := ParseOCSP(der, cert, issuer)
	if err == nil && e.Nonce != nil && !bytes.Equal(e.Nonce, nonce) {
		err = &FormatError{OCSP, "answers another question: its nonce is not ours"}
	}
	return e, err
}

func (c *Client) readList(ctx context.Context, s source, cert, issuer *x509.Certificate) (*Evidence, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.address, nil)
	if err != nil {
		return nil, err
	}
	der, err := c.exchange(req, "", maxCRL)
	if err != nil {
		return nil, err
	}
	return ParseCRL(der, cert, issuer)
}

// exchange reads an answer to its end, but no further than limit. mediaType is demanded unless it is empty: lists are
// served as anything.
func (c *Client) exchange(req *http.Request, mediaType string, limit int64) ([]byte, error) {
	req.Header.Set("User-Agent", "dealseal")
	resp, err := c.o.HTTP.Do(req)
	if err != nil {
		var where *url.Error
		if errors.As(err, &where) {
			err = where.Err // the address may have a query
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	if got, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType != "" && !strings.EqualFold(got, mediaType) {
		return nil, fmt.Errorf("the answer is of type %q, not %s", got, mediaType)
	}
	der, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(der)) > limit {
		return nil, fmt.Errorf("the answer is larger than %d bytes", limit)
	}
	return der, nil
}

// Error says that nobody gave evidence. Unwrap gives what each source did.
type Error struct {
	// Subject is that of the certificate in question.
	Subject   string
	Sources   []*SourceError
	cancelled error
}

func (e *Error) Error() string {
	if len(e.Sources) == 0 && e.cancelled == nil {
		return fmt.Sprintf("revocation: the certificate of %s names neither an OCSP responder nor a revocation list that can be had over HTTP", e.Subject)
	}
	parts := make([]string, 0, len(e.Sources)+1)
	for _, s := range e.Sources {
		parts = append(parts, s.Error())
	}
	if e.cancelled != nil {
		parts = append(parts, e.cancelled.Error())
	}
	return fmt.Sprintf("revocation: no evidence about %s: %s", e.Subject, strings.Join(parts, "; "))
}

// Unwrap lets errors.Is and errors.As reach every source's error and the context's.
func (e *Error) Unwrap() []error {
	all := make([]error, 0, len(e.Sources)+1)
	for _, s := range e.Sources {
		all = append(all, s)
	}
	if e.cancelled != nil {
		all = append(all, e.cancelled)
	}
	return all
}

// Permanent reports whether there is nobody to ask: a certificate's addresses do not change. Trouble with those who are
// asked is somebody's to mend while the schedule runs.
func (e *Error) Permanent() bool { return len(e.Sources) == 0 && e.cancelled == nil }

// SourceError is the failure of one source.
type SourceError struct {
	Kind   Kind
	Source string // its address without the query
	Err    error
}

func (e *SourceError) Error() string { return e.Source + ": " + e.Err.Error() }
func (e *SourceError) Unwrap() error { return e.Err }
