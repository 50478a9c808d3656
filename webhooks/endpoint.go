package webhooks

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/secret"
)

// Endpoint is where events of a tenant are delivered to, and how.
type Endpoint struct {
	// ID is tenant/name.
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	// URL may hold a token of its receiver: it is kept like a secret, and only its host is shown.
	URL     string `json:"url"`
	Dialect string `json:"dialect"`
	Format  string `json:"format"`
	// Events are patterns of names in the format; none: all.
	Events []string `json:"events,omitempty"`
	// Callbacks has the endpoint told of those deals only that a program has asked for with an address at or below URL, and at
	// that address.
	Callbacks bool `json:"callbacks,omitempty"`
	// Title has the contract's file name in events, which may hold names of people.
	Title bool `json:"title,omitempty"`
	// Asymmetric signs with Ed25519 (v1a) instead of a shared secret; of standard-webhooks only.
	Asymmetric bool `json:"asymmetric,omitempty"`
	// Headers, Signed and Encoding are those of a custom dialect.
	Headers  map[string]string `json:"headers,omitempty"`
	Signed   string            `json:"signed,omitempty"`
	Encoding string            `json:"encoding,omitempty"`
	// Waits are the pauses before each further attempt; none: the dialect's.
	Waits []time.Duration `json:"waits,omitempty"`
	// Timeout ends an attempt; Concurrency is how many are made at the same time.
	Timeout     time.Duration `json:"timeout"`
	Concurrency int           `json:"concurrency"`
	// AlarmAt is after how many failed attempts in a row the endpoint counts as broken; DisableThen has it disabled then.
	AlarmAt     int  `json:"alarm_at"`
	DisableThen bool `json:"disable_then,omitempty"`
	// ClientCert and ClientKey are files, in PEM.
	ClientCert string `json:"client_cert,omitempty"`
	ClientKey  string `json:"client_key,omitempty"`
	// Pins are keys one of which the receiver's chain has to have; none: any.
	Pins pins.Set `json:"pins,omitempty"`
	// Secrets are those that count, the newest first. During a rotation there are two.
	Secrets []Secret `json:"-"`
}

// Secret is one that an endpoint's receiver knows, or the private half of what it knows.
type Secret struct {
	Value secret.Secret
	// Until is when it ends, because a newer one has taken its place; the zero time: never.
	Until time.Time
}

// Bounds of what an endpoint may ask for.
const (
	maxTimeout     = 30 * time.Second // a stop of the daemon waits for attempts
	maxConcurrency = 32
	maxWaits       = 20
	maxWait        = 7 * 24 * time.Hour
	leastSecret    = 16 // bytes
)

// Defaults fills in what was left out.
func (e *Endpoint) Defaults() {
	if e.Dialect == "" {
		e.Dialect = "standard-webhooks"
	}
	if d, err := dialectOf(e.Dialect); err == nil && e.Format == "" {
		e.Format = d.format
	}
	if e.Timeout == 0 {
		e.Timeout = 10 * time.Second
	}
	if e.Concurrency == 0 {
		e.Concurrency = 4
	}
	if e.AlarmAt == 0 {
		e.AlarmAt = 20
	}
	// What is empty is as if it was left out, so that two endpoints that mean the same are the same.
	if len(e.Events) == 0 {
		e.Events = nil
	}
	if len(e.Waits) == 0 {
		e.Waits = nil
	}
	if len(e.Headers) == 0 {
		e.Headers = nil
	}
	if len(e.Pins) == 0 {
		e.Pins = nil
	}
	if e.Dialect == "custom" && e.Signed == "" {
		e.Signed = "{body}"
	}
	if e.Dialect == "custom" && e.Encoding == "" {
		e.Encoding = "hex"
	}
}

// FieldError says which field of an endpoint is wrong.
type FieldError struct{ Field, Msg string }

func (e *FieldError) Error() string { return e.Field + ": " + e.Msg }

var (
	endpointForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}/[a-z0-9][a-z0-9-]{0,62}$`)
	placeholderForm = regexp.MustCompile(`\{[^}]*\}`)
	headerForm      = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`)
)

