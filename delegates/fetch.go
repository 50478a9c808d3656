package delegates

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

// placeholder is what stands for the envelope's ID in an address.
const placeholder = "{id}"

// Source is where a vendor keeps what was signed.
type Source struct {
	vendor  Vendor
	under   *url.URL // nothing but what is below it is fetched
	pattern string   // with the placeholder; empty when the vendor names the address
	// Token is shown to the vendor, in Header: with "Bearer " before it in Authorization, else as it is. A zero Token shows none.
	Token  secret.Ref
	Header string
	Client *http.Client // follows no redirects, and connects to nothing that is not allowed
}

// NewSource understands the address of a vendor's documents: for a vendor that names them in its events, one below which they
// all are; else one with {id} in the place of the envelope's ID.
func NewSource(v Vendor, documents string) (*Source, error) {
	under, err := url.Parse(strings.Replace(documents, placeholder, "id", 1))
	if err != nil || under.Host == "" || under.User != nil || under.Fragment != "" || under.Scheme != "https" && under.Scheme != "http" {
		return nil, errors.New("it must be an address such as https://api.example.com/v1/")
	}
	s := &Source{vendor: v, under: under, Header: "Authorization"}
	switch n := strings.Count(documents, placeholder); {
	case v.NamesURL && (n > 0 || under.RawQuery != "" || !strings.HasSuffix(under.Path, "/")):
		return nil, fmt.Errorf("it must be an address that ends with a slash: %s says in its events where below it a document is", v.Name)
	case !v.NamesURL && n != 1:
		return nil, fmt.Errorf("it must have %s once, where the ID of the document belongs: %s does not say in its events where a document is", placeholder, v.Name)
	case !v.NamesURL && strings.Contains(strings.SplitN(documents, "/", 4)[2], placeholder):
		return nil, fmt.Errorf("%s does not belong into the name of the host", placeholder)
	case !v.NamesURL:
		s.pattern = documents
	}
	return s, nil
}

// Encrypted reports whether the source is asked over TLS.
func (s *Source) Encrypted() bool { return s.under.Scheme == "https" }

// address is where the document of an envelope is. named is what the vendor has said.
func (s *Source) address(envelope, named string) (*url.URL, error) {
	if s.pattern != "" {
		return url.Parse(strings.Replace(s.pattern, placeholder, url.PathEscape(envelope), 1))
	}
	if named == "" {
		return nil, &refusedError{"the vendor has not said where the document is: have it tell of the envelope again"}
	}
	u, err := url.Parse(named)
	outside := err != nil || u.Scheme != s.under.Scheme || !strings.EqualFold(u.Host, s.under.Host) || u.User != nil ||
		!strings.HasPrefix(u.EscapedPath(), s.under.EscapedPath()) || climbs(u)
	if outside {
		return nil, &refusedError{"the vendor says that the document is somewhere else than below vendors.documents: correct that, if it is true"}
	}
	u.Fragment = ""
	return u, nil
}

// climbs reports whether a path may lead out of its folder, however it is spelled.
func climbs(u *url.URL) bool {
	escaped := strings.ToLower(u.EscapedPath())
	if strings.Contains(u.Path, "%") {
		return true // escaped twice: a server behind another may undo both
	}
	return strings.Contains(u.Path, "..") || strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%5c") || strings.Contains(u.Path, `\`)
}

// Fetch writes the document of an envelope, at most limit bytes. It is the whole document or an error. Errors hold no address,
// which may be a secret.
func (s *Source) Fetch(ctx context.Context, envelope, named string, to io.Writer, limit int64) error {
	u, err := s.address(envelope, named)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return &refusedError{"the address of the document cannot be asked for"}
	}
	r.Header.Set("Accept", "application/pdf")
	if err := s.show(r); err != nil {
		return err
	}
	resp, err := s.Client.Do(r)
	if err != nil {
		return &lostError{err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &statusError{resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"))}
	}
	end := tail{to: to}
	n, err := io.Copy(&end, io.LimitReader(resp.Body, limit+1))
	if err == nil && unbounded(resp) && !end.whole() {
		err = io.ErrUnexpectedEOF
	}
	switch {
	case n > limit:
		return &refusedError{fmt.Sprintf("the document is larger than %d MiB", limit>>20)}
	case err != nil:
		return &lostError{err}
	}
	return nil
}

// unbounded reports whether an answer ends where the connection does, so that one that breaks off looks whole (RFC 9112, 6.3).
func unbounded(r *http.Response) bool {
	return r.ContentLength < 0 && len(r.TransferEncoding) == 0 && r.ProtoMajor < 2
}

// tail passes a document on and remembers its end.
type tail struct {
	to  io.Writer
	end []byte
}

// endLies is how far before its last byte the end of a PDF may stand (ISO 32000-1, Annex H, note 18).
const endLies = 1024

func (t *tail) Write(p []byte) (int, error) {
	n, err := t.to.Write(p)
	t.end = append(t.end, p[:n]...)
	t.end = append([]byte{}, t.end[max(0, len(t.end)-endLies):]...)
	return n, err
}

// whole reports whether it ends as a PDF does.
func (t *tail) whole() bool { return bytes.Contains(t.end, []byte("%%EOF")) }

// show shows the token to the vendor.
func (s *Source) show(r *http.Request) error {
	if s.Token.IsZero() {
		return nil
	}
	token, err := s.Token.Resolve()
	if err != nil {
		return err
	}
	value := strings.TrimSpace(string(token.Reveal()))
	if s.Header == "Authorization" {
		value = "Bearer " + value
	}
	r.Header.Set(s.Header, value)
	return nil
}

// refusedError is nothing that trying again could mend.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return e.why }

// Permanent is always true.
func (e *refusedError) Permanent() bool { return true }

// lostError is a call that came to no end. Its text is without the address.
type lostError struct{ cause error }

func (e *lostError) Error() string {
	var u *url.Error
	if errors.As(e.cause, &u) {
		return "the vendor could not be reached: " + webhooks.Reason(u.Err)
	}
	return "the document broke off on its way: " + webhooks.Reason(e.cause)
}

func (e *lostError) Unwrap() error { return e.cause }

// statusError is an answer that brings no document.
type statusError struct {
	status int
	after  time.Duration
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("the vendor answers %d instead of giving the document", e.status)
	switch {
	case e.status == http.StatusUnauthorized || e.status == http.StatusForbidden:
		return text + ": see to vendors.token; if the address has expired, have the vendor tell of the envelope again"
	case e.status >= 300 && e.status < 400:
		return text + ": redirects are not followed, so name under vendors.documents where documents are"
	case e.Permanent():
		return text + ": have the vendor tell of the envelope again"
	}
	return text
}

// Permanent reports whether the same call would be answered in the same way.
func (e *statusError) Permanent() bool {
	switch e.status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.status >= 300 && e.status < 500
}

// RetryAfter is what the vendor has asked for.
func (e *statusError) RetryAfter() time.Duration { return e.after }

// mostPatience bounds what a vendor may ask for.
const mostPatience = time.Hour

func retryAfter(header string) time.Duration {
	seconds, err := strconv.Atoi(header)
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, mostPatience)
}
