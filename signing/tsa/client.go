// Package tsa asks time-stamping authorities (RFC 3161) for tokens over HTTP and verifies tokens, those just asked for and those found in documents.
//
// Everything about a token is checked here, nothing is left to the parser: imprint, nonce, policy, the purpose and the chain of the certificate, the
// signing-certificate attribute, the signature and the time.
package tsa

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

const (
	defaultTimeout = 10 * time.Second
	defaultSkew    = 5 * time.Minute
	// maxResponse bounds an answer. Tokens are 2 to 10 kB; they are embedded in a document and have little room there anyway.
	maxResponse = 256 << 10
	// maxRetryAfter bounds what a server may ask for: no wait may look like silence.
	maxRetryAfter = time.Hour
)

// Server is one time-stamping authority.
type Server struct {
	URL     string                // http or https, without user information
	Timeout time.Duration         // of one whole exchange; default 10 s
	Policy  asn1.ObjectIdentifier // when set, asked for and demanded
	Quota   int                   // how many requests a day (UTC) it may be sent; 0 means any number
}

// Options of NewClient.
type Options struct {
	HTTP  *http.Client     // default: a client of its own; redirects are never followed
	Roots *x509.CertPool   // whom to trust for time; required
	Now   func() time.Time // default time.Now
	Skew  time.Duration    // how far genTime may be from our clock, either way; default 5 min
	Log   *slog.Logger     // default: silent
	// Counter counts the requests to servers that have a quota; by default they are counted for as long as the client lives.
	Counter Counter
	// Seen is told of every request: the server's URL without its query, how long it took, and the error of what came to
	// nothing. It must not block; nil is fine.
	Seen func(server string, took time.Duration, err error)
}

// Client asks its servers in their order until one gives a good token; one that has failed is asked after the others for a while. It is safe for
// concurrent use.
type Client struct {
	servers []*server
	options Options
}

type server struct {
	Server
	name   string // the URL without its query, which may hold a key; no other server has the same
	health health
}

// NewClient checks the servers' addresses; it does not contact them.
func NewClient(servers []Server, o Options) (*Client, error) {
	if len(servers) == 0 {
		return nil, errors.New("tsa: no server: give at least one url")
	}
	if o.Roots == nil {
		return nil, errors.New("tsa: no trusted roots: give the root certificate of the time-stamping authority")
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{}
	}
	client := *o.HTTP
	// A redirected POST becomes a GET, and the token of whoever answers at the end is not what was configured.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTP = &client
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Skew <= 0 {
		o.Skew = defaultSkew
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Counter == nil {
		o.Counter = &ownCounter{}
	}
	c := &Client{options: o}
	known := map[string]int{}
	for i, s := range servers {
		u, err := url.Parse(s.URL)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return nil, fmt.Errorf("tsa: server %d: the url must be an absolute http or https address", i+1)
		case u.User != nil:
			return nil, fmt.Errorf("tsa: server %d: the url must not hold a user name or password", i+1)
		}
		if s.Timeout <= 0 {
			s.Timeout = defaultTimeout
		}
		name := u.Scheme + "://" + u.Host + u.Path
		if known[name]++; known[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, known[name]) // another account at the same address
		}
		c.servers = append(c.servers, &server{Server: s, name: name})
	}
	return c, nil
}