// Check returns all that is wrong, each a *FieldError, joined. No message holds the URL or a secret.
func (e *Endpoint) Check() error {
	var errs []error
	fail := func(field, format string, args ...any) {
		errs = append(errs, &FieldError{field, fmt.Sprintf(format, args...)})
	}
	if !endpointForm.MatchString(e.ID) {
		fail("id", "%q must be 1 to 63 lower-case letters, digits and hyphens", strings.TrimPrefix(e.ID, e.Tenant+"/"))
	}
	if err := checkURL(e.URL); err != nil {
		fail("url", "%v", err)
	}
	d, err := dialectOf(e.Dialect)
	if err != nil {
		fail("dialect", "%v", err)
		return errors.Join(errs...)
	}
	f, err := formatOf(e.Format)
	if err != nil {
		fail("format", "%v", err)
		return errors.Join(errs...)
	}
	for _, pattern := range e.Events {
		if !slices.ContainsFunc(f.Names(), func(name string) bool { return Matches(pattern, name) }) {
			fail("events", "%q means no event of format %s: it has %s", pattern, f.Name, strings.Join(f.Names(), ", "))
		}
	}
	if e.Asymmetric && d.name != "standard-webhooks" {
		fail("asymmetric", "only standard-webhooks has a signature with Ed25519")
	}
	e.checkBounds(fail)
	e.checkCustom(fail)
	for _, s := range e.Secrets {
		if err := e.checkSecret(s.Value); err != nil {
			fail("secret", "%v", err)
		}
	}
	return errors.Join(errs...)
}

func (e *Endpoint) checkBounds(fail func(field, format string, args ...any)) {
	if e.Timeout < time.Second || e.Timeout > maxTimeout {
		fail("timeout", "%s is not between 1s and %s", e.Timeout, maxTimeout)
	}
	if e.Concurrency < 1 || e.Concurrency > maxConcurrency {
		fail("concurrency", "%d is not between 1 and %d", e.Concurrency, maxConcurrency)
	}
	if e.AlarmAt < 4 || e.AlarmAt > 1000 {
		fail("alarm_at", "%d is not between 4 and 1000", e.AlarmAt)
	}
	if len(e.Waits) > maxWaits || slices.ContainsFunc(e.Waits, func(w time.Duration) bool { return w < 0 || w > maxWait }) {
		fail("retry", "it must be at most %d waits of at most %s each", maxWaits, maxWait)
	}
	if (e.ClientCert == "") != (e.ClientKey == "") {
		fail("client_cert", "a client certificate needs client_cert and client_key")
	}
	if e.Pins != nil && !strings.HasPrefix(e.URL, "https:") {
		fail("pins", "pins need an https address: nothing is presented on others that could be pinned")
	}
}

// checkCustom is for the templates of a custom dialect.
func (e *Endpoint) checkCustom(fail func(field, format string, args ...any)) {
	if e.Dialect != "custom" {
		if len(e.Headers) > 0 || e.Signed != "" || e.Encoding != "" {
			fail("headers", "headers, signed and encoding belong to dialect custom")
		}
		return
	}
	signature := false
	for name, value := range e.Headers {
		if !headerForm.MatchString(name) || ownHeaders[http.CanonicalHeaderKey(name)] {
			fail("headers", "%q cannot be set", name)
		}
		signature = signature || strings.Contains(value, "{signature}")
		checkTemplate(value, fail, "headers", "signature", "id", "timestamp", "timestamp_ms", "event")
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			fail("headers", "%s must be printable ASCII", name)
		}
	}
	if !signature {
		fail("headers", "no header has {signature}")
	}
	checkTemplate(e.Signed, fail, "signed", "body", "id", "timestamp", "timestamp_ms", "event")
	if !strings.Contains(e.Signed, "{body}") {
		fail("signed", "it must have {body}: else the body could be changed on its way")
	}
	if e.Encoding != "hex" && e.Encoding != "base64" {
		fail("encoding", "it is %q: it must be hex or base64", e.Encoding)
	}
}

// ownHeaders are set by whoever makes the request.
var ownHeaders = map[string]bool{"Host": true, "Content-Length": true, "Content-Type": true, "User-Agent": true, "Connection": true, "Transfer-Encoding": true, "Te": true, "Trailer": true, "Upgrade": true}

func checkTemplate(text string, fail func(field, format string, args ...any), field string, known ...string) {
	for _, p := range placeholderForm.FindAllString(text, -1) {
		if !slices.Contains(known, strings.Trim(p, "{}")) {
			fail(field, "%s is not known there: it may have {%s}", p, strings.Join(known, "}, {"))
		}
	}
}