// Timestamp returns the DER of a verified TimeStampToken over a digest made with SHA-256, SHA-384 or SHA-512. When no server gives one the error is an
// *Error that holds one *ServerError for each server asked; a cancelled context ends the round at once.
func (c *Client) Timestamp(ctx context.Context, digest []byte, h crypto.Hash) ([]byte, error) {
	if hashOID(h) == nil {
		return nil, &argumentError{fmt.Sprintf("hash %v is not SHA-256, SHA-384 or SHA-512", h)}
	}
	if len(digest) != h.Size() {
		return nil, &argumentError{fmt.Sprintf("a digest of %d bytes is not one of %v", len(digest), h)}
	}
	var failed Error
	for _, s := range c.inOrder() {
		if err := ctx.Err(); err != nil {
			failed.cancelled = err
			return nil, &failed
		}
		if err := c.take(ctx, s); err != nil {
			failed.Servers = append(failed.Servers, &ServerError{Server: s.name, Err: err})
			continue
		}
		start := time.Now()
		token, err := c.ask(ctx, s, digest, h)
		if ctx.Err() == nil {
			s.health.note(err, c.options.Now())
		}
		if c.options.Seen != nil {
			c.options.Seen(s.name, time.Since(start), err)
		}
		if err == nil {
			return token, nil
		}
		c.options.Log.WarnContext(ctx, "time-stamp server failed", "server", s.name, "err", err)
		failed.Servers = append(failed.Servers, &ServerError{Server: s.name, Err: err})
	}
	failed.cancelled = ctx.Err()
	return nil, &failed
}

func (c *Client) ask(ctx context.Context, s *server, digest []byte, h crypto.Hash) ([]byte, error) {
	nonce, err := newNonce()
	if err != nil {
		return nil, err
	}
	body, err := request(digest, h, nonce, s.Policy)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	answer, err := c.exchange(ctx, s, body)
	if err != nil {
		return nil, err
	}
	der, err := parseResponse(answer)
	if err != nil {
		return nil, err
	}
	if err := c.accept(der, digest, h, nonce, s.Policy); err != nil {
		return nil, err
	}
	return der, nil
}

// accept checks a token that was just made for us.
func (c *Client) accept(der, digest []byte, h crypto.Hash, nonce *big.Int, policy asn1.ObjectIdentifier) error {
	token, err := ParseToken(der)
	if err != nil {
		return err
	}
	if token.Nonce == nil || token.Nonce.Cmp(nonce) != 0 {
		return refuse(CodeNonce, "its nonce is not ours: it answers another question")
	}
	err = token.Verify(digest, h, VerifyOptions{Roots: c.options.Roots, Policy: policy})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w: if this TSA is to be trusted, add its root to signing.trust", err)
	}
	if err != nil {
		return err
	}
	if off := token.Time.Sub(c.options.Now()).Abs(); off > c.options.Skew {
		return refuse(CodeTime, "its time is %s away from this machine's clock, more than %s: check both clocks", off.Round(time.Second), c.options.Skew)
	}
	return nil
}

// newNonce makes a positive number of 64 bits: some servers refuse longer ones.
func newNonce() (*big.Int, error) {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("make a nonce: %w", err)
	}
	b[0] |= 1 // never zero, and never shorter than asked for
	return new(big.Int).SetBytes(b), nil
}

func (c *Client) exchange(ctx context.Context, s *server, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", withoutURL(err))
	}
	req.Header.Set("Content-Type", "application/timestamp-query")
	req.Header.Set("Accept", "application/timestamp-reply")
	resp, err := c.options.HTTP.Do(req)
	if err != nil {
		return nil, inWords(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{code: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"), c.options.Now())}
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "application/timestamp-reply" {
		return nil, errors.New("the answer's Content-Type is not application/timestamp-reply")
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", inWords(ctx, err))
	}
	if len(answer) > maxResponse {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxResponse)
	}
	return answer, nil
}

// inWords says what an operator needs of an error of the network, and keeps it as the cause.
func inWords(ctx context.Context, err error) error {
	err = withoutURL(err)
	var op *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &networkError{"no answer in time", err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return &networkError{"the connection broke off", err}
	case errors.As(err, &op) && op.Op == "read":
		return &networkError{op.Err.Error(), err} // without the addresses, which differ from call to call
	}
	return err
}

// networkError has words of its own.
type networkError struct {
	words string
	cause error
}

func (e *networkError) Error() string { return e.words }
func (e *networkError) Unwrap() error { return e.cause }

// withoutURL drops the address from an error of net/http, because its query may hold a key.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// retryAfter reads both forms of Retry-After (RFC 9110); 0 when there is none.
func retryAfter(value string, now time.Time) time.Duration {
	var d time.Duration
	if seconds, err := strconv.Atoi(value); err == nil {
		d = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