// checkURL refuses what can never be delivered to. http is for loopback alone; that is looked at when it is connected to.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("it is not an address such as https://example.com/hooks") // the text may hold a token
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("it must begin with https://, or with http:// for a receiver on this machine")
	case u.User != nil:
		return errors.New("it has a user name: what it is signed with says who we are")
	case u.Fragment != "":
		return errors.New("it has a fragment, which is never sent")
	}
	return nil
}

// longestCallback is the longest address that is called back.
const longestCallback = 2048

// Covers reports whether callbacks may go to an address: it must be that of the endpoint or one below it on the same host, as it
// stands, with any query.
func (e *Endpoint) Covers(address string) bool {
	if !e.Callbacks || len(address) > longestCallback || checkURL(address) != nil {
		return false
	}
	own, err := url.Parse(e.URL)
	if err != nil {
		return false
	}
	to, err := url.Parse(address)
	if err != nil || to.Scheme != own.Scheme || !strings.EqualFold(to.Host, own.Host) {
		return false
	}
	base, at := strings.TrimSuffix(own.EscapedPath(), "/"), to.EscapedPath()
	if strings.ContainsAny(at, "%;") || strings.Contains(at, "//") || at != "" && path.Clean(at) != strings.TrimSuffix(at, "/") && at != "/" {
		return false // what a server makes of it may be another place
	}
	return at == base || strings.HasPrefix(at, base+"/")
}

// Host is the part of the URL that may be shown.
func (e *Endpoint) Host() string {
	u, err := url.Parse(e.URL)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (e *Endpoint) checkSecret(s secret.Secret) error {
	if e.Asymmetric {
		_, err := standardPrivate(string(s.Reveal()))
		return err
	}
	key, err := e.key(s)
	if err == nil && len(key) < leastSecret {
		err = fmt.Errorf("it has %d bytes: at least %d are needed", len(key), leastSecret)
	}
	return err
}

// key is what a shared secret is to HMAC.
func (e *Endpoint) key(s secret.Secret) ([]byte, error) {
	if e.Dialect == "standard-webhooks" {
		return standardSecret(string(s.Reveal()))
	}
	return s.Reveal(), nil
}

// NewSecret makes one that fits the endpoint.
func (e *Endpoint) NewSecret() (secret.Secret, error) {
	b := make([]byte, 32)
	rand.Read(b)
	text := base64.StdEncoding.EncodeToString(b)
	switch {
	case e.Asymmetric:
		text = prefixPrivate + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(b))
	case e.Dialect == "standard-webhooks":
		text = prefixSecret + text
	default:
		text = hex.EncodeToString(b)
	}
	return secret.New([]byte(text)), nil
}

// Shown is what a receiver has to be given: the secret, or the public key.
func (e *Endpoint) Shown(s secret.Secret) (string, error) {
	if !e.Asymmetric {
		return string(s.Reveal()), nil
	}
	key, err := standardPrivate(string(s.Reveal()))
	if err != nil {
		return "", err
	}
	return PublicKey{PublicKey: key.Public().(ed25519.PublicKey)}.String(), nil
}

// PublicKey is what a receiver verifies with.
type PublicKey struct {
	ed25519.PublicKey
	// Until is when it ends, because a newer one has taken its place; the zero time: never.
	Until time.Time
}

// String is the key as libraries of Standard Webhooks take it.
func (k PublicKey) String() string {
	return prefixPublic + base64.StdEncoding.EncodeToString(k.PublicKey)
}

// PublicKeys are those that count at a time, the newest first; none of an endpoint that shares a secret.
func (e *Endpoint) PublicKeys(now time.Time) (all []PublicKey, err error) {
	if !e.Asymmetric {
		return nil, nil
	}
	for _, s := range e.Secrets {
		if !s.Until.IsZero() && !now.Before(s.Until) {
			continue
		}
		key, err := standardPrivate(string(s.Value.Reveal()))
		if err != nil {
			return nil, err
		}
		all = append(all, PublicKey{key.Public().(ed25519.PublicKey), s.Until})
	}
	return all, nil
}

// Wants reports whether an event of a type is delivered here.
func (e *Endpoint) Wants(native string) bool {
	f, err := formatOf(e.Format)
	if err != nil {
		return false
	}
	if kind, known := Known(native); known && kind.Operator {
		return false
	}
	name := f.name(native)
	if name == "" || len(e.Events) == 0 {
		return name != ""
	}
	return slices.ContainsFunc(e.Events, func(pattern string) bool { return Matches(pattern, name) })
}

// live are the secrets that count at a time.
func (e *Endpoint) live(at time.Time) (out []Secret) {
	for _, s := range e.Secrets {
		if s.Until.IsZero() || s.Until.After(at) {
			out = append(out, s)
		}
	}
	return out
}

// dialect is how a message is signed, and when it is sent again.
type dialect struct {
	name   string
	format string          // unless the endpoint says otherwise
	waits  []time.Duration // before each further attempt
	sign   func(e *Endpoint, m message) (http.Header, error)
}

// message is what is signed.
type message struct {
	id, event string
	at        time.Time
	body      []byte
	secrets   []Secret
	attempt   int // from 1; a dialect whose header has room for one signature takes turns
}

const day = 24 * time.Hour

// spoken are the dialects for endpoints.
var spoken = []dialect{
	{"standard-webhooks", "native", []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, day}, standardHeaders},
	{"sdf", "sdf", []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}, sdfHeaders},
	{"certyneo", "certyneo", []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour}, certyneoHeaders},
	{"custom", "native", []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour}, customHeaders},
}

func dialectOf(name string) (dialect, error) {
	var known []string
	for _, d := range spoken {
		if d.name == name {
			return d, nil
		}
		known = append(known, d.name)
	}
	return dialect{}, fmt.Errorf("it is %q: it must be one of %s", name, strings.Join(known, ", "))
}

func standardHeaders(e *Endpoint, m message) (http.Header, error) {
	var signatures []string
	for _, s := range m.secrets {
		if e.Asymmetric {
			key, err := standardPrivate(string(s.Value.Reveal()))
			if err != nil {
				return nil, err
			}
			signatures = append(signatures, signStandardKey(key, m.id, m.at, m.body))
			continue
		}
		key, err := e.key(s.Value)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, signStandard(key, m.id, m.at, m.body))
	}
	h := http.Header{}
	h.Set(HeaderID, m.id)
	h.Set(HeaderTimestamp, seconds(m.at))
	h.Set(HeaderSignature, strings.Join(signatures, " "))
	return h, nil
}

func certyneoHeaders(_ *Endpoint, m message) (http.Header, error) {
	value := "t=" + seconds(m.at)
	for _, s := range m.secrets {
		value += ",v1=" + signCertyneo(s.Value.Reveal(), m.at, m.body)
	}
	h := http.Header{}
	h.Set(HeaderCertyneo, value)
	return h, nil
}

// turn is the secret that a header with room for one signature is made with: the older first, which the receiver has for
// sure when a rotation begins, then the other.
func (m message) turn() []byte {
	n := len(m.secrets)
	return m.secrets[(n-1+m.attempt-1)%n].Value.Reveal()
}

func sdfHeaders(_ *Endpoint, m message) (http.Header, error) {
	h := http.Header{}
	h.Set(HeaderSDF, signSDF(m.turn(), m.body))
	return h, nil
}

func customHeaders(e *Endpoint, m message) (http.Header, error) {
	// The body is put in last, so that no placeholder in it is one.
	head, tail, _ := strings.Cut(e.Signed, "{body}")
	fill := strings.NewReplacer("{id}", m.id, "{event}", m.event, "{timestamp}", seconds(m.at), "{timestamp_ms}", strconv.FormatInt(m.at.UnixMilli(), 10))
	sum := mac(m.turn(), []byte(fill.Replace(head)), m.body, []byte(strings.ReplaceAll(fill.Replace(tail), "{body}", string(m.body))))
	signature := hex.EncodeToString(sum)
	if e.Encoding == "base64" {
		signature = base64.StdEncoding.EncodeToString(sum)
	}
	h := http.Header{}
	for name, value := range e.Headers {
		h.Set(name, strings.ReplaceAll(fill.Replace(value), "{signature}", signature))
	}
	return h, nil
}

// waits are the pauses between attempts.
func (e *Endpoint) waits() []time.Duration {
	if len(e.Waits) > 0 {
		return e.Waits
	}
	d, err := dialectOf(e.Dialect)
	if err != nil {
		return nil
	}
	return d.waits
}
